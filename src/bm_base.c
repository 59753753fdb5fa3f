/*
 * bm_base.c: errors, planned memory and the scalar mathematics that is not inline. See bm_base.h.
 */
#include "bm_base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bm_status bm_fail(bm_error *err, bm_status status, const char *format, ...) {
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
        err->status = status;
    }
    return status;
}

void *bm_arena_take(bm_arena *arena, uint64_t count, uint64_t size) {
    uint64_t start = arena->used;
    uint64_t bytes = (count * size + BM_ALIGN - 1) / BM_ALIGN * BM_ALIGN;
    arena->used += bytes;
    return arena->base ? arena->base + start : NULL;
}

/*
 * By calloc: a platform may know which memory is zero already, and need not touch it. As calloc aligns to less than
 * a block wants, a block begins further in, and what is to be freed is noted before it.
 */
void *bm_block_alloc(uint64_t bytes) {
    size_t size = (size_t)bytes;
    if (size != bytes || size > SIZE_MAX - BM_ALIGN)
        return NULL;
    uint8_t *whole = calloc(1, size + BM_ALIGN);
    if (!whole)
        return NULL;
    uint8_t *block = whole + BM_ALIGN - (uintptr_t)whole % BM_ALIGN;
    memcpy(block - sizeof whole, &whole, sizeof whole);
    return block;
}

void bm_block_free(void *block) {
    if (!block)
        return;
    void *whole;
    memcpy(&whole, (uint8_t *)block - sizeof whole, sizeof whole);
    free(whole);
}

/* Cephes logf (S. Moshier): x = 2^e * m with m in [sqrt(1/2), sqrt(2)), then a polynomial in m - 1. */
float bm_log(float x) {
    uint32_t bits = bm_bits_of(x);
    int32_t e = (int32_t)(bits >> 23) - 126;
    float m = bm_float_of((bits & 0x007fffffu) | 0x3f000000u);
    if (m < 0.707106781186547524f) {
        e -= 1;
        m += m;
    }
    m -= 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float n = (float)e;
    float y = p * m * z + n * BM_LN2_LOW - 0.5f * z;
    return (m + y) + n * BM_LN2_HIGH;
}

float bm_softplus(float x) {
    if (x > 20.0f)
        return x;
    /* log(1 + t) keeps its relative accuracy for small t by undoing the rounding of 1 + t (Kahan). */
    float t = bm_exp(x);
    float u = 1.0f + t;
    return u == 1.0f ? t : bm_log(u) * (t / (u - 1.0f));
}

float bm_pow2_at_least(float x) {
    if (!(x > 0x1p-100f))
        return 0x1p-100f;
    if (!(x < 0x1p100f))
        return 0x1p100f;
    uint32_t bits = bm_bits_of(x);
    uint32_t exponent = (bits >> 23) + ((bits & 0x007fffffu) != 0);
    return bm_float_of(exponent << 23);
}
