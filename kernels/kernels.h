/* The CPU kernels of onnxcam. What each computes is defined by onnxcam/kernels/reference.py.
 *
 * Arrays are contiguous. A kernel works on a range of rows or places, so that its caller may give
 * ranges to several threads. Functions that return an int return 0, or -1 without memory. */
#ifndef ONNXCAM_KERNELS_H
#define ONNXCAM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* float32, or float16 if half. */
typedef struct {
    const void *data;
    int half;
} onnxcam_numbers;

/* One axis of the way from a map to the photograph: pixel x of the photograph, where
 * first <= x < last, reads the map at (x + 0.5) * scale + offset - 0.5, clamped to its ends. */
typedef struct {
    double scale, offset;
    ptrdiff_t first, last;
} onnxcam_axis;

/* means[r] = the mean of row r, first <= r < last, of a matrix [count, places]. */
void onnxcam_means(onnxcam_numbers rows, size_t count, size_t first, size_t last, size_t places,
                   float *means);

/* Activations [images, channels, places] and weights [images, targets, channels], which are
 * float32, or [images, targets, channels, places] if pixels. */
typedef struct {
    onnxcam_numbers activations, weights;
    size_t images, targets, channels, places;
    int pixels, relu;
} onnxcam_combination;

/* out[image,t,p] = sum_k weights[image,t,k] * activations[image,k,p] for first <= p < last. */
int onnxcam_combine(const onnxcam_combination *of, size_t image, size_t first, size_t last,
                    float *out);

/* Maps [maps, map_height, map_width] and the pixels [height, width] that each of them lies on.
 * Rows of pixels are counted through all maps. Elements that are not finite are read as 0. */
typedef struct {
    const float *data;
    size_t maps, map_height, map_width, height, width;
    onnxcam_axis rows, columns;
} onnxcam_maps;

/* out[row,width] for first <= row < last: the map, resized bilinearly, 0 outside. */
int onnxcam_upsample(const onnxcam_maps *of, int normalise, size_t first, size_t last,
                     float *out);

/* The largest value that onnxcam_upsample would write for one of the maps; not below 0. */
int onnxcam_upsampled_max(const onnxcam_maps *of, size_t map, float *peak);

/* out[map,channel,y,x] = guided[map,channel,y,x] * the resized map, first <= row < last. */
int onnxcam_fuse(const onnxcam_maps *of, onnxcam_numbers guided, size_t channels, size_t first,
                 size_t last, float *out);

/* Resize the first map, divide it by peak, colour it and blend it over an RGB photograph, rows
 * first <= y < last: the colour's weight is alpha times twice the value, alpha at most. Outside the visible part the photograph is multiplied by shade. */
int onnxcam_paint(const onnxcam_maps *of, const uint8_t *photo, const uint8_t *colours,
                  float alpha, float shade, float peak, size_t first, size_t last, uint8_t *out);

/* The kernels are compiled for several levels of x86-64; this is the one in use. */
int onnxcam_level(void);

/* Use no higher level than this one; for tests. */
void onnxcam_limit_level(int level);

#ifdef __cplusplus
}
#endif

#endif
