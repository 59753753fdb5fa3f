/*
 * kernels.h: the contracts of the arithmetic, one comment per operation, and the table of a variant.
 *
 * Kernels know arrays; they know no model, no layer, no token. `ref.c` is the definition of right;
 * every other variant gives the same bits, because each contract fixes the order of every f32 sum and
 * all integer sums are exact. A variant may lay out weights as it likes, which is why the model
 * picks its table of kernels when it is created and keeps it.
 *
 * Conventions: all arrays are aligned to BM_ALIGN unless said otherwise; outputs never alias inputs
 * unless said otherwise; no operation fails, allocates or reads past the stated sizes.
 */
#ifndef BM_KERNELS_H
#define BM_KERNELS_H

#include "../bm_base.h"

/* Rows of a binary product are computed in blocks: y must have room for bm_round_up(rows, BM_ROWS). */
enum { BM_ROWS = 64 };

/* Most tokens of one product of a projection. */
enum { BM_TOKENS = 16 };

/* Columns that share one scale when activations are quantized; the last group may be shorter. */
enum { BM_GROUP = 256 };

static inline size_t bm_groups(size_t cols) {
    return (cols + BM_GROUP - 1) / BM_GROUP;
}

/*
 * Sums over n elements run in 16 stripes: element i is added to stripe i % 16, in order of i. Then
 * lane l (0 ... 3) is (s[l] + s[4+l]) + (s[8+l] + s[12+l]), and the sum (lane 0 + 1) + (lane 2 + 3).
 */
enum { BM_STRIPES = 16 };

/* Limits of the quantizer: |q| <= absolute, and sum|q| <= group4 + 2 over every 4 adjacent columns. */
typedef struct {
    float absolute;
    float group4;
} bm_quantizer;

static inline bm_quantizer bm_quantizer_of(bm_precision precision) {
    /* 8-bit class: q fits int8 and a sum of 4 fits a byte. 14-bit class: a sum of 4 fits 14 bits. */
    return precision == BM_FAST ? (bm_quantizer){127.0f, 253.0f}
                                : (bm_quantizer){8191.0f, 16381.0f};
}

/*
 * A prepared input vector ("activation") of a projection or an int8 head, at one address:
 *   d [bm_groups(cols)] f32, then at bm_act_values:
 *   q [cols] i16 (BM_FAST, BM_HIGH) or x [cols] f32 (BM_EXACT, d unused), then at bm_act_tables:
 *   whatever `tabulate` of the variant puts there.
 */
static inline float *bm_act_scales(const void *act) {
    return (float *)(uintptr_t)act;
}

static inline size_t bm_act_values_offset(size_t cols) {
    return bm_round_up(bm_groups(cols) * sizeof(float), BM_ALIGN);
}

static inline void *bm_act_values(const void *act, size_t cols) {
    return (uint8_t *)(uintptr_t)act + bm_act_values_offset(cols);
}

static inline size_t bm_act_tables_offset(size_t cols, bm_precision precision) {
    size_t size = precision == BM_EXACT ? sizeof(float) : sizeof(int16_t);
    return bm_act_values_offset(cols) + bm_round_up(cols * size, BM_ALIGN);
}

static inline void *bm_act_tables(const void *act, size_t cols, bm_precision precision) {
    return (uint8_t *)(uintptr_t)act + bm_act_tables_offset(cols, precision);
}

/* Prepared inputs of the tokens of one product of a projection. Dense ones have no column scales and offsets: theirs are 1 and 0. */
typedef struct {
    const uint8_t *act; /* token t at act + t * stride; x already times the column scale */
    size_t stride;      /* bytes */
    const float *c;     /* [n] dot(column bias, unscaled input): one number shared by all rows */
    size_t n;           /* tokens, 1 ... BM_TOKENS */
} bm_inputs;

/* What a token does to the state of a head. */
typedef struct {
    float shrink; /* of the stored S; 1 but for a few tokens */
    float gain;   /* of x */
    float scale;  /* S is scale times what is stored */
    float b_max;  /* max |B| */
} bm_scan_step;

