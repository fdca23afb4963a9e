/* Which partition a key belongs to: murmur2, as Kafka's clients place keys.
 *
 * Promises: the numbers of providers/mbframework_kafka/placement.py.
 */
#ifndef MB_KAFKA_KEYS_H
#define MB_KAFKA_KEYS_H

#include "messages.h"

static uint32_t murmur2(const Blob *key)
{
    const uint32_t factor = 0x5BD1E995;
    const uint8_t *at = key->data;
    size_t left = key->size;
    uint32_t mixed = 0x9747B28C ^ (uint32_t)left;
    for (; left >= 4; at += 4, left -= 4) {
        uint32_t word = mb_u32(at) * factor;
        mixed = mixed * factor ^ (word ^ word >> 24) * factor;
    }
    if (left) {
        uint32_t rest = 0;
        memcpy(&rest, at, left);
        mixed = (mixed ^ rest) * factor;
    }
    mixed = (mixed ^ mixed >> 13) * factor;
    return mixed ^ mixed >> 15;
}

PyDoc_STRVAR(place_keys_doc,
    "place_keys($module, keys, known, shared, /)\n--\n\n"
    "Of each key its partition: one of ``known``, and ``shared`` where there is no key. None: the arguments are not what\n"
    "this takes.");

static PyObject *place_keys(PyObject *module, PyObject *const *args, Py_ssize_t arguments)
{
    (void)module;
    if (arguments != 3)
        Py_RETURN_NONE;
    Py_ssize_t count = mb_column_size(args[0]), known = mb_column_size(args[1]);
    if (count < 0 || known < 1)
        Py_RETURN_NONE;
    PyObject *placed = PyList_New(count);
    for (Py_ssize_t i = 0; placed && i < count; i++) {
        Blob key;
        if (!mb_bytes_or_none(mb_entry(args[0], i), &key)) {
            Py_DECREF(placed);
            Py_RETURN_NONE;
        }
        PyObject *place = key.data ? mb_entry(args[1], (murmur2(&key) & 0x7FFFFFFF) % known) : args[2];
        Py_INCREF(place);
        PyList_SetItem(placed, i, place);
    }
    return placed;
}

#endif
