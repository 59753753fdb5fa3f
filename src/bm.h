/*
 * bm.h: the public C API of bimamba, a runtime for 1-bit Mamba-2 language models ("Bi-Mamba"), and dense ones.
 *
 * Owns the contract between the portable core and whoever embeds it (the WASM boundary, the native
 * tests). Knows nothing of files, text, threads or WebAssembly: weights come in as tensors, token
 * ids as integers, logits go out.
 *
 * Two handles. `bm_model`: the weights; writable until each part is sealed, immutable and shareable
 * afterwards. `bm_session`: one mutable timeline (recurrent state, position, logits) over a model.
 * A session must be freed before its model. No function is re-entrant on one handle; different
 * sessions of one model may run on different threads.
 *
 * Errors are values: a function that can fail returns a bm_status and fills `err` (may be NULL) with
 * a message that names the thing, the value found and the value wanted. On failure outputs are
 * unchanged. Nothing is allocated outside the `create` functions.
 */
#ifndef BM_H
#define BM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    BM_OK = 0,
    BM_E_ARGUMENT,  /* an argument is outside its range */
    BM_E_CONFIG,    /* a model configuration is outside the stated limits */
    BM_E_MEMORY,    /* the allocator returned nothing */
    BM_E_ORDER,     /* called too early or twice: unsealed parts, bytes missing */
    BM_E_NONFINITE, /* a weight is NaN or infinite */
    BM_E_NUMERIC    /* the forward pass computed NaN or infinity */
} bm_status;

enum { BM_MESSAGE_SIZE = 192 };

typedef struct {
    bm_status status;
    char message[BM_MESSAGE_SIZE]; /* one line, zero-terminated */
} bm_error;

/* ---- Configuration -------------------------------------------------------------------------- */

/* Element types of tensors, and BM_I16, which only states have. BM_U8 holds sign bits, eight columns a byte. */
typedef enum { BM_U8, BM_I8, BM_F16, BM_F32, BM_I16 } bm_dtype;

/*
 * What in_proj and out_proj are: signs with a scale and an offset per column (Bi-Mamba), or dense: 4 bits with a
 * scale for BM_I4_GROUP columns of a row, int8 with a scale per row, IEEE binary16.
 */
typedef enum { BM_WEIGHTS_SIGN, BM_WEIGHTS_I4, BM_WEIGHTS_I8, BM_WEIGHTS_F16 } bm_weights;

enum { BM_I4_GROUP = 128 };

/* The shape of a model; names as in the Mamba-2 code (arXiv 2405.21060). */
typedef struct {
    uint32_t n_layer;
    uint32_t d_model;
    uint32_t d_state;
    uint32_t headdim;
    uint32_t ngroups;
    uint32_t d_conv;
    uint32_t expand; /* d_inner = expand * d_model */
    uint32_t vocab_size;
    uint32_t padded_vocab_size; /* rows of the embedding; rows past vocab_size are never used */
    uint32_t tie_embeddings;    /* 1: the head is the embedding, 0: it has its own tensor */
    uint32_t embedding_dtype;   /* bm_dtype: BM_I8 (with a scale per row), BM_F16 or BM_F32 */
    uint32_t projection_dtype;  /* bm_weights */
    float norm_eps;
    float dt_min; /* dt is clamped to [dt_min, dt_max] after softplus */
    float dt_max; /* INFINITY: no upper limit */
} bm_config;

typedef struct {
    const char *name;
    double min;
    double max; /* both inclusive */
    bool is_integer;
} bm_config_field;

/* The table of fields, in the order in which a packed file's config has them. */
size_t bm_config_field_count(void);
const bm_config_field *bm_config_field_at(size_t index);

/* Sets one field. BM_E_CONFIG when the value is out of the field's range or not an integer. */
bm_status bm_config_set(bm_config *config, size_t index, double value, bm_error *err);

/* Ranges of every field and the rules between them. BM_E_CONFIG names the first broken one. */
bm_status bm_config_check(const bm_config *config, bm_error *err);

/* ---- Tensors -------------------------------------------------------------------------------- */

enum { BM_TENSOR_NAME_SIZE = 48 };

