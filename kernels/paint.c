#include <string.h>

#include "sampling.h"

enum { LEVELS = 256, CHANNELS = 3, ONE = 1 << 14, HALF = ONE / 2 };

static void shade_pixels(const uint8_t *from, uint8_t *to, size_t count, int32_t keep) {
    for (size_t i = 0; i < count * CHANNELS; ++i)
        to[i] = (uint8_t)((from[i] * keep + HALF) / ONE);
}

/* Blend one run of pixels: value a at weight 0, a + slope at weight 1, in colour levels. */
static void paint_run(const uint8_t *from, uint8_t *to, const float *weight, size_t count,
                      float a, float slope, const int32_t *colours, int32_t keep) {
    for (size_t x = 0; x < count; ++x) {
        float level = a + slope * weight[x];
        int32_t index = (int32_t)(level < 0.0f ? 0.0f : (level > 255.0f ? 255.0f : level));
        const int32_t *colour = colours + index * CHANNELS;
        for (size_t c = 0; c < CHANNELS; ++c)
            to[x * CHANNELS + c] =
                (uint8_t)((from[x * CHANNELS + c] * keep + colour[c]) / ONE);
    }
}

int onnxcam_paint(const uint8_t *photo, size_t height, size_t width, const float *map,
                  size_t map_height, size_t map_width, onnxcam_axis rows, onnxcam_axis columns,
                  const uint8_t *colours, float alpha, float shade, float peak, uint8_t *out) {
    int32_t keep = (int32_t)((1.0f - alpha) * ONE + 0.5f), dim = (int32_t)(shade * ONE + 0.5f);
    int32_t weighted[LEVELS * CHANNELS];
    for (size_t i = 0; i < LEVELS * CHANNELS; ++i) weighted[i] = colours[i] * (ONE - keep) + HALF;
    column_runs runs;
    if (find_runs(columns, map_width, &runs)) return -1;
    float *row = malloc((map_width + 1) * sizeof *row);
    if (!row) {
        free_runs(&runs);
        return -1;
    }
    /* Adding 0.5 makes the conversion to a level round to nearest. */
    float scale = peak > 0.0f ? (float)(LEVELS - 1) / peak : 0.0f;
    for (ptrdiff_t y = 0; y < (ptrdiff_t)height; ++y) {
        const uint8_t *from = photo + (size_t)y * width * CHANNELS;
        uint8_t *to = out + (size_t)y * width * CHANNELS;
        if (y < rows.first || y >= rows.last || !map_height || !map_width) {
            shade_pixels(from, to, width, dim);
            continue;
        }
        size_t first = (size_t)columns.first, last = (size_t)columns.last;
        shade_pixels(from, to, first, dim);
        shade_pixels(from + last * CHANNELS, to + last * CHANNELS, width - last, dim);
        blend_rows(map, map_width, map_height, sample_at(rows, y, map_height), row);
        for (size_t r = 0; r < runs.count; ++r) {
            size_t start = runs.start[r], x = first + start;
            float a = row[runs.low[r]] * scale;
            float b = row[map_width > 1 ? runs.low[r] + 1 : 0] * scale;
            paint_run(from + x * CHANNELS, to + x * CHANNELS, runs.weight + start,
                      runs.start[r + 1] - start, a + 0.5f, b - a, weighted, keep);
        }
    }
    free(row);
    free_runs(&runs);
    return 0;
}
