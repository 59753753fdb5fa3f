/*
 * simd128.h: 128-bit SIMD for the kernels, and the vector operations that every SIMD family shares.
 *
 * In WebAssembly these are the engine's own instructions. The native build takes the same intrinsics
 * from SIMDe, so that sanitizers see the very code that ships. Declares the operations of kernels.h
 * that do not depend on how a family lays out signs; simd128_vector.c, simd128_head.c and simd128_dense.c have them.
 */
#ifndef BM_SIMD128_H
#define BM_SIMD128_H

#include "kernels.h"

#ifdef __wasm_simd128__
#include <wasm_simd128.h>
#else
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/wasm/simd128.h>
#endif

/*
 * The same value, which the optimizer may not look through. LLVM 14 would make eight scalar conversions of
 * "extend i16 lanes, convert to f32", and would load all operands of a long sum before the first addition,
 * more than an engine has registers for.
 */
static inline v128_t bm_v_opaque(v128_t v) {
#ifdef __wasm_simd128__
    __asm__ volatile("" : "+r"(v));
#endif
    return v;
}

/*
 * table[index[i]] in every byte i; index[i] <= 15. There the relaxed instruction gives the same bits on
 * every machine, and x64 has it as one instruction; the plain one, which must give 0 above 15, takes three.
 */
static inline v128_t bm_v_lookup(v128_t table, v128_t index) {
#ifdef __wasm_relaxed_simd__
    return (v128_t)__builtin_wasm_relaxed_swizzle_i8x16((__i8x16)table, (__i8x16)index);
#else
    return wasm_i8x16_swizzle(table, index);
#endif
}

static inline v128_t bm_v_abs(v128_t x) {
    return wasm_f32x4_abs(x);
}

static inline v128_t bm_v_mul_add(v128_t a, v128_t b, v128_t c) {
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c); /* two roundings, as the contracts say */
}

/* (0 + 1) + (2 + 3): the end of every striped sum. */
static inline float bm_v_sum_lanes(v128_t v) {
    return (wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1)) +
           (wasm_f32x4_extract_lane(v, 2) + wasm_f32x4_extract_lane(v, 3));
}

/* The sum of four i32. */
static inline int32_t bm_v_sum_i32(v128_t v) {
    return (wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1)) +
           (wasm_i32x4_extract_lane(v, 2) + wasm_i32x4_extract_lane(v, 3));
}

/* Four vectors are the 16 stripes. */
static inline float bm_v_sum_stripes(const v128_t s[4]) {
    return bm_v_sum_lanes(wasm_f32x4_add(wasm_f32x4_add(s[0], s[1]), wasm_f32x4_add(s[2], s[3])));
}

/* bm_round_to_int per lane; |x| < 2^22. */
static inline v128_t bm_v_round_to_int(v128_t x) {
    return wasm_i32x4_sub(wasm_f32x4_add(x, wasm_f32x4_splat(BM_ROUND_MAGIC)),
                          wasm_i32x4_splat(BM_ROUND_MAGIC_BITS));
}

/* bm_exp per lane, operation by operation. */
static inline v128_t bm_v_exp(v128_t x) {
    const v128_t magic = wasm_f32x4_splat(BM_ROUND_MAGIC);
    x = wasm_f32x4_pmax(x, wasm_f32x4_splat(BM_EXP_MIN));
    x = wasm_f32x4_pmin(x, wasm_f32x4_splat(BM_EXP_MAX));
    v128_t shifted = bm_v_mul_add(x, wasm_f32x4_splat(BM_LOG2_E), magic);
    v128_t n = wasm_f32x4_sub(shifted, magic);
    v128_t r = wasm_f32x4_sub(x, wasm_f32x4_mul(n, wasm_f32x4_splat(BM_LN2_HIGH)));
    r = wasm_f32x4_sub(r, wasm_f32x4_mul(n, wasm_f32x4_splat(BM_LN2_LOW)));
    v128_t r2 = wasm_f32x4_mul(r, r);
    v128_t p = bm_v_mul_add(wasm_f32x4_splat(BM_EXP_C0), r, wasm_f32x4_splat(BM_EXP_C1));
    v128_t p1 = bm_v_mul_add(wasm_f32x4_splat(BM_EXP_C2), r, wasm_f32x4_splat(BM_EXP_C3));
    v128_t p2 = bm_v_mul_add(wasm_f32x4_splat(BM_EXP_C4), r, wasm_f32x4_splat(BM_EXP_C5));
    p = bm_v_mul_add(p, r2, p1);
    p = bm_v_mul_add(p, r2, p2);
    p = bm_v_mul_add(p, r2, r);
    p = wasm_f32x4_add(p, wasm_f32x4_splat(1.0f));
    v128_t exponent = wasm_i32x4_add(wasm_i32x4_sub(shifted, wasm_i32x4_splat(BM_ROUND_MAGIC_BITS)),
                                     wasm_i32x4_splat(127));
    return wasm_f32x4_mul(p, wasm_i32x4_shl(exponent, 23));
}

