/*
 * random_model.c: see random_model.h.
 */
#include "random_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static uint32_t pick(check_random *r, const uint32_t *from, size_t n) {
    return from[check_between(r, 0, n - 1)];
}

bm_config random_config(check_random *r) {
    static const uint32_t models[] = {32, 32, 64, 64, 96, 128, 160};
    static const uint32_t heads[] = {4, 8, 16, 32, 64};
    static const uint32_t dtypes[] = {BM_I8, BM_F16, BM_F32};
    bm_config c = {
        .n_layer = (uint32_t)check_between(r, 1, 3),
        .d_model = pick(r, models, 7),
        .d_state = 8 * (uint32_t)check_between(r, 1, 8),
        .d_conv = (uint32_t)check_between(r, 2, 4),
        .expand = (uint32_t)check_between(r, 1, 3),
        .tie_embeddings = (uint32_t)check_between(r, 0, 1),
        .embedding_dtype = pick(r, dtypes, 3),
        .norm_eps = 1e-5f,
        .dt_min = check_between(r, 0, 3) ? 0.0f : check_uniform(r, 0.0, 0.01),
        .dt_max = check_between(r, 0, 3) ? INFINITY : check_uniform(r, 0.1, 10.0),
    };
    uint32_t d_inner = c.expand * c.d_model;
    do
        c.headdim = pick(r, heads, 5);
    while (d_inner % c.headdim != 0);
    uint32_t n_heads = d_inner / c.headdim;
    do
        c.ngroups = (uint32_t)check_between(r, 1, 6);
    while (n_heads % c.ngroups != 0);
    c.vocab_size = (uint32_t)check_between(r, 1, 70);
    c.padded_vocab_size = c.vocab_size + (uint32_t)check_between(r, 0, 20);
    check_random own = *r; /* so that what follows is the same for all */
    if (check_between(&own, 0, 1))
        c.projection_dtype = (uint32_t)check_between(&own, BM_WEIGHTS_I4, BM_WEIGHTS_F16);
    return c;
}

/* Where a float tensor's values lie. */
typedef struct {
    const char *name; /* how the tensor's name ends */
    float center;
    float spread;
} distribution;

static distribution distribution_of(const char *name) {
    static const distribution known[] = {
        {"embedding.weight", 0.0f, 1.0f},
        {"embedding.scale", 0.01f, 0.002f},
        {"head.weight", 0.0f, 0.5f},
        {"head.scale", 0.005f, 0.001f},
        {"gate_norm.weight", 1.0f, 0.2f},
        {"norm.weight", 1.0f, 0.2f},
        {"norm_f.weight", 1.0f, 0.2f},
        {".alpha", 0.0f, 0.15f},
        {".beta", 0.0f, 0.02f},
        {"_proj.weight", 0.0f, 0.12f},
        {"_proj.scale", 0.003f, 0.0005f},
        {"conv.weight", 0.0f, 0.4f},
        {"conv.bias", 0.0f, 0.2f},
        {"dt_bias", -2.0f, 1.5f},
        {"A_log", 0.5f, 1.0f},
        {".D", 1.0f, 0.5f},
    };
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t end = strlen(known[i].name);
        if (length >= end && strcmp(name + length - end, known[i].name) == 0)
            return known[i];
    }
    CHECK(false, "no values for %s", name);
    return known[0];
}

/* Round to the nearest binary16 without subnormals; |v| is far below its largest. */
static uint16_t half_near(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half = magnitude < 0x38800000u ? 0 : (magnitude + 0x1000u - (112u << 23)) >> 13;
    return (uint16_t)((bits >> 16 & 0x8000u) | half);
}

uint8_t *random_tensor(check_random *r, const bm_tensor *tensor) {
    uint8_t *out = check_take((size_t)tensor->bytes);
    if (tensor->dtype == BM_U8 || tensor->dtype == BM_I8) {
        for (size_t i = 0; i < tensor->bytes; i++)
            out[i] = (uint8_t)check_next(r);
        return out;
    }
    distribution d = distribution_of(tensor->name);
    bool is_half = tensor->dtype == BM_F16;
    for (size_t i = 0; i < tensor->bytes / (is_half ? 2 : 4); i++) {
        float value = d.center + d.spread * check_normal(r);
        uint16_t half = half_near(value);
        if (is_half)
            memcpy(out + i * sizeof half, &half, sizeof half);
        else
            memcpy(out + i * sizeof value, &value, sizeof value);
    }
    return out;
}

random_model random_weights(check_random *r, const bm_config *config) {
    random_model m = {.config = *config};
    size_t n = bm_tensor_count(config);
    CHECK(n <= RANDOM_MODEL_TENSORS, "%zu tensors", n);
    for (size_t i = 0; i < n; i++) {
        bm_tensor tensor = bm_tensor_at(config, i);
        m.tensors[i] = random_tensor(r, &tensor);
    }
    return m;
}

void *random_model_tensor(const random_model *m, int layer, const char *name) {
    char full[BM_TENSOR_NAME_SIZE];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "layers.%d.%s", layer, name);
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++)
        if (strcmp(bm_tensor_at(&m->config, i).name, full) == 0)
            return m->tensors[i];
    CHECK(false, "no tensor is called %s", full);
    return NULL;
}

bm_model *random_model_load(const random_model *m, size_t variant) {
    return random_model_load_head(m, variant, BM_HEAD_FILE);
}

bm_model *random_model_load_head(const random_model *m, size_t variant, bm_head head) {
    bm_error err = {0};
    bm_model *model = NULL;
    bm_status status = bm_model_create(&m->config, variant, head, &model, &err);
    CHECK(status == BM_OK, "create: %s", err.message);
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++) {
        size_t bytes = (size_t)bm_tensor_at(&m->config, i).bytes;
        status = bm_model_write(model, i, 0, m->tensors[i], bytes, &err);
        CHECK(status == BM_OK, "write: %s", err.message);
    }
    for (size_t part = 0; part < (size_t)m->config.n_layer + 2; part++) {
        status = bm_model_seal_part(model, part, &err);
        CHECK(status == BM_OK, "seal: %s", err.message);
    }
    return model;
}

bm_head random_head(check_random *r, const bm_config *config) {
    bool can_pack = config->embedding_dtype == BM_I8;
    return can_pack && check_between(r, 0, 1) ? BM_HEAD_INT4 : BM_HEAD_FILE;
}

void random_ids(check_random *r, const bm_config *config, uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)check_between(r, 0, config->vocab_size - 1);
}

uint64_t hash_floats(uint64_t hash, const float *x, size_t n) {
    const uint8_t *bytes = (const uint8_t *)x;
    for (size_t i = 0; i < n * sizeof *x; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
