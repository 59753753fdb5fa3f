/*
 * test_draft.c: tokens that are tried, and kept in part.
 *
 * Owns the promise that a session is afterwards what it would be after appending what was kept, to the bit, whatever else
 * was tried; and that in between nothing else can be read.
 */
#include "bm_base.h"
#include "random_model.h"

enum { MAX_DRAFT = 24, ROUNDS = 12 };

/* Runs the tasks of a session backwards, on as many threads as it says: the copies of each must be its own. */
static void run_backwards(void *self, bm_task *task, void *arg, size_t count) {
    const bm_team *team = self;
    for (size_t i = count; i-- > 0;)
        task(arg, i, i % team->n_threads);
}

static bm_session *open_session(const bm_model *model, const bm_session_options *options) {
    bm_session *session = NULL;
    bm_error err = {0};
    CHECK(bm_session_create(model, options, &session, &err) == BM_OK, "%s", err.message);
    return session;
}

static void append(bm_session *s, const uint32_t *ids, size_t n, size_t max_chunk) {
    bm_error err = {0};
    for (size_t done = 0; done < n; done += max_chunk) {
        size_t chunk = n - done < max_chunk ? n - done : max_chunk;
        CHECK(bm_session_append(s, ids + done, chunk, &err) == BM_OK, "%s", err.message);
    }
}

