/*
 * bm_base.h: what every other file of the core stands on: errors, planned memory, f32 mathematics.
 *
 * Knows no model and no kernel. The mathematics is ours because results must be the same bits on
 * every host: libm differs between C libraries and engines, basic IEEE operations do not. Nothing
 * here may be contracted (-ffp-contract=off); the SIMD kernels repeat the same operations per lane.
 */
#ifndef BM_BASE_H
#define BM_BASE_H

#include "bm.h"

#include <float.h>
#include <string.h>

/* Fills `err` (may be NULL) with a printf-style message and returns `status`. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
bm_status
bm_fail(bm_error *err, bm_status status, const char *format, ...);

/* ---- Planned memory ------------------------------------------------------------------------- */

_Static_assert(FLT_EVAL_METHOD == 0, "results need float arithmetic in float");

enum { BM_ALIGN = 64 };

/*
 * A layout function runs twice over the same takes: with base == NULL it measures into `used`, with
 * a block it carves. Sizes are 64 bits wide so that no product of checked config fields overflows.
 */
typedef struct {
    uint8_t *base; /* NULL while measuring; aligned to BM_ALIGN otherwise */
    uint64_t used;
} bm_arena;

/* The next `count * size` bytes, aligned to BM_ALIGN; NULL while measuring. */
void *bm_arena_take(bm_arena *arena, uint64_t count, uint64_t size);

/* A zeroed block for an arena, or NULL. Freed with bm_block_free. */
void *bm_block_alloc(uint64_t bytes);
void bm_block_free(void *block);

static inline size_t bm_round_up(size_t n, size_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* Scales of one row of weights in 4 bits; the last group may be shorter. */
static inline size_t bm_i4_groups(size_t cols) {
    return (cols + BM_I4_GROUP - 1) / BM_I4_GROUP;
}

/* ---- f32 ------------------------------------------------------------------------------------ */

static inline uint32_t bm_bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float bm_float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float bm_abs(float x) {
    return bm_float_of(bm_bits_of(x) & 0x7fffffffu);
}

static inline bool bm_is_finite(float x) {
    return (bm_bits_of(x) & 0x7f800000u) != 0x7f800000u;
}

/* Adding 1.5 * 2^23 leaves the nearest integer (ties to even) in the low mantissa bits, |x| < 2^22. */
#define BM_ROUND_MAGIC 12582912.0f
enum { BM_ROUND_MAGIC_BITS = 0x4b400000 };

static inline int32_t bm_round_to_int(float x) {
    return (int32_t)(bm_bits_of(x + BM_ROUND_MAGIC) - (uint32_t)BM_ROUND_MAGIC_BITS);
}

/* Constants of bm_exp, shared with the SIMD kernels. Polynomial: Cephes expf (S. Moshier). */
#define BM_EXP_MIN (-87.0f)
#define BM_EXP_MAX 88.0f
#define BM_LOG2_E 1.44269504088896341f
#define BM_LN2_HIGH 0.693359375f
#define BM_LN2_LOW (-2.12194440e-4f)
#define BM_EXP_C0 1.9875691500e-4f
#define BM_EXP_C1 1.3981999507e-3f
#define BM_EXP_C2 8.3334519073e-3f
#define BM_EXP_C3 4.1665795894e-2f
#define BM_EXP_C4 1.6666665459e-1f
#define BM_EXP_C5 5.0000001201e-1f

/* e^x, relative error below 2e-7; x is clamped to [BM_EXP_MIN, BM_EXP_MAX]; NaN stays NaN. */
static inline float bm_exp(float x) {
    x = x < BM_EXP_MIN ? BM_EXP_MIN : x;
    x = BM_EXP_MAX < x ? BM_EXP_MAX : x;
    float shifted = x * BM_LOG2_E + BM_ROUND_MAGIC;
    float n = shifted - BM_ROUND_MAGIC;
    float r = (x - n * BM_LN2_HIGH) - n * BM_LN2_LOW;
    float r2 = r * r; /* by pairs, not by Horner: half the steps that wait for each other */
    float p = BM_EXP_C0 * r + BM_EXP_C1;
    p = p * r2 + (BM_EXP_C2 * r + BM_EXP_C3);
    p = p * r2 + (BM_EXP_C4 * r + BM_EXP_C5);
    p = (p * r2 + r) + 1.0f;
    uint32_t exponent = bm_bits_of(shifted) - (uint32_t)BM_ROUND_MAGIC_BITS + 127u;
    return p * bm_float_of(exponent << 23);
}

/* x * sigmoid(x). */
static inline float bm_silu(float x) {
    return x / (1.0f + bm_exp(-x));
}

/* log(x) for finite x >= 2^-126, relative error below 2e-7 away from 1, absolute 1e-7 around it. */
float bm_log(float x);

/* log(1 + e^x), relative error below 4e-7 for x >= -87; the identity above 20. */
float bm_softplus(float x);

/* The least power of two >= x, within [2^-100, 2^100]. */
float bm_pow2_at_least(float x);

#endif