/* Inputs of a scan: x [head_dim], B and C [d_state] of token t at t * stride floats. */
typedef struct {
    const float *x;
    const float *b;
    const float *c;
    size_t stride;
    const bm_scan_step *step; /* [n] */
    size_t n;                 /* tokens */
    float skip;               /* D */
} bm_scan;

/* ---- A head in 4 bits ------------------------------------------------------------------------ */

/*
 * What is left of an int8 row when it is packed to 4 bits: w[v,i] ~ step * code / 8, code -8 ... 7, with one
 * step, -127 ... 127, for BM_I4_COLS columns. A unit has that for BM_I4_ROWS rows, made for vectors whose 32-bit
 * lanes are rows: for every 8 columns and every 4 rows 16 bytes, in them lane j (16 bits) the row j / 2 and,
 * from its lowest bits up, code + 8 of the columns j % 2, 2 + j % 2, 4 + j % 2 and 6 + j % 2.
 *
 * Units follow each other as they are read: blocks of BM_ROWS rows, in them groups of BM_GROUP columns, in them
 * bands of BM_I4_ROWS rows, in them columns.
 */
enum { BM_I4_ROWS = 16, BM_I4_COLS = 32 };

typedef struct {
    int8_t step[BM_I4_ROWS];
    uint8_t code[BM_I4_ROWS * BM_I4_COLS / 2];
} bm_i4_unit;

/* Units of `rows` rows; cols % BM_I4_COLS == 0. Of k * BM_ROWS rows also where row k * BM_ROWS begins. */
static inline uint64_t bm_i4_units(size_t rows, size_t cols) {
    return (uint64_t)bm_round_up(rows, BM_ROWS) / BM_I4_ROWS * (cols / BM_I4_COLS);
}

/* Where the unit of row v and column i is. */
static inline size_t bm_i4_index(size_t v, size_t i, size_t cols) {
    size_t start = i / BM_GROUP * BM_GROUP;
    size_t width = cols - start < BM_GROUP ? cols - start : BM_GROUP;
    size_t band = v % BM_ROWS / BM_I4_ROWS;
    return (size_t)bm_i4_units(v / BM_ROWS * BM_ROWS, cols) +
           (BM_ROWS / BM_I4_ROWS * start + band * width + i - start) / BM_I4_COLS;
}

/* Where in its unit the code of row v and column i is: a byte, and the bit at which its nibble begins. */
static inline size_t bm_i4_byte(size_t v, size_t i) {
    return i % BM_I4_COLS / 8 * 64 + v % BM_I4_ROWS / 4 * 16 + v % 4 * 4 + i % 2 * 2 + i % 8 / 4;
}

static inline size_t bm_i4_shift(size_t i) {
    return i % 4 / 2 * 4;
}

/* step * code of row v and column i: a weight in eighths of an int8 step. */
static inline int32_t bm_i4_at(const bm_i4_unit *w, size_t v, size_t i, size_t cols) {
    const bm_i4_unit *unit = w + bm_i4_index(v, i, cols);
    int32_t code = (unit->code[bm_i4_byte(v, i)] >> bm_i4_shift(i) & 15) - 8;
    return unit->step[v % BM_I4_ROWS] * code;
}

/*
 * Packs row v from its int8 form [cols]. Of 32 columns with weights up to
 * a magnitude m, no less than 8 and no more than 127, the step is m with the sign that makes the code of the
 * largest -8 (-m where both signs reach m); codes are 8 w / step to the nearest integer, at most 7. So
 * weights up to 7 are kept as they are.
 */
void bm_i4_pack_row(bm_i4_unit *w, size_t v, size_t cols, const int8_t *row);

/* ---- Dense projections ----------------------------------------------------------------------- */

/*
 * Weights in 4 bits as files have them: for every 32 columns of a row 8 little-endian words of 16 bits, in word j from its
 * lowest bits up the columns j, 8 + j, 16 + j and 24 + j; a nibble is a code of -8 ... 7 in two's complement. So two
 * shifts make a vector of codes of 8 adjacent columns, signs included.
 */
