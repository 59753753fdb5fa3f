/*
 * bm_config.h: the sizes that follow from a configuration, and the table of tensors by role.
 *
 * Owns the one place where a tensor's name, type and shape are decided. Knows neither weights nor
 * kernels. A tensor's role tells the model where its bytes go; its name is for people and files.
 */
#ifndef BM_CONFIG_H
#define BM_CONFIG_H

#include "bm_base.h"

/* Sizes of arXiv 2405.21060, section 7, derived once. */
typedef struct {
    size_t d_inner;  /* expand * d_model */
    size_t n_heads;  /* d_inner / headdim */
    size_t bc_size;  /* ngroups * d_state: width of B and of C */
    size_t conv_dim; /* d_inner + 2 * bc_size: x, B and C all pass the convolution */
    size_t in_rows;  /* 2 * d_inner + 2 * bc_size + n_heads: z, x, B, C, dt */
    size_t heads_per_group;
    size_t norm_group; /* d_inner / ngroups: the gated norm works on one group at a time */
} bm_dims;

bm_dims bm_dims_of(const bm_config *config);

typedef enum {
    BM_ROLE_EMBEDDING,
    BM_ROLE_EMBEDDING_SCALE,
    BM_ROLE_NORM,
    BM_ROLE_IN_SIGN,
    BM_ROLE_IN_ALPHA,
    BM_ROLE_IN_BETA,
    BM_ROLE_IN_WEIGHT,
    BM_ROLE_IN_SCALE,
    BM_ROLE_CONV_WEIGHT,
    BM_ROLE_CONV_BIAS,
    BM_ROLE_DT_BIAS,
    BM_ROLE_A_LOG,
    BM_ROLE_D,
    BM_ROLE_GATE_NORM,
    BM_ROLE_OUT_SIGN,
    BM_ROLE_OUT_ALPHA,
    BM_ROLE_OUT_BETA,
    BM_ROLE_OUT_WEIGHT,
    BM_ROLE_OUT_SCALE,
    BM_ROLE_NORM_F,
    BM_ROLE_HEAD,
    BM_ROLE_HEAD_SCALE
} bm_role;

/* Role of tensor `index` of the table; `*layer` is set for roles that belong to a layer. */
bm_role bm_role_at(const bm_config *config, size_t index, size_t *layer);

static inline bool bm_has_scale(const bm_config *config) {
    return config->embedding_dtype == BM_I8;
}

static inline bool bm_is_dense(const bm_config *config) {
    return config->projection_dtype != BM_WEIGHTS_SIGN;
}

size_t bm_dtype_size(bm_dtype dtype);

#endif
