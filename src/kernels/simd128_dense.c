/*
 * simd128_dense.c: dense projections of every SIMD family: int8, 4 bits in groups, and binary16, in file form.
 *
 * One token is a head's product: a row after the other, read once. For several tokens a piece of a row is widened
 * once, to i16 or f32, in the first level of cache, and each token takes its products with it, four tokens at a time:
 * they share what is loaded of the row. A row is read from memory once for all tokens.
 *
 * In 4 bits a lane of i32x4.dot_i16x8 is a lane of the contract, so that a group ends with one conversion
 * and no sum across lanes.
 */
#include "simd128.h"

/* Tokens that pass a piece of a row together. */
enum { TOGETHER = 4 };

static void add_c(float *y, float c, size_t rows) {
    for (size_t o = 0; o < rows; o++)
        y[o] = c + y[o];
}

static size_t piece_of(size_t cols, size_t start, size_t most) {
    return cols - start < most ? cols - start : most;
}

/* ---- Widening a piece of a row ---------------------------------------------------------------- */

static void bytes_to_i16(int16_t *out, const int8_t *w, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        v128_t bytes = wasm_v128_load(w + i);
        wasm_v128_store(out + i, wasm_i16x8_extend_low_i8x16(bytes));
        wasm_v128_store(out + i + 8, wasm_i16x8_extend_high_i8x16(bytes));
    }
}

/* The codes of 32 columns, 8 in a vector: a nibble goes to the top of its lane, and comes down with its sign. */
static inline void unpack_codes(v128_t out[4], const uint8_t *w) {
    v128_t words = wasm_v128_load(w);
    out[0] = wasm_i16x8_shr(wasm_i16x8_shl(words, 12), 12);
    out[1] = wasm_i16x8_shr(wasm_i16x8_shl(words, 8), 12);
    out[2] = wasm_i16x8_shr(wasm_i16x8_shl(words, 4), 12);
    out[3] = wasm_i16x8_shr(words, 12);
}

static void codes_to_i16(int16_t *out, const uint8_t *w, size_t n) {
    for (size_t i = 0; i < n; i += 32) {
        v128_t codes[4];
        unpack_codes(codes, w + i / 2);
        for (size_t k = 0; k < 4; k++)
            wasm_v128_store(out + i + 8 * k, codes[k]);
    }
}

static void bytes_to_f32(float *out, const int8_t *w, size_t n) {
    for (size_t i = 0; i < n; i += 16) {
        v128_t v[4];
        bm_v_widen_bytes(v, w + i);
        for (size_t k = 0; k < 4; k++)
            wasm_v128_store(out + i + 4 * k, bm_v_float_of_small(v[k]));
    }
}

static void codes_to_f32(float *out, const uint8_t *w, const float *scale, size_t n) {
    for (size_t i = 0; i < n; i += 32) {
        v128_t codes[4];
        unpack_codes(codes, w + i / 2);
        v128_t s = wasm_f32x4_splat(scale[i / BM_I4_GROUP]);
        for (size_t k = 0; k < 4; k++) {
            v128_t low = bm_v_opaque(wasm_i32x4_extend_low_i16x8(codes[k]));
            v128_t high = bm_v_opaque(wasm_i32x4_extend_high_i16x8(codes[k]));
            wasm_v128_store(out + i + 8 * k, wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(low)));
            wasm_v128_store(out + i + 8 * k + 4, wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(high)));
        }
    }
}

static void halves_to_f32(float *out, const uint16_t *w, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        v128_t packed = wasm_v128_load(w + i);
        wasm_v128_store(out + i, bm_v_float_of_half(wasm_i32x4_extend_low_i16x8(packed)));
        wasm_v128_store(out + i + 4, bm_v_float_of_half(wasm_i32x4_extend_high_i16x8(packed)));
    }
}

/* ---- Several tokens with a piece of a row ------------------------------------------------------ */

/* Which tokens pass together: those past the last are the last again, and their results are not kept. */
static inline size_t token_at(const bm_inputs *in, size_t t) {
    return t < in->n ? t : in->n - 1;
}

/* In four lanes each: the sums of q * w over the n columns from `start` on, for TOGETHER tokens from t on. */
static inline void dot_together(v128_t dot[TOGETHER], const bm_inputs *in, size_t t, size_t cols,
                                size_t start, const int16_t *w, size_t n) {
    const int16_t *q[TOGETHER];
    v128_t sum[TOGETHER]; /* at constant places only: an engine keeps them in registers */
    for (size_t k = 0; k < TOGETHER; k++) {
        const int16_t *values = bm_act_values(in->act + token_at(in, t + k) * in->stride, cols);
        q[k] = values + start;
        sum[k] = wasm_i32x4_splat(0);
    }
    for (size_t i = 0; i < n; i += 8) {
        v128_t weights = wasm_v128_load(w + i);
        for (size_t k = 0; k < TOGETHER; k++)
            sum[k] =
                wasm_i32x4_add(sum[k], wasm_i32x4_dot_i16x8(wasm_v128_load(q[k] + i), weights));
    }
    for (size_t k = 0; k < TOGETHER; k++)
        dot[k] = sum[k];
}

