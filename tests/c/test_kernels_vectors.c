/*
 * test_kernels_vectors.c: norm, convolution, gate, maximum and scan of every kernel variant.
 *
 * Owns their oracles in double precision and the bound of each, stated where it is used in units of
 * 2^-24 (one rounding). Every variant gives the bits of the reference. Sizes are ragged: norm groups
 * off 16, heads of 4 rows, states of 8 columns; all arrays are aligned to 16 bytes and no more.
 */
#include "check.h"
#include "kernels/kernels.h"

#include <math.h>

#define UNIT 0x1p-24

/* bm_exp is within 2e-7, then an addition and a division. */
#define SILU_ERROR 5e-7

static double silu(double x) {
    return x / (1.0 + exp(-x));
}

/* ---- Norm -------------------------------------------------------------------------------------- */

static void norm_scale(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    size_t n = 4 * check_between(&r, 1, check_between(&r, 0, 3) ? 40 : 600);
    float *x = check_floats(n);
    float *scale = check_floats(n);
    float *bias = check_floats(n);
    float size = check_between(&r, 0, 2) ? 1.0f : bm_abs(check_wide(&r, -30, 30));
    check_fill_normal(&r, x, n, size);
    check_fill_normal(&r, scale, n, 1.0f);
    check_fill_normal(&r, bias, n, check_between(&r, 0, 1) ? 0.1f : 0.0f);
    if (check_between(&r, 0, 9) == 0)
        memset(x, 0, n * sizeof *x);
    float eps = bm_abs(check_wide(&r, -30, -3));
    double squares = 0.0;
    double products = 0.0;
    double products_size = 0.0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)x[i] * (double)x[i];
        products += (double)x[i] * (double)bias[i];
        products_size += fabs((double)x[i] * (double)bias[i]);
    }
    double rstd = 1.0 / sqrt(squares / (double)n + (double)eps);
    double bound =
        ((double)n / 16.0 + 12.0) * UNIT; /* the longest chain of one stripe, and the end */
    const float *first = NULL;
    float first_sum = 0.0f;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        float *y = check_floats(n);
        float sum = k->norm_scale(y, x, scale, bias, n, eps);
        float *in_place = check_floats(n);
        memcpy(in_place, x, n * sizeof *x);
        float same_sum = k->norm_scale(in_place, in_place, scale, bias, n, eps);
        first_sum = first ? first_sum : sum;
        first = first ? first : y;
        CHECK_SAME(k->name, y, first, n);
        CHECK_SAME(k->name, in_place, first, n);
        CHECK_SAME(k->name, &sum, &first_sum, 1);
        CHECK_SAME(k->name, &same_sum, &first_sum, 1);
        for (size_t i = 0; i < n; i++) {
            double want = (double)x[i] * rstd * (double)scale[i];
            CHECK(fabs((double)y[i] - want) <= bound * fabs(want) + 0x1p-140,
                  "%s: y[%zu of %zu] is %g, want %g", k->name, i, n, (double)y[i], want);
        }
        CHECK(fabs((double)sum - rstd * products) <= bound * rstd * products_size + 0x1p-140,
              "%s: sum is %g, want %g", k->name, (double)sum, rstd * products);
    }
}

/* ---- Convolution, gate, maximum ----------------------------------------------------------------- */

