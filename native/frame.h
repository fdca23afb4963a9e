/* Frames: how messages become bytes. The layout is that of mbframework/spool/frame.py, which is the reference.
 *
 * Promises: plain functions on memory that the caller has measured with mb_frame_size(); nothing of Python in here but
 * the type of sizes. What is encoded is what encode_one() and encode_many() of the reference give, byte for byte.
 */
#ifndef MB_FRAME_H
#define MB_FRAME_H

#include "crc32.h"

enum {
    MB_TOPICS = 1, MB_KEYS = 2, MB_HEADERS = 4, MB_TIMES = 8, MB_SEAL = 16, MB_PARTITIONS = 32,
    MB_HEADER_SIZE = 40, MB_MAX_COUNT = 1 << 16, MB_MAX_FRAME = 16 << 20, MB_MAX_TOPIC = 65535
};
#define MB_MARKER 0x3146424Du /* "MBF1" */
#define MB_NONE 0xFFFFFFFFu
#define MB_NO_TIMESTAMP INT64_MIN
#define MB_NO_PARTITION (-1)
#define MB_U64_LIMIT ((uint64_t)1 << 63)

/* Bytes, or none where data is NULL. */
typedef struct {
    const uint8_t *data;
    size_t size;
} Blob;

typedef struct {
    Blob topic, key, value, block;
    int64_t timestamp;
    int32_t partition;
} Message;

/* What a frame of these messages looks like. */
typedef struct {
    const Message *messages;
    size_t count;
    unsigned flags;
    size_t length; /* header and body; 0: they make no frame */
} Draft;