/* One tensor of a packed model; the order of the table is the order in the file. */
typedef struct {
    char name[BM_TENSOR_NAME_SIZE];
    bm_dtype dtype;
    uint32_t n_dims; /* 1 or 2 */
    uint32_t shape[2];
    uint64_t bytes;
    uint32_t part; /* 0 embedding, 1 ... n_layer the layers, n_layer + 1 the final norm and head */
} bm_tensor;

/* Both need a config that passed bm_config_check. `index` < bm_tensor_count. */
size_t bm_tensor_count(const bm_config *config);
bm_tensor bm_tensor_at(const bm_config *config, size_t index);

/* ---- Model ---------------------------------------------------------------------------------- */

typedef struct bm_model bm_model;

/* The kernel variants of this build, the fastest last; index 0 is the reference. */
size_t bm_variant_count(void);
const char *bm_variant_name(size_t variant);

/*
 * How the head is kept: as the file has it, or an int8 head in 4 bits with a scale per 32 columns. That is half
 * the bytes to read for a token's logits, and a little less exact. The embedding stays as it is: a tied
 * table is then kept twice, 8 bits for the look-up and 4 for the head.
 */
typedef enum { BM_HEAD_FILE, BM_HEAD_INT4, BM_HEAD_COUNT } bm_head;

/*
 * Checks the config and takes all memory for the weights. BM_E_CONFIG, BM_E_MEMORY, BM_E_ARGUMENT: no such
 * variant or head, or BM_HEAD_INT4 where the file's head is not int8.
 */
bm_status bm_model_create(const bm_config *config, size_t variant, bm_head head, bm_model **out,
                          bm_error *err);
void bm_model_free(bm_model *model);

/*
 * Takes bytes [offset, offset + n) of tensor `index` in its file form (little-endian, row-major) and
 * puts them where the kernels want them. Ranges may come in any order, each byte exactly once: bytes
 * are counted, so a range that comes twice while another is missing is the caller's mistake to avoid.
 * Only an untied head that becomes int4 must come in order (BM_E_ORDER): no more than a row of it is kept.
 * BM_E_ARGUMENT: outside the tensor. BM_E_ORDER: more bytes than the tensor has, or a sealed part.
 */
bm_status bm_model_write(bm_model *model, size_t index, uint64_t offset, const void *bytes,
                         size_t n, bm_error *err);

/*
 * Declares a part complete: every byte has arrived (BM_E_ORDER), every float is finite (BM_E_NONFINITE;
 * both name the tensor), then folds what the forward pass wants folded. Once per part; a part that
 * failed stays open.
 */
bm_status bm_model_seal_part(bm_model *model, size_t part, bm_error *err);

/* ---- Session -------------------------------------------------------------------------------- */

typedef struct bm_session bm_session;

/*
 * How the inputs of the projections and of an int8 or int4 head are represented (weights are the same):
 * FAST 8-bit class integers, HIGH 14-bit class integers, both with a scale per 256 columns; EXACT f32.
 * Projections in binary16 take f32 inputs with each of them.
 */
typedef enum { BM_FAST, BM_HIGH, BM_EXACT, BM_PRECISION_COUNT } bm_precision;

/* One of the calls that a run consists of; `thread` is below n_threads, and no two at a time have the same. */
typedef void bm_task(void *arg, size_t index, size_t thread);

/*
 * How a session spreads its work. run(self, task, arg, count) calls task(arg, i, thread) once for every
 * i in [0, count), in any order and on any threads, and returns when all calls have. Work is split by
 * output, never by sums, so no result depends on the team.
 */
typedef struct {
    void (*run)(void *self, bm_task *task, void *arg, size_t count);
    void *self;
    uint32_t n_threads; /* how many tasks can run at once, 1 ... BM_MAX_THREADS */
} bm_team;

enum { BM_MAX_THREADS = 64 };

typedef struct {
    bm_precision precision;
    bm_dtype state_dtype; /* of the SSM state: BM_F32, or BM_I16 with a unit per row */
    uint32_t max_chunk;   /* most tokens in one append, 1 ... 1024; scratch memory grows with it */
    const bm_team *team;  /* NULL: the calling thread alone. Must outlive the session */
} bm_session_options;

/* A session at position 0. Its model may still be arriving: what computes needs all parts sealed (BM_E_ORDER). */
bm_status bm_session_create(const bm_model *model, const bm_session_options *options,
                            bm_session **out, bm_error *err);
void bm_session_free(bm_session *session);

