/*
 * bm_model.h: what the forward pass sees of a model: its weights by name, ready to use.
 *
 * Knows the layout of weights in memory; knows no token and no state. Fields are read-only once their
 * part is sealed. Field names are the paper's; "folded" arrays say what was multiplied in at sealing.
 */
#ifndef BM_MODEL_H
#define BM_MODEL_H

#include "bm_config.h"
#include "kernels/kernels.h"

/* A projection in full or in integers, rows in file form; see dense_i8 and the others in kernels.h. */
typedef struct {
    void *weight;
    float *scale; /* NULL with binary16 */
} bm_dense;

/*
 * in_sign and out_sign, or in_dense and out_dense: the other two are empty. Dense projections have no alpha and beta:
 * of in_scale and out_scale only the norm is left, of in_bias and out_bias zeros.
 */
typedef struct {
    uint8_t *in_sign;   /* packed [in_rows, d_model] */
    float *in_scale;    /* [d_model] folded: norm.weight * in_proj.alpha */
    float *in_bias;     /* [d_model] folded: norm.weight * in_proj.beta */
    bm_dense in_dense;  /* [in_rows, d_model] */
    float *conv;        /* [d_conv, conv_dim]: transposed, the current token's tap last */
    float *conv_bias;   /* [conv_dim] */
    float *dt_bias;     /* [n_heads] */
    float *a;           /* [n_heads] folded: A = -exp(A_log) */
    float *d;           /* [n_heads] */
    uint8_t *out_sign;  /* packed [d_model, d_inner] */
    float *out_scale;   /* [d_inner] folded: gate_norm.weight * out_proj.alpha */
    float *out_bias;    /* [d_inner] folded: gate_norm.weight * out_proj.beta */
    bm_dense out_dense; /* [d_model, d_inner] */
} bm_layer;

/* A table of one row per token id: the embedding and the head. */
typedef struct {
    void *weight; /* [padded_vocab_size, d_model] i8, f16 or f32 */
    float *scale; /* [padded_vocab_size], with i8 only */
} bm_token_table;

struct bm_model {
    bm_config config;
    bm_dims dims;
    const bm_kernels *kernels;
    bm_token_table embedding;
    bm_token_table head; /* the embedding itself when tied; no weight of its own when in 4 bits */
    bm_head head_form;
    bm_i4_unit
        *head_i4;     /* [bm_i4_units(vocab_size, d_model)] the head with BM_HEAD_INT4, else NULL */
    int8_t *head_row; /* [d_model] the row of an untied head that is arriving, on its way there */
    bm_layer *layers; /* [n_layer] */
    float *norm_f;    /* [d_model] */
    float *zeros;     /* [max(d_model, d_inner)] the bias of a norm that has none behind it */
    float *norm;      /* [n_layer, d_model] norm.weight until the layer is sealed */
    float *gate_norm; /* [n_layer, d_inner] likewise */
    uint64_t *written; /* [tensors] bytes that have arrived */
    uint8_t *sealed;   /* [n_layer + 2] */
};

bool bm_model_is_sealed(const bm_model *model);

/* `part` is one of the model's. */
bool bm_model_part_is_sealed(const bm_model *model, size_t part);

/* r [d_model] = the embedding of `id`. */
void bm_model_embed(const bm_model *model, uint32_t id, float *r);

#endif
