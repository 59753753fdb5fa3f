/*
 * test_session.c: sequences through whole random models: splits, resets, refusals, and known hashes.
 *
 * Owns the promise that results do not depend on how a sequence is cut, on the kernel variant or on
 * the host. `known` has hashes of the logits of fixed models: one list for the native build and for WebAssembly.
 * After a change of a contract (never of a kernel alone) a failing run prints each new value.
 */
#include "bm_base.h"
#include "oracle.h"

#include <math.h>

enum { MAX_TOKENS = 64 };

static bm_session *open_team_session(const bm_model *model, bm_precision precision, bm_dtype state,
                                     uint32_t max_chunk, const bm_team *team) {
    bm_session_options options = {precision, state, max_chunk, team};
    bm_session *session = NULL;
    bm_error err = {0};
    CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
    return session;
}

static bm_session *open_session(const bm_model *model, bm_precision precision, bm_dtype state,
                                uint32_t max_chunk) {
    return open_team_session(model, precision, state, max_chunk, NULL);
}

/* A team of one thread that does tasks in random order: what depends on their order shows. */
static void run_shuffled(void *self, bm_task *task, void *arg, size_t count) {
    check_random *r = self;
    size_t order[4096];
    CHECK(count <= 4096, "%zu tasks", count);
    for (size_t i = 0; i < count; i++) {
        size_t other = check_between(r, 0, i);
        order[i] = order[other];
        order[other] = i;
    }
    for (size_t i = 0; i < count; i++)
        task(arg, order[i], 0);
}

/*
 * Appends ids [0, n), cut at random into chunks of at most max_chunk, and copies the logits of every
 * token to `logits` [n, vocab_size].
 */
static void run(check_random *r, bm_session *s, const bm_config *c, const uint32_t *ids, size_t n,
                size_t max_chunk, float *logits) {
    bm_error err = {0};
    for (size_t done = 0; done < n;) {
        size_t left = n - done < max_chunk ? n - done : max_chunk;
        size_t chunk = check_between(r, 1, left);
        const uint32_t *copy = check_copy(ids + done, chunk * sizeof *ids);
        CHECK(bm_session_append(s, copy, chunk, &err) == BM_OK, "%s", err.message);
        for (size_t i = 0; i < chunk; i++) {
            const float *row;
            CHECK(bm_session_logits(s, i, &row, &err) == BM_OK, "%s", err.message);
            memcpy(logits + (done + i) * c->vocab_size, row, c->vocab_size * sizeof *row);
        }
        done += chunk;
    }
    CHECK(bm_session_position(s) % n == 0, "position %llu",
          (unsigned long long)bm_session_position(s));
}

static random_model model_of(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    bm_config config = random_config(&r);
    return random_weights(&r, &config);
}

/* Any split, any variant, after a reset, with another chunk size: the same bits. */
static void splits_agree(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 2);
    uint32_t ids[MAX_TOKENS];
    size_t n = check_between(&r, 1, MAX_TOKENS);
    random_ids(&r, &m.config, ids, n);
    size_t size = n * m.config.vocab_size;
    bm_precision precision = (bm_precision)check_between(&r, 0, BM_PRECISION_COUNT - 1);
    bm_dtype state = check_between(&r, 0, 1) ? BM_F32 : BM_I16;
    bm_head head = random_head(&r, &m.config);
    const float *first = NULL;
    for (size_t v = 0; v < bm_variant_count(); v++) {
        bm_model *model = random_model_load_head(&m, v, head);
        uint32_t max_chunk = (uint32_t)check_between(&r, v ? 16 : 1, MAX_TOKENS);
        bm_session *s = open_session(model, precision, state, max_chunk);
        for (size_t round = 0; round < 3; round++) {
            float *logits = check_take(size * sizeof *logits);
            run(&r, s, &m.config, ids, n, round == 2 ? 1 : max_chunk, logits);
            first = first ? first : logits;
            CHECK_SAME(bm_variant_name(v), logits, first, size);
            bm_session_reset(s);
            CHECK(bm_session_position(s) == 0, "%s", "after a reset");
        }
        bm_session_free(s);
        bm_model_free(model);
    }
}

