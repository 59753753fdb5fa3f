/*
 * kernel_inputs.c: see kernel_inputs.h.
 */
#include "kernel_inputs.h"

#include <math.h>
#include <string.h>

size_t random_cols(check_random *r) {
    size_t shape = check_between(r, 0, 9);
    if (shape == 0)
        return 32;
    return 32 * check_between(r, 1, shape < 8 ? 12 : 72);
}

bm_precision random_precision(check_random *r) {
    return (bm_precision)check_between(r, 0, BM_PRECISION_COUNT - 1);
}

uint8_t *random_bytes(check_random *r, size_t n) {
    uint8_t *bytes = check_take(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)check_next(r);
    return bytes;
}

uint8_t *zeroed(size_t n) {
    return memset(check_take(n), 0, n);
}

void saturate(check_random *r, void *act, size_t cols, bm_precision precision) {
    bm_quantizer limit = bm_quantizer_of(precision);
    int16_t *q = bm_act_values(act, cols);
    bool is_plus = check_between(r, 0, 2) == 0;
    for (size_t i = 0; i < cols; i += 4) {
        int left = (int)limit.group4 + 2;
        for (size_t j = 0; j < 4; j++) {
            int most = left < (int)limit.absolute ? left : (int)limit.absolute;
            int value = j == 3 ? most : (int)check_between(r, (size_t)most / 2, (size_t)most);
            left -= value;
            q[i + j] = (int16_t)(is_plus || check_between(r, 0, 1) ? value : -value);
        }
    }
    for (size_t g = 0; g < bm_groups(cols); g++)
        bm_act_scales(act)[g] = check_uniform(r, 0.5, 2.0);
}

void check_head_row(const float *x, const double *w, size_t cols, double scale, float got,
                    const char *name) {
    double want = 0.0;
    double size = 0.0;
    for (size_t i = 0; i < cols; i++) {
        want += (double)x[i] * w[i];
        size += fabs((double)x[i] * w[i]);
    }
    double bound = (double)cols * UNIT * size * fabs(scale) + 0x1p-140;
    CHECK(fabs((double)got - scale * want) <= bound, "%s is %g, want %g within %g", name,
          (double)got, scale * want, bound);
}
