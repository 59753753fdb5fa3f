/*
 * bm_session.c: one mutable timeline over a shared model: its memory, its position, its guards.
 *
 * Owns the recurrent state, the scratch memory of a chunk and the logits, in one block; and sessions that
 * step together. What a layer does is bm_forward.c's. A session whose numbers went bad says so until it is
 * reset or adopts a good state.
 */
#include "bm_session.h"

#define NO_LOGITS SIZE_MAX

static size_t larger(size_t a, size_t b) {
    return a < b ? b : a;
}

/* Of a projection's input, or the head's, whose precisions may differ. */
static size_t act_bytes(const bm_model *m, size_t cols, bm_precision precision) {
    bm_precision inner = bm_input_precision(&m->config, precision);
    size_t tables = bm_is_dense(&m->config) ? 0 : m->kernels->table_bytes(cols, inner);
    return larger(bm_act_tables_offset(cols, inner) + tables,
                  bm_act_tables_offset(cols, precision));
}

static bm_scratch layout_scratch(bm_arena *arena, const bm_model *m, const bm_session_options *o) {
    size_t d_model = m->config.d_model;
    size_t d_inner = m->dims.d_inner;
    size_t n = o->max_chunk;
    bm_scratch s = {
        .zxbcdt_stride = bm_round_up(m->dims.in_rows, BM_ROWS),
        .out_stride = bm_round_up(d_model, BM_ROWS),
        .normed_stride = larger(d_model, d_inner),
        .act_stride = bm_round_up(
            larger(act_bytes(m, d_model, o->precision), act_bytes(m, d_inner, o->precision)),
            BM_ALIGN),
    };
    if (!bm_is_dense(&m->config))
        s.matmul_stride =
            (size_t)m->kernels->matmul_scratch(larger(m->dims.in_rows, d_model), o->precision);
    s.r = bm_arena_take(arena, (uint64_t)n * d_model, sizeof(float));
    s.zxbcdt = bm_arena_take(arena, (uint64_t)n * s.zxbcdt_stride, sizeof(float));
    s.y = bm_arena_take(arena, (uint64_t)n * d_inner, sizeof(float));
    s.out = bm_arena_take(arena, (uint64_t)n * s.out_stride, sizeof(float));
    s.normed = bm_arena_take(arena, (uint64_t)n * s.normed_stride, sizeof(float));
    s.act = bm_arena_take(arena, n, s.act_stride);
    s.c = bm_arena_take(arena, n, sizeof(float));
    s.b_max = bm_arena_take(arena, (uint64_t)n * m->config.ngroups, sizeof(float));
    s.matmul = bm_arena_take(arena, o->team ? o->team->n_threads : 1, s.matmul_stride);
    s.hidden = bm_arena_take(arena, (uint64_t)n * d_model, sizeof(float));
    return s;
}

static bm_session *layout(bm_arena *arena, const bm_model *m, const bm_session_options *o) {
    bm_session *s = bm_arena_take(arena, 1, sizeof *s);
    uint64_t start = arena->used;
    bm_timeline timeline = bm_state_layout(arena, &m->config, o->state_dtype);
    uint64_t state_bytes = arena->used - start;
    bm_scratch scratch = layout_scratch(arena, m, o);
    float *logits = bm_arena_take(arena, m->config.vocab_size, sizeof(float));
    if (s) /* NULL while measuring */
        *s = (bm_session){.model = m,
                          .options = *o,
                          .timeline = timeline,
                          .scratch = scratch,
                          .logits = logits,
                          .logits_of = NO_LOGITS,
                          .state_bytes = state_bytes};
    return s;
}

