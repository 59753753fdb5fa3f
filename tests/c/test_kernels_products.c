/*
 * test_kernels_products.c: quantizer, packed signs, binary products and heads of every kernel variant.
 *
 * Owns the oracles of the products: integers in 64 bits, floats in double. Integer products must equal
 * the oracle in the stated f32 order, f32 ones stay within n * 2^-24 * sum|x| of it, and every variant
 * gives the bits of the reference. Shapes are ragged: columns off 256, rows off 64.
 */
#include "kernel_inputs.h"

#include <math.h>
#include <stdlib.h>

/* A zeroed activation of exactly the size that the variant asks for. */
static void *take_act(const bm_kernels *k, size_t cols, bm_precision precision) {
    return zeroed(bm_act_tables_offset(cols, precision) + k->table_bytes(cols, precision));
}

/* ---- Packed signs ------------------------------------------------------------------------------ */

/* Cuts [0, n) into ranges and writes them in random order, from addresses of any alignment. */
static void write_in_ranges(check_random *r, const bm_kernels *k, uint8_t *w, size_t rows,
                            size_t cols, const uint8_t *bytes) {
    enum { MAX_RANGES = 24 };
    size_t n = rows * cols / 8;
    size_t cuts[MAX_RANGES + 1] = {0};
    size_t ranges = check_between(r, 1, MAX_RANGES);
    for (size_t i = 1; i < ranges; i++) {
        size_t cut = check_between(r, 0, n);
        size_t at = i;
        for (; cuts[at - 1] > cut; at--)
            cuts[at] = cuts[at - 1];
        cuts[at] = cut;
    }
    cuts[ranges] = n;
    size_t order[MAX_RANGES];
    for (size_t i = 0; i < ranges; i++) {
        size_t j = check_between(r, 0, i);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < ranges; i++) {
        size_t start = cuts[order[i]];
        size_t size = cuts[order[i] + 1] - start;
        k->signs_write(w, rows, cols, start, check_copy(bytes + start, size), size);
    }
}

static void signs_in_ranges(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    size_t rows = check_between(&r, 1, 200);
    size_t cols = random_cols(&r);
    uint8_t *bytes = random_bytes(&r, rows * cols / 8);
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        size_t size = (size_t)k->signs_bytes(rows, cols);
        uint8_t *whole = zeroed(size);
        uint8_t *pieces = zeroed(size);
        k->signs_write(whole, rows, cols, 0, bytes, rows * cols / 8);
        write_in_ranges(&r, k, pieces, rows, cols, bytes);
        CHECK(memcmp(whole, pieces, size) == 0, "%s, %zu x %zu", k->name, rows, cols);
    }
}

/* ---- Quantizer --------------------------------------------------------------------------------- */

static void check_group(const float *x, const int16_t *q, float d, size_t n, bm_precision precision,
                        const char *name) {
    bm_quantizer limit = bm_quantizer_of(precision);
    float max = 0.0f;
    float max4 = 0.0f;
    for (size_t i = 0; i < n; i += 4) {
        float sum4 = (fabsf(x[i]) + fabsf(x[i + 1])) + (fabsf(x[i + 2]) + fabsf(x[i + 3]));
        max4 = fmaxf(max4, sum4);
        for (size_t j = i; j < i + 4; j++)
            max = fmaxf(max, fabsf(x[j]));
    }
    float step = fmaxf(max / limit.absolute, max4 / limit.group4);
    if (step < 0x1p-100f)
        step = 0.0f;
    CHECK(d == step, "%s: d is %a, want %a", name, (double)d, (double)step);
    float inverse = step == 0.0f ? 0.0f : 1.0f / step;
    for (size_t i = 0; i < n; i++) {
        double want = nearbyint((double)(x[i] * inverse));
        CHECK((double)q[i] == want, "%s: q[%zu] is %d, want %g", name, i, q[i], want);
        double error = fabs((double)x[i] - (double)d * (double)q[i]);
        CHECK(step == 0.0f || error <= (double)d * (0.5 + (double)limit.absolute * 0x1p-22),
              "%s: x[%zu] = %g is off by %g, step %g", name, i, (double)x[i], error, (double)d);
        CHECK((float)abs(q[i]) <= limit.absolute, "%s: q[%zu] is %d", name, i, q[i]);
    }
    for (size_t i = 0; i < n; i += 4) {
        int sum4 = abs(q[i]) + abs(q[i + 1]) + abs(q[i + 2]) + abs(q[i + 3]);
        CHECK((float)sum4 <= limit.group4 + 2.0f, "%s: sum of 4 at %zu is %d", name, i, sum4);
    }
}

