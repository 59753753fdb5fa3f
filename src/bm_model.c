/*
 * bm_model.c: takes tensors as they arrive, puts each where the kernels want it, seals parts.
 *
 * Owns the weights' memory: one block, laid out by one function that runs twice. Knows no file: bytes
 * come with a tensor's index and an offset, in any order. Sealing is where hostile numbers stop: after
 * it the forward pass checks nothing.
 */
#include "bm_model.h"

static bm_dense layout_dense(bm_arena *arena, const bm_config *c, size_t rows, size_t cols) {
    uint64_t weights = (uint64_t)rows * cols;
    switch (c->projection_dtype) {
    case BM_WEIGHTS_F16: return (bm_dense){bm_arena_take(arena, weights, sizeof(uint16_t)), NULL};
    case BM_WEIGHTS_I8:
        return (bm_dense){bm_arena_take(arena, weights, 1),
                          bm_arena_take(arena, rows, sizeof(float))};
    default:
        return (bm_dense){bm_arena_take(arena, weights / 2, 1),
                          bm_arena_take(arena, (uint64_t)rows * bm_i4_groups(cols), sizeof(float))};
    }
}

static void layout_signs(bm_arena *arena, bm_layer *layer, const bm_model *m) {
    size_t d_model = m->config.d_model;
    size_t d_inner = m->dims.d_inner;
    layer->in_sign = bm_arena_take(arena, 1, m->kernels->signs_bytes(m->dims.in_rows, d_model));
    layer->in_scale = bm_arena_take(arena, d_model, sizeof(float));
    layer->in_bias = bm_arena_take(arena, d_model, sizeof(float));
    layer->out_sign = bm_arena_take(arena, 1, m->kernels->signs_bytes(d_model, d_inner));
    layer->out_scale = bm_arena_take(arena, d_inner, sizeof(float));
    layer->out_bias = bm_arena_take(arena, d_inner, sizeof(float));
}

static void layout_layer(bm_arena *arena, bm_layer *layer, const bm_model *m) {
    const bm_config *c = &m->config;
    const bm_dims *n = &m->dims;
    *layer = (bm_layer){
        .conv = bm_arena_take(arena, (uint64_t)c->d_conv * n->conv_dim, sizeof(float)),
        .conv_bias = bm_arena_take(arena, n->conv_dim, sizeof(float)),
        .dt_bias = bm_arena_take(arena, n->n_heads, sizeof(float)),
        .a = bm_arena_take(arena, n->n_heads, sizeof(float)),
        .d = bm_arena_take(arena, n->n_heads, sizeof(float)),
    };
    if (bm_is_dense(c)) {
        layer->in_dense = layout_dense(arena, c, n->in_rows, c->d_model);
        layer->out_dense = layout_dense(arena, c, c->d_model, n->d_inner);
    } else {
        layout_signs(arena, layer, m);
    }
}

static float *layout_scales(bm_arena *arena, const bm_config *c) {
    return bm_has_scale(c) ? bm_arena_take(arena, c->padded_vocab_size, sizeof(float)) : NULL;
}

static bm_token_table layout_table(bm_arena *arena, const bm_config *c) {
    uint64_t elements = (uint64_t)c->padded_vocab_size * c->d_model;
    void *weight = bm_arena_take(arena, elements, bm_dtype_size((bm_dtype)c->embedding_dtype));
    return (bm_token_table){.weight = weight, .scale = layout_scales(arena, c)};
}

static void layout_head(bm_arena *arena, bm_model *m) {
    const bm_config *c = &m->config;
    bool is_packed = m->head_form == BM_HEAD_INT4;
    if (c->tie_embeddings)
        m->head = m->embedding;
    else if (is_packed)
        m->head = (bm_token_table){.weight = NULL, .scale = layout_scales(arena, c)};
    else
        m->head = layout_table(arena, c);
    if (is_packed) {
        uint64_t units = bm_i4_units(c->vocab_size, c->d_model);
        m->head_i4 = bm_arena_take(arena, units, sizeof *m->head_i4);
        m->head_row = c->tie_embeddings ? NULL : bm_arena_take(arena, c->d_model, 1);
    }
}