/* Any team: the same bits as the calling thread alone. Tasks share nothing but what they only read. */
static void teams_agree(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 8);
    uint32_t ids[MAX_TOKENS];
    size_t n = check_between(&r, 1, MAX_TOKENS);
    random_ids(&r, &m.config, ids, n);
    size_t size = n * m.config.vocab_size;
    bm_precision precision = (bm_precision)check_between(&r, 0, BM_PRECISION_COUNT - 1);
    bm_dtype state = check_between(&r, 0, 1) ? BM_F32 : BM_I16;
    size_t variant = check_between(&r, 0, bm_variant_count() - 1);
    bm_model *model = random_model_load_head(&m, variant, random_head(&r, &m.config));
    const uint32_t threads[] = {1, 2, 3, 8, BM_MAX_THREADS};
    const float *first = NULL;
    for (size_t i = 0; i <= sizeof threads / sizeof threads[0]; i++) {
        bm_team team = {run_shuffled, &r, i ? threads[i - 1] : 1};
        bm_session *s = open_team_session(model, precision, state, MAX_TOKENS, i ? &team : NULL);
        float *logits = check_take(size * sizeof *logits);
        run(&r, s, &m.config, ids, n, MAX_TOKENS, logits);
        first = first ? first : logits;
        CHECK_SAME("a team", logits, first, size);
        bm_session_free(s);
    }
    bm_session *none = NULL;
    bm_error err = {0};
    for (uint32_t bad = 0; bad <= BM_MAX_THREADS + 1; bad += BM_MAX_THREADS + 1) {
        bm_team team = {run_shuffled, &r, bad};
        bm_session_options options = {precision, state, 4, &team};
        CHECK(bm_session_create(model, &options, &none, &err) == BM_E_ARGUMENT, "%u threads", bad);
    }
    bm_model_free(model);
}

/* EXACT with f32 state against the papers' equations in double precision. */
static void equals_oracle(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 3);
    uint32_t ids[24];
    size_t n = check_between(&r, 1, 24);
    random_ids(&r, &m.config, ids, n);
    size_t vocab = m.config.vocab_size;
    double *want = check_take(n * vocab * sizeof *want);
    oracle_forward(&m, ids, n, want);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    for (size_t type = 0; type < 2; type++) {
        bm_dtype state = type ? BM_F32 : BM_I16;
        bm_session *s = open_session(model, BM_EXACT, state, 24);
        float *got = check_take(n * vocab * sizeof *got);
        run(&r, s, &m.config, ids, n, 24, got);
        double largest = 0.0;
        for (size_t i = 0; i < n * vocab; i++)
            largest = fmax(largest, fabs(want[i]));
        /* Half of what the project asks of `exact`; a 16-bit state rounds once a token. */
        double bound = (state == BM_F32 ? 5e-4 : 2e-3) * (1.0 + largest);
        for (size_t i = 0; i < n * vocab; i++)
            CHECK(fabs((double)got[i] - want[i]) <= bound,
                  "state %d, token %zu, id %zu: %g, want %g within %g", (int)state, i / vocab,
                  i % vocab, (double)got[i], want[i], bound);
        bm_session_free(s);
    }
    bm_model_free(model);
}

