/*
 * test_prompt.c: prompts that pass the parts of a model one by one, while the model is arriving.
 *
 * Owns the promise that a session is afterwards what it would be after appending the same ids, to the bit, and that nothing
 * else can be done with it in between.
 */
#include "bm_base.h"
#include "random_model.h"

enum { MAX_TOKENS = 80 };

/* A model with all bytes and no part sealed: its parts arrive when they are sealed. */
static bm_model *unsealed(const random_model *m, size_t variant) {
    bm_error err = {0};
    bm_model *model = NULL;
    CHECK(bm_model_create(&m->config, variant, BM_HEAD_FILE, &model, &err) == BM_OK, "%s",
          err.message);
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++)
        CHECK(bm_model_write(model, i, 0, m->tensors[i], (size_t)bm_tensor_at(&m->config, i).bytes,
                             &err) == BM_OK,
              "%s", err.message);
    return model;
}

static bm_session *open_session(const bm_model *model, const bm_session_options *options) {
    bm_session *session = NULL;
    bm_error err = {0};
    CHECK(bm_session_create(model, options, &session, &err) == BM_OK, "%s", err.message);
    return session;
}

static bm_prompt *open_prompt(check_random *r, bm_session *session, const uint32_t *ids, size_t n) {
    bm_prompt *prompt = NULL;
    bm_error err = {0};
    CHECK(bm_prompt_create(session, n, &prompt, &err) == BM_OK, "%s", err.message);
    for (size_t done = 0; done < n;) {
        size_t piece = check_between(r, 1, n - done);
        CHECK(bm_prompt_set(prompt, done, ids + done, piece, &err) == BM_OK, "%s", err.message);
        done += piece;
    }
    return prompt;
}

/* The sequence in appends of max_chunk. */
static void append_all(bm_session *s, const uint32_t *ids, size_t n, size_t max_chunk) {
    bm_error err = {0};
    for (size_t done = 0; done < n; done += max_chunk) {
        size_t chunk = n - done < max_chunk ? n - done : max_chunk;
        CHECK(bm_session_append(s, ids + done, chunk, &err) == BM_OK, "%s", err.message);
    }
}

static void expect_order(bm_status status, const bm_error *err, const char *names) {
    CHECK(status == BM_E_ORDER && strstr(err->message, names), "%d, %s", (int)status, err->message);
}

/* Passes all parts, each sealed at the last moment; until then, and in between, everything else is refused. */
static void read_as_it_arrives(bm_model *model, const bm_config *c, bm_session *s,
                               bm_prompt *prompt) {
    bm_error err = {0};
    const float *logits = NULL;
    uint32_t id = 0;
    for (size_t part = 0; part < (size_t)c->n_layer + 2; part++) {
        CHECK(bm_prompt_next_part(prompt) == part, "part %zu", bm_prompt_next_part(prompt));
        expect_order(bm_prompt_step(prompt, &err), &err, "not complete");
        expect_order(bm_session_append(s, &id, 1, &err), &err, part ? "prompt" : "not complete");
        expect_order(bm_session_logits(s, 0, &logits, &err), &err, part ? "prompt" : "complete");
        CHECK(bm_model_seal_part(model, part, &err) == BM_OK, "%s", err.message);
        while (bm_prompt_next_part(prompt) == part)
            CHECK(bm_prompt_step(prompt, &err) == BM_OK, "%s", err.message);
        if (part <= c->n_layer) /* the position moves at the end */
            CHECK(bm_session_position(s) == 0, "%llu", (unsigned long long)bm_session_position(s));
    }
    expect_order(bm_prompt_step(prompt, &err), &err, "has been read");
}

