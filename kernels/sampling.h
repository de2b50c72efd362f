/* Bilinear sampling shared by upsample.c and paint.c.
 *
 * Along an axis, pixels between the same two map elements form a run; within a run the value is
 * linear in the weight, so the inner loops have no gathers and vectorise. */
#ifndef ONNXCAM_SAMPLING_H
#define ONNXCAM_SAMPLING_H

#include <math.h>
#include <stdlib.h>

#include "kernels.h"

/* Where a pixel falls: between element `low` and the next, `weight` of the way. */
typedef struct {
    size_t low;
    float weight;
} sample;

static inline sample sample_at(onnxcam_axis axis, ptrdiff_t x, size_t length) {
    double u = ((double)x + 0.5) * axis.scale + axis.offset - 0.5;
    double end = (double)length - 1.0;
    u = u < 0.0 ? 0.0 : (u > end ? end : u);
    size_t low = (size_t)u;
    if (low + 1 >= length) low = length > 1 ? length - 2 : 0;
    sample found = {low, length > 1 ? (float)(u - (double)low) : 0.0f};
    return found;
}

static inline float lerp(float a, float b, float weight) { return a + (b - a) * weight; }

/* Interpolate two rows of the map into one. */
static inline void blend_rows(const float *map, size_t width, size_t height, sample at,
                              float *row) {
    const float *top = map + at.low * width;
    const float *bottom = height > 1 ? top + width : top;
    for (size_t i = 0; i < width; ++i) row[i] = lerp(top[i], bottom[i], at.weight);
}

/* Runs of pixels along the columns. `start` has runs + 1 entries, counted from axis.first. */
typedef struct {
    size_t count;
    size_t *start, *low;
    float *weight;
} column_runs;

static inline void free_runs(column_runs *runs) {
    free(runs->start);
    free(runs->low);
    free(runs->weight);
}

static inline int find_runs(onnxcam_axis axis, size_t length, column_runs *runs) {
    size_t visible = axis.last > axis.first ? (size_t)(axis.last - axis.first) : 0;
    runs->count = 0;
    runs->start = malloc((length + 2) * sizeof *runs->start);
    runs->low = malloc((length + 2) * sizeof *runs->low);
    runs->weight = malloc((visible + 1) * sizeof *runs->weight);
    if (!runs->start || !runs->low || !runs->weight) {
        free_runs(runs);
        return -1;
    }
    for (size_t i = 0; i < visible; ++i) {
        sample at = sample_at(axis, axis.first + (ptrdiff_t)i, length);
        runs->weight[i] = at.weight;
        if (i == 0 || at.low != runs->low[runs->count - 1]) {
            runs->start[runs->count] = i;
            runs->low[runs->count++] = at.low;
        }
    }
    runs->start[runs->count] = visible;
    return 0;
}

#endif
