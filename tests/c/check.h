/*
 * check.h: the harness of the C tests: cases run over many seeds, checks, random numbers, buffers.
 *
 * Owns how a test fails: file, line, case, seed, values, one command that repeats it, exit code 1. Knows
 * nothing of what is tested. It is our own because the same tests run natively and as WebAssembly,
 * where no test library is at hand. The idea: a case is a function of a seed, and everything random
 * in it comes from that seed, with integer arithmetic only, so that a seed means the same everywhere.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;
    void (*run)(uint64_t seed);
    unsigned seeds; /* run for seed 0 ... seeds - 1 */
} check_case;

/* `program` runs all cases, `program CASE` one, `program CASE SEED` one seed of it. 0 when all pass. */
int check_main(int argc, char **argv, const check_case *cases, size_t n_cases);

/* Ends the test unless the condition holds; after the condition a printf format and its values. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                               \
    } while (0)

#if defined(__GNUC__)
__attribute__((format(printf, 4, 5), noreturn))
#endif
void check_fail(const char *file, int line, const char *condition, const char *format, ...);

/* Ends the test unless n floats are the same bits; NaN equals NaN of any payload. */
#define CHECK_SAME(what, got, want, n) check_same(__FILE__, __LINE__, what, got, want, n)
void check_same(const char *file, int line, const char *what, const float *got, const float *want,
                size_t n);

/* ---- Buffers: filled with junk, freed after the seed, fenced against writes past their end ------- */

void *check_take(size_t bytes);       /* aligned to 64 bytes */
void *check_take_at_16(size_t bytes); /* aligned to 16 bytes and never to 32 */
void *check_copy(const void *bytes, size_t n);

/* Frees all buffers, and looks at their fences: what the end of a seed does. */
void check_release(void);

static inline float *check_floats(size_t n) {
    return check_take_at_16(n * sizeof(float));
}

/* ---- Random numbers: splitmix64 (G. Steele et al., 2014) ----------------------------------------- */

typedef struct {
    uint64_t state;
} check_random;

check_random check_seed(uint64_t seed, uint64_t stream);
uint64_t check_next(check_random *r);
size_t check_between(check_random *r, size_t low, size_t high); /* both inclusive */
double check_unit(check_random *r);                             /* [0, 1) */
float check_uniform(check_random *r, double low, double high);
float check_normal(check_random *r);                  /* mean 0, variance 1, |x| < 3.5 */
float check_wide(check_random *r, int low, int high); /* +-[2^low, 2^high), all magnitudes alike */
void check_fill_normal(check_random *r, float *x, size_t n, float scale);

/* Vectors as activations are, and worse: outliers, zero groups, huge, tiny, spread over 2^-60 ... 2^60. */
void check_fill_hard(check_random *r, float *x, size_t n);

#endif
