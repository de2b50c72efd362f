/* One loop, compiled for several levels of x86-64; the best one that the processor has is run.
 *
 * This is what target_clones does, without its need for ifunc (which musl lacks), and with fused
 * multiply-add. Elsewhere there is one version: aarch64 has its vectors from the start. */
#ifndef ONNXCAM_VERSIONS_H
#define ONNXCAM_VERSIONS_H

#include "kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)

/* For the body and what it calls: only inlined code is compiled for the level. */
#define ONNXCAM_INLINE static inline __attribute__((always_inline))

/* Defines `name` from `name_body`, which has the same parameters. */
#define ONNXCAM_VERSIONS(name, parameters, arguments)                                             \
    __attribute__((target("avx2,fma"))) static void name##_avx2 parameters {                     \
        name##_body arguments;                                                                   \
    }                                                                                            \
    static void name parameters {                                                                \
        if (onnxcam_level() > 0)                                                                 \
            name##_avx2 arguments;                                                               \
        else                                                                                     \
            name##_body arguments;                                                               \
    }

#else

#ifdef __GNUC__
#define ONNXCAM_INLINE static inline __attribute__((always_inline))
#else
#define ONNXCAM_INLINE static inline
#endif
#define ONNXCAM_VERSIONS(name, parameters, arguments)                                             \
    static void name parameters { name##_body arguments; }

#endif

#endif
