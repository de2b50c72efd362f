#include <stdlib.h>
#include <string.h>

#include "numbers.h"

/* Sums of many terms are taken in float piece by piece, and the pieces added up in double. */
enum {
    ROWS = 4,          /* summed at once: their reductions overlap */
    SPAN = 512,        /* a piece of these rows */
    CACHED = 1 << 20,  /* a matrix of fewer numbers may well be in a cache */
    LONG_SPAN = 2048,  /* a piece of rows in larger ones */
    CHANNELS = 8,      /* weighted at once: the sums are read and written once for all of them */
    FLUSH = 16,        /* times so many channels are a piece */
    TILE = 512,        /* places whose sums stay in the cache while all channels pass */
};

ONNXCAM_INLINE void sum_rows(onnxcam_numbers rows, size_t first, size_t last, size_t places,
                             float *restrict means) {
    float buffer[ROWS][SPAN];
    const double share = 1.0 / (double)places;
    for (size_t row = first; row < last; row += ROWS) {
        /* The last rows may be fewer; one of them is then summed again. */
        const size_t more = last - row - 1;
        const size_t at = row * places, next = more > 0 ? places : 0;
        const size_t third = more > 1 ? 2 * places : next;
        const size_t fourth = more > 2 ? 3 * places : third;
        double totals[ROWS] = {0};
        if (places < SPAN) ahead(rows, at, ROWS * places);
        for (size_t start = 0; start < places; start += SPAN) {
            const size_t count = places - start < SPAN ? places - start : SPAN;
            const float *a = floats(rows, at + start, count, buffer[0]);
            const float *b = floats(rows, at + next + start, count, buffer[1]);
            const float *c = floats(rows, at + third + start, count, buffer[2]);
            const float *d = floats(rows, at + fourth + start, count, buffer[3]);
            float sum_a = 0, sum_b = 0, sum_c = 0, sum_d = 0;
#pragma omp simd reduction(+ : sum_a, sum_b, sum_c, sum_d)
            for (size_t i = 0; i < count; ++i) {
                sum_a += a[i];
                sum_b += b[i];
                sum_c += c[i];
                sum_d += d[i];
            }
            totals[0] += (double)sum_a;
            totals[1] += (double)sum_b;
            totals[2] += (double)sum_c;
            totals[3] += (double)sum_d;
        }
        for (size_t i = 0; i < ROWS && i <= more; ++i) means[row + i] = (float)(totals[i] * share);
    }
}

/* Long rows that lie in memory rather than a cache are read fastest one after another. */
ONNXCAM_INLINE void sum_long_rows(const float *rows, size_t first, size_t last, size_t places,
                                  float *restrict means) {
    for (size_t row = first; row < last; ++row) {
        double total = 0;
        for (size_t start = 0; start < places; start += LONG_SPAN) {
            const size_t count = places - start < LONG_SPAN ? places - start : LONG_SPAN;
            const float *values = rows + row * places + start;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (size_t i = 0; i < count; ++i) sum += values[i];
            total += (double)sum;
        }
        means[row] = (float)(total / (double)places);
    }
}

ONNXCAM_INLINE void means_of_body(onnxcam_numbers rows, int cached, size_t first, size_t last,
                                  size_t places, float *means) {
    /* Each form of its own, so that the loops over float32 have no trace of float16. */
    if (rows.half)
        sum_rows((onnxcam_numbers){rows.data, 1}, first, last, places, means);
    else if (cached || places < LONG_SPAN)
        sum_rows((onnxcam_numbers){rows.data, 0}, first, last, places, means);
    else
        sum_long_rows(rows.data, first, last, places, means);
}

ONNXCAM_VERSIONS(means_of, (onnxcam_numbers rows, int cached, size_t first, size_t last,
                            size_t places, float *means),
                 (rows, cached, first, last, places, means))

void onnxcam_means(onnxcam_numbers rows, size_t count, size_t first, size_t last, size_t places,
                   float *means) {
    if (places)
        means_of(rows, count * places < CACHED, first, last, places, means);
    else
        for (size_t row = first; row < last; ++row) means[row] = 0;
}

/* sums += the channels under one weight each. */
ONNXCAM_INLINE void add_weighted(float *restrict sums, const float *const *values,
                                 const float *weights, size_t count) {
    const float *a = values[0], *b = values[1], *c = values[2], *d = values[3];
    const float *e = values[4], *f = values[5], *g = values[6], *h = values[7];
    const float wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3];
    const float we = weights[4], wf = weights[5], wg = weights[6], wh = weights[7];
    for (size_t p = 0; p < count; ++p)
        sums[p] += ((wa * a[p] + wb * b[p]) + (wc * c[p] + wd * d[p])) +
                   ((we * e[p] + wf * f[p]) + (wg * g[p] + wh * h[p]));
}