static void conv_silu(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    size_t n = 4 * check_between(&r, 1, 100);
    size_t d_conv = check_between(&r, 2, 4);
    size_t stride =
        n + 4 * check_between(&r, 0, 2); /* between taps: a task has some channels only */
    float *row = check_floats(n);
    float *w = check_floats(d_conv * stride);
    float *bias = check_floats(n);
    float *rows[3];
    float size = check_between(&r, 0, 3) ? 1.0f : 40.0f; /* silu's far ends too */
    check_fill_normal(&r, row, n, size);
    check_fill_normal(&r, w, d_conv * stride, 1.0f);
    check_fill_normal(&r, bias, n, 1.0f);
    for (size_t t = 0; t + 1 < d_conv; t++) {
        rows[t] = check_floats(n);
        check_fill_normal(&r, rows[t], n, size);
    }
    const float *first = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        float *out = check_floats(n);
        memcpy(out, row, n * sizeof *row);
        float *history[3];
        for (size_t t = 0; t + 1 < d_conv; t++)
            history[t] = memcpy(check_floats(n), rows[t], n * sizeof *row);
        k->conv_silu(out, history, w, stride, bias, n, d_conv);
        first = first ? first : out;
        CHECK_SAME(k->name, out, first, n);
        CHECK_SAME("newest history", history[0], row, n);
        for (size_t t = 1; t + 1 < d_conv; t++)
            CHECK_SAME("other history", history[t], rows[t], n);
        for (size_t i = 0; i < n; i++) {
            double sum = (double)bias[i] + (double)w[(d_conv - 1) * stride + i] * (double)row[i];
            double total =
                fabs((double)bias[i]) + fabs((double)w[(d_conv - 1) * stride + i] * (double)row[i]);
            for (size_t t = 0; t + 1 < d_conv; t++) {
                sum += (double)w[t * stride + i] * (double)rows[t][i];
                total += fabs((double)w[t * stride + i] * (double)rows[t][i]);
            }
            double want = silu(sum);
            /* silu's slope is at most 1.1; a tap takes two roundings. */
            double bound = 1.1 * (double)(d_conv + 1) * UNIT * total + SILU_ERROR * fabs(want);
            CHECK(fabs((double)out[i] - want) <= bound + 1e-30, "%s: [%zu] is %g, want %g", k->name,
                  i, (double)out[i], want);
        }
    }
}

static void gate(uint64_t seed) {
    check_random r = check_seed(seed, 3);
    size_t n = 4 * check_between(&r, 1, 100);
    float *y = check_floats(n);
    float *z = check_floats(n);
    size_t kind = check_between(&r, 0, 2);
    for (size_t i = 0; i < n; i++) {
        y[i] = check_normal(&r);
        z[i] = kind == 0   ? check_normal(&r)
               : kind == 1 ? check_uniform(&r, -120.0, 120.0)
                           : check_wide(&r, -100, 60);
    }
    const float *first = NULL;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        float *out = check_floats(n);
        memcpy(out, y, n * sizeof *y);
        k->gate(out, z, n);
        first = first ? first : out;
        CHECK_SAME(k->name, out, first, n);
        for (size_t i = 0; i < n; i++) {
            double want = (double)y[i] * silu((double)z[i]);
            /* Below -88 the exponential stops growing: the gate is -z * 6e-39 instead of nothing. */
            double rest = z[i] < -80.0f ? fabs((double)y[i] * (double)z[i]) * 2e-35 : 0.0;
            CHECK(fabs((double)out[i] - want) <= (SILU_ERROR + UNIT) * fabs(want) + rest + 0x1p-140,
                  "%s: gate %g of %g is %g, want %g", k->name, (double)z[i], (double)y[i],
                  (double)out[i], want);
        }
    }
}

/* Finite inputs whose squares overflow: NaN everywhere, not the zeros of x / infinity. */
static void overflowing_squares(uint64_t seed) {
    check_random r = check_seed(seed, 14);
    size_t n = 4 * check_between(&r, 1, 40);
    float *x = check_floats(n);
    float *ones = check_floats(n);
    check_fill_normal(&r, x, n, 1.0f);
    for (size_t i = 0; i < n; i++)
        ones[i] = 1.0f;
    x[check_between(&r, 0, n - 1)] = check_between(&r, 0, 1) ? 2e19f : -3e38f;
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        float *y = check_floats(n);
        float sum = k->norm_scale(y, x, ones, ones, n, 1e-5f);
        CHECK(sum != sum, "%s: the sum is %g", k->name, (double)sum);
        for (size_t i = 0; i < n; i++)
            CHECK(y[i] != y[i], "%s: y[%zu] is %g", k->name, i, (double)y[i]);
    }
}

