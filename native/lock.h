/* A lock as threading.RLock, whose state C can see: the lane's lock.
 *
 * Promises: a thread may take it again; only its owner gives it back. Every field changes under the GIL alone, so that
 * mb_free() is the whole truth for as long as the caller runs no Python code: who holds the GIL and finds it free is
 * alone. A signal's handler runs while a thread waits.
 */
#ifndef MB_LOCK_H
#define MB_LOCK_H

#include <limits.h>

typedef struct {
    PyObject_HEAD
    PyThread_type_lock gate;
    unsigned long owner; /* meaningless where depth is 0 */
    unsigned long depth;
} Lock;

/* Microseconds; PY_TIMEOUT_MAX, which the limited API has no more in CPython 3.13. */
#define MB_LONGEST_WAIT (LLONG_MAX / 1000)

static PyTypeObject *Lock_type;

static int mb_free(const Lock *lock)
{
    return lock->depth == 0;
}

static PyObject *Lock_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)args, (void)keywords;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Lock *self = (Lock *)alloc(type, 0);
    if (self && !(self->gate = PyThread_allocate_lock())) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void Lock_dealloc(PyObject *object)
{
    Lock *self = (Lock *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->gate) {
        if (self->depth)
            PyThread_release_lock(self->gate);
        PyThread_free_lock(self->gate);
    }
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int mb_holds(const Lock *lock)
{
    return lock->depth && lock->owner == PyThread_get_thread_ident();
}

/* microseconds: -1 for ever. 1 taken, 0 not, -1 with an exception, which a signal's handler has raised. */
static int mb_acquire(Lock *lock, long long microseconds)
{
    if (mb_holds(lock)) {
        lock->depth++;
        return 1;
    }
    PyLockStatus status = PyThread_acquire_lock_timed(lock->gate, 0, 0);
    struct timespec now;
    long long end = 0;
    if (status != PY_LOCK_ACQUIRED && microseconds > 0) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        end = now.tv_sec * 1000000LL + now.tv_nsec / 1000 + microseconds;
    }
    while (status != PY_LOCK_ACQUIRED && microseconds) {
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(lock->gate, microseconds, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_FAILURE)
            return 0;
        if (status == PY_LOCK_INTR) {
            if (PyErr_CheckSignals())
                return -1;
            if (microseconds > 0) {
                clock_gettime(CLOCK_MONOTONIC, &now);
                microseconds = end - (now.tv_sec * 1000000LL + now.tv_nsec / 1000);
                if (microseconds <= 0)
                    return 0;
            }
        }
    }
    if (status != PY_LOCK_ACQUIRED)
        return 0;
    lock->owner = PyThread_get_thread_ident();
    lock->depth = 1;
    return 1;
}

static int mb_release(Lock *lock)
{
    if (!mb_holds(lock)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release un-acquired lock");
        return -1;
    }
    if (--lock->depth == 0)
        PyThread_release_lock(lock->gate);
    return 0;
}

PyDoc_STRVAR(Lock_acquire_doc,
    "acquire($self, blocking=True, timeout=-1)\n--\n\nTake it, once more where this thread has it already; whether.");

static PyObject *Lock_acquire(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"blocking", "timeout", NULL};
    int blocking = 1;
    double timeout = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|pd:acquire", names, &blocking, &timeout))
        return NULL;
    if (!blocking && timeout != -1) {
        PyErr_SetString(PyExc_ValueError, "can't specify a timeout for a non-blocking call");
        return NULL;
    }
    if (timeout < 0 && timeout != -1) {
        PyErr_SetString(PyExc_ValueError, "timeout value must be a non-negative number");
        return NULL;
    }
    if (!(timeout * 1e6 < (double)MB_LONGEST_WAIT)) {
        PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
        return NULL;
    }
    int taken = mb_acquire((Lock *)self, !blocking ? 0 : timeout < 0 ? -1 : (long long)(timeout * 1e6));
    return taken < 0 ? NULL : PyBool_FromLong(taken);
}

static PyObject *Lock_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return mb_acquire((Lock *)self, -1) < 0 ? NULL : PyBool_FromLong(1);
}

PyDoc_STRVAR(Lock_release_doc, "release($self)\n--\n\nGive it back. Raises RuntimeError where this thread has it not.");

static PyObject *Lock_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (mb_release((Lock *)self))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *Lock_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args, (void)count;
    return Lock_release(self, NULL);
}

PyDoc_STRVAR(Lock_is_owned_doc, "_is_owned($self)\n--\n\nWhether this thread has it.");

static PyObject *Lock_is_owned(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(mb_holds((Lock *)self));
}

static PyMethodDef Lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))Lock_acquire, METH_VARARGS | METH_KEYWORDS, Lock_acquire_doc},
    {"release", Lock_release, METH_NOARGS, Lock_release_doc},
    {"__enter__", Lock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))Lock_exit, METH_FASTCALL, NULL},
    {"_is_owned", Lock_is_owned, METH_NOARGS, Lock_is_owned_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Lock_slots[] = {
    {Py_tp_doc, "A reentrant lock, as threading.RLock, into which the extension can look."},
    {Py_tp_new, Lock_new},
    {Py_tp_dealloc, Lock_dealloc},
    {Py_tp_methods, Lock_methods},
    {0, NULL},
};

static PyType_Spec Lock_spec = {
    "mbframework._speedups.Lock", sizeof(Lock), 0, Py_TPFLAGS_DEFAULT, Lock_slots,
};

#endif
