/*
 * test_model.c: taking tensors, sealing parts, and what happens when memory, bytes or numbers are wrong.
 *
 * Owns the allocator's failures: the program is linked with --wrap=calloc, so that the k-th
 * allocation fails on demand and no test takes more memory than LARGEST_BLOCK.
 */
#include "bm_base.h"
#include "random_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- The allocator ------------------------------------------------------------------------------- */

enum { LARGEST_BLOCK = 64 << 20 };

static struct {
    int64_t until_failure; /* allocations that still succeed; negative: all */
    size_t last_size;      /* of the last allocation asked for */
} allocator = {.until_failure = -1};

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_calloc(size_t count, size_t size) {
    allocator.last_size = size;
    if (size > LARGEST_BLOCK || allocator.until_failure == 0)
        return NULL;
    if (allocator.until_failure > 0)
        allocator.until_failure--;
    return __real_calloc(count, size);
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static random_model model_of(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    bm_config config = random_config(&r);
    return random_weights(&r, &config);
}

static bm_model *create_head(const bm_config *config, size_t variant, bm_head head) {
    bm_error err = {0};
    bm_model *model = NULL;
    CHECK(bm_model_create(config, variant, head, &model, &err) == BM_OK, "%s", err.message);
    return model;
}

static bm_model *create(const bm_config *config, size_t variant) {
    return create_head(config, variant, BM_HEAD_FILE);
}

static uint64_t hash_of_session(const bm_model *model, const bm_config *config,
                                bm_precision precision) {
    bm_session_options options = {precision, BM_F32, 8, NULL};
    bm_session *session = NULL;
    bm_error err = {0};
    CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
    uint32_t ids[8] = {0};
    CHECK(bm_session_append(session, ids, 8, &err) == BM_OK, "%s", err.message);
    const float *logits;
    CHECK(bm_session_logits(session, 7, &logits, &err) == BM_OK, "%s", err.message);
    uint64_t hash = hash_floats(HASH_START, logits, config->vocab_size);
    bm_session_free(session);
    return hash;
}

/* Any order of tensors and byte ranges gives the model that whole tensors in order give; a head in 4 bits: any ranges. */
static void write_in_any_order(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 2);
    size_t n = bm_tensor_count(&m.config);
    size_t variant = check_between(&r, 0, bm_variant_count() - 1);
    bm_head head = random_head(&r, &m.config);
    bm_model *model = create_head(&m.config, variant, head);
    uint64_t *done = memset(check_take(n * sizeof *done), 0, n * sizeof *done);
    bm_error err = {0};
    for (size_t open = n; open > 0;) {
        size_t i = check_between(&r, 0, n - 1);
        uint64_t bytes = bm_tensor_at(&m.config, i).bytes;
        if (done[i] == bytes)
            continue;
        size_t most = (size_t)(bytes - done[i]);
        size_t run = check_between(&r, 0, 3) ? most : check_between(&r, 0, most);
        /* Every second tensor from its end towards its start. */
        bool in_order =
            head == BM_HEAD_INT4 && strcmp(bm_tensor_at(&m.config, i).name, "head.weight") == 0;
        uint64_t offset = i % 2 && !in_order ? bytes - done[i] - run : done[i];
        const void *from = check_copy(m.tensors[i] + offset, run);
        CHECK(bm_model_write(model, i, offset, from, run, &err) == BM_OK, "%s", err.message);
        done[i] += run;
        open -= done[i] == bytes;
    }
    for (size_t part = m.config.n_layer + 2; part-- > 0;)
        CHECK(bm_model_seal_part(model, part, &err) == BM_OK, "%s", err.message);
    bm_model *whole = random_model_load_head(&m, variant, head);
    CHECK(hash_of_session(model, &m.config, BM_EXACT) ==
              hash_of_session(whole, &m.config, BM_EXACT),
          "variant %zu", variant);
    bm_model_free(model);
    bm_model_free(whole);
}

static void expect(bm_status got, bm_status want, const bm_error *err, const char *part) {
    CHECK(got == want && err->status == want, "status %d, want %d: %s", (int)got, (int)want,
          err->message);
    CHECK(strstr(err->message, part) != NULL, "\"%s\" does not say \"%s\"", err->message, part);
}