static inline int32_t bm_code_at(const uint8_t *row, size_t i) {
    int32_t nibble = row[i / 32 * 16 + i % 8 * 2 + i % 32 / 16] >> (i % 16 / 8 * 4) & 15;
    return (nibble ^ 8) - 8;
}

/* ---- Operations ------------------------------------------------------------------------------ */

typedef struct {
    const char *name;

    /*
     * Bytes of a packed sign matrix; cols % 32 == 0. Of k * BM_ROWS rows, 0 included, it is also where row
     * k * BM_ROWS begins: matmul may start there with the rows that are left.
     */
    uint64_t (*signs_bytes)(size_t rows, size_t cols);

    /*
     * Packs bytes [offset, offset + n) of the file form [rows, cols/8] (bit i % 8 of byte i / 8, set
     * means +1) into w. Every byte comes once, in any order; w starts zeroed. `bytes` is unaligned.
     */
    void (*signs_write)(uint8_t *w, size_t rows, size_t cols, uint64_t offset, const uint8_t *bytes,
                        size_t n);

    /* Bytes of the tables that `tabulate` writes behind the values of an activation. */
    size_t (*table_bytes)(size_t cols, bm_precision precision);

    /*
     * BM_FAST, BM_HIGH: per group of BM_GROUP columns, with m = max|x| and
     * m4 = max over 4 adjacent columns of (|x0| + |x1|) + (|x2| + |x3|):
     *   d = max(m / absolute, m4 / group4);  q = x * (1 / d) to the nearest integer, ties to even
     * (d = 0 and q = 0 where d < 2^-100). BM_EXACT: copies x. cols % 32 == 0. Beside a NaN or an
     * infinity q is anything: the caller's c must be NaN then, which makes every row NaN.
     */
    void (*quantize)(void *act, const float *x, size_t cols, bm_precision precision);

    /* Adds what this variant's matmul wants to look up. After quantize, before matmul. */
    void (*tabulate)(void *act, size_t cols, bm_precision precision);

    /* Whether a matmul of n tokens reads what tabulate adds; if not, tabulate may be left out. */
    bool (*uses_tables)(size_t n, bm_precision precision);

    /* Bytes of scratch, aligned to BM_ALIGN, that a matmul of any number of tokens wants. */
    uint64_t (*matmul_scratch)(size_t rows, bm_precision precision);

    /*
     * The binary product of n tokens (Bi-Mamba, FBI-Linear with column scales, arXiv 2407.07093):
     *   y[t][o] = c[t] + sum_i s[o,i] * x[t][i]
     *   w    packed signs [rows, cols]
     *   in   x as `act`, and c
     *   y    token t at y + t * y_stride: [bm_round_up(rows, BM_ROWS)] f32, overwritten
     *   scratch  [matmul_scratch(rows, precision)]
     * BM_FAST, BM_HIGH: y = c, then for each group in order y += d[g] * (float)dot_g with the exact
     * integer dot_g = sum of s * q over the group (|dot_g| < 2^24).
     * BM_EXACT: y = c, then for each 4 columns in order y += (s0 x0 + s1 x1) + (s2 x2 + s3 x3).
     */
    void (*matmul)(float *restrict y, size_t y_stride, const uint8_t *restrict w, size_t rows,
                   size_t cols, const bm_inputs *in, bm_precision precision,
                   void *restrict scratch);

    /*
     * Dense products of n tokens, y[t][o] = c[t] + sum_i W[o,i] x[t][i], with rows in file form; in as of matmul, whose c is 0,
     * or NaN beside a NaN. Tables are not read. y has room for exactly `rows` numbers a token, y_stride apart.
     *   i8   W = scale[o] * w[o,i]; y = c + what head_i8 says. w [rows, cols], scale [rows]
     *   i4   W = scale[o,g] * code, g = i / BM_I4_GROUP. w [rows, cols / 2], scale [rows, bm_i4_groups(cols)]
     *        BM_FAST, BM_HIGH: in four lanes, column i in lane i % 8 / 2: for each g in order
     *        lane += (d * scale[o,g]) * (float)dot with the exact integer dot = sum of q * code of the lane's columns in g;
     *        y = c + ((lane 0 + lane 1) + (lane 2 + lane 3)). BM_EXACT: y = c + sum x[i] * (scale * code) in stripes
     *   f16  W = w[o,i]; y = c + what head_f16 says, x being prepared by BM_EXACT, whatever the session's precision
     */
    void (*dense_i8)(float *restrict y, size_t y_stride, const int8_t *restrict w,
                     const float *restrict scale, size_t rows, size_t cols, const bm_inputs *in,
                     bm_precision precision);
    void (*dense_i4)(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                     const float *restrict scale, size_t rows, size_t cols, const bm_inputs *in,
                     bm_precision precision);
    void (*dense_f16)(float *restrict y, size_t y_stride, const uint16_t *restrict w, size_t rows,
                      size_t cols, const bm_inputs *in);

    /*
     * RMSNorm folded with a column scale and the bias product of the binary layer behind it:
     *   rstd = 1 / sqrt(sum x^2 / n + eps);  y[i] = (x[i] * rstd) * scale[i];
     *   returns rstd * sum x[i] * bias[i].   Sums in stripes. y may be x. n % 4 == 0, all 16-aligned.
     * Where sum x^2 overflows, rstd is NaN: 1 / sqrt(inf) would turn the row into silent zeros.
     */
    float (*norm_scale)(float *y, const float *x, const float *scale, const float *bias, size_t n,
                        float eps);

    /*
     * One token of the causal depthwise convolution and its SiLU, in place:
     *   v = row[i];  row[i] = silu((((bias[i] + w0 h0) + w1 h1) + w2 h2) + w_last v);  history[0][i] = v
     *   history  [d_conv - 1] rows of n, oldest first; the oldest is replaced by the token's input
     *   w        d_conv rows of n, w_stride apart, the tap of the current token last
     *   n % 4 == 0, 16-aligned
     */
    void (*conv_silu)(float *row, float *const *history, const float *w, size_t w_stride,
                      const float *bias, size_t n, size_t d_conv);

    /* y[i] *= silu(z[i]); n % 4 == 0, 16-aligned. */
    void (*gate)(float *y, const float *z, size_t n);

    /* max |x[i]|; NaN is passed over. n % 4 == 0, 16-aligned. */
    float (*abs_max)(const float *x, size_t n);

    /*
     * The tokens of one head of the selective state space in order (arXiv 2405.21060, equation 2):
     *   S[p,n] = S[p,n] * shrink + (x[p] * gain) * B[n];   y[p] = scale * sum_n S[p,n] C[n] + skip * x[p]
     * The sum runs in stripes. Token t's y is at y + t * y_stride.
     *   S  [head_dim, d_state] f32
     *   x, y [head_dim].  B, C [d_state].  head_dim % 4 == 0, d_state % 8 == 0, strides % 4 == 0, 16-aligned
     */
    void (*scan_f32)(float *restrict state, float *restrict y, size_t y_stride, const bm_scan *in,
                     size_t head_dim, size_t d_state);

    /*
     * The same with S in 16 bits: S[p,n] = unit[p] * state[p,n], with integers as large as the row's largest
     * number allows. A row first makes room for the token (bm_row_room), then
     *   v[n] = state[p,n] * keep + input * B[n];   y[p] = (scale * unit[p]) * sum_n v[n] C[n] + skip * x[p]
     *   state[p,n] = v[n] to the nearest integer, ties to even;   most[p] = max_n |state[p,n]|
     * unit, most [head_dim], 0 at first.
     */
    void (*scan_i16)(int16_t *restrict state, float *restrict unit, float *restrict most,
                     float *restrict y, size_t y_stride, const bm_scan *in, size_t head_dim,
                     size_t d_state);

    /*
     * logits[v] = scale[v] * sum over groups in order of d[g] * (float)dot_g, dot_g = sum q[i] w[v,i]
     * with a quantized act, (float)dot_g rounded where |dot_g| is above 2^24; with BM_EXACT scale[v] * sum x[i] w[v,i] in
     * stripes. w [rows, cols] i8.
     */
    void (*head_i8)(float *logits, const int8_t *w, const float *scale, size_t rows, size_t cols,
                    const void *act, bm_precision precision);

    /*
     * The same of a head in 4 bits: logits[v] = (scale[v] / 8) * the sum of head_i8, w[v,i] being the eighths
     * bm_i4_at(w, v, i, cols). (float)dot_g is rounded where |dot_g|, always below 2^31, is above 2^24.
     * w [bm_i4_units(rows, cols)], rows may begin at any multiple of BM_ROWS; scale [rows].
     */
    void (*head_i4)(float *logits, const bm_i4_unit *w, const float *scale, size_t rows,
                    size_t cols, const void *act, bm_precision precision);

    /* logits[v] = sum x[i] w[v,i] in stripes; w [rows, cols] f32 or IEEE binary16. */
    void (*head_f32)(float *logits, const float *w, size_t rows, size_t cols, const float *x);
    void (*head_f16)(float *logits, const uint16_t *w, size_t rows, size_t cols, const float *x);
} bm_kernels;

