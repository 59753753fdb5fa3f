/*
 * simd128_popcount.c: binary products by counting bits with i8x16.popcnt (the variant "popcount").
 *
 * The idea: an integer input is the sum of its bits, q = sum_k 2^k q_k (the top bit of two's complement
 * counting negative), so the sum of the q under the +1 signs is sum_k 2^k popcount(signs & plane_k): an
 * "and" and a count of 128 columns at a time. BM_FAST has 8 planes; BM_HIGH has 14, as two halves of 7
 * whose counts fit 16 bits. The signed sum is twice that less the sum of all q.
 *
 * On x86-64 engines lower popcnt to ten instructions, and a 780M token takes 43 ms against 15 by tables;
 * on ARM it is one instruction (not measured). No carry-save adders: a group of 256 columns is two
 * vectors, and groups do not add up before their scales do.
 *
 * Layout of w: the file's rows, each padded to whole groups of columns, and their number to 4.
 */
#include "simd128.h"

/* Rows whose counts end up in the four lanes of one vector. */
enum { ROWS = 4 };

/* A plane of one group of columns: one bit a column. */
enum { PLANE = BM_GROUP / 8 };

/* Planes whose weighted counts, at most 32 * 255, fit i16: all of BM_FAST, each half of BM_HIGH. */
enum { FAST_PLANES = 8, HALF_PLANES = 7 };

/* ---- Layout --------------------------------------------------------------------------------- */

static size_t row_bytes(size_t cols) {
    return bm_groups(cols) * PLANE;
}

static uint64_t signs_bytes(size_t rows, size_t cols) {
    return (uint64_t)bm_round_up(rows, ROWS) * row_bytes(cols);
}

static void signs_write(uint8_t *w, size_t rows, size_t cols, uint64_t offset, const uint8_t *bytes,
                        size_t n) {
    (void)rows;
    size_t row = (size_t)(offset / (cols / 8));
    size_t step = (size_t)(offset % (cols / 8));
    while (n > 0) {
        size_t run = cols / 8 - step < n ? cols / 8 - step : n;
        memcpy(w + row * row_bytes(cols) + step, bytes, run);
        bytes += run;
        n -= run;
        row++;
        step = 0;
    }
}

/* ---- Planes --------------------------------------------------------------------------------- */

/*
 * First the sum of q of every group [bm_groups(cols)] i32; then per group its planes, from bit 0 up,
 * zero behind the last column. BM_HIGH: 7 planes of q & 127, then 7 of q >> 7.
 */
static size_t sums_bytes(size_t cols) {
    return bm_round_up(bm_groups(cols) * sizeof(int32_t), BM_ALIGN);
}

static size_t planes_bytes(bm_precision precision) {
    return (precision == BM_HIGH ? 2 * HALF_PLANES : FAST_PLANES) * PLANE;
}

static size_t table_bytes(size_t cols, bm_precision precision) {
    return precision == BM_EXACT ? 0 : sums_bytes(cols) + bm_groups(cols) * planes_bytes(precision);
}

/* Bits 0 ... count-1 of 16 bytes as rows of PLANE bytes: a shift brings bit k to the sign. */
static void write_planes(uint8_t *at, v128_t bytes, size_t count) {
    for (size_t k = 0; k < count; k++) {
        uint32_t mask = (uint32_t)wasm_i8x16_bitmask(wasm_i8x16_shl(bytes, (uint32_t)(7 - k)));
        at[k * PLANE] = (uint8_t)mask;
        at[k * PLANE + 1] = (uint8_t)(mask >> 8);
    }
}

static void tabulate(void *act, size_t cols, bm_precision precision) {
    if (precision == BM_EXACT)
        return;
    const int16_t *q = bm_act_values(act, cols);
    int32_t *sums = bm_act_tables(act, cols, precision);
    uint8_t *planes = (uint8_t *)sums + sums_bytes(cols);
    memset(sums, 0, table_bytes(cols, precision));
    const v128_t low_bits = wasm_i16x8_splat(precision == BM_HIGH ? 127 : 255);
    for (size_t i = 0; i < cols; i += 16) {
        v128_t a = wasm_v128_load(q + i);
        v128_t b = wasm_v128_load(q + i + 8);
        uint8_t *at = planes + i / BM_GROUP * planes_bytes(precision) + i % BM_GROUP / 8;
        v128_t low =
            wasm_u8x16_narrow_i16x8(wasm_v128_and(a, low_bits), wasm_v128_and(b, low_bits));
        write_planes(at, low, precision == BM_HIGH ? HALF_PLANES : FAST_PLANES);
        if (precision == BM_HIGH) {
            v128_t high = wasm_i8x16_narrow_i16x8(wasm_i16x8_shr(a, 7), wasm_i16x8_shr(b, 7));
            write_planes(at + HALF_PLANES * PLANE, high, HALF_PLANES);
        }
        for (size_t k = 0; k < 16; k++)
            sums[i / BM_GROUP] += q[i + k];
    }
}

/* ---- Products -------------------------------------------------------------------------------- */

