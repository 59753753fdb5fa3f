/*
 * test_config.c: limits of a configuration, the rules between its fields, and the table of tensors.
 *
 * Owns the list of fields and rules as a reader of bm.h expects them, written down a second time on
 * purpose: a changed limit must be changed here too.
 */
#include "bm_config.h"
#include "random_model.h"

#include <math.h>
#include <stdio.h>

static const bm_config small = {.n_layer = 2,
                                .d_model = 64,
                                .d_state = 16,
                                .headdim = 16,
                                .ngroups = 2,
                                .d_conv = 4,
                                .expand = 2,
                                .vocab_size = 50,
                                .padded_vocab_size = 64,
                                .tie_embeddings = 1,
                                .embedding_dtype = BM_I8,
                                .norm_eps = 1e-5f,
                                .dt_min = 0.0f,
                                .dt_max = INFINITY};

/* The largest config by every limit: 256 layers of d_inner 65536. */
static const bm_config largest = {.n_layer = 256,
                                  .d_model = 16384,
                                  .d_state = 512,
                                  .headdim = 4,
                                  .ngroups = 128,
                                  .d_conv = 4,
                                  .expand = 4,
                                  .vocab_size = 1048576,
                                  .padded_vocab_size = 1052672,
                                  .tie_embeddings = 0,
                                  .embedding_dtype = BM_F32,
                                  .projection_dtype = BM_WEIGHTS_F16,
                                  .norm_eps = 1.0f,
                                  .dt_min = 0.0f,
                                  .dt_max = INFINITY};

static const struct {
    const char *name;
    double min;
    double max;
} limits[] = {
    {"n_layer", 1, 256},
    {"d_model", 32, 16384},
    {"d_state", 8, 512},
    {"headdim", 4, 512},
    {"ngroups", 1, 4096},
    {"d_conv", 2, 4},
    {"expand", 1, 8},
    {"vocab_size", 1, 1048576},
    {"padded_vocab_size", 1, 1052672},
    {"tie_embeddings", 0, 1},
    {"norm_eps", 1e-12, 1},
    {"dt_min", 0, 1e6},
    {"dt_max", 1e-9, (double)INFINITY},
    {"embedding_dtype", 1, 3},
    {"projection_dtype", 0, 3},
};

enum { FIELDS = sizeof limits / sizeof limits[0] };

/* A refused value names its field, says CONFIG, and leaves the config as it was. */
static void refuse(size_t field, double value) {
    bm_config config = small;
    bm_error err = {0};
    CHECK(bm_config_set(&config, field, value, &err) == BM_E_CONFIG, "%s = %g", limits[field].name,
          value);
    CHECK(err.status == BM_E_CONFIG && strstr(err.message, limits[field].name), "%s", err.message);
    CHECK(memcmp(&config, &small, sizeof small) == 0, "%s = %g changed it", limits[field].name,
          value);
}

static void field_limits(uint64_t seed) {
    (void)seed;
    CHECK(bm_config_field_count() == FIELDS, "%zu fields", bm_config_field_count());
    CHECK(bm_config_field_at(FIELDS) == NULL, "field %d", (int)FIELDS);
    CHECK(bm_config_check(&small, NULL) == BM_OK, "%s", "small");
    for (size_t i = 0; i < FIELDS; i++) {
        const bm_config_field *f = bm_config_field_at(i);
        CHECK(strcmp(f->name, limits[i].name) == 0, "field %zu is %s", i, f->name);
        CHECK(f->min == limits[i].min && f->max == limits[i].max, "%s: %g to %g", f->name, f->min,
              f->max);
        bm_config config = small;
        CHECK(bm_config_set(&config, i, f->min, NULL) == BM_OK, "%s = %g", f->name, f->min);
        CHECK(bm_config_set(&config, i, f->max, NULL) == BM_OK, "%s = %g", f->name, f->max);
        refuse(i, NAN);
        refuse(i, -INFINITY);
        refuse(i, -1.0);
        if (f->max != (double)INFINITY)
            refuse(i, INFINITY);
        if (!f->is_integer) {
            if (f->min > 0.0)
                refuse(i, f->min * 0.99);
            if (f->max != (double)INFINITY)
                refuse(i, f->max * 1.01);
            continue;
        }
        refuse(i, f->min - 1.0);
        refuse(i, f->max + 1.0);
        refuse(i, f->min + 0.5);
        refuse(i, 4294967296.0 + f->min); /* must not wrap */
        refuse(i, 1e300);
    }
    bm_error err;
    bm_config config = small;
    CHECK(bm_config_set(&config, FIELDS, 1.0, &err) == BM_E_ARGUMENT, "%s", err.message);
}