/* sums += the channels under a weight each pixel. */
ONNXCAM_INLINE void add_products(float *restrict sums, const float *a, const float *wa,
                                 const float *b, const float *wb, const float *c,
                                 const float *wc, const float *d, const float *wd,
                                 size_t count) {
    for (size_t p = 0; p < count; ++p)
        sums[p] += (wa[p] * a[p] + wb[p] * b[p]) + (wc[p] * c[p] + wd[p] * d[p]);
}

ONNXCAM_INLINE void flush(double *restrict totals, float *restrict sums, size_t count) {
    for (size_t p = 0; p < count; ++p) {
        totals[p] += (double)sums[p];
        sums[p] = 0;
    }
}

/* Memory of one call: sums and totals of each target, channels as float32, zeros. */
typedef struct {
    double *totals;
    float *sums, *values, *weights, *zeros;
} workspace;

ONNXCAM_INLINE void tile_of(const onnxcam_combination *of, int half, int pixels, size_t image,
                            size_t start, size_t count, const workspace *work, float *out) {
    const size_t channels = of->channels, places = of->places;
    const onnxcam_numbers activations = {of->activations.data, half};
    for (size_t k = 0; k < channels; k += CHANNELS) {
        const float *values[CHANNELS];
        if (places < TILE) ahead(activations, (image * channels + k) * places, CHANNELS * places);
        for (size_t i = 0; i < CHANNELS; ++i)
            values[i] = k + i < channels
                            ? floats(activations, (image * channels + k + i) * places + start,
                                     count, work->values + i * TILE)
                            : work->zeros;
        for (size_t t = 0; t < of->targets; ++t) {
            const size_t at = (image * of->targets + t) * channels + k;
            float *sums = work->sums + t * TILE;
            if (pixels) {
                const float *weights[CHANNELS];
                for (size_t i = 0; i < CHANNELS; ++i)
                    weights[i] = k + i < channels
                                     ? floats(of->weights, (at + i) * places + start, count,
                                              work->weights + i * TILE)
                                     : work->zeros;
                for (size_t i = 0; i < CHANNELS; i += 4)
                    add_products(sums, values[i], weights[i], values[i + 1], weights[i + 1],
                                 values[i + 2], weights[i + 2], values[i + 3], weights[i + 3],
                                 count);
            } else {
                float weights[CHANNELS] = {0};
                for (size_t i = 0; i < CHANNELS && k + i < channels; ++i)
                    weights[i] = ((const float *)of->weights.data)[at + i];
                add_weighted(sums, values, weights, count);
            }
            if ((k / CHANNELS + 1) % FLUSH == 0) flush(work->totals + t * TILE, sums, count);
        }
    }
    for (size_t t = 0; t < of->targets; ++t) {
        double *totals = work->totals + t * TILE;
        float *map = out + (image * of->targets + t) * places + start;
        flush(totals, work->sums + t * TILE, count);
        for (size_t p = 0; p < count; ++p) {
            /* A NaN is not below 0 and stays. */
            map[p] = of->relu && totals[p] < 0 ? 0.0f : (float)totals[p];
            totals[p] = 0;
        }
    }
}

ONNXCAM_INLINE void tile_body(const onnxcam_combination *of, size_t image, size_t start,
                              size_t count, const workspace *work, float *out) {
    /* Each form of its own, so that their loops have no trace of the others. */
    const int half = of->activations.half;
    if (of->pixels)
        tile_of(of, half, 1, image, start, count, work, out);
    else if (half)
        tile_of(of, 1, 0, image, start, count, work, out);
    else
        tile_of(of, 0, 0, image, start, count, work, out);
}

ONNXCAM_VERSIONS(tile, (const onnxcam_combination *of, size_t image, size_t start, size_t count,
                        const workspace *work, float *out),
                 (of, image, start, count, work, out))

int onnxcam_combine(const onnxcam_combination *of, size_t image, size_t first, size_t last,
                    float *out) {
    const size_t sums = of->targets * TILE, channels = CHANNELS * TILE;
    double *totals = malloc((sums + 1) * sizeof *totals);
    float *floats = malloc((sums + 2 * channels + TILE) * sizeof *floats);
    if (!totals || !floats) {
        free(totals);
        free(floats);
        return -1;
    }
    workspace work = {totals, floats, floats + sums, floats + sums + channels,
                      floats + sums + 2 * channels};
    const size_t widest = last - first < TILE ? last - first : TILE;
    for (size_t t = 0; t < of->targets; ++t) {
        memset(work.totals + t * TILE, 0, widest * sizeof *totals);
        memset(work.sums + t * TILE, 0, widest * sizeof *floats);
    }
    memset(work.zeros, 0, widest * sizeof *floats);
    for (size_t start = first; start < last; start += TILE)
        tile(of, image, start, last - start < TILE ? last - start : TILE, &work, out);
    free(totals);
    free(floats);
    return 0;
}
