/* float16 as float32. */
#ifndef ONNXCAM_NUMBERS_H
#define ONNXCAM_NUMBERS_H

#include <string.h>

#include "versions.h"

ONNXCAM_INLINE float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* In loops it vectorises without instructions of its own. */
ONNXCAM_INLINE float from_half(uint16_t half) {
    const uint32_t bias = 127 - 15, smallest = (bias + 1) << 23, infinity = 0xffu << 23;
    uint32_t magnitude = half & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (bias << 23);
    /* Subnormals are multiples of 2^-24, which is the last place of numbers like `smallest`. */
    float tiny = from_bits(smallest + (magnitude << 13)) - from_bits(smallest);
    uint32_t small;
    memcpy(&small, &tiny, sizeof small);
    uint32_t bits = magnitude < 0x0400u ? small : normal;
    bits = magnitude >= 0x7c00u ? infinity | (magnitude << 13) : bits;
    return from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

/* Convert `count` numbers, by the processor's own instruction where it has one. */
void onnxcam_widen(const uint16_t *halves, size_t count, float *restrict out);

/* Return `count` numbers from position `at` on, as floats; those from float16 are in `buffer`. */
ONNXCAM_INLINE const float *floats(onnxcam_numbers from, size_t at, size_t count,
                                   float *restrict buffer) {
    if (!from.half) return (const float *)from.data + at;
    const uint16_t *halves = (const uint16_t *)from.data + at;
    onnxcam_widen(halves, count, buffer);
    return buffer;
}

/* Ask for memory before its turn: short rows are over before the processor sees where this goes.
 * What lies AHEAD may be beyond the end; nothing is read then. */
ONNXCAM_INLINE void ahead(onnxcam_numbers from, size_t at, size_t count) {
#ifdef __GNUC__
    enum { AHEAD = 4096, LINE = 64 };
    const size_t size = from.half ? sizeof(uint16_t) : sizeof(float);
    const uintptr_t start = (uintptr_t)from.data + at * size + AHEAD;
    for (size_t i = 0; i < count * size; i += LINE) __builtin_prefetch((const void *)(start + i));
#else
    (void)from, (void)at, (void)count;
#endif
}

#endif
