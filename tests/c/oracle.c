/*
 * oracle.c: see oracle.h.
 */
#include "oracle.h"

#include <math.h>
#include <string.h>

typedef struct {
    const float *norm, *conv, *conv_bias, *dt_bias, *a_log, *d, *gate_norm;
    double *w_in;   /* [in_rows, d_model] */
    double *w_out;  /* [d_model, d_inner] */
    double *window; /* [d_conv, conv_dim] the last inputs of the convolution, oldest first */
    double *state;  /* [n_heads, headdim, d_state] */
} layer;

typedef struct {
    size_t d_model, d_inner, n_heads, headdim, d_state, ngroups, conv_dim, in_rows, d_conv;
} sizes;

static double *doubles(size_t n) {
    return memset(check_take(n * sizeof(double)), 0, n * sizeof(double));
}

static double silu(double x) {
    return x / (1.0 + exp(-x));
}

static double half_value(uint16_t h) {
    int exponent = h >> 10 & 31;
    double size = exponent == 0 ? ldexp((double)(h & 1023), -24)
                                : ldexp((double)(h & 1023) + 1024.0, exponent - 25);
    return h & 0x8000 ? -size : size;
}

/* One weight of a dense projection; `scale` is NULL with binary16. */
static double weight_at(const bm_config *c, const void *weight, const float *scale, size_t cols,
                        size_t o, size_t k) {
    size_t at = o * cols + k;
    if (c->projection_dtype == BM_WEIGHTS_F16)
        return half_value(((const uint16_t *)weight)[at]);
    if (c->projection_dtype == BM_WEIGHTS_I8)
        return (double)((const int8_t *)weight)[at] * (double)scale[o];
    const uint8_t *words = (const uint8_t *)weight + (o * cols + k / 32 * 32) / 2 + k % 8 * 2;
    int code = (words[0] | words[1] << 8) >> (k % 32 / 8 * 4) & 15;
    code -= code > 7 ? 16 : 0;
    return code * (double)scale[o * ((cols + 127) / 128) + k / 128];
}

static double *full(const random_model *m, int i, const char *name, size_t rows, size_t cols) {
    char part[32];
    const float *scale = NULL;
    strcpy(part, name);
    if (m->config.projection_dtype != BM_WEIGHTS_F16)
        scale = random_model_tensor(m, i, strcat(part, ".scale"));
    strcpy(part, name);
    const void *weight = random_model_tensor(m, i, strcat(part, ".weight"));
    double *w = doubles(rows * cols);
    for (size_t o = 0; o < rows; o++)
        for (size_t k = 0; k < cols; k++)
            w[o * cols + k] = weight_at(&m->config, weight, scale, cols, o, k);
    return w;
}

/* W = alpha * s + beta, one pair per input column. */
static double *dense(const random_model *m, int i, const char *name, size_t rows, size_t cols) {
    if (m->config.projection_dtype != BM_WEIGHTS_SIGN)
        return full(m, i, name, rows, cols);
    char part[32];
    strcpy(part, name);
    const uint8_t *sign = random_model_tensor(m, i, strcat(part, ".sign"));
    strcpy(part, name);
    const float *alpha = random_model_tensor(m, i, strcat(part, ".alpha"));
    strcpy(part, name);
    const float *beta = random_model_tensor(m, i, strcat(part, ".beta"));
    double *w = doubles(rows * cols);
    for (size_t o = 0; o < rows; o++)
        for (size_t k = 0; k < cols; k++) {
            int bit = sign[(o * cols + k) / 8] >> (k % 8) & 1;
            w[o * cols + k] = (bit ? (double)alpha[k] : -(double)alpha[k]) + (double)beta[k];
        }
    return w;
}

static layer load_layer(const random_model *m, int i, const sizes *s) {
    return (layer){
        .norm = random_model_tensor(m, i, "norm.weight"),
        .conv = random_model_tensor(m, i, "conv.weight"),
        .conv_bias = random_model_tensor(m, i, "conv.bias"),
        .dt_bias = random_model_tensor(m, i, "dt_bias"),
        .a_log = random_model_tensor(m, i, "A_log"),
        .d = random_model_tensor(m, i, "D"),
        .gate_norm = random_model_tensor(m, i, "gate_norm.weight"),
        .w_in = dense(m, i, "in_proj", s->in_rows, s->d_model),
        .w_out = dense(m, i, "out_proj", s->d_model, s->d_inner),
        .window = doubles(s->d_conv * s->conv_dim),
        .state = doubles(s->n_heads * s->headdim * s->d_state),
    };
}

/* y = W x */
static void multiply(double *y, const double *w, const double *x, size_t rows, size_t cols) {
    for (size_t o = 0; o < rows; o++) {
        y[o] = 0.0;
        for (size_t i = 0; i < cols; i++)
            y[o] += w[o * cols + i] * x[i];
    }
}

