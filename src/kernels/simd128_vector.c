/*
 * simd128_vector.c: the operations of kernels.h that do not touch packed signs, four lanes at a time.
 *
 * Each function is its contract with lanes for stripes: element i of a striped sum is lane i % 4 of
 * vector i / 4 % 4, so the sums have the reference's order and therefore its bits.
 */
#include "simd128.h"

static v128_t larger(v128_t a, v128_t b) {
    return wasm_f32x4_pmax(a, b); /* a < b ? b : a */
}

static float largest_lane(v128_t v) {
    float max = wasm_f32x4_extract_lane(v, 0);
    float lane[3] = {wasm_f32x4_extract_lane(v, 1), wasm_f32x4_extract_lane(v, 2),
                     wasm_f32x4_extract_lane(v, 3)};
    for (size_t i = 0; i < 3; i++)
        max = max < lane[i] ? lane[i] : max;
    return max;
}

float bm_abs_max__simd128(const float *x, size_t n) {
    v128_t max = wasm_f32x4_splat(0.0f);
    for (size_t i = 0; i < n; i += 4)
        max = larger(max, bm_v_abs(wasm_v128_load(x + i)));
    return largest_lane(max);
}

/* One lane of the result per input vector: its (0 + 1) + (2 + 3). */
static v128_t sum_lanes_of_4(v128_t a, v128_t b, v128_t c, v128_t d) {
    v128_t ab =
        wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
    v128_t cd =
        wasm_f32x4_add(wasm_i32x4_shuffle(c, d, 0, 2, 4, 6), wasm_i32x4_shuffle(c, d, 1, 3, 5, 7));
    return wasm_f32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(ab, cd, 1, 3, 5, 7));
}

/* max over aligned groups of 4 of (|x0| + |x1|) + (|x2| + |x3|); n % 16 == 0. */
static float abs_max_of_4(const float *x, size_t n) {
    v128_t max = wasm_f32x4_splat(0.0f);
    for (size_t i = 0; i < n; i += 16)
        max = larger(max, sum_lanes_of_4(bm_v_abs(wasm_v128_load(x + i)),
                                         bm_v_abs(wasm_v128_load(x + i + 4)),
                                         bm_v_abs(wasm_v128_load(x + i + 8)),
                                         bm_v_abs(wasm_v128_load(x + i + 12))));
    return largest_lane(max);
}

static void quantize_group(int16_t *q, float *d, const float *x, size_t n, bm_quantizer limit) {
    float a = bm_abs_max__simd128(x, n) / limit.absolute;
    float b = abs_max_of_4(x, n) / limit.group4;
    float step = a < b ? b : a;
    bool empty = step < 0x1p-100f;
    v128_t inverse = wasm_f32x4_splat(empty ? 0.0f : 1.0f / step);
    *d = empty ? 0.0f : step;
    for (size_t i = 0; i < n; i += 8) {
        v128_t low = bm_v_round_to_int(wasm_f32x4_mul(wasm_v128_load(x + i), inverse));
        v128_t high = bm_v_round_to_int(wasm_f32x4_mul(wasm_v128_load(x + i + 4), inverse));
        wasm_v128_store(q + i, wasm_i16x8_narrow_i32x4(low, high));
    }
}

void bm_quantize__simd128(void *act, const float *x, size_t cols, bm_precision precision) {
    if (precision == BM_EXACT) {
        memcpy(bm_act_values(act, cols), x, cols * sizeof *x);
        return;
    }
    float *d = bm_act_scales(act);
    int16_t *q = bm_act_values(act, cols);
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t n = cols - start < BM_GROUP ? cols - start : BM_GROUP;
        quantize_group(q + start, &d[start / BM_GROUP], x + start, n, bm_quantizer_of(precision));
    }
}

