/*
 * bm_state.c: where each array of a recurrent state is, and the same state in another type.
 *
 * Owns the order of the arrays and the rounding to 16 and 8 bits. Everything but the SSM state itself
 * keeps f32: it is a fortieth of the bytes.
 */
#include "bm_state.h"

enum { MAX_ROW = 512 }; /* d_state's limit */

typedef enum { LAST, CONV, SCALES, UNIT, MOST, SSM, ARRAY_COUNT } array;

static bool has_array(bm_dtype dtype, array which) {
    return which == UNIT ? dtype != BM_F32 : which == MOST ? dtype == BM_I16 : true;
}

/* Rows of the SSM state, each of d_state numbers: one for every channel of every head. */
static size_t rows_of(const bm_config *c) {
    return (size_t)c->n_layer * bm_dims_of(c).n_heads * c->headdim;
}

static bm_tensor tensor_of(const bm_config *c, bm_dtype dtype, array which) {
    bm_dims n = bm_dims_of(c);
    size_t rows = rows_of(c);
    struct {
        const char *name;
        bm_dtype dtype;
        size_t rows;
        size_t cols; /* 0: one dimension */
    } const shapes[] = {
        [LAST] = {"last", BM_F32, c->d_model, 0},
        [CONV] = {"conv", BM_F32, (size_t)c->n_layer * (c->d_conv - 1), n.conv_dim},
        [SCALES] = {"ssm.scale", BM_F32, (size_t)c->n_layer * n.n_heads, 2},
        [UNIT] = {"ssm.unit", BM_F32, rows, 0},
        [MOST] = {"ssm.most", BM_F32, rows, 0},
        [SSM] = {"ssm", dtype, rows, c->d_state},
    };
    bm_tensor tensor = {.dtype = shapes[which].dtype,
                        .n_dims = shapes[which].cols ? 2 : 1,
                        .shape = {(uint32_t)shapes[which].rows, (uint32_t)shapes[which].cols}};
    tensor.bytes = (uint64_t)shapes[which].rows * (shapes[which].cols ? shapes[which].cols : 1) *
                   bm_dtype_size(tensor.dtype);
    memcpy(tensor.name, shapes[which].name, strlen(shapes[which].name) + 1);
    return tensor;
}

bm_timeline bm_state_layout(bm_arena *arena, const bm_config *c, bm_dtype dtype) {
    void *at[ARRAY_COUNT] = {0};
    for (array a = LAST; a < ARRAY_COUNT; a++)
        if (has_array(dtype, a))
            at[a] = bm_arena_take(arena, tensor_of(c, dtype, a).bytes, 1);
    return (bm_timeline){.ssm_dtype = dtype,
                         .last = at[LAST],
                         .conv = at[CONV],
                         .scales = at[SCALES],
                         .unit = at[UNIT],
                         .most = at[MOST],
                         .ssm = at[SSM]};
}

uint64_t bm_state_bytes(const bm_config *config, bm_dtype dtype) {
    bm_arena arena = {0};
    bm_state_layout(&arena, config, dtype);
    return arena.used;
}

size_t bm_state_tensor_count(bm_dtype dtype) {
    size_t count = 0;
    for (array a = LAST; a < ARRAY_COUNT; a++)
        count += has_array(dtype, a);
    return count;
}

bm_state_tensor bm_state_tensor_at(const bm_config *config, bm_dtype dtype, size_t index) {
    bm_arena arena = {0};
    bm_state_tensor found = {0};
    for (array a = LAST; a < ARRAY_COUNT; a++) {
        if (!has_array(dtype, a))
            continue;
        found = (bm_state_tensor){tensor_of(config, dtype, a), arena.used};
        if (index-- == 0)
            break;
        bm_arena_take(&arena, found.tensor.bytes, 1);
    }
    return found;
}

/* ---- In another type ----------------------------------------------------------------------------- */

