/*
 * test_state.c: states as bytes, and sessions that step together.
 *
 * Owns three promises: a copied state continues to the bit, whatever computes; in another type it is as near as that type allows;
 * and sessions that step together are each as it would be alone.
 */
#include "bm_base.h"
#include "random_model.h"

enum { MAX_CHUNK = 8, MAX_SESSIONS = 20 };

static bm_session *open_small_session(const bm_model *model, bm_precision precision, bm_dtype state,
                                      const bm_team *team, uint32_t max_chunk) {
    bm_session_options options = {precision, state, max_chunk, team};
    bm_session *session = NULL;
    bm_error err = {0};
    CHECK(bm_session_create(model, &options, &session, &err) == BM_OK, "%s", err.message);
    return session;
}

static bm_session *open_session(const bm_model *model, bm_precision precision, bm_dtype state,
                                const bm_team *team) {
    return open_small_session(model, precision, state, team, MAX_CHUNK);
}

static random_model model_of(uint64_t seed, check_random *r) {
    *r = check_seed(seed, 1);
    bm_config config = random_config(r);
    return random_weights(r, &config);
}

/* n chunks of at most `most` tokens. */
static void append_small(check_random *r, bm_session *s, const bm_config *c, size_t n,
                         size_t most) {
    bm_error err = {0};
    for (size_t i = 0; i < n; i++) {
        uint32_t ids[MAX_CHUNK];
        size_t chunk = check_between(r, 1, most);
        random_ids(r, c, ids, chunk);
        CHECK(bm_session_append(s, ids, chunk, &err) == BM_OK, "%s", err.message);
    }
}

static void append(check_random *r, bm_session *s, const bm_config *c, size_t n) {
    append_small(r, s, c, n, MAX_CHUNK);
}

static const float *logits_of(bm_session *s, size_t index) {
    const float *logits = NULL;
    bm_error err = {0};
    CHECK(bm_session_logits(s, index, &logits, &err) == BM_OK, "%s", err.message);
    return logits;
}

static void *copy_state(bm_session *s, const bm_config *c, bm_dtype dtype) {
    return check_copy(bm_session_state(s), (size_t)bm_state_bytes(c, dtype));
}