/* A NaN or an infinity in one place comes out there, in every variant alike, and nowhere else. */
static void nonfinite(uint64_t seed) {
    check_random r = check_seed(seed, 4);
    size_t n = 4 * check_between(&r, 1, 20);
    size_t at = check_between(&r, 0, n - 1);
    float bad[3] = {NAN, INFINITY, -INFINITY};
    float value = bad[check_between(&r, 0, 2)];
    float *z = check_floats(n);
    float *ones = check_floats(n);
    float *zeros = check_floats(n);
    for (size_t i = 0; i < n; i++) {
        z[i] = check_normal(&r);
        ones[i] = 1.0f;
        zeros[i] = 0.0f;
    }
    z[at] = value;
    float *first[2] = {NULL, NULL};
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        float *gated = memcpy(check_floats(n), ones, n * sizeof *z);
        k->gate(gated, z, n);
        float *normed = check_floats(n);
        float sum = k->norm_scale(normed, z, ones, zeros, n, 1e-5f);
        first[0] = first[0] ? first[0] : gated;
        first[1] = first[1] ? first[1] : normed;
        CHECK_SAME(k->name, gated, first[0], n);
        CHECK_SAME(k->name, normed, first[1], n);
        CHECK(sum != sum, "%s: the norm's sum is %g: a bad input must show in it", k->name,
              (double)sum);
        for (size_t i = 0; i < n; i++)
            CHECK(bm_is_finite(gated[i]) == (i != at), "%s: gated[%zu] is %g, bad input at %zu",
                  k->name, i, (double)gated[i], at);
        float want = value != value ? 0.0f : INFINITY;
        for (size_t i = 0; i < n; i++)
            want = i != at && bm_abs(z[i]) > want ? bm_abs(z[i]) : want;
        CHECK(k->abs_max(z, n) == want, "%s: abs_max is %g, want %g", k->name,
              (double)k->abs_max(z, n), (double)want);
    }
}

static void abs_max(uint64_t seed) {
    check_random r = check_seed(seed, 5);
    size_t n = 4 * check_between(&r, 1, 130);
    float *x = check_floats(n);
    for (size_t i = 0; i < n; i++)
        x[i] = check_between(&r, 0, 15) ? check_wide(&r, -100, 100) : 0.0f;
    float want = 0.0f;
    for (size_t i = 0; i < n; i++)
        want = fmaxf(want, fabsf(x[i]));
    for (size_t v = 0; v < bm_kernels_count; v++) {
        float got = bm_kernels_all[v]->abs_max(x, n);
        CHECK(got == want, "%s: %g, want %g", bm_kernels_all[v]->name, (double)got, (double)want);
    }
}

/* ---- Scan -------------------------------------------------------------------------------------- */

typedef struct {
    size_t head_dim;
    size_t d_state;
    const int16_t *integers;
    const float *unit;  /* of the integers, per row */
    const float *most;  /* per row */
    const float *state; /* integer * unit, exact */
    const float *x;
    const float *b;
    const float *c;
    float shrink;
    float gain;
    float scale;
    float b_max;
    float skip;
} head;

static head random_head(check_random *r) {
    size_t head_dim = 4 * check_between(r, 1, 17);
    size_t d_state = 8 * check_between(r, 1, check_between(r, 0, 3) ? 16 : 64);
    size_t n = head_dim * d_state;
    float *state = check_floats(n);
    int16_t *integers = check_take_at_16(n * sizeof *integers);
    float *unit = check_floats(head_dim);
    float *most = check_floats(head_dim);
    for (size_t p = 0; p < head_dim; p++) {
        int size = (int)check_between(r, 0, check_between(r, 0, 1) ? 32767 : 100);
        unit[p] = check_between(r, 0, 5) ? ldexpf(1.0f, (int)check_between(r, 0, 30) - 20) : 0.0f;
        most[p] = 0.0f;
        for (size_t i = p * d_state; i < (p + 1) * d_state; i++) {
            int value = (int)check_between(r, 0, (size_t)(2 * size)) - size;
            integers[i] = (int16_t)(unit[p] > 0.0f ? value : 0);
            state[i] = (float)integers[i] * unit[p];
            most[p] = fmaxf(most[p], fabsf((float)integers[i]));
        }
    }
    float *x = check_floats(head_dim);
    float *b = check_floats(d_state);
    float *c = check_floats(d_state);
    check_fill_normal(r, x, head_dim, 1.0f);
    check_fill_normal(r, b, d_state, 1.0f);
    check_fill_normal(r, c, d_state, 1.0f);
    if (check_between(r, 0, 4) == 0)
        memset(x, 0, head_dim * sizeof *x);
    if (check_between(r, 0, 9) == 0)
        memset(b, 0, d_state * sizeof *b);
    float b_max = 0.0f;
    for (size_t i = 0; i < d_state; i++)
        b_max = fmaxf(b_max, fabsf(b[i]));
    return (head){head_dim,
                  d_state,
                  integers,
                  unit,
                  most,
                  state,
                  x,
                  b,
                  c,
                  .b_max = b_max,
                  .shrink = check_between(r, 0, 3) ? 1.0f : check_uniform(r, 0.0, 1.0),
                  .gain = check_between(r, 0, 4) ? check_uniform(r, 0.0, 10.0) : 0x1p60f,
                  .scale = bm_abs(check_wide(r, -20, 2)),
                  .skip = check_normal(r)};
}