static void quantizer(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    size_t cols = random_cols(&r);
    bm_precision precision = random_precision(&r);
    float *x = check_take(cols * sizeof *x);
    check_fill_hard(&r, x, cols);
    void *first = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        void *act = take_act(k, cols, precision);
        k->quantize(act, x, cols, precision);
        first = first ? first : act;
        CHECK(memcmp(act, first, bm_act_tables_offset(cols, precision)) == 0, "%s is not %s",
              k->name, bm_kernels_all[0]->name);
        if (precision == BM_EXACT) {
            CHECK_SAME(k->name, bm_act_values(act, cols), x, cols);
            continue;
        }
        const int16_t *q = bm_act_values(act, cols);
        for (size_t i = 0; i < cols; i += BM_GROUP)
            check_group(x + i, q + i, bm_act_scales(act)[i / BM_GROUP],
                        cols - i < BM_GROUP ? cols - i : BM_GROUP, precision, k->name);
    }
}

/* ---- Products ---------------------------------------------------------------------------------- */

static int sign_at(const uint8_t *bytes, size_t cols, size_t row, size_t i) {
    return bytes[row * (cols / 8) + i / 8] >> (i % 8) & 1 ? 1 : -1;
}

/* y = c, then y += d * dot group by group, with dot in 64 bits. */
static float integer_oracle(const uint8_t *signs, const void *act, size_t cols, size_t row,
                            float c) {
    const int16_t *q = bm_act_values(act, cols);
    float y = c;
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        int64_t dot = 0;
        for (size_t i = start; i < cols && i < start + BM_GROUP; i++)
            dot += sign_at(signs, cols, row, i) * q[i];
        CHECK(dot < 1 << 24 && dot > -(1 << 24), "dot is %lld", (long long)dot);
        y += bm_act_scales(act)[start / BM_GROUP] * (float)dot;
    }
    return y;
}

static void check_exact_product(const uint8_t *signs, const float *x, size_t cols, size_t row,
                                float c, float y, const char *name) {
    double want = (double)c;
    double size = fabs((double)c);
    for (size_t i = 0; i < cols; i++) {
        want += sign_at(signs, cols, row, i) * (double)x[i];
        size += fabs((double)x[i]);
    }
    CHECK(fabs((double)y - want) <= (double)cols * UNIT * size, "%s: row %zu is %g, want %g", name,
          row, (double)y, want);
}

typedef struct {
    size_t rows;
    size_t cols;
    size_t n; /* tokens */
    size_t y_stride;
    bm_precision precision;
    bool is_saturated;
    const uint8_t *signs; /* file form */
    const float *x;       /* [n, cols] */
    const float *c;       /* [n] */
} product;

static product random_product(check_random *r) {
    product p = {
        .rows = check_between(r, 1, check_between(r, 0, 1) ? 64 : 200),
        .cols = random_cols(r),
        .n = check_between(r, 1, 3),
        .precision = random_precision(r),
        .is_saturated = check_between(r, 0, 2) == 0,
    };
    if (check_between(r, 0, 3) == 0) /* where a variant may work on many tokens at once */
        p.n = check_between(r, 4, BM_TOKENS);
    p.y_stride = bm_round_up(p.rows, BM_ROWS) + 16 * check_between(r, 0, 2);
    p.signs = random_bytes(r, p.rows * p.cols / 8);
    float *x = check_take(p.n * p.cols * sizeof *x);
    for (size_t t = 0; t < p.n; t++)
        check_fill_hard(r, x + t * p.cols, p.cols);
    p.x = x;
    float *c = check_take(p.n * sizeof *c);
    check_fill_normal(r, c, p.n, 1.0f);
    p.c = c;
    return p;
}

