/*
 * test_penalties.c: what the text before does to a sampler, and the samplers that look at surprise, against plain oracles in double
 * precision.
 *
 * The oracles search by comparing everything with everything. Alphabets are small, so that texts repeat themselves.
 */
#include "bm_base.h"
#include "check.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_VOCAB = 12, MAX_TEXT = 60 };

static const bm_sampling NEUTRAL = {
    .repetition_penalty = 1.0f, .temperature = 1.0f, .typical_p = 1.0f, .top_p = 1.0f, .seed = 1};

static bm_sampler *create(uint32_t vocab_size, const bm_sampling *options) {
    bm_sampler *sampler = NULL;
    bm_error err = {0};
    CHECK(bm_sampler_create(vocab_size, options, &sampler, &err) == BM_OK, "%s", err.message);
    return sampler;
}

typedef struct {
    uint32_t vocab;
    float logits[MAX_VOCAB];
    uint32_t text[MAX_TEXT];
    size_t n;
    bm_bias biases[3];
    uint32_t breakers[2];
    bm_sampling options;
} scene;

/* Everything that changes logits, on or off. */
static scene random_scene(check_random *r) {
    scene s = {.vocab = (uint32_t)check_between(r, 4, MAX_VOCAB),
               .n = check_between(r, 0, MAX_TEXT),
               .options = NEUTRAL};
    for (size_t i = 0; i < s.vocab; i++)
        s.logits[i] = 4.0f * check_normal(r);
    uint32_t alphabet = (uint32_t)check_between(r, 1, s.vocab);
    for (size_t i = 0; i < s.n; i++)
        s.text[i] = (uint32_t)check_between(r, 0, alphabet - 1);
    bm_sampling *o = &s.options;
    o->seed = check_next(r);
    o->repetition_window = (uint32_t)check_between(r, 0, 20);
    o->history_window = (uint32_t)check_between(r, 0, MAX_TEXT);
    if (check_between(r, 0, 1))
        o->repetition_penalty = check_uniform(r, 0.5, 2.0);
    if (check_between(r, 0, 1))
        o->frequency_penalty = check_uniform(r, -1.0, 1.0);
    if (check_between(r, 0, 1))
        o->presence_penalty = check_uniform(r, -2.0, 2.0);
    if (check_between(r, 0, 1)) {
        o->dry_multiplier = check_uniform(r, 0.1, 2.0);
        o->dry_base = check_uniform(r, 1.0, 2.0);
        o->dry_allowed_length = (uint32_t)check_between(r, 1, 4);
        o->n_dry_breakers = check_between(r, 0, 2);
    }
    if (check_between(r, 0, 1))
        o->no_repeat_ngram = (uint32_t)check_between(r, 1, 4);
    o->n_biases = check_between(r, 0, 3);
    for (uint32_t i = 0; i < 3; i++)
        s.biases[i] = (bm_bias){i, check_between(r, 0, 3) ? check_uniform(r, -5, 5) : -INFINITY};
    for (size_t i = 0; i < 2; i++)
        s.breakers[i] = (uint32_t)check_between(r, 0, alphabet - 1);
    return s;
}

/* A sampler that has accepted the text. */
static bm_sampler *sampler_of(scene *s) {
    s->options.biases = s->biases;
    s->options.dry_breakers = s->breakers;
    bm_sampler *sampler = create(s->vocab, &s->options);
    for (size_t i = 0; i < s->n; i++)
        bm_sampler_accept(sampler, s->text[i]);
    return sampler;
}

/* ---- Oracle ---------------------------------------------------------------------------------- */

static double pow_of(double base, size_t n) {
    double product = 1.0;
    for (size_t i = 0; i < n && product < 1e12; i++)
        product *= base;
    return product;
}

/* How many tokens before `at` are, backwards, the end of the text; both begin at `start`. */
static size_t common_end(const scene *s, size_t start, size_t at) {
    size_t length = 0;
    while (at - length > start && s->text[at - 1 - length] == s->text[s->n - 1 - length])
        length++;
    return length;
}

static bool is_breaker(const scene *s, uint32_t id) {
    for (size_t i = 0; i < s->options.n_dry_breakers; i++)
        if (s->breakers[i] == id)
            return true;
    return false;
}

static double dry_penalty(const scene *s, size_t start, uint32_t id) {
    const bm_sampling *o = &s->options;
    double worst = 0.0;
    for (size_t at = start; at < s->n; at++) {
        if (s->text[at] != id)
            continue;
        size_t length = common_end(s, start, at);
        for (size_t i = 0; i < length; i++)
            if (is_breaker(s, s->text[s->n - 1 - i]))
                length = i;
        if (length >= o->dry_allowed_length)
            worst = fmax(worst, (double)o->dry_multiplier *
                                    pow_of((double)o->dry_base, length - o->dry_allowed_length));
    }
    return worst;
}