/* What bm_config_check says of `small` with one field of its struct changed behind bm_config_set. */
static void field_limits_in_check(uint64_t seed) {
    (void)seed;
    for (size_t i = 0; i < FIELDS; i++) {
        for (int past = -1; past <= 1; past += 2) {
            bm_config config = small;
            const bm_config_field *f = bm_config_field_at(i);
            double edge = past < 0 ? f->min : f->max;
            if (edge == (double)INFINITY || (past < 0 && !f->is_integer && edge == 0.0))
                continue;
            /* Set a legal marker first to learn where the field lies. */
            bm_config low = small;
            bm_config high = small;
            CHECK(bm_config_set(&low, i, f->min, NULL) == BM_OK, "%s", f->name);
            CHECK(bm_config_set(&high, i, f->max, NULL) == BM_OK, "%s", f->name);
            size_t at = 0;
            while (memcmp((uint8_t *)&low + at, (uint8_t *)&high + at, 4) == 0)
                at += 4;
            uint32_t integer = (uint32_t)(int64_t)(edge + past);
            float real = (float)(edge * (past < 0 ? 0.99 : 1.01));
            memcpy((uint8_t *)&config + at, f->is_integer ? (void *)&integer : (void *)&real, 4);
            bm_error err = {0};
            CHECK(bm_config_check(&config, &err) == BM_E_CONFIG, "%s past %g", f->name, edge);
            CHECK(strstr(err.message, f->name) != NULL, "%s: %s", f->name, err.message);
            float bad = NAN;
            memcpy((uint8_t *)&config + at, &bad, 4);
            CHECK(bm_config_check(&config, &err) == BM_E_CONFIG, "%s is NaN", f->name);
        }
    }
}

static void expect_rule(bm_config config, const char *named) {
    bm_error err = {0};
    CHECK(bm_config_check(&config, &err) == BM_E_CONFIG, "%s", named);
    CHECK(strstr(err.message, named) != NULL, "%s: %s", named, err.message);
    bm_model *model = NULL;
    CHECK(bm_model_create(&config, 0, BM_HEAD_FILE, &model, &err) == BM_E_CONFIG && !model, "%s",
          named);
    CHECK(bm_config_check(&config, NULL) == BM_E_CONFIG, "%s, nowhere to say it", named);
}

static void rules_between_fields(uint64_t seed) {
    (void)seed;
    bm_config c = small;
    c.d_model = 72;
    expect_rule(c, "d_model is 72");
    c = small;
    c.d_model = 16384;
    c.expand = 5;
    expect_rule(c, "expand * d_model is 81920");
    c = small;
    c.d_state = 12;
    expect_rule(c, "d_state is 12");
    c = small;
    c.headdim = 24; /* 128 / 24 */
    expect_rule(c, "headdim is 24");
    c = small;
    c.headdim = 6;
    expect_rule(c, "headdim is 6");
    c = small;
    c.headdim = 256;
    expect_rule(c, "headdim is 256");
    c = small;
    c.ngroups = 3; /* of 8 heads */
    expect_rule(c, "ngroups is 3");
    c = small;
    c.ngroups = 16;
    expect_rule(c, "ngroups is 16");
    c = largest;
    c.ngroups = 256;
    expect_rule(c, "ngroups * d_state is 131072");
    c = small;
    c.padded_vocab_size = 49;
    expect_rule(c, "padded_vocab_size is 49");
    c = small;
    c.padded_vocab_size = 50 + 4097;
    expect_rule(c, "padded_vocab_size is 4147");
    c = small;
    c.dt_min = 1.0f;
    c.dt_max = 1.0f;
    expect_rule(c, "dt_min");
    c = small;
    c.padded_vocab_size = 50 + 4096;
    CHECK(bm_config_check(&c, NULL) == BM_OK, "%s", "4096 rows of padding");
    CHECK(bm_config_check(&largest, NULL) == BM_OK, "%s", "largest");
}

/* Sizes of the largest legal config in 64 bits, against the same products in double. */
static void no_overflow(uint64_t seed) {
    (void)seed;
    double total = 0.0;
    for (size_t i = 0; i < bm_tensor_count(&largest); i++) {
        bm_tensor t = bm_tensor_at(&largest, i);
        double bytes = (double)t.shape[0] * (t.n_dims == 2 ? (double)t.shape[1] : 1.0) *
                       (double)bm_dtype_size(t.dtype);
        CHECK((double)t.bytes == bytes, "%s: %llu, want %.0f", t.name, (unsigned long long)t.bytes,
              bytes);
        total += bytes;
    }
    CHECK(total > 1.5e11, "%g bytes", total);
}

/* ---- The table of tensors ------------------------------------------------------------------------ */

