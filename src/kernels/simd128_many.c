/*
 * simd128_many.c: binary products of 16 tokens at once by the method of four Russians.
 *
 * The idea: 8 columns have 256 sign patterns. For each of them the sum of the q of its +1 columns is
 * made once for all 16 tokens (two vectors of i16, one addition an entry), and then a weight byte of
 * any row costs one table row added to the row's sums: 128 products in two additions. The signed sum
 * is twice that, less the sum of all q. Sums over one group of BM_GROUP columns fit 16 bits.
 *
 * BM_HIGH has 14-bit q = 128 * upper + lower with |upper|, |lower| <= 64: two such digits, two sums.
 *
 * The tables of a step of STEP_COLS columns stay in the first level of cache while all rows pass; the
 * rows' sums stream from the second. Rows are kept in the order of the weight layout ("slots") and put
 * in their own order at the very end.
 */
#include "simd128_many.h"

enum {
    STEP_COLS = 32, /* 4 tables of 8 KiB */
    STEP_TABLES = STEP_COLS / 8,
    TABLE_VECTORS = 256 * 2, /* an entry is 16 tokens of i16 */
    DIGIT_BITS = 7,
    BASE = 1 << DIGIT_BITS
};

typedef struct {
    v128_t *tables;   /* [STEP_TABLES, 256, 2] */
    v128_t *digit[2]; /* [slots, 2] i16 sums over the current group, one or two digits */
    float *sums;      /* [slots, BM_MANY] f32 results so far */
} workspace;

static size_t digits_of(bm_precision precision) {
    return precision == BM_HIGH ? 2 : 1;
}

static workspace layout(bm_arena *arena, size_t rows, bm_precision precision) {
    size_t slots = bm_round_up(rows, BM_ROWS);
    workspace ws = {.tables = bm_arena_take(arena, STEP_TABLES * TABLE_VECTORS, sizeof(v128_t))};
    for (size_t k = 0; k < digits_of(precision); k++)
        ws.digit[k] = bm_arena_take(arena, slots * 2, sizeof(v128_t));
    ws.sums = bm_arena_take(arena, slots * BM_MANY, sizeof(float));
    return ws;
}

uint64_t bm_matmul_many_scratch(size_t rows, bm_precision precision) {
    bm_arena arena = {0};
    layout(&arena, rows, precision);
    return arena.used;
}

/* One digit of q: all of it, or with two digits the upper (rounded) or the lower part. */
static int16_t digit_of(int16_t q, size_t digit, bm_precision precision) {
    if (precision == BM_FAST)
        return q;
    /* A multiple of the base keeps the dividend positive: division then rounds downwards. */
    int upper = (q + BASE / 2 + BASE * BASE) / BASE - BASE;
    return (int16_t)(digit == 0 ? q - upper * BASE : upper);
}

/* Column `col` of all tokens' digits, and its addition to `total`. */
static void load_column(v128_t column[2], v128_t total[2], const bm_inputs *in, size_t cols,
                        size_t col, size_t digit, bm_precision precision) {
    _Alignas(16) int16_t q[BM_MANY];
    for (size_t t = 0; t < BM_MANY; t++) {
        const int16_t *values = bm_act_values(in->act + t * in->stride, cols);
        q[t] = digit_of(values[col], digit, precision);
    }
    for (size_t k = 0; k < 2; k++) {
        column[k] = wasm_v128_load(q + 8 * k);
        total[k] = wasm_i16x8_add(total[k], column[k]);
    }
}

/* entry[m | 1 << k] = entry[m] + column k: every pattern from one with a column less. */
static void build_table(v128_t *table, v128_t total[2], const bm_inputs *in, size_t cols,
                        size_t col, size_t digit, bm_precision precision) {
    table[0] = table[1] = wasm_i16x8_splat(0);
    for (size_t k = 0; k < 8; k++) {
        v128_t column[2];
        load_column(column, total, in, cols, col + k, digit, precision);
        size_t half = (size_t)2 << k;
        for (size_t i = 0; i < half; i += 2) {
            table[half + i] = wasm_i16x8_add(table[i], column[0]);
            table[half + i + 1] = wasm_i16x8_add(table[i + 1], column[1]);
        }
    }
}