static bool repeats_ngram(const scene *s, size_t start, uint32_t id) {
    for (size_t at = start; at < s->n; at++)
        if (s->text[at] == id && common_end(s, start, at) + 1 >= s->options.no_repeat_ngram)
            return true;
    return false;
}

/* Logits after all changes; -INFINITY where an id may not be drawn. */
static void adjusted(const scene *s, double *out) {
    const bm_sampling *o = &s->options;
    size_t recent = s->n < o->repetition_window ? s->n : o->repetition_window;
    size_t reach = s->n < o->history_window ? s->n : o->history_window;
    size_t free = 0;
    bool banned[MAX_VOCAB] = {0};
    for (uint32_t id = 0; id < s->vocab; id++) {
        double x = (double)s->logits[id];
        for (size_t i = 0; i < o->n_biases; i++) {
            if (s->biases[i].id != id)
                continue;
            banned[id] = s->biases[i].bias == -INFINITY;
            x += banned[id] ? 0.0 : (double)s->biases[i].bias;
        }
        double count = 0.0;
        for (size_t i = s->n - recent; i < s->n; i++)
            count += s->text[i] == id;
        if (count > 0.0) {
            x = x > 0.0 ? x / (double)o->repetition_penalty : x * (double)o->repetition_penalty;
            x -= (double)o->frequency_penalty * count + (double)o->presence_penalty;
        }
        if (o->dry_multiplier > 0.0f)
            x -= dry_penalty(s, s->n - reach, id);
        if (o->no_repeat_ngram > 0)
            banned[id] = banned[id] || repeats_ngram(s, s->n - reach, id);
        free += !banned[id];
        out[id] = x;
    }
    for (uint32_t id = 0; id < s->vocab && free > 0; id++)
        out[id] = banned[id] ? -INFINITY : out[id];
}

static double largest(const double *x, size_t n) {
    double max = x[0];
    for (size_t i = 1; i < n; i++)
        max = fmax(max, x[i]);
    return max;
}

/* ---- Cases ------------------------------------------------------------------------------------ */

/* Greedy takes the largest of the changed logits, while the text goes on and windows move over it. */
static void greedy_takes_the_best(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    scene s = random_scene(&r);
    s.options.temperature = 0.0f;
    size_t n = s.n;
    s.n = 0;
    bm_sampler *sampler = sampler_of(&s);
    for (;; s.n++) {
        double want[MAX_VOCAB];
        adjusted(&s, want);
        double best = largest(want, s.vocab);
        uint32_t id = bm_sampler_sample(sampler, s.logits);
        CHECK(want[id] >= best - 1e-4 * (1.0 + fabs(best)), "after %zu: id %u has %g, best is %g",
              s.n, id, want[id], best);
        if (s.n == n)
            break;
        bm_sampler_accept(sampler, s.text[s.n]);
    }
    bm_sampler_free(sampler);
}

/* Frequencies of draws follow the changed logits, and what is banned never comes. */
static void draws_follow(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    scene s = random_scene(&r);
    s.options.temperature = check_uniform(&r, 0.5, 2.0);
    double want[MAX_VOCAB];
    adjusted(&s, want);
    double best = largest(want, s.vocab);
    double sum = 0.0;
    for (size_t i = 0; i < s.vocab; i++)
        sum += want[i] = exp((want[i] - best) / (double)s.options.temperature);
    bm_sampler *sampler = sampler_of(&s);
    enum { DRAWS = 5000 };
    unsigned counts[MAX_VOCAB] = {0};
    for (size_t i = 0; i < DRAWS; i++)
        counts[bm_sampler_sample(sampler, s.logits)]++;
    double chi = 0.0;
    for (size_t i = 0; i < s.vocab; i++) {
        CHECK(want[i] > 0.0 || counts[i] == 0, "id %zu is banned and came %u times", i, counts[i]);
        double expected = DRAWS * want[i] / sum;
        double off = counts[i] - expected;
        chi += off * off / (expected < 5.0 ? 5.0 : expected);
    }
    CHECK(chi < 60.0, "%g", chi); /* the 1 - 1e-7 quantile for 11 degrees of freedom is 55 */
    bm_sampler_free(sampler);
}

/* With as many biases as ids, all banned, every id may come again. */
static void all_banned(uint64_t seed) {
    bm_bias biases[4];
    for (uint32_t i = 0; i < 4; i++)
        biases[i] = (bm_bias){i, -INFINITY};
    bm_sampling o = NEUTRAL;
    o.biases = biases;
    o.n_biases = 4;
    o.seed = seed;
    bm_sampler *sampler = create(4, &o);
    unsigned seen = 0;
    for (size_t i = 0; i < 200; i++)
        seen |= 1u << bm_sampler_sample(sampler, (const float[]){0, 0, 0, 0});
    CHECK(seen == 15u, "%u", seen);
    bm_sampler_free(sampler);
}

