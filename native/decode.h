/* Frames back into messages: the columns that mbframework/spool/frame.py and singles.py return.
 *
 * Promises: bytes are believed only once their CRC is right, and not even then: every length is compared with what is
 * left before it is used, as a number that cannot overflow, and what is allocated is bounded by the bytes that are
 * there. Nothing outside the given memory is read. Answers as the reference in Python does.
 */
#ifndef MB_DECODE_H
#define MB_DECODE_H

#include "messages.h"

/* The columns of a batch, in the order in which they are returned. */
enum { TOPICS, KEYS, VALUES, BLOCKS, TIMESTAMPS, PARTITIONS, ACCEPTED, COLUMNS, COUNTS = COLUMNS };

static PyObject *mb_no_timestamp, *mb_no_partition;

static PyObject *mb_new_ref(PyObject *object)
{
    Py_INCREF(object);
    return object;
}

/* A list's next entry; takes the reference. -1 with an exception. */
static int mb_add(PyObject *list, PyObject *entry)
{
    if (entry == NULL)
        return -1;
    int failed = PyList_Append(list, entry);
    Py_DECREF(entry);
    return failed;
}

static PyObject *mb_blob_object(const uint8_t *data, uint32_t size)
{
    return size == MB_NONE ? mb_new_ref(Py_None) : PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
}

/* The text, or NULL: *bad says whether that is because it is no UTF-8, and then no exception is set. */
static PyObject *mb_decode_text(const uint8_t *data, size_t size, int *bad)
{
    PyObject *text = PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)size, NULL);
    *bad = text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError);
    if (*bad)
        PyErr_Clear();
    return text;
}

static uint32_t mb_present(uint32_t length)
{
    return length == MB_NONE ? 0 : length;
}

/* ---- frames of one message, many in a row */

/* A frame of one message whose every length was checked. */
typedef struct {
    const uint8_t *frame, *topic, *numbers, *blobs;
    unsigned flags;
    size_t topic_size, length;
} Single;

/* Whether one stands at data, of which size bytes are there. */
static int mb_single(const uint8_t *data, size_t size, uint32_t salt, uint64_t sequence, Single *single)
{
    if (size < MB_HEADER_SIZE || mb_u32(data) != MB_MARKER || mb_u64(data + 8) != sequence || mb_u32(data + 24) != 1)
        return 0;
    size_t length = mb_u32(data + 4);
    unsigned flags = mb_u16(data + 28);
    size_t topic_size = mb_u16(data + 30);
    if (flags & ~(unsigned)(MB_KEYS | MB_HEADERS | MB_TIMES | MB_PARTITIONS) || length > size)
        return 0;
    size_t fixed = MB_HEADER_SIZE + topic_size + mb_width(flags);
    if (length < fixed || mb_crc32(salt, data, 36) != mb_u32(data + 36)
        || mb_crc32(salt, data + MB_HEADER_SIZE, length - MB_HEADER_SIZE) != mb_u32(data + 32))
        return 0;
    single->frame = data;
    single->flags = flags;
    single->topic = data + MB_HEADER_SIZE;
    single->topic_size = topic_size;
    single->numbers = single->topic + topic_size;
    single->blobs = data + fixed;
    single->length = length;
    const uint8_t *at = single->numbers;
    uint64_t claimed = fixed;
    if (flags & MB_KEYS) {
        claimed += mb_present(mb_u32(at));
        at += 4;
    }
    claimed += mb_present(mb_u32(at));
    if (flags & MB_HEADERS)
        claimed += mb_present(mb_u32(at + 4));
    return claimed == length;
}

static int mb_add_blob(PyObject *list, const uint8_t **number, const uint8_t **blob)
{
    uint32_t size = mb_u32(*number);
    PyObject *entry = mb_blob_object(*blob, size);
    *number += 4;
    *blob += mb_present(size);
    return mb_add(list, entry);
}

static int mb_add_single(PyObject **columns, const Single *single, PyObject *topic)
{
    const uint8_t *number = single->numbers, *blob = single->blobs;
    unsigned flags = single->flags;
    if (PyList_Append(columns[TOPICS], topic))
        return -1;
    if (flags & MB_KEYS ? mb_add_blob(columns[KEYS], &number, &blob) : PyList_Append(columns[KEYS], Py_None))
        return -1;
    if (mb_add_blob(columns[VALUES], &number, &blob))
        return -1;
    if (flags & MB_HEADERS ? mb_add_blob(columns[BLOCKS], &number, &blob) : PyList_Append(columns[BLOCKS], Py_None))
        return -1;
    if (flags & MB_TIMES) {
        if (mb_add(columns[TIMESTAMPS], PyLong_FromLongLong((int64_t)mb_u64(number))))
            return -1;
        number += 8;
    } else if (PyList_Append(columns[TIMESTAMPS], mb_no_timestamp)) {
        return -1;
    }
    if (flags & MB_PARTITIONS ? mb_add(columns[PARTITIONS], PyLong_FromLong((int32_t)mb_u32(number)))
                              : PyList_Append(columns[PARTITIONS], mb_no_partition))
        return -1;
    return mb_add(columns[ACCEPTED], PyLong_FromLongLong((int64_t)mb_u64(single->frame + 16)));
}

