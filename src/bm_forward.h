/*
 * bm_forward.h: the forward pass over a chunk of tokens, and the memory it works in.
 *
 * Knows the model's weights and the kernels' contracts; knows neither how the memory below was taken
 * nor who samples. A chunk of one token is decoding, more tokens are prefill: the same code, and the
 * same bits for any way to cut a sequence into chunks.
 */
#ifndef BM_FORWARD_H
#define BM_FORWARD_H

#include "bm_model.h"
#include "bm_state.h"

/* How the inputs of a model's projections are prepared in a session of this precision. */
static inline bm_precision bm_input_precision(const bm_config *config, bm_precision precision) {
    return config->projection_dtype == BM_WEIGHTS_F16 ? BM_EXACT : precision;
}

/* Scratch for chunks of up to T tokens; nothing in it outlives a call except `hidden`. */
typedef struct {
    size_t zxbcdt_stride; /* floats a token */
    size_t out_stride;
    size_t normed_stride;
    size_t act_stride;    /* bytes a token */
    size_t matmul_stride; /* bytes a thread */
    float *r;             /* [T, d_model] residual stream */
    float *zxbcdt;        /* [T, zxbcdt_stride] output of in_proj: z, x, B, C, dt */
    float *y;             /* [T, d_inner] output of the SSM, gated */
    float *out;           /* [T, out_stride] output of out_proj */
    float *normed;        /* [T, normed_stride] inputs of a projection */
    uint8_t *act;         /* [T, act_stride] the same, prepared */
    float *c;             /* [T] bias products */
    float *b_max;         /* [T, ngroups] max |B| */
    uint8_t *matmul;      /* [n_threads, matmul_stride] what the kernels want beside */
    float *hidden;        /* [T, d_model] final normed vectors of the last chunk */
} bm_scratch;

/* The tokens of a chunk that continue one timeline, in order. */
typedef struct {
    bm_timeline *timeline;
    size_t start; /* among the tokens of the chunk */
    size_t n;
} bm_lane;

/*
 * Tokens that may be taken back. A chunk of one lane moves its timeline by the first `certain` tokens only; what follows moves
 * `other`, which begins where those end. So when all were right the two change places, and nothing is computed again. When
 * only some were, those give the recurrence what they gave it once more, which is kept here.
 */
typedef struct {
    size_t certain;
    bm_timeline other;
    size_t capacity; /* tokens behind the certain ones */
    size_t stride;   /* floats a token */
    float *inputs;   /* [n_layer, capacity, stride] x, B, C and dt of in_proj */
} bm_trial;

/* What in_proj gives the convolution and the recurrence of a token: all but z. */
static inline size_t bm_trial_stride(const bm_dims *n) {
    return n->in_rows - n->d_inner;
}

/* Tokens on their way: what they pass, and what is worked in. Only the recurrence tells lanes apart. */
typedef struct {
    const bm_model *model;
    bm_precision precision;
    const bm_team *team; /* or NULL */
    const bm_lane *lanes;
    size_t n_lanes;
    const bm_scratch *scratch;
    const uint32_t *ids; /* [n] below vocab_size */
    size_t n;            /* at most T */
    bm_trial *trial;     /* or NULL: all tokens are certain */
} bm_chunk;

/* Runs a chunk through all layers; fills scratch->hidden. */
void bm_forward(const bm_chunk *chunk);

/* One step of it; `layer` < n_layer, also where it plays no part. */
void bm_forward_step(const bm_chunk *chunk, bm_step which, size_t layer);

/*
 * Moves the timeline of a chunk's one lane by its n tokens, which are the first of those that were tried on it last: to the bit
 * as if they had not been on trial, but only the recurrence and its convolution are computed. Their ids are not looked at.
 */
void bm_forward_replay(const bm_chunk *chunk);

/* One vector on its way through the head. */
typedef struct {
    const float *hidden; /* [d_model] */
    void *act;           /* room for it as a prepared input */
    float *logits;       /* [vocab_size] */
} bm_head_lane;

/* The logits of n vectors, which the weights of the head are read once for. */
void bm_forward_logits(const bm_model *model, bm_precision precision, const bm_team *team,
                       const bm_head_lane *lanes, size_t n);

#endif
