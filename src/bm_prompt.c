/*
 * bm_prompt.c: a prompt that is read while the model is still arriving.
 *
 * Owns the ids and the residual stream of all its tokens between two layers. What a layer does is bm_forward.c's.
 */
#include "bm_session.h"

struct bm_prompt {
    bm_session *session;
    size_t n;
    size_t part;   /* of the model, that is being passed; past the last one: all are */
    size_t token;  /* the next one in it */
    uint32_t *ids; /* [n] */
    float *r;      /* [n, d_model] residual stream */
};

static bm_prompt *layout_prompt(bm_arena *arena, const bm_session *s, size_t n) {
    bm_prompt *p = bm_arena_take(arena, 1, sizeof *p);
    uint32_t *ids = bm_arena_take(arena, n, sizeof(uint32_t));
    float *r = bm_arena_take(arena, (uint64_t)n * s->model->config.d_model, sizeof(float));
    if (p) /* NULL while measuring */
        *p = (bm_prompt){.n = n, .ids = ids, .r = r};
    return p;
}

bm_status bm_prompt_create(bm_session *session, size_t n, bm_prompt **out, bm_error *err) {
    if (n < 1)
        return bm_fail(err, BM_E_ARGUMENT, "a prompt of 0 tokens, want at least 1");
    bm_arena arena = {0};
    layout_prompt(&arena, session, n);
    arena.base = bm_block_alloc(arena.used);
    if (!arena.base)
        return bm_fail(err, BM_E_MEMORY, "no memory for a prompt: %u MiB wanted",
                       (unsigned)(arena.used >> 20));
    arena.used = 0;
    *out = layout_prompt(&arena, session, n);
    (*out)->session = session;
    return BM_OK;
}

bm_status bm_prompt_set(bm_prompt *p, size_t start, const uint32_t *ids, size_t n, bm_error *err) {
    if (start > p->n || n > p->n - start)
        return bm_fail(err, BM_E_ARGUMENT, "ids up to %zu of a prompt of %zu", start + n, p->n);
    if (p->session->prompt == p)
        return bm_fail(err, BM_E_ORDER, "the prompt is being read");
    bm_status status = bm_session_check_ids(p->session, ids, n, err);
    if (status == BM_OK)
        memcpy(p->ids + start, ids, n * sizeof *ids);
    return status;
}

void bm_prompt_free(bm_prompt *p) {
    if (p && p->session->prompt == p)
        bm_session_reset(p->session); /* layers that differ in what they know are no state */
    bm_block_free(p);
}

size_t bm_prompt_next_part(const bm_prompt *p) {
    return p->part;
}

static size_t last_part(const bm_session *s) {
    return (size_t)s->model->config.n_layer + 1;
}

static bm_status begin(bm_prompt *p, bm_error *err) {
    bm_session *s = p->session;
    if (s->failed)
        return bm_session_spoilt(err);
    if (s->prompt || s->timeline.position != 0 || p->part != 0 || p->token != 0)
        return bm_fail(err, BM_E_ORDER, "the session is not at its beginning: reset it");
    s->prompt = p;
    return BM_OK;
}

/* The part's share of tokens [token, token + n). */
static bm_status pass_part(bm_prompt *p, size_t n, bm_error *err) {
    bm_session *s = p->session;
    bm_scratch scratch = s->scratch;
    scratch.r = p->r + p->token * s->model->config.d_model;
    /* A layer sees its own position; the session's moves at the end. */
    bm_timeline timeline = s->timeline;
    timeline.position += p->token;
    bm_lane lane = {.timeline = p->part == last_part(s) ? &s->timeline : &timeline, .n = n};
    bm_chunk chunk = bm_session_chunk(s, &lane, 1, p->ids + p->token, n);
    chunk.scratch = &scratch;
    if (p->part == last_part(s)) {
        bm_forward_step(&chunk, BM_STEP_FINISH, 0);
        return bm_session_accept(s, n, err);
    }
    if (p->part == 0)
        bm_forward_step(&chunk, BM_STEP_EMBED, 0);
    else
        for (bm_step step = BM_STEP_PREPARE_IN; step <= BM_STEP_PROJECT_OUT; step++)
            bm_forward_step(&chunk, step, p->part - 1);
    return BM_OK;
}

bm_status bm_prompt_step(bm_prompt *p, bm_error *err) {
    bm_session *s = p->session;
    if (p->part > last_part(s))
        return bm_fail(err, BM_E_ORDER, "the prompt has been read");
    if (!bm_model_part_is_sealed(s->model, p->part))
        return bm_fail(err, BM_E_ORDER, "the model is not complete: part %zu is missing", p->part);
    bm_status status = s->prompt == p ? BM_OK : begin(p, err);
    if (status != BM_OK)
        return status;
    size_t left = p->n - p->token;
    size_t n = left < s->options.max_chunk ? left : s->options.max_chunk;
    status = pass_part(p, n, err);
    p->token += n;
    if (p->token == p->n) {
        p->token = 0;
        p->part++;
    }
    if (p->part > last_part(s) || status != BM_OK)
        s->prompt = NULL;
    return status;
}