/* What is refused leaves the session as it was. */
static void refusals_change_nothing(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 4);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_session *s = open_session(model, BM_FAST, BM_I16, 8);
    bm_session *calm = open_session(model, BM_FAST, BM_I16, 8);
    bm_error err = {0};
    const float *logits = NULL;
    CHECK(bm_session_logits(s, 0, &logits, &err) == BM_E_ARGUMENT && !logits, "%s", err.message);
    size_t vocab = m.config.vocab_size;
    for (size_t step = 0; step < 6; step++) {
        uint32_t ids[9] = {0};
        random_ids(&r, &m.config, ids, 8);
        size_t n = check_between(&r, 1, 8);
        uint32_t bad[9];
        memcpy(bad, ids, sizeof bad);
        const uint32_t past[] = {(uint32_t)vocab, m.config.padded_vocab_size, UINT32_MAX};
        bad[check_between(&r, 0, n - 1)] = past[check_between(&r, 0, 2)];
        CHECK(bm_session_append(s, bad, n, &err) == (bm_status)BM_E_ARGUMENT, "%s", "a bad id");
        CHECK(strstr(err.message, "token id") != NULL, "%s", err.message);
        CHECK(bm_session_append(s, ids, 0, &err) == BM_E_ARGUMENT, "%s", "no ids");
        CHECK(bm_session_append(s, ids, 9, &err) == BM_E_ARGUMENT, "%s", "9 of 8");
        CHECK(bm_session_append(s, ids, SIZE_MAX, &err) == BM_E_ARGUMENT, "%s", "many");
        CHECK(bm_session_append(s, ids, n, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_append(s, bad, n, NULL) == BM_E_ARGUMENT, "%s", "a bad id");
        CHECK(bm_session_logits(s, n, &logits, &err) == BM_E_ARGUMENT, "%s", "past the end");
        CHECK(bm_session_logits(s, SIZE_MAX, &logits, &err) == BM_E_ARGUMENT, "%s", "(size_t)-1");
        CHECK(bm_session_append(calm, ids, n, &err) == BM_OK, "%s", err.message);
        const float *want;
        CHECK(bm_session_logits(s, n - 1, &logits, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_logits(calm, n - 1, &want, &err) == BM_OK, "%s", err.message);
        CHECK_SAME("logits", logits, want, vocab);
        CHECK(bm_session_position(s) == bm_session_position(calm), "step %zu", step);
    }
    bm_session_free(s);
    bm_session_free(calm);
    bm_model_free(model);
}

/*
 * The steps one by one are the append. After steps in a wrong order, or with what is refused, a reset
 * makes the session like new.
 */
static void steps_are_append(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 10);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_precision precision = (bm_precision)check_between(&r, 0, BM_PRECISION_COUNT - 1);
    bm_dtype state = check_between(&r, 0, 1) ? BM_F32 : BM_I16;
    bm_team team = {run_shuffled, &r, 3};
    bm_session *whole = open_session(model, precision, state, 8);
    bm_session *stepped = open_team_session(model, precision, state, 8, &team);
    uint32_t ids[8];
    bm_error err = {0};
    random_ids(&r, &m.config, ids, 8);
    size_t past = m.config.n_layer;
    CHECK(bm_session_step(stepped, BM_STEP_COUNT, 0, ids, 1, &err) == BM_E_ARGUMENT, "%s", "step");
    CHECK(bm_session_step(stepped, BM_STEP_SCAN, past, ids, 1, &err) == BM_E_ARGUMENT, "%s",
          "layer");
    CHECK(bm_session_step(stepped, BM_STEP_SCAN, 0, ids, 9, &err) == BM_E_ARGUMENT, "%s", "count");
    for (size_t i = 0; i < 20; i++)
        bm_session_step(stepped, (bm_step)check_between(&r, 0, BM_STEP_COUNT - 1),
                        check_between(&r, 0, past - 1), ids, check_between(&r, 1, 8), &err);
    bm_session_reset(stepped);
    for (size_t chunk = 0; chunk < 4; chunk++) {
        random_ids(&r, &m.config, ids, 8);
        size_t n = check_between(&r, 1, 8);
        CHECK(bm_session_append(whole, ids, n, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_step(stepped, BM_STEP_EMBED, 0, ids, n, &err) == BM_OK, "%s", err.message);
        for (size_t layer = 0; layer < m.config.n_layer; layer++)
            for (bm_step step = BM_STEP_PREPARE_IN; step <= BM_STEP_PROJECT_OUT; step++)
                CHECK(bm_session_step(stepped, step, layer, ids, n, &err) == BM_OK, "%s",
                      err.message);
        CHECK(bm_session_step(stepped, BM_STEP_FINISH, 0, ids, n, &err) == BM_OK, "%s",
              err.message);
        CHECK(bm_session_position(stepped) == bm_session_position(whole), "chunk %zu", chunk);
        for (size_t i = 0; i < n; i++) {
            const float *got, *want;
            CHECK(bm_session_logits(stepped, i, &got, &err) == BM_OK, "%s", err.message);
            CHECK(bm_session_logits(whole, i, &want, &err) == BM_OK, "%s", err.message);
            CHECK_SAME("logits after steps", got, want, m.config.vocab_size);
        }
    }
    bm_session_free(stepped);
    bm_session_free(whole);
    bm_model_free(model);
}

/* ---- Numbers that go wrong ------------------------------------------------------------------------ */

/* Weights that are multiplied with each other at sealing stay below 1e19, so that the model loads. */
static void multiply_tensor(const random_model *m, const char *name, int layer, float factor) {
    float *values = random_model_tensor(m, layer, name);
    bool is_folded = strstr(name, "proj") || strstr(name, "norm");
    float most = is_folded ? 1e19f : 3e38f;
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++)
        if (m->tensors[i] == (uint8_t *)values)
            for (size_t k = 0; k < bm_tensor_at(&m->config, i).bytes / sizeof(float); k++)
                values[k] = bm_abs(values[k] * factor) <= most ? values[k] * factor : most;
}