/* Back to position 0 and a zero state. */
void bm_session_reset(bm_session *session);

/* Tokens consumed since the last reset. */
uint64_t bm_session_position(const bm_session *session);

/*
 * Consumes n tokens (1 ... max_chunk). The state and logits after any split of a sequence into
 * appends are the same, bit for bit. BM_E_ARGUMENT (count, or an id outside the vocabulary): the
 * session is unchanged. BM_E_NUMERIC: NaN or infinity reached the state, as finite weights of absurd
 * size can bring about; every later call says so again until bm_session_reset.
 */
bm_status bm_session_append(bm_session *session, const uint32_t *ids, size_t n, bm_error *err);

/*
 * Computes the logits [vocab_size] after token `index` of the last append. `*logits` points into the
 * session and is valid until the next call on it. Asking again for the same token costs nothing.
 * BM_E_ARGUMENT: no such token. BM_E_NUMERIC: a logit, or the state already, is NaN or infinite.
 */
bm_status bm_session_logits(bm_session *session, size_t index, const float **logits, bm_error *err);

/* ---- Its state, as bytes ---------------------------------------------------------------------- */

/* An array of a state, and where it begins in the block. */
typedef struct {
    bm_tensor tensor; /* `part` means nothing here */
    uint64_t offset;
} bm_state_tensor;

/*
 * A state is one block of bytes, of a size that the configuration and the type fix: BM_F32 and BM_I16 as sessions
 * have it, BM_I8 only to be kept, with a unit per row. Between the arrays there may be gaps. Blocks of one model
 * and type have the same layout, whatever computes.
 */
uint64_t bm_state_bytes(const bm_config *config, bm_dtype dtype);
size_t bm_state_tensor_count(bm_dtype dtype);
bm_state_tensor bm_state_tensor_at(const bm_config *config, bm_dtype dtype, size_t index);

/*
 * Writes the state `in` of one type as the state `out` of another; blocks of bm_state_bytes each, aligned to 64, that do not
 * overlap. From 16 to 32 bits is exact, to fewer bits rounds each row to its own unit. BM_E_ARGUMENT: no such type.
 */
bm_status bm_state_convert(const bm_config *config, bm_dtype from, const void *in, bm_dtype to,
                           void *out, bm_error *err);

/*
 * The block of a session: with its position, all that it knows. Valid and up to date until the next call on
 * the session. Whoever writes another state of the same model and type over it must call bm_session_adopt next.
 */
void *bm_session_state(bm_session *session);

/*
 * Makes the block's content the session's state after `position` tokens; the logits are those after the last
 * of them. 0 is the same as bm_session_reset. BM_E_NUMERIC: NaN or infinity in its `last`; elsewhere the next append finds it.
 */
bm_status bm_session_adopt(bm_session *session, uint64_t position, bm_error *err);

/* ---- Several sessions together ---------------------------------------------------------------- */

enum { BM_MAX_TOGETHER = 64 };

/*
 * bm_session_append of ids[i] to sessions[i], for n different sessions of one model and precision, whose weights are
 * read once for all. Bit for bit what each would have alone. BM_E_ARGUMENT, BM_E_ORDER, or BM_E_NUMERIC of a session from
 * before: nothing has changed. Else BM_E_NUMERIC: of the first session that failed, and all have moved on.
 */
bm_status bm_session_append_each(bm_session *const *sessions, const uint32_t *ids, size_t n,
                                 bm_error *err);

/*
 * Computes the logits after the last token of each of them, where bm_session_logits then finds them. Errors as above, and
 * BM_E_ARGUMENT: a session has read no token.
 */
bm_status bm_session_logits_each(bm_session *const *sessions, size_t n, bm_error *err);

/* ---- Prompt of a model that is still arriving ------------------------------------------------- */

typedef struct bm_prompt bm_prompt;

/*
 * A prompt of n tokens that passes the parts of the model one after another, each as soon as it is sealed. At
 * its end the session is what it would be after appending the ids, bit for bit. Takes n * d_model floats. Free it
 * before its session. BM_E_ARGUMENT, BM_E_MEMORY.
 */
bm_status bm_prompt_create(bm_session *session, size_t n, bm_prompt **out, bm_error *err);