bm_status bm_session_create(const bm_model *model, const bm_session_options *options,
                            bm_session **out, bm_error *err) {
    if ((unsigned)options->precision >= BM_PRECISION_COUNT)
        return bm_fail(err, BM_E_ARGUMENT, "precision %u, want fast, high or exact",
                       (unsigned)options->precision);
    if (options->state_dtype != BM_F32 && options->state_dtype != BM_I16)
        return bm_fail(err, BM_E_ARGUMENT, "state type %u, want f32 or i16",
                       (unsigned)options->state_dtype);
    if (options->max_chunk < 1 || options->max_chunk > 1024)
        return bm_fail(err, BM_E_ARGUMENT, "max_chunk is %u, want 1 to 1024", options->max_chunk);
    uint32_t n_threads = options->team ? options->team->n_threads : 1;
    if (n_threads < 1 || n_threads > BM_MAX_THREADS)
        return bm_fail(err, BM_E_ARGUMENT, "%u threads, want 1 to %u", n_threads,
                       (unsigned)BM_MAX_THREADS);
    bm_arena arena = {0};
    layout(&arena, model, options);
    arena.base = bm_block_alloc(arena.used);
    if (!arena.base)
        return bm_fail(err, BM_E_MEMORY, "no memory for a session: %u MiB wanted",
                       (unsigned)(arena.used >> 20));
    arena.used = 0;
    *out = layout(&arena, model, options);
    bm_session_reset(*out);
    return BM_OK;
}

void bm_session_free(bm_session *session) {
    bm_block_free(session);
}

/* All of a state but the SSM state itself, its last array. */
static size_t bytes_before_ssm(const bm_timeline *timeline) {
    return (size_t)((uint8_t *)timeline->ssm - (uint8_t *)timeline->last);
}

/* Quick: with every scale 0 whatever is stored of the SSM state counts as zero. */
void bm_session_reset(bm_session *s) {
    s->prompt = NULL;
    s->draft = NULL;
    memset(s->timeline.last, 0, bytes_before_ssm(&s->timeline));
    s->timeline.position = 0;
    s->last_n = 0;
    s->logits_of = NO_LOGITS;
    s->failed = false;
}

uint64_t bm_session_position(const bm_session *s) {
    return s->timeline.position;
}

void *bm_session_state(bm_session *s) {
    size_t d_model = s->model->config.d_model;
    /* As bytes a state is all there is to see: the same every time, and nothing of an earlier text. */
    if (s->timeline.position == 0 && !s->prompt)
        memset(s->timeline.ssm, 0, (size_t)s->state_bytes - bytes_before_ssm(&s->timeline));
    if (s->last_n > 0 && !s->draft) /* what is tried is not in the state */
        memcpy(s->timeline.last, s->scratch.hidden + (s->last_n - 1) * d_model,
               d_model * sizeof(float));
    return s->timeline.last;
}

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!bm_is_finite(x[i]))
            return false;
    return true;
}

static bm_status numeric_error(const bm_session *s, size_t index, bm_error *err) {
    uint64_t position = s->timeline.position - s->last_n + index;
    return bm_fail(err, BM_E_NUMERIC, "the model computed NaN or infinity at token %u",
                   (unsigned)position);
}

bm_status bm_session_spoilt(bm_error *err) {
    return bm_fail(err, BM_E_NUMERIC, "the state holds NaN or infinity: reset the session");
}

bm_status bm_session_check_ids(const bm_session *s, const uint32_t *ids, size_t n, bm_error *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= s->model->config.vocab_size)
            return bm_fail(err, BM_E_ARGUMENT, "token id %u, want below %u", ids[i],
                           s->model->config.vocab_size);
    return BM_OK;
}

static bm_status check_ready(const bm_session *s, bm_error *err) {
    if (s->failed)
        return bm_session_spoilt(err);
    if (s->prompt)
        return bm_fail(err, BM_E_ORDER, "a prompt is being read: finish it, or reset the session");
    if (!bm_model_is_sealed(s->model))
        return bm_fail(err, BM_E_ORDER, "the model is not complete: seal every part first");
    return BM_OK;
}

/* What was tried must be kept or taken back before anything follows it. */
static bm_status check_settled(const bm_session *s, bm_error *err) {
    bm_status status = check_ready(s, err);
    if (status == BM_OK && s->draft)
        return bm_fail(err, BM_E_ORDER, "a draft was read: say first how much of it is kept");
    return status;
}

bm_status bm_session_check_chunk(const bm_session *s, const uint32_t *ids, size_t n,
                                 bm_error *err) {
    bm_status status = check_settled(s, err);
    if (status != BM_OK)
        return status;
    if (n < 1 || n > s->options.max_chunk)
        return bm_fail(err, BM_E_ARGUMENT, "%zu tokens in one append, want 1 to %u", n,
                       s->options.max_chunk);
    return bm_session_check_ids(s, ids, n, err);
}