/* Counts of two vectors of bits under one plane, in 8 lanes of 16 bits that add up to the count. */
static inline v128_t counts(v128_t signs0, v128_t signs1, const uint8_t *plane) {
    v128_t first = wasm_i8x16_popcnt(wasm_v128_and(signs0, wasm_v128_load(plane)));
    v128_t second = wasm_i8x16_popcnt(wasm_v128_and(signs1, wasm_v128_load(plane + 16)));
    return wasm_u16x8_extadd_pairwise_u8x16(wasm_i8x16_add(first, second));
}

/*
 * sum_k 2^k counts of planes 0 ... n-1 by Horner, in 4 lanes of 32 bits; a signed top plane counts
 * negative.
 */
static inline v128_t weighted(v128_t signs0, v128_t signs1, const uint8_t *plane, size_t n,
                              bool is_signed) {
    v128_t sum = counts(signs0, signs1, plane + (n - 1) * PLANE);
    if (is_signed)
        sum = wasm_i16x8_neg(sum);
    for (size_t k = n - 1; k-- > 0;)
        sum = wasm_i16x8_add(wasm_i16x8_shl(sum, 1), counts(signs0, signs1, plane + k * PLANE));
    return wasm_i32x4_extadd_pairwise_i16x8(sum);
}

/* Lane r of the result is the sum of the lanes of s[r]. */
static inline v128_t sum_each(const v128_t s[ROWS]) {
    v128_t even = wasm_i32x4_add(wasm_i32x4_shuffle(s[0], s[1], 0, 4, 1, 5),
                                 wasm_i32x4_shuffle(s[0], s[1], 2, 6, 3, 7));
    v128_t odd = wasm_i32x4_add(wasm_i32x4_shuffle(s[2], s[3], 0, 4, 1, 5),
                                wasm_i32x4_shuffle(s[2], s[3], 2, 6, 3, 7));
    return wasm_i32x4_add(wasm_i32x4_shuffle(even, odd, 0, 1, 4, 5),
                          wasm_i32x4_shuffle(even, odd, 2, 3, 6, 7));
}

/* Four rows with one token. */
static void rows_integers(float *y, const uint8_t *w, const void *act, size_t cols, float c,
                          bm_precision precision) {
    const float *d = bm_act_scales(act);
    const int32_t *sums = bm_act_tables(act, cols, precision);
    const uint8_t *plane = (const uint8_t *)sums + sums_bytes(cols);
    v128_t out = wasm_f32x4_splat(c);
    for (size_t g = 0; g < bm_groups(cols); g++) {
        v128_t under[ROWS]; /* sum of the q under +1 signs */
        for (size_t r = 0; r < ROWS; r++) {
            const uint8_t *signs = w + r * row_bytes(cols) + g * PLANE;
            v128_t signs0 = wasm_v128_load(signs);
            v128_t signs1 = wasm_v128_load(signs + 16);
            if (precision == BM_HIGH) {
                v128_t low = weighted(signs0, signs1, plane, HALF_PLANES, false);
                v128_t high =
                    weighted(signs0, signs1, plane + HALF_PLANES * PLANE, HALF_PLANES, true);
                under[r] = wasm_i32x4_add(wasm_i32x4_shl(high, 7), low);
            } else {
                under[r] = weighted(signs0, signs1, plane, FAST_PLANES, true);
            }
        }
        v128_t dot = wasm_i32x4_sub(wasm_i32x4_shl(sum_each(under), 1), wasm_i32x4_splat(sums[g]));
        v128_t term = wasm_f32x4_mul(wasm_f32x4_splat(d[g]), wasm_f32x4_convert_i32x4(dot));
        out = wasm_f32x4_add(out, term);
        plane += planes_bytes(precision);
    }
    wasm_v128_store(y, out);
}

static bool uses_tables(size_t n, bm_precision precision) {
    (void)n;
    return precision != BM_EXACT;
}

static uint64_t matmul_scratch(size_t rows, bm_precision precision) {
    (void)rows;
    (void)precision;
    return 0;
}

static void matmul(float *restrict y, size_t y_stride, const uint8_t *restrict w, size_t rows,
                   size_t cols, const bm_inputs *in, bm_precision precision,
                   void *restrict scratch) {
    (void)scratch;
    for (size_t row = 0; row < rows; row += ROWS) /* outermost: a row's signs are read once */
        for (size_t t = 0; t < in->n; t++) {
            const uint8_t *signs = w + row * row_bytes(cols);
            const void *act = in->act + t * in->stride;
            float *out = y + t * y_stride + row;
            if (precision == BM_EXACT) /* nothing to count in floats */
                for (size_t r = 0; r < ROWS; r++)
                    out[r] = bm_dot_signs_f32(signs + r * row_bytes(cols), bm_act_values(act, cols),
                                              cols, in->c[t]);
            else
                rows_integers(out, signs, act, cols, in->c[t], precision);
        }
}

const bm_kernels bm_kernels_popcount = {
    .name = "popcount",
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