static void write_errors(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 3);
    bm_error err = {0};
    bm_model *model = create(&m.config, check_between(&r, 0, bm_variant_count() - 1));
    size_t n = bm_tensor_count(&m.config);
    size_t i = check_between(&r, 0, n - 1);
    bm_tensor t = bm_tensor_at(&m.config, i);
    size_t bytes = (size_t)t.bytes;
    expect(bm_model_write(model, n, 0, m.tensors[0], 1, &err), BM_E_ARGUMENT, &err, "tensor");
    expect(bm_model_write(model, SIZE_MAX, 0, m.tensors[0], 1, &err), BM_E_ARGUMENT, &err,
           "tensor");
    expect(bm_model_write(model, i, t.bytes, m.tensors[i], 1, &err), BM_E_ARGUMENT, &err, t.name);
    expect(bm_model_write(model, i, t.bytes + 1, NULL, 0, &err), BM_E_ARGUMENT, &err, t.name);
    expect(bm_model_write(model, i, 1, m.tensors[i], bytes, &err), BM_E_ARGUMENT, &err, t.name);
    expect(bm_model_write(model, i, UINT64_MAX, m.tensors[i], 2, &err), BM_E_ARGUMENT, &err,
           t.name);
    expect(bm_model_write(model, i, UINT64_MAX - 1, m.tensors[i], SIZE_MAX, &err), BM_E_ARGUMENT,
           &err, t.name);
    CHECK(bm_model_write(model, i, 0, m.tensors[i], bytes, &err) == BM_OK, "%s", err.message);
    expect(bm_model_write(model, i, 0, m.tensors[i], 1, &err), BM_E_ORDER, &err, t.name);
    expect(bm_model_seal_part(model, (size_t)m.config.n_layer + 2, &err), BM_E_ARGUMENT, &err,
           "part");
    CHECK(bm_model_write(model, i, 0, m.tensors[i], 1, NULL) == BM_E_ORDER, "%s", t.name);
    bm_model_free(model);
}

/* One byte missing in one tensor: its part says so, the others seal, no session starts. */
static void byte_missing(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 4);
    bm_error err = {0};
    bm_model *model = create(&m.config, check_between(&r, 0, bm_variant_count() - 1));
    size_t n = bm_tensor_count(&m.config);
    size_t victim = check_between(&r, 0, n - 1);
    bm_tensor t = bm_tensor_at(&m.config, victim);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = (size_t)bm_tensor_at(&m.config, i).bytes - (i == victim);
        CHECK(bm_model_write(model, i, 0, m.tensors[i], bytes, &err) == BM_OK, "%s", err.message);
    }
    bm_session_options options = {BM_FAST, BM_F32, 1, NULL};
    bm_session *session = NULL;
    for (size_t part = 0; part < (size_t)m.config.n_layer + 2; part++) {
        if (part == t.part)
            expect(bm_model_seal_part(model, part, &err), BM_E_ORDER, &err, t.name);
        else
            CHECK(bm_model_seal_part(model, part, &err) == BM_OK, "%s", err.message);
    }
    CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
    uint32_t id = 0;
    expect(bm_session_append(session, &id, 1, &err), BM_E_ORDER, &err, "seal");
    bm_session_free(session);
    CHECK(bm_model_write(model, victim, t.bytes - 1, m.tensors[victim] + t.bytes - 1, 1, &err) ==
              BM_OK,
          "%s", err.message);
    CHECK(bm_model_seal_part(model, t.part, &err) == BM_OK, "%s", err.message);
    expect(bm_model_seal_part(model, t.part, &err), BM_E_ORDER, &err, "sealed");
    expect(bm_model_write(model, victim, 0, m.tensors[victim], 0, &err), BM_E_ORDER, &err, t.name);
    CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
    bm_session_free(session);
    bm_model_free(model);
}

/* ---- Sealing ------------------------------------------------------------------------------------- */

static void put_nonfinite(check_random *r, uint8_t *values, bm_dtype dtype, size_t at) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const uint16_t bad_halves[] = {0x7c00, 0xfc00, 0x7e01, 0xffff};
    if (dtype == BM_F16)
        memcpy(values + 2 * at, &bad_halves[check_between(r, 0, 3)], 2);
    else
        memcpy(values + 4 * at, &bad[check_between(r, 0, 2)], 4);
}