static bm_lane lane_of(bm_session *s, size_t start, size_t n) {
    return (bm_lane){.timeline = &s->timeline, .start = start, .n = n};
}

bm_chunk bm_session_chunk(const bm_session *s, const bm_lane *lanes, size_t n_lanes,
                          const uint32_t *ids, size_t n) {
    return (bm_chunk){.model = s->model,
                      .precision = s->options.precision,
                      .team = s->options.team,
                      .lanes = lanes,
                      .n_lanes = n_lanes,
                      .scratch = &s->scratch,
                      .ids = ids,
                      .n = n};
}

bm_status bm_session_accept(bm_session *s, size_t n, bm_error *err) {
    s->last_n = n;
    s->logits_of = NO_LOGITS;
    size_t d_model = s->model->config.d_model;
    for (size_t i = 0; i < n; i++)
        if (!all_finite(s->scratch.hidden + i * d_model, d_model)) {
            s->failed = true;
            return numeric_error(s, i, err);
        }
    return BM_OK;
}

void bm_session_take_back(bm_session *s, size_t n) {
    s->logits_of = NO_LOGITS;
    s->last_n = n;
    if (n > 0 || s->timeline.position == 0)
        return;
    memcpy(s->scratch.hidden, s->timeline.last, s->model->config.d_model * sizeof(float));
    s->last_n = 1;
}

static bm_head_lane head_lane(bm_session *s, size_t index) {
    return (bm_head_lane){.hidden = s->scratch.hidden + index * s->model->config.d_model,
                          .act = s->scratch.act,
                          .logits = s->logits};
}

/* The logits after a token of the last append are there. */
static bm_status accept_logits(bm_session *s, size_t index, bm_error *err) {
    s->logits_of = NO_LOGITS;
    if (!all_finite(s->logits, s->model->config.vocab_size))
        return numeric_error(s, index, err);
    s->logits_of = index;
    return BM_OK;
}

bm_status bm_session_append(bm_session *s, const uint32_t *ids, size_t n, bm_error *err) {
    bm_status status = bm_session_check_chunk(s, ids, n, err);
    if (status != BM_OK)
        return status;
    bm_lane lane = lane_of(s, 0, n);
    bm_chunk chunk = bm_session_chunk(s, &lane, 1, ids, n);
    bm_forward(&chunk);
    return bm_session_accept(s, n, err);
}

bm_status bm_session_adopt(bm_session *s, uint64_t position, bm_error *err) {
    if (position == 0) {
        bm_session_reset(s);
        return BM_OK;
    }
    s->prompt = NULL;
    s->draft = NULL;
    s->failed = false;
    s->timeline.position = position;
    memcpy(s->scratch.hidden, s->timeline.last, s->model->config.d_model * sizeof(float));
    return bm_session_accept(s, 1, err);
}

/* ---- Several sessions together ------------------------------------------------------------------- */

/* Each is ready, on its own, and can share the work of the first one. */
static bm_status check_together(bm_session *const *sessions, size_t n, bm_error *err) {
    if (n < 1 || n > BM_MAX_TOGETHER)
        return bm_fail(err, BM_E_ARGUMENT, "%zu sessions together, want 1 to %u", n,
                       (unsigned)BM_MAX_TOGETHER);
    const bm_session *first = sessions[0];
    for (size_t i = 0; i < n; i++) {
        const bm_session *s = sessions[i];
        if (s->model != first->model || s->options.precision != first->options.precision)
            return bm_fail(err, BM_E_ARGUMENT,
                           "session %zu is of another model or precision than session 0", i);
        for (size_t other = 0; other < i; other++)
            if (sessions[other] == s)
                return bm_fail(err, BM_E_ARGUMENT, "sessions %zu and %zu are the same", other, i);
        bm_status status = check_settled(s, err);
        if (status != BM_OK)
            return status;
    }
    return BM_OK;
}

/* One token for each of so many sessions as the first one's memory has room for. */
static bm_status append_some(bm_session *const *sessions, const uint32_t *ids, size_t n,
                             bm_error *err) {
    bm_lane lanes[BM_MAX_TOGETHER];
    for (size_t i = 0; i < n; i++)
        lanes[i] = lane_of(sessions[i], i, 1);
    bm_chunk chunk = bm_session_chunk(sessions[0], lanes, n, ids, n);
    bm_forward(&chunk);
    size_t d_model = sessions[0]->model->config.d_model;
    bm_status status = BM_OK;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            memcpy(sessions[i]->scratch.hidden, sessions[0]->scratch.hidden + i * d_model,
                   d_model * sizeof(float));
        bm_status own = bm_session_accept(sessions[i], 1, status == BM_OK ? err : NULL);
        status = status == BM_OK ? own : status;
    }
    return status;
}

