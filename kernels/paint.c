#include <string.h>

#include "sampling.h"

enum { LEVELS = 256, CHANNELS = 3, ONE = 256, HALF = ONE / 2 };

/* (a * keep + b * (ONE - keep)) / ONE, rounded; 16-bit arithmetic is enough and vectorises. */
static void blend(const uint8_t *a, const uint8_t *b, uint8_t *out, size_t count, uint16_t keep) {
    uint16_t other = (uint16_t)(ONE - keep);
    for (size_t i = 0; i < count; ++i)
        out[i] = (uint8_t)((uint16_t)(a[i] * keep + b[i] * other + HALF) >> 8);
}

static void dim(const uint8_t *from, uint8_t *to, size_t pixels, uint16_t keep) {
    for (size_t i = 0; i < pixels * CHANNELS; ++i)
        to[i] = (uint8_t)((uint16_t)(from[i] * keep + HALF) >> 8);
}

/* Colour levels of one run of pixels: value a at weight 0, a + slope at weight 1. */
static void level_run(const float *weight, uint8_t *level, size_t count, float a, float slope) {
    for (size_t x = 0; x < count; ++x) {
        int32_t index = (int32_t)(a + slope * weight[x]);
        index = index < 0 ? 0 : index;
        level[x] = (uint8_t)(index > LEVELS - 1 ? LEVELS - 1 : index);
    }
}

/* Look the levels up. Four bytes are written for each pixel and the next one overwrites the
 * fourth, so `row` has one byte more than its pixels need. */
static void colour_row(const uint8_t *level, size_t count, const uint32_t *colours, uint8_t *row) {
    for (size_t x = 0; x < count; ++x) memcpy(row + x * CHANNELS, colours + level[x], 4);
}

int onnxcam_paint(const uint8_t *photo, size_t height, size_t width, const float *map,
                  size_t map_height, size_t map_width, onnxcam_axis rows, onnxcam_axis columns,
                  const uint8_t *colours, float alpha, float shade, float peak, uint8_t *out) {
    uint16_t keep = (uint16_t)((1.0f - alpha) * ONE + 0.5f);
    uint16_t shaded = (uint16_t)(shade * ONE + 0.5f);
    uint32_t packed[LEVELS];
    memset(packed, 0, sizeof packed);
    for (size_t i = 0; i < LEVELS; ++i) memcpy(packed + i, colours + i * CHANNELS, CHANNELS);
    column_runs runs;
    if (find_runs(columns, map_width, &runs)) return -1;
    float *row = malloc((map_width + 1) * sizeof *row);
    uint8_t *level = malloc(width + 1), *coloured = malloc(width * CHANNELS + 4);
    if (!row || !level || !coloured) {
        free(row);
        free(level);
        free(coloured);
        free_runs(&runs);
        return -1;
    }
    /* Adding 0.5 makes the conversion to a level round to nearest. */
    float scale = peak > 0.0f ? (float)(LEVELS - 1) / peak : 0.0f;
    size_t first = (size_t)columns.first, last = (size_t)columns.last;
    for (ptrdiff_t y = 0; y < (ptrdiff_t)height; ++y) {
        const uint8_t *from = photo + (size_t)y * width * CHANNELS;
        uint8_t *to = out + (size_t)y * width * CHANNELS;
        if (y < rows.first || y >= rows.last || !map_height || !map_width) {
            dim(from, to, width, shaded);
            continue;
        }
        dim(from, to, first, shaded);
        dim(from + last * CHANNELS, to + last * CHANNELS, width - last, shaded);
        blend_rows(map, map_width, map_height, sample_at(rows, y, map_height), row);
        for (size_t r = 0; r < runs.count; ++r) {
            size_t start = runs.start[r];
            float a = row[runs.low[r]] * scale;
            float b = row[map_width > 1 ? runs.low[r] + 1 : 0] * scale;
            level_run(runs.weight + start, level + start, runs.start[r + 1] - start, a + 0.5f,
                      b - a);
        }
        colour_row(level, last - first, packed, coloured);
        blend(from + first * CHANNELS, coloured, to + first * CHANNELS, (last - first) * CHANNELS,
              keep);
    }
    free(row);
    free(level);
    free(coloured);
    free_runs(&runs);
    return 0;
}
