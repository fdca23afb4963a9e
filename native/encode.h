/* encode_one() and encode_many() of mbframework/spool/frame.py, and the cut of messages into frames of
 * mbframework/frame_draft.py, for the paths that are in Python.
 *
 * Promises: the same bytes. None where the arguments are not what the extension takes: then the plain function gives
 * the answer or the error.
 */
#ifndef MB_ENCODE_H
#define MB_ENCODE_H

#include "messages.h"

static PyObject *mb_frame_object(const Draft *draft, int64_t salt, int64_t first, int64_t accepted)
{
    if (!draft->length)
        Py_RETURN_NONE;
    PyObject *raw = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)mb_align8(draft->length));
    if (raw)
        mb_encode((uint8_t *)PyBytes_AsString(raw), draft, (uint32_t)salt, (uint64_t)first, accepted);
    return raw;
}

PyDoc_STRVAR(encode_one_doc,
    "encode_one($module, salt, sequence, accepted, topic, key, value, header_block, timestamp, partition, /)\n--\n\n"
    "See mbframework.spool.frame.encode_one(); None: the arguments are not what this takes.");

static PyObject *encode_one(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t salt, sequence, accepted;
    Message message;
    if (count != 9 || !mb_number(args[0], 0, UINT32_MAX, &salt) || !mb_number(args[1], 0, INT64_MAX, &sequence)
        || !mb_number(args[2], INT64_MIN, INT64_MAX, &accepted) || !mb_bytes(args[3], &message.topic)
        || !mb_bytes_or_none(args[4], &message.key) || !mb_bytes_or_none(args[5], &message.value)
        || !mb_bytes_or_none(args[6], &message.block) || !mb_timestamp(args[7], &message.timestamp)
        || !mb_partition(args[8], &message.partition))
        Py_RETURN_NONE;
    Draft draft = mb_draft(&message, 1);
    return mb_frame_object(&draft, salt, sequence, accepted);
}

/* Message i of the columns of encode_many(). */
static int mb_of_columns(PyObject *const *columns, size_t i, const Blob *topic, Message *message)
{
    static PyObject *const none = NULL;
    PyObject *entry[6];
    for (int column = 0; column < 6; column++)
        entry[column] = columns[column] == Py_None || (column == 0 && topic) ? none
                                                                             : mb_entry(columns[column], (Py_ssize_t)i);
    if (topic)
        message->topic = *topic;
    else if (!mb_bytes(entry[0], &message->topic))
        return 0;
    return mb_bytes_or_none(entry[1], &message->value) && mb_bytes_or_none(entry[2] ? entry[2] : Py_None, &message->key)
        && mb_bytes_or_none(entry[3] ? entry[3] : Py_None, &message->block)
        && mb_timestamp(entry[4] ? entry[4] : Py_None, &message->timestamp)
        && mb_partition(entry[5] ? entry[5] : Py_None, &message->partition);
}

PyDoc_STRVAR(encode_many_doc,
    "encode_many($module, salt, first, accepted, topics, values, keys, header_blocks, timestamps, partitions, /)\n"
    "--\n\nSee mbframework.spool.frame.encode_many(); None: the arguments are not what this takes.");