static void rms_norm(double *y, const double *x, const float *weight, size_t n, double eps) {
    double squares = 0.0;
    for (size_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    double rstd = 1.0 / sqrt(squares / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * rstd * (double)weight[i];
}

/* xBC = SiLU(conv(xBC)), in place. */
static void convolve(const layer *l, const sizes *s, double *xbc) {
    double *newest = l->window + (s->d_conv - 1) * s->conv_dim;
    memmove(l->window, l->window + s->conv_dim, (s->d_conv - 1) * s->conv_dim * sizeof *xbc);
    memcpy(newest, xbc, s->conv_dim * sizeof *xbc);
    for (size_t i = 0; i < s->conv_dim; i++) {
        double sum = (double)l->conv_bias[i];
        for (size_t k = 0; k < s->d_conv; k++)
            sum += (double)l->conv[i * s->d_conv + k] * l->window[k * s->conv_dim + i];
        xbc[i] = silu(sum);
    }
}

static void scan(const layer *l, const sizes *s, const bm_config *c, const double *xbc,
                 const double *dt_raw, double *y) {
    const double *b_all = xbc + s->d_inner;
    const double *c_all = b_all + s->ngroups * s->d_state;
    for (size_t h = 0; h < s->n_heads; h++) {
        double dt = log1p(exp(dt_raw[h] + (double)l->dt_bias[h]));
        dt = fmin(fmax(dt, (double)c->dt_min), (double)c->dt_max);
        double decay = exp(-dt * exp((double)l->a_log[h]));
        size_t group = h / (s->n_heads / s->ngroups);
        for (size_t p = 0; p < s->headdim; p++) {
            double x = xbc[h * s->headdim + p];
            double *row = l->state + (h * s->headdim + p) * s->d_state;
            double sum = (double)l->d[h] * x;
            for (size_t n = 0; n < s->d_state; n++) {
                row[n] = row[n] * decay + dt * x * b_all[group * s->d_state + n];
                sum += row[n] * c_all[group * s->d_state + n];
            }
            y[h * s->headdim + p] = sum;
        }
    }
}

static void run_layer(const layer *l, const sizes *s, const bm_config *c, double *r) {
    double *u = doubles(s->d_model);
    double *zxbcdt = doubles(s->in_rows);
    double *y = doubles(s->d_inner);
    rms_norm(u, r, l->norm, s->d_model, (double)c->norm_eps);
    multiply(zxbcdt, l->w_in, u, s->in_rows, s->d_model);
    double *xbc = zxbcdt + s->d_inner;
    convolve(l, s, xbc);
    scan(l, s, c, xbc, zxbcdt + s->in_rows - s->n_heads, y);
    size_t group = s->d_inner / s->ngroups;
    for (size_t i = 0; i < s->d_inner; i++)
        y[i] *= silu(zxbcdt[i]);
    for (size_t i = 0; i < s->d_inner; i += group)
        rms_norm(y + i, y + i, l->gate_norm + i, group, (double)c->norm_eps);
    multiply(u, l->w_out, y, s->d_model, s->d_inner);
    for (size_t i = 0; i < s->d_model; i++)
        r[i] += u[i];
}

/* Row `id` of the embedding or of the head. */
static void table_row(const random_model *m, const char *weight, const char *scale, size_t id,
                      double *row) {
    size_t d = m->config.d_model;
    const void *values = random_model_tensor(m, -1, weight);
    for (size_t i = 0; i < d; i++) {
        size_t at = id * d + i;
        if (m->config.embedding_dtype == BM_I8)
            row[i] = (double)((const int8_t *)values)[at] *
                     (double)((const float *)random_model_tensor(m, -1, scale))[id];
        else if (m->config.embedding_dtype == BM_F16)
            row[i] = half_value(((const uint16_t *)values)[at]);
        else
            row[i] = (double)((const float *)values)[at];
    }
}

void oracle_forward(const random_model *m, const uint32_t *ids, size_t n, double *logits) {
    const bm_config *c = &m->config;
    size_t d_inner = (size_t)c->expand * c->d_model;
    size_t bc = (size_t)c->ngroups * c->d_state;
    size_t n_heads = d_inner / c->headdim;
    sizes s = {c->d_model, d_inner,    n_heads,          c->headdim,
               c->d_state, c->ngroups, d_inner + 2 * bc, 2 * d_inner + 2 * bc + n_heads,
               c->d_conv};
    layer layers[8];
    CHECK(c->n_layer <= 8, "%u layers", c->n_layer);
    for (size_t i = 0; i < c->n_layer; i++)
        layers[i] = load_layer(m, (int)i, &s);
    double *r = doubles(s.d_model);
    double *row = doubles(s.d_model);
    for (size_t t = 0; t < n; t++) {
        table_row(m, "embedding.weight", "embedding.scale", ids[t], r);
        for (size_t i = 0; i < c->n_layer; i++)
            run_layer(&layers[i], &s, c, r);
        const float *norm_f = random_model_tensor(m, -1, "norm_f.weight");
        rms_norm(r, r, norm_f, s.d_model, (double)c->norm_eps);
        for (size_t v = 0; v < c->vocab_size; v++) {
            table_row(m, c->tie_embeddings ? "embedding.weight" : "head.weight",
                      c->tie_embeddings ? "embedding.scale" : "head.scale", v, row);
            multiply(&logits[t * c->vocab_size + v], row, r, 1, s.d_model);
        }
    }
}