/* Gives ids [start, start + n), all of them before the first step; those never given are 0. BM_E_ARGUMENT, BM_E_ORDER. */
bm_status bm_prompt_set(bm_prompt *prompt, size_t start, const uint32_t *ids, size_t n,
                        bm_error *err);

/* The part that the next step passes, and that must be sealed; past the model's last part when all are passed. */
size_t bm_prompt_next_part(const bm_prompt *prompt);

/*
 * Takes up to max_chunk tokens through the next part. From the first step to the last the session does nothing
 * else; bm_session_reset ends the reading. BM_E_ORDER: the part is not sealed, the session was not at position 0 at
 * the first step or was reset since, or all is read. BM_E_NUMERIC: as bm_session_append.
 */
bm_status bm_prompt_step(bm_prompt *prompt, bm_error *err);

/* In the middle of the reading this resets the session. */
void bm_prompt_free(bm_prompt *prompt);

/* ---- Drafts: tokens that may turn out wrong -------------------------------------------------- */

typedef struct bm_draft bm_draft;

/*
 * Memory for reading up to n tokens (1 ... max_chunk) at once, of which the last ones may be taken back: a second state, and a few
 * thousand floats a token and layer. Free it before its session. BM_E_ARGUMENT, BM_E_MEMORY; BM_E_ORDER: the session has one.
 */
bm_status bm_draft_create(bm_session *session, size_t n, bm_draft **out, bm_error *err);

/*
 * What was read and not kept was never read: bm_session_logits has those of the certain tokens then, where there were none those
 * after the session's last token, as of token 0.
 */
void bm_draft_free(bm_draft *draft);

/*
 * Reads n tokens as bm_session_append does, but the session moves by the first `certain` (0 ... n) only. bm_session_logits
 * gives those after each of the n. Until bm_draft_keep nothing else can be read (BM_E_ORDER), nor the state copied; bm_session_reset
 * and bm_session_adopt take the draft back. BM_E_ARGUMENT: the session is unchanged. BM_E_NUMERIC: as bm_session_append.
 */
bm_status bm_draft_read(bm_draft *draft, const uint32_t *ids, size_t n, size_t certain,
                        bm_error *err);

/*
 * The first `count` (1 or `certain` ... n) are right: the session is what it would be after appending those, to the bit. All or
 * the certain ones cost nothing; else the recurrence of those that are kept is computed again, and nothing else. BM_E_ARGUMENT, BM_E_ORDER: nothing has changed.
 */
bm_status bm_draft_keep(bm_draft *draft, size_t count, bm_error *err);

/* ---- Measuring ------------------------------------------------------------------------------ */

/* The steps of an append, in order; bm_forward.c says what each computes. */
typedef enum {
    BM_STEP_EMBED,
    BM_STEP_PREPARE_IN, /* from here to PROJECT_OUT: for each layer */
    BM_STEP_PROJECT_IN,
    BM_STEP_SCAN,
    BM_STEP_PREPARE_OUT,
    BM_STEP_PROJECT_OUT,
    BM_STEP_FINISH,
    BM_STEP_COUNT
} bm_step;

/* "embed", "prepare_in", ...; NULL past the last. */
const char *bm_step_name(size_t step);

/*
 * One step of an append of n tokens, in one layer: for a caller that has a clock, which the core has not.
 * EMBED, the five steps of layer 0, those of layer 1 and so on, then FINISH, all with the same ids, are
 * together one bm_session_append, bit for bit. Steps in any other order cost the same time, but what
 * they leave behind means nothing until bm_session_reset. EMBED and FINISH belong to no layer: give 0.
 * BM_E_ARGUMENT: no such step or layer, or as bm_session_append says. BM_E_NUMERIC: likewise, at FINISH.
 */
bm_status bm_session_step(bm_session *session, bm_step step, size_t layer, const uint32_t *ids,
                          size_t n, bm_error *err);

/* ---- Sampler -------------------------------------------------------------------------------- */

typedef struct bm_sampler bm_sampler;

enum { BM_MAX_BIASES = 1024, BM_MAX_BREAKERS = 1024, BM_MAX_WINDOW = 65536 };

/* Added to the logit of an id: -100 to 100, or -INFINITY: it is never drawn. */
typedef struct {
    uint32_t id;
    float bias;
} bm_bias;

/*
 * Applied in this order; in brackets the value that changes nothing. Penalties leave logits finite. Where no id
 * is left that may be drawn, those that may not be may be.
 */
