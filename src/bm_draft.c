/*
 * bm_draft.c: tokens that may turn out wrong, read at once, and then kept or taken back.
 *
 * Owns a second state, which has read all of them, and what they gave the recurrence of each layer. What a layer does is
 * bm_forward.c's.
 * The idea: when all were right, which is what makes a draft worth its while, the two states change places; else those that
 * were right are given to the first state again. So what is common costs nothing.
 */
#include "bm_session.h"

struct bm_draft {
    bm_session *session;
    size_t n; /* that were read last */
    bool
        is_exchanged; /* the session works on this draft's state, and this draft on the session's */
    bm_trial trial;
};

static bm_draft *layout(bm_arena *arena, const bm_session *s, size_t n) {
    const bm_model *m = s->model;
    bm_draft *d = bm_arena_take(arena, 1, sizeof *d);
    bm_trial trial = {.capacity = n, .stride = bm_trial_stride(&m->dims)};
    trial.other = bm_state_layout(arena, &m->config, s->options.state_dtype);
    trial.inputs =
        bm_arena_take(arena, (uint64_t)m->config.n_layer * n * trial.stride, sizeof(float));
    if (d) /* NULL while measuring */
        *d = (bm_draft){.trial = trial};
    return d;
}

bm_status bm_draft_create(bm_session *session, size_t n, bm_draft **out, bm_error *err) {
    if (n < 1 || n > session->options.max_chunk)
        return bm_fail(err, BM_E_ARGUMENT, "a draft of %zu tokens, want 1 to %u", n,
                       session->options.max_chunk);
    if (session->has_draft)
        return bm_fail(err, BM_E_ORDER, "the session has a draft: free it first");
    bm_arena arena = {0};
    layout(&arena, session, n);
    arena.base = bm_block_alloc(arena.used);
    if (!arena.base)
        return bm_fail(err, BM_E_MEMORY, "no memory for a draft: %u MiB wanted",
                       (unsigned)(arena.used >> 20));
    arena.used = 0;
    *out = layout(&arena, session, n);
    (*out)->session = session;
    session->has_draft = true;
    return BM_OK;
}

/* The two states change places; the session's position is its own. */
static void exchange(bm_draft *d) {
    bm_timeline *own = &d->session->timeline;
    bm_timeline before = *own;
    *own = d->trial.other;
    own->position = before.position;
    d->trial.other = before;
    d->is_exchanged = !d->is_exchanged;
}

void bm_draft_free(bm_draft *d) {
    if (!d)
        return;
    bm_session *s = d->session;
    if (s->draft == d) {
        s->draft = NULL; /* the state never had what was tried */
        bm_session_take_back(s, d->trial.certain);
    }
    if (d->is_exchanged) {
        exchange(d);
        memcpy(s->timeline.last, d->trial.other.last, (size_t)s->state_bytes);
    }
    s->has_draft = false;
    bm_block_free(d);
}

bm_status bm_draft_read(bm_draft *d, const uint32_t *ids, size_t n, size_t certain, bm_error *err) {
    bm_session *s = d->session;
    bm_status status = bm_session_check_chunk(s, ids, n, err);
    if (status != BM_OK)
        return status;
    if (n > d->trial.capacity)
        return bm_fail(err, BM_E_ARGUMENT, "%zu tokens in a draft of up to %zu", n,
                       d->trial.capacity);
    if (certain > n)
        return bm_fail(err, BM_E_ARGUMENT, "%zu certain tokens of %zu", certain, n);
    if (s->timeline.position > 0)
        bm_session_state(s); /* its last vector is there then, should nothing of this be kept */
    d->n = n;
    d->trial.certain = certain;
    bm_lane lane = {.timeline = &s->timeline, .n = n};
    bm_chunk chunk = bm_session_chunk(s, &lane, 1, ids, n);
    chunk.trial = &d->trial;
    bm_forward(&chunk);
    s->draft = d;
    return bm_session_accept(s, n, err);
}

bm_status bm_draft_keep(bm_draft *d, size_t count, bm_error *err) {
    bm_session *s = d->session;
    if (s->failed)
        return bm_session_spoilt(err);
    if (s->draft != d)
        return bm_fail(err, BM_E_ORDER, "no draft was read since the last one was kept");
    size_t certain = d->trial.certain;
    if (count < 1 || count < certain || count > d->n)
        return bm_fail(err, BM_E_ARGUMENT, "%zu tokens of a draft are kept, want %zu to %zu", count,
                       certain < 1 ? (size_t)1 : certain, d->n);
    s->draft = NULL;
    if (count == d->n && count > certain) {
        exchange(d);
        s->timeline.position += count - certain;
    } else if (count > certain) {
        bm_lane lane = {.timeline = &s->timeline, .n = count - certain};
        bm_chunk chunk = bm_session_chunk(s, &lane, 1, NULL, count - certain);
        chunk.trial = &d->trial;
        bm_forward_replay(&chunk);
    }
    s->last_n = count;
    return BM_OK;
}
