/* The records of a Kafka record batch (format 2), out of a batch's columns.
 *
 * Promises: the bytes, and the cuts, of providers/mbframework_kafka/encoding.py and batches.py. No length is believed
 * before it was compared with what is there. The GIL is held for one record batch at a time, 0.2 ms with the default of
 * 512 KiB, and let go of while much is copied.
 */
#ifndef MB_KAFKA_RECORDS_H
#define MB_KAFKA_RECORDS_H

#include "messages.h"

/* As in encoding.py: the header of a record batch, and what a record takes at most beyond key, value and headers. */
enum { BATCH_HEADER = 61, RECORD_OVERHEAD = 31 };
/* Bytes from which on copying takes so long that other threads are to run meanwhile. */
#define MUCH ((size_t)1 << 20)

typedef struct {
    PyObject *held[3]; /* what the blobs belong to */
    Blob key, value, block;
    uint64_t delta;     /* of the timestamp, in zigzag */
    size_t headers, size; /* bytes that the headers take, and all of it but its own size */
} Record;

/* ---- numbers: zigzag, seven bits a byte, the lowest first */

static uint64_t zigzag(int64_t number)
{
    return (uint64_t)number << 1 ^ (uint64_t)(number >> 63);
}

static size_t width(uint64_t number)
{
    size_t bytes = 1;
    while (number >>= 7)
        bytes++;
    return bytes;
}

static uint8_t *put_varint(uint8_t *at, uint64_t number)
{
    for (; number > 0x7F; number >>= 7)
        *at++ = (uint8_t)(number | 0x80);
    *at++ = (uint8_t)number;
    return at;
}

/* Rounded down, as Python divides. */
static int64_t milliseconds(int64_t ns)
{
    return ns / 1000000 - (ns % 1000000 < 0);
}

/* ---- what has a length in front of it; NULL is none, and not the same as empty */

static size_t blob_size(const Blob *blob)
{
    return blob->data ? width((uint64_t)blob->size << 1) + blob->size : 1;
}

static uint8_t *put_blob(uint8_t *at, const Blob *blob)
{
    return blob->data ? mb_put(put_varint(at, (uint64_t)blob->size << 1), blob->data, blob->size) : put_varint(at, 1);
}

/* The header that begins at *at of a block that ends at end; 0: its lengths do not fit. */
static int next_header(const uint8_t **at, const uint8_t *end, Blob *name, Blob *value)
{
    if (end - *at < 6)
        return 0;
    name->size = mb_u16(*at);
    uint32_t length = mb_u32(*at + 2);
    value->size = length == MB_NONE ? 0 : length;
    *at += 6;
    if ((uint64_t)(end - *at) < (uint64_t)name->size + value->size)
        return 0;
    name->data = *at;
    value->data = length == MB_NONE ? NULL : *at + name->size;
    *at += name->size + value->size;
    return 1;
}

/* Bytes that a header block (docs/format.md) takes as Kafka writes headers; 0: its lengths do not fit it. */
static size_t headers_size(const Blob *block)
{
    if (!block->size)
        return 1;
    if (block->size < 2)
        return 0;
    const uint8_t *at = block->data + 2, *end = block->data + block->size;
    unsigned count = mb_u16(block->data);
    size_t size = width(count << 1);
    for (Blob name, value; count; count--) {
        if (!next_header(&at, end, &name, &value))
            return 0;
        size += blob_size(&name) + blob_size(&value);
    }
    return size;
}

/* Of a block that headers_size() has measured. */
static uint8_t *put_headers(uint8_t *at, const Blob *block)
{
    if (!block->size)
        return put_varint(at, 0);
    const uint8_t *from = block->data + 2, *end = block->data + block->size;
    unsigned count = mb_u16(block->data);
    at = put_varint(at, count << 1);
    for (Blob name, value; count; count--) {
        next_header(&from, end, &name, &value);
        at = put_blob(put_blob(at, &name), &value);
    }
    return at;
}

/* ---- records */

enum { KEYS, VALUES, BLOCKS, TIMESTAMPS, ACCEPTED, COLUMNS };

/* The message at an index of the columns, all but its offset; 0: it is not plain. */
static int measure(PyObject *const *columns, Py_ssize_t index, Record *record, int64_t *time)
{
    for (int i = 0; i < 3; i++)
        record->held[i] = mb_entry(columns[i], index);
    if (!mb_bytes_or_none(record->held[KEYS], &record->key) || !mb_bytes_or_none(record->held[VALUES], &record->value)
        || !mb_bytes_or_none(record->held[BLOCKS], &record->block)
        || !mb_number(mb_entry(columns[TIMESTAMPS], index), INT64_MIN, INT64_MAX, time)
        || (*time == MB_NO_TIMESTAMP && !mb_number(mb_entry(columns[ACCEPTED], index), INT64_MIN, INT64_MAX, time)))
        return 0;
    *time = milliseconds(*time);
    record->headers = headers_size(&record->block);
    return record->headers && record->key.size <= INT32_MAX && record->value.size <= INT32_MAX
        && record->block.size <= INT32_MAX;
}