typedef struct {
    const bm_bias *biases; /* [n_biases] of different ids, at most BM_MAX_BIASES; copied */
    size_t n_biases;       /* [0] */
    float
        repetition_penalty; /* > 0: logits of recent tokens are divided (if > 0) or multiplied by it [1] */
    uint32_t
        repetition_window; /* how many of the last accepted tokens are recent; at most BM_MAX_WINDOW */
    float frequency_penalty; /* -100 ... 100, for each time a token is recent [0] */
    float presence_penalty;  /* -100 ... 100, once for a recent token [0] */
    /*
     * The next two look at the last history_window tokens (at most BM_MAX_WINDOW) for where the end of the text
     * was before. DRY (p-e-w, 2024): a token that makes a repetition of m tokens one longer, the longest m counting,
     * loses multiplier * base^(m - allowed_length) if m >= allowed_length. A repetition does not reach over a breaker.
     */
    uint32_t history_window;
    float dry_multiplier;         /* 0 ... 100 [0] */
    float dry_base;               /* 1 ... 100 */
    uint32_t dry_allowed_length;  /* 1 ... 64 */
    const uint32_t *dry_breakers; /* [n_dry_breakers] ids, at most BM_MAX_BREAKERS; copied */
    size_t n_dry_breakers;
    uint32_t
        no_repeat_ngram; /* so many tokens in a row are not drawn a second time; at most 64 [0] */
    float temperature;   /* 0: the most likely token, ties to the lowest id [1] */
    uint32_t top_k;      /* keep the k most likely [0] */
    float
        typical_p; /* keep the least whose probability reaches typical_p of those whose surprise is
                        nearest to the entropy (arXiv 2202.00666) [1] */
    float top_p;   /* keep the shortest list whose probability reaches top_p [1] */
    float min_p;   /* keep tokens at least min_p as likely as the most likely [0] */
    /*
     * Mirostat 2 (arXiv 2007.14966), instead of top_k, typical_p, top_p and min_p: keep tokens of a surprise up to mu bits,
     * and after the draw take eta * (surprise of the token among those kept - tau) from mu, at first 2 * tau.
     */
    float mirostat_tau; /* 0 ... 100 [0] */
    float mirostat_eta; /* 0 < eta <= 1 */
    uint64_t seed;
} bm_sampling;

bm_status bm_sampler_create(uint32_t vocab_size, const bm_sampling *options, bm_sampler **out,
                            bm_error *err);
void bm_sampler_free(bm_sampler *sampler);

/* Tells the sampler of one token of the context, in order. Ids outside the vocabulary are ignored. */
void bm_sampler_accept(bm_sampler *sampler, uint32_t id);

/*
 * What may be drawn from now on: bit id % 32 of word id / 32, [ceil(vocab_size / 32)], copied; NULL: everything again. No other setting lets
 * another id through; where no_repeat_ngram would leave none, it gives way.
 * BM_E_ARGUMENT, and nothing changes: no id is allowed, or all that are have a bias of -infinity.
 */
bm_status bm_sampler_allow(bm_sampler *sampler, const uint32_t *allowed, bm_error *err);

/* Draws one id from finite logits [vocab_size]; advances the random state; does not accept it. */
uint32_t bm_sampler_sample(bm_sampler *sampler, const float *logits);

/* What sampling has changed; the accepted tokens apart, which a caller accepts again. */
typedef struct {
    uint64_t random;
    float mu; /* of mirostat; 0: nothing was drawn with it */
} bm_sampler_state;

bm_sampler_state bm_sampler_save(const bm_sampler *sampler);

/* Any state is taken; a mu that is no positive number counts as 0. */
void bm_sampler_restore(bm_sampler *sampler, const bm_sampler_state *state);

/* log p(id) under softmax(logits), natural logarithm. `id` < n. */
double bm_log_softmax(const float *logits, size_t n, size_t id);

enum { BM_MAX_TOP = 64 };

/*
 * The k likeliest ids under softmax(logits), falling, ties to the lowest id, and their log-probabilities as
 * bm_log_softmax gives them. Returns how many: the least of k, n and BM_MAX_TOP.
 */
size_t bm_top_logprobs(const float *logits, size_t n, size_t k, uint32_t *ids, double *logprobs);

#endif