static PyObject *encode_many(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t salt, first, accepted;
    Blob topic, *one_topic = NULL;
    if (count != 9 || !mb_number(args[0], 0, UINT32_MAX, &salt) || !mb_number(args[1], 1, INT64_MAX, &first)
        || !mb_number(args[2], INT64_MIN, INT64_MAX, &accepted))
        Py_RETURN_NONE;
    PyObject *const *columns = args + 3;
    if (mb_bytes(columns[0], &topic))
        one_topic = &topic;
    Py_ssize_t size = mb_column_size(columns[1]);
    if (size < 1 || size > MB_MAX_COUNT || (uint64_t)first > MB_U64_LIMIT - (uint64_t)size)
        Py_RETURN_NONE;
    for (int column = one_topic ? 1 : 0; column < 6; column++)
        if ((column < 2 || columns[column] != Py_None) && mb_column_size(columns[column]) != size)
            Py_RETURN_NONE;
    Message *messages = PyMem_Malloc((size_t)size * sizeof(Message));
    if (!messages)
        return PyErr_NoMemory();
    size_t done = 0;
    while (done < (size_t)size && mb_of_columns(columns, done, one_topic, &messages[done]))
        done++;
    PyObject *raw = NULL;
    if (done == (size_t)size) {
        Draft draft = mb_draft(messages, done);
        raw = mb_frame_object(&draft, salt, first, accepted);
    } else {
        raw = Py_None;
        Py_INCREF(raw);
    }
    PyMem_Free(messages);
    return raw;
}

PyDoc_STRVAR(encode_items_doc,
    "encode_items($module, salt, first, accepted, items, start, count, /)\n--\n\n"
    "One frame of ``count`` items (topic, value, key, headers, timestamp, partition, …) from index ``start`` on; None:\n"
    "the arguments are not what this takes.");

static PyObject *encode_items(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t salt, first, accepted, start, size;
    if (count != 6 || !mb_number(args[0], 0, UINT32_MAX, &salt) || !mb_number(args[1], 1, INT64_MAX, &first)
        || !mb_number(args[2], INT64_MIN, INT64_MAX, &accepted) || !mb_number(args[4], 0, INT64_MAX, &start)
        || !mb_number(args[5], 1, MB_MAX_COUNT, &size) || mb_column_size(args[3]) - size < start
        || (uint64_t)first > MB_U64_LIMIT - (uint64_t)size)
        Py_RETURN_NONE;
    Message *messages = PyMem_Malloc((size_t)size * sizeof(Message));
    if (!messages)
        return PyErr_NoMemory();
    int64_t done = 0;
    while (done < size && mb_item(mb_entry(args[3], (Py_ssize_t)(start + done)), &messages[done]))
        done++;
    PyObject *raw = NULL;
    if (done == size) {
        Draft draft = mb_draft(messages, (size_t)done);
        raw = mb_frame_object(&draft, salt, first, accepted);
    } else {
        raw = Py_None;
        Py_INCREF(raw);
    }
    PyMem_Free(messages);
    return raw;
}

PyDoc_STRVAR(fitting_doc,
    "fitting($module, items, start, most, max_bytes, overhead, /)\n--\n\n"
    "How many of the items from index ``start`` on go into one frame: at least one, at most ``most``, and as long as\n"
    "they have no more than ``max_bytes``, with ``overhead`` for each. None: the arguments are not what this takes.");

static PyObject *fitting(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t start, most, max_bytes, overhead;
    if (count != 5 || !mb_number(args[1], 0, INT64_MAX, &start) || !mb_number(args[2], 0, INT32_MAX, &most)
        || !mb_number(args[3], 0, INT64_MAX, &max_bytes) || !mb_number(args[4], 0, INT32_MAX, &overhead))
        Py_RETURN_NONE;
    Py_ssize_t all = mb_column_size(args[0]);
    if (all < 0)
        Py_RETURN_NONE;
    uint64_t size = 0;
    int64_t end = start;
    for (; end < all && end - start < most; end++) {
        PyObject *item = mb_entry(args[0], (Py_ssize_t)end);
        Message message;
        if (!mb_item(item, &message))
            Py_RETURN_NONE;
        /* Letters of the topic, not bytes: as mbframework.channel.size_of() counts. */
        size += (uint64_t)PyUnicode_GetLength(PyTuple_GetItem(item, 0)) + message.value.size + message.key.size
            + message.block.size + (uint64_t)overhead;
        if (size > (uint64_t)max_bytes && end > start)
            break;
    }
    return PyLong_FromLongLong(end - start);
}

#endif