static uint8_t *put_record(uint8_t *at, const Record *record, uint64_t offset)
{
    at = put_varint(at, (uint64_t)record->size << 1);
    *at++ = 0; /* attributes, of which there are none */
    at = put_varint(put_varint(at, record->delta), offset << 1);
    return put_headers(put_blob(put_blob(at, &record->key), &record->value), &record->block);
}

static void put_records(uint8_t *at, const Record *records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        at = put_record(at, &records[i], i);
}

/* The same; other threads run meanwhile, and may drop what the columns have. */
static void put_much(uint8_t *at, const Record *records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (int j = 0; j < 3; j++)
            Py_INCREF(records[i].held[j]);
    Py_BEGIN_ALLOW_THREADS
    put_records(at, records, count);
    Py_END_ALLOW_THREADS
    for (size_t i = 0; i < count; i++)
        for (int j = 0; j < 3; j++)
            Py_DECREF(records[i].held[j]);
}

PyDoc_STRVAR(record_batch_doc,
    "record_batch($module, keys, values, header_blocks, timestamps, accepted, chosen, start, limit, /)\n--\n\n"
    "(content, stop, first, highest): the records of the messages at chosen[start:stop], behind room for the header of a\n"
    "record batch, and their first and highest timestamp, ms. As many as ``limit`` bytes have room for, at least one.\n"
    "``chosen`` is a list of indices; None: all. None: the arguments are not what this takes.");

static PyObject *record_batch(PyObject *module, PyObject *const *args, Py_ssize_t arguments)
{
    (void)module;
    int64_t start, limit;
    if (arguments != COLUMNS + 3 || !mb_number(args[COLUMNS + 1], 0, INT64_MAX, &start)
        || !mb_number(args[COLUMNS + 2], 0, INT32_MAX, &limit))
        Py_RETURN_NONE;
    Py_ssize_t messages = mb_column_size(args[0]);
    for (int i = 1; i < COLUMNS; i++)
        if (mb_column_size(args[i]) != messages)
            Py_RETURN_NONE;
    PyObject *chosen = args[COLUMNS] == Py_None ? NULL : args[COLUMNS];
    int64_t left = (chosen ? mb_column_size(chosen) : messages) - start;
    if (left < 1)
        Py_RETURN_NONE;
    size_t most = (size_t)limit / RECORD_OVERHEAD + 1, count = 0;
    if ((uint64_t)left < most)
        most = (size_t)left;
    Record *records = PyMem_Malloc(most * sizeof(Record));
    if (!records)
        return PyErr_NoMemory();
    PyObject *content = NULL, *found = NULL;
    uint64_t weight = BATCH_HEADER, size = BATCH_HEADER;
    int64_t first = 0, highest = 0;
    for (; count < most; count++) {
        Record *record = &records[count];
        int64_t index = start + (int64_t)count, time;
        if (chosen && !mb_number(mb_entry(chosen, (Py_ssize_t)index), 0, messages - 1, &index))
            goto plain;
        if (!measure(args, (Py_ssize_t)index, record, &time))
            goto plain;
        weight += RECORD_OVERHEAD + record->key.size + record->value.size + record->headers;
        if (weight > (uint64_t)limit && count)
            break;
        if (!count)
            first = highest = time;
        if (time > highest)
            highest = time;
        record->delta = zigzag(time - first);
        record->size = 1 + width(record->delta) + width((uint64_t)count << 1) + blob_size(&record->key)
            + blob_size(&record->value) + record->headers;
        size += width((uint64_t)record->size << 1) + record->size;
    }
    if (size > INT32_MAX)
        goto plain;
    if (!(content = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size)))
        goto done;
    uint8_t *raw = (uint8_t *)PyByteArray_AsString(content);
    memset(raw, 0, BATCH_HEADER);
    (size < MUCH ? put_records : put_much)(raw + BATCH_HEADER, records, count);
    found = Py_BuildValue("(OLLL)", content, (long long)start + (long long)count, (long long)first, (long long)highest);
    goto done;
plain:
    found = Py_None;
    Py_INCREF(found);
done:
    Py_XDECREF(content);
    PyMem_Free(records);
    return found;
}

#endif