static void adopt(bm_session *s, const bm_config *c, bm_dtype dtype, const void *state,
                  uint64_t position) {
    bm_error err = {0};
    memcpy(bm_session_state(s), state, (size_t)bm_state_bytes(c, dtype));
    CHECK(bm_session_adopt(s, position, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_position(s) == position, "%llu", (unsigned long long)bm_session_position(s));
}

static void run_backwards(void *self, bm_task *task, void *arg, size_t count) {
    (void)self;
    for (size_t i = count; i-- > 0;)
        task(arg, i, 0);
}

static bm_dtype random_state(check_random *r) {
    return check_between(r, 0, 1) ? BM_F32 : BM_I16;
}

static bm_precision random_precision(check_random *r) {
    return (bm_precision)check_between(r, 0, BM_PRECISION_COUNT - 1);
}

/* Another session, of another family or team, that was somewhere else: it goes on where the state was taken. */
static void copies_continue(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_model *one = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_model *two = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_precision precision = random_precision(&r);
    bm_dtype dtype = random_state(&r);
    bm_team team = {run_backwards, NULL, 3};
    bm_session *a = open_session(one, precision, dtype, NULL);
    bm_session *b = open_session(two, precision, dtype, &team);
    append(&r, b, &m.config, 2);
    for (size_t round = 0; round < 4; round++) {
        append(&r, a, &m.config, check_between(&r, 0, 3));
        uint64_t position = bm_session_position(a);
        void *state = copy_state(a, &m.config, dtype);
        adopt(b, &m.config, dtype, state, position);
        uint32_t ids[MAX_CHUNK];
        size_t n = check_between(&r, 1, MAX_CHUNK);
        random_ids(&r, &m.config, ids, n);
        bm_error err = {0};
        CHECK(bm_session_append(a, ids, n, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_append(b, ids, n, &err) == BM_OK, "%s", err.message);
        for (size_t i = 0; i < n; i++)
            CHECK_SAME("logits", logits_of(b, i), logits_of(a, i), m.config.vocab_size);
        adopt(a, &m.config, dtype, state, position);
        CHECK(bm_session_append(a, ids, n, &err) == BM_OK, "%s", err.message);
        CHECK_SAME("back and again", logits_of(a, n - 1), logits_of(b, n - 1), m.config.vocab_size);
    }
    bm_session_free(a);
    bm_session_free(b);
    bm_model_free(one);
    bm_model_free(two);
}

/* What an earlier text, or anything, left in memory is not read and not seen. */
static void reset_forgets(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_precision precision = random_precision(&r);
    bm_dtype dtype = random_state(&r);
    size_t bytes = (size_t)bm_state_bytes(&m.config, dtype);
    bm_session *used = open_session(model, precision, dtype, NULL);
    bm_session *fresh = open_session(model, precision, dtype, NULL);
    bm_error err = {0};
    append(&r, used, &m.config, 2);
    bm_session_reset(used);
    const uint8_t *state = bm_session_state(used);
    for (size_t i = 0; i < bytes; i++)
        CHECK(state[i] == 0, "byte %zu is %u", i, state[i]);
    memset(bm_session_state(used), 0xff, bytes); /* NaN, and integers that nothing rounds to */
    CHECK(bm_session_adopt(used, 0, &err) == BM_OK, "%s", err.message);
    uint32_t ids[MAX_CHUNK];
    size_t n = check_between(&r, 1, MAX_CHUNK);
    random_ids(&r, &m.config, ids, n);
    CHECK(bm_session_append(used, ids, n, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_append(fresh, ids, n, &err) == BM_OK, "%s", err.message);
    CHECK_SAME("logits", logits_of(used, n - 1), logits_of(fresh, n - 1), m.config.vocab_size);
    CHECK(memcmp(bm_session_state(used), bm_session_state(fresh), bytes) == 0, "%s", "state");
    bm_session_free(used);
    bm_session_free(fresh);
    bm_model_free(model);
}

/* The last logits come with the state; position 0 is a reset, whatever the block holds. */
static void logits_come_along(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_session *a = open_session(model, BM_FAST, BM_F32, NULL);
    bm_session *b = open_session(model, BM_FAST, BM_F32, NULL);
    uint32_t ids[3];
    random_ids(&r, &m.config, ids, 3);
    bm_error err = {0};
    CHECK(bm_session_append(a, ids, 3, &err) == BM_OK, "%s", err.message);
    adopt(b, &m.config, BM_F32, copy_state(a, &m.config, BM_F32), 3);
    CHECK_SAME("the last logits", logits_of(b, 0), logits_of(a, 2), m.config.vocab_size);
    const float *none = NULL;
    CHECK(bm_session_logits(b, 1, &none, &err) == BM_E_ARGUMENT, "%s", "one token's only");
    CHECK(bm_session_adopt(b, 0, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_logits(b, 0, &none, &err) == BM_E_ARGUMENT, "%s", "at position 0");
    bm_session *fresh = open_session(model, BM_FAST, BM_F32, NULL);
    CHECK(bm_session_append(b, ids, 3, &err) == BM_OK, "%s", err.message);
    CHECK(bm_session_append(fresh, ids, 3, &err) == BM_OK, "%s", err.message);
    CHECK_SAME("after position 0", logits_of(b, 2), logits_of(fresh, 2), m.config.vocab_size);
    bm_session_free(a);
    bm_session_free(b);
    bm_session_free(fresh);
    bm_model_free(model);
}

/* Any bytes: no crash and no undefined arithmetic; what is no number is found, and a good state heals. */
static void junk_is_survived(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_model *model = random_model_load(&m, check_between(&r, 0, bm_variant_count() - 1));
    bm_dtype dtype = random_state(&r);
    bm_session *s = open_session(model, random_precision(&r), dtype, NULL);
    append(&r, s, &m.config, 1);
    void *good = copy_state(s, &m.config, dtype);
    uint64_t position = bm_session_position(s);
    uint8_t *bytes = bm_session_state(s);
    size_t size = (size_t)bm_state_bytes(&m.config, dtype);
    for (size_t i = 0; i + 4 <= size; i += 4) {
        float value = check_between(&r, 0, 3) ? check_wide(&r, -120, 127) : check_normal(&r);
        uint32_t bits = seed % 2 ? (uint32_t)check_next(&r) : bm_bits_of(value);
        memcpy(bytes + i, &bits, 4);
    }
    bm_error err = {0};
    uint64_t anywhere = check_between(&r, 1, 1 << 30);
    bm_status status = bm_session_adopt(s, anywhere, &err);
    CHECK(status == BM_OK || status == BM_E_NUMERIC, "%s", err.message);
    for (size_t i = 0; i < 5 && status == BM_OK; i++) {
        uint32_t ids[MAX_CHUNK];
        random_ids(&r, &m.config, ids, MAX_CHUNK);
        status = bm_session_append(s, ids, MAX_CHUNK, &err);
        CHECK(status == BM_OK || status == BM_E_NUMERIC, "%s", err.message);
    }
    if (status != BM_OK)
        CHECK(bm_session_append(s, &(uint32_t){0}, 1, &err) == BM_E_NUMERIC, "%s", err.message);
    adopt(s, &m.config, dtype, good, position);
    append(&r, s, &m.config, 2);
    bm_session_free(s);
    bm_model_free(model);
}

/* The arrays lie in the block without overlap, and are those of the config. */
static void arrays_fit(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    static const bm_dtype types[] = {BM_F32, BM_I16, BM_I8};
    for (size_t t = 0; t < 3; t++) {
        size_t count = bm_state_tensor_count(types[t]);
        CHECK(count == (types[t] == BM_F32 ? 4u : types[t] == BM_I16 ? 6u : 5u), "%zu", count);
        uint64_t end = 0;
        for (size_t i = 0; i < count; i++) {
            bm_state_tensor at = bm_state_tensor_at(&m.config, types[t], i);
            CHECK(at.offset >= end && at.offset % BM_ALIGN == 0, "%s", at.tensor.name);
            CHECK(at.offset - end < BM_ALIGN, "a gap before %s", at.tensor.name);
            end = at.offset + at.tensor.bytes;
            if (i == count - 1)
                CHECK(strcmp(at.tensor.name, "ssm") == 0 && at.tensor.dtype == types[t], "%s",
                      at.tensor.name);
        }
        uint64_t bytes = bm_state_bytes(&m.config, types[t]);
        CHECK(end <= bytes && bytes - end < BM_ALIGN, "%llu of %llu", (unsigned long long)end,
              (unsigned long long)bytes);
    }
}

typedef struct {
    float *ssm; /* as f32 */
    size_t rows;
    size_t cols;
} view;

/* The SSM state of a block of any type, in f32. */
static view view_of(const bm_config *c, bm_dtype dtype, const void *state) {
    void *wide = check_take((size_t)bm_state_bytes(c, BM_F32));
    bm_error err = {0};
    CHECK(bm_state_convert(c, dtype, state, BM_F32, wide, &err) == BM_OK, "%s", err.message);
    bm_state_tensor ssm = bm_state_tensor_at(c, BM_F32, 3);
    return (view){(float *)(void *)((uint8_t *)wide + ssm.offset), ssm.tensor.shape[0],
                  ssm.tensor.shape[1]};
}

static float row_max(const view *v, size_t row) {
    float max = 0.0f;
    for (size_t i = 0; i < v->cols; i++)
        max = max < bm_abs(v->ssm[row * v->cols + i]) ? bm_abs(v->ssm[row * v->cols + i]) : max;
    return max;
}

/* A state in f32 as a block of another type. */
static void *converted(const bm_config *c, bm_dtype to, const void *state) {
    void *out = check_take((size_t)bm_state_bytes(c, to));
    bm_error err = {0};
    CHECK(bm_state_convert(c, BM_F32, state, to, out, &err) == BM_OK, "%s", err.message);
    return out;
}

/* Every type to every type: errors below half a unit of the row, and nothing lost on the way up. */
static void types_convert(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    const bm_config *c = &m.config;
    bm_model *model = random_model_load(&m, bm_variant_count() - 1);
    bm_dtype from = random_state(&r);
    bm_session *s = open_session(model, BM_EXACT, from, NULL);
    append(&r, s, c, check_between(&r, 0, 4));
    void *state = copy_state(s, c, from);
    view before = view_of(c, from, state);
    bm_error err = {0};
    static const struct {
        bm_dtype dtype;
        float error; /* of a number, over the largest of its row */
    } targets[] = {{BM_F32, 0.0f}, {BM_I16, 0x1p-14f}, {BM_I8, 0.00397f}};
    for (size_t t = 0; t < 3; t++) {
        bm_dtype to = targets[t].dtype;
        void *there = check_take((size_t)bm_state_bytes(c, to));
        CHECK(bm_state_convert(c, from, state, to, there, &err) == BM_OK, "%s", err.message);
        view after = view_of(c, to, there);
        float bound = from == to ? 0.0f : targets[t].error;
        for (size_t row = 0; row < before.rows; row++)
            for (size_t i = 0; i < before.cols; i++) {
                float x = before.ssm[row * before.cols + i];
                float y = after.ssm[row * before.cols + i];
                /* Below the smallest unit a row is zero. */
                float most = row_max(&before, row) * bound + 0x1p-99f;
                CHECK(bm_abs(x - y) <= most, "row %zu: %g, was %g", row, (double)y, (double)x);
            }
        /* A session of any type goes on from it. */
        if (to == BM_I8)
            continue;
        bm_session *other = open_session(model, BM_EXACT, to, NULL);
        adopt(other, c, to, there, bm_session_position(s));
        append(&r, other, c, 1);
        bm_session_free(other);
    }
    CHECK(bm_state_convert(c, BM_F16, state, BM_F32, state, &err) == BM_E_ARGUMENT, "%s", "f16");
    CHECK(strstr(err.message, "want f32, i16 or i8") != NULL, "%s", err.message);
    bm_session_free(s);
    bm_model_free(model);
}

/* Numbers that no session writes, up to the largest float: no undefined arithmetic, and each row keeps its signs. */
static void junk_converts(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    const bm_config *c = &m.config;
    size_t size = (size_t)bm_state_bytes(c, BM_F32);
    uint8_t *state = memset(check_take(size), 0, size);
    bm_state_tensor ssm = bm_state_tensor_at(c, BM_F32, 3);
    float *x = (float *)(void *)(state + ssm.offset);
    size_t count = (size_t)ssm.tensor.shape[0] * ssm.tensor.shape[1];
    for (size_t i = 0; i < count; i++) {
        float size_of = check_between(&r, 0, 9) ? bm_abs(check_wide(&r, 100, 127)) : 0x1.8p124f;
        x[i] = check_between(&r, 0, 1) ? size_of : -size_of;
    }
    view i16 = view_of(c, BM_I16, converted(c, BM_I16, state));
    view i8 = view_of(c, BM_I8, converted(c, BM_I8, state));
    for (size_t i = 0; i < count; i++) {
        CHECK(i16.ssm[i] == 0.0f || (i16.ssm[i] < 0.0f) == (x[i] < 0.0f), "%g was %g",
              (double)i16.ssm[i], (double)x[i]);
        CHECK(i8.ssm[i] == 0.0f || (i8.ssm[i] < 0.0f) == (x[i] < 0.0f), "%g was %g",
              (double)i8.ssm[i], (double)x[i]);
    }
}

/* ---- Together ----------------------------------------------------------------------------------- */

/* After appends of their own, of unlike length, the logits that are asked for together are those after the last tokens. */
static void logits_of_last(check_random *r, bm_session *const *together, bm_session *const *alone,
                           const uint32_t *most, size_t n, const bm_config *c) {
    bm_error err = {0};
    size_t last[MAX_SESSIONS];
    for (size_t i = 0; i < n; i++) {
        uint32_t ids[MAX_CHUNK];
        size_t count = check_between(r, 1, most[i]);
        random_ids(r, c, ids, count);
        CHECK(bm_session_append(together[i], ids, count, &err) == BM_OK, "%s", err.message);
        CHECK(bm_session_append(alone[i], ids, count, &err) == BM_OK, "%s", err.message);
        last[i] = count - 1;
    }
    CHECK(bm_session_logits_each(together, n, &err) == BM_OK, "%s", err.message);
    for (size_t i = 0; i < n; i++)
        CHECK_SAME("the last logits", logits_of(together[i], last[i]), logits_of(alone[i], last[i]),
                   c->vocab_size);
}

/* Sessions of any state type and chunk size, at any position: each as if it were alone. */
static void together_is_alone(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_precision precision = random_precision(&r);
    bm_head head = random_head(&r, &m.config);
    bm_team team = {run_backwards, NULL, 2};
    for (size_t v = 0; v < bm_variant_count(); v++) {
        bm_model *model = random_model_load_head(&m, v, head);
        bm_session *together[MAX_SESSIONS];
        bm_session *alone[MAX_SESSIONS];
        uint32_t most[MAX_SESSIONS]; /* tokens of a chunk */
        size_t n = check_between(&r, 1, MAX_SESSIONS);
        for (size_t i = 0; i < n; i++) {
            bm_dtype dtype = random_state(&r);
            most[i] = (uint32_t)check_between(&r, 1, MAX_CHUNK);
            together[i] =
                open_small_session(model, precision, dtype, i % 2 ? &team : NULL, most[i]);
            alone[i] = open_session(model, precision, dtype, NULL);
            check_random same = check_seed(seed, 10 + i);
            append_small(&same, together[i], &m.config, i % 3, most[i]);
            same = check_seed(seed, 10 + i);
            append_small(&same, alone[i], &m.config, i % 3, most[i]);
        }
        bm_error err = {0};
        for (size_t step = 0; step < 3; step++) {
            uint32_t ids[MAX_SESSIONS];
            random_ids(&r, &m.config, ids, n);
            CHECK(bm_session_append_each(together, ids, n, &err) == BM_OK, "%s", err.message);
            if (step != 1) /* and without having asked for them in between */
                CHECK(bm_session_logits_each(together, n, &err) == BM_OK, "%s", err.message);
            for (size_t i = 0; i < n; i++) {
                CHECK(bm_session_append(alone[i], &ids[i], 1, &err) == BM_OK, "%s", err.message);
                CHECK(bm_session_position(together[i]) == bm_session_position(alone[i]), "%zu", i);
                CHECK_SAME("logits", logits_of(together[i], 0), logits_of(alone[i], 0),
                           m.config.vocab_size);
            }
        }
        logits_of_last(&r, together, alone, most, n, &m.config);
        for (size_t i = 0; i < n; i++) {
            bm_session_free(together[i]);
            bm_session_free(alone[i]);
        }
        bm_model_free(model);
    }
}

/* What is refused changes none of them. */
static void together_refuses(uint64_t seed) {
    check_random r;
    random_model m = model_of(seed, &r);
    bm_model *model = random_model_load(&m, 0);
    bm_model *other = random_model_load(&m, 0);
    bm_session *a = open_session(model, BM_FAST, BM_F32, NULL);
    bm_session *b = open_session(model, BM_FAST, BM_F32, NULL);
    bm_session *exact = open_session(model, BM_EXACT, BM_F32, NULL);
    bm_session *foreign = open_session(other, BM_FAST, BM_F32, NULL);
    uint32_t ids[] = {0, 1};
    bm_error err = {0};
    struct {
        bm_session *pair[2];
        const char *says;
    } const wrong[] = {
        {{a, a}, "the same"}, {{a, exact}, "precision"}, {{a, foreign}, "another model"}};
    for (size_t i = 0; i < 3; i++) {
        CHECK(bm_session_append_each(wrong[i].pair, ids, 2, &err) == BM_E_ARGUMENT, "%zu", i);
        CHECK(strstr(err.message, wrong[i].says) != NULL, "%s", err.message);
        CHECK(bm_session_logits_each(wrong[i].pair, 2, &err) == BM_E_ARGUMENT, "%zu", i);
    }
    bm_session *pair[] = {a, b};
    CHECK(bm_session_append_each(pair, ids, 0, &err) == BM_E_ARGUMENT, "%s", "none");
    CHECK(bm_session_append_each(pair, ids, BM_MAX_TOGETHER + 1, &err) == BM_E_ARGUMENT, "%s",
          "too many");
    CHECK(bm_session_logits_each(pair, 2, &err) == BM_E_ARGUMENT, "%s", "no token yet");
    ids[1] = m.config.vocab_size;
    CHECK(bm_session_append_each(pair, ids, 2, &err) == BM_E_ARGUMENT, "%s", "an id");
    CHECK(bm_session_position(a) == 0 && bm_session_position(b) == 0, "%s", "moved");
    /* One whose numbers are bad stops the others before anything is done. */
    append(&r, b, &m.config, 1);
    float *last = bm_session_state(b);
    last[0] = bm_float_of(0x7fc00000u);
    CHECK(bm_session_adopt(b, 1, &err) == BM_E_NUMERIC, "%s", err.message);
    ids[1] = 0;
    CHECK(bm_session_append_each(pair, ids, 2, &err) == BM_E_NUMERIC, "%s", err.message);
    CHECK(bm_session_position(a) == 0, "%s", "moved");
    bm_session_free(a);
    bm_session_free(b);
    bm_session_free(exact);
    bm_session_free(foreign);
    bm_model_free(model);
    bm_model_free(other);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"copies_continue", copies_continue, 40},
        {"reset_forgets", reset_forgets, 40},
        {"logits_come_along", logits_come_along, 20},
        {"junk_is_survived", junk_is_survived, 60},
        {"arrays_fit", arrays_fit, 40},
        {"types_convert", types_convert, 30},
        {"junk_converts", junk_converts, 20},
        {"together_is_alone", together_is_alone, 12},
        {"together_refuses", together_refuses, 8},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