static inline v128_t bm_v_silu(v128_t x) {
    v128_t one = wasm_f32x4_splat(1.0f);
    return wasm_f32x4_div(x, wasm_f32x4_add(one, bm_v_exp(wasm_f32x4_neg(x))));
}

/* 16 signed bytes as four vectors of 32 bits. */
static inline void bm_v_widen_bytes(v128_t out[4], const int8_t *from) {
    v128_t bytes = wasm_v128_load(from);
    v128_t low = wasm_i16x8_extend_low_i8x16(bytes);
    v128_t high = wasm_i16x8_extend_high_i8x16(bytes);
    out[0] = wasm_i32x4_extend_low_i16x8(low);
    out[1] = wasm_i32x4_extend_high_i16x8(low);
    out[2] = wasm_i32x4_extend_low_i16x8(high);
    out[3] = wasm_i32x4_extend_high_i16x8(high);
}

/*
 * i32 lanes of small integers as f32, exact. Not by f32x4.convert_i32x4: LLVM 14 sees that the lanes were bytes,
 * and converts them one at a time.
 */
static inline v128_t bm_v_float_of_small(v128_t v) {
    return wasm_f32x4_sub(wasm_i32x4_add(v, wasm_i32x4_splat(BM_ROUND_MAGIC_BITS)),
                          wasm_f32x4_splat(BM_ROUND_MAGIC));
}

/* Four finite binary16 values, sign-extended to i32 lanes, as f32: exact, as bm_half_to_float. */
static inline v128_t bm_v_float_of_half(v128_t wide) {
    v128_t bits = wasm_v128_and(wasm_i32x4_shl(wide, 13), wasm_i32x4_splat((int32_t)0x8fffffff));
    return wasm_f32x4_mul(bits, wasm_f32x4_splat(0x1p112f));
}

void bm_quantize__simd128(void *act, const float *x, size_t cols, bm_precision precision);
float bm_norm_scale__simd128(float *y, const float *x, const float *scale, const float *bias,
                             size_t n, float eps);
void bm_conv_silu__simd128(float *row, float *const *history, const float *w, size_t w_stride,
                           const float *bias, size_t n, size_t d_conv);
void bm_gate__simd128(float *y, const float *z, size_t n);
float bm_abs_max__simd128(const float *x, size_t n);
void bm_scan_f32__simd128(float *restrict state, float *restrict y, size_t y_stride,
                          const bm_scan *in, size_t head_dim, size_t d_state);
void bm_scan_i16__simd128(int16_t *restrict state, float *restrict unit, float *restrict most,
                          float *restrict y, size_t y_stride, const bm_scan *in, size_t head_dim,
                          size_t d_state);
void bm_dense_i8__simd128(float *restrict y, size_t y_stride, const int8_t *restrict w,
                          const float *restrict scale, size_t rows, size_t cols,
                          const bm_inputs *in, bm_precision precision);
void bm_dense_i4__simd128(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                          const float *restrict scale, size_t rows, size_t cols,
                          const bm_inputs *in, bm_precision precision);
void bm_dense_f16__simd128(float *restrict y, size_t y_stride, const uint16_t *restrict w,
                           size_t rows, size_t cols, const bm_inputs *in);
void bm_head_i8__simd128(float *logits, const int8_t *w, const float *scale, size_t rows,
                         size_t cols, const void *act, bm_precision precision);
void bm_head_i4__simd128(float *logits, const bm_i4_unit *w, const float *scale, size_t rows,
                         size_t cols, const void *act, bm_precision precision);
void bm_head_f32__simd128(float *logits, const float *w, size_t rows, size_t cols, const float *x);
void bm_head_f16__simd128(float *logits, const uint16_t *w, size_t rows, size_t cols,
                          const float *x);

#endif