static float *run_product(const bm_kernels *k, const product *p, uint64_t seed, uint8_t **acts,
                          size_t *act_stride) {
    check_random r = check_seed(seed, 50);
    size_t row_bytes = p->cols / 8;
    uint8_t *w = zeroed((size_t)k->signs_bytes(p->rows, p->cols));
    k->signs_write(w, p->rows, p->cols, 0, p->signs, p->rows * row_bytes);
    size_t act_bytes =
        bm_act_tables_offset(p->cols, p->precision) + k->table_bytes(p->cols, p->precision);
    *act_stride = bm_round_up(act_bytes, BM_ALIGN);
    *acts = check_take((p->n - 1) * *act_stride + act_bytes);
    for (size_t t = 0; t < p->n; t++) {
        uint8_t *act = *acts + t * *act_stride;
        check_random same = check_seed(seed, 100 + t); /* integers for every variant alike */
        float *x = check_take(p->cols * sizeof *x);
        memcpy(x, p->x + t * p->cols, p->cols * sizeof *x);
        k->quantize(act, x, p->cols, p->precision);
        if (p->is_saturated && p->precision != BM_EXACT)
            saturate(&same, act, p->cols, p->precision);
        if (k->uses_tables(p->n, p->precision))
            k->tabulate(act, p->cols, p->precision);
    }
    size_t size = (p->n - 1) * p->y_stride + bm_round_up(p->rows, BM_ROWS);
    float *y = check_take(size * sizeof *y);
    size_t most =
        check_between(&r, p->rows, p->rows + 100); /* scratch may be planned for more rows */
    void *scratch = check_take((size_t)k->matmul_scratch(most, p->precision));
    bm_inputs in = {.act = *acts, .stride = *act_stride, .c = p->c, .n = p->n};
    /* One call in three is cut at a block of rows, as threads cut it. */
    size_t blocks = check_between(&r, 0, 2) ? 0 : check_between(&r, 0, (p->rows - 1) / BM_ROWS);
    size_t cut = blocks * BM_ROWS;
    if (cut > 0)
        k->matmul(y, p->y_stride, w, cut, p->cols, &in, p->precision, scratch);
    k->matmul(y + cut, p->y_stride, w + k->signs_bytes(cut, p->cols), p->rows - cut, p->cols, &in,
              p->precision, scratch);
    return y;
}

static void binary_product(uint64_t seed) {
    check_random r = check_seed(seed, 3);
    product p = random_product(&r);
    const float *reference = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        uint8_t *acts;
        size_t act_stride;
        float *y = run_product(k, &p, seed, &acts, &act_stride);
        reference = reference ? reference : y;
        for (size_t t = 0; t < p.n; t++) {
            const float *out = y + t * p.y_stride;
            CHECK_SAME(k->name, out, reference + t * p.y_stride, p.rows);
            if (v > 0) /* same activations, same bits: what follows held for the reference */
                continue;
            for (size_t o = 0; o < p.rows; o++) {
                if (p.precision == BM_EXACT) {
                    check_exact_product(p.signs, p.x + t * p.cols, p.cols, o, p.c[t], out[o],
                                        k->name);
                    continue;
                }
                float want = integer_oracle(p.signs, acts + t * act_stride, p.cols, o, p.c[t]);
                CHECK_SAME("product", out + o, &want, 1);
            }
        }
    }
}

/* ---- Heads ------------------------------------------------------------------------------------- */

static float head_integer_oracle(const int32_t *w, const void *act, size_t cols) {
    const int16_t *q = bm_act_values(act, cols);
    float sum = 0.0f;
    for (size_t start = 0; start < cols; start += BM_GROUP) {
        int64_t dot = 0;
        for (size_t i = start; i < cols && i < start + BM_GROUP; i++)
            dot += (int64_t)q[i] * w[i];
        CHECK(dot <= INT32_MAX && dot >= INT32_MIN, "dot is %lld", (long long)dot);
        sum += bm_act_scales(act)[start / BM_GROUP] * (float)dot;
    }
    return sum;
}

static void head_i8(uint64_t seed) {
    check_random r = check_seed(seed, 4);
    size_t rows = check_between(&r, 1, 20);
    size_t cols = random_cols(&r);
    bm_precision precision = random_precision(&r);
    bool is_saturated = precision != BM_EXACT && check_between(&r, 0, 2) == 0;
    int8_t *w = check_take(rows * cols);
    size_t extremes = check_between(&r, 0, 2);
    for (size_t i = 0; i < rows * cols; i++)
        w[i] =
            extremes == 0 ? (int8_t)(check_between(&r, 0, 1) ? -128 : 127) : (int8_t)check_next(&r);
    float *scale = check_take(rows * sizeof *scale);
    check_fill_normal(&r, scale, rows, 0.01f);
    float *x = check_take(cols * sizeof *x);
    check_fill_hard(&r, x, cols);
    int32_t *integers = check_take(cols * sizeof *integers);
    double *row = check_take(cols * sizeof *row);
    const float *reference = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        void *act = take_act(k, cols, precision);
        k->quantize(act, x, cols, precision);
        check_random same = check_seed(seed, 5);
        if (is_saturated)
            saturate(&same, act, cols, precision);
        float *logits = check_take(rows * sizeof *logits);
        k->head_i8(logits, w, scale, rows, cols, act, precision);
        reference = reference ? reference : logits;
        CHECK_SAME(k->name, logits, reference, rows);
        for (size_t o = 0; o < rows; o++) {
            for (size_t i = 0; i < cols; i++) {
                integers[i] = w[o * cols + i];
                row[i] = integers[i];
            }
            if (precision == BM_EXACT) {
                check_head_row(x, row, cols, (double)scale[o], logits[o], k->name);
                continue;
            }
            float want = scale[o] * head_integer_oracle(integers, act, cols);
            CHECK_SAME(k->name, &logits[o], &want, 1);
        }
    }
}

