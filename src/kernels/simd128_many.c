/*
 * simd128_many.c: binary products of 16 tokens at once by the method of four Russians.
 *
 * The idea: 8 columns have 256 sign patterns. For each of them the signed sum of the 8 inputs is made
 * once for all 16 tokens (two vectors of i16, one addition each), and then a weight byte of any row
 * costs one table entry added to the row's sums: 128 products in two additions. Sums over one group of
 * BM_GROUP columns fit 16 bits: |q| of 4 columns adds up to 255 at most, and 64 * 255 < 2^15.
 *
 * BM_HIGH has 14-bit q = 128 * upper + lower with |upper|, |lower| <= 64: two such digits, two sums.
 *
 * A tile of TILE_COLS columns has 64 KiB of tables, which stay near the processor while all rows pass;
 * the rows' sums stream by. Smaller tiles would fit the first level of cache and touch the sums more
 * often, which costs more; 32 tokens a table were slower too (x86-64, 48 KiB of first-level cache).
 */
#include "simd128_many.h"

enum {
    TILE_STEPS = 8, /* a step is 8 columns: one table, one byte of every row */
    TILE_COLS = 8 * TILE_STEPS,
    ENTRIES = 256,
    DIGIT_BITS = 7
};

/* A 16-bit integer for each of the 16 tokens. */
typedef struct {
    v128_t low;
    v128_t high;
} tokens;

typedef struct {
    tokens *tables;  /* [TILE_STEPS, ENTRIES] */
    tokens *sums[2]; /* [rows] of the current group, one or two digits */
    float *y;        /* [rows, BM_TOKENS] f32 results so far */
} workspace;

static workspace layout(bm_arena *arena, size_t rows, bm_precision precision) {
    workspace ws = {.tables = bm_arena_take(arena, TILE_STEPS * ENTRIES, sizeof(tokens))};
    for (size_t digit = 0; digit < (precision == BM_HIGH ? 2 : 1); digit++)
        ws.sums[digit] = bm_arena_take(arena, bm_round_up(rows, BM_ROWS), sizeof(tokens));
    ws.y = bm_arena_take(arena, bm_round_up(rows, BM_ROWS) * BM_TOKENS, sizeof(float));
    return ws;
}

uint64_t bm_matmul_many_scratch(size_t rows, bm_precision precision) {
    bm_arena arena = {0};
    layout(&arena, rows, precision);
    return arena.used;
}

static inline tokens add(tokens a, tokens b) {
    return (tokens){wasm_i16x8_add(a.low, b.low), wasm_i16x8_add(a.high, b.high)};
}

static inline tokens subtract(tokens a, tokens b) {
    return (tokens){wasm_i16x8_sub(a.low, b.low), wasm_i16x8_sub(a.high, b.high)};
}

/* ---- Tables ---------------------------------------------------------------------------------- */

/* Which part of q a pass over a group works on. */
typedef enum { ALL_OF_Q, LOWER_DIGIT, UPPER_DIGIT } digit;

static v128_t digit_of(v128_t q, digit which) {
    if (which == ALL_OF_Q)
        return q;
    v128_t upper =
        wasm_i16x8_shr(wasm_i16x8_add(q, wasm_i16x8_splat(1 << (DIGIT_BITS - 1))), DIGIT_BITS);
    return which == UPPER_DIGIT ? upper : wasm_i16x8_sub(q, wasm_i16x8_shl(upper, DIGIT_BITS));
}

