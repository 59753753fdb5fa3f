/*
 * bm_history.h: the tokens that a sampler has accepted, and what they say against each token that may follow.
 *
 * Knows ids only; knows no logits.
 */
#ifndef BM_HISTORY_H
#define BM_HISTORY_H

#include "bm_base.h"

typedef struct {
    uint32_t vocab_size;
    size_t window;    /* how many of the last ids `count` counts */
    size_t reach;     /* how many of them bm_history_compare looks at; 0: it is never called */
    size_t used;      /* ids that are there */
    uint32_t *ids;    /* [2 * keep] the last of them, oldest first */
    size_t keep;      /* the larger of window and reach */
    uint32_t *count;  /* [vocab_size] how often each id is in the window */
    uint32_t *common; /* [reach + 1] scratch */
    uint32_t *repeat; /* [vocab_size] see bm_history_compare */
} bm_history;

bm_history bm_history_layout(bm_arena *arena, uint32_t vocab_size, size_t window, size_t reach);

/* `id` < vocab_size. */
void bm_history_accept(bm_history *history, uint32_t id);

/*
 * Fills `repeat`: for each id, 1 and the length of the longest end of the text that the id has followed before
 * within reach, so that it would make that stretch one longer a repetition; 0: it has not been there. Takes time in
 * proportion to the reach.
 */
void bm_history_compare(bm_history *history);

/* The ids within reach, oldest first. */
const uint32_t *bm_history_recent(const bm_history *history, size_t *n);

#endif
