/*
 * fuzz_model.c: bytes drive the core as a hostile caller would: configs, weights, orders of calls, ids.
 *
 * Owns the reading of bytes as calls, and what must hold after each of them. With libFuzzer (npm run fuzz)
 * the bytes come from it; test_fuzz.c feeds random ones. The idea: most bytes choose among reasonable
 * values, so that runs get far; the rest are taken as they are.
 */
#include "bm_base.h"
#include "check.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 1 << 20 /* of weights: a run stays short */, MOST_CALLS = 40 };

typedef struct {
    const uint8_t *data;
    size_t left;
} input;

static unsigned take(input *in) {
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->data++;
}

static uint64_t take_bytes(input *in, size_t n) {
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | take(in);
    return value;
}

static double take_double(input *in) {
    uint64_t bits = take_bytes(in, 8);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void check_error(bm_status status, const bm_error *err) {
    CHECK(status >= BM_OK && status <= BM_E_NUMERIC, "status %d", (int)status);
    CHECK(status == BM_OK || (err->status == status && err->message[0]), "%d without a message",
          (int)status);
}

/* ---- Config ------------------------------------------------------------------------------------- */

static double field_value(input *in, size_t field) {
    /* In the order of the table; each row has values that go together. */
    static const double usual[][4] = {{1, 2, 3, 1},
                                      {32, 64, 96, 128},
                                      {8, 16, 64, 24},
                                      {4, 8, 16, 32},
                                      {1, 2, 4, 1},
                                      {4, 2, 3, 4},
                                      {2, 1, 2, 3},
                                      {5, 40, 100, 300},
                                      {5, 40, 112, 300},
                                      {0, 1, 0, 1},
                                      {1e-5, 1e-6, 1, 1e-12},
                                      {0, 0.001, 0, 1},
                                      {INFINITY, 0.1, 100, INFINITY},
                                      {1, 2, 3, 1},
                                      {0, 1, 2, 3}};
    unsigned choice = take(in);
    if (choice >= 0xf8)
        return take_double(in);
    if (choice >= 0xf0)
        return (double)take_bytes(in, 2);
    return field < sizeof usual / sizeof usual[0] ? usual[field][choice % 4] : 1.0;
}

/* False when the config is refused or large. */
static bool read_config(input *in, bm_config *config) {
    bm_error err = {0};
    bm_config before = *config;
    for (size_t i = 0; i < bm_config_field_count(); i++) {
        bm_status status = bm_config_set(config, i, field_value(in, i), &err);
        check_error(status, &err);
        if (status != BM_OK)
            return false;
        before = *config;
    }
    CHECK(memcmp(&before, config, sizeof before) == 0, "%s", "a field changed by itself");
    bm_status status = bm_config_check(config, &err);
    check_error(status, &err);
    if (status != BM_OK)
        return false;
    uint64_t bytes = 0;
    for (size_t i = 0; i < bm_tensor_count(config); i++)
        bytes += bm_tensor_at(config, i).bytes;
    return bytes <= MOST_BYTES;
}

/* ---- Weights ------------------------------------------------------------------------------------ */

/* Bytes of a tensor that are mostly sensible floats, from one seed of the input. */
static void fill(check_random *r, const bm_tensor *t, uint8_t *bytes, bool is_wild) {
    for (uint64_t i = 0; i + 4 <= t->bytes; i += 4) {
        float value = is_wild ? check_wide(r, -120, 127) : check_normal(r) * 0.5f;
        uint32_t bits = t->dtype == BM_F32 ? bm_bits_of(value) : (uint32_t)check_next(r);
        if (t->dtype == BM_F16)
            bits &= 0xbfffbfffu; /* finite */
        memcpy(bytes + i, &bits, 4);
    }
}

/* Writes what has not been written of all tensors; the core says what it already has. */
static void complete(input *in, bm_model *model, const bm_config *config, bool *written) {
    check_random r = check_seed(take_bytes(in, 2), 1);
    bool is_wild = take(in) >= 0xe0;
    for (size_t i = 0; i < bm_tensor_count(config); i++) {
        bm_tensor t = bm_tensor_at(config, i);
        uint8_t *bytes = check_take((size_t)t.bytes);
        memset(bytes, 0, (size_t)t.bytes);
        fill(&r, &t, bytes, is_wild);
        bm_error err = {0};
        bm_status status = bm_model_write(model, i, 0, bytes, (size_t)t.bytes, &err);
        check_error(status, &err);
        CHECK(status == BM_OK || written[i], "%s: %s", t.name, err.message);
        written[i] = true;
    }
    for (size_t part = 0; part < (size_t)config->n_layer + 2; part++) {
        bm_error err = {0};
        check_error(bm_model_seal_part(model, part, &err), &err);
    }
    check_release();
}

static void write_some(input *in, bm_model *model, const bm_config *config, bool *written) {
    size_t index = (size_t)take_bytes(in, take(in) >= 0xf0 ? 8 : 1);
    uint64_t offset = take_bytes(in, take(in) >= 0xf0 ? 8 : 2);
    uint8_t bytes[64];
    size_t n = take(in) % (sizeof bytes + 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)take(in);
    bm_error err = {0};
    bm_status status = bm_model_write(model, index, offset, bytes, n, &err);
    check_error(status, &err);
    if (status == BM_OK) {
        CHECK(index < bm_tensor_count(config), "tensor %zu", index);
        written[index] = written[index] || n > 0;
    }
}

/* ---- Sessions ----------------------------------------------------------------------------------- */

static void use_session(input *in, const bm_config *config, bm_session *session) {
    bm_error err = {0};
    uint32_t ids[20];
    size_t n = take(in) % 21;
    for (size_t i = 0; i < n; i++) {
        unsigned kind = take(in);
        ids[i] = kind >= 0xfc ? (uint32_t)take_bytes(in, 4) : kind % config->vocab_size;
    }
    uint64_t before = bm_session_position(session);
    bm_status status = bm_session_append(session, ids, n, &err);
    check_error(status, &err);
    uint64_t after = bm_session_position(session);
    bool is_refused = status == BM_E_ARGUMENT || status == BM_E_ORDER;
    CHECK(after ==
              (is_refused || (status == BM_E_NUMERIC && after == before) ? before : before + n),
          "position %llu after %llu and %zu tokens", (unsigned long long)after,
          (unsigned long long)before, n);
    const float *logits = NULL;
    size_t index = (size_t)take_bytes(in, take(in) >= 0xf0 ? 8 : 1);
    status = bm_session_logits(session, index, &logits, &err);
    check_error(status, &err);
    CHECK((status == BM_OK) == (logits != NULL), "status %d", (int)status);
    for (uint32_t i = 0; logits && i < config->vocab_size; i++)
        CHECK(bm_is_finite(logits[i]), "logit %u is %g", i, (double)logits[i]);
    if (take(in) >= 0xc0)
        bm_session_reset(session);
}

/* A prompt that is begun, taken some steps, and given up or not. */
static void use_prompt(input *in, const bm_config *config, bm_session *session,
                       bm_prompt **prompt) {
    bm_error err = {0};
    if (!*prompt) {
        size_t n = take(in) % 40;
        bm_status status = bm_prompt_create(session, n, prompt, &err);
        check_error(status, &err);
        CHECK((status == BM_OK) == (*prompt != NULL), "status %d", (int)status);
        return;
    }
    uint32_t id = take(in) % config->vocab_size;
    check_error(bm_prompt_set(*prompt, take(in), &id, 1, &err), &err);
    for (unsigned steps = take(in) % 32; steps > 0; steps--) {
        uint64_t before = bm_session_position(session);
        size_t part = bm_prompt_next_part(*prompt);
        check_error(bm_prompt_step(*prompt, &err), &err);
        CHECK(part > config->n_layer || bm_session_position(session) == before, "part %zu", part);
    }
    if (take(in) >= 0xc0) {
        bm_prompt_free(*prompt);
        *prompt = NULL;
    }
}

/* Bytes of a caller's in the place of the state, or of the wrong position. */
static void use_state(input *in, const bm_config *config, bm_session *session, bm_dtype dtype) {
    uint8_t *block = bm_session_state(session);
    size_t size = (size_t)bm_state_bytes(config, dtype);
    check_random r = check_seed(take_bytes(in, 2), 1);
    unsigned kind = take(in);
    for (size_t i = 0; kind >= 0x40 && i + 4 <= size; i += 4) {
        uint32_t bits = bm_bits_of(check_normal(&r));
        if (kind >= 0xc0)
            bits = (uint32_t)check_next(&r);
        else if (kind >= 0x80)
            bits = bm_bits_of(check_wide(&r, -120, 127));
        memcpy(block + i, &bits, 4);
    }
    bm_error err = {0};
    uint64_t position = take_bytes(in, take(in) >= 0xf0 ? 6 : 1);
    check_error(bm_session_adopt(session, position, &err), &err);
    CHECK(bm_session_position(session) == position, "position %llu",
          (unsigned long long)bm_session_position(session));
}

/* The same session twice is one of the pairs. */
static void use_together(input *in, const bm_config *config, bm_session *const *sessions) {
    unsigned kind = take(in);
    bm_session *pair[] = {sessions[0], kind < 0x20 ? sessions[0] : sessions[1]};
    uint32_t ids[] = {take(in) % config->vocab_size,
                      (uint32_t)take_bytes(in, kind >= 0xf0 ? 4 : 1)};
    uint64_t before[] = {bm_session_position(pair[0]), bm_session_position(pair[1])};
    bm_error err = {0};
    bm_status status = bm_session_append_each(pair, ids, 2, &err);
    check_error(status, &err);
    for (size_t i = 0; i < 2; i++) {
        uint64_t moved = bm_session_position(pair[i]) - before[i];
        CHECK(moved == (status == BM_OK) || (status == BM_E_NUMERIC && moved == 1),
              "session %zu moved by %llu", i, (unsigned long long)moved);
    }
    check_error(bm_session_logits_each(pair, 2, &err), &err);
}

/* Options mostly within their limits; finite logits give an id, whatever the options. */
static void use_sampler(input *in, const bm_config *config) {
    check_random r = check_seed(take_bytes(in, 2), 2);
    const bm_bias biases[] = {{(uint32_t)take(in), take(in) >= 0x80 ? -INFINITY : 5.0f},
                              {(uint32_t)take(in), (float)take(in) - 128.0f}};
    const uint32_t breakers[] = {(uint32_t)take(in)};
    const unsigned wild = take(in);
    bm_sampling o = {.biases = biases,
                     .n_biases = take(in) % 3,
                     .repetition_penalty = (float)take(in) / 64.0f,
                     .repetition_window = take(in),
                     .frequency_penalty = (float)take(in) - 128.0f,
                     .presence_penalty = (float)take(in) - 100.0f,
                     .history_window = take(in),
                     .dry_multiplier = (float)(take(in) % 4),
                     .dry_base = 1.0f + (float)take(in) / 16.0f,
                     .dry_allowed_length = take(in) % 5,
                     .dry_breakers = breakers,
                     .n_dry_breakers = take(in) % 2,
                     .no_repeat_ngram = take(in) % 6,
                     .temperature = (float)take(in) / 64.0f,
                     .top_k = take(in) % 64,
                     .typical_p = (float)take(in) / 255.0f,
                     .top_p = (float)take(in) / 255.0f,
                     .min_p = (float)take(in) / 255.0f,
                     .mirostat_tau = (float)(take(in) % 8),
                     .mirostat_eta = (float)take(in) / 255.0f,
                     .seed = take_bytes(in, 2)};
    bm_sampler *sampler = NULL;
    bm_error err = {0};
    bm_status status = bm_sampler_create(config->vocab_size, &o, &sampler, &err);
    check_error(status, &err);
    CHECK((status == BM_OK) == (sampler != NULL), "status %d", (int)status);
    float *logits = check_take(config->vocab_size * sizeof *logits);
    for (size_t draw = 0; sampler && draw < 8; draw++) {
        for (uint32_t i = 0; i < config->vocab_size; i++)
            logits[i] = wild >= 0xc0 ? check_wide(&r, -120, 127) : 5.0f * check_normal(&r);
        uint32_t *allowed = check_take((config->vocab_size + 31) / 32 * sizeof *allowed);
        for (uint32_t i = 0; i < (config->vocab_size + 31) / 32; i++)
            allowed[i] = (uint32_t)check_next(&r) & (wild % 4 ? UINT32_MAX : 1u);
        bool is_masked = draw % 2 && bm_sampler_allow(sampler, allowed, NULL) == BM_OK;
        uint32_t id = bm_sampler_sample(sampler, logits);
        CHECK(id < config->vocab_size, "id %u", id);
        CHECK(!is_masked || (allowed[id / 32] >> id % 32 & 1u) != 0, "id %u is not allowed", id);
        bm_sampler_allow(sampler, NULL, NULL);
        for (size_t i = 0; i < 40; i++)
            bm_sampler_accept(sampler, wild % 2 ? id : (uint32_t)check_between(&r, 0, 5));
        bm_sampler_state state = bm_sampler_save(sampler);
        bm_sampler_restore(sampler, &state);
    }
    bm_sampler_free(sampler);
    check_release();
}

static bm_session *open_session(input *in, const bm_model *model, bm_dtype *dtype) {
    unsigned kind = take(in);
    bm_session_options options = {(bm_precision)(kind % 4), kind & 4 ? BM_I16 : BM_F32,
                                  take(in) % 24, NULL};
    bm_session *session = NULL;
    bm_error err = {0};
    bm_status status = bm_session_create(model, &options, &session, &err);
    check_error(status, &err);
    CHECK((status == BM_OK) == (session != NULL), "status %d", (int)status);
    *dtype = options.state_dtype;
    return session;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    bm_config config = {0};
    if (!read_config(&in, &config))
        return 0;
    bm_model *model = NULL;
    bm_error err = {0};
    unsigned kind = take(&in) % 9;
    bm_status status = bm_model_create(&config, kind % 3, (bm_head)(kind / 3), &model, &err);
    check_error(status, &err);
    if (status != BM_OK)
        return 0;
    bool written[256 * 13 + 8] = {false};
    bm_session *sessions[2] = {NULL, NULL}; /* the prompt is the first one's */
    bm_dtype dtypes[2] = {BM_F32, BM_F32};
    bm_prompt *prompt = NULL;
    for (unsigned calls = 0; in.left > 0 && calls < MOST_CALLS; calls++) {
        unsigned call = take(&in) % 12;
        unsigned which = call % 2;
        if (call == 0)
            write_some(&in, model, &config, written);
        else if (call == 1)
            check_error(bm_model_seal_part(model, take(&in), &err), &err);
        else if (call == 2)
            complete(&in, model, &config, written);
        else if (call == 3)
            use_sampler(&in, &config);
        else if (!sessions[which])
            sessions[which] = open_session(&in, model, &dtypes[which]);
        else if (call == 4)
            use_prompt(&in, &config, sessions[0], &prompt);
        else if (call == 6 && sessions[1])
            use_together(&in, &config, sessions);
        else if (call == 5 || call == 8)
            use_state(&in, &config, sessions[which], dtypes[which]);
        else
            use_session(&in, &config, sessions[which]);
    }
    bm_prompt_free(prompt);
    bm_session_free(sessions[0]);
    bm_session_free(sessions[1]);
    bm_model_free(model);
    return 0;
}