extern const bm_kernels bm_kernels_ref;
extern const bm_kernels bm_kernels_popcount;
extern const bm_kernels bm_kernels_table;

/* The variants of this build; [0] is the reference, the last one the default. */
extern const bm_kernels *const bm_kernels_all[];
extern const size_t bm_kernels_count;

/* Sign i of a row in file form. */
static inline bool bm_is_plus(const uint8_t *row, size_t i) {
    return row[i / 8] >> (i % 8) & 1;
}

/* The contract of matmul for BM_EXACT, one row in file form: families without a faster way take it. */
static inline float bm_dot_signs_f32(const uint8_t *row, const float *x, size_t cols, float c) {
    float y = c;
    for (size_t i = 0; i < cols; i += 4) {
        float term[4];
        for (size_t k = 0; k < 4; k++)
            term[k] = bm_is_plus(row, i + k) ? x[i + k] : -x[i + k];
        y += (term[0] + term[1]) + (term[2] + term[3]);
    }
    return y;
}

/* The contract of norm_scale: NaN, not 0, where the sum of squares overflowed. */
static inline float bm_rstd(float sum_of_squares, size_t n, float eps) {
    float mean = sum_of_squares / (float)n + eps;
    return 1.0f / __builtin_sqrtf(mean) + (mean - mean);
}