/* What makes the outputs of a projection large: its scales, or the weights of the norm before it. */
static const char *loudness_of(const random_model *m, bool is_in) {
    static const char *const names[][2] = {
        [BM_WEIGHTS_SIGN] = {"out_proj.alpha", "in_proj.alpha"},
        [BM_WEIGHTS_I4] = {"out_proj.scale", "in_proj.scale"},
        [BM_WEIGHTS_I8] = {"out_proj.scale", "in_proj.scale"},
        [BM_WEIGHTS_F16] = {"gate_norm.weight", "norm.weight"},
    };
    return names[m->config.projection_dtype][is_in];
}

/*
 * Finite weights large enough to overflow: append or logits says NUMERIC; then nothing works until a
 * reset, and afterwards the same happens again. Weights that stay below: every logit is finite.
 */
static void overflow_is_said(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 5);
    bool has_beta = m.config.projection_dtype == BM_WEIGHTS_SIGN;
    const char *const names[] = {loudness_of(&m, true),  has_beta ? "in_proj.beta" : "D",
                                 loudness_of(&m, false), has_beta ? "out_proj.beta" : "D",
                                 "conv.weight",          "conv.bias",
                                 "norm.weight",          "D",
                                 "gate_norm.weight"};
    size_t victims = check_between(&r, 1, 3);
    for (size_t i = 0; i < victims; i++)
        multiply_tensor(&m, names[check_between(&r, 0, 8)],
                        (int)check_between(&r, 0, m.config.n_layer - 1),
                        check_between(&r, 0, 1) ? 1e37f : bm_abs(check_wide(&r, 10, 120)));
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_session *s = open_session(model, (bm_precision)check_between(&r, 0, 2),
                                 check_between(&r, 0, 1) ? BM_F32 : BM_I16, 4);
    bm_error err = {0};
    uint64_t failed_at[2] = {0, 0};
    for (size_t round = 0; round < 2; round++) {
        check_random same = check_seed(seed, 6);
        for (size_t step = 0; step < 10; step++) {
            uint32_t ids[4];
            random_ids(&same, &m.config, ids, 4);
            const float *logits = NULL;
            bm_status status = bm_session_append(s, ids, 4, &err);
            if (status == BM_OK && bm_session_logits(s, 3, &logits, &err) == BM_OK) {
                for (size_t i = 0; i < m.config.vocab_size; i++)
                    CHECK(bm_is_finite(logits[i]), "logit %zu is %g", i, (double)logits[i]);
                continue;
            }
            CHECK(err.status == BM_E_NUMERIC && strstr(err.message, "NaN"), "%s", err.message);
            CHECK(!logits, "%s", "logits of a failure");
            failed_at[round] = step + 1;
            if (status == BM_OK)
                break; /* the hidden state is finite, its product with the head is not */
            CHECK(bm_session_append(s, ids, 1, &err) == BM_E_NUMERIC, "%s", "after a failure");
            CHECK(strstr(err.message, "reset") != NULL, "%s", err.message);
            status = bm_session_logits(s, 0, &logits, &err);
            CHECK(status == BM_E_NUMERIC && !logits, "logits: %d", (int)status);
            break;
        }
        bm_session_reset(s);
    }
    CHECK(failed_at[0] == failed_at[1], "failed at step %llu, after a reset at %llu",
          (unsigned long long)failed_at[0], (unsigned long long)failed_at[1]);
    bm_session_free(s);
    bm_model_free(model);
}

