/*
 * bm_config.c: limits of a configuration and the table of tensors it implies. See bm_config.h.
 *
 * The limits keep every size of a model below 2^48, and sizes are computed in 64 bits. What does not fit
 * the address space is refused when memory is taken, so an index into memory that was taken fits size_t.
 */
#include "bm_config.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

typedef struct {
    bm_config_field public;
    size_t offset;     /* into bm_config */
    const char *range; /* for messages, as it is written below */
} field;

#define INTEGER(name, min, max)                                                                    \
    { {#name, min, max, true}, offsetof(bm_config, name), "an integer from " #min " to " #max }
#define REAL(name, min, max)                                                                       \
    { {#name, min, max, false}, offsetof(bm_config, name), #min " to " #max }

static const field fields[] = {
    INTEGER(n_layer, 1, 256),
    INTEGER(d_model, 32, 16384),
    INTEGER(d_state, 8, 512),
    INTEGER(headdim, 4, 512),
    INTEGER(ngroups, 1, 4096),
    INTEGER(d_conv, 2, 4),
    INTEGER(expand, 1, 8),
    INTEGER(vocab_size, 1, 1048576),
    INTEGER(padded_vocab_size, 1, 1052672),
    INTEGER(tie_embeddings, 0, 1),
    REAL(norm_eps, 1e-12, 1),
    REAL(dt_min, 0, 1e6),
    REAL(dt_max, 1e-9, INFINITY),
    INTEGER(embedding_dtype, BM_I8, BM_F32),
    INTEGER(projection_dtype, BM_WEIGHTS_SIGN, BM_WEIGHTS_F16),
};

enum {
    FIELD_COUNT = sizeof fields / sizeof fields[0],
    MAX_D_INNER = 65536,
    MAX_VOCAB_PADDING = 4096
};

size_t bm_config_field_count(void) {
    return FIELD_COUNT;
}

const bm_config_field *bm_config_field_at(size_t index) {
    return index < FIELD_COUNT ? &fields[index].public : NULL;
}

static double field_value(const bm_config *config, const field *f) {
    const char *at = (const char *)config + f->offset;
    if (f->public.is_integer) {
        uint32_t value;
        memcpy(&value, at, sizeof value);
        return (double)value;
    }
    float value;
    memcpy(&value, at, sizeof value);
    return (double)value;
}

/* A float field's limits are compared as floats: 1e-12 read from a file must not miss 1e-12 here. */
static bool in_range(const field *f, double value) {
    if (f->public.is_integer)
        return value >= f->public.min && value <= f->public.max && value == (double)(uint32_t)value;
    return (float)value >= (float)f->public.min && (float)value <= (float)f->public.max;
}

static bm_status range_error(const field *f, double value, bm_error *err) {
    bool is_whole = value >= 0 && value < 4294967296.0 && value == (double)(uint32_t)value;
    if (is_whole)
        return bm_fail(err, BM_E_CONFIG, "%s is %u, want %s", f->public.name, (unsigned)value,
                       f->range);
    return bm_fail(err, BM_E_CONFIG, "%s is out of range, want %s", f->public.name, f->range);
}

bm_status bm_config_set(bm_config *config, size_t index, double value, bm_error *err) {
    if (index >= FIELD_COUNT)
        return bm_fail(err, BM_E_ARGUMENT, "config field %zu, want below %u", index,
                       (unsigned)FIELD_COUNT);
    const field *f = &fields[index];
    char *at = (char *)config + f->offset;
    if (!in_range(f, value))
        return range_error(f, value, err);
    if (f->public.is_integer) {
        uint32_t integer = (uint32_t)value;
        memcpy(at, &integer, sizeof integer);
    } else {
        float real = (float)value;
        memcpy(at, &real, sizeof real);
    }
    return BM_OK;
}

bm_status bm_config_check(const bm_config *c, bm_error *err) {
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        double value = field_value(c, &fields[i]);
        if (!in_range(&fields[i], value))
            return range_error(&fields[i], value, err);
    }
    uint32_t d_inner = c->expand * c->d_model;
    if (c->d_model % 32 != 0)
        return bm_fail(err, BM_E_CONFIG, "d_model is %u, want a multiple of 32", c->d_model);
    if (d_inner > MAX_D_INNER)
        return bm_fail(err, BM_E_CONFIG, "expand * d_model is %u, want at most %u", d_inner,
                       (unsigned)MAX_D_INNER);
    if (c->d_state % 8 != 0)
        return bm_fail(err, BM_E_CONFIG, "d_state is %u, want a multiple of 8", c->d_state);
    if (c->headdim % 4 != 0 || d_inner % c->headdim != 0)
        return bm_fail(err, BM_E_CONFIG, "headdim is %u, want a multiple of 4 that divides %u",
                       c->headdim, d_inner);
    uint32_t n_heads = d_inner / c->headdim;
    if (n_heads % c->ngroups != 0)
        return bm_fail(err, BM_E_CONFIG, "ngroups is %u, want a divisor of the %u heads",
                       c->ngroups, n_heads);
    if (c->ngroups * c->d_state > MAX_D_INNER)
        return bm_fail(err, BM_E_CONFIG, "ngroups * d_state is %u, want at most %u",
                       c->ngroups * c->d_state, (unsigned)MAX_D_INNER);
    if (c->padded_vocab_size < c->vocab_size ||
        c->padded_vocab_size - c->vocab_size > MAX_VOCAB_PADDING)
        return bm_fail(err, BM_E_CONFIG, "padded_vocab_size is %u, want %u to %u",
                       c->padded_vocab_size, c->vocab_size, c->vocab_size + MAX_VOCAB_PADDING);
    if (!(c->dt_min < c->dt_max))
        return bm_fail(err, BM_E_CONFIG, "dt_min is not below dt_max, want dt_min < dt_max");
    return BM_OK;
}

bm_dims bm_dims_of(const bm_config *c) {
    size_t d_inner = (size_t)c->expand * c->d_model;
    size_t n_heads = d_inner / c->headdim;
    size_t bc_size = (size_t)c->ngroups * c->d_state;
    return (bm_dims){
        .d_inner = d_inner,
        .n_heads = n_heads,
        .bc_size = bc_size,
        .conv_dim = d_inner + 2 * bc_size,
        .in_rows = 2 * d_inner + 2 * bc_size + n_heads,
        .heads_per_group = n_heads / c->ngroups,
        .norm_group = d_inner / c->ngroups,
    };
}

/* The tensors of a layer, in order, by what its projections are. */
static const bm_role sign_roles[] = {
    BM_ROLE_NORM,      BM_ROLE_IN_SIGN,   BM_ROLE_IN_ALPHA, BM_ROLE_IN_BETA, BM_ROLE_CONV_WEIGHT,
    BM_ROLE_CONV_BIAS, BM_ROLE_DT_BIAS,   BM_ROLE_A_LOG,    BM_ROLE_D,       BM_ROLE_GATE_NORM,
    BM_ROLE_OUT_SIGN,  BM_ROLE_OUT_ALPHA, BM_ROLE_OUT_BETA};
static const bm_role scaled_roles[] = {BM_ROLE_NORM,        BM_ROLE_IN_WEIGHT, BM_ROLE_IN_SCALE,
                                       BM_ROLE_CONV_WEIGHT, BM_ROLE_CONV_BIAS, BM_ROLE_DT_BIAS,
                                       BM_ROLE_A_LOG,       BM_ROLE_D,         BM_ROLE_GATE_NORM,
                                       BM_ROLE_OUT_WEIGHT,  BM_ROLE_OUT_SCALE};
static const bm_role half_roles[] = {BM_ROLE_NORM,      BM_ROLE_IN_WEIGHT, BM_ROLE_CONV_WEIGHT,
                                     BM_ROLE_CONV_BIAS, BM_ROLE_DT_BIAS,   BM_ROLE_A_LOG,
                                     BM_ROLE_D,         BM_ROLE_GATE_NORM, BM_ROLE_OUT_WEIGHT};

typedef struct {
    const bm_role *role;
    size_t count;
} role_list;

#define ROLES(list)                                                                                \
    { list, sizeof list / sizeof list[0] }

static role_list layer_roles(const bm_config *c) {
    static const role_list lists[] = {[BM_WEIGHTS_SIGN] = ROLES(sign_roles),
                                      [BM_WEIGHTS_I4] = ROLES(scaled_roles),
                                      [BM_WEIGHTS_I8] = ROLES(scaled_roles),
                                      [BM_WEIGHTS_F16] = ROLES(half_roles)};
    return lists[c->projection_dtype];
}

static size_t embedding_tensors(const bm_config *c) {
    return bm_has_scale(c) ? 2 : 1;
}

size_t bm_tensor_count(const bm_config *c) {
    size_t head = c->tie_embeddings ? 0 : embedding_tensors(c);
    return embedding_tensors(c) + (size_t)c->n_layer * layer_roles(c).count + 1 + head;
}

bm_role bm_role_at(const bm_config *c, size_t index, size_t *layer) {
    size_t n_embedding = embedding_tensors(c);
    if (index < n_embedding)
        return index == 0 ? BM_ROLE_EMBEDDING : BM_ROLE_EMBEDDING_SCALE;
    index -= n_embedding;
    role_list roles = layer_roles(c);
    if (index < c->n_layer * roles.count) {
        *layer = index / roles.count;
        return roles.role[index % roles.count];
    }
    index -= c->n_layer * roles.count;
    return (bm_role)(BM_ROLE_NORM_F + index);
}

size_t bm_dtype_size(bm_dtype dtype) {
    static const size_t sizes[] = {
        [BM_U8] = 1, [BM_I8] = 1, [BM_F16] = 2, [BM_F32] = 4, [BM_I16] = 2};
    return sizes[dtype];
}

typedef struct {
    const char *name; /* within its layer, where it has one */
    bm_dtype dtype;
    size_t rows;
    size_t cols; /* 0: one dimension */
} shape;

/* A dense projection, or its scales. */
static shape dense_shape(const bm_config *c, bm_role role) {
    bool is_in = role == BM_ROLE_IN_WEIGHT || role == BM_ROLE_IN_SCALE;
    bool is_scale = role == BM_ROLE_IN_SCALE || role == BM_ROLE_OUT_SCALE;
    size_t rows = is_in ? bm_dims_of(c).in_rows : c->d_model;
    size_t cols = is_in ? c->d_model : bm_dims_of(c).d_inner;
    bool is_i4 = c->projection_dtype == BM_WEIGHTS_I4;
    if (is_scale)
        return (shape){is_in ? "in_proj.scale" : "out_proj.scale", BM_F32, rows,
                       is_i4 ? bm_i4_groups(cols) : 0};
    return (shape){is_in ? "in_proj.weight" : "out_proj.weight",
                   is_i4                                  ? BM_U8
                   : c->projection_dtype == BM_WEIGHTS_I8 ? BM_I8
                                                          : BM_F16,
                   rows, is_i4 ? cols / 2 : cols};
}

static shape shape_of(const bm_config *c, bm_role role) {
    bm_dims n = bm_dims_of(c);
    size_t d = c->d_model;
    bm_dtype table = (bm_dtype)c->embedding_dtype;
    switch (role) {
    case BM_ROLE_EMBEDDING: return (shape){"embedding.weight", table, c->padded_vocab_size, d};
    case BM_ROLE_EMBEDDING_SCALE:
        return (shape){"embedding.scale", BM_F32, c->padded_vocab_size, 0};
    case BM_ROLE_NORM: return (shape){"norm.weight", BM_F32, d, 0};
    case BM_ROLE_IN_SIGN: return (shape){"in_proj.sign", BM_U8, n.in_rows, d / 8};
    case BM_ROLE_IN_ALPHA: return (shape){"in_proj.alpha", BM_F32, d, 0};
    case BM_ROLE_IN_BETA: return (shape){"in_proj.beta", BM_F32, d, 0};
    case BM_ROLE_CONV_WEIGHT: return (shape){"conv.weight", BM_F32, n.conv_dim, c->d_conv};
    case BM_ROLE_CONV_BIAS: return (shape){"conv.bias", BM_F32, n.conv_dim, 0};
    case BM_ROLE_DT_BIAS: return (shape){"dt_bias", BM_F32, n.n_heads, 0};
    case BM_ROLE_A_LOG: return (shape){"A_log", BM_F32, n.n_heads, 0};
    case BM_ROLE_D: return (shape){"D", BM_F32, n.n_heads, 0};
    case BM_ROLE_GATE_NORM: return (shape){"gate_norm.weight", BM_F32, n.d_inner, 0};
    case BM_ROLE_OUT_SIGN: return (shape){"out_proj.sign", BM_U8, d, n.d_inner / 8};
    case BM_ROLE_OUT_ALPHA: return (shape){"out_proj.alpha", BM_F32, n.d_inner, 0};
    case BM_ROLE_OUT_BETA: return (shape){"out_proj.beta", BM_F32, n.d_inner, 0};
    case BM_ROLE_NORM_F: return (shape){"norm_f.weight", BM_F32, d, 0};
    case BM_ROLE_HEAD: return (shape){"head.weight", table, c->padded_vocab_size, d};
    case BM_ROLE_HEAD_SCALE: return (shape){"head.scale", BM_F32, c->padded_vocab_size, 0};
    case BM_ROLE_IN_WEIGHT:
    case BM_ROLE_IN_SCALE:
    case BM_ROLE_OUT_WEIGHT:
    case BM_ROLE_OUT_SCALE: return dense_shape(c, role);
    }
    return (shape){0};
}

bm_tensor bm_tensor_at(const bm_config *c, size_t index) {
    size_t layer = 0;
    bm_role role = bm_role_at(c, index, &layer);
    shape s = shape_of(c, role);
    bool in_layer = role >= BM_ROLE_NORM && role < BM_ROLE_NORM_F;
    bm_tensor tensor = {
        .dtype = s.dtype,
        .n_dims = s.cols ? 2 : 1,
        .shape = {(uint32_t)s.rows, (uint32_t)s.cols},
        .bytes = (uint64_t)s.rows * (s.cols ? s.cols : 1) * bm_dtype_size(s.dtype),
        .part = in_layer                 ? (uint32_t)layer + 1
                : role >= BM_ROLE_NORM_F ? c->n_layer + 1
                                         : 0,
    };
    if (in_layer)
        snprintf(tensor.name, sizeof tensor.name, "layers.%u.%s", (unsigned)layer, s.name);
    else
        snprintf(tensor.name, sizeof tensor.name, "%s", s.name);
    return tensor;
}
