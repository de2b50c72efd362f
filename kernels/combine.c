#include <stdlib.h>
#include <string.h>

#include "kernels.h"

/* Sums of a few dozen terms are taken in float, and those sums added up in double. */
enum { LANES = 16, SPAN = 1024, CHANNELS_AT_ONCE = 32 };

static double sum(const float *values, size_t count) {
    double total = 0;
    for (size_t start = 0; start < count; start += SPAN) {
        size_t end = count - start < SPAN ? count : start + SPAN;
        float lanes[LANES] = {0};
        size_t i = start;
        for (; i + LANES <= end; i += LANES)
            for (size_t j = 0; j < LANES; ++j) lanes[j] += values[i + j];
        for (; i < end; ++i) lanes[0] += values[i];
        for (size_t j = 0; j < LANES; ++j) total += (double)lanes[j];
    }
    return total;
}

static void add_weighted(float *restrict map, const float *restrict values, float weight,
                         size_t count) {
    for (size_t p = 0; p < count; ++p) map[p] += weight * values[p];
}

static void flush(double *restrict total, float *restrict part, size_t count) {
    for (size_t p = 0; p < count; ++p) {
        total[p] += (double)part[p];
        part[p] = 0;
    }
}

int onnxcam_combine(const float *activations, const float *gradients, float *out, size_t images,
                    size_t targets, size_t channels, size_t places) {
    if (places == 0) return 0;
    double *total = malloc(places * sizeof *total);
    float *part = calloc(places, sizeof *part);
    if (!total || !part) {
        free(total);
        free(part);
        return -1;
    }
    for (size_t n = 0; n < images; ++n) {
        for (size_t t = 0; t < targets; ++t) {
            memset(total, 0, places * sizeof *total);
            const float *maps = activations + n * channels * places;
            const float *slopes = gradients + (n * targets + t) * channels * places;
            for (size_t k = 0; k < channels; ++k, maps += places, slopes += places) {
                add_weighted(part, maps, (float)(sum(slopes, places) / (double)places), places);
                if ((k + 1) % CHANNELS_AT_ONCE == 0) flush(total, part, places);
            }
            flush(total, part, places);
            float *target = out + (n * targets + t) * places;
            for (size_t p = 0; p < places; ++p) target[p] = (float)total[p];
        }
    }
    free(total);
    free(part);
    return 0;
}