/* Units for so many rows, fenced. */
static bm_i4_unit *take_units(size_t rows, size_t cols) {
    return (bm_i4_unit *)(void *)zeroed((size_t)bm_i4_units(rows, cols) * sizeof(bm_i4_unit));
}

/* Weights of all sizes, of one size, and groups of nothing. */
static int8_t random_weight(check_random *r, size_t kind) {
    if (kind == 0)
        return 0;
    if (kind == 1)
        return (int8_t)(check_between(r, 0, 1) ? -128 : 127);
    size_t size = kind == 2 ? 7 : kind == 3 ? 127 : check_between(r, 0, 127);
    int value = (int)check_between(r, 0, 2 * size);
    return (int8_t)(value - (int)size);
}

/* Rows in random order; then every weight is within half a step of what it was, or the code is 7. */
static void int4_rows(uint64_t seed) {
    check_random r = check_seed(seed, 7);
    size_t rows = check_between(&r, 1, check_between(&r, 0, 2) ? 40 : 150);
    size_t cols = random_cols(&r);
    int8_t *w = check_take(rows * cols);
    for (size_t i = 0; i < rows * cols; i += 32) {
        size_t kind = check_between(&r, 0, 5);
        for (size_t k = i; k < i + 32; k++)
            w[k] = random_weight(&r, kind);
    }
    bm_i4_unit *packed = take_units(rows, cols);
    size_t first = check_between(&r, 0, rows - 1);
    for (size_t k = 0; k < rows; k++) {
        size_t v = (first + k * (rows > 1 ? rows - 1 : 1)) % rows;
        bm_i4_pack_row(packed, v, cols, check_copy(w + v * cols, cols));
    }
    for (size_t i = 0; i < rows * cols; i++) {
        const int8_t *group = w + i / 32 * 32;
        int most = 8;
        for (size_t k = 0; k < 32; k++)
            most = abs(group[k]) > most ? abs(group[k]) : most;
        most = most > 127 ? 127 : most;
        int got = bm_i4_at(packed, i / cols, i % cols, cols);
        int error = abs(8 * w[i] - got);
        bool is_clipped = got == 7 * most || got == -7 * most;
        CHECK(abs(got) <= 8 * most, "%d of weights up to %d", got, most);
        CHECK(2 * error <= most + 1 || (is_clipped && abs(8 * w[i]) > 7 * most && error <= most),
              "weight %d of up to %d is %d / 8", w[i], most, got);
        CHECK(most > 8 || abs(w[i]) == 8 || error == 0, "weight %d of up to %d is %d / 8", w[i],
              most, got);
    }
}

/* Steps and codes that bm_i4_pack_row might give, and all others. */
static bm_i4_unit *random_units(check_random *r, size_t rows, size_t cols) {
    bm_i4_unit *units = take_units(rows, cols);
    bool is_extreme = check_between(r, 0, 2) == 0;
    for (size_t u = 0; u < bm_i4_units(rows, cols); u++) {
        for (size_t k = 0; k < BM_I4_ROWS; k++)
            units[u].step[k] = (int8_t)(is_extreme ? (check_between(r, 0, 1) ? 127 : -127)
                                                   : (int)check_between(r, 0, 254) - 127);
        for (size_t k = 0; k < sizeof units[u].code; k++)
            units[u].code[k] = is_extreme ? 0 : (uint8_t)check_next(r);
    }
    return units;
}