/* Finite weights whose product is not: found at sealing, by name; nothing was folded, twice the same. */
static void folds_that_overflow(uint64_t seed) {
    check_random r = check_seed(seed, 9);
    bm_config config = random_config(&r);
    config.projection_dtype = BM_WEIGHTS_SIGN;
    random_model m = random_weights(&r, &config);
    static const char *const pairs[][2] = {{"norm.weight", "in_proj.alpha"},
                                           {"norm.weight", "in_proj.beta"},
                                           {"gate_norm.weight", "out_proj.alpha"},
                                           {"gate_norm.weight", "out_proj.beta"}};
    const char *const *pair = pairs[seed % 4];
    int layer = (int)check_between(&r, 0, m.config.n_layer - 1);
    size_t cols = seed % 4 < 2 ? m.config.d_model : (size_t)m.config.expand * m.config.d_model;
    size_t at = check_between(&r, 0, cols - 1);
    ((float *)random_model_tensor(&m, layer, pair[0]))[at] = 2e38f;
    ((float *)random_model_tensor(&m, layer, pair[1]))[at] = check_between(&r, 0, 1) ? 2.0f : -2.0f;
    bm_model *model = create(&m.config, seed % bm_variant_count());
    bm_error err = {0};
    for (size_t i = 0; i < bm_tensor_count(&m.config); i++) {
        size_t bytes = (size_t)bm_tensor_at(&m.config, i).bytes;
        CHECK(bm_model_write(model, i, 0, m.tensors[i], bytes, &err) == BM_OK, "%s", err.message);
    }
    char place[32];
    snprintf(place, sizeof place, "column %zu", at);
    for (size_t round = 0; round < 2; round++) {
        expect(bm_model_seal_part(model, (size_t)layer + 1, &err), BM_E_NONFINITE, &err, pair[0]);
        CHECK(strstr(err.message, pair[1]) && strstr(err.message, place), "%s", err.message);
    }
    bm_model_free(model);
}

/* A NaN or an infinity anywhere in any float tensor is found at sealing, by name and place. */
static void nonfinite(uint64_t seed) {
    random_model m = model_of(seed);
    check_random r = check_seed(seed, 5);
    bm_error err = {0};
    for (size_t victim = 0; victim < bm_tensor_count(&m.config); victim++) {
        bm_tensor t = bm_tensor_at(&m.config, victim);
        if (t.dtype != BM_F32 && t.dtype != BM_F16)
            continue;
        size_t at = check_between(&r, 0, (size_t)t.bytes / (t.dtype == BM_F16 ? 2 : 4) - 1);
        uint8_t *saved = m.tensors[victim];
        m.tensors[victim] = check_copy(saved, (size_t)t.bytes);
        put_nonfinite(&r, m.tensors[victim], t.dtype, at);
        bm_model *model = create(&m.config, victim % bm_variant_count());
        for (size_t i = 0; i < bm_tensor_count(&m.config); i++) {
            size_t bytes = (size_t)bm_tensor_at(&m.config, i).bytes;
            CHECK(bm_model_write(model, i, 0, m.tensors[i], bytes, &err) == BM_OK, "%s",
                  err.message);
        }
        for (size_t part = 0; part < (size_t)m.config.n_layer + 2; part++) {
            if (part != t.part) {
                CHECK(bm_model_seal_part(model, part, &err) == BM_OK, "%s", err.message);
                continue;
            }
            expect(bm_model_seal_part(model, part, &err), BM_E_NONFINITE, &err, t.name);
            CHECK(bm_model_seal_part(model, part, NULL) == BM_E_NONFINITE, "%s", t.name);
        }
        bm_session_options options = {BM_FAST, BM_F32, 1, NULL};
        bm_session *session = NULL;
        CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
        uint32_t id = 0;
        expect(bm_session_append(session, &id, 1, &err), BM_E_ORDER, &err, "seal");
        bm_session_free(session);
        bm_model_free(model);
        m.tensors[victim] = saved;
    }
}

