#include <stdlib.h>
#include <string.h>

#include "kernels.h"

enum { LANES = 8 };

/* Sum in double; the lanes let the compiler vectorise without reordering what they hold. */
static double sum(const float *values, size_t count) {
    double lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t j = 0; j < LANES; ++j) lanes[j] += (double)values[i + j];
    double total = 0;
    for (; i < count; ++i) total += (double)values[i];
    for (size_t j = 0; j < LANES; ++j) total += lanes[j];
    return total;
}

int onnxcam_combine(const float *activations, const float *gradients, float *out, size_t images,
                    size_t targets, size_t channels, size_t places) {
    if (places == 0) return 0;
    double *map = malloc(places * sizeof *map);
    if (!map) return -1;
    for (size_t n = 0; n < images; ++n) {
        for (size_t t = 0; t < targets; ++t) {
            memset(map, 0, places * sizeof *map);
            const float *maps = activations + n * channels * places;
            const float *slopes = gradients + (n * targets + t) * channels * places;
            for (size_t k = 0; k < channels; ++k, maps += places, slopes += places) {
                double weight = sum(slopes, places) / (double)places;
                for (size_t p = 0; p < places; ++p) map[p] += weight * (double)maps[p];
            }
            float *target = out + (n * targets + t) * places;
            for (size_t p = 0; p < places; ++p) target[p] = (float)map[p];
        }
    }
    free(map);
    return 0;
}
