/* The growing end of a spool, as C sees it: the numbers that each append moves, and where its bytes go.
 *
 * Promises: the attributes are those of mbframework.spool.writer.SpoolWriter, which inherits from Tip, and have no
 * second copy. A frame is stored whole, then the live page's words in the order TAIL, NEXT, each after what it speaks
 * of. Into a map that is a copy within this process: no system call, no Python code, nothing that a signal's handler
 * or another thread could find half done. Where Python gave functions to store with (a simulated disk), they are
 * called in the same order, with the lane's lock held.
 */
#ifndef MB_TIP_H
#define MB_TIP_H

#include "lock.h"
#include "messages.h"

/* Indices of the live page's words: mbframework.spool.headfile. */
enum { MB_WORD_NEXT = 0, MB_WORD_TAIL = 3 };

typedef struct {
    PyObject_HEAD
    unsigned long long tail, limit, salt, end, ordinal, last, frames;
    long long roll_at, last_accepted;
    char busy, attached;
    /* A segment and the live page as they are mapped; buf is NULL where there are functions in their place. */
    Py_buffer pages, words;
    PyObject *store, *store_word;
} Tip;

static PyTypeObject *Tip_type;

static PyMemberDef Tip_members[] = {
    {"_tail", T_ULONGLONG, offsetof(Tip, tail), 0, NULL},
    {"_limit", T_ULONGLONG, offsetof(Tip, limit), 0, NULL},
    {"salt", T_ULONGLONG, offsetof(Tip, salt), 0, NULL},
    {"_roll_at", T_LONGLONG, offsetof(Tip, roll_at), 0, NULL},
    {"end", T_ULONGLONG, offsetof(Tip, end), 0, NULL},
    {"ordinal", T_ULONGLONG, offsetof(Tip, ordinal), 0, NULL},
    {"last", T_ULONGLONG, offsetof(Tip, last), 0, NULL},
    {"frames", T_ULONGLONG, offsetof(Tip, frames), 0, NULL},
    {"last_accepted", T_LONGLONG, offsetof(Tip, last_accepted), 0, NULL},
    {"busy", T_BOOL, offsetof(Tip, busy), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static void mb_detach(Tip *tip)
{
    tip->attached = 0;
    if (tip->pages.obj)
        PyBuffer_Release(&tip->pages);
    if (tip->words.obj)
        PyBuffer_Release(&tip->words);
    Py_CLEAR(tip->store);
    Py_CLEAR(tip->store_word);
}

PyDoc_STRVAR(Tip_attach_doc,
    "attach($self, pages, words, store, /)\n--\n\n"
    "The segment to append to, as a map of its pages, and the words of the live page. Where these are no memory,\n"
    "``store(slice, bytes)`` and ``words[index] = number`` are called in their place.");

static PyObject *Tip_attach(PyObject *self, PyObject *args)
{
    Tip *tip = (Tip *)self;
    PyObject *pages, *words, *store;
    if (!PyArg_ParseTuple(args, "OOO:attach", &pages, &words, &store))
        return NULL;
    mb_detach(tip);
    if (PyObject_CheckBuffer(pages) && PyObject_CheckBuffer(words)) {
        if (PyObject_GetBuffer(pages, &tip->pages, PyBUF_WRITABLE))
            return NULL;
        if (PyObject_GetBuffer(words, &tip->words, PyBUF_WRITABLE)) {
            mb_detach(tip);
            return NULL;
        }
        if (tip->words.len < 8 * (MB_WORD_TAIL + 1)) {
            mb_detach(tip);
            PyErr_SetString(PyExc_ValueError, "too few words");
            return NULL;
        }
    } else {
        tip->store = store;
        Py_INCREF(store);
        if (!(tip->store_word = PyObject_GetAttrString(words, "__setitem__"))) {
            mb_detach(tip);
            return NULL;
        }
    }
    tip->attached = 1;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(Tip_detach_doc, "detach($self, /)\n--\n\nForget what :meth:`attach` gave, so that it can be unmapped.");

static PyObject *Tip_detach(PyObject *self, PyObject *unused)
{
    (void)unused;
    mb_detach((Tip *)self);
    Py_RETURN_NONE;
}

static int Tip_traverse(PyObject *self, visitproc visit, void *arg)
{
    Tip *tip = (Tip *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(tip->pages.obj);
    Py_VISIT(tip->words.obj);
    Py_VISIT(tip->store);
    Py_VISIT(tip->store_word);
    return 0;
}

static int Tip_clear(PyObject *self)
{
    mb_detach((Tip *)self);
    return 0;
}

static void Tip_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    mb_detach((Tip *)self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* Whether a frame of so many bytes may go to the tail; the rest of SpoolWriter.fits() is the caller's. */
static inline int mb_has_room(const Tip *tip, uint64_t size)
{
    /* The limit is never beyond the file. Should it be, what counts is what is mapped. */
    uint64_t limit = tip->limit;
    if (tip->pages.obj && limit > (uint64_t)tip->pages.len)
        limit = (uint64_t)tip->pages.len;
    return tip->tail <= limit && size <= limit - tip->tail;
}

static int mb_call_store(Tip *tip, const Draft *draft, int64_t now, size_t size)
{
    PyObject *raw = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size), *start = NULL, *stop = NULL, *where = NULL;
    PyObject *done = NULL, *store = tip->store;
    Py_INCREF(store);
    if (raw) {
        mb_encode((uint8_t *)PyBytes_AsString(raw), draft, (uint32_t)tip->salt, tip->end, now);
        start = PyLong_FromUnsignedLongLong(tip->tail);
        stop = PyLong_FromUnsignedLongLong(tip->tail + size);
    }
    if (start && stop && (where = PySlice_New(start, stop, NULL)))
        done = PyObject_CallFunctionObjArgs(store, where, raw, NULL);
    Py_DECREF(store);
    Py_XDECREF(raw);
    Py_XDECREF(start);
    Py_XDECREF(stop);
    Py_XDECREF(where);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* One frame at the tail, for which there is room. -1 with an exception: busy stays set where the store was begun. */
static int mb_append(Tip *tip, const Draft *draft, int64_t now)
{
    size_t size = mb_align8(draft->length);
    tip->busy = 1;
    if (tip->pages.obj) {
        uint8_t *at = (uint8_t *)tip->pages.buf + tip->tail;
        mb_encode(at, draft, (uint32_t)tip->salt, tip->end, now);
        /* Where frames of this size will stand in a moment, so that their stores need not wait for memory. */
        for (size_t i = 0; i < size && size <= MB_AT_HAND; i += 64)
            __builtin_prefetch(at + 1024 + i, 1);
    } else if (mb_call_store(tip, draft, now, size))
        return -1;
    tip->last = tip->tail;
    tip->tail += size;
    tip->end += draft->count;
    tip->ordinal += draft->count;
    tip->busy = 0;
    tip->frames++;
    tip->last_accepted = now;
    return 0;
}

static int mb_call_store_word(Tip *tip, int index, unsigned long long number)
{
    PyObject *store = tip->store_word;
    Py_INCREF(store);
    PyObject *done = PyObject_CallFunction(store, "iK", index, number);
    Py_DECREF(store);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* The live page, after an append. */
static int mb_publish(Tip *tip)
{
    if (tip->words.obj) {
        unsigned long long *words = (unsigned long long *)tip->words.buf;
        __atomic_store_n(&words[MB_WORD_TAIL], tip->last, __ATOMIC_RELEASE);
        __atomic_store_n(&words[MB_WORD_NEXT], tip->end, __ATOMIC_RELEASE);
        return 0;
    }
    return mb_call_store_word(tip, MB_WORD_TAIL, tip->last) || mb_call_store_word(tip, MB_WORD_NEXT, tip->end) ? -1 : 0;
}

static PyMethodDef Tip_methods[] = {
    {"attach", Tip_attach, METH_VARARGS, Tip_attach_doc},
    {"detach", Tip_detach, METH_NOARGS, Tip_detach_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Tip_slots[] = {
    {Py_tp_doc, "The numbers that each append moves, and where its bytes go."},
    {Py_tp_methods, Tip_methods},
    {Py_tp_members, Tip_members},
    {Py_tp_traverse, Tip_traverse},
    {Py_tp_clear, Tip_clear},
    {Py_tp_dealloc, Tip_dealloc},
    {0, NULL},
};

static PyType_Spec Tip_spec = {
    "mbframework._speedups.Tip", sizeof(Tip), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    Tip_slots,
};

#endif
