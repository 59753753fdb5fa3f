/*
 * bm_wasm.c: the boundary. The one C file that knows it is WebAssembly, and all that JavaScript sees.
 *
 * Scalars and pointers cross, never structs. Everything bulky passes through one staging buffer whose
 * address JavaScript asks for: config values, token ids, bytes of tensors. The buffer, the last error,
 * the config, the tensor being described, the lists of a sampler being made and the team of threads (bm_pool.c) are
 * the only mutable globals of the module; the core has none. A handle is a pointer; 0 means failure, and
 * error_status() and error_message() say why.
 */
#include "../src/bm_base.h"
#include "bm_stream.h"

#ifdef __wasm_atomics__ /* the build with shared memory */
#include "bm_pool.h"
#endif

/* Declares and defines a function that the module exports as `name`. */
#define EXPORT(result, name, ...)                                                                  \
    result wasm_##name(__VA_ARGS__);                                                               \
    __attribute__((export_name(#name))) result wasm_##name(__VA_ARGS__)

enum { STAGING_SIZE = 1 << 17 };

static union {
    _Alignas(64) uint8_t bytes[STAGING_SIZE];
    uint32_t ids[STAGING_SIZE / sizeof(uint32_t)];
    double values[STAGING_SIZE / sizeof(double)];
} staging;
static bm_error last_error;
static bm_config config;
static bm_tensor tensor;

EXPORT(void *, staging, void) {
    return &staging;
}

EXPORT(size_t, staging_size, void) {
    return STAGING_SIZE;
}

/* Which SIMD this build has: they differ in one instruction (bm_v_lookup) and in no result. */
EXPORT(const char *, simd, void) {
#ifdef __wasm_relaxed_simd__
    return "relaxed";
#else
    return "plain";
#endif
}

EXPORT(bm_status, error_status, void) {
    return last_error.status;
}

EXPORT(const char *, error_message, void) {
    return last_error.message;
}

/* ---- Config and tensors ------------------------------------------------------------------------- */

EXPORT(size_t, field_count, void) {
    return bm_config_field_count();
}

EXPORT(const char *, field_name, size_t index) {
    return bm_config_field_at(index)->name;
}

EXPORT(double, field_min, size_t index) {
    return bm_config_field_at(index)->min;
}

EXPORT(double, field_max, size_t index) {
    return bm_config_field_at(index)->max;
}

EXPORT(bool, field_is_integer, size_t index) {
    return bm_config_field_at(index)->is_integer;
}

/* Takes field_count() doubles from the staging buffer as the config of the calls that follow. */
EXPORT(bm_status, config_load, void) {
    bm_config next = {0};
    for (size_t i = 0; i < bm_config_field_count(); i++) {
        bm_status status = bm_config_set(&next, i, staging.values[i], &last_error);
        if (status != BM_OK)
            return status;
    }
    bm_status status = bm_config_check(&next, &last_error);
    if (status == BM_OK)
        config = next;
    return status;
}

EXPORT(size_t, tensor_count, void) {
    return bm_tensor_count(&config);
}

/* Selects the tensor that the getters below describe. */
EXPORT(void, tensor_select, size_t index) {
    tensor = bm_tensor_at(&config, index);
}

EXPORT(const char *, tensor_name, void) {
    return tensor.name;
}

EXPORT(bm_dtype, tensor_dtype, void) {
    return tensor.dtype;
}

EXPORT(uint32_t, tensor_dims, void) {
    return tensor.n_dims;
}

EXPORT(uint32_t, tensor_shape, size_t dimension) {
    return tensor.shape[dimension];
}

EXPORT(double, tensor_bytes, void) {
    return (double)tensor.bytes;
}

EXPORT(uint32_t, tensor_part, void) {
    return tensor.part;
}

/* ---- Model -------------------------------------------------------------------------------------- */

EXPORT(size_t, variant_count, void) {
    return bm_variant_count();
}

EXPORT(const char *, variant_name, size_t variant) {
    return bm_variant_name(variant);
}

EXPORT(bm_model *, model_create, size_t variant, bm_head head) {
    bm_model *model = NULL;
    bm_model_create(&config, variant, head, &model, &last_error);
    return model;
}

EXPORT(void, model_free, bm_model *model) {
    bm_model_free(model);
}

/* Bytes [offset, offset + n) of a tensor, from the staging buffer. */
EXPORT(bm_status, model_write, bm_model *model, size_t index, double offset, size_t n) {
    if (n > STAGING_SIZE)
        return bm_fail(&last_error, BM_E_ARGUMENT, "%zu bytes staged, want at most %u", n,
                       (unsigned)STAGING_SIZE);
    return bm_model_write(model, index, (uint64_t)offset, staging.bytes, n, &last_error);
}

EXPORT(bm_status, model_seal_part, bm_model *model, size_t part) {
    return bm_model_seal_part(model, part, &last_error);
}

/* ---- Threads ------------------------------------------------------------------------------------ */

#ifdef __wasm_atomics__

/* Of sessions made from now on: their scratch memory has room for as many threads as there are. */
#define TEAM (bm_pool_team()->n_threads > 1 ? bm_pool_team() : NULL)

enum { THREAD_STACK_SIZE = 1 << 16 };

/* See bm_pool.h. A helper instance calls thread_join and, after a trap, thread_fail; nothing else. */
EXPORT(void, threads_open, uint32_t n_threads) {
    bm_pool_open(n_threads);
}

/* The top of a new stack, for the stack pointer of one helper instance; never freed. 0: no memory. */
EXPORT(void *, thread_stack, void) {
    uint8_t *stack = bm_block_alloc(THREAD_STACK_SIZE);
    return stack ? stack + THREAD_STACK_SIZE : NULL;
}

EXPORT(void, threads_limit, uint32_t n_threads) {
    bm_pool_limit(n_threads);
}

EXPORT(void, threads_close, void) {
    bm_pool_close();
}

EXPORT(uint32_t, threads_joined, void) {
    return bm_pool_joined();
}

EXPORT(void, thread_join, uint32_t seat) {
    bm_pool_join(seat);
}

EXPORT(void, thread_fail, void) {
    bm_pool_fail();
}

#else

#define TEAM NULL

#endif

/* ---- Session ------------------------------------------------------------------------------------ */

EXPORT(bm_session *, session_create, const bm_model *model, bm_precision precision,
       bm_dtype state_dtype, uint32_t max_chunk) {
    bm_session *session = NULL;
    bm_session_options options = {precision, state_dtype, max_chunk, TEAM};
    bm_session_create(model, &options, &session, &last_error);
    return session;
}

EXPORT(void, session_free, bm_session *session) {
    bm_session_free(session);
}

EXPORT(void, session_reset, bm_session *session) {
    bm_session_reset(session);
}

EXPORT(double, session_position, const bm_session *session) {
    return (double)bm_session_position(session);
}

/* n ids from the staging buffer, which has room for more than the longest append. */
EXPORT(bm_status, session_append, bm_session *session, size_t n) {
    return bm_session_append(session, staging.ids, n, &last_error);
}

EXPORT(const float *, session_logits, bm_session *session, size_t index) {
    const float *logits = NULL;
    bm_session_logits(session, index, &logits, &last_error);
    return logits;
}

/* One token for each of n sessions: their handles in the staging buffer, the ids behind them. */
EXPORT(bm_status, session_append_each, size_t n) {
    bm_session *sessions[BM_MAX_TOGETHER];
    for (size_t i = 0; i < n && i < BM_MAX_TOGETHER; i++)
        sessions[i] = (bm_session *)(uintptr_t)staging.ids[i];
    return bm_session_append_each(sessions, staging.ids + n, n, &last_error);
}

/* Their handles in the staging buffer. */
EXPORT(bm_status, session_logits_each, size_t n) {
    bm_session *sessions[BM_MAX_TOGETHER];
    for (size_t i = 0; i < n && i < BM_MAX_TOGETHER; i++)
        sessions[i] = (bm_session *)(uintptr_t)staging.ids[i];
    return bm_session_logits_each(sessions, n, &last_error);
}

/* ---- States ------------------------------------------------------------------------------------- */

EXPORT(void *, session_state, bm_session *session) {
    return bm_session_state(session);
}

EXPORT(bm_status, session_adopt, bm_session *session, double position) {
    return bm_session_adopt(session, (uint64_t)position, &last_error);
}

EXPORT(double, state_bytes, bm_dtype dtype) {
    return (double)bm_state_bytes(&config, dtype);
}

EXPORT(size_t, state_tensor_count, bm_dtype dtype) {
    return bm_state_tensor_count(dtype);
}

/* Selects the tensor that the getters above describe; returns where in the block it begins. */
EXPORT(double, state_tensor_select, bm_dtype dtype, size_t index) {
    bm_state_tensor found = bm_state_tensor_at(&config, dtype, index);
    tensor = found.tensor;
    return (double)found.offset;
}

/* A block for what no handle has, all zero; 0: no memory. */
EXPORT(void *, block_create, double bytes) {
    void *block = bm_block_alloc((uint64_t)bytes);
    if (!block)
        bm_fail(&last_error, BM_E_MEMORY, "no memory for a block: %u MiB wanted",
                (unsigned)((uint64_t)bytes >> 20));
    return block;
}

EXPORT(void, block_free, void *block) {
    bm_block_free(block);
}

EXPORT(bm_status, state_convert, bm_dtype from, const void *in, bm_dtype to, void *out) {
    return bm_state_convert(&config, from, in, to, out, &last_error);
}

/* ---- Drafts ------------------------------------------------------------------------------------- */

EXPORT(bm_draft *, draft_create, bm_session *session, size_t n) {
    bm_draft *draft = NULL;
    bm_draft_create(session, n, &draft, &last_error);
    return draft;
}

/* The ids are staged. */
EXPORT(bm_status, draft_read, bm_draft *draft, size_t n, size_t certain) {
    return bm_draft_read(draft, staging.ids, n, certain, &last_error);
}

EXPORT(bm_status, draft_keep, bm_draft *draft, size_t count) {
    return bm_draft_keep(draft, count, &last_error);
}

EXPORT(void, draft_free, bm_draft *draft) {
    bm_draft_free(draft);
}

/* ---- Prompt of a model that is still arriving --------------------------------------------------- */

EXPORT(bm_prompt *, prompt_create, bm_session *session, size_t n) {
    bm_prompt *prompt = NULL;
    bm_prompt_create(session, n, &prompt, &last_error);
    return prompt;
}

/* n ids from the staging buffer. */
EXPORT(bm_status, prompt_set, bm_prompt *prompt, size_t start, size_t n) {
    return bm_prompt_set(prompt, start, staging.ids, n, &last_error);
}

EXPORT(size_t, prompt_next_part, const bm_prompt *prompt) {
    return bm_prompt_next_part(prompt);
}

EXPORT(bm_status, prompt_step, bm_prompt *prompt) {
    return bm_prompt_step(prompt, &last_error);
}

EXPORT(void, prompt_free, bm_prompt *prompt) {
    bm_prompt_free(prompt);
}

/* ---- Measuring ---------------------------------------------------------------------------------- */

EXPORT(size_t, step_count, void) {
    return BM_STEP_COUNT;
}

EXPORT(const char *, step_name, size_t step) {
    return bm_step_name(step);
}

/* The same n ids in the staging buffer at every step. */
EXPORT(bm_status, session_step, bm_session *session, bm_step step, size_t layer, size_t n) {
    return bm_session_step(session, step, layer, staging.ids, n, &last_error);
}

/* A block to read, all of its bytes 1: of memory that nobody has written yet there may be nothing to read. */
EXPORT(void *, stream_create, size_t tasks) {
    const size_t most = STAGING_SIZE / sizeof(uint32_t);
    if (tasks < 1 || tasks > most) {
        bm_fail(&last_error, BM_E_ARGUMENT, "%zu tasks, want 1 to %zu", tasks, most);
        return NULL;
    }
    uint64_t bytes = (uint64_t)tasks * BM_STREAM_TASK;
    void *block = bm_block_alloc(bytes);
    if (block)
        memset(block, 1, (size_t)bytes);
    else
        bm_fail(&last_error, BM_E_MEMORY, "no memory for a block to read: %zu MiB wanted", tasks);
    return block;
}

EXPORT(void, stream_free, void *block) {
    bm_block_free(block);
}

EXPORT(size_t, stream_task_bytes, void) {
    return BM_STREAM_TASK;
}

/* The sum of the block's 32-bit words, which takes reading them all; uses the staging buffer. */
EXPORT(uint32_t, stream_sum, const void *block, size_t tasks) {
    return bm_stream_sum(TEAM, block, staging.ids, tasks);
}

/* ---- Sampler ------------------------------------------------------------------------------------ */

/*
 * The options are doubles in the staging buffer, in the order below; behind them n_biases pairs of id and bias,
 * and n_dry_breakers ids. JavaScript has checked that integers are integers.
 */
enum { SAMPLING_VALUES = 19 };

EXPORT(bm_sampler *, sampler_create, uint32_t vocab_size) {
    const double *v = staging.values;
    static bm_bias biases[BM_MAX_BIASES];
    static uint32_t breakers[BM_MAX_BREAKERS];
    bm_sampling options = {.repetition_penalty = (float)v[0],
                           .repetition_window = (uint32_t)v[1],
                           .frequency_penalty = (float)v[2],
                           .presence_penalty = (float)v[3],
                           .history_window = (uint32_t)v[4],
                           .dry_multiplier = (float)v[5],
                           .dry_base = (float)v[6],
                           .dry_allowed_length = (uint32_t)v[7],
                           .no_repeat_ngram = (uint32_t)v[8],
                           .temperature = (float)v[9],
                           .top_k = (uint32_t)v[10],
                           .typical_p = (float)v[11],
                           .top_p = (float)v[12],
                           .min_p = (float)v[13],
                           .mirostat_tau = (float)v[14],
                           .mirostat_eta = (float)v[15],
                           .seed = (uint64_t)v[16],
                           .n_biases = (size_t)v[17],
                           .n_dry_breakers = (size_t)v[18],
                           .biases = biases,
                           .dry_breakers = breakers};
    const double *pairs = v + SAMPLING_VALUES;
    for (size_t i = 0; i < options.n_biases && i < BM_MAX_BIASES; i++)
        biases[i] = (bm_bias){(uint32_t)pairs[2 * i], (float)pairs[2 * i + 1]};
    const double *ids = pairs + 2 * options.n_biases;
    for (size_t i = 0; i < options.n_dry_breakers && i < BM_MAX_BREAKERS; i++)
        breakers[i] = (uint32_t)ids[i];
    bm_sampler *sampler = NULL;
    bm_sampler_create(vocab_size, &options, &sampler, &last_error);
    return sampler;
}

/* What sampling has changed goes to the staging buffer; returns how many bytes. */
EXPORT(size_t, sampler_save, const bm_sampler *sampler) {
    bm_sampler_state state = bm_sampler_save(sampler);
    memset(staging.bytes, 0, sizeof state);
    memcpy(staging.bytes, &state.random, sizeof state.random);
    memcpy(staging.bytes + sizeof state.random, &state.mu, sizeof state.mu);
    return sizeof state;
}

/* From the staging buffer. */
EXPORT(void, sampler_restore, bm_sampler *sampler) {
    bm_sampler_state state = {0};
    memcpy(&state.random, staging.bytes, sizeof state.random);
    memcpy(&state.mu, staging.bytes + sizeof state.random, sizeof state.mu);
    bm_sampler_restore(sampler, &state);
}

EXPORT(void, sampler_free, bm_sampler *sampler) {
    bm_sampler_free(sampler);
}

EXPORT(void, sampler_accept, bm_sampler *sampler, uint32_t id) {
    bm_sampler_accept(sampler, id);
}

/* ceil(vocab_size / 32) words from the staging buffer, or everything. */
EXPORT(bm_status, sampler_allow, bm_sampler *sampler, bool is_all) {
    return bm_sampler_allow(sampler, is_all ? NULL : staging.ids, &last_error);
}

EXPORT(uint32_t, sampler_sample, bm_sampler *sampler, const float *logits) {
    return bm_sampler_sample(sampler, logits);
}

EXPORT(double, log_softmax, const float *logits, size_t n, size_t id) {
    return bm_log_softmax(logits, n, id);
}

/* In the staging buffer BM_MAX_TOP log-probabilities, behind them the ids; returns how many there are. */
EXPORT(size_t, top_logprobs, const float *logits, size_t n, size_t k) {
    return bm_top_logprobs(logits, n, k, (uint32_t *)(void *)(staging.values + BM_MAX_TOP),
                           staging.values);
}
