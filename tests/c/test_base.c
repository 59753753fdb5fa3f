/*
 * test_base.c: the scalar mathematics of the core against the host's libm in double, planned memory, errors.
 *
 * Owns the sweeps that hold the error bounds which bm_base.h states: every STRIDE-th float, shifted
 * by the seed, so that the seeds together see many and each run sees the same ones.
 */
#include "bm_base.h"
#include "check.h"

#include <math.h>

enum { STRIDE = 40009 };

/* Calls `look` with every STRIDE-th float from `low` to `high`, which have one sign. */
static void sweep(uint64_t seed, float low, float high, void (*look)(float x)) {
    uint32_t a = bm_bits_of(low);
    uint32_t b = bm_bits_of(high);
    uint32_t first = a < b ? a : b;
    uint32_t last = a < b ? b : a;
    look(low);
    look(high);
    for (uint32_t bits = first + (uint32_t)(seed * 977 % STRIDE); bits < last; bits += STRIDE)
        look(bm_float_of(bits));
}

static void relative(const char *name, float x, float got, double want, double bound) {
    CHECK(fabs((double)got - want) <= bound * fabs(want), "%s(%.9g) is %.9g, want %.9g: off by %g",
          name, (double)x, (double)got, want, fabs((double)got - want) / fabs(want));
}

static void look_exp(float x) {
    relative("bm_exp", x, bm_exp(x), exp((double)x), 2e-7);
    /* The sampler's heap and the scan's bounds rest on this. */
    float next = nextafterf(x, INFINITY);
    CHECK(bm_exp(next) >= bm_exp(x), "bm_exp falls at %.9g", (double)x);
}

static void exponential(uint64_t seed) {
    sweep(seed, -0.0f, BM_EXP_MIN, look_exp);
    sweep(seed, 0.0f, BM_EXP_MAX, look_exp);
    CHECK(bm_exp(0.0f) == 1.0f && bm_exp(-0.0f) == 1.0f, "%g", (double)bm_exp(0.0f));
    const float below[] = {-87.00001f, -88.0f, -1000.0f, -3e38f, -INFINITY};
    const float above[] = {88.00001f, 89.0f, 1000.0f, 3e38f, INFINITY};
    for (size_t i = 0; i < 5; i++) {
        CHECK(bm_exp(below[i]) == bm_exp(BM_EXP_MIN), "bm_exp(%g)", (double)below[i]);
        CHECK(bm_exp(above[i]) == bm_exp(BM_EXP_MAX), "bm_exp(%g)", (double)above[i]);
    }
    CHECK(isnan(bm_exp(NAN)), "%g", (double)bm_exp(NAN));
}

static void look_log(float x) {
    double want = log((double)x);
    if (x < 0.5f || x > 2.0f)
        relative("bm_log", x, bm_log(x), want, 2e-7);
    else
        CHECK(fabs((double)bm_log(x) - want) <= 1e-7, "bm_log(%.9g) is %.9g, want %.9g", (double)x,
              (double)bm_log(x), want);
}

static void logarithm(uint64_t seed) {
    sweep(seed, 0x1p-126f, 0x1.fffffep127f, look_log);
    CHECK(bm_log(1.0f) == 0.0f, "%g", (double)bm_log(1.0f));
}

static void look_softplus(float x) {
    double want = x > 20.0f ? (double)x : log1p(exp((double)x));
    relative("bm_softplus", x, bm_softplus(x), want, 4e-7);
}

static void softplus(uint64_t seed) {
    sweep(seed, -0.0f, -87.0f, look_softplus);
    sweep(seed, 0.0f, 100.0f, look_softplus);
    CHECK(bm_softplus(3e38f) == 3e38f && bm_softplus(INFINITY) == INFINITY, "%g",
          (double)bm_softplus(3e38f));
    CHECK(bm_softplus(-1000.0f) >= 0.0f && bm_softplus(-1000.0f) < 2e-38f, "%g",
          (double)bm_softplus(-1000.0f));
    CHECK(isnan(bm_softplus(NAN)), "%g", (double)bm_softplus(NAN));
}

static void look_silu(float x) {
    double want = (double)x / (1.0 + exp(-(double)x));
    CHECK(fabs((double)bm_silu(x) - want) <= 4e-7 * fabs(want) + 0x1p-126,
          "bm_silu(%.9g) is %.9g, want %.9g", (double)x, (double)bm_silu(x), want);
}

static void silu(uint64_t seed) {
    sweep(seed, -0.0f, -87.0f, look_silu);
    sweep(seed, 0.0f, 1e6f, look_silu);
    CHECK(isnan(bm_silu(NAN)), "%g", (double)bm_silu(NAN));
    CHECK(bm_silu(-1e6f) <= 0.0f && bm_silu(-1e6f) > -1e-32f, "%g", (double)bm_silu(-1e6f));
}

static void look_power(float x) {
    float power = bm_pow2_at_least(x);
    int exponent;
    CHECK(frexpf(power, &exponent) == 0.5f, "%g of %g is no power of two", (double)power,
          (double)x);
    CHECK(power >= x || power == 0x1p100f, "%g for %g", (double)power, (double)x);
    CHECK(power < 2.0f * x || power == 0x1p-100f, "%g for %g", (double)power, (double)x);
}

static void power_of_two(uint64_t seed) {
    sweep(seed, 0.0f, INFINITY, look_power);
    const float least[] = {0.0f, -0.0f, -1.0f, -INFINITY, NAN, 0x1p-100f, 0x1p-149f};
    for (size_t i = 0; i < 7; i++)
        CHECK(bm_pow2_at_least(least[i]) == 0x1p-100f, "%g", (double)least[i]);
    CHECK(bm_pow2_at_least(INFINITY) == 0x1p100f, "%g", (double)bm_pow2_at_least(INFINITY));
    for (int e = -100; e <= 100; e++) {
        float power = ldexpf(1.0f, e);
        CHECK(bm_pow2_at_least(power) == power, "2^%d", e);
        if (e < 100)
            CHECK(bm_pow2_at_least(nextafterf(power, INFINITY)) == 2.0f * power, "above 2^%d", e);
    }
}