static void same_logits(bm_session *a, size_t at, bm_session *b, size_t n) {
    bm_error err = {0};
    const float *got, *want;
    CHECK(bm_session_logits(a, at, &got, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_logits(b, 0, &want, &err) == BM_OK, "%s", err.message);
    CHECK_SAME("logits of a draft", got, want, n);
}

static void same_state(bm_session *a, bm_session *b, const bm_config *c, bm_dtype dtype) {
    CHECK(bm_session_position(a) == bm_session_position(b), "position %llu and %llu",
          (unsigned long long)bm_session_position(a), (unsigned long long)bm_session_position(b));
    CHECK(memcmp(bm_session_state(a), bm_session_state(b), (size_t)bm_state_bytes(c, dtype)) == 0,
          "%s", "the states differ");
}

/* One draft: all its logits are those of a session that goes on with it, and then a part of it is kept. */
static void try_and_keep(check_random *r, bm_draft *draft, bm_session *tried, bm_session *plain,
                         bm_session *ahead, const bm_config *c, const bm_session_options *o) {
    bm_error err = {0};
    uint32_t ids[MAX_DRAFT];
    size_t n = check_between(r, 1, MAX_DRAFT);
    size_t certain = check_between(r, 0, n);
    random_ids(r, c, ids, n);
    size_t bytes = (size_t)bm_state_bytes(c, o->state_dtype);
    memcpy(bm_session_state(ahead), bm_session_state(plain), bytes);
    CHECK(bm_session_adopt(ahead, bm_session_position(plain), &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_read(draft, ids, n, certain, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_append(tried, ids, 1, &err) == BM_E_ORDER && strstr(err.message, "draft"),
          "%s", err.message);
    CHECK(bm_draft_read(draft, ids, n, certain, &err) == BM_E_ORDER, "%s", err.message);
    for (size_t i = 0; i < n; i++) {
        append(ahead, ids + i, 1, 1);
        same_logits(tried, i, ahead, c->vocab_size);
    }
    size_t least = certain < 1 ? 1 : certain;
    size_t count = check_between(r, least, n);
    CHECK(bm_draft_keep(draft, least - 1, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_draft_keep(draft, n + 1, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_draft_keep(draft, count, &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_keep(draft, count, &err) == BM_E_ORDER, "%s", err.message);
    append(plain, ids, count, o->max_chunk);
    const float *none;
    CHECK(bm_session_logits(tried, count, &none, &err) == BM_E_ARGUMENT, "%zu were kept", count);
    same_state(tried, plain, c, o->state_dtype);
}

static void equals_append(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    bm_config config = random_config(&r);
    random_model m = random_weights(&r, &config);
    bm_team team = {.run = run_backwards, .n_threads = 3};
    team.self = &team;
    bm_session_options options = {.precision = (bm_precision)check_between(&r, 0, 2),
                                  .state_dtype = check_between(&r, 0, 1) ? BM_F32 : BM_I16,
                                  .max_chunk = MAX_DRAFT,
                                  .team = check_between(&r, 0, 1) ? &team : NULL};
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_session *tried = open_session(model, &options);
    bm_session *plain = open_session(model, &options);
    bm_session *ahead = open_session(model, &options);
    bm_draft *draft = NULL;
    bm_error err = {0};
    CHECK(bm_draft_create(tried, MAX_DRAFT + 1, &draft, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_draft_create(tried, MAX_DRAFT, &draft, &err) == BM_OK, "%s", err.message);
    uint32_t start[2];
    random_ids(&r, &config, start, 2);
    append(tried, start, 2, 2);
    append(plain, start, 2, 2);
    for (int i = 0; i < ROUNDS; i++)
        try_and_keep(&r, draft, tried, plain, ahead, &config, &options);
    /* What is never kept was never read: after a reset, another state, or the draft's end. */
    CHECK(bm_draft_read(draft, start, 2, 0, &err) == BM_OK, "%s", err.message);
    memcpy(bm_session_state(tried), bm_session_state(plain),
           (size_t)bm_state_bytes(&config, options.state_dtype));
    CHECK(bm_session_adopt(tried, bm_session_position(plain), &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_keep(draft, 1, &err) == BM_E_ORDER, "%s", err.message);
    append(tried, start, 1, 1);
    append(plain, start, 1, 1);
    same_state(tried, plain, &config, options.state_dtype);
    CHECK(bm_draft_read(draft, start, 2, 0, &err) == BM_OK, "%s", err.message);
    bm_session_reset(tried);
    bm_session_reset(plain);
    CHECK(bm_draft_keep(draft, 1, &err) == BM_E_ORDER, "%s", err.message);
    append(tried, start, 2, 2);
    append(plain, start, 2, 2);
    same_state(tried, plain, &config, options.state_dtype);
    size_t certain = check_between(&r, 0, 1);
    CHECK(bm_draft_read(draft, start, 2, certain, &err) == BM_OK, "%s", err.message);
    bm_draft_free(draft);
    append(plain, start, certain, 1);
    const float *want;
    size_t last = certain ? 0 : 1; /* of the reset session's append of two tokens */
    CHECK(bm_session_logits(plain, last, &want, &err) == BM_OK, "%s", err.message);
    const float *got;
    CHECK(bm_session_logits(tried, 1, &got, &err) == BM_E_ARGUMENT, "%s", "never read");
    CHECK(bm_session_logits(tried, 0, &got, &err) == BM_OK, "%s", err.message);
    CHECK_SAME("logits from before a draft", got, want, config.vocab_size);
    same_state(tried, plain, &config, options.state_dtype);
    append(tried, start, 1, 1);
    append(plain, start, 1, 1);
    same_state(tried, plain, &config, options.state_dtype);
    bm_session_free(ahead);
    bm_session_free(plain);
    bm_session_free(tried);
    bm_model_free(model);
}

/* A session has one draft at a time: two that have changed places with it could not both give its state back. */
static void one_at_a_time(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    bm_config config = random_config(&r);
    random_model m = random_weights(&r, &config);
    bm_session_options options = {
        .precision = BM_FAST, .state_dtype = BM_F32, .max_chunk = MAX_DRAFT};
    bm_model *model = random_model_load(&m, bm_variant_count() - 1);
    bm_session *tried = open_session(model, &options);
    bm_session *plain = open_session(model, &options);
    bm_draft *draft = NULL;
    bm_draft *second = NULL;
    bm_error err = {0};
    uint32_t ids[4];
    random_ids(&r, &config, ids, 4);
    CHECK(bm_draft_create(tried, 4, &draft, &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_create(tried, 4, &second, &err) == BM_E_ORDER && !second, "%s", err.message);
    bm_session_reset(tried);
    CHECK(bm_draft_create(tried, 4, &second, &err) == BM_E_ORDER && !second, "%s", err.message);
    CHECK(bm_draft_read(draft, ids, 4, 0, &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_keep(draft, 4, &err) == BM_OK, "%s", err.message);
    bm_draft_free(draft);
    CHECK(bm_draft_create(tried, 4, &draft, &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_read(draft, ids, 4, 1, &err) == BM_OK, "%s", err.message);
    CHECK(bm_draft_keep(draft, 4, &err) == BM_OK, "%s", err.message);
    append(plain, ids, 4, 4);
    append(plain, ids, 4, 4);
    same_state(tried, plain, &config, BM_F32);
    bm_draft_free(draft);
    same_state(tried, plain, &config, BM_F32);
    bm_session_free(plain);
    bm_session_free(tried);
    bm_model_free(model);
}

int main(int argc, char **argv) {
    const check_case cases[] = {{"equals_append", equals_append, 60},
                                {"one_at_a_time", one_at_a_time, 10}};
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
