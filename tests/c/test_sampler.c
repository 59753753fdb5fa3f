/*
 * test_sampler.c: which ids may be drawn, and how often, against a plain oracle in double precision.
 *
 * The oracle sorts all candidates and applies the options one after another, as bm.h lists them. Where a
 * sum falls so close to top_p or min_p that rounding decides, both answers are allowed.
 */
#include "bm_base.h"
#include "check.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_VOCAB = 600 };

/* How close to a limit of top_p or min_p rounding may decide; weights are right to about 1e-6. */
static const double CLOSE = 1e-5;

static const bm_sampling NEUTRAL = {
    .repetition_penalty = 1.0f, .temperature = 1.0f, .typical_p = 1.0f, .top_p = 1.0f, .seed = 1};

static bm_sampler *create(uint32_t vocab_size, const bm_sampling *options) {
    bm_sampler *sampler = NULL;
    bm_error err = {0};
    CHECK(bm_sampler_create(vocab_size, options, &sampler, &err) == BM_OK, "%s", err.message);
    return sampler;
}

/* ---- Oracle ---------------------------------------------------------------------------------- */

typedef struct {
    double logit;
    double weight;
    uint32_t id;
    bool is_sure; /* drawn for certain, given enough draws; otherwise perhaps */
} choice;

static int by_logit(const void *a, const void *b) {
    const choice *x = a;
    const choice *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

static double penalised(float logit, uint32_t id, const uint32_t *recent, size_t n, float penalty) {
    for (size_t i = 0; i < n; i++)
        if (recent[i] == id)
            return (double)(logit > 0.0f ? logit / penalty : logit * penalty);
    return (double)logit;
}

/* Fills `list` [vocab_size] in order of falling probability; returns how many of it may be drawn. */
static size_t choices(choice *list, const float *logits, size_t vocab_size, const bm_sampling *o,
                      const uint32_t *recent, size_t n_recent) {
    for (uint32_t id = 0; id < vocab_size; id++)
        list[id] = (choice){
            .logit = penalised(logits[id], id, recent, n_recent, o->repetition_penalty), .id = id};
    qsort(list, vocab_size, sizeof *list, by_logit);
    size_t n = o->top_k > 0 && o->top_k < vocab_size ? o->top_k : vocab_size;
    double all = 0.0;
    for (size_t i = 0; i < n; i++)
        all += list[i].weight = exp((list[i].logit - list[0].logit) / (double)o->temperature);
    double before = 0.0;
    for (size_t i = 0; i < n; i++) {
        bool is_past_p = before >= (double)o->top_p * all * (1.0 + CLOSE) && o->top_p < 1.0f;
        bool is_past_m = list[i].weight < (double)o->min_p * (1.0 - CLOSE);
        if (i > 0 && (is_past_p || is_past_m))
            return i;
        bool is_inside_p = before < (double)o->top_p * all * (1.0 - CLOSE) || o->top_p == 1.0f;
        list[i].is_sure = is_inside_p && list[i].weight > (double)o->min_p * (1.0 + CLOSE);
        before += list[i].weight;
    }
    return n;
}

static bm_sampling random_options(check_random *r) {
    bm_sampling o = NEUTRAL;
    o.seed = check_next(r);
    if (check_between(r, 0, 1))
        o.temperature = check_uniform(r, 0.05, 3.0);
    if (check_between(r, 0, 1))
        o.top_k = (uint32_t)check_between(r, 0, 20);
    if (check_between(r, 0, 1))
        o.top_p = check_uniform(r, 0.05, 1.0);
    if (check_between(r, 0, 1))
        o.min_p = check_uniform(r, 0.0, 0.5);
    if (check_between(r, 0, 1)) {
        o.repetition_penalty = check_uniform(r, 0.3, 3.0);
        o.repetition_window = (uint32_t)check_between(r, 0, 40);
    }
    return o;
}

/* Some equal, some far away: ties and long tails both happen. */
static float *random_logits(check_random *r, size_t n) {
    float *logits = check_take(n * sizeof *logits);
    float spread = check_uniform(r, 0.1, 6.0);
    for (size_t i = 0; i < n; i++)
        logits[i] = check_between(r, 0, 4) ? spread * check_normal(r)
                                           : (float)check_between(r, 0, 3) - 1.0f;
    return logits;
}

/* Accepts ids, wrong ones among them; returns how many are in the window, the last ones of `ids`. */
static size_t accept_some(check_random *r, bm_sampler *s, uint32_t vocab_size, uint32_t window,
                          uint32_t *ids, size_t n) {
    size_t accepted = 0;
    for (size_t i = 0; i < n; i++) {
        if (check_between(r, 0, 9) == 0)
            bm_sampler_accept(s, vocab_size + (check_between(r, 0, 1) ? 0 : 1000));
        ids[accepted++] = (uint32_t)check_between(r, 0, vocab_size - 1);
        bm_sampler_accept(s, ids[accepted - 1]);
    }
    return accepted < window ? accepted : window;
}

/* ---- What is drawn ------------------------------------------------------------------------------- */

/* Only ids that the options leave, and the likeliest at temperature 0, ties to the lowest id. */
static void only_what_is_left(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    uint32_t vocab = (uint32_t)check_between(&r, 1, check_between(&r, 0, 2) ? 30 : MAX_VOCAB);
    bm_sampling o = random_options(&r);
    const float *logits = random_logits(&r, vocab);
    bm_sampler *s = create(vocab, &o);
    uint32_t ids[100];
    size_t n = accept_some(&r, s, vocab, o.repetition_window, ids, 100);
    choice *list = check_take(vocab * sizeof *list);
    size_t left = choices(list, logits, vocab, &o, ids + 100 - n, n);
    for (size_t draw = 0; draw < 100; draw++) {
        uint32_t id = bm_sampler_sample(s, logits);
        size_t at = 0;
        while (at < left && list[at].id != id)
            at++;
        CHECK(at < left, "draw %zu: id %u is not among the %zu left of %u", draw, id, left, vocab);
    }
    bm_sampler_free(s);
    o.temperature = 0.0f;
    s = create(vocab, &o);
    for (size_t i = 100 - n; i < 100; i++)
        bm_sampler_accept(s, ids[i]);
    for (size_t draw = 0; draw < 3; draw++)
        CHECK(bm_sampler_sample(s, logits) == list[0].id, "want %u, the likeliest", list[0].id);
    bm_sampler_free(s);
}

/*
 * Frequencies of 20,000 draws by a chi-square test. Nothing is left to chance: the seeds are fixed.
 * The bound is the 1 - 1e-7 quantile for 15 degrees of freedom.
 */
static void as_often_as_probable(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    uint32_t vocab = (uint32_t)check_between(&r, 2, 16);
    bm_sampling o = random_options(&r);
    o.repetition_window = 0;
    const float *logits = random_logits(&r, vocab);
    choice *list = check_take(vocab * sizeof *list);
    size_t left = choices(list, logits, vocab, &o, NULL, 0);
    double sum = 0.0;
    for (size_t i = 0; i < left; i++) {
        if (!list[i].is_sure)
            return; /* rounding decides whether it is in */
        sum += list[i].weight;
    }
    bm_sampler *s = create(vocab, &o);
    enum { DRAWS = 20000 };
    unsigned counts[16] = {0};
    for (size_t i = 0; i < DRAWS; i++)
        counts[bm_sampler_sample(s, logits)]++;
    double chi = 0.0;
    for (size_t i = 0; i < left; i++) {
        double want = DRAWS * list[i].weight / sum;
        double off = (double)counts[list[i].id] - want;
        chi += off * off / (want < 5.0 ? 5.0 : want);
    }
    CHECK(chi < 62.0, "%g for %zu of %u ids", chi, left, vocab);
    bm_sampler_free(s);
}

/* A seed gives its draws again; another one gives others; a draw does not depend on who is accepted. */
static void seeds(uint64_t seed) {
    check_random r = check_seed(seed, 3);
    bm_sampling o = NEUTRAL;
    o.seed = check_next(&r);
    float logits[200] = {0};
    bm_sampler *first = create(200, &o);
    bm_sampler *second = create(200, &o);
    o.seed ^= 1;
    bm_sampler *other = create(200, &o);
    size_t same = 0;
    for (size_t i = 0; i < 200; i++) {
        uint32_t id = bm_sampler_sample(first, logits);
        CHECK(bm_sampler_sample(second, logits) == id, "draw %zu", i);
        bm_sampler_accept(second, id);
        same += bm_sampler_sample(other, logits) == id;
    }
    CHECK(same < 20, "%zu of 200 draws are those of another seed", same);
    bm_sampler_free(first);
    bm_sampler_free(second);
    bm_sampler_free(other);
}

/* The same draws on every host: the native build and WebAssembly share this list. */
static void known_draws(uint64_t seed) {
    static const uint32_t known[3][8] = {{1, 16, 32, 27, 35, 45, 9, 9},
                                         {43, 35, 31, 16, 27, 4, 31, 4},
                                         {39, 27, 24, 31, 12, 28, 8, 27}};
    float logits[50];
    for (size_t i = 0; i < 50; i++)
        logits[i] = (float)((i * 37) % 50) * 0.11f;
    bm_sampling o = NEUTRAL;
    o.seed = seed * 1000000007u;
    o.temperature = 0.8f;
    o.top_k = seed == 1 ? 10 : 0;
    o.top_p = seed == 2 ? 0.9f : 1.0f;
    bm_sampler *s = create(50, &o);
    for (size_t i = 0; i < 8; i++) {
        uint32_t id = bm_sampler_sample(s, logits);
        CHECK(id == known[seed][i], "draw %zu is %u, want %u", i, id, known[seed][i]);
    }
    bm_sampler_free(s);
}

/* ---- Extremes ------------------------------------------------------------------------------------- */

/* The largest logits, the smallest temperature, the strongest penalty: still an id, and the right one. */
static void extremes(uint64_t seed) {
    check_random r = check_seed(seed, 4);
    uint32_t vocab = (uint32_t)check_between(&r, 1, 40);
    float *logits = check_take(vocab * sizeof *logits);
    for (uint32_t i = 0; i < vocab; i++)
        logits[i] = check_between(&r, 0, 1) ? 3.4e38f : check_between(&r, 0, 1) ? -3.4e38f : 0.0f;
    const float penalties[] = {1.0f, 100.0f, 0.01f};
    bm_sampling o = NEUTRAL;
    o.seed = seed;
    o.temperature = check_between(&r, 0, 1) ? 1e-3f : 100.0f;
    o.repetition_penalty = penalties[check_between(&r, 0, 2)];
    o.repetition_window = 8;
    o.top_p = check_between(&r, 0, 1) ? 1e-30f : 1.0f;
    o.min_p = check_between(&r, 0, 1) ? 1.0f : 0.0f;
    o.top_k = (uint32_t)check_between(&r, 0, 2);
    bm_sampler *s = create(vocab, &o);
    float best = -FLT_MAX;
    for (uint32_t i = 0; i < vocab; i++)
        best = logits[i] > best ? logits[i] : best;
    for (size_t i = 0; i < 20; i++) {
        uint32_t id = bm_sampler_sample(s, logits);
        CHECK(id < vocab, "id %u of %u", id, vocab);
        /* Far below the best a weight is e^-87: it is never drawn. */
        CHECK(logits[id] == best, "id %u has %g, the best is %g", id, (double)logits[id],
              (double)best);
    }
    /* With all in the window a penalty overflows and is cut off; what comes is still an id. */
    for (uint32_t i = 0; i < vocab; i++)
        bm_sampler_accept(s, i);
    for (size_t i = 0; i < 20; i++)
        CHECK(bm_sampler_sample(s, logits) < vocab, "draw %zu", i);
    bm_sampler_free(s);
}

static void refusals(uint64_t seed) {
    (void)seed;
    const bm_bias twice[] = {{3, 1.0f}, {3, 2.0f}};
    const bm_bias outside[] = {{10, 1.0f}};
    const bm_bias strong[] = {{3, 100.5f}};
    const bm_bias unknown[] = {{3, NAN}};
    const uint32_t ten = 10;
    struct {
        const char *names;
        bm_sampling options;
    } cases[64];
    size_t count = 0;
#define WRONG(message, ...)                                                                        \
    do {                                                                                           \
        bm_sampling o = NEUTRAL;                                                                   \
        __VA_ARGS__;                                                                               \
        cases[count].options = o;                                                                  \
        cases[count++].names = message;                                                            \
    } while (0)
    const float penalties[] = {0.0f, -1.0f, 100.1f, NAN};
    for (size_t i = 0; i < 4; i++)
        WRONG("repetition_penalty", o.repetition_penalty = penalties[i]);
    const float temperatures[] = {-1.0f, 9e-4f, 100.1f, INFINITY, NAN};
    for (size_t i = 0; i < 5; i++)
        WRONG("temperature", o.temperature = temperatures[i]);
    const float shares[] = {0.0f, 1.01f, NAN};
    for (size_t i = 0; i < 3; i++) {
        WRONG("top_p", o.top_p = shares[i]);
        WRONG("typical_p", o.typical_p = shares[i]);
        WRONG("mirostat_eta", o.mirostat_tau = 1.0f, o.mirostat_eta = shares[i]);
    }
    const float outside_100[] = {-100.1f, 101.0f, NAN};
    for (size_t i = 0; i < 3; i++) {
        WRONG("frequency_penalty", o.frequency_penalty = outside_100[i]);
        WRONG("presence_penalty", o.presence_penalty = outside_100[i]);
        WRONG("dry_multiplier", o.dry_multiplier = outside_100[i]);
        WRONG("mirostat_tau", o.mirostat_tau = outside_100[i]);
        WRONG("min_p", o.min_p = outside_100[i]);
    }
    WRONG("repetition_window", o.repetition_window = 65537);
    WRONG("history_window", o.history_window = 65537);
    WRONG("no_repeat_ngram", o.no_repeat_ngram = 65);
    WRONG("dry_base", o.dry_multiplier = 1.0f, o.dry_base = 0.5f, o.dry_allowed_length = 1);
    WRONG("dry_allowed_length", o.dry_multiplier = 1.0f, o.dry_base = 2.0f);
    WRONG("dry_breakers", o.n_dry_breakers = 1025);
    WRONG("biases", o.n_biases = 1025);
    WRONG("two biases", o.biases = twice, o.n_biases = 2);
    WRONG("token id 10, want", o.biases = outside, o.n_biases = 1);
    WRONG("bias of token id 3", o.biases = strong, o.n_biases = 1);
    WRONG("bias of token id 3", o.biases = unknown, o.n_biases = 1);
    WRONG("breaker of token id 10, want", o.dry_breakers = &ten, o.n_dry_breakers = 1);
#undef WRONG
    bm_sampler *none = NULL;
    bm_error err = {0};
    for (size_t i = 0; i < count; i++) {
        CHECK(bm_sampler_create(10, &cases[i].options, &none, &err) == BM_E_ARGUMENT, "%zu", i);
        CHECK(!none && strstr(err.message, cases[i].names), "case %zu: %s", i, err.message);
        CHECK(bm_sampler_create(10, &cases[i].options, &none, NULL) == BM_E_ARGUMENT, "%zu", i);
    }
    CHECK(bm_sampler_create(0, &NEUTRAL, &none, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(strstr(err.message, "vocab_size"), "%s", err.message);
}

static void log_softmax(uint64_t seed) {
    check_random r = check_seed(seed, 5);
    size_t n = check_between(&r, 1, MAX_VOCAB);
    const float *logits = random_logits(&r, n);
    double max = (double)logits[0];
    for (size_t i = 1; i < n; i++)
        max = fmax(max, (double)logits[i]);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - max);
    for (size_t i = 0; i < n; i++) {
        double want = (double)logits[i] - max - log(sum);
        double got = bm_log_softmax(logits, n, i);
        CHECK(fabs(got - want) <= 1e-6 * (1.0 + fabs(want)), "id %zu: %.9g, want %.9g", i, got,
              want);
    }
}

/* The likeliest of all, by a full sort. */
static void top_logprobs(uint64_t seed) {
    check_random r = check_seed(seed, 6);
    size_t n = check_between(&r, 1, MAX_VOCAB);
    const float *logits = random_logits(&r, n);
    choice *list = check_take(n * sizeof *list);
    for (uint32_t id = 0; id < n; id++)
        list[id] = (choice){.logit = (double)logits[id], .id = id};
    qsort(list, n, sizeof *list, by_logit);
    size_t k = check_between(&r, 0, 70);
    size_t want = k < BM_MAX_TOP ? k : BM_MAX_TOP;
    want = want < n ? want : n;
    uint32_t ids[BM_MAX_TOP];
    double logprobs[BM_MAX_TOP];
    size_t got = bm_top_logprobs(logits, n, k, ids, logprobs);
    CHECK(got == want, "%zu, want %zu", got, want);
    for (size_t i = 0; i < got; i++) {
        CHECK(ids[i] == list[i].id, "place %zu: id %u, want %u", i, ids[i], list[i].id);
        double same = bm_log_softmax(logits, n, ids[i]);
        CHECK(logprobs[i] == same, "place %zu: %.17g, want %.17g", i, logprobs[i], same);
    }
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"only_what_is_left", only_what_is_left, 2000},
        {"as_often_as_probable", as_often_as_probable, 100},
        {"seeds", seeds, 50},
        {"known_draws", known_draws, 3},
        {"extremes", extremes, 500},
        {"refusals", refusals, 1},
        {"log_softmax", log_softmax, 500},
        {"top_logprobs", top_logprobs, 500},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