/* No setting lets an id through that the mask does not have; the best of those that it has comes. A mask that leaves nothing is refused. */
static void mask_holds(uint64_t seed) {
    check_random r = check_seed(seed, 5);
    scene s = random_scene(&r);
    bool is_greedy = check_between(&r, 0, 1);
    s.options.temperature = is_greedy ? 0.0f : check_uniform(&r, 0.1, 2.0);
    s.options.top_k = (uint32_t)check_between(&r, 0, 3);
    s.options.typical_p = check_between(&r, 0, 1) ? 1.0f : check_uniform(&r, 0.1, 0.9);
    s.options.top_p = check_uniform(&r, 0.1, 1.0);
    s.options.min_p = check_between(&r, 0, 1) ? 0.0f : check_uniform(&r, 0.0, 1.0);
    s.options.mirostat_tau = check_between(&r, 0, 3) ? 0.0f : 2.0f;
    s.options.mirostat_eta = 0.1f;
    bm_sampler *sampler = sampler_of(&s);
    double want[MAX_VOCAB];
    adjusted(&s, want);
    uint32_t kept = (1u << s.vocab) - 1;
    for (size_t i = 0; i < 40; i++) {
        uint32_t mask = (uint32_t)check_next(&r) & ((1u << s.vocab) - 1);
        uint32_t free = mask;
        for (size_t b = 0; b < s.options.n_biases; b++)
            if (s.biases[b].bias == -INFINITY)
                free &= ~(1u << s.biases[b].id);
        bm_status status = bm_sampler_allow(sampler, &mask, NULL);
        CHECK((status == BM_OK) == (free != 0), "mask %x: status %d", mask, (int)status);
        kept = status == BM_OK ? free : kept; /* a mask that is refused changes nothing */
        uint32_t id = bm_sampler_sample(sampler, s.logits);
        if (kept != (1u << s.vocab) - 1)
            CHECK(kept >> id & 1u, "id %u came, allowed are %x", id, kept);
        if (status != BM_OK || !is_greedy)
            continue;
        double best = -INFINITY;
        for (uint32_t other = 0; other < s.vocab; other++)
            if (free >> other & 1u)
                best = fmax(best, want[other]);
        CHECK(want[id] >= best - 1e-4 * (1.0 + fabs(best)), "id %u has %g, best is %g", id,
              want[id], best);
    }
    CHECK(bm_sampler_allow(sampler, NULL, NULL) == BM_OK, "NULL allows everything");
    bm_sampler_free(sampler);
}

typedef struct {
    double p;
    double key;
    uint32_t id;
} item;

static int by_key(const void *a, const void *b) {
    const item *x = a;
    const item *y = b;
    return x->key < y->key ? -1 : x->key > y->key ? 1 : x->id < y->id ? -1 : 1;
}

/* Probabilities, and the ids in the order of `key`, which the caller writes. */
static void probabilities(const float *logits, uint32_t n, item *list) {
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++)
        sum += list[i].p = exp((double)logits[i]);
    for (uint32_t i = 0; i < n; i++)
        list[i] = (item){.p = list[i].p / sum, .id = i};
}

/* Only the most typical ids are drawn; where rounding decides about the last one, either is right. */
static void typical(uint64_t seed) {
    check_random r = check_seed(seed, 3);
    enum { N = 40 };
    float logits[N];
    check_fill_normal(&r, logits, N, 2.0f);
    bm_sampling o = NEUTRAL;
    o.seed = seed;
    o.typical_p = check_uniform(&r, 0.05, 0.999);
    item list[N];
    probabilities(logits, N, list);
    double entropy = 0.0;
    for (size_t i = 0; i < N; i++)
        entropy -= list[i].p * log(list[i].p);
    for (size_t i = 0; i < N; i++)
        list[i].key = fabs(-log(list[i].p) - entropy);
    qsort(list, N, sizeof *list, by_key);
    double mass = 0.0;
    size_t allowed = 0;
    while (allowed < N && mass < (double)o.typical_p + 1e-4)
        mass += list[allowed++].p;
    bm_sampler *sampler = create(N, &o);
    bool seen[N] = {0};
    for (size_t draw = 0; draw < 2000; draw++) {
        uint32_t id = bm_sampler_sample(sampler, logits);
        seen[id] = true;
        size_t at = 0;
        while (at < allowed && list[at].id != id && list[at].key <= list[allowed - 1].key + 1e-4)
            at++;
        CHECK(at < allowed, "id %u is not typical", id);
    }
    mass = 0.0;
    for (size_t i = 0; i < allowed && mass + list[i].p < (double)o.typical_p - 1e-4; i++) {
        mass += list[i].p;
        CHECK(list[i].p < 0.02 || seen[list[i].id], "id %u never came", list[i].id);
    }
    bm_sampler_free(sampler);
}