float bm_norm_scale__simd128(float *y, const float *x, const float *scale, const float *bias,
                             size_t n, float eps) {
    v128_t squares[4] = {wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f), wasm_f32x4_splat(0.0f),
                         wasm_f32x4_splat(0.0f)};
    v128_t products[4] = {squares[0], squares[0], squares[0], squares[0]};
    for (size_t i = 0; i < n; i += 16) {
        for (size_t k = 0; k < 4 && i + 4 * k < n; k++) {
            v128_t v = wasm_v128_load(x + i + 4 * k);
            squares[k] = bm_v_mul_add(v, v, squares[k]);
            products[k] = bm_v_mul_add(v, wasm_v128_load(bias + i + 4 * k), products[k]);
        }
    }
    float rstd = bm_rstd(bm_v_sum_stripes(squares), n, eps);
    v128_t factor = wasm_f32x4_splat(rstd);
    for (size_t i = 0; i < n; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_v128_load(x + i), factor);
        wasm_v128_store(y + i, wasm_f32x4_mul(v, wasm_v128_load(scale + i)));
    }
    return rstd * bm_v_sum_stripes(products);
}

/* Inlined where d_conv is known: taps one after another without a loop. */
static inline __attribute__((always_inline)) void conv_silu(float *row, float *const *history,
                                                            const float *w, size_t w_stride,
                                                            const float *bias, size_t n,
                                                            size_t d_conv) {
    float *input[3]; /* read once: no store can reach these */
    for (size_t k = 0; k + 1 < d_conv; k++)
        input[k] = history[k];
    for (size_t i = 0; i < n; i += 4) {
        v128_t now = wasm_v128_load(row + i);
        v128_t sum = wasm_v128_load(bias + i);
        for (size_t k = 0; k + 1 < d_conv; k++)
            sum = bm_v_mul_add(wasm_v128_load(w + k * w_stride + i), wasm_v128_load(input[k] + i),
                               sum);
        sum = bm_v_mul_add(wasm_v128_load(w + (d_conv - 1) * w_stride + i), now, sum);
        wasm_v128_store(row + i, bm_v_silu(sum));
        wasm_v128_store(input[0] + i, now);
    }
}

void bm_conv_silu__simd128(float *row, float *const *history, const float *w, size_t w_stride,
                           const float *bias, size_t n, size_t d_conv) {
    if (d_conv == 4)
        conv_silu(row, history, w, w_stride, bias, n, 4);
    else
        conv_silu(row, history, w, w_stride, bias, n, d_conv);
}

void bm_gate__simd128(float *y, const float *z, size_t n) {
    for (size_t i = 0; i < n; i += 4)
        wasm_v128_store(y + i,
                        wasm_f32x4_mul(wasm_v128_load(y + i), bm_v_silu(wasm_v128_load(z + i))));
}

/* y of four rows, whose sums come as a vector of four lanes each. */
static void read_out(float *y, const float *x, const v128_t sums[4], v128_t scale, float skip) {
    v128_t sum = sum_lanes_of_4(sums[0], sums[1], sums[2], sums[3]);
    v128_t direct = wasm_f32x4_mul(wasm_f32x4_splat(skip), wasm_v128_load(x));
    wasm_v128_store(y, bm_v_mul_add(scale, sum, direct));
}

/* Four elements of a row of S: S = S * keep + input * B, and their products with C. */
static inline v128_t scan_4(float *at, const float *b, const float *c, v128_t keep, v128_t input,
                            v128_t sum) {
    v128_t s = wasm_f32x4_mul(wasm_v128_load(at), keep);
    s = wasm_f32x4_add(s, wasm_f32x4_mul(input, wasm_v128_load(b)));
    wasm_v128_store(at, s);
    return bm_v_mul_add(s, wasm_v128_load(c), sum);
}

/*
 * Row after row, not several at once, although B and C are then loaded for each: S comes from memory, and
 * the processor fetches ahead of one stream best. Four stripes' sums hide the latency of the additions.
 */