/* The messages from offset on, into the columns; -1 with an exception. *offset and *size as Singles has them. */
static int mb_add_singles(
    PyObject **columns, const uint8_t *window, size_t end, uint32_t salt, uint64_t first, uint64_t last,
    uint64_t max_size, size_t *offset, uint64_t *size)
{
    PyObject *topic = NULL;
    const uint8_t *topic_data = NULL;
    size_t topic_size = 0;
    Single single;
    int failed = 0;
    for (uint64_t sequence = first; sequence < last && *size < max_size && *offset <= end; sequence++) {
        if (!mb_single(window + *offset, end - *offset, salt, sequence, &single))
            break;
        if (!topic || single.topic_size != topic_size || memcmp(single.topic, topic_data, topic_size)) {
            int bad;
            PyObject *text = mb_decode_text(single.topic, single.topic_size, &bad);
            if (!text) {
                failed = bad ? 0 : -1;
                break;
            }
            Py_XDECREF(topic);
            topic = text;
            topic_data = single.topic;
            topic_size = single.topic_size;
        }
        if (mb_add_single(columns, &single, topic)) {
            failed = -1;
            break;
        }
        *size += single.length;
        *offset += mb_align8(single.length);
    }
    Py_XDECREF(topic);
    return failed;
}

PyDoc_STRVAR(decode_singles_doc,
    "decode_singles($module, window, offset, salt, first, most, max_size, /)\n--\n\n"
    "(offset, size, topics, keys, values, header blocks, timestamps, partitions, accepted): see\n"
    "mbframework.spool.singles. None: the arguments are not what this takes.");

static PyObject *decode_singles(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t offset, salt, first, most, max_size;
    Blob window;
    if (count != 6 || !mb_bytes(args[0], &window) || !mb_number(args[1], 0, INT64_MAX, &offset)
        || !mb_number(args[2], 0, UINT32_MAX, &salt) || !mb_number(args[3], 1, INT64_MAX, &first)
        || !mb_number(args[4], 0, INT64_MAX, &most) || !mb_number(args[5], 0, INT64_MAX, &max_size))
        Py_RETURN_NONE;
    PyObject *columns[COLUMNS] = {NULL}, *found = NULL;
    for (int i = 0; i < COLUMNS; i++)
        if (!(columns[i] = PyList_New(0)))
            goto done;
    uint64_t last = (uint64_t)first + (uint64_t)most, size = 0;
    if (last > MB_U64_LIMIT)
        last = MB_U64_LIMIT;
    size_t end = window.size, at = (size_t)offset;
    if (at <= end && end - at > MB_MAX_FRAME)
        end = at + MB_MAX_FRAME;
    if (mb_add_singles(columns, window.data, end, (uint32_t)salt, (uint64_t)first, last, (uint64_t)max_size, &at, &size))
        goto done;
    found = Py_BuildValue("(nKOOOOOOO)", (Py_ssize_t)at, (unsigned long long)size, columns[TOPICS], columns[KEYS],
        columns[VALUES], columns[BLOCKS], columns[TIMESTAMPS], columns[PARTITIONS], columns[ACCEPTED]);
done:
    for (int i = 0; i < COLUMNS; i++)
        Py_XDECREF(columns[i]);
    return found;
}

/* ---- one frame of many messages */

static PyObject *mb_repeated(PyObject *entry, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++)
        PyList_SetItem(list, (Py_ssize_t)i, mb_new_ref(entry));
    return list;
}

/* The entries that a column of lengths measures; *blobs moves on. Everything was checked. */
static PyObject *mb_blob_column(const uint8_t *lengths, size_t count, const uint8_t **blobs)
{
    if (!lengths)
        return mb_repeated(Py_None, count);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        uint32_t size = mb_u32(lengths + 4 * i);
        PyObject *entry = mb_blob_object(*blobs, size);
        if (!entry) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, (Py_ssize_t)i, entry);
        *blobs += mb_present(size);
    }
    return list;
}

/* Integers of width bytes; absent where there is no such column. */
static PyObject *mb_number_column(const uint8_t *numbers, size_t count, size_t width, PyObject *absent)
{
    if (!numbers)
        return mb_repeated(absent, count);
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        const uint8_t *at = numbers + width * i;
        PyObject *entry = PyLong_FromLongLong(width == 8 ? (int64_t)mb_u64(at) : (int32_t)mb_u32(at));
        if (!entry) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, (Py_ssize_t)i, entry);
    }
    return list;
}