/* ---- A head in 4 bits ---------------------------------------------------------------------------- */

static bm_config int8_config(check_random *r, uint32_t tie_embeddings) {
    bm_config config = random_config(r);
    config.embedding_dtype = BM_I8;
    config.tie_embeddings = tie_embeddings;
    return config;
}

/* Weights that 4 bits hold as they are: the logits have the bits of the int8 head, tied or not. */
static void int4_of_small_weights(uint64_t seed) {
    check_random r = check_seed(seed, 10);
    bm_config config = int8_config(&r, seed % 2);
    random_model m = random_weights(&r, &config);
    int8_t *table = random_model_tensor(&m, -1, seed % 2 ? "embedding.weight" : "head.weight");
    for (size_t i = 0; i < (size_t)config.padded_vocab_size * config.d_model; i++)
        table[i] = (int8_t)((int)check_between(&r, 0, 14) - 7);
    size_t variant = check_between(&r, 0, bm_variant_count() - 1);
    bm_model *wide = random_model_load_head(&m, variant, BM_HEAD_FILE);
    bm_model *packed = random_model_load_head(&m, variant, BM_HEAD_INT4);
    for (int precision = 0; precision < BM_PRECISION_COUNT; precision++)
        CHECK(hash_of_session(packed, &config, (bm_precision)precision) ==
                  hash_of_session(wide, &config, (bm_precision)precision),
              "variant %zu, precision %d", variant, precision);
    bm_model_free(wide);
    bm_model_free(packed);
}

/* A tied model and one whose head is a copy of its embedding: the embedding stays int8, the heads are one. */
static void int4_tied_or_not(uint64_t seed) {
    check_random r = check_seed(seed, 11);
    bm_config config = int8_config(&r, 0);
    random_model untied = random_weights(&r, &config);
    random_model tied = untied;
    tied.config.tie_embeddings = 1;
    size_t n = (size_t)config.padded_vocab_size * config.d_model;
    memcpy(random_model_tensor(&untied, -1, "head.weight"), untied.tensors[0], n);
    memcpy(random_model_tensor(&untied, -1, "head.scale"), untied.tensors[1],
           config.padded_vocab_size * sizeof(float));
    size_t variant = check_between(&r, 0, bm_variant_count() - 1);
    uint64_t hashes[3];
    for (int i = 0; i < 3; i++) {
        const random_model *m = i == 1 ? &untied : &tied;
        bm_model *model = random_model_load_head(m, variant, i < 2 ? BM_HEAD_INT4 : BM_HEAD_FILE);
        hashes[i] = hash_of_session(model, &m->config, BM_HIGH);
        bm_model_free(model);
    }
    CHECK(hashes[0] == hashes[1], "%s", "tied and untied differ");
    CHECK(hashes[0] != hashes[2], "%s", "4 bits changed nothing");
}

/* Only an int8 head becomes int4, and an untied one only in order. */
static void int4_refusals(uint64_t seed) {
    check_random r = check_seed(seed, 12);
    bm_config config = int8_config(&r, 0);
    random_model m = random_weights(&r, &config);
    bm_error err = {0};
    bm_model *model = NULL;
    static const char *const names[] = {[BM_F16] = "f16", [BM_F32] = "f32"};
    for (uint32_t dtype = BM_F16; dtype <= BM_F32; dtype++) {
        bm_config other = config;
        other.embedding_dtype = dtype;
        expect(bm_model_create(&other, 0, BM_HEAD_INT4, &model, &err), BM_E_ARGUMENT, &err,
               names[dtype]);
        CHECK(model == NULL, "%s", "a model");
    }
    model = create_head(&config, 0, BM_HEAD_INT4);
    size_t head = bm_tensor_count(&config) - 2;
    expect(bm_model_write(model, head, 1, m.tensors[head] + 1, 1, &err), BM_E_ORDER, &err,
           "head.weight");
    CHECK(bm_model_write(model, head, 0, m.tensors[head], 5, &err) == BM_OK, "%s", err.message);
    expect(bm_model_write(model, head, 0, m.tensors[head], 5, &err), BM_E_ORDER, &err, "in order");
    CHECK(bm_model_write(model, head, 5, m.tensors[head] + 5, 1, &err) == BM_OK, "%s", err.message);
    bm_model_free(model);
}

