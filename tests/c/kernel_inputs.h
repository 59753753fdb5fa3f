/*
 * kernel_inputs.h: what the tests of products share: ragged shapes, activations at their limits, a row in doubles.
 */
#ifndef KERNEL_INPUTS_H
#define KERNEL_INPUTS_H

#include "check.h"
#include "kernels/kernels.h"

#define UNIT 0x1p-24

size_t random_cols(check_random *r); /* a multiple of 32, often off BM_GROUP */
bm_precision random_precision(check_random *r);
uint8_t *random_bytes(check_random *r, size_t n);
uint8_t *zeroed(size_t n);

/*
 * The worst integers that the limits allow, put in as if quantize had made them: every group of four
 * at its largest sum, where a variant's narrow sums would overflow first.
 */
void saturate(check_random *r, void *act, size_t cols, bm_precision precision);

/* Columns [0, cols) of x against one row of weights, within cols * 2^-24 of the sum of magnitudes. */
void check_head_row(const float *x, const double *w, size_t cols, double scale, float got,
                    const char *name);

#endif