static void look_rounding(float x) {
    CHECK((double)bm_round_to_int(x) == nearbyint((double)x), "%.9g to %d", (double)x,
          bm_round_to_int(x));
}

static void rounding(uint64_t seed) {
    sweep(seed, 0.0f, 0x1p22f, look_rounding);
    sweep(seed, -0.0f, -0x1p22f, look_rounding);
    for (int i = -9; i <= 9; i++)
        look_rounding((float)i + 0.5f); /* ties */
}

/* ---- Planned memory ----------------------------------------------------------------------------- */

typedef struct {
    void *parts[40];
    uint64_t sizes[40];
    size_t n;
} layout;

static layout take_some(bm_arena *arena, uint64_t seed) {
    check_random r = check_seed(seed, 1);
    layout out = {.n = check_between(&r, 1, 40)};
    for (size_t i = 0; i < out.n; i++) {
        uint64_t count = check_between(&r, 0, 100);
        uint64_t size = check_between(&r, 1, 200);
        out.sizes[i] = count * size;
        out.parts[i] = bm_arena_take(arena, count, size);
    }
    return out;
}

/* Measuring and carving agree; parts are aligned, apart, zero, and inside the block. */
static void arena(uint64_t seed) {
    bm_arena plan = {0};
    layout measured = take_some(&plan, seed);
    for (size_t i = 0; i < measured.n; i++)
        CHECK(measured.parts[i] == NULL, "part %zu while measuring", i);
    bm_arena block = {.base = bm_block_alloc(plan.used)};
    CHECK(block.base || plan.used == 0, "%llu bytes", (unsigned long long)plan.used);
    layout carved = take_some(&block, seed);
    CHECK(block.used == plan.used, "carved %llu, measured %llu", (unsigned long long)block.used,
          (unsigned long long)plan.used);
    uint8_t *end = block.base;
    for (size_t i = 0; i < carved.n; i++) {
        uint8_t *part = carved.parts[i];
        CHECK((uintptr_t)part % BM_ALIGN == 0 && part >= end, "part %zu", i);
        for (uint64_t k = 0; k < carved.sizes[i]; k++)
            CHECK(part[k] == 0, "part %zu is not zeroed", i);
        end = part + carved.sizes[i];
    }
    CHECK(end <= block.base + block.used, "%zu parts", carved.n);
    bm_block_free(block.base);
}

/* Blocks are zero whatever was in their memory before: fresh, used by others, and half of each. */
static void blocks_are_zero(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    struct {
        uint8_t *bytes;
        size_t size;
    } held[8] = {{NULL, 0}};
    for (size_t i = 0; i < 60; i++) {
        size_t slot = check_between(&r, 0, 7);
        bm_block_free(held[slot].bytes);
        held[slot].bytes = NULL;
        if (check_between(&r, 0, 3) == 0)
            continue;
        size_t most = check_between(&r, 0, 1) ? 3000 : 700000;
        size_t size = check_between(&r, 1, most);
        uint8_t *bytes = bm_block_alloc(size);
        CHECK(bytes && (uintptr_t)bytes % BM_ALIGN == 0, "%zu bytes", size);
        for (size_t k = 0; k < size; k++)
            CHECK(bytes[k] == 0, "byte %zu of %zu is %u", k, size, (unsigned)bytes[k]);
        memset(bytes, 0xa5, size);
        held[slot].bytes = bytes;
        held[slot].size = size;
    }
    for (size_t slot = 0; slot < 8; slot++) {
        for (size_t k = 0; held[slot].bytes && k < held[slot].size; k++)
            CHECK(held[slot].bytes[k] == 0xa5, "byte %zu of a block that is in use", k);
        bm_block_free(held[slot].bytes);
    }
}

/* Sizes that no machine has: NULL, also where 64 bits do not fit a size_t. */
static void too_large(uint64_t seed) {
    (void)seed;
    const uint64_t sizes[] = {UINT64_MAX,         UINT64_MAX - 63, (uint64_t)SIZE_MAX - 1,
                              (uint64_t)SIZE_MAX, UINT64_MAX / 2,  (uint64_t)SIZE_MAX - BM_ALIGN};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        CHECK(bm_block_alloc(sizes[i]) == NULL, "%llu bytes", (unsigned long long)sizes[i]);
    bm_block_free(NULL);
}

static void errors(uint64_t seed) {
    (void)seed;
    bm_error err;
    memset(&err, 'x', sizeof err);
    char name[400];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    CHECK(bm_fail(&err, BM_E_ORDER, "%s: %u", name, 7u) == BM_E_ORDER, "%d", (int)err.status);
    CHECK(err.status == BM_E_ORDER && strlen(err.message) == BM_MESSAGE_SIZE - 1, "%zu characters",
          strlen(err.message));
    CHECK(bm_fail(NULL, BM_E_MEMORY, "x") == BM_E_MEMORY, "%s", "without a place");
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"exponential", exponential, 10},
        {"logarithm", logarithm, 10},
        {"softplus", softplus, 10},
        {"silu", silu, 10},
        {"power_of_two", power_of_two, 10},
        {"rounding", rounding, 10},
        {"arena", arena, 2000},
        {"blocks_are_zero", blocks_are_zero, 100},
        {"too_large", too_large, 1},
        {"errors", errors, 1},
    };
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