static inline float scale_of(const bm_inputs *in, size_t t, size_t column) {
    return bm_act_scales(in->act + t * in->stride)[column / BM_GROUP];
}

static void row_i8(float sum[BM_TOKENS], const int8_t *row, size_t cols, const bm_inputs *in) {
    _Alignas(16) int16_t wide[BM_GROUP];
    for (size_t t = 0; t < BM_TOKENS; t++)
        sum[t] = 0.0f;
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t n = piece_of(cols, start, BM_GROUP);
        bytes_to_i16(wide, row + start, n);
        for (size_t t = 0; t < in->n; t += TOGETHER) {
            v128_t dot[TOGETHER];
            dot_together(dot, in, t, cols, start, wide, n);
            for (size_t k = t; k < in->n && k < t + TOGETHER; k++)
                sum[k] += scale_of(in, k, start) * (float)bm_v_sum_i32(dot[k - t]);
        }
    }
}

static inline void end_group(v128_t *lanes, float unit, v128_t dot) {
    *lanes = bm_v_mul_add(wasm_f32x4_splat(unit), wasm_f32x4_convert_i32x4(dot), *lanes);
}

static void row_i4(float sum[BM_TOKENS], const uint8_t *row, const float *scale, size_t cols,
                   const bm_inputs *in) {
    _Alignas(16) int16_t wide[BM_I4_GROUP];
    v128_t lanes[BM_TOKENS];
    for (size_t t = 0; t < BM_TOKENS; t++)
        lanes[t] = wasm_f32x4_splat(0.0f);
    for (size_t start = 0; start < cols; start += BM_I4_GROUP) {
        size_t n = piece_of(cols, start, BM_I4_GROUP);
        codes_to_i16(wide, row + start / 2, n);
        for (size_t t = 0; t < in->n; t += TOGETHER) {
            v128_t dot[TOGETHER];
            dot_together(dot, in, t, cols, start, wide, n);
            for (size_t k = t; k < in->n && k < t + TOGETHER; k++)
                end_group(&lanes[k], scale_of(in, k, start) * scale[start / BM_I4_GROUP],
                          dot[k - t]);
        }
    }
    for (size_t t = 0; t < in->n; t++)
        sum[t] = bm_v_sum_lanes(lanes[t]);
}

/* The 16 stripes of each token. */
typedef struct {
    v128_t of[BM_TOKENS][4];
} stripes;

static void clear_stripes(stripes *s) {
    for (size_t t = 0; t < BM_TOKENS; t++)
        for (size_t k = 0; k < 4; k++)
            s->of[t][k] = wasm_f32x4_splat(0.0f);
}

static void add_piece(stripes *s, const bm_inputs *in, size_t cols, size_t start, const float *w,
                      size_t n) {
    for (size_t t = 0; t < in->n; t++) {
        const float *values = bm_act_values(in->act + t * in->stride, cols);
        const float *x = values + start;
        v128_t sum[4];
        for (size_t k = 0; k < 4; k++)
            sum[k] = s->of[t][k];
        for (size_t i = 0; i < n; i += 16)
            for (size_t k = 0; k < 4; k++)
                sum[k] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k), wasm_v128_load(w + i + 4 * k),
                                      sum[k]);
        for (size_t k = 0; k < 4; k++)
            s->of[t][k] = sum[k];
    }
}

/* ---- Products --------------------------------------------------------------------------------- */

/* Weights that meet f32 inputs; row_scale and group_scale where the form has them. */
typedef struct matrix {
    const void *weight;
    const float *row_scale;
    const float *group_scale; /* [rows, bm_i4_groups(cols)] */
    size_t cols;
    void (*widen)(float *out, const struct matrix *m, size_t row, size_t start, size_t n);
} matrix;

static void widen_bytes(float *out, const matrix *m, size_t row, size_t start, size_t n) {
    bytes_to_f32(out, (const int8_t *)m->weight + row * m->cols + start, n);
}

static void widen_codes(float *out, const matrix *m, size_t row, size_t start, size_t n) {
    const float *scales = m->group_scale + row * bm_i4_groups(m->cols);
    codes_to_f32(out, (const uint8_t *)m->weight + (row * m->cols + start) / 2,
                 scales + start / BM_I4_GROUP, n);
}

