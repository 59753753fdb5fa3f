/*
 * simd128_head.c: the language-model head of every SIMD family: i8, f16 and f32 tables in file form, and the
 * head in 4 bits in the units of kernels.h.
 *
 * A table in file form is read a row after the other, from its start to its end: a head is read once a token and hardly fits a cache, and
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
    return bm_v_sum_i32(sum);
}

static float dot_f32_i8(const float *x, const int8_t *w, size_t n) {
    v128_t s[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                   wasm_f32x4_splat(0.0f)};
    for (size_t i = 0; i < n; i += 16) {
        v128_t v[4];
        bm_v_widen_bytes(v, w + i);
        for (size_t k = 0; k < 4; k++)
            s[k] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k), bm_v_float_of_small(v[k]), s[k]);
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

/* ---- 4 bits ---------------------------------------------------------------------------------- */

enum { QUADS = BM_I4_ROWS / 4, UNIT_STEPS = BM_I4_COLS / 8 };

/*
 * Inputs of one group as the codes meet them. Codes are stored as code + 8, so 8 sum x is taken off. In
 * BM_FAST there is room to leave two of a lane's four nibbles where they are, worth 16 and 256: the inputs of
 * the others have the factor, and the sums are 256 times what they should be.
 */
typedef struct {
    _Alignas(16) int16_t x[BM_GROUP];
    int32_t start[BM_GROUP / BM_I4_COLS]; /* -8 sum x of 32 columns, with which their sum begins */
} code_inputs;

enum { FAST_EXCESS = 8 };

static void prepare(code_inputs *in, const int16_t *q, size_t n, bm_precision precision) {
    const v128_t ones = wasm_i16x8_splat(1);
    const v128_t factors =
        precision == BM_FAST ? wasm_i16x8_make(256, 256, 16, 16, 1, 1, 256, 256) : ones;
    const int32_t per_input = precision == BM_FAST ? -8 * (1 << FAST_EXCESS) : -8;
    for (size_t i = 0; i < n; i += BM_I4_COLS) {
        v128_t sum = wasm_i32x4_splat(0);
        for (size_t k = i; k < i + BM_I4_COLS; k += 8) {
            v128_t x = wasm_v128_load(q + k);
            wasm_v128_store(in->x + k, wasm_i16x8_mul(x, factors));
            sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(x, ones));
        }
        int32_t total = bm_v_sum_i32(sum);
        in->start[i / BM_I4_COLS] = total * per_input;
    }
}

/* Two columns in every lane, for 8 columns. */
static inline void load_inputs(v128_t x[4], const int16_t *from) {
    for (size_t k = 0; k < 4; k++)
        x[k] = wasm_v128_load32_splat(from + 2 * k);
}

/* sum + the four nibbles of every lane times x, all shifted down or not. */
static inline v128_t add_products(v128_t sum, v128_t n0, v128_t n1, v128_t n2, v128_t n3,
                                  const v128_t x[4]) {
    v128_t even = wasm_i32x4_add(wasm_i32x4_dot_i16x8(n0, x[0]), wasm_i32x4_dot_i16x8(n1, x[1]));
    v128_t odd = wasm_i32x4_add(wasm_i32x4_dot_i16x8(n2, x[2]), wasm_i32x4_dot_i16x8(n3, x[3]));
    return wasm_i32x4_add(sum, wasm_i32x4_add(even, odd));
}

static inline v128_t add_fast(v128_t sum, v128_t codes, const v128_t x[4]) {
    return add_products(sum, wasm_v128_and(codes, wasm_i16x8_splat(0x000f)),
                        wasm_v128_and(codes, wasm_i16x8_splat(0x00f0)),
                        wasm_v128_and(codes, wasm_i16x8_splat(0x0f00)), wasm_u16x8_shr(codes, 12),
                        x);
}

static inline v128_t add_high(v128_t sum, v128_t codes, const v128_t x[4]) {
    const v128_t nibble = wasm_i16x8_splat(15);
    return add_products(
        sum, wasm_v128_and(codes, nibble), wasm_v128_and(wasm_u16x8_shr(codes, 4), nibble),
        wasm_v128_and(wasm_u16x8_shr(codes, 8), nibble), wasm_u16x8_shr(codes, 12), x);
}

