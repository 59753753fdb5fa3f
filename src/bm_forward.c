/*
 * bm_forward.c: Mamba-2 with binary projections, as arXiv 2405.21060 and 2411.11843 write it.
 *
 *   r      = embedding[token]
 *   layer:   zxbcdt = in_proj(RMSNorm(r))            prepare_in, then project_in
 *            xBC    = SiLU(conv(xBC))                project_in
 *            S      = S exp(dt A) + dt x B^T         scan
 *            y      = S C + D x
 *            y      = RMSNorm(y * SiLU(z))           scan (the gate), then prepare_out
 *            r      = r + out_proj(y)                project_out
 *   logits = head(RMSNorm(r))
 *
 * Each step runs over all tokens of the chunk before the next one, so the kernels see many tokens at
 * once and a head's state stays in cache. A step is cut into tasks by what it writes: tokens, ranges of
 * rows, or heads; a task also does what follows on the same rows. What costs time is the kernels'.
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
    size_t index; /* of the layer */
    size_t n;     /* tokens */
    size_t tasks; /* of a matrix product */
} pass;

typedef void step(void *pass, size_t task);

static void run(const bm_team *team, step *task, void *arg, size_t count) {
    if (team && count > 1) {
        team->run(team->self, task, arg, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        task(arg, i);
}

static size_t threads_of(const bm_team *team) {
    return team ? team->n_threads : 1;
}

/*
 * Tasks of a matrix product over n tokens. One token's product is short: more tasks than threads even
 * out what a thread loses to other programs. A chunk's is long, and each task makes its own tables.
 */
static size_t tasks_of(const bm_team *team, size_t n) {
    size_t threads = threads_of(team);
    return threads == 1 || n > 1 ? threads : 4 * threads;
}

typedef struct {
    size_t start;
    size_t end;
} range;

/* The share of one task in `rows`, cut at multiples of BM_ROWS; may be empty. */
static range rows_of_task(size_t rows, size_t task, size_t tasks) {
    size_t blocks = (rows + BM_ROWS - 1) / BM_ROWS;
    size_t end = blocks * (task + 1) / tasks * BM_ROWS;
    return (range){blocks * task / tasks * BM_ROWS, end < rows ? end : rows};
}

size_t bm_forward_task_rows(size_t rows, const bm_team *team) {
    size_t blocks = (rows + BM_ROWS - 1) / BM_ROWS;
    size_t tasks = threads_of(team);
    return (blocks + tasks - 1) / tasks * BM_ROWS;
}

static float *zxbcdt_of(const pass *p, size_t token) {
    return p->scratch->zxbcdt + token * p->scratch->zxbcdt_stride;
}

static void prepare(const pass *p, size_t token, const float *x, size_t cols) {
    uint8_t *act = p->scratch->act + token * p->scratch->act_stride;
    p->kernels->quantize(act, x, cols, p->precision);
    p->kernels->tabulate(act, cols, p->precision);
}

/* Rows `r` of a binary product for all tokens of the chunk; y is row 0 of token 0 of its output. */
static void multiply(const pass *p, float *y, size_t y_stride, const uint8_t *signs, size_t cols,
                     range r, size_t task) {
    const bm_scratch *s = p->scratch;
    const bm_inputs inputs = {.act = s->act, .stride = s->act_stride, .c = s->c, .n = p->n};
    p->kernels->matmul(y + r.start, y_stride, signs + p->kernels->signs_bytes(r.start, cols),
                       r.end - r.start, cols, &inputs, p->precision,
                       s->matmul + task * s->matmul_stride);
}

static void prepare_in(void *arg, size_t token) {
    const pass *p = arg;
    const bm_scratch *s = p->scratch;
    size_t d_model = p->model->config.d_model;
    float *normed = s->normed + token * s->normed_stride;
    s->c[token] = p->kernels->norm_scale(normed, s->r + token * d_model, p->layer->in_scale,
                                         p->layer->in_bias, d_model, p->model->config.norm_eps);
    prepare(p, token, normed, d_model);
}

/*
 * Channels of the convolution, all tokens in order. A channel's history is a ring of d_conv - 1 inputs:
 * that of position p is in row p % (d_conv - 1), so the oldest is where the token's own will be.
 */
static void convolve(const pass *p, range channels) {
    const bm_dims *n = &p->model->dims;
    size_t d_conv = p->model->config.d_conv;
    size_t rows = d_conv - 1;
    float *ring = p->timeline->conv + p->index * rows * n->conv_dim + channels.start;
    for (size_t t = 0; t < p->n; t++) {
        float *history[3];
        for (size_t k = 0; k < rows; k++)
            history[k] = ring + (size_t)((p->timeline->position + t + k) % rows) * n->conv_dim;
        p->kernels->conv_silu(zxbcdt_of(p, t) + n->d_inner + channels.start, history,
                              p->layer->conv + channels.start, n->conv_dim,
                              p->layer->conv_bias + channels.start, channels.end - channels.start,
                              d_conv);
    }
}

/* Rows of in_proj, and the convolution of those that are x, B or C. */
static void project_in(void *arg, size_t task) {
    const pass *p = arg;
    const bm_dims *n = &p->model->dims;
    range r = rows_of_task(n->in_rows, task, p->tasks);
    if (r.start >= r.end)
        return;
    multiply(p, p->scratch->zxbcdt, p->scratch->zxbcdt_stride, p->layer->in_sign,
             p->model->config.d_model, r, task);
    size_t first = r.start < n->d_inner ? n->d_inner : r.start;
    size_t last = n->d_inner + n->conv_dim < r.end ? n->d_inner + n->conv_dim : r.end;
    if (first < last)
        convolve(p, (range){first - n->d_inner, last - n->d_inner});
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
static float advance_scale(bm_ssm_scale *s, float decay, float increment, scale_range range) {
    float scale = s->scale * decay;
    float bound = s->bound + increment / scale;
    if (scale >= 0x1p-100f && bound <= range.limit) {
        *s = (bm_ssm_scale){scale, bound};
        return 1.0f;
    }
    float total = s->bound * scale + increment;
    float fresh = bm_pow2_at_least(total / range.target);
    *s = (bm_ssm_scale){fresh, total / fresh};
    return scale / fresh;
}

/* One head over all tokens of the chunk: its state stays in cache. Then its share of the gate. */
static void scan(void *arg, size_t h) {
    const pass *p = arg;
    const bm_config *c = &p->model->config;
    const bm_dims *n = &p->model->dims;
    size_t slot = p->index * n->n_heads + h;
    size_t state_size = (size_t)c->headdim * c->d_state;
    bm_ssm_scale *scale = &p->timeline->scales[slot];
    scale_range limits = range_of(p->timeline->ssm_dtype);
    for (size_t t = 0; t < p->n; t++) {
        const float *row = zxbcdt_of(p, t);
        const float *x = row + n->d_inner + h * c->headdim;
        const float *b = row + 2 * n->d_inner + h / n->heads_per_group * c->d_state;
        float *y = p->scratch->y + t * n->d_inner + h * c->headdim;
        float dt = bm_softplus(row[n->in_rows - n->n_heads + h] + p->layer->dt_bias[h]);
        dt = dt < c->dt_min ? c->dt_min : dt;
        dt = c->dt_max < dt ? c->dt_max : dt;
        /* B's floor keeps x * gain finite where all of B is tiny. */
        float b_max = p->kernels->abs_max(b, c->d_state);
        float increment =
            dt * p->kernels->abs_max(x, c->headdim) * (b_max < 0x1p-20f ? 0x1p-20f : b_max);
        float shrink = advance_scale(scale, bm_exp(dt * p->layer->a[h]), increment, limits);
        /* The increment keeps x * gain in range; only beside x = 0 can the quotient overflow. */
        float gain = dt / scale->scale;
        gain = FLT_MAX < gain ? FLT_MAX : gain;
        if (p->timeline->ssm_dtype == BM_F16)
            p->kernels->scan_f16((uint16_t *)p->timeline->ssm + slot * state_size, y, x, b,
                                 b + n->bc_size, c->headdim, c->d_state, shrink, gain, scale->scale,
                                 p->layer->d[h]);
        else
            p->kernels->scan_f32((float *)p->timeline->ssm + slot * state_size, y, x, b,
                                 b + n->bc_size, c->headdim, c->d_state, shrink, gain, scale->scale,
                                 p->layer->d[h]);
        p->kernels->gate(y, row + h * c->headdim, c->headdim);
    }
}

/* The gate came before the norm, and the norm works on one group of d_inner / ngroups at a time. */
static void prepare_out(void *arg, size_t token) {
    const pass *p = arg;
    const bm_scratch *s = p->scratch;
    size_t d_inner = p->model->dims.d_inner;
    size_t group = p->model->dims.norm_group;
    const float *y = s->y + token * d_inner;
    float *normed = s->normed + token * s->normed_stride;
    s->c[token] = 0.0f;
    for (size_t i = 0; i < d_inner; i += group)
        s->c[token] +=
            p->kernels->norm_scale(normed + i, y + i, p->layer->out_scale + i,
                                   p->layer->out_bias + i, group, p->model->config.norm_eps);
    prepare(p, token, normed, d_inner);
}

/* Rows of out_proj, added to the residual stream. */
static void project_out(void *arg, size_t task) {
    const pass *p = arg;
    const bm_scratch *s = p->scratch;
    size_t d_model = p->model->config.d_model;
    range r = rows_of_task(d_model, task, p->tasks);
    if (r.start >= r.end)
        return;
    multiply(p, s->out, s->out_stride, p->layer->out_sign, p->model->dims.d_inner, r, task);
    for (size_t t = 0; t < p->n; t++)
        for (size_t i = r.start; i < r.end; i++)
            s->r[t * d_model + i] += s->out[t * s->out_stride + i];
}

void bm_forward(const bm_model *model, bm_precision precision, const bm_team *team,
                bm_timeline *timeline, const bm_scratch *scratch, const uint32_t *ids, size_t n) {
    size_t d_model = model->config.d_model;
    for (size_t t = 0; t < n; t++)
        bm_model_embed(model, ids[t], scratch->r + t * d_model);
    pass p = {.model = model,
              .kernels = model->kernels,
              .scratch = scratch,
              .timeline = timeline,
              .precision = precision,
              .n = n,
              .tasks = tasks_of(team, n)};
    for (p.index = 0; p.index < model->config.n_layer; p.index++) {
        p.layer = &model->layers[p.index];
        run(team, prepare_in, &p, n);
        run(team, project_in, &p, p.tasks);
        run(team, scan, &p, model->dims.n_heads);
        run(team, prepare_out, &p, n);
        run(team, project_out, &p, p.tasks);
    }
    for (size_t t = 0; t < n; t++)
        model->kernels->norm_scale(scratch->hidden + t * d_model, scratch->r + t * d_model,
                                   model->norm_f, model->zeros, d_model, model->config.norm_eps);
    timeline->position += n;
}

/* ---- Head --------------------------------------------------------------------------------------- */

typedef struct {
    const bm_model *model;
    bm_precision precision;
    const void *act;     /* input of an int8 head */
    const float *hidden; /* input of any other */
    float *logits;
    size_t tasks;
} head_pass;

static void head_rows(void *arg, size_t task) {
    const head_pass *p = arg;
    const bm_token_table *head = &p->model->head;
    const bm_kernels *k = p->model->kernels;
    size_t cols = p->model->config.d_model;
    range r = rows_of_task(p->model->config.vocab_size, task, p->tasks);
    if (r.start >= r.end)
        return;
    size_t rows = r.end - r.start;
    size_t at = r.start * cols;
    float *logits = p->logits + r.start;
    switch (p->model->config.embedding_dtype) {
    case BM_I8:
        k->head_i8(logits, (const int8_t *)head->weight + at, head->scale + r.start, rows, cols,
                   p->act, p->precision);
        break;
    case BM_F16:
        k->head_f16(logits, (const uint16_t *)head->weight + at, rows, cols, p->hidden);
        break;
    default: k->head_f32(logits, (const float *)head->weight + at, rows, cols, p->hidden); break;
    }
}

void bm_forward_logits(const bm_model *model, bm_precision precision, const bm_team *team,
                       const bm_scratch *scratch, const float *hidden, float *logits) {
    if (model->config.embedding_dtype == BM_I8)
        model->kernels->quantize(scratch->act, hidden, model->config.d_model, precision);
    head_pass p = {.model = model,
                   .precision = precision,
                   .act = scratch->act,
                   .hidden = hidden,
                   .logits = logits,
                   .tasks = tasks_of(team, 1)};
    run(team, head_rows, &p, p.tasks);
}
