#include "versions.h"

static int limit = 1;

void onnxcam_limit_level(int level) { limit = level; }

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

/* Older compilers cannot ask for it by name. Threads that race here find the same. */
static int has_f16c(void) {
    static int known = -1;
    if (known < 0) {
        unsigned a, b, c, d;
        known = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    }
    return known;
}

int onnxcam_level(void) {
    return limit > 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           has_f16c();
}
#else
int onnxcam_level(void) { return 0; }
#endif
