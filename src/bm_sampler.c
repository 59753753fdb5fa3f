/*
 * bm_sampler.c: from logits to one token id.
 *
 * Owns the random state and the candidate list. Knows neither model nor session; bm_history.c knows the
 * tokens before. Everything is deterministic: our own exp, one fixed order of sums, ties to the lowest
 * id, so a seed gives the same text on every host.
 *
 * First the logits are changed (`adjust`), then candidates leave a binary heap in order of probability only as long as they are wanted: top_k 40 of
 * 32,000 costs one pass to build the heap and 40 pops, not a sort.
 */
#include "bm_history.h"

#include <math.h>

typedef struct {
    float score; /* (logit - largest logit) / temperature, then the weight exp of that */
    uint32_t id;
} candidate;

struct bm_sampler {
    bm_sampling options;
    uint32_t vocab_size;
    bm_sampler_state state; /* random: of pcg32 */
    bm_history history;
    bm_bias *biases;    /* [options.n_biases] */
    uint32_t *breakers; /* [options.n_dry_breakers] */
    float *logits;      /* [vocab_size] after all that changes them */
    uint8_t *is_banned; /* [vocab_size] */
    uint32_t *allowed;  /* [ceil(vocab_size / 32)] bits; counts while is_masked */
    bool is_masked;
    candidate *heap; /* [vocab_size] */
    candidate *kept; /* [vocab_size] in order of falling probability */
};

static const float LN_2 = 0.693147181f;
/* Mirostat's mu stays positive: below, one token is kept anyway. */
static const float LEAST_MU = 1e-6f;

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

/* Whether the search for repetitions is wanted. */
static bool looks_back(const bm_sampling *o) {
    return o->no_repeat_ngram > 0 || o->dry_multiplier > 0.0f;
}

static size_t mask_words(uint32_t vocab_size) {
    return ((size_t)vocab_size + 31) / 32;
}

static bm_sampler *layout(bm_arena *arena, uint32_t vocab_size, const bm_sampling *o) {
    bm_sampler *s = bm_arena_take(arena, 1, sizeof *s);
    bm_sampler plan = {
        .options = *o,
        .vocab_size = vocab_size,
        .state = {.random = random_seed(o->seed)},
        .history = bm_history_layout(arena, vocab_size, o->repetition_window,
                                     looks_back(o) ? o->history_window : 0),
        .biases = bm_arena_take(arena, o->n_biases, sizeof(bm_bias)),
        .breakers = bm_arena_take(arena, o->n_dry_breakers, sizeof(uint32_t)),
        .logits = bm_arena_take(arena, vocab_size, sizeof(float)),
        .is_banned = bm_arena_take(arena, vocab_size, sizeof(uint8_t)),
        .allowed = bm_arena_take(arena, mask_words(vocab_size), sizeof(uint32_t)),
        .heap = bm_arena_take(arena, vocab_size, sizeof(candidate)),
        .kept = bm_arena_take(arena, vocab_size, sizeof(candidate)),
    };
    if (s) { /* NULL while measuring */
        *s = plan;
        if (o->n_biases)
            memcpy(s->biases, o->biases, o->n_biases * sizeof *s->biases);
        if (o->n_dry_breakers)
            memcpy(s->breakers, o->dry_breakers, o->n_dry_breakers * sizeof *s->breakers);
    }
    return s;
}

/* One of the options that are numbers, and where it has to be. */
typedef struct {
    const char *name;
    double value;
    double min;
    double max;
    bool is_open;     /* the minimum itself is not allowed */
    bool may_be_zero; /* also below the minimum */
} limit;

static bm_status check_limits(const bm_sampling *o, bm_error *err) {
    bool uses_dry = o->dry_multiplier != 0.0f;
    const limit limits[] = {
        {"repetition_penalty", (double)o->repetition_penalty, 0, 100, true, false},
        {"repetition_window", o->repetition_window, 0, BM_MAX_WINDOW, false, false},
        {"frequency_penalty", (double)o->frequency_penalty, -100, 100, false, false},
        {"presence_penalty", (double)o->presence_penalty, -100, 100, false, false},
        {"history_window", o->history_window, 0, BM_MAX_WINDOW, false, false},
        {"dry_multiplier", (double)o->dry_multiplier, 0, 100, false, false},
        {"dry_base", uses_dry ? (double)o->dry_base : 1, 1, 100, false, false},
        {"dry_allowed_length", uses_dry ? o->dry_allowed_length : 1, 1, 64, false, false},
        {"no_repeat_ngram", o->no_repeat_ngram, 0, 64, false, false},
        {"temperature", (double)o->temperature, (double)1e-3f, 100, false, true},
        {"typical_p", (double)o->typical_p, 0, 1, true, false},
        {"top_p", (double)o->top_p, 0, 1, true, false},
        {"min_p", (double)o->min_p, 0, 1, false, false},
        {"mirostat_tau", (double)o->mirostat_tau, 0, 100, false, false},
        {"mirostat_eta", o->mirostat_tau != 0.0f ? (double)o->mirostat_eta : 1, 0, 1, true, false},
        {"biases", (double)o->n_biases, 0, BM_MAX_BIASES, false, false},
        {"dry_breakers", (double)o->n_dry_breakers, 0, BM_MAX_BREAKERS, false, false},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const limit *l = &limits[i];
        bool fits = l->value >= l->min && l->value <= l->max && !(l->is_open && l->value == l->min);
        if (!fits && !(l->may_be_zero && l->value == 0))
            return bm_fail(err, BM_E_ARGUMENT, "%s is out of range, want %s%g to %g%s", l->name,
                           l->is_open ? "above " : "", l->min, l->max,
                           l->may_be_zero ? ", or 0" : "");
    }
    return BM_OK;
}

