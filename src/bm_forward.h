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

/*
 * The SSM state of a head is S = scale * stored, and |stored| <= 2 * bound. A token's decay multiplies
 * the one number `scale` instead of all of S, so a 16-bit S cannot get stuck when the decay is less
 * than half a unit in its last place, a fading S does not crawl through subnormals, and S is rounded
 * once a token. In 16 bits, stored is an integer times its row's unit: see scan_i16 in kernels.h.
 */
typedef struct {
    float scale; /* 0: S is zero */
    float bound;
} bm_ssm_scale;

/* The recurrent state: all that the model knows of the tokens so far. All zero at position 0. */
typedef struct {
    bm_dtype ssm_dtype; /* BM_F32 or BM_I16 */
    float *conv; /* [n_layer, d_conv - 1, conv_dim]: inputs; position p is row p % (d_conv - 1) */
    void *ssm;   /* [n_layer, n_heads, headdim, d_state] */
    bm_ssm_scale *scales; /* [n_layer, n_heads] */
    float *unit;          /* [n_layer, n_heads, headdim] of BM_I16, see scan_i16; 0: nothing yet */
    float *most;          /* the same */
    uint64_t position;    /* tokens consumed */
} bm_timeline;

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
    float *normed;        /* [T, normed_stride] inputs of a binary product */
    uint8_t *act;         /* [T, act_stride] the same, prepared */
    float *c;             /* [T] bias products */
    float *b_max;         /* [T, ngroups] max |B| */
    uint8_t *matmul;      /* [n_threads, matmul_stride] what the kernels want beside */
    float *hidden;        /* [T, d_model] final normed vectors of the last chunk */
} bm_scratch;

/* Tokens on their way: what they pass, and what is worked in. */
typedef struct {
    const bm_model *model;
    bm_precision precision;
    const bm_team *team; /* or NULL */
    bm_timeline *timeline;
    const bm_scratch *scratch;
    const uint32_t *ids; /* [n] below vocab_size */
    size_t n;            /* at most T */
} bm_chunk;

/* Runs a chunk through all layers; fills scratch->hidden. */
void bm_forward(const bm_chunk *chunk);

/* One step of it; `layer` < n_layer, also where it plays no part. */
void bm_forward_step(const bm_chunk *chunk, bm_step which, size_t layer);

/* logits [vocab_size] from one hidden vector [d_model]; uses scratch->act. */
void bm_forward_logits(const bm_model *model, bm_precision precision, const bm_team *team,
                       const bm_scratch *scratch, const float *hidden, float *logits);

#endif
