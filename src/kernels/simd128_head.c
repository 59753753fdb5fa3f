/*
 * simd128_head.c: the language-model head of every SIMD family: i8, f16 and f32 tables, in file form.
 *
 * A row after the other, from its start to its end: a head is read once a token and hardly fits a cache, and
 * the processor fetches ahead of one stream best. Four rows at once, which load the activations once for
 * all of them, take 3.7 ms for an int8 head of 32000 x 1536, and rows in turn 2.2. Lanes are stripes, as in
 * simd128_vector.c.
 */
#include "simd128.h"

/*
 * Exact: at most 256 products below 2^20, summed in i32; n % 32 == 0. Two sums, because one waits for
 * its last addition longer than for the next 16 weights.
 */
static int32_t dot_i16_i8(const int16_t *q, const int8_t *w, size_t n) {
    v128_t even = wasm_i32x4_splat(0);
    v128_t odd = even;
    for (size_t i = 0; i < n; i += 32)
        for (size_t k = 0; k < 32; k += 16) {
            v128_t bytes = wasm_v128_load(w + i + k);
            v128_t low = wasm_i16x8_extend_low_i8x16(bytes);
            v128_t high = wasm_i16x8_extend_high_i8x16(bytes);
            even = wasm_i32x4_add(even, wasm_i32x4_dot_i16x8(wasm_v128_load(q + i + k), low));
            odd = wasm_i32x4_add(odd, wasm_i32x4_dot_i16x8(wasm_v128_load(q + i + k + 8), high));
        }
    v128_t sum = wasm_i32x4_add(even, odd);
    return (wasm_i32x4_extract_lane(sum, 0) + wasm_i32x4_extract_lane(sum, 1)) +
           (wasm_i32x4_extract_lane(sum, 2) + wasm_i32x4_extract_lane(sum, 3));
}

static float dot_f32_i8(const float *x, const int8_t *w, size_t n) {
    v128_t s[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                   wasm_f32x4_splat(0.0f)};
    for (size_t i = 0; i < n; i += 16) {
        v128_t bytes = wasm_v128_load(w + i);
        v128_t low = wasm_i16x8_extend_low_i8x16(bytes);
        v128_t high = wasm_i16x8_extend_high_i8x16(bytes);
        v128_t v[4] = {wasm_i32x4_extend_low_i16x8(low), wasm_i32x4_extend_high_i16x8(low),
                       wasm_i32x4_extend_low_i16x8(high), wasm_i32x4_extend_high_i16x8(high)};
        for (size_t k = 0; k < 4; k++)
            s[k] =
                bm_v_mul_add(wasm_v128_load(x + i + 4 * k), wasm_f32x4_convert_i32x4(v[k]), s[k]);
    }
    return bm_v_sum_stripes(s);
}

void bm_head_i8__simd128(float *logits, const int8_t *w, const float *scale, size_t rows,
                         size_t cols, const void *act, bm_precision precision) {
    const float *d = bm_act_scales(act);
    const void *values = bm_act_values(act, cols);
    for (size_t v = 0; v < rows; v++) {
        const int8_t *row = w + v * cols;
        if (precision == BM_EXACT) {
            logits[v] = scale[v] * dot_f32_i8(values, row, cols);
            continue;
        }
        const int16_t *q = values;
        float sum = 0.0f;
        for (size_t start = 0; start < cols; start += BM_GROUP) {
            size_t n = cols - start < BM_GROUP ? cols - start : BM_GROUP;
            sum += d[start / BM_GROUP] * (float)dot_i16_i8(q + start, row + start, n);
        }
        logits[v] = scale[v] * sum;
    }
}

void bm_head_f32__simd128(float *logits, const float *w, size_t rows, size_t cols, const float *x) {
    for (size_t v = 0; v < rows; v++) {
        const float *row = w + v * cols;
        v128_t s[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                       wasm_f32x4_splat(0.0f)};
        for (size_t i = 0; i < cols; i += 16)
            for (size_t k = 0; k < 4; k++)
                s[k] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k), wasm_v128_load(row + i + 4 * k),
                                    s[k]);
        logits[v] = bm_v_sum_stripes(s);
    }
}

/* Four finite binary16 values, sign-extended to i32 lanes, as f32: exact, as bm_half_to_float. */
static v128_t float_of_half(v128_t wide) {
    v128_t bits = wasm_v128_and(wasm_i32x4_shl(wide, 13), wasm_i32x4_splat((int32_t)0x8fffffff));
    return wasm_f32x4_mul(bits, wasm_f32x4_splat(0x1p112f));
}

void bm_head_f16__simd128(float *logits, const uint16_t *w, size_t rows, size_t cols,
                          const float *x) {
    for (size_t v = 0; v < rows; v++) {
        const uint16_t *row = w + v * cols;
        v128_t s[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                       wasm_f32x4_splat(0.0f)};
        for (size_t i = 0; i < cols; i += 16)
            for (size_t k = 0; k < 4; k += 2) {
                v128_t packed = wasm_v128_load(row + i + 4 * k);
                v128_t low = float_of_half(wasm_i32x4_extend_low_i16x8(packed));
                v128_t high = float_of_half(wasm_i32x4_extend_high_i16x8(packed));
                s[k] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k), low, s[k]);
                s[k + 1] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k + 4), high, s[k + 1]);
            }
        logits[v] = bm_v_sum_stripes(s);
    }
}
