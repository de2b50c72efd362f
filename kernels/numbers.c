#include "numbers.h"

static void widen(const uint16_t *halves, size_t count, float *restrict out) {
    for (size_t i = 0; i < count; ++i) out[i] = from_half(halves[i]);
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* Compilers do not find this instruction for numbers that are not typed as float16, a type that
 * older ones lack. */
__attribute__((target("avx2,f16c"))) static void widen_avx2(const uint16_t *halves, size_t count,
                                                            float *restrict out) {
    enum { WIDTH = 8 };
    size_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) {
        const __m128i narrow = _mm_loadu_si128((const __m128i *)(const void *)(halves + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(narrow));
    }
    widen(halves + i, count - i, out + i);
}

void onnxcam_widen(const uint16_t *halves, size_t count, float *restrict out) {
    if (onnxcam_level() > 0)
        widen_avx2(halves, count, out);
    else
        widen(halves, count, out);
}
#else
void onnxcam_widen(const uint16_t *halves, size_t count, float *restrict out) {
    widen(halves, count, out);
}
#endif