static inline size_t mb_align8(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static inline size_t mb_width(unsigned flags)
{
    return 4 + (flags & MB_TOPICS ? 2 : 0) + (flags & MB_KEYS ? 4 : 0) + (flags & MB_HEADERS ? 4 : 0)
        + (flags & MB_TIMES ? 8 : 0) + (flags & MB_PARTITIONS ? 4 : 0);
}

static inline uint16_t mb_u16(const uint8_t *at)
{
    uint16_t number;
    memcpy(&number, at, 2);
    return number;
}

static inline uint32_t mb_u32(const uint8_t *at)
{
    uint32_t number;
    memcpy(&number, at, 4);
    return number;
}

static inline uint64_t mb_u64(const uint8_t *at)
{
    uint64_t number;
    memcpy(&number, at, 8);
    return number;
}

/* Every blob is one of an object in memory, of at most MB_MAX_COUNT: the sum cannot overflow 64 bits. */
static inline Draft mb_draft(const Message *messages, size_t count)
{
    Draft draft = {messages, count, 0, 0};
    uint64_t payload = 0, topics = 0;
    if (!count || count > MB_MAX_COUNT)
        return draft;
    const Blob *topic = &messages[0].topic;
    for (size_t i = 0; i < count; i++) {
        const Message *each = &messages[i];
        if (each->topic.size > MB_MAX_TOPIC)
            return draft;
        if (each->topic.data != topic->data
            && (each->topic.size != topic->size || memcmp(each->topic.data, topic->data, topic->size)))
            draft.flags |= MB_TOPICS;
        if (each->key.data)
            draft.flags |= MB_KEYS;
        if (each->block.data)
            draft.flags |= MB_HEADERS;
        if (each->timestamp != MB_NO_TIMESTAMP)
            draft.flags |= MB_TIMES;
        if (each->partition != MB_NO_PARTITION)
            draft.flags |= MB_PARTITIONS;
        topics += each->topic.size;
        payload += (uint64_t)each->key.size + each->value.size + each->block.size;
    }
    payload += draft.flags & MB_TOPICS ? topics : topic->size;
    payload += MB_HEADER_SIZE + count * mb_width(draft.flags);
    if (payload <= MB_MAX_FRAME)
        draft.length = (size_t)payload;
    return draft;
}

static inline uint8_t *mb_put(uint8_t *at, const void *data, size_t size)
{
    if (size)
        memcpy(at, data, size);
    return at + size;
}

static inline uint8_t *mb_put_u32(uint8_t *at, uint32_t number)
{
    memcpy(at, &number, 4);
    return at + 4;
}

static inline uint8_t *mb_put_length(uint8_t *at, const Blob *blob)
{
    return mb_put_u32(at, blob->data ? (uint32_t)blob->size : MB_NONE);
}

static inline uint8_t *mb_put_body(uint8_t *at, const Draft *draft)
{
    const Message *messages = draft->messages, *end = messages + draft->count;
    if (draft->flags & MB_TOPICS) {
        for (const Message *each = messages; each < end; each++) {
            uint16_t size = (uint16_t)each->topic.size;
            at = mb_put(at, &size, 2);
        }
        for (const Message *each = messages; each < end; each++)
            at = mb_put(at, each->topic.data, each->topic.size);
    } else {
        at = mb_put(at, messages->topic.data, messages->topic.size);
    }
    if (draft->flags & MB_KEYS)
        for (const Message *each = messages; each < end; each++)
            at = mb_put_length(at, &each->key);
    for (const Message *each = messages; each < end; each++)
        at = mb_put_length(at, &each->value);
    if (draft->flags & MB_HEADERS)
        for (const Message *each = messages; each < end; each++)
            at = mb_put_length(at, &each->block);
    if (draft->flags & MB_TIMES)
        for (const Message *each = messages; each < end; each++)
            at = mb_put(at, &each->timestamp, 8);
    if (draft->flags & MB_PARTITIONS)
        for (const Message *each = messages; each < end; each++)
            at = mb_put(at, &each->partition, 4);
    if (draft->flags & MB_KEYS)
        for (const Message *each = messages; each < end; each++)
            at = mb_put(at, each->key.data, each->key.size);
    for (const Message *each = messages; each < end; each++)
        at = mb_put(at, each->value.data, each->value.size);
    if (draft->flags & MB_HEADERS)
        for (const Message *each = messages; each < end; each++)
            at = mb_put(at, each->block.data, each->block.size);
    return at;
}

/* A body up to this size is put together in memory that is at hand. A segment's is not: to read back from there what has
 * just been stored, for the CRC, would be to wait for it. */
#define MB_AT_HAND 2048

/* The frame, and zeros up to a multiple of 8: mb_align8(draft->length) bytes. The header comes last, so that there is
 * no frame before all of it is there. */
static inline void mb_encode(uint8_t *at, const Draft *draft, uint32_t salt, uint64_t first, int64_t accepted)
{
    uint8_t header[MB_HEADER_SIZE], at_hand[MB_AT_HAND];
    size_t size = draft->length - MB_HEADER_SIZE, padded = mb_align8(draft->length) - MB_HEADER_SIZE;
    uint8_t *body = padded <= sizeof at_hand ? at_hand : at + MB_HEADER_SIZE;
    memset(mb_put_body(body, draft), 0, padded - size);
    uint32_t length = (uint32_t)draft->length, count = (uint32_t)draft->count, marker = MB_MARKER;
    uint16_t flags = (uint16_t)draft->flags;
    uint16_t topic_length = draft->flags & MB_TOPICS ? 0 : (uint16_t)draft->messages->topic.size;
    memcpy(header, &marker, 4);
    memcpy(header + 4, &length, 4);
    memcpy(header + 8, &first, 8);
    memcpy(header + 16, &accepted, 8);
    memcpy(header + 24, &count, 4);
    memcpy(header + 28, &flags, 2);
    memcpy(header + 30, &topic_length, 2);
    uint32_t crc = mb_crc32(salt, body, size);
    mb_put_u32(header + 32, crc);
    mb_put_u32(header + 36, mb_crc32_and(salt, header, 32, crc));
    if (body == at_hand)
        memcpy(at + MB_HEADER_SIZE, at_hand, padded);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(at, header, MB_HEADER_SIZE);
}

#endif