static void scan_token(float *state, float *y, const bm_scan *in, size_t t, size_t head_dim,
                       size_t d_state) {
    const float *x = in->x + t * in->stride;
    const float *b = in->b + t * in->stride;
    const float *c = in->c + t * in->stride;
    const v128_t keep = wasm_f32x4_splat(in->step[t].shrink);
    for (size_t p = 0; p < head_dim; p += 4) {
        v128_t sums[4];
        for (size_t k = 0; k < 4; k++) {
            float *row = state + (p + k) * d_state;
            v128_t input = wasm_f32x4_splat(x[p + k] * in->step[t].gain);
            v128_t s0 = wasm_f32x4_splat(0.0f);
            v128_t s1 = s0;
            v128_t s2 = s0;
            v128_t s3 = s0;
            size_t n = 0;
            for (; n + 16 <= d_state; n += 16) {
                s0 = scan_4(row + n, b + n, c + n, keep, input, s0);
                s1 = scan_4(row + n + 4, b + n + 4, c + n + 4, keep, input, s1);
                s2 = scan_4(row + n + 8, b + n + 8, c + n + 8, keep, input, s2);
                s3 = scan_4(row + n + 12, b + n + 12, c + n + 12, keep, input, s3);
            }
            if (n < d_state) {
                s0 = scan_4(row + n, b + n, c + n, keep, input, s0);
                s1 = scan_4(row + n + 4, b + n + 4, c + n + 4, keep, input, s1);
            }
            sums[k] = wasm_f32x4_add(wasm_f32x4_add(s0, s1), wasm_f32x4_add(s2, s3));
        }
        read_out(y + p, x + p, sums, wasm_f32x4_splat(in->step[t].scale), in->skip);
    }
}

/* S * 1 + input * B: what scan_4 stores where nothing shrinks. */
static inline v128_t add_input(v128_t s, v128_t input, v128_t b) {
    return wasm_f32x4_add(s, wasm_f32x4_mul(input, b));
}

/* Two rows of S, and two tokens that pass over them; or what each token gets of each row. [token][row] */
typedef struct {
    float *row[2];
    const float *b[2]; /* of each token */
    const float *c[2];
    v128_t input[2][2];
} square;

typedef struct {
    v128_t of[2][2];
} square_sums;

/*
 * Four columns, when neither token shrinks S: S is loaded and stored once for both tokens, B and C once for
 * both rows.
 */
static inline __attribute__((always_inline)) void scan_square(square_sums *sums, const square *q,
                                                              size_t i) {
    v128_t b0 = wasm_v128_load(q->b[0] + i);
    v128_t s0 = add_input(wasm_v128_load(q->row[0] + i), q->input[0][0], b0);
    v128_t s1 = add_input(wasm_v128_load(q->row[1] + i), q->input[0][1], b0);
    v128_t c0 = wasm_v128_load(q->c[0] + i);
    sums->of[0][0] = bm_v_mul_add(s0, c0, sums->of[0][0]);
    sums->of[0][1] = bm_v_mul_add(s1, c0, sums->of[0][1]);
    v128_t b1 = wasm_v128_load(q->b[1] + i);
    s0 = add_input(s0, q->input[1][0], b1);
    s1 = add_input(s1, q->input[1][1], b1);
    wasm_v128_store(q->row[0] + i, s0);
    wasm_v128_store(q->row[1] + i, s1);
    v128_t c1 = wasm_v128_load(q->c[1] + i);
    sums->of[1][0] = bm_v_mul_add(s0, c1, sums->of[1][0]);
    sums->of[1][1] = bm_v_mul_add(s1, c1, sums->of[1][1]);
}

/*
 * One vector of the stripes, which begins at column `first`: more sums would not fit the engine's registers.
 * Two steps a round at fixed distances, with an exit between them: an engine sinks additions to the end of
 * a straight piece of code, and keeps all that was loaded for them in registers that far.
 */
