/*
 * bm_sampler.c: from logits to one token id.
 *
 * Owns the random state, the window of recent tokens and the candidate list. Knows neither model nor
 * session. Everything is deterministic: our own exp, one fixed order of sums, ties to the lowest id,
 * so a seed gives the same text on every host.
 *
 * Candidates leave a binary heap in order of probability only as long as they are wanted: top_k 40 of
 * 32,000 costs one pass to build the heap and 40 pops, not a sort.
 */
#include "bm_base.h"

typedef struct {
    float score; /* (logit - largest logit) / temperature, then the weight exp of that */
    uint32_t id;
} candidate;

struct bm_sampler {
    bm_sampling options;
    uint32_t vocab_size;
    uint64_t random;      /* state of pcg32 */
    uint32_t window_used; /* tokens in the window, up to options.repetition_window */
    uint32_t window_next; /* where the next one goes */
    uint32_t *window;     /* [repetition_window] ring of recent ids */
    uint32_t *recent;     /* [vocab_size] how often each id is in the window */
    candidate *heap;      /* [vocab_size] */
    candidate *kept;      /* [vocab_size] in order of falling probability */
};

/* ---- Random numbers: PCG-XSH-RR 64/32 (M. O'Neill, 2014) ---------------------------------------- */

static uint32_t random_next(uint64_t *state) {
    uint64_t old = *state;
    *state = old * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)((old >> 18 ^ old) >> 27);
    uint32_t r = (uint32_t)(old >> 59);
    return x >> r | x << (-r & 31);
}

static uint64_t random_seed(uint64_t seed) {
    uint64_t state = seed + 1442695040888963407u;
    random_next(&state);
    return state;
}

