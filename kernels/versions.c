#include "versions.h"

static int limit = 1;

void onnxcam_limit_level(int level) { limit = level; }

int onnxcam_level(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return limit > 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}