/* The largest finite weights everywhere: certain to overflow, never a crash or a NaN handed out. */
static void largest_weights(uint64_t seed) {
    random_model m = model_of(seed);
    const char *const names[] = {loudness_of(&m, true), loudness_of(&m, false), "conv.weight"};
    for (int layer = 0; layer < (int)m.config.n_layer; layer++)
        for (size_t i = 0; i < 3; i++)
            multiply_tensor(&m, names[i], layer, 1e38f);
    bm_model *model = random_model_load(&m, seed % bm_variant_count());
    bm_session *s = open_session(model, (bm_precision)(seed % 3), BM_F32, 8);
    bm_error err = {0};
    uint32_t ids[8] = {0};
    CHECK(bm_session_append(s, ids, 8, &err) == BM_E_NUMERIC, "%s", err.message);
    bm_session_free(s);
    bm_model_free(model);
}

/* Whatever the steps are, by the bias of dt, the text's logits are the same. */
static void steps_do_not_matter(random_model *m, check_random *r, bm_dtype state,
                                const float *steps, size_t count) {
    uint32_t ids[8];
    random_ids(r, &m->config, ids, 8);
    size_t size = 8 * (size_t)m->config.vocab_size;
    size_t heads = (size_t)m->config.expand * m->config.d_model / m->config.headdim;
    const float *first = NULL;
    m->config.dt_max = INFINITY;
    for (size_t i = 0; i < count; i++) {
        for (int layer = 0; layer < (int)m->config.n_layer; layer++) {
            float *dt_bias = random_model_tensor(m, layer, "dt_bias");
            for (size_t h = 0; h < heads; h++)
                dt_bias[h] = steps[i];
        }
        bm_model *model = random_model_load(m, check_between(r, 0, bm_variant_count() - 1));
        bm_session *s = open_session(model, BM_EXACT, state, 8);
        float *logits = check_take(size * sizeof *logits);
        run(r, s, &m->config, ids, 8, 8, logits);
        first = first ? first : logits;
        CHECK_SAME("logits", logits, first, size);
        bm_session_free(s);
        bm_model_free(model);
    }
}

/* Channels of the convolution that give 0, whatever comes in. */
static void silence_channels(random_model *m, size_t start, size_t n) {
    for (int layer = 0; layer < (int)m->config.n_layer; layer++) {
        float *conv = random_model_tensor(m, layer, "conv.weight");
        float *bias = random_model_tensor(m, layer, "conv.bias");
        memset(conv + start * m->config.d_conv, 0, n * m->config.d_conv * sizeof *conv);
        memset(bias + start, 0, n * sizeof *bias);
    }
}

/* Steps of any length do not matter to heads whose input x is 0: no infinity comes out of 0 * dt. */
static void long_steps_of_nothing(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 9);
    const float steps[] = {0.0f, 1e10f, 1e30f, 3e38f};
    silence_channels(&m, 0, (size_t)m.config.expand * m.config.d_model);
    steps_do_not_matter(&m, &r, seed % 2 ? BM_F32 : BM_I16, steps, sizeof steps / sizeof steps[0]);
}

/* Nor do steps and inputs of any size matter where all of B is 0: the state stays nothing. */
static void loud_inputs_of_nothing(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 11);
    const float steps[] = {-2.0f, 3.0f, 1e5f};
    size_t d_inner = (size_t)m.config.expand * m.config.d_model;
    for (int layer = 0; layer < (int)m.config.n_layer; layer++) {
        float *bias = random_model_tensor(&m, layer, "conv.bias");
        for (size_t i = 0; i < d_inner; i++)
            bias[i] = 1e12f;
    }
    silence_channels(&m, d_inner, (size_t)m.config.ngroups * m.config.d_state);
    steps_do_not_matter(&m, &r, seed % 2 ? BM_F32 : BM_I16, steps, sizeof steps / sizeof steps[0]);
}

/* ---- Known hashes ---------------------------------------------------------------------------------- */