bm_status bm_session_append_each(bm_session *const *sessions, const uint32_t *ids, size_t n,
                                 bm_error *err) {
    bm_status status = check_together(sessions, n, err);
    if (status == BM_OK)
        status = bm_session_check_ids(sessions[0], ids, n, err);
    if (status != BM_OK)
        return status;
    size_t start = 0;
    while (start < n) {
        size_t room = sessions[start]->options.max_chunk;
        size_t count = n - start < room ? n - start : room;
        bm_status own =
            append_some(sessions + start, ids + start, count, status == BM_OK ? err : NULL);
        status = status == BM_OK ? own : status;
        start += count;
    }
    return status;
}

bm_status bm_session_logits_each(bm_session *const *sessions, size_t n, bm_error *err) {
    bm_status status = check_together(sessions, n, err);
    for (size_t i = 0; i < n && status == BM_OK; i++)
        if (sessions[i]->last_n == 0)
            return bm_fail(err, BM_E_ARGUMENT, "session %zu has read no token", i);
    if (status != BM_OK)
        return status;
    bm_head_lane lanes[BM_MAX_TOGETHER];
    for (size_t i = 0; i < n; i++)
        lanes[i] = head_lane(sessions[i], sessions[i]->last_n - 1);
    bm_forward_logits(sessions[0]->model, sessions[0]->options.precision, sessions[0]->options.team,
                      lanes, n);
    for (size_t i = 0; i < n; i++) {
        bm_status own =
            accept_logits(sessions[i], sessions[i]->last_n - 1, status == BM_OK ? err : NULL);
        status = status == BM_OK ? own : status;
    }
    return status;
}

static const char *const step_names[BM_STEP_COUNT] = {
    [BM_STEP_EMBED] = "embed",
    [BM_STEP_PREPARE_IN] = "prepare_in",
    [BM_STEP_PROJECT_IN] = "project_in",
    [BM_STEP_SCAN] = "scan",
    [BM_STEP_PREPARE_OUT] = "prepare_out",
    [BM_STEP_PROJECT_OUT] = "project_out",
    [BM_STEP_FINISH] = "finish",
};

const char *bm_step_name(size_t step) {
    return step < BM_STEP_COUNT ? step_names[step] : NULL;
}

bm_status bm_session_step(bm_session *s, bm_step step, size_t layer, const uint32_t *ids, size_t n,
                          bm_error *err) {
    bm_status status = bm_session_check_chunk(s, ids, n, err);
    if (status != BM_OK)
        return status;
    if ((unsigned)step >= BM_STEP_COUNT)
        return bm_fail(err, BM_E_ARGUMENT, "step %u, want below %u", (unsigned)step,
                       (unsigned)BM_STEP_COUNT);
    if (layer >= s->model->config.n_layer)
        return bm_fail(err, BM_E_ARGUMENT, "layer %zu, want below %u", layer,
                       s->model->config.n_layer);
    bm_lane lane = lane_of(s, 0, n);
    bm_chunk chunk = bm_session_chunk(s, &lane, 1, ids, n);
    bm_forward_step(&chunk, step, layer);
    return step == BM_STEP_FINISH ? bm_session_accept(s, n, err) : BM_OK;
}

bm_status bm_session_logits(bm_session *s, size_t index, const float **logits, bm_error *err) {
    bm_status status = check_ready(s, err);
    if (status != BM_OK)
        return status;
    if (index >= s->last_n)
        return bm_fail(err, BM_E_ARGUMENT, "logits of token %zu of the last append, which had %zu",
                       index, s->last_n);
    if (s->logits_of != index) {
        bm_head_lane lane = head_lane(s, index);
        bm_forward_logits(s->model, s->options.precision, s->options.team, &lane, 1);
        status = accept_logits(s, index, err);
        if (status != BM_OK)
            return status;
    }
    *logits = s->logits;
    return BM_OK;
}