static void widen_halves(float *out, const matrix *m, size_t row, size_t start, size_t n) {
    halves_to_f32(out, (const uint16_t *)m->weight + row * m->cols + start, n);
}

static void rows_f32(float *y, size_t y_stride, const matrix *m, size_t rows, const bm_inputs *in) {
    _Alignas(16) float wide[BM_GROUP];
    for (size_t o = 0; o < rows; o++) {
        stripes s;
        clear_stripes(&s);
        for (size_t start = 0; start < m->cols; start += BM_GROUP) {
            size_t n = piece_of(m->cols, start, BM_GROUP);
            m->widen(wide, m, o, start, n);
            add_piece(&s, in, m->cols, start, wide, n);
        }
        for (size_t t = 0; t < in->n; t++) {
            float sum = bm_v_sum_stripes(s.of[t]);
            y[t * y_stride + o] = in->c[t] + (m->row_scale ? m->row_scale[o] * sum : sum);
        }
    }
}

void bm_dense_i8__simd128(float *restrict y, size_t y_stride, const int8_t *restrict w,
                          const float *restrict scale, size_t rows, size_t cols,
                          const bm_inputs *in, bm_precision precision) {
    if (in->n == 1) {
        bm_head_i8__simd128(y, w, scale, rows, cols, in->act, precision);
        add_c(y, in->c[0], rows);
        return;
    }
    if (precision == BM_EXACT) {
        const matrix m = {.weight = w, .row_scale = scale, .cols = cols, .widen = widen_bytes};
        rows_f32(y, y_stride, &m, rows, in);
        return;
    }
    for (size_t o = 0; o < rows; o++) {
        float sum[BM_TOKENS];
        row_i8(sum, w + o * cols, cols, in);
        for (size_t t = 0; t < in->n; t++)
            y[t * y_stride + o] = in->c[t] + scale[o] * sum[t];
    }
}

/* Sums of one group of a row with one token, without the detour through memory. */
static inline v128_t dot_codes(const int16_t *q, const uint8_t *w, size_t n) {
    v128_t even = wasm_i32x4_splat(0);
    v128_t odd = even;
    for (size_t i = 0; i < n; i += 32) {
        v128_t codes[4];
        unpack_codes(codes, w + i / 2);
        for (size_t k = 0; k < 4; k += 2) {
            const int16_t *x = q + i + 8 * k;
            even = wasm_i32x4_add(even, wasm_i32x4_dot_i16x8(wasm_v128_load(x), codes[k]));
            odd = wasm_i32x4_add(odd, wasm_i32x4_dot_i16x8(wasm_v128_load(x + 8), codes[k + 1]));
        }
    }
    return wasm_i32x4_add(even, odd);
}

static float token_i4(const uint8_t *row, const float *scale, size_t cols, const uint8_t *act) {
    const int16_t *q = bm_act_values(act, cols);
    const float *d = bm_act_scales(act);
    v128_t lanes = wasm_f32x4_splat(0.0f);
    for (size_t start = 0; start < cols; start += BM_I4_GROUP) {
        size_t n = piece_of(cols, start, BM_I4_GROUP);
        end_group(&lanes, d[start / BM_GROUP] * scale[start / BM_I4_GROUP],
                  dot_codes(q + start, row + start / 2, n));
    }
    return bm_v_sum_lanes(lanes);
}

void bm_dense_i4__simd128(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                          const float *restrict scale, size_t rows, size_t cols,
                          const bm_inputs *in, bm_precision precision) {
    if (precision == BM_EXACT) {
        const matrix m = {.weight = w, .group_scale = scale, .cols = cols, .widen = widen_codes};
        rows_f32(y, y_stride, &m, rows, in);
        return;
    }
    for (size_t o = 0; o < rows; o++) {
        const uint8_t *row = w + o * (cols / 2);
        const float *scales = scale + o * bm_i4_groups(cols);
        float sum[BM_TOKENS];
        if (in->n == 1)
            sum[0] = token_i4(row, scales, cols, in->act);
        else
            row_i4(sum, row, scales, cols, in);
        for (size_t t = 0; t < in->n; t++)
            y[t * y_stride + o] = in->c[t] + sum[t];
    }
}

void bm_dense_f16__simd128(float *restrict y, size_t y_stride, const uint16_t *restrict w,
                           size_t rows, size_t cols, const bm_inputs *in) {
    if (in->n == 1) {
        bm_head_f16__simd128(y, w, rows, cols, bm_act_values(in->act, cols));
        add_c(y, in->c[0], rows);
        return;
    }
    rows_f32(y, y_stride, &(matrix){.weight = w, .cols = cols, .widen = widen_halves}, rows, in);
}