static const struct {
    uint64_t seed;
    bm_weights weights;
    uint64_t hashes[BM_PRECISION_COUNT][2]; /* [precision][state: i16, f32] */
} known[] = {
    {0,
     BM_WEIGHTS_SIGN,
     {{0x92bfc7dddcd54eda, 0x3b5dd3e00fc20d68},
      {0xbd5d08a8670fd6f0, 0x8e04069e922ab3e3},
      {0x65f3ee81eb7c4a2c, 0x951f9c1ac9d70f9f}}},
    {2,
     BM_WEIGHTS_SIGN,
     {{0xb37c9ad44ffd74d2, 0x81c5dad6ebb5a125},
      {0x0ba7c3445372924a, 0x104a0ec2c25922fb},
      {0x9bfd398bcde7fafb, 0x08b7b91e043191d3}}},
    {3,
     BM_WEIGHTS_SIGN,
     {{0x35e84588f48117b0, 0x17868faeadcfa0c7},
      {0xcd9272219c9cb2cf, 0x9e09bd73ef9fcf4b},
      {0x6ceb6f38b902482e, 0xf7cffcfb5633a106}}},
    {11,
     BM_WEIGHTS_SIGN,
     {{0x652c0c8b88b9c4ef, 0xe1093bc3b3efe593},
      {0x16f068ef548dcd51, 0x1b2cc2fe1a068a2c},
      {0xe956ab3e5a36b5f9, 0xc7ab080b6e2a7386}}},
    {3,
     BM_WEIGHTS_I4,
     {{0xd3eaa5b64ca821ad, 0xd43bd8ebef687bb3},
      {0xccb1ab2bb5dc1fcc, 0xbdf55b5156e5723b},
      {0x788bd0c04fca0d0b, 0xb174523e7dd803a6}}},
    {3,
     BM_WEIGHTS_I8,
     {{0x1fdb0b3839caec5d, 0x6ce6400b8373cddc},
      {0xc4fed92194f96b6a, 0xae1be04d1193f6d1},
      {0x8ab64282a4721195, 0xbe26acf9812c465f}}},
    {3,
     BM_WEIGHTS_F16,
     {{0xfc68b6bf3ac02c41, 0xe3ef84955a3a9384},
      {0x8a4236276e48be29, 0xee2c0de72c95f2ff},
      {0xb227a1d610e58c37, 0xaa7d604326b7c3ee}}},
};

enum { KNOWN = sizeof known / sizeof known[0] };

static void known_hashes(uint64_t seed) {
    check_random chosen = check_seed(known[seed].seed, 1);
    bm_config config = random_config(&chosen);
    config.projection_dtype = known[seed].weights;
    random_model m = random_weights(&chosen, &config);
    check_random r = check_seed(seed, 7);
    uint32_t ids[40];
    random_ids(&r, &m.config, ids, 40);
    size_t size = 40 * (size_t)m.config.vocab_size;
    float *logits = check_take(size * sizeof *logits);
    for (size_t i = 0; i < BM_PRECISION_COUNT * 2 * bm_variant_count(); i++) {
        size_t variant = i / (BM_PRECISION_COUNT * 2);
        size_t precision = i / 2 % BM_PRECISION_COUNT;
        bm_model *model = random_model_load(&m, variant);
        bm_session *s = open_session(model, (bm_precision)precision, i % 2 ? BM_F32 : BM_I16, 40);
        run(&r, s, &m.config, ids, 40, 40, logits);
        uint64_t hash = hash_floats(HASH_START, logits, size);
        uint64_t want = known[seed].hashes[precision][i % 2];
        CHECK(hash == want, "%s, precision %zu, state %zu: 0x%016llx, want 0x%016llx",
              bm_variant_name(variant), precision, i % 2, (unsigned long long)hash,
              (unsigned long long)want);
        bm_session_free(s);
        bm_model_free(model);
    }
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"splits_agree", splits_agree, 80},
        {"teams_agree", teams_agree, 60},
        {"equals_oracle", equals_oracle, 100},
        {"refusals_change_nothing", refusals_change_nothing, 40},
        {"steps_are_append", steps_are_append, 60},
        {"overflow_is_said", overflow_is_said, 100},
        {"largest_weights", largest_weights, 30},
        {"long_steps_of_nothing", long_steps_of_nothing, 40},
        {"loud_inputs_of_nothing", loud_inputs_of_nothing, 40},
        {"known_hashes", known_hashes, KNOWN},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
