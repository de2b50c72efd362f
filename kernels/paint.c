#include <string.h>

#include "sampling.h"

enum { LEVELS = 256, RGB = 3, ONE = 256, HALF = ONE / 2, FULL = 255 };

/* (a * (FULL - weight) + b * weight) / FULL, rounded, with a weight for each byte. 16-bit
 * arithmetic is enough and vectorises: with t the sum and HALF, that is (t + t / 256) / 256. */
ONNXCAM_INLINE void blend_body(const uint8_t *restrict a, const uint8_t *restrict b,
                               const uint8_t *restrict weight, uint8_t *restrict out,
                               size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const uint16_t t = (uint16_t)(a[i] * (FULL - weight[i]) + b[i] * weight[i] + HALF);
        out[i] = (uint8_t)((uint16_t)(t + (t >> 8)) >> 8);
    }
}

ONNXCAM_VERSIONS(blend,
                 (const uint8_t *a, const uint8_t *b, const uint8_t *weight, uint8_t *out,
                  size_t count),
                 (a, b, weight, out, count))

ONNXCAM_INLINE void dim_body(const uint8_t *restrict from, uint8_t *restrict to, size_t pixels,
                             uint16_t keep) {
    for (size_t i = 0; i < pixels * RGB; ++i)
        to[i] = (uint8_t)((uint16_t)(from[i] * keep + HALF) >> 8);
}

ONNXCAM_VERSIONS(dim, (const uint8_t *from, uint8_t *to, size_t pixels, uint16_t keep),
                 (from, to, pixels, keep))

/* A level that is surely the first or last colour, and far from what a float cannot hold. */
static float bounded(double level) {
    const double bound = 1e30;
    return (float)(level < -bound ? -bound : (level > bound ? bound : level));
}

/* Colour levels of a row of pixels; `scale` makes the peak the last level. */
ONNXCAM_INLINE void levels_body(const float *row, size_t last_element, double scale,
                                const axis_runs *runs, uint8_t *restrict level) {
    const float *weight = runs->weight, top = LEVELS - 1;
    for (size_t r = 0; r < runs->count; ++r) {
        const size_t low = runs->low[r], high = low < last_element ? low + 1 : last_element;
        /* Adding a half makes the conversion round to nearest. */
        const float a = bounded((double)row[low] * scale + 0.5);
        const float b = bounded((double)row[high] * scale + 0.5);
        for (size_t x = runs->start[r]; x < runs->start[r + 1]; ++x) {
            float value = lerp(a, b, weight[x]);
            value = value > 0.0f ? value : 0.0f;
            level[x] = (uint8_t)(int32_t)(value < top ? value : top);
        }
    }
}

ONNXCAM_VERSIONS(levels,
                 (const float *row, size_t last_element, double scale, const axis_runs *runs,
                  uint8_t *level),
                 (row, last_element, scale, runs, level))

/* Look the levels up, as colours or as weights. Four bytes are written for each pixel and the next
 * one overwrites the fourth, so `row` has one byte more than its pixels need. */
static void look_up(const uint8_t *level, size_t count, const uint32_t *table, uint8_t *row) {
    for (size_t x = 0; x < count; ++x) memcpy(row + x * RGB, table + level[x], 4);
}

/* The colour's weight at each level, of FULL, once for each channel: it grows with the level up to
 * alpha, which it reaches half way. */
static void opacities(float alpha, uint32_t *table) {
    for (size_t i = 0; i < LEVELS; ++i) {
        const size_t twice = 2 * i < FULL ? 2 * i : FULL;
        memset(table + i, (int)(alpha * (float)twice + 0.5f), RGB);
    }
}

int onnxcam_paint(const onnxcam_maps *of, const uint8_t *photo, const uint8_t *colours,
                  float alpha, float shade, float peak, size_t first, size_t last, uint8_t *out) {
    const size_t width = of->width;
    const uint16_t shaded = (uint16_t)(shade * ONE + 0.5f);
    uint32_t packed[LEVELS] = {0}, weights[LEVELS] = {0};
    for (size_t i = 0; i < LEVELS; ++i) memcpy(packed + i, colours + i * RGB, RGB);
    opacities(alpha, weights);
    axis_runs runs;
    if (find_runs(of->columns, of->map_width, &runs)) return -1;
    float *row = malloc((of->map_width + 1) * sizeof *row);
    uint8_t *level = malloc(width + 1), *coloured = malloc(width * RGB + 4);
    uint8_t *weight = malloc(width * RGB + 4);
    if (!row || !level || !coloured || !weight) {
        free(row);
        free(level);
        free(coloured);
        free(weight);
        free_runs(&runs);
        return -1;
    }
    const double scale = peak > 0.0f ? (LEVELS - 1) / (double)peak : 0.0;
    const size_t left = (size_t)of->columns.first, right = (size_t)of->columns.last;
    for (size_t y = first; y < last; ++y) {
        const uint8_t *from = photo + y * width * RGB;
        uint8_t *to = out + y * width * RGB;
        if ((ptrdiff_t)y < of->rows.first || (ptrdiff_t)y >= of->rows.last || !of->map_height ||
            !of->map_width) {
            dim(from, to, width, shaded);
            continue;
        }
        dim(from, to, left, shaded);
        dim(from + right * RGB, to + right * RGB, width - right, shaded);
        blend_rows(of, 0, sample_at(of->rows, (ptrdiff_t)y, of->map_height), row);
        levels(row, of->map_width - 1, scale, &runs, level);
        look_up(level, right - left, packed, coloured);
        look_up(level, right - left, weights, weight);
        blend(from + left * RGB, coloured, weight, to + left * RGB, (right - left) * RGB);
    }
    free(row);
    free(level);
    free(coloured);
    free(weight);
    free_runs(&runs);
    return 0;
}