/* Uniform in [0, 1), 53 bits. */
static double random_unit(uint64_t *state) {
    uint64_t high = random_next(state) >> 5;
    uint64_t low = random_next(state) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static bm_sampler *layout(bm_arena *arena, uint32_t vocab_size, const bm_sampling *o) {
    bm_sampler *s = bm_arena_take(arena, 1, sizeof *s);
    bm_sampler plan = {
        .options = *o,
        .vocab_size = vocab_size,
        .random = random_seed(o->seed),
        .window = bm_arena_take(arena, o->repetition_window, sizeof(uint32_t)),
        .recent = bm_arena_take(arena, vocab_size, sizeof(uint32_t)),
        .heap = bm_arena_take(arena, vocab_size, sizeof(candidate)),
        .kept = bm_arena_take(arena, vocab_size, sizeof(candidate)),
    };
    if (s)
        *s = plan; /* NULL while measuring */
    return s;
}

static bm_status check(const bm_sampling *o, bm_error *err) {
    if (!(o->repetition_penalty > 0.0f && o->repetition_penalty <= 100.0f))
        return bm_fail(err, BM_E_ARGUMENT, "repetition_penalty is out of range, want 0 < p <= 100");
    if (o->repetition_window > 65536)
        return bm_fail(err, BM_E_ARGUMENT, "repetition_window is %u, want at most 65536",
                       o->repetition_window);
    if (o->temperature != 0.0f && !(o->temperature >= 1e-3f && o->temperature <= 100.0f))
        return bm_fail(err, BM_E_ARGUMENT, "temperature is out of range, want 0 or 0.001 to 100");
    if (!(o->top_p > 0.0f && o->top_p <= 1.0f))
        return bm_fail(err, BM_E_ARGUMENT, "top_p is out of range, want 0 < p <= 1");
    if (!(o->min_p >= 0.0f && o->min_p <= 1.0f))
        return bm_fail(err, BM_E_ARGUMENT, "min_p is out of range, want 0 to 1");
    return BM_OK;
}

bm_status bm_sampler_create(uint32_t vocab_size, const bm_sampling *options, bm_sampler **out,
                            bm_error *err) {
    if (vocab_size < 1)
        return bm_fail(err, BM_E_ARGUMENT, "vocab_size is 0, want at least 1");
    bm_status status = check(options, err);
    if (status != BM_OK)
        return status;
    bm_arena arena = {0};
    layout(&arena, vocab_size, options);
    arena.base = bm_block_alloc(arena.used);
    if (!arena.base)
        return bm_fail(err, BM_E_MEMORY, "no memory for a sampler: %u KiB wanted",
                       (unsigned)(arena.used >> 10));
    arena.used = 0;
    *out = layout(&arena, vocab_size, options);
    return BM_OK;
}

void bm_sampler_free(bm_sampler *sampler) {
    bm_block_free(sampler);
}

void bm_sampler_accept(bm_sampler *s, uint32_t id) {
    uint32_t size = s->options.repetition_window;
    if (size == 0 || id >= s->vocab_size)
        return;
    if (s->window_used == size)
        s->recent[s->window[s->window_next]]--;
    else
        s->window_used++;
    s->window[s->window_next] = id;
    s->window_next = (s->window_next + 1) % size;
    s->recent[id]++;
}

/* ---- Heap of candidates ------------------------------------------------------------------------ */

static bool is_before(candidate a, candidate b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

static void sift_down(candidate *heap, size_t n, size_t at) {
    candidate moving = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && is_before(heap[child + 1], heap[child]))
            child++;
        if (!is_before(heap[child], moving))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static candidate pop(candidate *heap, size_t n) {
    candidate first = heap[0];
    heap[0] = heap[n - 1];
    sift_down(heap, n - 1, 0);
    return first;
}

/* ---- Sampling ---------------------------------------------------------------------------------- */

static float penalised(const bm_sampler *s, float logit, uint32_t id) {
    if (s->recent[id] == 0)
        return logit;
    float penalty = s->options.repetition_penalty;
    float changed = logit > 0.0f ? logit / penalty : logit * penalty;
    changed = changed < -FLT_MAX ? -FLT_MAX : changed; /* stays finite, as the logits are */
    return FLT_MAX < changed ? FLT_MAX : changed;
}

static candidate most_likely(const bm_sampler *s, const float *logits) {
    candidate best = {penalised(s, logits[0], 0), 0};
    for (uint32_t id = 1; id < s->vocab_size; id++) {
        candidate next = {penalised(s, logits[id], id), id};
        if (is_before(next, best))
            best = next;
    }
    return best;
}

/*
 * Turns scores into weights in place and returns their sum, at least 1: the best score is 0. The heap
 * stays a heap, since exp is monotonic; where weights tie that scores did not, the lower id leaves first.
 */
static double weigh(candidate *list, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        list[i].score = bm_exp(list[i].score);
        sum += (double)list[i].score;
    }
    return sum;
}

/*
 * Moves candidates from the heap of n scores to `kept`, most likely first, until top_k, top_p or
 * min_p ends the list; leaves their weights and their sum, and returns how many there are: at least 1.
 */
static size_t keep_likely(bm_sampler *s, size_t n, double *sum) {
    const bm_sampling *o = &s->options;
    bool is_top_k = o->top_k > 0 && o->top_k < n;
    if (is_top_k) { /* top_p and min_p then see only these */
        for (size_t i = 0; i < o->top_k; i++)
            s->kept[i] = pop(s->heap, n - i);
        n = o->top_k;
    }
    double all = weigh(is_top_k ? s->kept : s->heap, n);
    if (o->top_p == 1.0f && o->min_p == 0.0f) {
        if (!is_top_k)
            memcpy(s->kept, s->heap, n * sizeof *s->kept);
        *sum = all;
        return n;
    }
    size_t kept = 0;
    *sum = 0.0;
    while (kept < n && (kept == 0 || o->top_p == 1.0f || *sum < (double)o->top_p * all)) {
        candidate next = is_top_k ? s->kept[kept] : pop(s->heap, n - kept);
        if (kept > 0 && next.score < o->min_p)
            break;
        s->kept[kept++] = next;
        *sum += (double)next.score;
    }
    return kept;
}

uint32_t bm_sampler_sample(bm_sampler *s, const float *logits) {
    candidate best = most_likely(s, logits);
    if (s->options.temperature == 0.0f)
        return best.id;
    size_t n = s->vocab_size;
    for (uint32_t id = 0; id < n; id++) {
        float below = penalised(s, logits[id], id) - best.score;
        s->heap[id] = (candidate){below / s->options.temperature, id};
    }
    for (size_t i = n / 2; i-- > 0;)
        sift_down(s->heap, n, i);
    double sum;
    size_t kept = keep_likely(s, n, &sum);
    double point = random_unit(&s->random) * sum;
    for (size_t i = 0; i + 1 < kept; i++) {
        point -= (double)s->kept[i].score;
        if (point < 0.0)
            return s->kept[i].id;
    }
    return s->kept[kept - 1].id;
}

double bm_log_softmax(const float *logits, size_t n, size_t id) {
    float max = logits[0];
    for (size_t i = 1; i < n; i++)
        max = max < logits[i] ? logits[i] : max;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)bm_exp(logits[i] - max);
    return (double)(logits[id] - max) - (double)bm_log((float)sum);
}