/* Row p in double; `unit` is that of integers, or 0. */
static void check_scan_row(const head *h, size_t p, const double *got_state, float got_y,
                           float unit, const char *name) {
    double sum = 0.0;
    double size = 0.0;
    for (size_t n = 0; n < h->d_state; n++) {
        double kept = (double)h->state[p * h->d_state + n] * (double)h->shrink;
        double added = (double)h->x[p] * (double)h->gain * (double)h->b[n];
        double bound = 4.0 * UNIT * (fabs(kept) + fabs(added)) + 0.5 * (double)unit + 0x1p-140;
        CHECK(fabs(got_state[n] - (kept + added)) <= bound, "%s: S[%zu,%zu] is %g, want %g", name,
              p, n, got_state[n], kept + added);
        sum += (kept + added) * (double)h->c[n];
        size += (fabs(kept) + fabs(added)) * fabs((double)h->c[n]);
    }
    double direct = (double)h->skip * (double)h->x[p];
    double want = (double)h->scale * sum + direct;
    double bound = ((double)h->d_state / 4.0 + 10.0) * UNIT * ((double)h->scale * size) +
                   2.0 * UNIT * (fabs(direct) + fabs(want));
    CHECK(fabs((double)got_y - want) <= bound + 0x1p-140, "%s: y[%zu] is %g, want %g within %g",
          name, p, (double)got_y, want, bound);
}

/* The unit of row p is a power of two that leaves 12 to 15 bits to the integers, and `most` is true. */
static void check_row_unit(const head *h, size_t p, const int16_t *row, float unit, float most,
                           const char *name) {
    int exponent;
    CHECK(frexpf(unit, &exponent) == 0.5f, "%s: unit of row %zu is %g", name, p, (double)unit);
    double need = (double)h->most[p] * (double)h->unit[p] * (double)h->shrink +
                  fabs((double)h->x[p] * (double)h->gain) * (double)h->b_max;
    CHECK((double)unit <= fmax(need * 0x1.00001p-12, 0x1p-100) && need <= 32767.0 * (double)unit,
          "%s: unit of row %zu is %g for %g", name, p, (double)unit, need);
    float want = 0.0f;
    for (size_t n = 0; n < h->d_state; n++)
        want = fmaxf(want, fabsf((float)row[n]));
    CHECK(most == want && most <= 32767.0f, "%s: most of row %zu is %g, want %g", name, p,
          (double)most, (double)want);
}

typedef struct {
    void *state; /* f32 or i16 */
    float *unit;
    float *most;
    float *y; /* [n, y_stride] */
    size_t bytes;
    bool is_i16;
} scanned;