/* NULL: see mb_decode_text(). sizes: u16 for each, or NULL for one topic of topic_size for all. */
static PyObject *mb_topic_column(
    const uint8_t *topics, const uint8_t *sizes, size_t topic_size, size_t count, int *bad)
{
    PyObject *text = NULL, *list = NULL;
    if (!sizes) {
        if ((text = mb_decode_text(topics, topic_size, bad)))
            list = mb_repeated(text, count);
        Py_XDECREF(text);
        return list;
    }
    const uint8_t *before = NULL;
    size_t size_before = 0;
    list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        size_t size = mb_u16(sizes + 2 * i);
        if (!before || size != size_before || memcmp(before, topics, size)) {
            Py_XDECREF(text);
            text = mb_decode_text(topics, size, bad);
            before = topics;
            size_before = size;
        }
        if (!text) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, (Py_ssize_t)i, mb_new_ref(text));
        topics += size;
    }
    Py_XDECREF(text);
    return list;
}

static uint64_t mb_claimed(const uint8_t *lengths, size_t count)
{
    uint64_t claimed = 0;
    for (size_t i = 0; lengths && i < count; i++)
        claimed += mb_present(mb_u32(lengths + 4 * i));
    return claimed;
}

/* A column of that many bytes at *at where its flag is set, else NULL; *at moves on. */
static const uint8_t *mb_take(const uint8_t **at, size_t size, unsigned flag)
{
    const uint8_t *column = flag ? *at : NULL;
    if (flag)
        *at += size;
    return column;
}

/* The columns of a body whose CRC is right: a tuple, None where it does not fit, NULL with an exception. */
static PyObject *mb_decode_body(const uint8_t *body, size_t size, size_t count, unsigned flags, size_t topic_size)
{
    const uint8_t *at = body, *end = body + size;
    uint64_t fixed = topic_size + (uint64_t)count * mb_width(flags), topics_size = topic_size;
    if (!count || count > MB_MAX_COUNT || flags & ~63u || flags & MB_SEAL || fixed > size
        || (flags & MB_TOPICS && topic_size))
        Py_RETURN_NONE;
    const uint8_t *sizes = mb_take(&at, 2 * count, flags & MB_TOPICS);
    for (size_t i = 0; sizes && i < count; i++)
        topics_size += mb_u16(sizes + 2 * i);
    if (topics_size > (uint64_t)(end - at))
        Py_RETURN_NONE;
    const uint8_t *topics = mb_take(&at, (size_t)topics_size, 1);
    /* The numbers of each message behind the topics. */
    if ((uint64_t)(end - at) < (uint64_t)count * mb_width(flags & ~(unsigned)MB_TOPICS))
        Py_RETURN_NONE;
    const uint8_t *key_sizes = mb_take(&at, 4 * count, flags & MB_KEYS);
    const uint8_t *value_sizes = mb_take(&at, 4 * count, 1);
    const uint8_t *block_sizes = mb_take(&at, 4 * count, flags & MB_HEADERS);
    const uint8_t *times = mb_take(&at, 8 * count, flags & MB_TIMES);
    const uint8_t *places = mb_take(&at, 4 * count, flags & MB_PARTITIONS);
    if (mb_claimed(key_sizes, count) + mb_claimed(value_sizes, count) + mb_claimed(block_sizes, count)
        != (uint64_t)(end - at))
        Py_RETURN_NONE;
    int bad = 0;
    PyObject *columns[6] = {NULL}, *found = NULL;
    if ((columns[TOPICS] = mb_topic_column(topics, sizes, topic_size, count, &bad))
        && (columns[KEYS] = mb_blob_column(key_sizes, count, &at))
        && (columns[VALUES] = mb_blob_column(value_sizes, count, &at))
        && (columns[BLOCKS] = mb_blob_column(block_sizes, count, &at))
        && (columns[TIMESTAMPS] = mb_number_column(times, count, 8, mb_no_timestamp))
        && (columns[PARTITIONS] = mb_number_column(places, count, 4, mb_no_partition)))
        found = PyTuple_Pack(6, columns[0], columns[1], columns[2], columns[3], columns[4], columns[5]);
    else if (bad)
        found = mb_new_ref(Py_None);
    for (int i = 0; i < 6; i++)
        Py_XDECREF(columns[i]);
    return found;
}

PyDoc_STRVAR(decode_body_doc,
    "decode_body($module, body, count, flags, topic_length, /)\n--\n\n"
    "(topics, keys, values, header blocks, timestamps, partitions) of a frame's body, whose CRC is right; None\n"
    "where its lengths do not fit, or a topic is no UTF-8.");

