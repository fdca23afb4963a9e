/* Messages as Python holds them, and as native/frame.h takes them.
 *
 * Promises: 1: done. 0: this is not what the extension takes (another type, a number out of range, text that is no
 * UTF-8): no exception is set, and the plain path gives the answer or the error. What a Message points to belongs to
 * the objects it was made of, which the caller keeps alive. No Python code runs in here.
 */
#ifndef MB_MESSAGES_H
#define MB_MESSAGES_H

#include "frame.h"

#if defined(Py_GIL_DISABLED)
#error "the extension needs the GIL"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the extension needs a little-endian machine"
#endif

static int mb_bytes(PyObject *object, Blob *blob)
{
    if (!PyBytes_CheckExact(object))
        return 0;
    blob->data = (const uint8_t *)PyBytes_AsString(object);
    blob->size = (size_t)Py_SIZE(object);
    return 1;
}

static int mb_bytes_or_none(PyObject *object, Blob *blob)
{
    if (object == Py_None) {
        blob->data = NULL;
        blob->size = 0;
        return 1;
    }
    return mb_bytes(object, blob);
}

static int mb_text(PyObject *object, Blob *blob)
{
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(object))
        return 0;
    const char *utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 == NULL) {
        PyErr_Clear();
        return 0;
    }
    blob->data = (const uint8_t *)utf8;
    blob->size = (size_t)size;
    return 1;
}

static int mb_number(PyObject *object, int64_t lowest, int64_t highest, int64_t *number)
{
    int overflow;
    if (!PyLong_CheckExact(object))
        return 0;
    *number = PyLong_AsLongLongAndOverflow(object, &overflow);
    return !overflow && *number >= lowest && *number <= highest;
}

static int mb_timestamp(PyObject *object, int64_t *timestamp)
{
    *timestamp = MB_NO_TIMESTAMP;
    return object == Py_None || mb_number(object, INT64_MIN, INT64_MAX, timestamp);
}

static int mb_partition(PyObject *object, int32_t *partition)
{
    int64_t number = MB_NO_PARTITION;
    if (object != Py_None && !mb_number(object, INT32_MIN, INT32_MAX, &number))
        return 0;
    *partition = (int32_t)number;
    return 1;
}

/* A list or a tuple, and nothing else: their entries are had without running anybody's code. */
static Py_ssize_t mb_column_size(PyObject *column)
{
    if (PyList_CheckExact(column))
        return PyList_Size(column);
    return PyTuple_CheckExact(column) ? PyTuple_Size(column) : -1;
}

static PyObject *mb_entry(PyObject *column, Py_ssize_t index)
{
    return PyList_CheckExact(column) ? PyList_GetItem(column, index) : PyTuple_GetItem(column, index);
}

/* An item of mbframework.intake: (topic, value, key, headers, timestamp, partition, …). */
static int mb_item(PyObject *item, Message *message)
{
    return PyTuple_CheckExact(item) && PyTuple_Size(item) >= 6 && mb_text(PyTuple_GetItem(item, 0), &message->topic)
        && mb_bytes_or_none(PyTuple_GetItem(item, 1), &message->value)
        && mb_bytes_or_none(PyTuple_GetItem(item, 2), &message->key)
        && mb_bytes_or_none(PyTuple_GetItem(item, 3), &message->block)
        && mb_timestamp(PyTuple_GetItem(item, 4), &message->timestamp)
        && mb_partition(PyTuple_GetItem(item, 5), &message->partition);
}

#endif