/* A row of a state in 16 bits on its way over one token. */
typedef struct {
    float unit;
    float keep;  /* factor of the integers that are there */
    float input; /* x * gain in the new unit */
} bm_row_step;

/*
 * The contract of scan_i16 for the row of one x. The unit stays while the largest integer and what comes are
 * together 4096 to 32766 of it and nothing shrinks; else the power of two is taken that makes them 2^13 to
 * 2^14. So 12 to 15 bits are in use, also after a loud token whose effect the next one takes away.
 */
static inline bm_row_step bm_row_room(float unit, float most, float x, const bm_scan_step *step) {
    float old = unit * step->shrink;
    float added = x * step->gain;
    float need = most * old + bm_abs(added) * step->b_max;
    bool fits =
        step->shrink == 1.0f && old >= 0x1p-100f && need <= 32766.0f * old && 4096.0f * old <= need;
    float fresh = fits ? old : bm_pow2_at_least(need * 0x1p-14f);
    float inverse = 1.0f / fresh;                    /* exact */
    float keep = most > 0.0f ? old * inverse : 0.0f; /* of zeros, not infinitely much */
    float input = added * inverse; /* too large only beside B = 0, or next to it */
    input = input < -FLT_MAX ? -FLT_MAX : input;
    input = FLT_MAX < input ? FLT_MAX : input;
    return (bm_row_step){.unit = fresh, .keep = keep, .input = input};
}

/* IEEE binary16 to f32, exact; infinities and NaN keep their kind. */
static inline float bm_half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t rest = h & 0x7fffu;
    if (rest >= 0x7c00u)
        return bm_float_of(sign | 0x7f800000u | (rest & 0x03ffu) << 13);
    /* As f32 bits these are the value times 2^-112, subnormals included; the product is exact. */
    return bm_float_of(sign | bm_bits_of(bm_float_of(rest << 13) * 0x1p112f));
}

#endif