static PyObject *decode_body(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t messages, flags, topic_size;
    Blob body;
    if (count != 4 || !mb_bytes(args[0], &body) || !mb_number(args[1], 0, MB_MAX_COUNT, &messages)
        || !mb_number(args[2], 0, 65535, &flags) || !mb_number(args[3], 0, MB_MAX_TOPIC, &topic_size))
        Py_RETURN_NONE;
    return mb_decode_body(body.data, body.size, (size_t)messages, (unsigned)flags, (size_t)topic_size);
}

/* ---- frames of several messages, one after the other */

/* Bytes of the frame at data, of which size are there, where it is one of several messages from sequence on, at most
 * most of them, and both CRCs are right; else 0. */
static size_t mb_several(const uint8_t *data, size_t size, uint32_t salt, uint64_t sequence, uint64_t most)
{
    if (size < MB_HEADER_SIZE || mb_u32(data) != MB_MARKER || mb_u64(data + 8) != sequence)
        return 0;
    size_t length = mb_u32(data + 4), count = mb_u32(data + 24);
    if (length < MB_HEADER_SIZE || length > size || length > MB_MAX_FRAME || count < 2 || count > most
        || mb_crc32(salt, data, 36) != mb_u32(data + 36)
        || mb_crc32(salt, data + MB_HEADER_SIZE, length - MB_HEADER_SIZE) != mb_u32(data + 32))
        return 0;
    return length;
}

/* The columns of one frame behind those that are there. 1: done, 0: its body does not fit, -1 with an exception. */
static int mb_add_several(PyObject **columns, const uint8_t *data, size_t length)
{
    PyObject *found = mb_decode_body(
        data + MB_HEADER_SIZE, length - MB_HEADER_SIZE, mb_u32(data + 24), mb_u16(data + 28), mb_u16(data + 30));
    if (!found)
        return -1;
    int done = found != Py_None;
    for (int i = 0; done == 1 && i < ACCEPTED; i++) {
        Py_ssize_t end = PyList_Size(columns[i]);
        if (PyList_SetSlice(columns[i], end, end, PyTuple_GetItem(found, i)))
            done = -1;
    }
    Py_DECREF(found);
    if (done == 1
        && (mb_add(columns[ACCEPTED], PyLong_FromLongLong((int64_t)mb_u64(data + 16)))
            || mb_add(columns[COUNTS], PyLong_FromUnsignedLong(mb_u32(data + 24)))))
        done = -1;
    return done;
}

PyDoc_STRVAR(decode_several_doc,
    "decode_several($module, window, offset, salt, first, most, max_size, /)\n--\n\n"
    "(offset, size, topics, keys, values, header blocks, timestamps, partitions, accepted, counts), the last two by\n"
    "frame: see mbframework.spool.several. None: the arguments are not what this takes.");

static PyObject *decode_several(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    int64_t offset, salt, first, most, max_size;
    Blob window;
    if (count != 6 || !mb_bytes(args[0], &window) || !mb_number(args[1], 0, INT64_MAX, &offset)
        || !mb_number(args[2], 0, UINT32_MAX, &salt) || !mb_number(args[3], 1, INT64_MAX, &first)
        || !mb_number(args[4], 0, INT64_MAX, &most) || !mb_number(args[5], 0, INT64_MAX, &max_size) || offset & 7)
        Py_RETURN_NONE;
    PyObject *columns[COUNTS + 1] = {NULL}, *found = NULL;
    for (int i = 0; i <= COUNTS; i++)
        if (!(columns[i] = PyList_New(0)))
            goto done;
    uint64_t next = (uint64_t)first, last = next + (uint64_t)most, left = (uint64_t)max_size, size = 0;
    if (last > MB_U64_LIMIT)
        last = MB_U64_LIMIT;
    for (uint64_t at = (uint64_t)offset; at < window.size && next < last;) {
        const uint8_t *data = window.data + at;
        size_t length = mb_several(data, window.size - at, (uint32_t)salt, next, last - next);
        int added = length && length <= left ? mb_add_several(columns, data, length) : 0;
        if (added < 0)
            goto done;
        if (!added)
            break;
        next += mb_u32(data + 24);
        left -= length;
        size += length;
        at += mb_align8(length);
        offset = (int64_t)at;
    }
    found = Py_BuildValue("(LKOOOOOOOO)", (long long)offset, (unsigned long long)size, columns[TOPICS], columns[KEYS],
        columns[VALUES], columns[BLOCKS], columns[TIMESTAMPS], columns[PARTITIONS], columns[ACCEPTED], columns[COUNTS]);
done:
    for (int i = 0; i <= COUNTS; i++)
        Py_XDECREF(columns[i]);
    return found;
}

#endif
