/* write() and write_many() for the case that is nearly every case: the lane buffers to disk, nothing is unusual, the
 * message is of plain types and fits into the segment.
 *
 * Promises: whatever else there is goes to the methods in Python, which are the reference, before anything has
 * changed: to the lane's where only the lane is in another state, else to the buffer's. What is done here is what they would have done: the same bytes, the same numbers, the same order of
 * stores. It is done under the GIL in one piece, and only while nobody has the lane's lock, so that it is as if the
 * lock had been taken. Gate is the base of mbframework.lane.Lane, Pen that of mbframework.MessageBuffer.
 */
#ifndef MB_PEN_H
#define MB_PEN_H

#include <time.h>

#include "tip.h"

typedef struct {
    PyObject_HEAD
    unsigned long long next, granted, accepted_bytes;
    long long max_message; /* the provider may lower it; what bounds frames is frame_bytes */
    char special, live, sleeping, armed;
    Tip *tip;
    Lock *lock;
    PyObject *clock; /* NULL: clock_id is asked */
    clockid_t clock_id;
    size_t frame_bytes, frame_count, frame_overhead;
} Gate;

static PyTypeObject *Gate_type;

static PyMemberDef Gate_members[] = {
    {"_next", T_ULONGLONG, offsetof(Gate, next), 0, NULL},
    {"_granted", T_ULONGLONG, offsetof(Gate, granted), 0, NULL},
    {"accepted_bytes", T_ULONGLONG, offsetof(Gate, accepted_bytes), 0, NULL},
    {"max_message", T_LONGLONG, offsetof(Gate, max_message), 0, NULL},
    {"_special", T_BOOL, offsetof(Gate, special), 0, NULL},
    {"live", T_BOOL, offsetof(Gate, live), 0, NULL},
    {"sleeping", T_BOOL, offsetof(Gate, sleeping), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Gate_arm_doc,
    "arm($self, spool, lock, clock, frame_bytes, frame_count, frame_overhead, /)\n--\n\n"
    "From now on Pen may append for this lane. ``clock`` is a number for clock_gettime() or a function that returns\n"
    "nanoseconds. The others say what goes into one frame. ``self.wake.set()`` is called where the sender sleeps.");

static PyObject *Gate_arm(PyObject *self, PyObject *args)
{
    Gate *gate = (Gate *)self;
    PyObject *tip, *lock, *clock;
    Py_ssize_t bytes, count, overhead;
    if (!PyArg_ParseTuple(
            args, "O!O!Onnn:arm", Tip_type, &tip, Lock_type, &lock, &clock, &bytes, &count, &overhead))
        return NULL;
    if (gate->armed || bytes < 0 || count < 1 || count > MB_MAX_COUNT || overhead < 0) {
        PyErr_SetString(PyExc_ValueError, "armed already, or a number is out of range");
        return NULL;
    }
    if (PyLong_Check(clock)) {
        long number = PyLong_AsLong(clock);
        struct timespec now;
        if (number == -1 && PyErr_Occurred())
            return NULL;
        if (clock_gettime((clockid_t)number, &now))
            return PyErr_SetFromErrno(PyExc_OSError);
        gate->clock_id = (clockid_t)number;
    } else {
        gate->clock = clock;
        Py_INCREF(clock);
    }
    gate->tip = (Tip *)tip;
    gate->lock = (Lock *)lock;
    Py_INCREF(tip);
    Py_INCREF(lock);
    gate->frame_bytes = (size_t)bytes;
    gate->frame_count = (size_t)count;
    gate->frame_overhead = (size_t)overhead;
    gate->armed = 1;
    Py_RETURN_NONE;
}

static int Gate_traverse(PyObject *self, visitproc visit, void *arg)
{
    Gate *gate = (Gate *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)gate->tip);
    Py_VISIT((PyObject *)gate->lock);
    Py_VISIT(gate->clock);
    return 0;
}