/* `m` holds config, dims and kernels; while measuring it and the layers are scratch on the stack. */
static bm_model *layout(bm_arena *arena, const bm_model *m) {
    const bm_config *c = &m->config;
    bm_model *out = bm_arena_take(arena, 1, sizeof *out);
    bm_model plan = *m;
    plan.layers = bm_arena_take(arena, c->n_layer, sizeof *plan.layers);
    plan.embedding = layout_table(arena, c);
    for (size_t i = 0; i < c->n_layer; i++) {
        bm_layer layer;
        layout_layer(arena, &layer, m);
        if (plan.layers)
            plan.layers[i] = layer;
    }
    plan.norm_f = bm_arena_take(arena, c->d_model, sizeof(float));
    layout_head(arena, &plan);
    size_t widest = c->d_model < m->dims.d_inner ? m->dims.d_inner : c->d_model;
    plan.zeros = bm_arena_take(arena, widest, sizeof(float));
    plan.norm = bm_arena_take(arena, (uint64_t)c->n_layer * c->d_model, sizeof(float));
    plan.gate_norm = bm_arena_take(arena, (uint64_t)c->n_layer * m->dims.d_inner, sizeof(float));
    for (size_t i = 0; plan.layers && bm_is_dense(c) && i < c->n_layer; i++) {
        plan.layers[i].in_scale = plan.norm + i * c->d_model;
        plan.layers[i].out_scale = plan.gate_norm + i * m->dims.d_inner;
        plan.layers[i].in_bias = plan.layers[i].out_bias = plan.zeros;
    }
    plan.written = bm_arena_take(arena, bm_tensor_count(c), sizeof *plan.written);
    plan.sealed = bm_arena_take(arena, (uint64_t)c->n_layer + 2, 1);
    if (out)
        *out = plan; /* NULL while measuring */
    return out;
}

size_t bm_variant_count(void) {
    return bm_kernels_count;
}

const char *bm_variant_name(size_t variant) {
    return variant < bm_kernels_count ? bm_kernels_all[variant]->name : NULL;
}

static bm_status check_head(const bm_config *config, bm_head head, bm_error *err) {
    static const char *const names[] = {[BM_F16] = "f16", [BM_F32] = "f32"};
    if ((unsigned)head >= BM_HEAD_COUNT)
        return bm_fail(err, BM_E_ARGUMENT, "head %u, want below %u", (unsigned)head,
                       (unsigned)BM_HEAD_COUNT);
    if (head == BM_HEAD_INT4 && config->embedding_dtype != BM_I8)
        return bm_fail(err, BM_E_ARGUMENT, "an int4 head is made from int8, and this model has %s",
                       names[config->embedding_dtype]);
    return BM_OK;
}

bm_status bm_model_create(const bm_config *config, size_t variant, bm_head head, bm_model **out,
                          bm_error *err) {
    bm_status status = bm_config_check(config, err);
    if (status != BM_OK)
        return status;
    if (variant >= bm_kernels_count)
        return bm_fail(err, BM_E_ARGUMENT, "kernel variant %zu, want below %zu", variant,
                       bm_kernels_count);
    status = check_head(config, head, err);
    if (status != BM_OK)
        return status;
    bm_model seed = {.config = *config,
                     .dims = bm_dims_of(config),
                     .kernels = bm_kernels_all[variant],
                     .head_form = head};
    bm_arena arena = {0};
    layout(&arena, &seed);
    arena.base = bm_block_alloc(arena.used);
    if (!arena.base)
        return bm_fail(err, BM_E_MEMORY, "no memory for the weights: %u MiB wanted",
                       (unsigned)(arena.used >> 20));
    arena.used = 0;
    *out = layout(&arena, &seed);
    return BM_OK;
}

void bm_model_free(bm_model *model) {
    bm_block_free(model);
}

/* ---- Writing -------------------------------------------------------------------------------- */

/* Where a tensor that is kept in file form goes; NULL for signs and the convolution. */
static void *plain_target(const bm_model *m, bm_role role, size_t layer) {
    const bm_layer *l = &m->layers[layer];
    switch (role) {
    case BM_ROLE_EMBEDDING: return m->embedding.weight;
    case BM_ROLE_EMBEDDING_SCALE: return m->embedding.scale;
    case BM_ROLE_NORM: return m->norm + layer * m->config.d_model;
    case BM_ROLE_IN_ALPHA: return l->in_scale;
    case BM_ROLE_IN_BETA: return l->in_bias;
    case BM_ROLE_IN_WEIGHT: return l->in_dense.weight;
    case BM_ROLE_IN_SCALE: return l->in_dense.scale;
    case BM_ROLE_CONV_BIAS: return l->conv_bias;
    case BM_ROLE_DT_BIAS: return l->dt_bias;
    case BM_ROLE_A_LOG: return l->a;
    case BM_ROLE_D: return l->d;
    case BM_ROLE_GATE_NORM: return m->gate_norm + layer * m->dims.d_inner;
    case BM_ROLE_OUT_ALPHA: return l->out_scale;
    case BM_ROLE_OUT_BETA: return l->out_bias;
    case BM_ROLE_OUT_WEIGHT: return l->out_dense.weight;
    case BM_ROLE_OUT_SCALE: return l->out_dense.scale;
    case BM_ROLE_NORM_F: return m->norm_f;
    case BM_ROLE_HEAD: return m->head.weight;
    case BM_ROLE_HEAD_SCALE: return m->head.scale;
    case BM_ROLE_IN_SIGN:
    case BM_ROLE_OUT_SIGN:
    case BM_ROLE_CONV_WEIGHT: break;
    }
    return NULL;
}

