/*
 * bm_history.c: the window of recent tokens, and where the end of the text was before.
 *
 * Owns the only search there is: the Z algorithm on the text read backwards, one pass whatever it
 * holds. A text of one repeated token would take the plain search quadratic time.
 */
#include "bm_history.h"

bm_history bm_history_layout(bm_arena *arena, uint32_t vocab_size, size_t window, size_t reach) {
    size_t keep = window < reach ? reach : window;
    return (bm_history){
        .vocab_size = vocab_size,
        .window = window,
        .reach = reach,
        .keep = keep,
        .ids = bm_arena_take(arena, 2 * (uint64_t)keep, sizeof(uint32_t)),
        .count = bm_arena_take(arena, window ? vocab_size : 0, sizeof(uint32_t)),
        .common = bm_arena_take(arena, reach ? (uint64_t)reach + 1 : 0, sizeof(uint32_t)),
        .repeat = bm_arena_take(arena, reach ? vocab_size : 0, sizeof(uint32_t)),
    };
}

void bm_history_accept(bm_history *h, uint32_t id) {
    if (h->keep == 0)
        return;
    if (h->used == 2 * h->keep) {
        memcpy(h->ids, h->ids + h->keep, h->keep * sizeof *h->ids);
        h->used = h->keep;
    }
    if (h->window > 0) {
        if (h->used >= h->window)
            h->count[h->ids[h->used - h->window]]--;
        h->count[id]++;
    }
    h->ids[h->used++] = id;
}

const uint32_t *bm_history_recent(const bm_history *h, size_t *n) {
    *n = h->used < h->reach ? h->used : h->reach;
    return h->ids + (h->used - *n);
}

void bm_history_compare(bm_history *h) {
    size_t n;
    const uint32_t *ids = bm_history_recent(h, &n);
    memset(h->repeat, 0, h->vocab_size * sizeof *h->repeat);
    /* common[k]: how far the text that ends k tokens earlier is, backwards, the end of the text. */
    size_t start =
        0; /* [start, end) is the stretch that reaches farthest and is known to be equal */
    size_t end = 0;
    for (size_t k = 1; k <= n; k++) {
        size_t length = 0;
        if (k < end) {
            length = h->common[k - start];
            length = length < end - k ? length : end - k;
        }
        while (k + length < n && ids[n - 1 - length] == ids[n - 1 - k - length])
            length++;
        h->common[k] = (uint32_t)length;
        if (k + length > end) {
            start = k;
            end = k + length;
        }
        uint32_t follower = ids[n - k];
        if (h->repeat[follower] < length + 1)
            h->repeat[follower] = (uint32_t)length + 1;
    }
}