static int Gate_clear(PyObject *self)
{
    Gate *gate = (Gate *)self;
    gate->armed = 0;
    Py_CLEAR(gate->tip);
    Py_CLEAR(gate->lock);
    Py_CLEAR(gate->clock);
    return 0;
}

static void Gate_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Gate_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef Gate_methods[] = {
    {"arm", Gate_arm, METH_VARARGS, Gate_arm_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Gate_slots[] = {
    {Py_tp_doc, "What decides whether a message may be appended at once."},
    {Py_tp_methods, Gate_methods},
    {Py_tp_members, Gate_members},
    {Py_tp_traverse, Gate_traverse},
    {Py_tp_clear, Gate_clear},
    {Py_tp_dealloc, Gate_dealloc},
    {0, NULL},
};

static PyType_Spec Gate_spec = {
    "mbframework._speedups.Gate", sizeof(Gate), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    Gate_slots,
};

/* ---- appending */

/* Whether Lane would append count messages at once. */
static inline int mb_open(const Gate *gate, size_t count)
{
    const Tip *tip;
    return gate && gate->armed && !gate->special && !gate->live && gate->next < gate->granted
        && count < gate->granted - gate->next && (tip = gate->tip)->attached && !tip->busy && tip->end == gate->next
        && mb_free(gate->lock);
}

/* Boot-time nanoseconds; -1 with an exception. */
static int mb_now(const Gate *gate, int64_t *nanoseconds)
{
    struct timespec now;
    if (!gate->clock) {
        clock_gettime(gate->clock_id, &now);
        *nanoseconds = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
        return 0;
    }
    PyObject *clock = gate->clock;
    Py_INCREF(clock);
    PyObject *told = PyObject_CallFunctionObjArgs(clock, NULL);
    *nanoseconds = told ? PyLong_AsLongLong(told) : -1;
    Py_XDECREF(told);
    Py_DECREF(clock);
    return *nanoseconds == -1 && PyErr_Occurred() ? -1 : 0;
}

/* The drafts, one after the other; all of them fit. -1 with an exception: what is appended by then is. */
static int mb_append_all(Gate *gate, const Draft *drafts, size_t count, int64_t now, uint64_t bytes)
{
    Tip *tip = gate->tip;
    int failed = 0, calls = !tip->pages.obj;
    if (calls) {
        /* Python code is going to run: whoever it is must find the lock taken. */
        if (mb_acquire(gate->lock, -1) < 0)
            return -1;
    }
    gate->accepted_bytes += bytes;
    for (size_t i = 0; i < count && !failed; i++) {
        failed = mb_append(tip, &drafts[i], now);
        if (!failed) {
            gate->next = tip->end;
            failed = mb_publish(tip);
        }
    }
    if (calls)
        mb_release(gate->lock);
    return failed;
}

static int mb_wake(Gate *gate)
{
    gate->sleeping = 0;
    PyObject *wake = PyObject_GetAttrString((PyObject *)gate, "wake");
    PyObject *done = wake ? PyObject_CallMethod(wake, "set", NULL) : NULL;
    Py_XDECREF(wake);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* ---- the methods */

typedef struct {
    PyObject_HEAD
    Gate *gate;
    PyObject *topics; /* dict: checked topics and their UTF-8 */
    /* The last of them; borrowed from nobody. */
    PyObject *topic, *raw_topic;
} Pen;

static PyTypeObject *Pen_type;

/* What write() and write_many() are called with, in this order. */
enum { ARG_TOPIC, ARG_VALUE, ARG_KEY, ARG_HEADERS, ARG_PARTITION, ARG_TIMESTAMP, ARGS };

/* The name of Lane.write(). */
static PyObject *mb_write_name;

typedef struct {
    const char *spelt[ARGS];
    PyObject *names[ARGS];
    PyObject *plainly; /* the method in Python; NULL before install() */
    PyMethodDef method;
} Call;

static Call mb_write = {
    .spelt = {"topic", "value", "key", "headers", "partition", "timestamp"},
}, mb_write_many = {
    .spelt = {"topic", "values", "keys", "headers", "partitions", "timestamps"},
};

static PyObject *mb_plainly(
    const Call *call, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    PyObject *all = PyTuple_New(count + 1), *words = named ? PyDict_New() : NULL, *answer = NULL;
    if (!all || (named && !words))
        goto done;
    Py_INCREF(self);
    PyTuple_SetItem(all, 0, self);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(all, i + 1, args[i]);
    }
    for (Py_ssize_t i = 0; i < named; i++)
        if (PyDict_SetItem(words, PyTuple_GetItem(keywords, i), args[count + i]))
            goto done;
    answer = PyObject_Call(call->plainly, all, words);
done:
    Py_XDECREF(all);
    Py_XDECREF(words);
    return answer;
}

/* Each argument in its place, None where it was not given. 0: not as expected. */
static int mb_arguments(
    const Call *call, PyObject *const *args, Py_ssize_t count, PyObject *keywords, PyObject **found)
{
    if (count > ARGS)
        return 0;
    for (Py_ssize_t i = 0; i < ARGS; i++)
        found[i] = i < count ? args[i] : NULL;
    Py_ssize_t named = keywords ? PyTuple_Size(keywords) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(keywords, i);
        int place = 0;
        /* Names in a program's text are interned. */
        while (place < ARGS && call->names[place] != name)
            place++;
        if (place == ARGS || found[place])
            return 0;
        found[place] = args[count + i];
    }
    if (!found[ARG_TOPIC] || !found[ARG_VALUE])
        return 0;
    for (Py_ssize_t i = ARG_KEY; i < ARGS; i++)
        if (!found[i])
            found[i] = Py_None;
    return 1;
}

/* The UTF-8 of a topic that was checked before; 0: it was not. */
static int mb_topic(Pen *pen, PyObject *topic, Blob *blob)
{
    if (topic != pen->topic) {
        if (!PyUnicode_CheckExact(topic))
            return 0;
        PyObject *raw = PyDict_GetItemWithError(pen->topics, topic);
        if (!raw || !PyBytes_CheckExact(raw)) {
            PyErr_Clear();
            return 0;
        }
        Py_INCREF(topic);
        Py_INCREF(raw);
        Py_XDECREF(pen->topic);
        Py_XDECREF(pen->raw_topic);
        pen->topic = topic;
        pen->raw_topic = raw;
    }
    return mb_bytes(pen->raw_topic, blob);
}

static uint64_t mb_size(const Message *message)
{
    return (uint64_t)message->topic.size + message->value.size + message->key.size + message->block.size;
}

/* The message that the arguments are; 0: not one of plain types. Text of a strange class may run Python code. */
static int mb_message(Pen *pen, PyObject *const *given, Message *message)
{
    int64_t number = MB_NO_PARTITION;
    message->block.data = NULL;
    message->block.size = 0;
    message->timestamp = MB_NO_TIMESTAMP;
    if (!mb_topic(pen, given[ARG_TOPIC], &message->topic) || !mb_bytes_or_none(given[ARG_VALUE], &message->value)
        || !mb_bytes_or_none(given[ARG_KEY], &message->key) || given[ARG_HEADERS] != Py_None)
        return 0;
    if (given[ARG_PARTITION] != Py_None && !mb_number(given[ARG_PARTITION], 0, INT32_MAX, &number))
        return 0;
    message->partition = (int32_t)number;
    return given[ARG_TIMESTAMP] == Py_None
        || mb_number(given[ARG_TIMESTAMP], INT64_MIN + 1, INT64_MAX, &message->timestamp);
}

static int mb_small_enough(const Gate *gate, uint64_t size)
{
    return gate->max_message >= 0 && size <= (uint64_t)gate->max_message;
}

/* What MessageBuffer.write() does with a message that it has checked: the lane's write(). */
static PyObject *mb_to_lane(Pen *pen, Gate *gate, PyObject *const *given, uint64_t size)
{
    PyObject *raw_topic = pen->raw_topic, *bytes = PyLong_FromUnsignedLongLong(size), *sequence = NULL;
    PyObject *item = PyTuple_Pack(6, given[ARG_TOPIC], given[ARG_VALUE], given[ARG_KEY], Py_None, given[ARG_TIMESTAMP],
        given[ARG_PARTITION]);
    Py_INCREF(raw_topic);
    if (item && bytes)
        sequence = PyObject_CallMethodObjArgs((PyObject *)gate, mb_write_name, item, raw_topic, bytes, NULL);
    Py_DECREF(raw_topic);
    Py_XDECREF(item);
    Py_XDECREF(bytes);
    return sequence;
}

/* 1 done, 0 not, and nothing has changed; -1 with an exception. */
static int mb_write_one(Pen *pen, Gate *gate, PyObject *const *given, PyObject **sequence)
{
    Message message;
    int64_t now = 0;
    int open = mb_open(gate, 1);
    if (open && mb_now(gate, &now))
        return -1;
    if (!mb_message(pen, given, &message))
        return 0;
    uint64_t size = mb_size(&message);
    if (!mb_small_enough(gate, size))
        return 0;
    Draft draft = mb_draft(&message, 1);
    /* From here on no Python code runs before the append, if it has run above. */
    if (!open || !mb_open(gate, 1) || !draft.length || now > gate->tip->roll_at
        || !mb_has_room(gate->tip, mb_align8(draft.length))) {
        *sequence = mb_to_lane(pen, gate, given, size);
        return *sequence ? 1 : -1;
    }
    uint64_t number = gate->next;
    if (mb_append_all(gate, &draft, 1, now, size) || (gate->sleeping && mb_wake(gate)))
        return -1;
    return (*sequence = PyLong_FromUnsignedLongLong(number)) ? 1 : -1;
}

static PyObject *Pen_write(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Pen *pen = (Pen *)self;
    Gate *gate = pen->gate;
    PyObject *given[ARGS], *sequence = NULL;
    int done = 0;
    if (gate && mb_arguments(&mb_write, args, count, keywords, given)) {
        Py_INCREF((PyObject *)gate);
        done = mb_write_one(pen, gate, given, &sequence);
        Py_DECREF((PyObject *)gate);
    }
    if (done)
        return sequence;
    return mb_plainly(&mb_write, self, args, count, keywords);
}

/* How many of the messages from start on go into one frame: mbframework.frame_draft. letters: length of the topic. */
static size_t mb_share(const Gate *gate, const Message *messages, size_t count, size_t start, size_t letters)
{
    size_t end = start, stop = count - start > gate->frame_count ? start + gate->frame_count : count;
    uint64_t size = 0;
    for (; end < stop; end++) {
        const Message *each = &messages[end];
        size += letters + each->value.size + each->key.size + gate->frame_overhead;
        if (size > gate->frame_bytes && end > start)
            break;
    }
    return end - start;
}

/* The messages of columns of values and keys; 0: not as expected, or one of them is too large. */
static int mb_gather(
    const Gate *gate, const Blob *topic, PyObject *values, PyObject *keys, Message *messages, size_t count,
    uint64_t *bytes)
{
    *bytes = 0;
    for (size_t i = 0; i < count; i++) {
        Message *message = &messages[i];
        *message = (Message){.topic = *topic, .timestamp = MB_NO_TIMESTAMP, .partition = MB_NO_PARTITION};
        if (!mb_bytes_or_none(mb_entry(values, (Py_ssize_t)i), &message->value)
            || (keys && !mb_bytes_or_none(mb_entry(keys, (Py_ssize_t)i), &message->key)))
            return 0;
        uint64_t size = mb_size(message);
        if (!mb_small_enough(gate, size))
            return 0;
        *bytes += size;
    }
    return 1;
}

/* A frame is at least a message: where this many do not do, the messages are so large that the plain path is as good. */
#define MB_MOST_FRAMES 64

/* The frames of all messages, cut as Lane cuts them, and the bytes they need; how many, 0: too many. */
static size_t mb_cut(
    const Gate *gate, const Message *messages, size_t count, size_t letters, Draft *drafts, uint64_t *need)
{
    size_t frames = 0;
    *need = 0;
    for (size_t done = 0; done < count; done += drafts[frames - 1].count) {
        if (frames == MB_MOST_FRAMES)
            return 0;
        drafts[frames] = mb_draft(messages + done, mb_share(gate, messages, count, done, letters));
        if (!drafts[frames].length)
            return 0;
        *need += mb_align8(drafts[frames++].length);
    }
    return frames;
}

/* As mb_write_one(). columns: values and, or NULL, keys, of so many entries. */
static int mb_write_columns(
    Gate *gate, const Blob *topic, size_t letters, PyObject *const *columns, Message *messages, size_t count,
    uint64_t *sequence)
{
    Draft drafts[MB_MOST_FRAMES];
    uint64_t need, bytes;
    int64_t now;
    if (mb_now(gate, &now))
        return -1;
    /* The clock may have been Python code, which has changed the columns. */
    if (mb_column_size(columns[0]) != (Py_ssize_t)count
        || (columns[1] && mb_column_size(columns[1]) != (Py_ssize_t)count) || !mb_open(gate, count)
        || !mb_gather(gate, topic, columns[0], columns[1], messages, count, &bytes))
        return 0;
    size_t frames = mb_cut(gate, messages, count, letters, drafts, &need);
    if (!frames || now > gate->tip->roll_at || !mb_has_room(gate->tip, need))
        return 0;
    *sequence = gate->next;
    return mb_append_all(gate, drafts, frames, now, bytes) || (gate->sleeping && mb_wake(gate)) ? -1 : 1;
}

static PyObject *Pen_write_many(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    Pen *pen = (Pen *)self;
    Gate *gate = pen->gate;
    PyObject *given[ARGS];
    uint64_t first = 0;
    Blob topic;
    int done = 0;
    if (!mb_open(gate, 1) || !mb_arguments(&mb_write_many, args, count, keywords, given)
        || given[ARG_HEADERS] != Py_None || given[ARG_PARTITION] != Py_None || given[ARG_TIMESTAMP] != Py_None
        || !mb_topic(pen, given[ARG_TOPIC], &topic))
        return mb_plainly(&mb_write_many, self, args, count, keywords);
    PyObject *columns[2] = {given[ARG_VALUE], given[ARG_KEY] == Py_None ? NULL : given[ARG_KEY]};
    PyObject *raw_topic = pen->raw_topic;
    Py_ssize_t size = mb_column_size(columns[0]);
    if (size > 0 && size <= MB_MAX_COUNT) {
        Message *messages = PyMem_Malloc((size_t)size * sizeof(Message));
        if (!messages)
            return PyErr_NoMemory();
        Py_INCREF((PyObject *)gate);
        Py_INCREF(raw_topic);
        done = mb_write_columns(
            gate, &topic, (size_t)PyUnicode_GetLength(given[ARG_TOPIC]), columns, messages, (size_t)size, &first);
        Py_DECREF((PyObject *)gate);
        Py_DECREF(raw_topic);
        PyMem_Free(messages);
    }
    if (done)
        return done < 0 ? NULL
                        : PyObject_CallFunction((PyObject *)&PyRange_Type, "KK", (unsigned long long)first,
                              (unsigned long long)(first + (uint64_t)size));
    return mb_plainly(&mb_write_many, self, args, count, keywords);
}

PyDoc_STRVAR(Pen_bind_doc,
    "_bind($self, lane, topics, /)\n--\n\nAppend for this lane from now on; None: for none. ``topics``: their UTF-8.");

static int Pen_clear(PyObject *self)
{
    Pen *pen = (Pen *)self;
    Py_CLEAR(pen->gate);
    Py_CLEAR(pen->topics);
    Py_CLEAR(pen->topic);
    Py_CLEAR(pen->raw_topic);
    return 0;
}

static PyObject *Pen_bind(PyObject *self, PyObject *args)
{
    Pen *pen = (Pen *)self;
    PyObject *gate, *topics;
    if (!PyArg_ParseTuple(args, "OO!:_bind", &gate, &PyDict_Type, &topics))
        return NULL;
    if (gate != Py_None && !PyObject_TypeCheck(gate, Gate_type)) {
        PyErr_SetString(PyExc_TypeError, "expected a lane or None");
        return NULL;
    }
    Pen_clear(self);
    if (gate != Py_None) {
        Py_INCREF(gate);
        Py_INCREF(topics);
        pen->topics = topics;
        pen->gate = (Gate *)gate;
    }
    Py_RETURN_NONE;
}

static int Pen_traverse(PyObject *self, visitproc visit, void *arg)
{
    Pen *pen = (Pen *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)pen->gate);
    Py_VISIT(pen->topics);
    return 0;
}

