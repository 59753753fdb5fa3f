/*
 * test_kernels_dense.c: dense products of every kernel variant, one token and many.
 *
 * Owns the oracle in doubles. Every variant gives the bits of the reference; the reference stays within the rounding of its
 * stated f32 operations. Shapes are ragged: columns off 128 and 256, token counts off what a variant takes together.
 */
#include "kernel_inputs.h"

#include <math.h>
#include <string.h>

/* One row of weights of any kind, as the doubles they stand for and, where they are integers, as those. */
typedef struct {
    bm_weights form;
    size_t rows;
    size_t cols;
    const uint8_t *bytes;
    const float *scale;
} dense;

static dense random_dense(check_random *r) {
    dense m = {.form = (bm_weights)check_between(r, BM_WEIGHTS_I4, BM_WEIGHTS_F16),
               .rows = check_between(r, 1, 24),
               .cols = random_cols(r)};
    size_t n = m.rows * m.cols;
    size_t bytes = m.form == BM_WEIGHTS_I4 ? n / 2 : m.form == BM_WEIGHTS_I8 ? n : 2 * n;
    uint8_t *w = random_bytes(r, bytes);
    size_t extremes = check_between(r, 0, 3);
    for (size_t i = 0; i < bytes && extremes == 0; i++) /* codes -8, and int8 -128 */
        w[i] = m.form == BM_WEIGHTS_I4 ? 0x88 : 0x80;
    for (size_t i = 1; i < bytes && m.form == BM_WEIGHTS_F16; i += 2)
        w[i] &= (w[i] & 0x7c) == 0x7c ? 0xbf : 0xff; /* finite */
    size_t scales = m.rows * (m.form == BM_WEIGHTS_I4 ? bm_i4_groups(m.cols) : 1);
    float *scale = check_take(scales * sizeof *scale);
    check_fill_normal(r, scale, scales, 0.01f);
    m.bytes = w;
    m.scale = scale;
    return m;
}

static int dense_integer(const dense *m, size_t o, size_t i) {
    if (m->form == BM_WEIGHTS_I8)
        return ((const int8_t *)m->bytes)[o * m->cols + i];
    const uint8_t *words = m->bytes + o * m->cols / 2 + i / 32 * 16 + i % 8 * 2;
    int nibble = (words[0] | words[1] << 8) >> (i % 32 / 8 * 4) & 15;
    return nibble > 7 ? nibble - 16 : nibble;
}

static double dense_weight(const dense *m, size_t o, size_t i) {
    if (m->form == BM_WEIGHTS_F16) {
        uint16_t half;
        memcpy(&half, m->bytes + 2 * (o * m->cols + i), sizeof half);
        return (double)bm_half_to_float(half);
    }
    float scale =
        m->form == BM_WEIGHTS_I8 ? m->scale[o] : m->scale[o * bm_i4_groups(m->cols) + i / 128];
    return (double)scale * dense_integer(m, o, i);
}

static void run_dense(const bm_kernels *k, const dense *m, float *y, size_t y_stride,
                      const bm_inputs *in, bm_precision precision) {
    if (m->form == BM_WEIGHTS_I8)
        k->dense_i8(y, y_stride, (const int8_t *)m->bytes, m->scale, m->rows, m->cols, in,
                    precision);
    else if (m->form == BM_WEIGHTS_I4)
        k->dense_i4(y, y_stride, m->bytes, m->scale, m->rows, m->cols, in, precision);
    else
        k->dense_f16(y, y_stride, (const uint16_t *)(const void *)m->bytes, m->rows, m->cols, in);
}

/* The integers of an activation against a row, within the rounding of one f32 operation a group. */
static void check_dense_integers(const dense *m, size_t o, const void *act, float c, float got,
                                 const char *name) {
    const int16_t *q = bm_act_values(act, m->cols);
    double want = (double)c;
    double size = fabs((double)c);
    for (size_t i = 0; i < m->cols; i++) {
        double term = (double)bm_act_scales(act)[i / BM_GROUP] * q[i] * dense_weight(m, o, i);
        want += term;
        size += fabs(term);
    }
    double bound = (double)(m->cols / 32 + 8) * UNIT * size + 0x1p-140;
    CHECK(fabs((double)got - want) <= bound, "%s, form %d: row %zu is %g, want %g within %g", name,
          (int)m->form, o, (double)got, want, bound);
}

static void dense_product(uint64_t seed) {
    check_random r = check_seed(seed, 12);
    dense m = random_dense(&r);
    bm_precision precision = m.form == BM_WEIGHTS_F16 ? BM_EXACT : random_precision(&r);
    size_t n = check_between(&r, 0, 1) ? 1 : check_between(&r, 2, BM_TOKENS);
    size_t stride = bm_round_up(bm_act_tables_offset(m.cols, precision), BM_ALIGN);
    bool is_saturated = precision != BM_EXACT && check_between(&r, 0, 2) == 0;
    size_t y_stride = m.rows + check_between(&r, 0, 5);
    float *x = check_take(n * m.cols * sizeof *x);
    uint8_t *acts = zeroed(n * stride);
    float *c = check_take(n * sizeof *c);
    for (size_t t = 0; t < n; t++) {
        check_fill_hard(&r, x + t * m.cols, m.cols);
        float *own = check_take(m.cols * sizeof *own);
        memcpy(own, x + t * m.cols, m.cols * sizeof *own);
        bm_kernels_all[0]->quantize(acts + t * stride, own, m.cols, precision);
        if (is_saturated)
            saturate(&r, acts + t * stride, m.cols, precision);
        c[t] = check_between(&r, 0, 9) ? 0.0f : NAN;
    }
    const bm_inputs in = {.act = acts, .stride = stride, .c = c, .n = n};
    double *row = check_take(m.cols * sizeof *row);
    const float *reference = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const char *name = bm_kernels_all[v]->name;
        float *y = check_take(((n - 1) * y_stride + m.rows) * sizeof *y);
        run_dense(bm_kernels_all[v], &m, y, y_stride, &in, precision);
        reference = reference ? reference : y;
        for (size_t t = 0; t < n; t++) {
            CHECK_SAME(name, y + t * y_stride, reference + t * y_stride, m.rows);
            for (size_t o = 0; v == 0 && o < m.rows; o++) {
                float got = y[t * y_stride + o];
                CHECK(isnan(c[t]) == isnan(got), "%s: %g beside c %g", name, (double)got,
                      (double)c[t]);
                if (isnan(got))
                    continue;
                if (precision != BM_EXACT) {
                    check_dense_integers(&m, o, acts + t * stride, c[t], got, name);
                    continue;
                }
                for (size_t i = 0; i < m.cols; i++)
                    row[i] = dense_weight(&m, o, i);
                check_head_row(x + t * m.cols, row, m.cols, 1.0, got, name);
            }
        }
    }
}

int main(int argc, char **argv) {
    static const check_case cases[] = {{"dense_product", dense_product, 2000}};
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