/* 8 rows of 8 to 8 columns of 8. */
static void transpose_8x8(v128_t m[8]) {
    v128_t a[8];
    for (size_t k = 0; k < 4; k++) { /* rows k and k + 4, interleaved: three times is a transpose */
        a[2 * k] = wasm_i16x8_shuffle(m[k], m[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        a[2 * k + 1] = wasm_i16x8_shuffle(m[k], m[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    v128_t b[8];
    for (size_t k = 0; k < 4; k++) {
        b[2 * k] = wasm_i16x8_shuffle(a[k], a[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        b[2 * k + 1] = wasm_i16x8_shuffle(a[k], a[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (size_t k = 0; k < 4; k++) {
        m[2 * k] = wasm_i16x8_shuffle(b[k], b[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
        m[2 * k + 1] = wasm_i16x8_shuffle(b[k], b[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
}

/* One digit of 8 adjacent columns for all tokens; tokens past the last are 0. */
static void load_columns(tokens column[8], const bm_inputs *in, size_t cols, size_t col,
                         digit which) {
    for (size_t half = 0; half < 2; half++) {
        v128_t m[8];
        for (size_t k = 0; k < 8; k++) {
            size_t t = 8 * half + k;
            m[k] = wasm_i16x8_splat(0);
            if (t >= in->n)
                continue;
            const int16_t *q = bm_act_values(in->act + t * in->stride, cols);
            m[k] = digit_of(wasm_v128_load(q + col), which);
        }
        transpose_8x8(m);
        for (size_t k = 0; k < 8; k++)
            *(half ? &column[k].high : &column[k].low) = m[k];
    }
}

/* out[m | 1 << k] = out[m] + 2 column k: all 16 patterns of 4 columns, from the one of no + sign. */
static void build_patterns(tokens out[16], tokens none, const tokens column[4]) {
    out[0] = none;
    for (size_t k = 0; k < 4; k++)
        for (size_t m = 0; m < (size_t)1 << k; m++)
            out[m + ((size_t)1 << k)] = add(out[m], add(column[k], column[k]));
}

/* table[m] = the sum of the 8 columns with the signs m. */
static void build_table(tokens *restrict table, const bm_inputs *in, size_t cols, size_t col,
                        digit which) {
    const tokens zero = {wasm_i16x8_splat(0), wasm_i16x8_splat(0)};
    tokens column[8];
    load_columns(column, in, cols, col, which);
    tokens all_minus = zero;
    for (size_t k = 0; k < 8; k++)
        all_minus = subtract(all_minus, column[k]);
    tokens upper[16];
    build_patterns(upper, zero, column + 4);
    build_patterns(table, all_minus, column);
    for (size_t u = 1; u < 16; u++)
        for (size_t m = 0; m < 16; m++)
            table[16 * u + m] = add(table[m], upper[u]);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* The bytes of each of 64 rows in the steps of a tile, first step lowest, in the order of slots. */
static __attribute__((noinline)) void gather_rows(uint64_t rows[BM_ROWS], const uint8_t *w,
                                                  size_t steps) {
    static const _Alignas(16) uint8_t none[BM_ROWS];
    for (size_t v = 0; v < BM_ROWS / 16; v++) {
        v128_t a[TILE_STEPS];
        for (size_t k = 0; k < TILE_STEPS; k++)
            a[k] = wasm_v128_load((k < steps ? w + BM_ROWS * k : none) + 16 * v);
        v128_t b[TILE_STEPS]; /* pairs of steps */
        for (size_t k = 0; k < 4; k++) {
            b[k] = wasm_i8x16_shuffle(a[2 * k], a[2 * k + 1], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                      21, 6, 22, 7, 23);
            b[4 + k] = wasm_i8x16_shuffle(a[2 * k], a[2 * k + 1], 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                          28, 13, 29, 14, 30, 15, 31);
        }
        for (size_t half = 0; half < 2; half++) {
            const v128_t *p = b + 4 * half;
            for (size_t k = 0; k < 2; k++) { /* four slots each: steps 0 ... 3, steps 4 ... 7 */
                v128_t c = k ? wasm_i16x8_shuffle(p[0], p[1], 4, 12, 5, 13, 6, 14, 7, 15)
                             : wasm_i16x8_shuffle(p[0], p[1], 0, 8, 1, 9, 2, 10, 3, 11);
                v128_t e = k ? wasm_i16x8_shuffle(p[2], p[3], 4, 12, 5, 13, 6, 14, 7, 15)
                             : wasm_i16x8_shuffle(p[2], p[3], 0, 8, 1, 9, 2, 10, 3, 11);
                uint64_t *out = rows + 16 * v + 8 * half + 4 * k;
                wasm_v128_store(out, wasm_i32x4_shuffle(c, e, 0, 4, 1, 5));
                wasm_v128_store(out + 2, wasm_i32x4_shuffle(c, e, 2, 6, 3, 7));
            }
        }
    }
}

/* Four tokens of i16 to i32. */
static inline v128_t widen(tokens s, size_t quarter) {
    v128_t v = quarter < 2 ? s.low : s.high;
    return bm_v_opaque(quarter % 2 ? wasm_i32x4_extend_high_i16x8(v)
                                   : wasm_i32x4_extend_low_i16x8(v));
}

/* y [BM_TOKENS] += d * dot: a group's exact integers become f32. */
static inline void end_row(float *y, const float *d, tokens sums, const tokens *lower) {
    for (size_t quarter = 0; quarter < BM_TOKENS / 4; quarter++) {
        v128_t dot = widen(sums, quarter);
        if (lower)
            dot = wasm_i32x4_add(widen(*lower, quarter), wasm_i32x4_shl(dot, DIGIT_BITS));
        v128_t term =
            wasm_f32x4_mul(wasm_v128_load(d + 4 * quarter), wasm_f32x4_convert_i32x4(dot));
        wasm_v128_store(y + 4 * quarter, wasm_f32x4_add(wasm_v128_load(y + 4 * quarter), term));
    }
}

/* Adds the entries of one row's bytes. Offsets into a table are taken from the word in one shift. */
static inline tokens look_up(tokens sums, const tokens *table, uint64_t row) {
    enum { SHIFT = 5, MASK = (ENTRIES - 1) << SHIFT };
    _Static_assert(sizeof(tokens) == (size_t)1 << SHIFT, "an entry is an offset of SHIFT bits");
    for (size_t k = 0; k < TILE_STEPS; k++) {
        uint32_t offset = (uint32_t)(k == 0 ? row << SHIFT : row >> (8 * k - SHIFT)) & MASK;
        const tokens *entry =
            (const tokens *)(const void *)((const uint8_t *)(table + k * ENTRIES) + offset);
        sums = add(sums, *entry);
        sums.low = bm_v_opaque(sums.low);
        sums.high = bm_v_opaque(sums.high);
    }
    return sums;
}

/* The columns of a tile for all rows: `steps` tables, w at the first row's first step. */
typedef struct {
    const tokens *table;
    const uint8_t *w;
    size_t row_bytes;
    size_t rows;
    size_t steps;
} tile;

/* sums [rows] of a group, which its first tile begins. */
static void add_tile(tokens *sums, const tile *t, bool is_first) {
    const tokens zero = {wasm_i16x8_splat(0), wasm_i16x8_splat(0)};
    const tokens *table = t->table;
    for (size_t first = 0; first < t->rows; first += BM_ROWS) {
        uint64_t bytes[BM_ROWS];
        gather_rows(bytes, t->w + first * t->row_bytes, t->steps);
        for (size_t octet = 0; octet < BM_ROWS; octet += 8) {
            const uint64_t *row = bytes + bm_slot_of_row(octet);
#pragma clang loop unroll_count(2)
            for (size_t r = 0; r < 8; r++)
                sums[r] = look_up(is_first ? zero : sums[r], table, row[2 * r]);
            sums += 8;
        }
    }
}

/*
 * As add_tile for the last tile of a group: its sums are not kept, but go into y [rows, BM_TOKENS]. Two loops,
 * because one that decides between them has not registers enough: an engine spills, and it is a tenth slower.
 */
static void end_tile(float *y, const float *d, const tokens *sums, const tile *t) {
    const tokens *table = t->table;
    for (size_t first = 0; first < t->rows; first += BM_ROWS) {
        uint64_t bytes[BM_ROWS];
        gather_rows(bytes, t->w + first * t->row_bytes, t->steps);
        for (size_t octet = 0; octet < BM_ROWS; octet += 8) {
            const uint64_t *row = bytes + bm_slot_of_row(octet);
#pragma clang loop unroll_count(2)
            for (size_t r = 0; r < 8; r++)
                end_row(y + r * BM_TOKENS, d, look_up(sums[r], table, row[2 * r]), NULL);
            sums += 8;
            y += 8 * BM_TOKENS;
        }
    }
}

/* The same for sums in two digits, which are both kept. */
static void end_digits(float *y, const float *d, const tokens *lower, const tokens *upper,
                       size_t rows) {
    for (size_t row = 0; row < rows; row++)
        end_row(y + row * BM_TOKENS, d, upper[row], lower + row);
}

/* All columns of one group, and one digit. */
static void run_group(const workspace *ws, const uint8_t *w, size_t rows, size_t cols, size_t start,
                      size_t end, const bm_inputs *in, digit which) {
    _Alignas(16) float d[BM_TOKENS] = {0};
    for (size_t t = 0; t < in->n; t++)
        d[t] = bm_act_scales(in->act + t * in->stride)[start / BM_GROUP];
    for (size_t col = start; col < end; col += TILE_COLS) {
        size_t steps = end - col < TILE_COLS ? (end - col) / 8 : TILE_STEPS;
        for (size_t k = 0; k < steps; k++)
            build_table(ws->tables + k * ENTRIES, in, cols, col + 8 * k, which);
        for (size_t k = steps; k < TILE_STEPS; k++) /* the bytes of missing steps are 0 */
            memset(ws->tables + k * ENTRIES, 0, sizeof(tokens));
        const tile t = {.table = ws->tables,
                        .w = w + col * (BM_ROWS / 8),
                        .row_bytes = cols / 8,
                        .rows = rows,
                        .steps = steps};
        tokens *sums = ws->sums[which == UPPER_DIGIT];
        if (which != ALL_OF_Q || col + TILE_COLS < end) {
            add_tile(sums, &t, col == start);
            continue;
        }
        if (col == start)
            memset(sums, 0, rows * sizeof *sums);
        end_tile(ws->y, d, sums, &t);
    }
    if (which == UPPER_DIGIT)
        end_digits(ws->y, d, ws->sums[0], ws->sums[1], rows);
}

/* ---- Product --------------------------------------------------------------------------------- */

static void write_rows(float *restrict y, size_t y_stride, const float *sums, size_t rows,
                       size_t n) {
    for (size_t row = 0; row < rows; row += 4)
        for (size_t t = 0; t < n; t += 4) {
            v128_t m[4];
            for (size_t k = 0; k < 4; k++)
                m[k] = wasm_v128_load(sums + (row + k) * BM_TOKENS + t);
            v128_t a = wasm_i32x4_shuffle(m[0], m[1], 0, 4, 1, 5);
            v128_t b = wasm_i32x4_shuffle(m[2], m[3], 0, 4, 1, 5);
            v128_t c = wasm_i32x4_shuffle(m[0], m[1], 2, 6, 3, 7);
            v128_t e = wasm_i32x4_shuffle(m[2], m[3], 2, 6, 3, 7);
            const v128_t out[4] = {wasm_i64x2_shuffle(a, b, 0, 2), wasm_i64x2_shuffle(a, b, 1, 3),
                                   wasm_i64x2_shuffle(c, e, 0, 2), wasm_i64x2_shuffle(c, e, 1, 3)};
            for (size_t k = 0; k < 4 && t + k < n; k++)
                wasm_v128_store(y + (t + k) * y_stride + row, out[k]);
        }
}

void bm_matmul_many__simd128(float *restrict y, size_t y_stride, const uint8_t *restrict w,
                             size_t rows, size_t cols, const bm_inputs *in, bm_precision precision,
                             void *restrict scratch) {
    bm_arena arena = {.base = scratch};
    workspace ws = layout(&arena, rows, precision);
    size_t padded = bm_round_up(rows, BM_ROWS);
    memset(ws.y, 0, BM_TOKENS * sizeof(float));
    memcpy(ws.y, in->c, in->n * sizeof(float));
    for (size_t row = 1; row < padded; row++)
        memcpy(ws.y + row * BM_TOKENS, ws.y, BM_TOKENS * sizeof(float));
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        size_t end = cols - start < BM_GROUP ? cols : start + BM_GROUP;
        if (precision == BM_HIGH) {
            run_group(&ws, w, padded, cols, start, end, in, LOWER_DIGIT);
            run_group(&ws, w, padded, cols, start, end, in, UPPER_DIGIT);
        } else {
            run_group(&ws, w, padded, cols, start, end, in, ALL_OF_Q);
        }
    }
    write_rows(y, y_stride, ws.y, padded, in->n);
}