/* [rows, cols] f32 bytes into [cols, rows]: any byte range, since ranges may split a float. */
static void write_transposed(float *target, size_t rows, size_t cols, size_t offset,
                             const uint8_t *bytes, size_t n) {
    uint8_t *out = (uint8_t *)target;
    for (size_t i = 0; i < n; i++) {
        size_t element = (offset + i) / sizeof(float);
        size_t moved = element % cols * rows + element / cols;
        out[moved * sizeof(float) + (offset + i) % sizeof(float)] = bytes[i];
    }
}

/* Bytes of int8 rows, in order, into the head in 4 bits; rows past vocab_size are never used. */
static void write_packed(bm_model *m, size_t offset, const uint8_t *bytes, size_t n) {
    size_t d_model = m->config.d_model;
    while (n > 0) {
        size_t row = offset / d_model;
        size_t at = offset % d_model;
        size_t run = d_model - at < n ? d_model - at : n;
        memcpy(m->head_row + at, bytes, run);
        if (at + run == d_model && row < m->config.vocab_size)
            bm_i4_pack_row(m->head_i4, row, d_model, m->head_row);
        offset += run;
        bytes += run;
        n -= run;
    }
}

bm_status bm_model_write(bm_model *m, size_t index, uint64_t offset, const void *bytes, size_t n,
                         bm_error *err) {
    const bm_config *c = &m->config;
    if (index >= bm_tensor_count(c))
        return bm_fail(err, BM_E_ARGUMENT, "tensor %zu, want below %zu", index, bm_tensor_count(c));
    bm_tensor tensor = bm_tensor_at(c, index);
    if (offset > tensor.bytes || n > tensor.bytes - offset)
        return bm_fail(err, BM_E_ARGUMENT, "%s: bytes past its end", tensor.name);
    if (m->sealed[tensor.part])
        return bm_fail(err, BM_E_ORDER, "%s: its part is sealed", tensor.name);
    if (n > tensor.bytes - m->written[index])
        return bm_fail(err, BM_E_ORDER, "%s: bytes were written twice", tensor.name);
    size_t layer = 0;
    bm_role role = bm_role_at(c, index, &layer);
    bm_layer *l = &m->layers[layer];
    bool is_packed = role == BM_ROLE_HEAD && m->head_form == BM_HEAD_INT4;
    if (is_packed && offset != m->written[index])
        return bm_fail(err, BM_E_ORDER, "%s: becomes int4, so its bytes must come in order",
                       tensor.name);
    if (is_packed)
        write_packed(m, (size_t)offset, bytes, n);
    else if (role == BM_ROLE_IN_SIGN)
        m->kernels->signs_write(l->in_sign, m->dims.in_rows, c->d_model, offset, bytes, n);
    else if (role == BM_ROLE_OUT_SIGN)
        m->kernels->signs_write(l->out_sign, c->d_model, m->dims.d_inner, offset, bytes, n);
    else if (role == BM_ROLE_CONV_WEIGHT)
        write_transposed(l->conv, m->dims.conv_dim, c->d_conv, (size_t)offset, bytes, n);
    else
        memcpy((uint8_t *)plain_target(m, role, layer) + offset, bytes, n);
    m->written[index] += n;
    return BM_OK;
}

/* ---- Sealing -------------------------------------------------------------------------------- */

static bm_status check_floats(const bm_tensor *tensor, const void *values, bm_error *err) {
    size_t count = (size_t)(tensor->bytes / bm_dtype_size(tensor->dtype));
    for (size_t i = 0; i < count; i++) {
        bool finite = tensor->dtype == BM_F32
                          ? bm_is_finite(((const float *)values)[i])
                          : (((const uint16_t *)values)[i] & 0x7c00u) != 0x7c00u;
        if (!finite)
            return bm_fail(err, BM_E_NONFINITE, "%s: value %zu is NaN or infinite", tensor->name,
                           i);
    }
    return BM_OK;
}

static bm_status check_tensor(const bm_model *m, size_t index, const bm_tensor *tensor,
                              bm_error *err) {
    if (m->written[index] != tensor->bytes)
        return bm_fail(err, BM_E_ORDER, "%s: %u of %u KiB arrived", tensor->name,
                       (unsigned)(m->written[index] >> 10), (unsigned)(tensor->bytes >> 10));
    if (tensor->dtype != BM_F32 && tensor->dtype != BM_F16)
        return BM_OK; /* every byte is a valid weight */
    size_t layer = 0;
    bm_role role = bm_role_at(&m->config, index, &layer);
    const void *values =
        role == BM_ROLE_CONV_WEIGHT ? m->layers[layer].conv : plain_target(m, role, layer);
    return check_floats(tensor, values, err);
}