static float largest(const float *x, size_t n) {
    float max = 0.0f;
    for (size_t i = 0; i < n; i++)
        max = max < bm_abs(x[i]) ? bm_abs(x[i]) : max;
    return max;
}

static void read_row(const bm_timeline *t, size_t row, size_t n, float *x) {
    switch (t->ssm_dtype) {
    case BM_I16:
        for (size_t i = 0; i < n; i++)
            x[i] = t->unit[row] * (float)((const int16_t *)t->ssm)[row * n + i];
        break;
    case BM_I8:
        for (size_t i = 0; i < n; i++)
            x[i] = t->unit[row] * (float)((const int8_t *)t->ssm)[row * n + i];
        break;
    default: memcpy(x, (const float *)t->ssm + row * n, n * sizeof *x);
    }
}

/* Of numbers that no session writes even the largest unit may be too small. */
static float clamp_i16(float x) {
    x = x < -32767.0f ? -32767.0f : x;
    return 32767.0f < x ? 32767.0f : x;
}

/* As scan_i16 leaves a row: a power of two of which the largest number is 2^13 to 2^14. */
static void write_row_i16(const bm_timeline *t, size_t row, size_t n, const float *x) {
    float max = largest(x, n);
    float unit = max > 0.0f ? bm_pow2_at_least(max * 0x1p-14f) : 0.0f;
    int32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t q = max > 0.0f ? bm_round_to_int(clamp_i16(x[i] / unit)) : 0;
        ((int16_t *)t->ssm)[row * n + i] = (int16_t)q;
        most = most < q ? q : most < -q ? -q : most;
    }
    t->unit[row] = unit;
    t->most[row] = (float)most;
}

static void write_row_i8(const bm_timeline *t, size_t row, size_t n, const float *x) {
    float max = largest(x, n);
    float unit = max / 127.0f;
    bool is_zero = !(unit >= 0x1p-126f);
    for (size_t i = 0; i < n; i++)
        ((int8_t *)t->ssm)[row * n + i] = is_zero ? 0 : (int8_t)bm_round_to_int(x[i] / unit);
    t->unit[row] = is_zero ? 0.0f : unit;
}

static void write_row(const bm_timeline *t, size_t row, size_t n, const float *x) {
    switch (t->ssm_dtype) {
    case BM_I16: write_row_i16(t, row, n, x); break;
    case BM_I8: write_row_i8(t, row, n, x); break;
    default: memcpy((float *)t->ssm + row * n, x, n * sizeof *x);
    }
}

static bool is_storable(bm_dtype dtype) {
    return dtype == BM_F32 || dtype == BM_I16 || dtype == BM_I8;
}

bm_status bm_state_convert(const bm_config *config, bm_dtype from, const void *in, bm_dtype to,
                           void *out, bm_error *err) {
    if (!is_storable(from) || !is_storable(to))
        return bm_fail(err, BM_E_ARGUMENT, "state types %u and %u, want f32, i16 or i8",
                       (unsigned)from, (unsigned)to);
    bm_arena source = {.base = (uint8_t *)(uintptr_t)in};
    bm_arena target = {.base = out};
    const bm_timeline a = bm_state_layout(&source, config, from);
    const bm_timeline b = bm_state_layout(&target, config, to);
    if (from == to) {
        memcpy(out, in, (size_t)source.used);
        return BM_OK;
    }
    memcpy(b.last, a.last, (size_t)tensor_of(config, from, LAST).bytes);
    memcpy(b.conv, a.conv, (size_t)tensor_of(config, from, CONV).bytes);
    memcpy(b.scales, a.scales, (size_t)tensor_of(config, from, SCALES).bytes);
    size_t n = config->d_state;
    float row[MAX_ROW];
    for (size_t i = 0; i < rows_of(config); i++) {
        read_row(&a, i, n, row);
        write_row(&b, i, n, row);
    }
    return BM_OK;
}