static void expect_tensor(const bm_config *c, size_t *index, uint32_t part, const char *name,
                          bm_dtype dtype, uint32_t rows, uint32_t cols) {
    bm_tensor t = bm_tensor_at(c, *index);
    CHECK(strcmp(t.name, name) == 0, "tensor %zu is %s, want %s", *index, t.name, name);
    CHECK(t.dtype == dtype && t.part == part, "%s: type %d, part %u", name, (int)t.dtype, t.part);
    CHECK(t.n_dims == (cols ? 2u : 1u) && t.shape[0] == rows && t.shape[1] == cols,
          "%s: %u x %u, want %u x %u", name, t.shape[0], t.shape[1], rows, cols);
    CHECK(t.bytes == (uint64_t)rows * (cols ? cols : 1) * bm_dtype_size(dtype), "%s", name);
    *index += 1;
}

/* The next tensor of a layer. */
static void expect_own(const bm_config *c, size_t *index, uint32_t layer, const char *name,
                       bm_dtype dtype, uint32_t rows, uint32_t cols) {
    char full[BM_TENSOR_NAME_SIZE];
    snprintf(full, sizeof full, "layers.%u.%s", layer, name);
    expect_tensor(c, index, layer + 1, full, dtype, rows, cols);
}

static void expect_projection(const bm_config *c, size_t *index, uint32_t layer, bool is_in,
                              uint32_t rows, uint32_t cols) {
    const char *sign = is_in ? "in_proj.sign" : "out_proj.sign";
    const char *weight = is_in ? "in_proj.weight" : "out_proj.weight";
    const char *scale = is_in ? "in_proj.scale" : "out_proj.scale";
    switch (c->projection_dtype) {
    case BM_WEIGHTS_SIGN:
        expect_own(c, index, layer, sign, BM_U8, rows, cols / 8);
        expect_own(c, index, layer, is_in ? "in_proj.alpha" : "out_proj.alpha", BM_F32, cols, 0);
        expect_own(c, index, layer, is_in ? "in_proj.beta" : "out_proj.beta", BM_F32, cols, 0);
        break;
    case BM_WEIGHTS_I4:
        expect_own(c, index, layer, weight, BM_U8, rows, cols / 2);
        expect_own(c, index, layer, scale, BM_F32, rows, (cols + 127) / 128);
        break;
    case BM_WEIGHTS_I8:
        expect_own(c, index, layer, weight, BM_I8, rows, cols);
        expect_own(c, index, layer, scale, BM_F32, rows, 0);
        break;
    default: expect_own(c, index, layer, weight, BM_F16, rows, cols); break;
    }
}

static void expect_layer(const bm_config *c, size_t *index, uint32_t layer) {
    uint32_t d_inner = c->expand * c->d_model;
    uint32_t heads = d_inner / c->headdim;
    uint32_t conv = d_inner + 2 * c->ngroups * c->d_state;
    expect_own(c, index, layer, "norm.weight", BM_F32, c->d_model, 0);
    expect_projection(c, index, layer, true, d_inner + conv + heads, c->d_model);
    expect_own(c, index, layer, "conv.weight", BM_F32, conv, c->d_conv);
    expect_own(c, index, layer, "conv.bias", BM_F32, conv, 0);
    expect_own(c, index, layer, "dt_bias", BM_F32, heads, 0);
    expect_own(c, index, layer, "A_log", BM_F32, heads, 0);
    expect_own(c, index, layer, "D", BM_F32, heads, 0);
    expect_own(c, index, layer, "gate_norm.weight", BM_F32, d_inner, 0);
    expect_projection(c, index, layer, false, c->d_model, d_inner);
}

/* The whole table of a random config, tensor by tensor, as FORMAT.md lists it. */
static void tensor_table(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    bm_config c = random_config(&r);
    CHECK(bm_config_check(&c, NULL) == BM_OK, "%s", "a random config");
    bm_dtype table = (bm_dtype)c.embedding_dtype;
    size_t index = 0;
    expect_tensor(&c, &index, 0, "embedding.weight", table, c.padded_vocab_size, c.d_model);
    if (table == BM_I8)
        expect_tensor(&c, &index, 0, "embedding.scale", BM_F32, c.padded_vocab_size, 0);
    for (uint32_t layer = 0; layer < c.n_layer; layer++)
        expect_layer(&c, &index, layer);
    expect_tensor(&c, &index, c.n_layer + 1, "norm_f.weight", BM_F32, c.d_model, 0);
    if (!c.tie_embeddings) {
        expect_tensor(&c, &index, c.n_layer + 1, "head.weight", table, c.padded_vocab_size,
                      c.d_model);
        if (table == BM_I8)
            expect_tensor(&c, &index, c.n_layer + 1, "head.scale", BM_F32, c.padded_vocab_size, 0);
    }
    CHECK(index == bm_tensor_count(&c), "%zu tensors, want %zu", bm_tensor_count(&c), index);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"field_limits", field_limits, 1},
        {"field_limits_in_check", field_limits_in_check, 1},
        {"rules_between_fields", rules_between_fields, 1},
        {"no_overflow", no_overflow, 1},
        {"tensor_table", tensor_table, 500},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