/* ---- Memory -------------------------------------------------------------------------------------- */

/* Creates all there is to create; the status of the first failure, with nothing left behind. */
static bm_status whole_life(const random_model *m, bm_error *err) {
    bm_model *model = NULL;
    bm_session *session = NULL;
    bm_sampler *sampler = NULL;
    bm_session_options options = {BM_HIGH, BM_I16, 4, NULL};
    bm_sampling sampling = {.repetition_penalty = 1.0f,
                            .repetition_window = 8,
                            .temperature = 1.0f,
                            .typical_p = 1.0f,
                            .top_p = 1.0f};
    bm_head head = m->config.embedding_dtype == BM_I8 ? BM_HEAD_INT4 : BM_HEAD_FILE;
    bm_status status = bm_model_create(&m->config, 0, head, &model, err);
    if (status != BM_OK) {
        CHECK(model == NULL, "%s", "a model after a failure");
        return status;
    }
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++) {
        size_t bytes = (size_t)bm_tensor_at(&m->config, i).bytes;
        CHECK(bm_model_write(model, i, 0, m->tensors[i], bytes, err) == BM_OK, "%s", err->message);
    }
    for (size_t part = 0; part < (size_t)m->config.n_layer + 2; part++)
        CHECK(bm_model_seal_part(model, part, err) == BM_OK, "%s", err->message);
    status = bm_session_create(model, &options, &session, err);
    CHECK((status == BM_OK) == (session != NULL), "session, status %d", (int)status);
    if (status == BM_OK) {
        status = bm_sampler_create(m->config.vocab_size, &sampling, &sampler, err);
        CHECK((status == BM_OK) == (sampler != NULL), "sampler, status %d", (int)status);
    }
    bm_sampler_free(sampler);
    bm_session_free(session);
    bm_model_free(model);
    return status;
}

/* Every allocation fails once; the leak sanitizer sees what the others left. */
static void allocation_fails(uint64_t seed) {
    random_model m = model_of(seed);
    bm_error err = {0};
    int64_t k = 0;
    for (;; k++) {
        allocator.until_failure = k;
        bm_status status = whole_life(&m, &err);
        if (status == BM_OK)
            break;
        CHECK(status == BM_E_MEMORY && err.status == BM_E_MEMORY, "allocation %lld: status %d",
              (long long)k, (int)status);
        CHECK(strstr(err.message, "memory") != NULL, "%s", err.message);
    }
    allocator.until_failure = -1;
    CHECK(k == 3, "%lld allocations, want one per create", (long long)k);
}

/* A config at or near every limit: refused for memory, with a size that was not cut to 32 bits. */
static void huge_configs(uint64_t seed) {
    check_random r = check_seed(seed, 6);
    bm_config c = {.n_layer = (uint32_t)check_between(&r, 100, 256),
                   .d_model = 16384,
                   .d_state = 512,
                   .headdim = 4u << check_between(&r, 0, 5),
                   .ngroups = 1u << check_between(&r, 0, 7),
                   .d_conv = 4,
                   .expand = 4,
                   .vocab_size = 1048576 - (uint32_t)check_between(&r, 0, 5),
                   .padded_vocab_size = 1048576,
                   .tie_embeddings = (uint32_t)check_between(&r, 0, 1),
                   .embedding_dtype = (uint32_t)check_between(&r, BM_I8, BM_F32),
                   .projection_dtype = (uint32_t)check_between(&r, 0, BM_WEIGHTS_F16),
                   .norm_eps = 1e-5f,
                   .dt_max = INFINITY};
    bm_error err = {0};
    CHECK(bm_config_check(&c, &err) == BM_OK, "%s", err.message);
    double total = 0.0;
    for (size_t i = 0; i < bm_tensor_count(&c); i++)
        total += (double)bm_tensor_at(&c, i).bytes;
    for (size_t v = 0; v < bm_variant_count(); v++) {
        bm_model *model = NULL;
        allocator.last_size = 0;
        expect(bm_model_create(&c, v, BM_HEAD_FILE, &model, &err), BM_E_MEMORY, &err, "MiB");
        CHECK(model == NULL, "%s", "a model");
        if (sizeof(size_t) == 8)
            CHECK((double)allocator.last_size >= total, "%zu bytes asked for, tensors have %g",
                  allocator.last_size, total);
    }
}

