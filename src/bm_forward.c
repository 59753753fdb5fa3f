/*
 * bm_forward.c: Mamba-2 with binary projections, as arXiv 2405.21060 and 2411.11843 write it.
 *
 *   r      = embedding[token]
 *   layer:   zxbcdt = in_proj(RMSNorm(r))            project_in
 *            xBC    = SiLU(conv(xBC))                convolve
 *            S      = S exp(dt A) + dt x B^T         scan
 *            y      = S C + D x
 *            y      = RMSNorm(y * SiLU(z))           gate, then project_out
 *            r      = r + out_proj(y)
 *   logits = head(RMSNorm(r))
 *
 * Each step runs over all tokens of the chunk before the next one, so a layer's weights are read once
 * a chunk and a head's state stays in cache. All arithmetic on arrays is the kernels'.
 */
#include "bm_forward.h"

/* One layer at work: the weights, the layer's slice of the timeline, and the chunk. */
typedef struct {
    const bm_model *model;
    const bm_kernels *kernels;
    const bm_layer *layer;
    const bm_scratch *scratch;
    bm_timeline *timeline;
    bm_precision precision;
    size_t index;
    size_t n; /* tokens */
} pass;

static float *zxbcdt_of(const pass *p, size_t token) {
    return p->scratch->zxbcdt + token * p->scratch->zxbcdt_stride;
}

static uint8_t *act_of(const pass *p, size_t token) {
    return p->scratch->act + token * p->scratch->act_stride;
}

static void prepare(const pass *p, size_t token, const float *x, size_t cols) {
    p->kernels->quantize(act_of(p, token), x, cols, p->precision);
    p->kernels->tabulate(act_of(p, token), cols, p->precision);
}

static void project_in(const pass *p) {
    const bm_scratch *s = p->scratch;
    size_t d_model = p->model->config.d_model;
    for (size_t t = 0; t < p->n; t++) {
        s->c[t] = p->kernels->norm_scale(s->normed, s->r + t * d_model, p->layer->in_scale,
                                         p->layer->in_bias, d_model, p->model->config.norm_eps);
        prepare(p, t, s->normed, d_model);
    }
    p->kernels->matmul(s->zxbcdt, s->zxbcdt_stride, p->layer->in_sign, p->model->dims.in_rows,
                       d_model, s->act, s->act_stride, s->c, p->n, p->precision, s->matmul);
}

/* History rows, oldest first, for the token at `position`: row position % rows holds the oldest. */
static void history_rows(const pass *p, uint64_t position, float *history[3]) {
    size_t rows = p->model->config.d_conv - 1;
    size_t conv_dim = p->model->dims.conv_dim;
    float *conv = p->timeline->conv + p->index * rows * conv_dim;
    for (size_t k = 0; k < rows; k++)
        history[k] = conv + (size_t)((position + k) % rows) * conv_dim;
}

static void convolve(const pass *p) {
    const bm_dims *n = &p->model->dims;
    for (size_t t = 0; t < p->n; t++) {
        float *history[3];
        history_rows(p, p->timeline->position + t, history);
        p->kernels->conv_silu(zxbcdt_of(p, t) + n->d_inner, history, p->layer->conv,
                              p->layer->conv_bias, n->conv_dim, p->model->config.d_conv);
    }
}

/*
 * Where stored values live: a fresh scale brings the bound to TARGET, the next comes when it passes
 * LIMIT. f16: rounding at most doubles a sum of increments, so |stored| <= 2 * 2^14 < 65504; 2^-14,
 * its least normal number, is 22 bits below TARGET. f32 has range to spare.
 */
typedef struct {
    float target;
    float limit;
} scale_range;

static scale_range range_of(bm_dtype ssm_dtype) {
    return ssm_dtype == BM_F16 ? (scale_range){0x1p8f, 0x1p14f} : (scale_range){1.0f, 0x1p40f};
}

/*
 * Moves a head by one token: scale *= decay, and the bound grows by `increment`, a bound of what the
 * token adds to S. Returns the factor for stored values: 1, except when a fresh scale is due.
 */
static float advance_scale(bm_head_scale *head, float decay, float increment, scale_range range) {
    float scale = head->scale * decay;
    float bound = head->bound + increment / scale;
    if (scale >= 0x1p-100f && bound <= range.limit) {
        *head = (bm_head_scale){scale, bound};
        return 1.0f;
    }
    float total = head->bound * scale + increment;
    float fresh = bm_pow2_at_least(total / range.target);
    *head = (bm_head_scale){fresh, total / fresh};
    return scale / fresh;
}