/* The same logits for every token of the last chunk, and after what follows. */
static void same_session(bm_session *a, bm_session *b, const bm_config *c, size_t last,
                         const uint32_t *more) {
    bm_error err = {0};
    CHECK(bm_session_position(a) == bm_session_position(b), "position %llu",
          (unsigned long long)bm_session_position(a));
    for (size_t i = 0; i < last; i++) {
        const float *got, *want;
        CHECK(bm_session_logits(a, i, &got, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_logits(b, i, &want, &err) == BM_OK, "%s", err.message);
        CHECK_SAME("logits after a prompt", got, want, c->vocab_size);
    }
    const float *none = NULL;
    CHECK(bm_session_logits(a, last, &none, &err) == BM_E_ARGUMENT, "%zu tokens", last);
    if (!more)
        return;
    CHECK(bm_session_append(a, more, 1, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_append(b, more, 1, &err) == BM_OK, "%s", err.message);
    same_session(a, b, c, 1, NULL);
}

static void equals_append(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    bm_config config = random_config(&r);
    random_model m = random_weights(&r, &config);
    bm_session_options options = {.precision = (bm_precision)check_between(&r, 0, 2),
                                  .state_dtype = check_between(&r, 0, 1) ? BM_F32 : BM_I16,
                                  .max_chunk = (uint32_t)check_between(&r, 1, 40)};
    size_t chunk = options.max_chunk;
    const size_t lengths[] = {1, chunk, chunk + 1, 3 * chunk + 7, check_between(&r, 1, MAX_TOKENS)};
    size_t n = lengths[seed % 5] < MAX_TOKENS ? lengths[seed % 5] : MAX_TOKENS;
    uint32_t ids[MAX_TOKENS + 1];
    random_ids(&r, &config, ids, n + 1);
    bm_model *model = unsealed(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_session *read = open_session(model, &options);
    bm_prompt *prompt = open_prompt(&r, read, ids, n);
    read_as_it_arrives(model, &config, read, prompt);
    bm_session *appended = open_session(model, &options);
    append_all(appended, ids, n, chunk);
    same_session(read, appended, &config, n % chunk ? n % chunk : chunk, ids + n);
    bm_prompt_free(prompt);
    CHECK(bm_session_position(read) == n + 1, "%s",
          "freeing a prompt that was read changes nothing");
    bm_session_free(appended);
    bm_session_free(read);
    bm_model_free(model);
}

/* Half-way: a reset ends the reading, and so does freeing; then the session is as new. */
static void half_read(uint64_t seed) {
    check_random r = check_seed(seed, 2);
    bm_config config = random_config(&r);
    random_model m = random_weights(&r, &config);
    bm_session_options options = {.precision = BM_FAST, .state_dtype = BM_F32, .max_chunk = 4};
    uint32_t ids[12];
    random_ids(&r, &config, ids, 12);
    bm_model *model = random_model_load(&m, bm_variant_count() - 1);
    bm_session *s = open_session(model, &options);
    bm_session *fresh = open_session(model, &options);
    bm_error err = {0};
    for (size_t round = 0; round < 2; round++) {
        bm_prompt *prompt = open_prompt(&r, s, ids, 12);
        bm_prompt *other = open_prompt(&r, s, ids, 3);
        size_t steps = check_between(&r, 1, 3 * ((size_t)config.n_layer + 1));
        for (size_t i = 0; i < steps; i++)
            CHECK(bm_prompt_step(prompt, &err) == BM_OK, "%s", err.message);
        expect_order(bm_prompt_step(other, &err), &err, "beginning");
        expect_order(bm_prompt_set(prompt, 0, ids, 1, &err), &err, "being read");
        if (round == 0) {
            bm_session_reset(s);
            expect_order(bm_prompt_step(prompt, &err), &err, "beginning");
        }
        bm_prompt_free(prompt);
        bm_prompt_free(other);
        CHECK(bm_session_append(s, ids, 3, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_append(fresh, ids, 3, &err) == BM_OK, "%s", err.message);
        same_session(s, fresh, &config, 3, ids);
        bm_prompt *late = open_prompt(&r, s, ids, 1);
        expect_order(bm_prompt_step(late, &err), &err, "beginning");
        bm_prompt_free(late);
        bm_session_reset(s);
        bm_session_reset(fresh);
    }
    bm_session_free(fresh);
    bm_session_free(s);
    bm_model_free(model);
}

static void refusals(uint64_t seed) {
    check_random r = check_seed(seed, 3);
    bm_config config = random_config(&r);
    random_model m = random_weights(&r, &config);
    bm_session_options options = {.precision = BM_FAST, .state_dtype = BM_F32, .max_chunk = 4};
    bm_model *model = random_model_load(&m, 0);
    bm_session *s = open_session(model, &options);
    bm_error err = {0};
    bm_prompt *prompt = NULL;
    CHECK(bm_prompt_create(s, 0, &prompt, &err) == BM_E_ARGUMENT && !prompt, "%s", err.message);
    CHECK(bm_prompt_create(s, SIZE_MAX / 2, &prompt, &err) == BM_E_MEMORY && !prompt, "%s",
          err.message);
    CHECK(bm_prompt_create(s, 3, &prompt, &err) == BM_OK, "%s", err.message);
    uint32_t bad[] = {0, config.vocab_size, 0};
    CHECK(bm_prompt_set(prompt, 0, bad, 2, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_prompt_set(prompt, 2, bad, 2, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_prompt_set(prompt, 4, bad, 0, &err) == BM_E_ARGUMENT, "%s", err.message);
    CHECK(bm_prompt_set(prompt, SIZE_MAX, bad, 1, &err) == BM_E_ARGUMENT, "%s", err.message);
    bm_prompt_free(prompt);
    bm_prompt_free(NULL);
    bm_session_free(s);
    bm_model_free(model);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"equals_append", equals_append, 100},
        {"half_read", half_read, 30},
        {"refusals", refusals, 10},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
