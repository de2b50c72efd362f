#include <string.h>

#include "numbers.h"
#include "sampling.h"

/* One row of pixels from one row of elements. */
ONNXCAM_INLINE void stretch_body(const float *row, const axis_runs *runs, size_t last_element,
                                 float *restrict line) {
    const float *weight = runs->weight;
    for (size_t r = 0; r < runs->count; ++r) {
        const float a = row[runs->low[r]];
        const float b = row[runs->low[r] < last_element ? runs->low[r] + 1 : last_element];
        for (size_t x = runs->start[r]; x < runs->start[r + 1]; ++x)
            line[x] = lerp(a, b, weight[x]);
    }
}

ONNXCAM_VERSIONS(stretch,
                 (const float *row, const axis_runs *runs, size_t last_element, float *line),
                 (row, runs, last_element, line))

ONNXCAM_INLINE void divide_body(float *restrict line, size_t count, float peak) {
    const float factor = 1.0f / peak;
    if (factor <= FLT_MAX)
        for (size_t x = 0; x < count; ++x) {
            float value = line[x] * factor;
            line[x] = value < 1.0f ? value : 1.0f;
        }
    else /* of a subnormal peak */
        for (size_t x = 0; x < count; ++x) line[x] /= peak;
}

ONNXCAM_VERSIONS(divide, (float *line, size_t count, float peak), (line, count, peak))

/* What resizing the rows of a map needs. */
typedef struct {
    axis_runs columns;
    float *row;
} resizer;

static int open_resizer(const onnxcam_maps *of, resizer *with) {
    if (find_runs(of->columns, of->map_width, &with->columns)) return -1;
    with->row = malloc((of->map_width + 1) * sizeof *with->row);
    if (with->row) return 0;
    free_runs(&with->columns);
    return -1;
}

static void close_resizer(resizer *with) {
    free_runs(&with->columns);
    free(with->row);
}

/* Row y of the pixels of a map: `width` of them. */
static void resize_row(const onnxcam_maps *of, const resizer *with, size_t map, ptrdiff_t y,
                       float *line) {
    memset(line, 0, of->width * sizeof *line);
    if (y < of->rows.first || y >= of->rows.last || !of->map_height || !of->map_width) return;
    blend_rows(of, map, sample_at(of->rows, y, of->map_height), with->row);
    stretch(with->row, &with->columns, of->map_width - 1, line + of->columns.first);
}

int onnxcam_upsample(const onnxcam_maps *of, int normalise, size_t first, size_t last,
                     float *out) {
    resizer with;
    if (open_resizer(of, &with)) return -1;
    float peak = 0.0f;
    int failed = 0;
    for (size_t i = first; i < last && !failed; ++i) {
        const size_t map = i / of->height, y = i % of->height;
        float *line = out + i * of->width;
        if (normalise && (i == first || y == 0)) failed = onnxcam_upsampled_max(of, map, &peak);
        resize_row(of, &with, map, (ptrdiff_t)y, line);
        if (peak > 0.0f) divide(line, of->width, peak);
    }
    close_resizer(&with);
    return failed;
}

int onnxcam_upsampled_max(const onnxcam_maps *of, size_t map, float *peak) {
    /* Between four map elements the value is bilinear, so it is largest in a corner of each
     * rectangle of pixels that lies there: only those are looked at. */
    *peak = 0.0f;
    if (!of->map_height || !of->map_width) return 0;
    axis_runs across, down;
    if (find_runs(of->columns, of->map_width, &across)) return -1;
    if (find_runs(of->rows, of->map_height, &down)) {
        free_runs(&across);
        return -1;
    }
    float *row = malloc(of->map_width * sizeof *row);
    if (!row) {
        free_runs(&across);
        free_runs(&down);
        return -1;
    }
    for (size_t v = 0; v < 2 * down.count; ++v) {
        size_t y = v % 2 ? down.start[v / 2 + 1] - 1 : down.start[v / 2];
        sample at = {down.low[v / 2], down.weight[y]};
        blend_rows(of, map, at, row);
        for (size_t r = 0; r < across.count; ++r) {
            float a = row[across.low[r]];
            float b = row[of->map_width > 1 ? across.low[r] + 1 : 0];
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

ONNXCAM_INLINE void multiply_body(onnxcam_numbers guided, size_t at, const float *restrict heat,
                                  float *restrict buffer, float *restrict out, size_t count) {
    const float *values = floats(guided, at, count, buffer);
    for (size_t x = 0; x < count; ++x) out[x] = values[x] * heat[x];
}

ONNXCAM_VERSIONS(multiply,
                 (onnxcam_numbers guided, size_t at, const float *heat, float *buffer, float *out,
                  size_t count),
                 (guided, at, heat, buffer, out, count))

int onnxcam_fuse(const onnxcam_maps *of, onnxcam_numbers guided, size_t channels, size_t first,
                 size_t last, float *out) {
    const size_t width = of->width;
    resizer with;
    if (open_resizer(of, &with)) return -1;
    float *heat = malloc((2 * width + 1) * sizeof *heat);
    if (!heat) {
        close_resizer(&with);
        return -1;
    }
    for (size_t i = first; i < last; ++i) {
        const size_t map = i / of->height, y = i % of->height;
        resize_row(of, &with, map, (ptrdiff_t)y, heat);
        for (size_t c = 0; c < channels; ++c) {
            const size_t at = ((map * channels + c) * of->height + y) * width;
            multiply(guided, at, heat, heat + width, out + at, width);
        }
    }
    free(heat);
    close_resizer(&with);
    return 0;
}
