/* Bilinear sampling shared by upsample.c and paint.c.
 *
 * Along an axis, pixels between the same two map elements form a run; within a run the value is
 * linear in the weight, so the inner loops have no gathers and vectorise. */
#ifndef ONNXCAM_SAMPLING_H
#define ONNXCAM_SAMPLING_H

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "versions.h"

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

ONNXCAM_INLINE float lerp(float a, float b, float weight) { return a + (b - a) * weight; }

ONNXCAM_INLINE float finite_or_0(float value) { return fabsf(value) <= FLT_MAX ? value : 0.0f; }

/* Interpolate two rows of a map into one. */
static inline void blend_rows(const onnxcam_maps *of, size_t map, sample at, float *restrict row) {
    const float *top = of->data + (map * of->map_height + at.low) * of->map_width;
    const float *bottom = of->map_height > 1 ? top + of->map_width : top;
    for (size_t i = 0; i < of->map_width; ++i)
        row[i] = lerp(finite_or_0(top[i]), finite_or_0(bottom[i]), at.weight);
}

/* Runs of pixels along an axis. `start` has runs + 1 entries, counted from axis.first. */
typedef struct {
    size_t count;
    size_t *start, *low;
    float *weight;
} axis_runs;

static inline void free_runs(axis_runs *runs) {
    free(runs->start);
    free(runs->low);
    free(runs->weight);
}

static inline int find_runs(onnxcam_axis axis, size_t length, axis_runs *runs) {
    size_t visible = axis.last > axis.first ? (size_t)(axis.last - axis.first) : 0;
    /* A negative scale, or a step beyond the next element, starts a run a pixel. */
    runs->count = 0;
    runs->start = malloc((visible + 1) * sizeof *runs->start);
    runs->low = malloc((visible + 1) * sizeof *runs->low);
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