static void scan_head(const pass *p, size_t h) {
    const bm_config *c = &p->model->config;
    const bm_dims *n = &p->model->dims;
    size_t group = h / n->heads_per_group;
    size_t slot = p->index * n->n_heads + h;
    size_t state_size = (size_t)c->headdim * c->d_state;
    bm_head_scale *head = &p->timeline->heads[slot];
    scale_range range = range_of(p->timeline->ssm_dtype);
    for (size_t t = 0; t < p->n; t++) {
        const float *row = zxbcdt_of(p, t);
        const float *x = row + n->d_inner + h * c->headdim;
        const float *b = row + 2 * n->d_inner + group * c->d_state;
        float *y = p->scratch->y + t * n->d_inner + h * c->headdim;
        float dt = bm_softplus(row[n->in_rows - n->n_heads + h] + p->layer->dt_bias[h]);
        dt = dt < c->dt_min ? c->dt_min : dt;
        dt = c->dt_max < dt ? c->dt_max : dt;
        /* B's floor keeps x * gain finite where all of B is tiny. */
        float b_max = p->scratch->b_max[t * c->ngroups + group];
        float increment =
            dt * p->kernels->abs_max(x, c->headdim) * (b_max < 0x1p-20f ? 0x1p-20f : b_max);
        float shrink = advance_scale(head, bm_exp(dt * p->layer->a[h]), increment, range);
        if (p->timeline->ssm_dtype == BM_F16)
            p->kernels->scan_f16((uint16_t *)p->timeline->ssm + slot * state_size, y, x, b,
                                 b + n->bc_size, c->headdim, c->d_state, shrink, dt / head->scale,
                                 head->scale, p->layer->d[h]);
        else
            p->kernels->scan_f32((float *)p->timeline->ssm + slot * state_size, y, x, b,
                                 b + n->bc_size, c->headdim, c->d_state, shrink, dt / head->scale,
                                 head->scale, p->layer->d[h]);
    }
}

static void scan(const pass *p) {
    const bm_config *c = &p->model->config;
    for (size_t t = 0; t < p->n; t++)
        for (size_t g = 0; g < c->ngroups; g++)
            p->scratch->b_max[t * c->ngroups + g] = p->kernels->abs_max(
                zxbcdt_of(p, t) + 2 * p->model->dims.d_inner + g * c->d_state, c->d_state);
    for (size_t h = 0; h < p->model->dims.n_heads; h++)
        scan_head(p, h);
}

/* The gate comes before the norm, and the norm works on one group of d_inner / ngroups at a time. */
static void project_out(const pass *p) {
    const bm_scratch *s = p->scratch;
    const bm_config *c = &p->model->config;
    size_t d_inner = p->model->dims.d_inner;
    size_t group = p->model->dims.norm_group;
    for (size_t t = 0; t < p->n; t++) {
        float *y = s->y + t * d_inner;
        p->kernels->gate(y, zxbcdt_of(p, t), d_inner);
        s->c[t] = 0.0f;
        for (size_t i = 0; i < d_inner; i += group)
            s->c[t] += p->kernels->norm_scale(s->normed + i, y + i, p->layer->out_scale + i,
                                              p->layer->out_bias + i, group, c->norm_eps);
        prepare(p, t, s->normed, d_inner);
    }
    p->kernels->matmul(s->out, s->out_stride, p->layer->out_sign, c->d_model, d_inner, s->act,
                       s->act_stride, s->c, p->n, p->precision, s->matmul);
    for (size_t t = 0; t < p->n; t++)
        for (size_t i = 0; i < c->d_model; i++)
            s->r[t * c->d_model + i] += s->out[t * s->out_stride + i];
}

void bm_forward(const bm_model *model, bm_precision precision, bm_timeline *timeline,
                const bm_scratch *scratch, const uint32_t *ids, size_t n) {
    size_t d_model = model->config.d_model;
    for (size_t t = 0; t < n; t++)
        bm_model_embed(model, ids[t], scratch->r + t * d_model);
    for (size_t i = 0; i < model->config.n_layer; i++) {
        pass p = {.model = model,
                  .kernels = model->kernels,
                  .layer = &model->layers[i],
                  .scratch = scratch,
                  .timeline = timeline,
                  .precision = precision,
                  .index = i,
                  .n = n};
        project_in(&p);
        convolve(&p);
        scan(&p);
        project_out(&p);
    }
    for (size_t t = 0; t < n; t++)
        model->kernels->norm_scale(scratch->hidden + t * d_model, scratch->r + t * d_model,
                                   model->norm_f, model->zeros, d_model, model->config.norm_eps);
    timeline->position += n;
}

void bm_forward_logits(const bm_model *model, bm_precision precision, const bm_scratch *scratch,
                       const float *hidden, float *logits) {
    const bm_kernels *k = model->kernels;
    size_t rows = model->config.vocab_size;
    size_t cols = model->config.d_model;
    switch (model->config.embedding_dtype) {
    case BM_I8:
        k->quantize(scratch->act, hidden, cols, precision);
        k->head_i8(logits, model->head.weight, model->head.scale, rows, cols, scratch->act,
                   precision);
        break;
    case BM_F16: k->head_f16(logits, model->head.weight, rows, cols, hidden); break;
    default: k->head_f32(logits, model->head.weight, rows, cols, hidden); break;
    }
}
