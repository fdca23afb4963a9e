/* CRC-32 of zlib's polynomial (0xEDB88320, reflected), as docs/format.md wants it.
 *
 * Promises: mb_crc32(start, data, size) is zlib.crc32(data, start) for every input; no alignment is asked for and
 * nothing beyond data[size - 1] is read. mb_crc32_prepare() comes first, once.
 *
 * Long data is folded with carry-less multiplications where the processor has them (Intel, "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ", 2009); what is short or left over goes through tables, eight bytes a step.
 */
#ifndef MB_CRC32_H
#define MB_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define MB_FOLDS 1
#include <immintrin.h>
#endif

static uint32_t mb_crc_table[8][256];
static int mb_crc_folds = 0;

static void mb_crc32_prepare(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        mb_crc_table[0][i] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t crc = mb_crc_table[slice - 1][i];
            mb_crc_table[slice][i] = crc >> 8 ^ mb_crc_table[0][crc & 255];
        }
#ifdef MB_FOLDS
    __builtin_cpu_init();
    mb_crc_folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
#endif
}

/* The state is the inverted CRC, here and below. */
static uint32_t mb_crc_by_table(uint32_t state, const uint8_t *data, size_t size)
{
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low, high;
        memcpy(&low, data, 4);
        memcpy(&high, data + 4, 4);
        low ^= state;
        state = mb_crc_table[7][low & 255] ^ mb_crc_table[6][low >> 8 & 255] ^ mb_crc_table[5][low >> 16 & 255]
            ^ mb_crc_table[4][low >> 24] ^ mb_crc_table[3][high & 255] ^ mb_crc_table[2][high >> 8 & 255]
            ^ mb_crc_table[1][high >> 16 & 255] ^ mb_crc_table[0][high >> 24];
    }
    for (; size; data++, size--)
        state = state >> 8 ^ mb_crc_table[0][(state ^ *data) & 255];
    return state;
}

#ifdef MB_FOLDS
#define MB_TARGET __attribute__((target("pclmul,sse4.1")))

MB_TARGET static inline __m128i mb_load(const uint8_t *data)
{
    return _mm_loadu_si128((const __m128i *)data);
}

/* x moved on by the distance that the two factors stand for, and y added. */
MB_TARGET static inline __m128i mb_fold(__m128i x, __m128i factors, __m128i y)
{
    __m128i low = _mm_clmulepi64_si128(x, factors, 0x00), high = _mm_clmulepi64_si128(x, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), y);
}

/* From 16 - n on, it moves the bytes of a register up by n; from 16 + n on, down by n. Zeros come in. */
static const uint8_t mb_moves[48] = {
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
};

/* size: at least 16.
 *
 * Zeros in front do not change a CRC whose state is 0, and a state is the same as being added to the first bytes. So
 * what is no whole register goes first, behind zeros, and nothing is left over for the tables. */
MB_TARGET static uint32_t mb_crc_by_folding(uint32_t state, const uint8_t *data, size_t size)
{
    /* x^n modulo the polynomial, reflected, for the distances in bytes, and for the reduction. */
    const __m128i by_64 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_48 = _mm_set_epi64x(0x0174359406, 0x003db1ecdc);
    const __m128i by_32 = _mm_set_epi64x(0x015a546366, 0x00f1da05aa);
    const __m128i by_16 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i by_4 = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    const __m128i low_32 = _mm_set_epi32(0, -1, 0, -1);
    const __m128i start = _mm_cvtsi32_si128((int)state);
    size_t over = size & 15;
    __m128i x = start;
    if (over) {
        x = _mm_shuffle_epi8(_mm_xor_si128(mb_load(data), start), mb_load(mb_moves + over));
        /* And what of the state did not fit there. */
        x = mb_fold(x, by_16, _mm_shuffle_epi8(start, mb_load(mb_moves + 16 + over)));
        data += over, size -= over;
    }
    x = _mm_xor_si128(x, mb_load(data));
    if (size >= 64) {
        __m128i y = mb_load(data + 16), z = mb_load(data + 32), w = mb_load(data + 48);
        for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
            x = mb_fold(x, by_64, mb_load(data));
            y = mb_fold(y, by_64, mb_load(data + 16));
            z = mb_fold(z, by_64, mb_load(data + 32));
            w = mb_fold(w, by_64, mb_load(data + 48));
        }
        x = _mm_xor_si128(mb_fold(x, by_48, mb_fold(y, by_32, w)), mb_fold(z, by_16, _mm_setzero_si128()));
    } else {
        data += 16, size -= 16;
    }
    for (; size; data += 16, size -= 16)
        x = mb_fold(x, by_16, mb_load(data));
    x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, by_16, 0x10));
    x = _mm_xor_si128(_mm_srli_si128(x, 4), _mm_clmulepi64_si128(_mm_and_si128(x, low_32), by_4, 0x00));
    __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(x, low_32), barrett, 0x10), low_32);
    x = _mm_xor_si128(x, _mm_clmulepi64_si128(quotient, barrett, 0x00));
    return (uint32_t)_mm_extract_epi32(x, 1);
}
#endif

static inline uint32_t mb_crc_of(uint32_t state, const uint8_t *data, size_t size)
{
#ifdef MB_FOLDS
    if (mb_crc_folds && size >= 32)
        return mb_crc_by_folding(state, data, size);
#endif
    return mb_crc_by_table(state, data, size);
}

static inline uint32_t mb_crc32(uint32_t start, const uint8_t *data, size_t size)
{
    return ~mb_crc_of(~start, data, size);
}

/* mb_crc32() of data and then of the four bytes of a number, which are needed last: where the number is a CRC of other
 * bytes, the processor works at both at once. */
static inline uint32_t mb_crc32_and(uint32_t start, const uint8_t *data, size_t size, uint32_t number)
{
    uint32_t state = mb_crc_of(~start, data, size) ^ number;
    return ~(mb_crc_table[3][state & 255] ^ mb_crc_table[2][state >> 8 & 255] ^ mb_crc_table[1][state >> 16 & 255]
        ^ mb_crc_table[0][state >> 24]);
}

#endif