/* Sizes around 2^31 and 2^32, where a 32-bit size wraps: memory is refused, never too little given. */
static void around_4_gib(uint64_t seed) {
    check_random r = check_seed(seed, 7);
    bm_config c = {.n_layer = 1,
                   .d_model = 4096,
                   .d_state = 16,
                   .headdim = 64,
                   .ngroups = 1,
                   .d_conv = 4,
                   .expand = 1,
                   .embedding_dtype = BM_I8,
                   .tie_embeddings = 1,
                   .norm_eps = 1e-5f,
                   .dt_max = INFINITY};
    c.vocab_size = (uint32_t)(((uint64_t)check_between(&r, 1, 2) << 31) / 4096 +
                              check_between(&r, 0, 4096) - 2048);
    c.vocab_size = c.vocab_size > 1048576 ? 1048576 : c.vocab_size;
    c.padded_vocab_size = c.vocab_size + (uint32_t)check_between(&r, 0, 4096);
    bm_model *model = NULL;
    bm_error err = {0};
    allocator.last_size = SIZE_MAX;
    expect(bm_model_create(&c, 0, BM_HEAD_FILE, &model, &err), BM_E_MEMORY, &err, "MiB");
    CHECK(allocator.last_size >= (size_t)c.padded_vocab_size * 4000, "%zu bytes for %u rows",
          allocator.last_size, c.padded_vocab_size);
    size_t without = allocator.last_size;
    allocator.last_size = SIZE_MAX;
    expect(bm_model_create(&c, 0, BM_HEAD_INT4, &model, &err), BM_E_MEMORY, &err, "MiB");
    CHECK(allocator.last_size >= without, "%zu bytes with 4 bits, %zu without", allocator.last_size,
          without);
}

static void argument_errors(uint64_t seed) {
    random_model m = model_of(seed);
    bm_error err = {0};
    bm_model *none = NULL;
    expect(bm_model_create(&m.config, bm_variant_count(), BM_HEAD_FILE, &none, &err), BM_E_ARGUMENT,
           &err, "variant");
    expect(bm_model_create(&m.config, 0, BM_HEAD_COUNT, &none, &err), BM_E_ARGUMENT, &err, "head");
    CHECK(none == NULL && bm_variant_name(bm_variant_count()) == NULL, "%s", "no such variant");
    bm_model *model = random_model_load(&m, 0);
    const struct {
        bm_session_options options;
        const char *named;
    } wrong[] = {
        {{BM_PRECISION_COUNT, BM_F32, 1, NULL}, "precision"},
        {{BM_FAST, BM_U8, 1, NULL}, "state"},
        {{BM_FAST, BM_I8, 1, NULL}, "state"},
        {{BM_FAST, BM_F32, 0, NULL}, "max_chunk"},
        {{BM_FAST, BM_F32, 1025, NULL}, "max_chunk"},
        {{BM_FAST, BM_F32, UINT32_MAX, NULL}, "max_chunk"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        bm_session *session = NULL;
        expect(bm_session_create(model, &wrong[i].options, &session, &err), BM_E_ARGUMENT, &err,
               wrong[i].named);
        CHECK(session == NULL, "%s", wrong[i].named);
    }
    bm_model_free(model);
    bm_model_free(NULL);
    bm_session_free(NULL);
    bm_sampler_free(NULL);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"write_in_any_order", write_in_any_order, 100},
        {"write_errors", write_errors, 200},
        {"byte_missing", byte_missing, 200},
        {"nonfinite", nonfinite, 50},
        {"folds_that_overflow", folds_that_overflow, 40},
        {"int4_of_small_weights", int4_of_small_weights, 100},
        {"int4_tied_or_not", int4_tied_or_not, 50},
        {"int4_refusals", int4_refusals, 20},
        {"allocation_fails", allocation_fails, 50},
        {"huge_configs", huge_configs, 50},
        {"around_4_gib", around_4_gib, 50},
        {"argument_errors", argument_errors, 1},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
