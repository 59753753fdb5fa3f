/*
 * simd128_table.c: binary products by table look-up in one vector (the variant "table").
 *
 * The idea (as in T-MAC, arXiv 2407.00088): four columns have 16 sign patterns, so the signed sum of
 * four inputs is one of 16 numbers, made once per token and looked up by every row. With integer
 * inputs q the table holds, for the pattern m of +1 signs,
 *     T[m] = (sum of the q selected by m) - (sum of the negative q),   0 <= T[m] <= sum|q| <= 255,
 * and the signed sum is 2 T[m] - sum|q|. A byte table is one 16-byte vector: one swizzle looks up 16
 * rows. BM_HIGH needs 14 bits and has two such tables, 7 bits each. BM_EXACT looks up f32 sums.
 *
 * Layout of w: blocks of 64 rows; in a block, for every 8 columns, 64 bytes: 4 vectors of 16 rows. A
 * byte is 8 columns of one row, low nibble first. In a vector, byte 2j is row j and byte 2j + 1 is
 * row 8 + j, so that the even and the odd bytes of a sum come out in row order.
 */
#include "simd128_many.h"

enum { VECTORS = BM_ROWS / 16 };

/* ---- Layout --------------------------------------------------------------------------------- */

static uint64_t signs_bytes(size_t rows, size_t cols) {
    return (uint64_t)bm_round_up(rows, BM_ROWS) * (cols / 8);
}

/* Of 16 rows of bytes, `at` the first, the 16 columns from `step` on: a vector of a column is 16 rows in their slots. */
static void write_square(uint8_t *at, size_t row_bytes, const uint8_t *bytes) {
    v128_t v[16];
    v128_t t[16];
    for (size_t slot = 0; slot < 16; slot++)
        v[slot] = wasm_v128_load(bytes + bm_row_of_slot(slot) * row_bytes);
    /* Four times every vector of the first half is interleaved with its fellow of the second: a transposition. */
    for (size_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < 8; i++) {
            t[2 * i] = wasm_i8x16_shuffle(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21,
                                          6, 22, 7, 23);
            t[2 * i + 1] = wasm_i8x16_shuffle(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                              13, 29, 14, 30, 15, 31);
        }
        memcpy(v, t, sizeof v);
    }
    for (size_t column = 0; column < 16; column++)
        wasm_v128_store(at + column * BM_ROWS, v[column]);
}

/* Whole rows, 16 of them, the first one a multiple of 16. */
static void write_rows(uint8_t *at, size_t row_bytes, const uint8_t *bytes) {
    size_t step = 0;
    for (; step + 16 <= row_bytes; step += 16)
        write_square(at + step * BM_ROWS, row_bytes, bytes + step);
    for (; step < row_bytes; step++)
        for (size_t row = 0; row < 16; row++)
            at[step * BM_ROWS + bm_slot_of_row(row)] = bytes[row * row_bytes + step];
}

static void signs_write(uint8_t *w, size_t rows, size_t cols, uint64_t offset, const uint8_t *bytes,
                        size_t n) {
    (void)rows;
    size_t row_bytes = cols / 8;
    size_t row = (size_t)(offset / row_bytes);
    size_t step = (size_t)(offset % row_bytes);
    while (n > 0) {
        uint8_t *at = w + row / BM_ROWS * BM_ROWS * row_bytes + step * BM_ROWS;
        if (step == 0 && row % 16 == 0 && n >= 16 * row_bytes) {
            write_rows(at + row % BM_ROWS, row_bytes, bytes);
            bytes += 16 * row_bytes;
            n -= 16 * row_bytes;
            row += 16;
            continue;
        }
        size_t run = row_bytes - step < n ? row_bytes - step : n;
        at += bm_slot_of_row(row % BM_ROWS);
        for (size_t i = 0; i < run; i++)
            at[i * BM_ROWS] = bytes[i];
        bytes += run;
        n -= run;
        row++;
        step = 0;
    }
}

/* ---- Tables --------------------------------------------------------------------------------- */

/*
 * Integer tables: first sum|q| of every group of BM_GROUP columns [bm_groups(cols)] i32, then per
 * 4 columns one byte table (BM_FAST) or the low 7 and the high 7 bits (BM_HIGH), 16 bytes each.
 */
static size_t sums_bytes(size_t cols) {
    return bm_round_up(bm_groups(cols) * sizeof(int32_t), BM_ALIGN);
}

