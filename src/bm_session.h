/*
 * bm_session.h: a session as its own files see it: one timeline, and what is done with it in steps.
 *
 * Knows the fields and the checks that bm_session.c, bm_prompt.c and bm_draft.c share; bm.h says what each call means.
 */
#ifndef BM_SESSION_H
#define BM_SESSION_H

#include "bm_forward.h"

struct bm_session {
    const bm_model *model;
    bm_session_options options;
    bm_timeline timeline;
    bm_scratch scratch;
    float *logits;     /* [vocab_size] */
    size_t last_n;     /* tokens of the last append; 0 after a reset */
    size_t logits_of;  /* the token of the last append that `logits` belongs to, or none */
    bool failed;       /* NaN or infinity reached the state */
    bm_prompt *prompt; /* that is on its way through the layers, or NULL */
    bm_draft *draft;   /* that was read, and of which nobody has said yet what is kept; or NULL */
    bool has_draft;    /* one was created and not freed */
    uint64_t state_bytes; /* of the timeline's arrays, one block from `last` on */
};

/* The state holds NaN or infinity. */
bm_status bm_session_spoilt(bm_error *err);

bm_status bm_session_check_ids(const bm_session *s, const uint32_t *ids, size_t n, bm_error *err);

/* n ids can be appended now. */
bm_status bm_session_check_chunk(const bm_session *s, const uint32_t *ids, size_t n, bm_error *err);

/* Tokens in the memory and with the options of a session. */
bm_chunk bm_session_chunk(const bm_session *s, const bm_lane *lanes, size_t n_lanes,
                          const uint32_t *ids, size_t n);

/* The n tokens of a chunk are through. */
bm_status bm_session_accept(bm_session *s, size_t n, bm_error *err);

/* Of the last append only the first n tokens count. None: the last token is that of the state's `last` again. */
void bm_session_take_back(bm_session *s, size_t n);

#endif
