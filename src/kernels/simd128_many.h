/*
 * simd128_many.h: binary products of many tokens at once over the weight layout of simd128_table.c.
 */
#ifndef BM_SIMD128_MANY_H
#define BM_SIMD128_MANY_H

#include "simd128.h"

/* Where row r of a block of BM_ROWS keeps its byte, among the 64 of one step of 8 columns. */
static inline size_t bm_slot_of_row(size_t r) {
    size_t in_vector = r % 16;
    return r / 16 * 16 + 2 * (in_vector % 8) + in_vector / 8;
}

/* The row of a block whose byte is at `slot`. */
static inline size_t bm_row_of_slot(size_t slot) {
    size_t in_vector = slot % 16;
    return slot / 16 * 16 + in_vector / 2 + in_vector % 2 * 8;
}

/* Bytes of scratch, aligned to BM_ALIGN, that a call needs. */
uint64_t bm_matmul_many_scratch(size_t rows, bm_precision precision);

/* As bm_kernels.matmul with BM_FAST or BM_HIGH; no tables are read. */
void bm_matmul_many__simd128(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                             size_t rows, size_t cols, const bm_inputs *in, bm_precision precision,
                             void *restrict scratch);

#endif