static void head_i4(uint64_t seed) {
    check_random r = check_seed(seed, 8);
    size_t rows = check_between(&r, 1, check_between(&r, 0, 2) ? 40 : 150);
    size_t cols = random_cols(&r);
    bm_precision precision = random_precision(&r);
    bool is_saturated = precision != BM_EXACT && check_between(&r, 0, 2) == 0;
    const bm_i4_unit *w = random_units(&r, rows, cols);
    float *scale = check_take(rows * sizeof *scale);
    check_fill_normal(&r, scale, rows, 0.01f);
    float *x = check_take(cols * sizeof *x);
    check_fill_hard(&r, x, cols);
    int32_t *integers = check_take(cols * sizeof *integers);
    double *row = check_take(cols * sizeof *row);
    const float *reference = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        void *act = take_act(k, cols, precision);
        k->quantize(act, x, cols, precision);
        check_random same = check_seed(seed, 9);
        if (is_saturated)
            saturate(&same, act, cols, precision);
        float *logits = check_take(rows * sizeof *logits);
        k->head_i4(logits, w, scale, rows, cols, act, precision);
        reference = reference ? reference : logits;
        CHECK_SAME(k->name, logits, reference, rows);
        for (size_t o = 0; o < rows; o++) {
            for (size_t i = 0; i < cols; i++) {
                integers[i] = bm_i4_at(w, o, i, cols);
                row[i] = integers[i];
            }
            if (precision == BM_EXACT) {
                check_head_row(x, row, cols, (double)scale[o] / 8.0, logits[o], k->name);
                continue;
            }
            float want = (scale[o] * 0.125f) * head_integer_oracle(integers, act, cols);
            CHECK_SAME(k->name, &logits[o], &want, 1);
        }
    }
}

/* IEEE binary16 by its definition; infinities and NaN do not come here. */
static double half_value(uint16_t h) {
    int exponent = h >> 10 & 31;
    double mantissa = (double)(h & 1023);
    double size = exponent == 0 ? ldexp(mantissa, -24) : ldexp(mantissa + 1024.0, exponent - 25);
    return h & 0x8000 ? -size : size;
}

static void head_floats(uint64_t seed) {
    check_random r = check_seed(seed, 6);
    size_t rows = check_between(&r, 1, 20);
    size_t cols = random_cols(&r);
    float *x = check_take(cols * sizeof *x);
    check_fill_normal(&r, x, cols, check_between(&r, 0, 1) ? 1.0f : 0x1p-20f);
    float *w = check_take(rows * cols * sizeof *w);
    check_fill_normal(&r, w, rows * cols, 1.0f);
    uint16_t *halves = check_take(rows * cols * sizeof *halves);
    size_t mostly_subnormal = check_between(&r, 0, 1);
    for (size_t i = 0; i < rows * cols; i++) {
        uint16_t h = (uint16_t)(check_next(&r) & (mostly_subnormal ? 0x83ffu : 0xffffu));
        halves[i] = (h & 0x7c00u) == 0x7c00u ? (uint16_t)(h & 0xbfffu) : h;
    }
    double *row = check_take(cols * sizeof *row);
    float *first[2] = {NULL, NULL};
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        for (size_t type = 0; type < 2; type++) {
            float *logits = check_take(rows * sizeof *logits);
            if (type == 0)
                k->head_f32(logits, w, rows, cols, x);
            else
                k->head_f16(logits, halves, rows, cols, x);
            first[type] = first[type] ? first[type] : logits;
            CHECK_SAME(k->name, logits, first[type], rows);
            for (size_t o = 0; o < rows; o++) {
                for (size_t i = 0; i < cols; i++)
                    row[i] = type == 0 ? (double)w[o * cols + i] : half_value(halves[o * cols + i]);
                check_head_row(x, row, cols, 1.0, logits[o], k->name);
            }
        }
    }
}

/* Every finite binary16 converts exactly; infinities and NaN keep their kind. */
static void every_half(uint64_t seed) {
    (void)seed;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        float got = bm_half_to_float((uint16_t)h);
        bool is_infinite = (h & 0x7fffu) == 0x7c00u;
        bool is_nan = (h & 0x7fffu) > 0x7c00u;
        if (is_nan)
            CHECK(got != got, "half %04x is %g, want NaN", (unsigned)h, (double)got);
        else if (is_infinite)
            CHECK(got == (h & 0x8000u ? -INFINITY : INFINITY), "half %04x is %g", (unsigned)h,
                  (double)got);
        else
            CHECK((double)got == half_value((uint16_t)h) && !signbit(got) == !(h & 0x8000u),
                  "half %04x is %g", (unsigned)h, (double)got);
    }
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"signs_in_ranges", signs_in_ranges, 2000},
        {"quantizer", quantizer, 2000},
        {"binary_product", binary_product, 2000},
        {"head_i8", head_i8, 2000},
        {"int4_rows", int4_rows, 1000},
        {"head_i4", head_i4, 1000},
        {"head_floats", head_floats, 2000},
        {"every_half", every_half, 1},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