static size_t table_bytes(size_t cols, bm_precision precision) {
    if (precision == BM_EXACT)
        return cols / 4 * 16 * sizeof(float);
    return sums_bytes(cols) + cols / 4 * (precision == BM_HIGH ? 32 : 16);
}

/* Lane k of eight i16 in all lanes; k is a constant. */
#define LANE(v, k) wasm_i16x8_shuffle(v, v, k, k, k, k, k, k, k, k)

/* T[m] for m = 0 ... 15 as two vectors of i16, from q in lanes 0 ... 3 and T[0] in lane 0 of `base`. */
static inline void subset_sums(v128_t q, v128_t base, v128_t *low, v128_t *high) {
    const v128_t bit0 = wasm_i16x8_make(0, -1, 0, -1, 0, -1, 0, -1);
    const v128_t bit1 = wasm_i16x8_make(0, 0, -1, -1, 0, 0, -1, -1);
    const v128_t bit2 = wasm_i16x8_make(0, 0, 0, 0, -1, -1, -1, -1);
    v128_t sum = LANE(base, 0);
    sum = wasm_i16x8_add(sum, wasm_v128_and(LANE(q, 0), bit0));
    sum = wasm_i16x8_add(sum, wasm_v128_and(LANE(q, 1), bit1));
    sum = wasm_i16x8_add(sum, wasm_v128_and(LANE(q, 2), bit2));
    *low = sum;
    *high = wasm_i16x8_add(sum, LANE(q, 3));
}

/* The tables of four columns; returns where the next ones go. */
static inline uint8_t *write_tables(uint8_t *table, v128_t low, v128_t high,
                                    bm_precision precision) {
    if (precision == BM_HIGH) {
        const v128_t seven_bits = wasm_i16x8_splat(127);
        wasm_v128_store(table, wasm_u8x16_narrow_i16x8(wasm_v128_and(low, seven_bits),
                                                       wasm_v128_and(high, seven_bits)));
        low = wasm_u16x8_shr(low, 7);
        high = wasm_u16x8_shr(high, 7);
        table += 16;
    }
    wasm_v128_store(table, wasm_u8x16_narrow_i16x8(low, high));
    return table + 16;
}

static void tabulate_integers(void *act, size_t cols, bm_precision precision) {
    const int16_t *q = bm_act_values(act, cols);
    int32_t *sums = bm_act_tables(act, cols, precision);
    uint8_t *table = (uint8_t *)sums + sums_bytes(cols);
    const v128_t zero = wasm_i16x8_splat(0);
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
        v128_t sum_abs = wasm_i32x4_splat(0);
        for (size_t i = start; i < end; i += 8) {
            v128_t v = wasm_v128_load(q + i);
            sum_abs = wasm_i32x4_add(sum_abs, wasm_i32x4_extadd_pairwise_i16x8(wasm_i16x8_abs(v)));
            /* In every lane: less the negative q of its four. */
            v128_t base = wasm_i16x8_max(wasm_i16x8_sub(zero, v), zero);
            base = wasm_i16x8_add(base, wasm_i16x8_shuffle(base, base, 1, 0, 3, 2, 5, 4, 7, 6));
            base = wasm_i16x8_add(base, wasm_i16x8_shuffle(base, base, 2, 3, 0, 1, 6, 7, 4, 5));
            v128_t low;
            v128_t high;
            subset_sums(v, base, &low, &high);
            table = write_tables(table, low, high, precision);
            subset_sums(wasm_i64x2_shuffle(v, v, 1, 1), wasm_i64x2_shuffle(base, base, 1, 1), &low,
                        &high);
            table = write_tables(table, low, high, precision);
        }
        sums[start / BM_GROUP] = bm_v_sum_i32(sum_abs);
    }
}

static void tabulate_floats(void *act, size_t cols) {
    const float *x = bm_act_values(act, cols);
    float *table = bm_act_tables(act, cols, BM_EXACT);
    for (size_t i = 0; i < cols; i += 4)
        for (unsigned m = 0; m < 16; m++) {
            float term[4];
            for (unsigned k = 0; k < 4; k++)
                term[k] = m >> k & 1 ? x[i + k] : -x[i + k];
            *table++ = (term[0] + term[1]) + (term[2] + term[3]);
        }
}

static void tabulate(void *act, size_t cols, bm_precision precision) {
    if (precision == BM_EXACT)
        tabulate_floats(act, cols);
    else
        tabulate_integers(act, cols, precision);
}

/* ---- Products of one block of 64 rows with one token ------------------------------------------ */