/* Mirostat: mu follows the surprise of what is drawn, from 2 tau on, and bounds it. */
static void mirostat(uint64_t seed) {
    check_random r = check_seed(seed, 4);
    enum { N = 60 };
    bm_sampling o = NEUTRAL;
    o.seed = seed;
    o.mirostat_tau = check_uniform(&r, 0.5, 5.0);
    o.mirostat_eta = check_uniform(&r, 0.05, 0.5);
    bm_sampler *sampler = create(N, &o);
    double mu = 2.0 * (double)o.mirostat_tau;
    for (size_t step = 0; step < 100; step++) {
        float logits[N];
        check_fill_normal(&r, logits, N, 2.0f);
        item list[N];
        probabilities(logits, N, list);
        double best = 0.0;
        double kept = 0.0;
        for (size_t i = 0; i < N; i++)
            best = fmax(best, list[i].p);
        for (size_t i = 0; i < N; i++)
            kept += -log2(list[i].p) <= mu || list[i].p == best ? list[i].p : 0.0;
        uint32_t id = bm_sampler_sample(sampler, logits);
        double p = list[id].p;
        CHECK(-log2(p) <= mu + 1e-4 || p == best, "a surprise of %g bits, mu is %g", -log2(p), mu);
        double next = mu - (double)o.mirostat_eta * (-log2(p / kept) - (double)o.mirostat_tau);
        mu = (double)bm_sampler_save(sampler).mu;
        CHECK(mu > 0.0, "mu is %g", mu);
        /* Where rounding decides about an id, the sum of those kept may differ by it. */
        if (fabs(mu - next) > 1e-3 * (1.0 + fabs(next)) && next > 1e-6)
            CHECK(fabs(mu - next) < 0.2, "mu is %g, want %g", mu, next);
    }
    bm_sampler_free(sampler);
}

/* A sampler that takes up a saved state, and the tokens, goes on as the first one. */
static void states_continue(uint64_t seed) {
    check_random r = check_seed(seed, 5);
    scene s = random_scene(&r);
    if (check_between(&r, 0, 1)) {
        s.options.mirostat_tau = 2.0f;
        s.options.mirostat_eta = 0.3f;
    }
    bm_sampler *one = sampler_of(&s);
    for (size_t i = 0; i < 20; i++)
        bm_sampler_sample(one, s.logits);
    bm_sampler_state state = bm_sampler_save(one);
    s.options.seed++;
    bm_sampler *two = sampler_of(&s);
    bm_sampler_restore(two, &state);
    for (size_t i = 0; i < 50; i++) {
        uint32_t id = bm_sampler_sample(one, s.logits);
        CHECK(bm_sampler_sample(two, s.logits) == id, "draw %zu", i);
        bm_sampler_accept(one, id);
        bm_sampler_accept(two, id);
    }
    const float wrong[] = {NAN, INFINITY, -1.0f};
    for (size_t i = 0; i < 3; i++) {
        state.mu = wrong[i];
        bm_sampler_restore(two, &state);
        CHECK(bm_sampler_save(two).mu == 0.0f, "%g", (double)state.mu);
    }
    bm_sampler_free(one);
    bm_sampler_free(two);
}

/* A long text of one token: linear, where comparing everything with everything takes 4e9 steps a draw. */
static void one_token_for_ever(uint64_t seed) {
    bm_sampling o = NEUTRAL;
    o.seed = seed;
    o.history_window = BM_MAX_WINDOW;
    o.no_repeat_ngram = 64;
    o.dry_multiplier = 1.0f;
    o.dry_base = 1.75f;
    o.dry_allowed_length = 2;
    bm_sampler *sampler = create(4, &o);
    for (size_t i = 0; i < 2 * BM_MAX_WINDOW + 7; i++)
        bm_sampler_accept(sampler, 2);
    for (size_t i = 0; i < 20; i++)
        CHECK(bm_sampler_sample(sampler, (const float[]){0, 0, 50, 0}) != 2, "draw %zu", i);
    bm_sampler_free(sampler);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"greedy_takes_the_best", greedy_takes_the_best, 400},
        {"draws_follow", draws_follow, 200},
        {"all_banned", all_banned, 2},
        {"mask_holds", mask_holds, 400},
        {"typical", typical, 100},
        {"mirostat", mirostat, 60},
        {"states_continue", states_continue, 100},
        {"one_token_for_ever", one_token_for_ever, 1},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