/* One head's tokens by one family. */
static scanned run_scan(const bm_kernels *k, const head *h, const bm_scan *in, size_t y_stride,
                        bool is_i16) {
    size_t n = h->head_dim * h->d_state;
    size_t row_bytes = h->head_dim * sizeof(float);
    scanned s = {.unit = memcpy(check_floats(h->head_dim), h->unit, row_bytes),
                 .most = memcpy(check_floats(h->head_dim), h->most, row_bytes),
                 .y = check_floats(in->n * y_stride),
                 .bytes = n * (is_i16 ? sizeof(int16_t) : sizeof(float)),
                 .is_i16 = is_i16};
    const void *start = is_i16 ? (const void *)h->integers : (const void *)h->state;
    s.state = memcpy(check_take_at_16(s.bytes), start, s.bytes);
    if (is_i16)
        k->scan_i16(s.state, s.unit, s.most, s.y, y_stride, in, h->head_dim, h->d_state);
    else
        k->scan_f32(s.state, s.y, y_stride, in, h->head_dim, h->d_state);
    return s;
}

static void check_same_scan(const scanned *got, const scanned *want, const head *h, size_t n,
                            size_t y_stride, const char *name) {
    CHECK(memcmp(got->state, want->state, got->bytes) == 0, "%s: another state after %zu tokens",
          name, n);
    CHECK_SAME(name, got->unit, want->unit, h->head_dim);
    CHECK_SAME(name, got->most, want->most, h->head_dim);
    for (size_t t = 0; t < n; t++)
        CHECK_SAME(name, got->y + t * y_stride, want->y + t * y_stride, h->head_dim);
}

static void scan(uint64_t seed) {
    check_random r = check_seed(seed, 6);
    head h = random_head(&r);
    double *row = check_take(h.d_state * sizeof *row);
    const bm_scan_step step = {h.shrink, h.gain, h.scale, h.b_max};
    const bm_scan in = {h.x, h.b, h.c, .step = &step, .n = 1, .skip = h.skip};
    for (size_t type = 0; type < 2; type++) {
        scanned first = run_scan(&bm_kernels_ref, &h, &in, h.head_dim, type == 1);
        for (size_t p = 0; p < h.head_dim; p++) {
            float unit = type == 1 ? first.unit[p] : 0.0f;
            const int16_t *integers = (const int16_t *)first.state + p * h.d_state;
            const float *floats = (const float *)first.state + p * h.d_state;
            for (size_t i = 0; i < h.d_state; i++)
                row[i] = type == 1 ? (double)integers[i] * (double)unit : (double)floats[i];
            check_scan_row(&h, p, row, first.y[p], unit, "ref");
            if (type == 1)
                check_row_unit(&h, p, integers, unit, first.most[p], "ref");
        }
        for (size_t v = 0; v < bm_kernels_count; v++) {
            scanned s = run_scan(bm_kernels_all[v], &h, &in, h.head_dim, type == 1);
            check_same_scan(&s, &first, &h, 1, h.head_dim, bm_kernels_all[v]->name);
        }
    }
}

/* Several tokens at once are the same tokens one by one, by the reference. */
static void scan_tokens(uint64_t seed) {
    enum { MAX_TOKENS = 7 };
    check_random r = check_seed(seed, 7);
    head h = random_head(&r);
    size_t n = check_between(&r, 1, MAX_TOKENS);
    size_t stride = h.head_dim + 2 * h.d_state + 4 * check_between(&r, 0, 2);
    size_t y_stride = h.head_dim + 4 * check_between(&r, 0, 2);
    float *inputs = check_floats(n * stride);
    check_fill_normal(&r, inputs, n * stride, 1.0f);
    bm_scan_step steps[MAX_TOKENS];
    for (size_t t = 0; t < n; t++)
        steps[t] =
            (bm_scan_step){.shrink = check_between(&r, 0, 4) ? 1.0f : check_uniform(&r, 0.0, 1.0),
                           .gain = check_uniform(&r, 0.0, 2.0),
                           .scale = check_uniform(&r, 0.5, 2.0),
                           .b_max = 3.5f};
    bm_scan in = {.x = inputs,
                  .b = inputs + h.head_dim,
                  .c = inputs + h.head_dim + h.d_state,
                  .stride = stride,
                  .step = steps,
                  .n = n,
                  .skip = h.skip};
    for (size_t type = 0; type < 2; type++) {
        bm_scan one = in;
        one.n = 1;
        head now = h;
        scanned want = {.y = check_floats(n * y_stride)};
        for (size_t t = 0; t < n; t++) {
            scanned s = run_scan(&bm_kernels_ref, &now, &one, y_stride, type == 1);
            memcpy(want.y + t * y_stride, s.y, h.head_dim * sizeof(float));
            s.y = want.y;
            want = s;
            now.integers = s.state;
            now.state = s.state;
            now.unit = s.unit;
            now.most = s.most;
            one.x += stride;
            one.b += stride;
            one.c += stride;
            one.step++;
        }
        for (size_t v = 0; v < bm_kernels_count; v++) {
            scanned s = run_scan(bm_kernels_all[v], &h, &in, y_stride, type == 1);
            check_same_scan(&s, &want, &h, n, y_stride, bm_kernels_all[v]->name);
        }
    }
}