static inline __attribute__((always_inline)) square_sums scan_stripes(square q, size_t first,
                                                                      size_t d_state) {
    const v128_t zero = wasm_f32x4_splat(0.0f);
    square_sums sums = {{{zero, zero}, {zero, zero}}};
    size_t steps = (d_state - first + BM_STRIPES - 1) / BM_STRIPES;
#pragma clang loop unroll(disable)
    for (;;) {
        scan_square(&sums, &q, first);
        if (steps == 1)
            return sums;
        scan_square(&sums, &q, first + BM_STRIPES);
        if (steps == 2)
            return sums;
        steps -= 2;
        for (size_t k = 0; k < 2; k++) {
            q.row[k] += 2 * BM_STRIPES;
            q.b[k] += 2 * BM_STRIPES;
            q.c[k] += 2 * BM_STRIPES;
        }
    }
}

static inline square_sums add_sums(square_sums x, square_sums y) {
    square_sums out;
    for (size_t token = 0; token < 2; token++)
        for (size_t r = 0; r < 2; r++)
            out.of[token][r] = wasm_f32x4_add(x.of[token][r], y.of[token][r]);
    return out;
}

/* Tokens t and t + 1, which both have shrink == 1; d_state >= BM_STRIPES. */
static void scan_two_tokens(float *state, float *y, size_t y_stride, const bm_scan *in, size_t t,
                            size_t head_dim, size_t d_state) {
    const float *x = in->x + t * in->stride;
    const float *b = in->b + t * in->stride;
    const float *c = in->c + t * in->stride;
    for (size_t p = 0; p < head_dim; p += 4) {
        v128_t sums[2][4];
        for (size_t k = 0; k < 4; k += 2) {
            float *row = state + (p + k) * d_state;
            square q = {
                .row = {row, row + d_state}, .b = {b, b + in->stride}, .c = {c, c + in->stride}};
            for (size_t token = 0; token < 2; token++)
                for (size_t r = 0; r < 2; r++)
                    q.input[token][r] = wasm_f32x4_splat(x[token * in->stride + p + k + r] *
                                                         in->step[t + token].gain);
            square_sums s01 = scan_stripes(q, 0, d_state);
            s01 = add_sums(s01, scan_stripes(q, 4, d_state));
            square_sums s23 = scan_stripes(q, 8, d_state);
            s23 = add_sums(s23, scan_stripes(q, 12, d_state));
            square_sums s = add_sums(s01, s23);
            for (size_t token = 0; token < 2; token++)
                for (size_t r = 0; r < 2; r++)
                    sums[token][k + r] = s.of[token][r];
        }
        for (size_t token = 0; token < 2; token++)
            read_out(y + token * y_stride + p, x + token * in->stride + p, sums[token],
                     wasm_f32x4_splat(in->step[t + token].scale), in->skip);
    }
}

void bm_scan_f32__simd128(float *restrict state, float *restrict y, size_t y_stride,
                          const bm_scan *in, size_t head_dim, size_t d_state) {
    size_t t = 0;
    while (t < in->n) {
        bool is_pair = d_state >= BM_STRIPES && t + 1 < in->n && in->step[t].shrink == 1.0f &&
                       in->step[t + 1].shrink == 1.0f;
        if (is_pair)
            scan_two_tokens(state, y + t * y_stride, y_stride, in, t, head_dim, d_state);
        else
            scan_token(state, y + t * y_stride, in, t, head_dim, d_state);
        t += is_pair ? 2 : 1;
    }
}

/* What of a row in 16 bits goes from one eight of elements to the next: stripes of the sum, and max |state|. */
typedef struct {
    v128_t sum[4];
    v128_t most; /* eight u16 */
} row_sums;

