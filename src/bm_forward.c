/*
 * bm_forward.c: Mamba-2 with binary or dense projections, as arXiv 2405.21060 and 2411.11843 write it.
 *
 *   r      = embedding[token]
 *   layer:   zxbcdt = in_proj(RMSNorm(r))            prepare_in, then project_in
 *            xBC    = SiLU(conv(xBC))                convolve: B and C in mix_shared, x in scan
 *            S      = S exp(dt A) + dt x B^T         scan
 *            y      = S C + D x
 *            y      = RMSNorm(y * SiLU(z))           scan (the gate), then prepare_out
 *            r      = r + out_proj(y)                project_out
 *   logits = head(RMSNorm(r))
 *
 * Each step runs over all tokens of the chunk before the next one, so the kernels see many tokens at
 * once and a head's state stays in cache. Tokens of different timelines differ only in the scan and its
 * convolution. A step is cut into tasks by what it writes: tokens, blocks of rows and tokens, or heads; a
 * task also does what follows on the same numbers. What costs time is the kernels'.
 */
#include "bm_forward.h"

/* One layer at work: the weights, and the chunk. */
typedef struct {
    const bm_model *model;
    const bm_kernels *kernels;
    const bm_layer *layer;
    const bm_scratch *scratch;
    const bm_lane *lanes;
    size_t n_lanes;
    bm_precision precision; /* of the projections' inputs */
    size_t index;           /* of the layer */
    size_t n;               /* tokens */
    size_t parts;           /* of the rows of a matrix product */
    size_t task_heads;      /* heads of a task, all of one lane */
    bm_trial *trial;
    bool is_replay; /* only the state is wanted */
} pass;