static bm_status check_lists(const bm_sampling *o, uint32_t vocab_size, bm_error *err) {
    for (size_t i = 0; i < o->n_biases; i++) {
        const bm_bias *b = &o->biases[i];
        if (b->id >= vocab_size)
            return bm_fail(err, BM_E_ARGUMENT, "a bias for token id %u, want below %u", b->id,
                           vocab_size);
        if (!(b->bias >= -100.0f && b->bias <= 100.0f) && b->bias != -INFINITY)
            return bm_fail(
                err, BM_E_ARGUMENT,
                "the bias of token id %u is out of range, want -100 to 100, or -infinity", b->id);
        for (size_t other = 0; other < i; other++)
            if (o->biases[other].id == b->id)
                return bm_fail(err, BM_E_ARGUMENT, "two biases for token id %u", b->id);
    }
    for (size_t i = 0; i < o->n_dry_breakers; i++)
        if (o->dry_breakers[i] >= vocab_size)
            return bm_fail(err, BM_E_ARGUMENT, "a breaker of token id %u, want below %u",
                           o->dry_breakers[i], vocab_size);
    return BM_OK;
}

bm_status bm_sampler_create(uint32_t vocab_size, const bm_sampling *options, bm_sampler **out,
                            bm_error *err) {
    if (vocab_size < 1)
        return bm_fail(err, BM_E_ARGUMENT, "vocab_size is 0, want at least 1");
    bm_status status = check_limits(options, err);
    if (status == BM_OK)
        status = check_lists(options, vocab_size, err);
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
    if (id < s->vocab_size)
        bm_history_accept(&s->history, id);
}

bm_sampler_state bm_sampler_save(const bm_sampler *s) {
    return s->state;
}

void bm_sampler_restore(bm_sampler *s, const bm_sampler_state *state) {
    bool has_mu = bm_is_finite(state->mu) && state->mu > 0.0f;
    s->state = (bm_sampler_state){.random = state->random, .mu = has_mu ? state->mu : 0.0f};
}

/* ---- Changing the logits ------------------------------------------------------------------------ */

static float finite(float x) {
    x = x < -FLT_MAX ? -FLT_MAX : x;
    return FLT_MAX < x ? FLT_MAX : x;
}

static void penalise_recent(bm_sampler *s) {
    const bm_sampling *o = &s->options;
    if (s->history.window == 0)
        return;
    for (uint32_t id = 0; id < s->vocab_size; id++) {
        uint32_t count = s->history.count[id];
        if (count == 0)
            continue;
        float x = s->logits[id];
        x = finite(x > 0.0f ? x / o->repetition_penalty : x * o->repetition_penalty);
        s->logits[id] = finite(x - (o->frequency_penalty * (float)count + o->presence_penalty));
    }
}

/* How far back the text is free of breakers. */
static size_t unbroken(const bm_sampler *s) {
    size_t n;
    const uint32_t *ids = bm_history_recent(&s->history, &n);
    for (size_t length = 0; length < n; length++)
        for (size_t i = 0; i < s->options.n_dry_breakers; i++)
            if (ids[n - 1 - length] == s->breakers[i])
                return length;
    return n;
}

static void penalise_repeats(bm_sampler *s) {
    const bm_sampling *o = &s->options;
    size_t most = unbroken(s);
    for (uint32_t id = 0; id < s->vocab_size; id++) {
        if (s->history.repeat[id] == 0)
            continue;
        size_t length = s->history.repeat[id] - 1;
        length = length < most ? length : most;
        if (length < o->dry_allowed_length)
            continue;
        float penalty = o->dry_multiplier;
        /* Beyond a million nothing changes any more. */
        for (size_t i = o->dry_allowed_length; i < length && penalty < 1e6f && o->dry_base > 1.0f;
             i++)
            penalty *= o->dry_base;
        s->logits[id] = finite(s->logits[id] - penalty);
    }
}

