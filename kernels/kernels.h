/* The CPU kernels of onnxcam. What each computes is defined by onnxcam/kernels/reference.py. */
#ifndef ONNXCAM_KERNELS_H
#define ONNXCAM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One axis of the way from a map to the photograph: pixel x of the photograph, where
 * first <= x < last, reads the map at (x + 0.5) * scale + offset - 0.5, clamped to its ends. */
typedef struct {
    double scale, offset;
    ptrdiff_t first, last;
} onnxcam_axis;

/* out[n,t,p] = sum_k mean_p(gradients[n,t,k,p]) * activations[n,k,p]; 0 on success. */
int onnxcam_combine(const float *activations, const float *gradients, float *out, size_t images,
                    size_t targets, size_t channels, size_t places);

/* out[height,width] = the map, resized bilinearly, 0 outside; 0 on success. */
int onnxcam_upsample(const float *map, size_t map_height, size_t map_width, onnxcam_axis rows,
                     onnxcam_axis columns, float *out, size_t height, size_t width);

/* The largest value that onnxcam_upsample would write; not below 0. */
int onnxcam_upsampled_max(const float *map, size_t map_height, size_t map_width,
                          onnxcam_axis rows, onnxcam_axis columns, float *peak);

/* Resize the map, divide it by peak, colour it and blend it over an RGB photograph; 0 on
 * success. Outside the visible part the photograph is multiplied by shade. */
int onnxcam_paint(const uint8_t *photo, size_t height, size_t width, const float *map,
                  size_t map_height, size_t map_width, onnxcam_axis rows, onnxcam_axis columns,
                  const uint8_t *colours, float alpha, float shade, float peak, uint8_t *out);

#ifdef __cplusplus
}
#endif

#endif