/* Sums of a unit of 4 bits times its steps, on top of the group's sums. */
static inline void add_unit(v128_t dot[QUADS], const v128_t sum[QUADS], const int8_t *steps) {
    v128_t step[QUADS];
    bm_v_widen_bytes(step, steps);
    for (size_t k = 0; k < QUADS; k++)
        dot[k] = wasm_i32x4_add(dot[k], wasm_i32x4_mul(sum[k], step[k]));
}

/* A band's dot products with one group of n columns. */
static void band_fast(v128_t dot[QUADS], const bm_i4_unit *w, const code_inputs *in, size_t n) {
    for (size_t i = 0; i < n; i += BM_I4_COLS, w++) {
        v128_t start = wasm_v128_load32_splat(in->start + i / BM_I4_COLS);
        v128_t sum[QUADS] = {start, start, start, start};
        for (size_t s = 0; s < UNIT_STEPS; s++) {
            v128_t x[4];
            load_inputs(x, in->x + i + 8 * s);
            for (size_t k = 0; k < QUADS; k++)
                sum[k] = add_fast(sum[k], wasm_v128_load(w->code + 64 * s + 16 * k), x);
        }
        for (size_t k = 0; k < QUADS; k++)
            sum[k] = wasm_i32x4_shr(sum[k], FAST_EXCESS);
        add_unit(dot, sum, w->step);
    }
}

static void band_high(v128_t dot[QUADS], const bm_i4_unit *w, const code_inputs *in, size_t n) {
    for (size_t i = 0; i < n; i += BM_I4_COLS, w++) {
        v128_t start = wasm_v128_load32_splat(in->start + i / BM_I4_COLS);
        v128_t sum[QUADS] = {start, start, start, start};
        for (size_t s = 0; s < UNIT_STEPS; s++) {
            v128_t x[4];
            load_inputs(x, in->x + i + 8 * s);
            for (size_t k = 0; k < QUADS; k++)
                sum[k] = add_high(sum[k], wasm_v128_load(w->code + 64 * s + 16 * k), x);
        }
        add_unit(dot, sum, w->step);
    }
}

/* y[0 ... BM_ROWS - 1] = the sums over groups of a block of rows. */
static void block_integers(float *y, const bm_i4_unit *w, size_t cols, const void *act,
                           bm_precision precision) {
    const int16_t *q = bm_act_values(act, cols);
    code_inputs in;
    memset(y, 0, BM_ROWS * sizeof *y);
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t n = cols - start < BM_GROUP ? cols - start : BM_GROUP;
        v128_t d = wasm_f32x4_splat(bm_act_scales(act)[start / BM_GROUP]);
        prepare(&in, q + start, n, precision);
        for (size_t r = 0; r < BM_ROWS; r += BM_I4_ROWS) {
            v128_t zero = wasm_i32x4_splat(0);
            v128_t dot[QUADS] = {zero, zero, zero, zero};
            if (precision == BM_FAST)
                band_fast(dot, w, &in, n);
            else
                band_high(dot, w, &in, n);
            for (size_t k = 0; k < QUADS; k++) {
                float *at = y + r + 4 * k;
                v128_t term = wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(dot[k]));
                wasm_v128_store(at, wasm_f32x4_add(wasm_v128_load(at), term));
            }
            w += n / BM_I4_COLS;
        }
    }
}