static bool is_allowed(const bm_sampler *s, uint32_t id) {
    return !s->is_masked || (s->allowed[id / 32] >> id % 32 & 1u) != 0;
}

/* Marks what is not allowed and what has a bias of -infinity; returns how many ids that leaves. */
static size_t ban_for_good(bm_sampler *s) {
    const bm_sampling *o = &s->options;
    size_t left = 0;
    for (uint32_t id = 0; id < s->vocab_size; id++) {
        s->is_banned[id] = !is_allowed(s, id);
        left += !s->is_banned[id];
    }
    for (size_t i = 0; i < o->n_biases; i++) {
        uint8_t *mark = &s->is_banned[s->biases[i].id];
        if (s->biases[i].bias == -INFINITY && !*mark) {
            *mark = 1;
            left--;
        }
    }
    return left;
}

/* Also marks what would repeat an n-gram. Returns whether any id of those `left` stays. */
static bool ban_repeats(bm_sampler *s, size_t left) {
    const bm_sampling *o = &s->options;
    if (o->no_repeat_ngram > 0 && s->history.reach > 0)
        for (uint32_t id = 0; id < s->vocab_size; id++)
            if (!s->is_banned[id] && s->history.repeat[id] >= o->no_repeat_ngram) {
                s->is_banned[id] = 1;
                left--;
            }
    return left > 0;
}

/*
 * Marks what may not be drawn, and returns whether anything is marked. Where that would be all, repeating gives way; and where
 * biases alone ban all, they do: bm_sampler_allow has seen to it that the mask is not part of that.
 */
static bool ban(bm_sampler *s) {
    const bm_sampling *o = &s->options;
    if (!s->is_masked && o->n_biases == 0 && o->no_repeat_ngram == 0)
        return false;
    if (ban_repeats(s, ban_for_good(s)))
        return true;
    if (s->is_masked) {
        ban_for_good(s);
        return true;
    }
    memset(s->is_banned, 0, s->vocab_size);
    return false;
}

bm_status bm_sampler_allow(bm_sampler *s, const uint32_t *allowed, bm_error *err) {
    if (allowed) {
        size_t left = 0;
        for (uint32_t id = 0; id < s->vocab_size; id++)
            left += allowed[id / 32] >> id % 32 & 1u;
        if (left == 0)
            return bm_fail(err, BM_E_ARGUMENT, "no token is allowed");
        for (size_t i = 0; i < s->options.n_biases; i++)
            if (s->biases[i].bias == -INFINITY)
                left -= allowed[s->biases[i].id / 32] >> s->biases[i].id % 32 & 1u;
        if (left == 0)
            return bm_fail(err, BM_E_ARGUMENT,
                           "every token that is allowed here has a bias of -infinity");
        memcpy(s->allowed, allowed, mask_words(s->vocab_size) * sizeof *allowed);
    }
    s->is_masked = allowed != NULL;
    return BM_OK;
}

static void adjust(bm_sampler *s, const float *logits) {
    memcpy(s->logits, logits, s->vocab_size * sizeof *logits);
    for (size_t i = 0; i < s->options.n_biases; i++)
        if (s->biases[i].bias != -INFINITY) {
            float *x = &s->logits[s->biases[i].id];
            *x = finite(*x + s->biases[i].bias);
        }
    penalise_recent(s);
    if (s->history.reach == 0)
        return;
    bm_history_compare(&s->history);
    if (s->options.dry_multiplier > 0.0f)
        penalise_repeats(s);
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

static void heapify(candidate *heap, size_t n) {
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i);
}

/* ---- Sampling ---------------------------------------------------------------------------------- */