typedef struct {
    const char *name;
    float *y; /* [n], becomes y * x */
    const float *x;
    size_t n;
} fold;

static bm_status check_fold(const fold *f, size_t layer, bm_error *err) {
    for (size_t i = 0; i < f->n; i++)
        if (!bm_is_finite(f->y[i] * f->x[i]))
            return bm_fail(err, BM_E_NONFINITE, "layers.%zu: %s overflows at column %zu", layer,
                           f->name, i);
    return BM_OK;
}

/* Folds the norms into the column scales behind them, all or nothing: products can overflow. */
static bm_status fold_norms(bm_model *m, size_t index, bm_error *err) {
    bm_layer *l = &m->layers[index];
    size_t d_model = m->config.d_model;
    size_t d_inner = m->dims.d_inner;
    const float *norm = m->norm + index * d_model;
    const float *gate_norm = m->gate_norm + index * d_inner;
    const fold folds[] = {
        {"norm.weight * in_proj.alpha", l->in_scale, norm, d_model},
        {"norm.weight * in_proj.beta", l->in_bias, norm, d_model},
        {"gate_norm.weight * out_proj.alpha", l->out_scale, gate_norm, d_inner},
        {"gate_norm.weight * out_proj.beta", l->out_bias, gate_norm, d_inner},
    };
    enum { FOLDS = sizeof folds / sizeof folds[0] };
    for (size_t k = 0; k < FOLDS; k++) {
        bm_status status = check_fold(&folds[k], index, err);
        if (status != BM_OK)
            return status;
    }
    for (size_t k = 0; k < FOLDS; k++)
        for (size_t i = 0; i < folds[k].n; i++)
            folds[k].y[i] *= folds[k].x[i];
    return BM_OK;
}

/* Dense projections have no column scales: their norms stay as they are. */
static bm_status fold_layer(bm_model *m, size_t index, bm_error *err) {
    bm_status status = bm_is_dense(&m->config) ? BM_OK : fold_norms(m, index, err);
    if (status != BM_OK)
        return status;
    bm_layer *l = &m->layers[index];
    for (size_t h = 0; h < m->dims.n_heads; h++)
        l->a[h] = -bm_exp(l->a[h]);
    return BM_OK;
}

/* The 4 bits of a tied head, once the whole table is there. */
static void pack_table(bm_model *m) {
    size_t d_model = m->config.d_model;
    const int8_t *rows = m->embedding.weight;
    for (size_t v = 0; v < m->config.vocab_size; v++)
        bm_i4_pack_row(m->head_i4, v, d_model, rows + v * d_model);
}

bm_status bm_model_seal_part(bm_model *m, size_t part, bm_error *err) {
    size_t parts = (size_t)m->config.n_layer + 2;
    if (part >= parts)
        return bm_fail(err, BM_E_ARGUMENT, "part %zu, want below %zu", part, parts);
    if (m->sealed[part])
        return bm_fail(err, BM_E_ORDER, "part %zu is sealed already", part);
    for (size_t i = 0; i < bm_tensor_count(&m->config); i++) {
        bm_tensor tensor = bm_tensor_at(&m->config, i);
        bm_status status = tensor.part == part ? check_tensor(m, i, &tensor, err) : BM_OK;
        if (status != BM_OK)
            return status;
    }
    bool is_layer = part >= 1 && part <= m->config.n_layer;
    bm_status status = is_layer ? fold_layer(m, part - 1, err) : BM_OK;
    if (part == 0 && m->config.tie_embeddings && m->head_form == BM_HEAD_INT4)
        pack_table(m);
    m->sealed[part] = status == BM_OK;
    return status;
}

bool bm_model_part_is_sealed(const bm_model *m, size_t part) {
    return m->sealed[part];
}

bool bm_model_is_sealed(const bm_model *m) {
    for (size_t i = 0; i < (size_t)m->config.n_layer + 2; i++)
        if (!m->sealed[i])
            return false;
    return true;
}

void bm_model_embed(const bm_model *m, uint32_t id, float *r) {
    size_t d = m->config.d_model;
    size_t start = (size_t)id * d;
    const void *weight = m->embedding.weight;
    for (size_t i = 0; i < d; i++) {
        switch (m->config.embedding_dtype) {
        case BM_I8:
            r[i] = m->embedding.scale[id] * (float)((const int8_t *)weight)[start + i];
            break;
        case BM_F16: r[i] = bm_half_to_float(((const uint16_t *)weight)[start + i]); break;
        default: r[i] = ((const float *)weight)[start + i]; break;
        }
    }
}