/*
 * 16-bit sums of the even and of the odd bytes of looked-up vectors, without unpacking: `all` adds
 * whole 16-bit lanes (odd * 256 + even, modulo 2^16), `odd` adds only the odd bytes.
 */
typedef struct {
    v128_t all;
    v128_t odd;
} byte_sums;

static inline void add_bytes(byte_sums *s, v128_t bytes) {
    s->all = wasm_i16x8_add(s->all, bytes);
    s->odd = wasm_i16x8_add(s->odd, wasm_u16x8_shr(bytes, 8));
}

/* y[0 ... 15] += d * (2 * total - sum_abs): rows 0 ... 7 from even bytes, 8 ... 15 from odd ones. */
static inline void add_rows(float *y, v128_t total[4], v128_t sum_abs, v128_t d) {
    for (size_t k = 0; k < 4; k++) {
        v128_t dot = wasm_i32x4_sub(wasm_i32x4_shl(total[k], 1), sum_abs);
        v128_t term = wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(dot));
        wasm_v128_store(y + 4 * k, wasm_f32x4_add(wasm_v128_load(y + 4 * k), term));
    }
}

static inline void widen(v128_t out[4], const byte_sums *s) {
    v128_t even = wasm_i16x8_sub(s->all, wasm_i16x8_shl(s->odd, 8));
    out[0] = wasm_u32x4_extend_low_u16x8(even);
    out[1] = wasm_u32x4_extend_high_u16x8(even);
    out[2] = wasm_u32x4_extend_low_u16x8(s->odd);
    out[3] = wasm_u32x4_extend_high_u16x8(s->odd);
}

/* One group of at most 256 columns: 64 look-ups a row, 64 * 255 < 2^16. */
static void block_fast(float *y, const uint8_t *w, const uint8_t *table, size_t cols,
                       int32_t sum_abs, float d) {
    const v128_t nibble = wasm_i8x16_splat(15);
    byte_sums s[VECTORS];
    for (size_t v = 0; v < VECTORS; v++)
        s[v].all = s[v].odd = wasm_i32x4_splat(0);
    for (size_t i = 0; i < cols; i += 8) {
        v128_t first = wasm_v128_load(table);
        v128_t second = wasm_v128_load(table + 16);
        for (size_t v = 0; v < VECTORS; v++) {
            v128_t signs = wasm_v128_load(w + 16 * v);
            add_bytes(&s[v], bm_v_lookup(first, wasm_v128_and(signs, nibble)));
            signs = wasm_v128_and(wasm_u16x8_shr(signs, 4), nibble);
            add_bytes(&s[v], bm_v_lookup(second, signs));
        }
        table += 32;
        w += BM_ROWS;
    }
    for (size_t v = 0; v < VECTORS; v++) {
        v128_t total[4];
        widen(total, &s[v]);
        add_rows(y + 16 * v, total, wasm_i32x4_splat(sum_abs), wasm_f32x4_splat(d));
    }
}

/* Two look-ups a nibble; 7-bit entries, so two fit a byte: at most 32 sums of 254 < 2^16. */
static void block_high(float *y, const uint8_t *w, const uint8_t *table, size_t cols,
                       int32_t sum_abs, float d) {
    const v128_t nibble = wasm_i8x16_splat(15);
    for (size_t v = 0; v < VECTORS; v++) {
        byte_sums low = {wasm_i32x4_splat(0), wasm_i32x4_splat(0)};
        byte_sums high = low;
        const uint8_t *t = table;
        for (size_t i = 0; i < cols; i += 8) {
            v128_t signs = wasm_v128_load(w + i * (BM_ROWS / 8) + 16 * v);
            v128_t first = wasm_v128_and(signs, nibble);
            v128_t second = wasm_v128_and(wasm_u16x8_shr(signs, 4), nibble);
            add_bytes(&low, wasm_i8x16_add(bm_v_lookup(wasm_v128_load(t), first),
                                           bm_v_lookup(wasm_v128_load(t + 32), second)));
            add_bytes(&high, wasm_i8x16_add(bm_v_lookup(wasm_v128_load(t + 16), first),
                                            bm_v_lookup(wasm_v128_load(t + 48), second)));
            t += 64;
        }
        v128_t total[4];
        v128_t upper[4];
        widen(total, &low);
        widen(upper, &high);
        for (size_t k = 0; k < 4; k++)
            total[k] = wasm_i32x4_add(total[k], wasm_i32x4_shl(upper[k], 7));
        add_rows(y + 16 * v, total, wasm_i32x4_splat(sum_abs), wasm_f32x4_splat(d));
    }
}