/* Adds the look-ups of one step of columns to the sums of all rows. */
static void add_step(v128_t *sums, const v128_t *tables, const uint8_t *w, size_t slots,
                     size_t row_bytes) {
    for (size_t block = 0; block < slots; block += BM_ROWS) {
        const uint8_t *signs = w + block * row_bytes;
        for (size_t slot = 0; slot < BM_ROWS; slot++) {
            v128_t low = sums[0];
            v128_t high = sums[1];
            for (size_t k = 0; k < STEP_TABLES; k++) {
                const v128_t *entry =
                    tables + k * TABLE_VECTORS + 2 * (size_t)signs[k * BM_ROWS + slot];
                low = wasm_i16x8_add(low, entry[0]);
                high = wasm_i16x8_add(high, entry[1]);
            }
            sums[0] = low;
            sums[1] = high;
            sums += 2;
        }
    }
}

/* Four tokens of one row: sums += d * (2 * picked - total), exact integers until then. */
static v128_t scaled(v128_t picked, v128_t total, v128_t d) {
    return wasm_f32x4_mul(
        d, wasm_f32x4_convert_i32x4(wasm_i32x4_sub(wasm_i32x4_shl(picked, 1), total)));
}

static v128_t widen(v128_t v, size_t half) {
    return half ? wasm_i32x4_extend_high_i16x8(v) : wasm_i32x4_extend_low_i16x8(v);
}

/* Tokens 4 * quarter ... of the i16 sums at v, with the second digit where there is one. */
static v128_t combine(const v128_t *lower, const v128_t *upper, size_t quarter) {
    v128_t sum = widen(lower[quarter / 2], quarter % 2);
    if (!upper)
        return sum;
    return wasm_i32x4_add(sum, wasm_i32x4_shl(widen(upper[quarter / 2], quarter % 2), DIGIT_BITS));
}

/* Ends a group of columns: the integer sums become f32 and start again from zero. */
static void end_group(const workspace *ws, v128_t totals[2][2], size_t slots,
                      const float d[BM_MANY], bool has_upper) {
    for (size_t quarter = 0; quarter < BM_MANY / 4; quarter++) {
        v128_t total = combine(totals[0], has_upper ? totals[1] : NULL, quarter);
        v128_t scale = wasm_v128_load(d + 4 * quarter);
        for (size_t slot = 0; slot < slots; slot++) {
            const v128_t *upper = has_upper ? ws->digit[1] + 2 * slot : NULL;
            v128_t picked = combine(ws->digit[0] + 2 * slot, upper, quarter);
            float *sum = ws->sums + slot * BM_MANY + 4 * quarter;
            wasm_v128_store(sum, wasm_f32x4_add(wasm_v128_load(sum), scaled(picked, total, scale)));
        }
    }
}

static void run_group(const workspace *ws, const uint8_t *w, size_t slots, size_t cols,
                      size_t start, size_t end, const bm_inputs *in, bm_precision precision) {
    v128_t totals[2][2];
    for (size_t digit = 0; digit < digits_of(precision); digit++) {
        memset(ws->digit[digit], 0, slots * 2 * sizeof(v128_t));
        totals[digit][0] = totals[digit][1] = wasm_i16x8_splat(0);
        for (size_t col = start; col < end; col += STEP_COLS) {
            for (size_t k = 0; k < STEP_TABLES; k++)
                build_table(ws->tables + k * TABLE_VECTORS, totals[digit], in, cols, col + 8 * k,
                            digit, precision);
            add_step(ws->digit[digit], ws->tables, w + col * (BM_ROWS / 8), slots, cols / 8);
        }
    }
    _Alignas(16) float d[BM_MANY];
    for (size_t t = 0; t < BM_MANY; t++)
        d[t] = bm_act_scales(in->act + t * in->stride)[start / BM_GROUP];
    end_group(ws, totals, slots, d, precision == BM_HIGH);
}

void bm_matmul_many__simd128(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                             size_t rows, size_t cols, const bm_inputs *in, bm_precision precision,
                             void *restrict scratch) {
    bm_arena arena = {.base = scratch};
    workspace ws = layout(&arena, rows, precision);
    size_t slots = bm_round_up(rows, BM_ROWS);
    for (size_t slot = 0; slot < slots; slot++)
        memcpy(ws.sums + slot * BM_MANY, in->c, BM_MANY * sizeof *in->c);
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
        run_group(&ws, w, slots, cols, start, end, in, precision);
    }
    for (size_t slot = 0; slot < slots; slot++) {
        size_t row = slot / BM_ROWS * BM_ROWS + bm_row_of_slot(slot % BM_ROWS);
        for (size_t t = 0; t < BM_MANY; t++)
            y[t * y_stride + row] = ws.sums[slot * BM_MANY + t];
    }
}