static void run(const bm_team *team, bm_task *task, void *arg, size_t count) {
    if (team && count > 1) {
        team->run(team->self, task, arg, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        task(arg, i, 0);
}

/* Blocks of BM_TOKENS tokens. */
static size_t blocks_of(size_t n) {
    return (n + BM_TOKENS - 1) / BM_TOKENS;
}

/*
 * Into how many parts the rows of a product over n tokens are cut, each of which is a task for every
 * block of tokens. More tasks than threads even out what a thread loses to other programs; but kernels
 * prepare each block of tokens anew for each part.
 */
static size_t parts_of(const bm_team *team, size_t n) {
    size_t threads = team ? team->n_threads : 1;
    size_t tasks = threads == 1 ? 1 : (n == 1 ? 4 : 2) * threads;
    return (tasks + blocks_of(n) - 1) / blocks_of(n);
}

/*
 * Adjacent heads that make one task: what their convolution reads then lies in longer pieces, which a processor
 * fetches ahead. Enough tasks are left to even out what a thread loses.
 */
static size_t heads_of_task(const bm_team *team, size_t heads) {
    enum { MOST = 4, TASKS = 4 };
    size_t threads = team ? team->n_threads : 1;
    size_t fair = heads / (TASKS * threads);
    return fair < 1 ? 1 : fair < MOST ? fair : MOST;
}

typedef struct {
    size_t start;
    size_t end;
} range;

/* One part of `rows`, cut at multiples of BM_ROWS; may be empty. */
static range rows_of_part(size_t rows, size_t part, size_t parts) {
    size_t blocks = (rows + BM_ROWS - 1) / BM_ROWS;
    size_t end = blocks * (part + 1) / parts * BM_ROWS;
    return (range){blocks * part / parts * BM_ROWS, end < rows ? end : rows};
}

/* Block `index` of the n tokens of a chunk. */
static range tokens_of_block(size_t n, size_t index) {
    size_t start = index * BM_TOKENS;
    return (range){start, n - start < BM_TOKENS ? n : start + BM_TOKENS};
}

static float *zxbcdt_of(const pass *p, size_t token) {
    return p->scratch->zxbcdt + token * p->scratch->zxbcdt_stride;
}

static void prepare(const pass *p, size_t token, const float *x, size_t cols) {
    uint8_t *act = p->scratch->act + token * p->scratch->act_stride;
    range block = tokens_of_block(p->n, token / BM_TOKENS);
    p->kernels->quantize(act, x, cols, p->precision);
    if (!bm_is_dense(&p->model->config) &&
        p->kernels->uses_tables(block.end - block.start, p->precision))
        p->kernels->tabulate(act, cols, p->precision);
}

/* A product over the inputs of the chunk: binary, or dense. */
typedef struct {
    const uint8_t *signs;
    bm_dense dense;
    size_t rows;
    size_t cols;
    float *y; /* [n, y_stride] */
    size_t y_stride;
} product;

/* What one task computes of a product. Tasks go through the parts of one block of tokens, then the next. */
typedef struct {
    range rows;
    range tokens;
} share;

static void multiply_dense(const pass *p, const product *m, range rows, float *y,
                           const bm_inputs *in) {
    const bm_kernels *k = p->kernels;
    size_t n = rows.end - rows.start;
    size_t at = rows.start * m->cols;
    const float *scale = m->dense.scale;
    switch (p->model->config.projection_dtype) {
    case BM_WEIGHTS_F16:
        k->dense_f16(y, m->y_stride, (const uint16_t *)m->dense.weight + at, n, m->cols, in);
        break;
    case BM_WEIGHTS_I8:
        k->dense_i8(y, m->y_stride, (const int8_t *)m->dense.weight + at, scale + rows.start, n,
                    m->cols, in, p->precision);
        break;
    default:
        k->dense_i4(y, m->y_stride, (const uint8_t *)m->dense.weight + at / 2,
                    scale + rows.start * bm_i4_groups(m->cols), n, m->cols, in, p->precision);
        break;
    }
}

static share multiply(const pass *p, const product *m, size_t task, size_t thread) {
    const bm_scratch *s = p->scratch;
    const share own = {.rows = rows_of_part(m->rows, task % p->parts, p->parts),
                       .tokens = tokens_of_block(p->n, task / p->parts)};
    const bm_inputs inputs = {.act = s->act + own.tokens.start * s->act_stride,
                              .stride = s->act_stride,
                              .c = s->c + own.tokens.start,
                              .n = own.tokens.end - own.tokens.start};
    if (own.rows.start == own.rows.end)
        return own;
    float *y = m->y + own.tokens.start * m->y_stride + own.rows.start;
    if (bm_is_dense(&p->model->config))
        multiply_dense(p, m, own.rows, y, &inputs);
    else
        p->kernels->matmul(y, m->y_stride,
                           m->signs + p->kernels->signs_bytes(own.rows.start, m->cols),
                           own.rows.end - own.rows.start, m->cols, &inputs, p->precision,
                           s->matmul + thread * s->matmul_stride);
    return own;
}

static void prepare_in(void *arg, size_t token, size_t thread) {
    (void)thread;
    const pass *p = arg;
    const bm_scratch *s = p->scratch;
    size_t d_model = p->model->config.d_model;
    float *normed = s->normed + token * s->normed_stride;
    s->c[token] = p->kernels->norm_scale(normed, s->r + token * d_model, p->layer->in_scale,
                                         p->layer->in_bias, d_model, p->model->config.norm_eps);
    prepare(p, token, normed, d_model);
}

/*
 * Channels of the convolution, n tokens from `start` on in order, on the history of a timeline that is at `position`. A channel's
 * history is a ring of d_conv - 1 inputs: that of position p is in row p % (d_conv - 1), so the oldest is where the token's own
 * will be.
 */
static void convolve_tokens(const pass *p, const bm_timeline *timeline, uint64_t position,
                            range tokens, range channels) {
    const bm_dims *n = &p->model->dims;
    size_t d_conv = p->model->config.d_conv;
    size_t rows = d_conv - 1;
    float *ring = timeline->conv + p->index * rows * n->conv_dim + channels.start;
    for (size_t t = tokens.start; t < tokens.end; t++, position++) {
        float *history[3];
        for (size_t k = 0; k < rows; k++)
            history[k] = ring + (size_t)((position + k) % rows) * n->conv_dim;
        p->kernels->conv_silu(zxbcdt_of(p, t) + n->d_inner + channels.start, history,
                              p->layer->conv + channels.start, n->conv_dim,
                              p->layer->conv_bias + channels.start, channels.end - channels.start,
                              d_conv);
    }
}

/* The first token of a lane that is on trial; its end where none is. */
static size_t certain_end(const pass *p, const bm_lane *lane) {
    return lane->start + (p->trial ? p->trial->certain : lane->n);
}

/* All tokens of a lane; those on trial on the history of the other timeline. */
static void convolve(const pass *p, const bm_lane *lane, range channels) {
    size_t certain = certain_end(p, lane);
    size_t end = lane->start + lane->n;
    uint64_t position = lane->timeline->position;
    convolve_tokens(p, lane->timeline, position, (range){lane->start, certain}, channels);
    if (certain == end)
        return;
    size_t conv_dim = p->model->dims.conv_dim;
    size_t rows = p->model->config.d_conv - 1;
    size_t at = p->index * rows * conv_dim + channels.start;
    for (size_t k = 0; k < rows; k++)
        memcpy(p->trial->other.conv + at + k * conv_dim, lane->timeline->conv + at + k * conv_dim,
               (channels.end - channels.start) * sizeof(float));
    convolve_tokens(p, &p->trial->other, position + certain - lane->start, (range){certain, end},
                    channels);
}

static void project_in(void *arg, size_t task, size_t thread) {
    const pass *p = arg;
    const product in_proj = {.signs = p->layer->in_sign,
                             .dense = p->layer->in_dense,
                             .rows = p->model->dims.in_rows,
                             .cols = p->model->config.d_model,
                             .y = p->scratch->zxbcdt,
                             .y_stride = p->scratch->zxbcdt_stride};
    multiply(p, &in_proj, task, thread);
}

/* What all heads of a group read: B and C, and the largest |B| of each token. Too little to share. */
static void mix_shared(const pass *p) {
    const bm_dims *n = &p->model->dims;
    size_t groups = p->model->config.ngroups;
    size_t d_state = p->model->config.d_state;
    for (size_t l = 0; l < p->n_lanes; l++)
        convolve(p, &p->lanes[l], (range){n->d_inner, n->conv_dim});
    for (size_t t = 0; t < p->n; t++)
        for (size_t g = 0; g < groups; g++)
            p->scratch->b_max[t * groups + g] =
                p->kernels->abs_max(zxbcdt_of(p, t) + 2 * n->d_inner + g * d_state, d_state);
}

/* A fresh scale brings the bound of stored values to 1 or below; the next comes when it passes this. */
static const float BOUND_LIMIT = 0x1p40f;

/*
 * Moves a head by one token: scale *= decay, and the bound grows by `increment`, a bound of what the
 * token adds to S. Returns the factor for stored values: 1, except when a fresh scale is due.
 */
static float advance_scale(bm_ssm_scale *s, float decay, float increment) {
    float scale = s->scale * decay;
    float bound = s->bound + increment / scale;
    if (scale >= 0x1p-100f && bound <= BOUND_LIMIT) {
        *s = (bm_ssm_scale){scale, bound};
        return 1.0f;
    }
    float total = s->bound * scale + increment;
    float fresh = bm_pow2_at_least(total);
    *s = (bm_ssm_scale){fresh, total / fresh};
    return scale / fresh;
}

/* One token of one head: dt, and with it what the token does to S and its scale. */
static bm_scan_step step_of(const pass *p, size_t h, size_t t, bm_ssm_scale *scale) {
    const bm_config *c = &p->model->config;
    const bm_dims *n = &p->model->dims;
    const float *row = zxbcdt_of(p, t);
    float dt = bm_softplus(row[n->in_rows - n->n_heads + h] + p->layer->dt_bias[h]);
    dt = dt < c->dt_min ? c->dt_min : dt;
    dt = c->dt_max < dt ? c->dt_max : dt;
    float x_max = p->kernels->abs_max(row + n->d_inner + h * c->headdim, c->headdim);
    /* B's floor keeps x * gain finite where all of B is tiny. */
    float b_max = p->scratch->b_max[t * c->ngroups + h / n->heads_per_group];
    float increment = dt * x_max * (b_max < 0x1p-20f ? 0x1p-20f : b_max);
    float shrink = advance_scale(scale, bm_exp(dt * p->layer->a[h]), increment);
    /* The increment keeps x * gain in range; only beside x = 0 can the quotient overflow. */
    float gain = dt / scale->scale;
    return (bm_scan_step){.shrink = shrink,
                          .gain = FLT_MAX < gain ? FLT_MAX : gain,
                          .scale = scale->scale,
                          .b_max = b_max};
}

/* The state of one head. */
typedef struct {
    bm_dtype dtype;
    size_t bytes;
    void *ssm;
    float *unit; /* [headdim] of BM_I16 */
    float *most; /* the same */
    bm_ssm_scale *scale;
} head_state;

static head_state head_of(const pass *p, const bm_timeline *timeline, size_t h) {
    size_t headdim = p->model->config.headdim;
    size_t slot = p->index * p->model->dims.n_heads + h;
    size_t bytes = headdim * p->model->config.d_state * bm_dtype_size(timeline->ssm_dtype);
    bool has_units = timeline->ssm_dtype == BM_I16;
    return (head_state){.dtype = timeline->ssm_dtype,
                        .bytes = bytes,
                        .ssm = (uint8_t *)timeline->ssm + slot * bytes,
                        .unit = has_units ? timeline->unit + slot * headdim : NULL,
                        .most = has_units ? timeline->most + slot * headdim : NULL,
                        .scale = &timeline->scales[slot]};
}

static void copy_head(const pass *p, const head_state *to, const head_state *from) {
    size_t row_bytes = p->model->config.headdim * sizeof(float);
    *to->scale = *from->scale;
    memcpy(to->ssm, from->ssm, from->bytes);
    if (!from->unit)
        return;
    memcpy(to->unit, from->unit, row_bytes);
    memcpy(to->most, from->most, row_bytes);
}

/* At most BM_TOKENS tokens of one head: the recurrence, and the gate behind it. */
static void scan_block(const pass *p, const head_state *state, size_t h, range tokens) {
    const bm_config *c = &p->model->config;
    const bm_dims *n = &p->model->dims;
    bm_scan_step steps[BM_TOKENS];
    for (size_t t = tokens.start; t < tokens.end; t++)
        steps[t - tokens.start] = step_of(p, h, t, state->scale);
    const float *row = zxbcdt_of(p, tokens.start);
    const float *b = row + 2 * n->d_inner + h / n->heads_per_group * c->d_state;
    const bm_scan in = {.x = row + n->d_inner + h * c->headdim,
                        .b = b,
                        .c = b + n->bc_size,
                        .stride = p->scratch->zxbcdt_stride,
                        .step = steps,
                        .n = tokens.end - tokens.start,
                        .skip = p->layer->d[h]};
    float *y = p->scratch->y + tokens.start * n->d_inner + h * c->headdim;
    if (state->dtype == BM_I16)
        p->kernels->scan_i16(state->ssm, state->unit, state->most, y, n->d_inner, &in, c->headdim,
                             c->d_state);
    else
        p->kernels->scan_f32(state->ssm, y, n->d_inner, &in, c->headdim, c->d_state);
    if (p->is_replay)
        return;
    for (size_t t = tokens.start; t < tokens.end; t++)
        p->kernels->gate(p->scratch->y + t * n->d_inner + h * c->headdim,
                         zxbcdt_of(p, t) + h * c->headdim, c->headdim);
}

/*
 * Tokens of one head. What a head of scale 0 has in memory may be anything, and is cleared here, where it is needed, by
 * the thread that needs it: it is in cache then, and fresh memory that is read first would cost two page faults a page.
 */
static void scan_tokens(const pass *p, const head_state *state, size_t h, range tokens) {
    if (state->scale->scale == 0.0f)
        memset(state->ssm, 0, state->bytes);
    for (size_t t = tokens.start; t < tokens.end; t += BM_TOKENS)
        scan_block(p, state, h,
                   (range){t, tokens.end - t < BM_TOKENS ? tokens.end : t + BM_TOKENS});
}

/* One head over all tokens of a lane: its state stays in cache. */
static void scan_head(const pass *p, const bm_lane *lane, size_t h) {
    size_t certain = certain_end(p, lane);
    size_t end = lane->start + lane->n;
    const head_state own = head_of(p, lane->timeline, h);
    scan_tokens(p, &own, h, (range){lane->start, certain});
    if (certain == end)
        return;
    const head_state other = head_of(p, &p->trial->other, h);
    copy_head(p, &other, &own);
    scan_tokens(p, &other, h, (range){certain, end});
}

/* Tasks of a lane. */
static size_t scan_tasks(const pass *p) {
    return (p->model->dims.n_heads + p->task_heads - 1) / p->task_heads;
}

/* A few heads of a lane, and their share of convolution and gate. */
static void scan(void *arg, size_t task, size_t thread) {
    (void)thread;
    const pass *p = arg;
    size_t headdim = p->model->config.headdim;
    size_t n_heads = p->model->dims.n_heads;
    const bm_lane *lane = &p->lanes[task / scan_tasks(p)];
    size_t start = task % scan_tasks(p) * p->task_heads;
    size_t end = n_heads - start < p->task_heads ? n_heads : start + p->task_heads;
    convolve(p, lane, (range){start * headdim, end * headdim});
    for (size_t h = start; h < end; h++)
        scan_head(p, lane, h);
}

/* Where a layer's inputs of a token that is tried are, or were. */
static float *tried_inputs(const pass *p, size_t token) {
    const bm_trial *trial = p->trial;
    return trial->inputs + (p->index * trial->capacity + token) * trial->stride;
}

/* Before the convolution puts its output in their place. */
static void note_inputs(const pass *p) {
    for (size_t t = p->trial->certain; t < p->n; t++)
        memcpy(tried_inputs(p, t - p->trial->certain), zxbcdt_of(p, t) + p->model->dims.d_inner,
               p->trial->stride * sizeof(float));
}

/* The gate came before the norm, and the norm works on one group of d_inner / ngroups at a time. */
static void prepare_out(void *arg, size_t token, size_t thread) {
    (void)thread;
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

/* out_proj, added to the residual stream. */
static void project_out(void *arg, size_t task, size_t thread) {
    const pass *p = arg;
    const bm_scratch *s = p->scratch;
    size_t d_model = p->model->config.d_model;
    const product out_proj = {.signs = p->layer->out_sign,
                              .dense = p->layer->out_dense,
                              .rows = d_model,
                              .cols = p->model->dims.d_inner,
                              .y = s->out,
                              .y_stride = s->out_stride};
    share own = multiply(p, &out_proj, task, thread);
    for (size_t t = own.tokens.start; t < own.tokens.end; t++)
        for (size_t i = own.rows.start; i < own.rows.end; i++)
            s->r[t * d_model + i] += s->out[t * s->out_stride + i];
}

static void embed(const pass *p, const uint32_t *ids) {
    for (size_t t = 0; t < p->n; t++)
        bm_model_embed(p->model, ids[t], p->scratch->r + t * p->model->config.d_model);
}

/* The last norm, whose output is the head's input; and the tokens are their timelines'. */
static void finish(const pass *p) {
    const bm_model *m = p->model;
    size_t d_model = m->config.d_model;
    for (size_t t = 0; t < p->n; t++)
        p->kernels->norm_scale(p->scratch->hidden + t * d_model, p->scratch->r + t * d_model,
                               m->norm_f, m->zeros, d_model, m->config.norm_eps);
    for (size_t l = 0; l < p->n_lanes; l++)
        p->lanes[l].timeline->position += certain_end(p, &p->lanes[l]) - p->lanes[l].start;
}

static pass pass_of(const bm_chunk *c, size_t layer) {
    return (pass){.model = c->model,
                  .kernels = c->model->kernels,
                  .layer = &c->model->layers[layer],
                  .scratch = c->scratch,
                  .lanes = c->lanes,
                  .n_lanes = c->n_lanes,
                  .precision = bm_input_precision(&c->model->config, c->precision),
                  .index = layer,
                  .n = c->n,
                  .parts = parts_of(c->team, c->n),
                  .task_heads = heads_of_task(c->team, c->n_lanes * c->model->dims.n_heads),
                  .trial = c->trial};
}

static void mix(const bm_team *team, pass *p) {
    mix_shared(p);
    run(team, scan, p, p->n_lanes * scan_tasks(p));
}

void bm_forward_step(const bm_chunk *c, bm_step which, size_t layer) {
    pass p = pass_of(c, layer);
    size_t product_tasks = p.parts * blocks_of(c->n);
    switch (which) {
    case BM_STEP_EMBED: embed(&p, c->ids); break;
    case BM_STEP_PREPARE_IN: run(c->team, prepare_in, &p, c->n); break;
    case BM_STEP_PROJECT_IN: run(c->team, project_in, &p, product_tasks); break;
    case BM_STEP_SCAN:
        if (p.trial)
            note_inputs(&p);
        mix(c->team, &p);
        break;
    case BM_STEP_PREPARE_OUT: run(c->team, prepare_out, &p, c->n); break;
    case BM_STEP_PROJECT_OUT: run(c->team, project_out, &p, product_tasks); break;
    case BM_STEP_FINISH: finish(&p); break;
    case BM_STEP_COUNT: break;
    }
}

void bm_forward(const bm_chunk *c) {
    bm_forward_step(c, BM_STEP_EMBED, 0);
    for (size_t layer = 0; layer < c->model->config.n_layer; layer++)
        for (bm_step which = BM_STEP_PREPARE_IN; which <= BM_STEP_PROJECT_OUT; which++)
            bm_forward_step(c, which, layer);
    bm_forward_step(c, BM_STEP_FINISH, 0);
}

void bm_forward_replay(const bm_chunk *c) {
    for (size_t layer = 0; layer < c->model->config.n_layer; layer++) {
        pass p = pass_of(c, layer);
        for (size_t t = 0; t < p.n; t++)
            memcpy(zxbcdt_of(&p, t) + p.model->dims.d_inner, tried_inputs(&p, t),
                   p.trial->stride * sizeof(float));
        p.trial = NULL;
        p.is_replay = true;
        mix(c->team, &p);
    }
    c->lanes[0].timeline->position += c->n;
}

/* ---- Head --------------------------------------------------------------------------------------- */

typedef struct {
    const bm_model *model;
    bm_precision precision;
    const bm_head_lane *lanes;
    size_t n_lanes;
    size_t parts;
} head_pass;

static void head_block(const head_pass *p, const bm_head_lane *lane, range r) {
    const bm_token_table *head = &p->model->head;
    const bm_kernels *k = p->model->kernels;
    size_t cols = p->model->config.d_model;
    size_t rows = r.end - r.start;
    size_t at = r.start * cols;
    float *logits = lane->logits + r.start;
    if (p->model->head_form == BM_HEAD_INT4) {
        k->head_i4(logits, p->model->head_i4 + bm_i4_units(r.start, cols), head->scale + r.start,
                   rows, cols, lane->act, p->precision);
        return;
    }
    switch (p->model->config.embedding_dtype) {
    case BM_I8:
        k->head_i8(logits, (const int8_t *)head->weight + at, head->scale + r.start, rows, cols,
                   lane->act, p->precision);
        break;
    case BM_F16:
        k->head_f16(logits, (const uint16_t *)head->weight + at, rows, cols, lane->hidden);
        break;
    default: k->head_f32(logits, (const float *)head->weight + at, rows, cols, lane->hidden); break;
    }
}

/* Several vectors take turns at so many rows as stay in cache. */
static void head_rows(void *arg, size_t part, size_t thread) {
    (void)thread;
    const head_pass *p = arg;
    range all = rows_of_part(p->model->config.vocab_size, part, p->parts);
    size_t step = p->n_lanes > 1 ? BM_ROWS : all.end - all.start;
    for (size_t start = all.start; start < all.end; start += step) {
        range block = {start, all.end - start < step ? all.end : start + step};
        for (size_t l = 0; l < p->n_lanes; l++)
            head_block(p, &p->lanes[l], block);
    }
}

void bm_forward_logits(const bm_model *model, bm_precision precision, const bm_team *team,
                       const bm_head_lane *lanes, size_t n) {
    if (model->config.embedding_dtype == BM_I8)
        for (size_t l = 0; l < n; l++)
            model->kernels->quantize(lanes[l].act, lanes[l].hidden, model->config.d_model,
                                     precision);
    head_pass p = {.model = model,
                   .precision = precision,
                   .lanes = lanes,
                   .n_lanes = n,
                   .parts = parts_of(team, 1)};
    run(team, head_rows, &p, p.parts);
}