static void block_integers(float *y, const uint8_t *w, const void *act, size_t cols, float c,
                           bm_precision precision) {
    const float *d = bm_act_scales(act);
    const int32_t *sums = bm_act_tables(act, cols, precision);
    const uint8_t *table = (const uint8_t *)sums + sums_bytes(cols);
    size_t table_step = precision == BM_HIGH ? 8 : 4; /* bytes of table a column */
    for (size_t r = 0; r < BM_ROWS; r++)
        y[r] = c;
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t n = cols - start < BM_GROUP ? cols - start : BM_GROUP;
        size_t g = start / BM_GROUP;
        const uint8_t *signs = w + start * (BM_ROWS / 8);
        const uint8_t *t = table + start * table_step;
        if (precision == BM_HIGH)
            block_high(y, signs, t, n, sums[g], d[g]);
        else
            block_fast(y, signs, t, n, sums[g], d[g]);
    }
}

/* Independent sums that hide the latency of the additions. */
enum { LANES = 8 };

static void block_floats(float *y, const uint8_t *w, const void *act, size_t cols, float c) {
    const float *table = bm_act_tables(act, cols, BM_EXACT);
    for (size_t slot = 0; slot < BM_ROWS; slot += LANES) {
        const uint8_t *signs = w + slot;
        const float *t = table;
        float sum[LANES];
        for (size_t k = 0; k < LANES; k++)
            sum[k] = c;
        for (size_t i = 0; i < cols; i += 8) {
            for (size_t k = 0; k < LANES; k++) {
                sum[k] += t[signs[k] & 15];
                sum[k] += t[16 + (signs[k] >> 4)];
            }
            signs += BM_ROWS;
            t += 32;
        }
        for (size_t k = 0; k < LANES; k++)
            y[bm_row_of_slot(slot + k)] = sum[k];
    }
}

/* Tables for 16 tokens at once cost less than the products of so many one by one. */
enum { MANY_FROM = 10 };

static bool takes_many(size_t n, bm_precision precision) {
    return n >= MANY_FROM && precision != BM_EXACT;
}

static bool uses_tables(size_t n, bm_precision precision) {
    return !takes_many(n, precision);
}

static uint64_t matmul_scratch(size_t rows, bm_precision precision) {
    return precision == BM_EXACT ? 0 : bm_matmul_many_scratch(rows, precision);
}

static void matmul(float *restrict y, size_t y_stride, const uint8_t *restrict w, size_t rows,
                   size_t cols, const bm_inputs *in, bm_precision precision,
                   void *restrict scratch) {
    if (takes_many(in->n, precision)) {
        bm_matmul_many__simd128(y, y_stride, w, rows, cols, in, precision, scratch);
        return;
    }
    for (size_t row = 0; row < rows; row += BM_ROWS) { /* outermost: a row's signs are read once */
        const uint8_t *block = w + row * (cols / 8);
        for (size_t t = 0; t < in->n; t++) {
            const uint8_t *a = in->act + t * in->stride;
            float *out = y + t * y_stride + row;
            if (precision == BM_EXACT)
                block_floats(out, block, a, cols, in->c[t]);
            else
                block_integers(out, block, a, cols, in->c[t], precision);
        }
    }
}

const bm_kernels bm_kernels_table = {
    .name = "table",
    .signs_bytes = signs_bytes,
    .signs_write = signs_write,
    .table_bytes = table_bytes,
    .quantize = bm_quantize__simd128,
    .tabulate = tabulate,
    .uses_tables = uses_tables,
    .matmul_scratch = matmul_scratch,
    .matmul = matmul,
    .dense_i8 = bm_dense_i8__simd128,
    .dense_i4 = bm_dense_i4__simd128,
    .dense_f16 = bm_dense_f16__simd128,
    .norm_scale = bm_norm_scale__simd128,
    .conv_silu = bm_conv_silu__simd128,
    .gate = bm_gate__simd128,
    .abs_max = bm_abs_max__simd128,
    .scan_f32 = bm_scan_f32__simd128,
    .scan_i16 = bm_scan_i16__simd128,
    .head_i8 = bm_head_i8__simd128,
    .head_i4 = bm_head_i4__simd128,
    .head_f32 = bm_head_f32__simd128,
    .head_f16 = bm_head_f16__simd128,
};
