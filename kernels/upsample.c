#include <string.h>

#include "sampling.h"

int onnxcam_upsample(const float *map, size_t map_height, size_t map_width, onnxcam_axis rows,
                     onnxcam_axis columns, float *out, size_t height, size_t width) {
    memset(out, 0, height * width * sizeof *out);
    if (!map_height || !map_width) return 0;
    column_runs runs;
    if (find_runs(columns, map_width, &runs)) return -1;
    float *row = malloc(map_width * sizeof *row);
    if (!row) {
        free_runs(&runs);
        return -1;
    }
    for (ptrdiff_t y = rows.first; y < rows.last; ++y) {
        blend_rows(map, map_width, map_height, sample_at(rows, y, map_height), row);
        float *line = out + (size_t)y * width + columns.first;
        for (size_t r = 0; r < runs.count; ++r) {
            float a = row[runs.low[r]];
            float b = row[map_width > 1 ? runs.low[r] + 1 : 0];
            for (size_t x = runs.start[r]; x < runs.start[r + 1]; ++x)
                line[x] = lerp(a, b, runs.weight[x]);
        }
    }
    free(row);
    free_runs(&runs);
    return 0;
}

int onnxcam_upsampled_max(const float *map, size_t map_height, size_t map_width,
                          onnxcam_axis rows, onnxcam_axis columns, float *peak) {
    /* Between four map elements the value is bilinear, so it is largest in a corner of each
     * rectangle of pixels that lies there: only those are looked at. */
    *peak = 0.0f;
    if (!map_height || !map_width) return 0;
    column_runs across, down;
    if (find_runs(columns, map_width, &across)) return -1;
    if (find_runs(rows, map_height, &down)) {
        free_runs(&across);
        return -1;
    }
    float *row = malloc(map_width * sizeof *row);
    if (!row) {
        free_runs(&across);
        free_runs(&down);
        return -1;
    }
    for (size_t v = 0; v < 2 * down.count; ++v) {
        size_t y = v % 2 ? down.start[v / 2 + 1] - 1 : down.start[v / 2];
        sample at = {down.low[v / 2], down.weight[y]};
        blend_rows(map, map_width, map_height, at, row);
        for (size_t r = 0; r < across.count; ++r) {
            float a = row[across.low[r]];
            float b = row[map_width > 1 ? across.low[r] + 1 : 0];
            float left = lerp(a, b, across.weight[across.start[r]]);
            float right = lerp(a, b, across.weight[across.start[r + 1] - 1]);
            float larger = left > right ? left : right;
            if (larger > *peak) *peak = larger;
        }
    }
    free(row);
    free_runs(&across);
    free_runs(&down);
    return 0;
}