/* Eight elements of a row; their products with C go to two vectors of stripes. `keeps`: keep is 1. */
static inline void scan_8(int16_t *at, const float *b, const float *c, v128_t keep, v128_t input,
                          bool keeps, v128_t *sum0, v128_t *sum1, v128_t *most) {
    v128_t packed = wasm_v128_load(at);
    v128_t low = wasm_f32x4_convert_i32x4(bm_v_opaque(wasm_i32x4_extend_low_i16x8(packed)));
    v128_t high = wasm_f32x4_convert_i32x4(bm_v_opaque(wasm_i32x4_extend_high_i16x8(packed)));
    if (!keeps) {
        low = wasm_f32x4_mul(low, keep);
        high = wasm_f32x4_mul(high, keep);
    }
    low = wasm_f32x4_add(low, wasm_f32x4_mul(input, wasm_v128_load(b)));
    high = wasm_f32x4_add(high, wasm_f32x4_mul(input, wasm_v128_load(b + 4)));
    packed = wasm_i16x8_narrow_i32x4(bm_v_round_to_int(low), bm_v_round_to_int(high));
    wasm_v128_store(at, packed);
    *most = wasm_u16x8_max(*most, wasm_i16x8_abs(packed));
    *sum0 = bm_v_mul_add(low, wasm_v128_load(c), *sum0);
    *sum1 = bm_v_mul_add(high, wasm_v128_load(c + 4), *sum1);
}

/* Inlined where `keeps` is known: most rows of most tokens are spared a product. */
static inline __attribute__((always_inline)) row_sums scan_row_i16(int16_t *row, const float *b,
                                                                   const float *c, bm_row_step step,
                                                                   bool keeps, size_t d_state) {
    const v128_t keep = wasm_f32x4_splat(step.keep);
    const v128_t input = wasm_f32x4_splat(step.input);
    v128_t most = wasm_i16x8_splat(0);
    v128_t s0 = wasm_f32x4_splat(0.0f);
    v128_t s1 = s0;
    v128_t s2 = s0;
    v128_t s3 = s0;
    size_t n = 0;
    for (; n + 16 <= d_state; n += 16) {
        scan_8(row + n, b + n, c + n, keep, input, keeps, &s0, &s1, &most);
        scan_8(row + n + 8, b + n + 8, c + n + 8, keep, input, keeps, &s2, &s3, &most);
    }
    if (n < d_state)
        scan_8(row + n, b + n, c + n, keep, input, keeps, &s0, &s1, &most);
    return (row_sums){.sum = {s0, s1, s2, s3}, .most = most};
}

static float largest_u16(v128_t v) {
    v = wasm_u16x8_max(v, wasm_i16x8_shuffle(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
    v = wasm_u16x8_max(v, wasm_i16x8_shuffle(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
    v = wasm_u16x8_max(v, wasm_i16x8_shuffle(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
    return (float)wasm_u16x8_extract_lane(v, 0);
}

static void scan_token_i16(int16_t *state, float *unit, float *most, float *y, const bm_scan *in,
                           size_t t, size_t head_dim, size_t d_state) {
    const float *x = in->x + t * in->stride;
    const float *b = in->b + t * in->stride;
    const float *c = in->c + t * in->stride;
    for (size_t p = 0; p < head_dim; p += 4) {
        v128_t sums[4];
        for (size_t k = 0; k < 4; k++) {
            bm_row_step step = bm_row_room(unit[p + k], most[p + k], x[p + k], &in->step[t]);
            int16_t *at = state + (p + k) * d_state;
            row_sums row = step.keep == 1.0f ? scan_row_i16(at, b, c, step, true, d_state)
                                             : scan_row_i16(at, b, c, step, false, d_state);
            unit[p + k] = step.unit;
            most[p + k] = largest_u16(row.most);
            sums[k] = wasm_f32x4_add(wasm_f32x4_add(row.sum[0], row.sum[1]),
                                     wasm_f32x4_add(row.sum[2], row.sum[3]));
        }
        v128_t scale =
            wasm_f32x4_mul(wasm_f32x4_splat(in->step[t].scale), wasm_v128_load(unit + p));
        read_out(y + p, x + p, sums, scale, in->skip);
    }
}

/* Token by token: each rounds the state that the next one reads. */
void bm_scan_i16__simd128(int16_t *restrict state, float *restrict unit, float *restrict most,
                          float *restrict y, size_t y_stride, const bm_scan *in, size_t head_dim,
                          size_t d_state) {
    for (size_t t = 0; t < in->n; t++)
        scan_token_i16(state, unit, most, y + t * y_stride, in, t, head_dim, d_state);
}