static candidate most_likely(const bm_sampler *s, bool has_bans) {
    candidate best = {-INFINITY, 0};
    for (uint32_t id = 0; id < s->vocab_size; id++) {
        candidate next = {s->logits[id], id};
        if (!(has_bans && s->is_banned[id]) && is_before(next, best))
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

/*
 * Locally typical sampling: of the n scores in the heap only those stay, as a heap again, whose surprise is nearest to the
 * entropy. `best` is the largest logit.
 */
static size_t keep_typical(bm_sampler *s, size_t n, float best) {
    candidate *list = s->heap;
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)bm_exp(list[i].score);
    double log_sum = (double)bm_log((float)sum);
    double entropy = 0.0;
    for (size_t i = 0; i < n; i++)
        entropy += (double)bm_exp(list[i].score) / sum * (log_sum - (double)list[i].score);
    for (size_t i = 0; i < n; i++)
        list[i].score = -bm_abs((float)(log_sum - (double)list[i].score - entropy));
    heapify(list, n);
    size_t kept = 0;
    double mass = 0.0;
    while (kept < n && mass < (double)s->options.typical_p) {
        candidate next = pop(list, n - kept);
        float score = (s->logits[next.id] - best) / s->options.temperature;
        mass += (double)bm_exp(score) / sum;
        kept++;
        list[n - kept] = (candidate){score, next.id}; /* the place that pop has freed */
    }
    memmove(list, list + (n - kept), kept * sizeof *list);
    heapify(list, kept);
    return kept;
}

/* Mirostat: moves to `kept`, most likely first, what is no greater surprise than mu bits; at least one. */
static size_t keep_unsurprising(bm_sampler *s, size_t n, double *sum) {
    if (s->state.mu == 0.0f)
        s->state.mu = 2.0f * s->options.mirostat_tau;
    double all = weigh(s->heap, n);
    double least = all * (double)bm_exp(-s->state.mu * LN_2);
    size_t kept = 0;
    *sum = 0.0;
    while (kept < n && (kept == 0 || (double)s->heap[0].score >= least)) {
        s->kept[kept] = pop(s->heap, n - kept);
        *sum += (double)s->kept[kept++].score;
    }
    return kept;
}

static candidate draw(bm_sampler *s, size_t kept, double sum) {
    double point = random_unit(&s->state.random) * sum;
    for (size_t i = 0; i + 1 < kept; i++) {
        point -= (double)s->kept[i].score;
        if (point < 0.0)
            return s->kept[i];
    }
    return s->kept[kept - 1];
}

uint32_t bm_sampler_sample(bm_sampler *s, const float *logits) {
    const bm_sampling *o = &s->options;
    adjust(s, logits);
    bool has_bans = ban(s);
    candidate best = most_likely(s, has_bans);
    if (o->temperature == 0.0f)
        return best.id;
    size_t n = 0;
    for (uint32_t id = 0; id < s->vocab_size; id++)
        if (!(has_bans && s->is_banned[id]))
            s->heap[n++] = (candidate){(s->logits[id] - best.score) / o->temperature, id};
    heapify(s->heap, n);
    double sum;
    if (o->mirostat_tau > 0.0f) {
        size_t kept = keep_unsurprising(s, n, &sum);
        candidate drawn = draw(s, kept, sum);
        float bits = bm_log((float)(sum / (double)drawn.score)) / LN_2;
        float mu = s->state.mu - o->mirostat_eta * (bits - o->mirostat_tau);
        s->state.mu = mu < LEAST_MU ? LEAST_MU : mu;
        return drawn.id;
    }
    if (o->typical_p < 1.0f) {
        if (o->top_k > 0 && o->top_k < n) {
            for (size_t i = 0; i < o->top_k; i++)
                s->kept[i] = pop(s->heap, n - i);
            n = o->top_k;
            memcpy(s->heap, s->kept, n * sizeof *s->heap);
        }
        n = keep_typical(s, n, best.score);
    }
    size_t kept = keep_likely(s, n, &sum);
    return draw(s, kept, sum).id;
}

/* log of the sum of exp(logits), over the largest of them. */
static double log_sum_exp(const float *logits, size_t n, float max) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)bm_exp(logits[i] - max);
    return (double)bm_log((float)sum);
}

static float largest_of(const float *logits, size_t n) {
    float max = logits[0];
    for (size_t i = 1; i < n; i++)
        max = max < logits[i] ? logits[i] : max;
    return max;
}

double bm_log_softmax(const float *logits, size_t n, size_t id) {
    float max = largest_of(logits, n);
    return (double)(logits[id] - max) - log_sum_exp(logits, n, max);
}

size_t bm_top_logprobs(const float *logits, size_t n, size_t k, uint32_t *ids, double *logprobs) {
    candidate top[BM_MAX_TOP];
    size_t most = k < BM_MAX_TOP ? k : BM_MAX_TOP;
    size_t kept = 0;
    for (uint32_t id = 0; id < n; id++) {
        candidate next = {logits[id], id};
        if (kept == most && (kept == 0 || !is_before(next, top[kept - 1])))
            continue;
        size_t at = kept < most ? kept++ : kept - 1;
        for (; at > 0 && is_before(next, top[at - 1]); at--)
            top[at] = top[at - 1];
        top[at] = next;
    }
    float max = kept > 0 ? top[0].score : 0.0f;
    double log_sum = kept > 0 ? log_sum_exp(logits, n, max) : 0.0;
    for (size_t i = 0; i < kept; i++) {
        ids[i] = top[i].id;
        logprobs[i] = (double)(top[i].score - max) - log_sum;
    }
    return kept;
}