/* A loud token, its opposite, then quiet ones: what rounding left of the first two is the measure for the rest. */
static void quiet_after_loud(uint64_t seed) {
    enum { N = 128, TOKENS = 6 };
    check_random r = check_seed(seed, 8);
    float loudness = ldexpf(1.0f, (int)check_between(&r, 1, 40));
    float *inputs = check_floats(TOKENS * (4 + 2 * N));
    check_fill_normal(&r, inputs, TOKENS * (4 + 2 * N), 1.0f);
    bm_scan_step steps[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        float *x = inputs + t * (4 + 2 * N);
        for (size_t p = 0; t < 2 && p < 4; p++)
            x[p] = t == 0 ? loudness : -loudness;
        if (t == 1)
            memcpy(x + 4, inputs + 4, N * sizeof *x);
        steps[t] = (bm_scan_step){.shrink = 1.0f, .gain = 1.0f, .scale = 1.0f, .b_max = 3.5f};
    }
    const bm_scan in = {.x = inputs,
                        .b = inputs + 4,
                        .c = inputs + 4 + N,
                        .stride = 4 + 2 * N,
                        .step = steps,
                        .n = 2};
    bm_scan quiet = in;
    quiet.x += 2 * in.stride;
    quiet.b += 2 * in.stride;
    quiet.c += 2 * in.stride;
    quiet.step += 2;
    quiet.n = TOKENS - 2;
    double *left = check_take(4 * N * sizeof *left);
    for (size_t v = 0; v < bm_kernels_count; v++) {
        const bm_kernels *k = bm_kernels_all[v];
        int16_t *state = memset(check_take_at_16(4 * N * 2), 0, 4 * N * 2);
        float *unit = memset(check_floats(4), 0, 4 * sizeof(float));
        float *most = memset(check_floats(4), 0, 4 * sizeof(float));
        float *y = check_floats(TOKENS * 4);
        k->scan_i16(state, unit, most, y, 4, &in, 4, N);
        for (size_t i = 0; i < 4 * N; i++)
            left[i] = (double)state[i] * (double)unit[i / N];
        k->scan_i16(state, unit, most, y, 4, &quiet, 4, N);
        for (size_t p = 0; p < 4; p++)
            for (size_t i = 0; i < N; i++) {
                double want = left[p * N + i];
                for (size_t t = 2; t < TOKENS; t++) {
                    const float *x = inputs + t * (4 + 2 * N);
                    want += (double)x[p] * (double)x[4 + i];
                }
                double got = (double)state[p * N + i] * (double)unit[p];
                double bound = ((double)loudness * 0x1p-13 + 20.0) * 0x1p-11;
                CHECK(fabs(got - want) <= bound, "%s: S is %g, want %g after 2^%g", k->name, got,
                      want, log2((double)loudness));
            }
    }
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"norm_scale", norm_scale, 2000},
        {"overflowing_squares", overflowing_squares, 100},
        {"conv_silu", conv_silu, 2000},
        {"gate", gate, 2000},
        {"nonfinite", nonfinite, 2000},
        {"abs_max", abs_max, 2000},
        {"scan", scan, 2000},
        {"scan_tokens", scan_tokens, 1000},
        {"quiet_after_loud", quiet_after_loud, 200},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