/* Two columns of four rows, a lane for each row: nibble k of both halves of the lanes. */
static inline void add_pair(v128_t s[2], v128_t codes, uint32_t k, v128_t step, const float *x) {
    const v128_t nibble = wasm_i32x4_splat(15);
    const v128_t eight = wasm_i32x4_splat(8);
    v128_t even = wasm_v128_and(wasm_u32x4_shr(codes, 4 * k), nibble);
    v128_t odd = wasm_v128_and(wasm_u32x4_shr(codes, 4 * k + 16), nibble);
    even = wasm_f32x4_convert_i32x4(wasm_i32x4_mul(wasm_i32x4_sub(even, eight), step));
    odd = wasm_f32x4_convert_i32x4(wasm_i32x4_mul(wasm_i32x4_sub(odd, eight), step));
    s[0] = bm_v_mul_add(wasm_f32x4_splat(x[0]), even, s[0]);
    s[1] = bm_v_mul_add(wasm_f32x4_splat(x[1]), odd, s[1]);
}

/* The next 8 of the stripes of row v of a block and of the three behind it. */
static inline void add_columns(v128_t s[8], const bm_i4_unit *unit, size_t v, size_t i,
                               const float *x) {
    const int8_t *m = unit->step + v % BM_I4_ROWS;
    v128_t step = wasm_i32x4_make(m[0], m[1], m[2], m[3]);
    v128_t codes = wasm_v128_load(unit->code + bm_i4_byte(v, i));
    add_pair(s, codes, 0, step, x + i);
    add_pair(s + 2, codes, 1, step, x + i + 2);
    add_pair(s + 4, codes, 2, step, x + i + 4);
    add_pair(s + 6, codes, 3, step, x + i + 6);
}

static v128_t quad_floats(const bm_i4_unit *w, size_t v, size_t cols, const float *x) {
    v128_t s[BM_STRIPES];
    for (size_t k = 0; k < BM_STRIPES; k++)
        s[k] = wasm_f32x4_splat(0.0f);
    for (size_t i = 0; i < cols; i += BM_STRIPES) {
        const bm_i4_unit *unit = w + bm_i4_index(v, i, cols);
        add_columns(s, unit, v, i, x);
        add_columns(s + 8, unit, v, i + 8, x);
    }
    v128_t lane[4];
    for (size_t k = 0; k < 4; k++)
        lane[k] =
            wasm_f32x4_add(wasm_f32x4_add(s[k], s[4 + k]), wasm_f32x4_add(s[8 + k], s[12 + k]));
    return wasm_f32x4_add(wasm_f32x4_add(lane[0], lane[1]), wasm_f32x4_add(lane[2], lane[3]));
}

void bm_head_i4__simd128(float *logits, const bm_i4_unit *w, const float *scale, size_t rows,
                         size_t cols, const void *act, bm_precision precision) {
    for (size_t start = 0; start < rows; start += BM_ROWS) {
        _Alignas(16) float y[BM_ROWS];
        if (precision != BM_EXACT)
            block_integers(y, w, cols, act, precision);
        else
            for (size_t v = 0; v < BM_ROWS; v += 4)
                wasm_v128_store(y + v, quad_floats(w, v, cols, bm_act_values(act, cols)));
        size_t n = rows - start < BM_ROWS ? rows - start : BM_ROWS;
        for (size_t v = 0; v < n; v++)
            logits[start + v] = (scale[start + v] * 0.125f) * y[v];
        w += bm_i4_units(BM_ROWS, cols);
    }
}

/* ---- Floats ---------------------------------------------------------------------------------- */

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

void bm_head_f16__simd128(float *logits, const uint16_t *w, size_t rows, size_t cols,
                          const float *x) {
    for (size_t v = 0; v < rows; v++) {
        const uint16_t *row = w + v * cols;
        v128_t s[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                       wasm_f32x4_splat(0.0f)};
        for (size_t i = 0; i < cols; i += 16)
            for (size_t k = 0; k < 4; k += 2) {
                v128_t packed = wasm_v128_load(row + i + 4 * k);
                v128_t low = bm_v_float_of_half(wasm_i32x4_extend_low_i16x8(packed));
                v128_t high = bm_v_float_of_half(wasm_i32x4_extend_high_i16x8(packed));
                s[k] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k), low, s[k]);
                s[k + 1] = bm_v_mul_add(wasm_v128_load(x + i + 4 * k + 4), high, s[k + 1]);
            }
        logits[v] = bm_v_sum_stripes(s);
    }
}