static void Pen_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Pen_clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef Pen_methods[] = {
    {"_bind", Pen_bind, METH_VARARGS, Pen_bind_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Pen_slots[] = {
    {Py_tp_doc, "What appends for a lane."},
    {Py_tp_methods, Pen_methods},
    {Py_tp_traverse, Pen_traverse},
    {Py_tp_clear, Pen_clear},
    {Py_tp_dealloc, Pen_dealloc},
    {0, NULL},
};

static PyType_Spec Pen_spec = {
    "mbframework._speedups.Pen", sizeof(Pen), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    Pen_slots,
};

/* A method of the class in the place of the one in Python, under its name and with its words. */
static int mb_replace(
    PyObject *class, const char *name, const char *parameters,
    PyObject *(*function)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *), Call *call)
{
    for (int i = 0; i < ARGS; i++)
        if (!call->names[i] && !(call->names[i] = PyUnicode_InternFromString(call->spelt[i])))
            return -1;
    PyObject *plainly = PyObject_GetAttrString(class, name), *words = NULL, *descriptor = NULL, *doc = NULL;
    if (!plainly || !(words = PyObject_GetAttrString(plainly, "__doc__")))
        goto failed;
    if (!(doc = PyUnicode_FromFormat("%s%s\n--\n\n%S", name, parameters, words)))
        goto failed;
    /* For as long as the class lives, which is as long as the program does: doc is never given back. */
    call->method.ml_name = name;
    call->method.ml_meth = (PyCFunction)(void (*)(void))function;
    call->method.ml_flags = METH_FASTCALL | METH_KEYWORDS;
    call->method.ml_doc = PyUnicode_AsUTF8AndSize(doc, NULL);
    if (!call->method.ml_doc || !(descriptor = PyDescr_NewMethod((PyTypeObject *)class, &call->method)))
        goto failed;
    if (PyObject_SetAttrString(class, name, descriptor))
        goto failed;
    call->plainly = plainly;
    Py_DECREF(words);
    Py_DECREF(descriptor);
    return 0;
failed:
    Py_XDECREF(plainly);
    Py_XDECREF(words);
    Py_XDECREF(descriptor);
    Py_XDECREF(doc);
    return -1;
}

PyDoc_STRVAR(install_doc,
    "install($module, cls, /)\n--\n\n"
    "Put ``write`` and ``write_many`` of the extension in front of those that the class (a Pen) defines. Once.");

static PyObject *install(PyObject *module, PyObject *class)
{
    (void)module;
    if (!PyType_Check(class) || !PyType_IsSubtype((PyTypeObject *)class, Pen_type) || mb_write.plainly) {
        PyErr_SetString(PyExc_TypeError, "expected a class that inherits from Pen, and only once");
        return NULL;
    }
    if (!mb_write_name && !(mb_write_name = PyUnicode_InternFromString("write")))
        return NULL;
    if (mb_replace(class, "write", "($self, /, topic, value, key=None, headers=None, partition=None, timestamp=None)",
            Pen_write, &mb_write)
        || mb_replace(class, "write_many",
            "($self, /, topic, values, keys=None, headers=None, partitions=None, timestamps=None)", Pen_write_many,
            &mb_write_many))
        return NULL;
    Py_RETURN_NONE;
}

#endif
