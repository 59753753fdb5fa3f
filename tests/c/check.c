/*
 * check.c: see check.h.
 */
#define _POSIX_C_SOURCE 200112L /* posix_memalign: exact sizes, so that a sanitizer sees byte n */
#include "check.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Cases and failures ------------------------------------------------------------------------ */

static struct {
    const char *program;
    const char *name;
    uint64_t seed;
} now; /* what is running, for the message of a failure */

void check_fail(const char *file, int line, const char *condition, const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("FAIL %s:%d: %s, seed %llu: %s: ", file, line, now.name, (unsigned long long)now.seed,
           condition);
    vprintf(format, args);
    va_end(args);
    printf("\nrepeat with: %s %s %llu\n", now.program, now.name, (unsigned long long)now.seed);
    fflush(stdout);
    exit(1);
}

void check_same(const char *file, int line, const char *what, const float *got, const float *want,
                size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool is_nan = got[i] != got[i] && want[i] != want[i];
        if (!is_nan && memcmp(&got[i], &want[i], sizeof *got) != 0)
            check_fail(file, line, "same bits", "%s[%zu of %zu] is %.9g (%a), want %.9g (%a)", what,
                       i, n, (double)got[i], (double)got[i], (double)want[i], (double)want[i]);
    }
}

static void run_case(const check_case *c, uint64_t first, uint64_t count) {
    now.name = c->name;
    for (now.seed = first; now.seed < first + count; now.seed++) {
        c->run(now.seed);
        check_release();
    }
    printf("ok %s, %llu seeds\n", c->name, (unsigned long long)count);
}

int check_main(int argc, char **argv, const check_case *cases, size_t n_cases) {
    now.program = argv[0];
    size_t ran = 0;
    for (size_t i = 0; i < n_cases; i++) {
        if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
            continue;
        if (argc > 2)
            run_case(&cases[i], strtoull(argv[2], NULL, 10), 1);
        else
            run_case(&cases[i], 0, cases[i].seeds);
        ran++;
    }
    if (ran == 0)
        printf("no case is called %s\n", argc > 1 ? argv[1] : "anything");
    return ran == 0;
}

/* ---- Buffers ----------------------------------------------------------------------------------- */

/* Natively the address sanitizer is the fence; a module has these bytes and a look at them. */
#ifdef __wasm__
enum { FENCE = 64 };
#else
enum { FENCE = 0 };
#endif

enum { JUNK = 0xa5, MAX_BUFFERS = 4096 };

static struct {
    uint8_t *block;
    size_t bytes;
} buffers[MAX_BUFFERS];
static size_t n_buffers;

static uint8_t *take(size_t bytes) {
    void *block = NULL;
    if (n_buffers == MAX_BUFFERS || posix_memalign(&block, 64, bytes + FENCE) != 0)
        check_fail(__FILE__, __LINE__, "memory", "%zu bytes for a buffer", bytes);
    memset(block, JUNK, bytes + FENCE);
    buffers[n_buffers].block = block;
    buffers[n_buffers++].bytes = bytes;
    return block;
}

void *check_take(size_t bytes) {
    return take(bytes);
}

void *check_take_at_16(size_t bytes) {
    return take(bytes + 16) + 16;
}

void *check_copy(const void *bytes, size_t n) {
    return memcpy(take(n), bytes, n);
}

void check_release(void) {
    while (n_buffers > 0) {
        n_buffers--;
        uint8_t *fence = buffers[n_buffers].block + buffers[n_buffers].bytes;
        for (size_t i = 0; i < FENCE; i++)
            CHECK(fence[i] == JUNK, "byte %zu behind a buffer of %zu was written", i,
                  buffers[n_buffers].bytes);
        free(buffers[n_buffers].block);
    }
}

/* ---- Random numbers ---------------------------------------------------------------------------- */

check_random check_seed(uint64_t seed, uint64_t stream) {
    check_random r = {seed * 0x9e3779b97f4a7c15u ^ stream * 0xd1342543de82ef95u};
    check_next(&r);
    return r;
}

uint64_t check_next(check_random *r) {
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

size_t check_between(check_random *r, size_t low, size_t high) {
    return low + (size_t)(check_next(r) % ((uint64_t)high - low + 1));
}

double check_unit(check_random *r) {
    return (double)(check_next(r) >> 11) * 0x1p-53;
}

float check_uniform(check_random *r, double low, double high) {
    return (float)(low + (high - low) * check_unit(r));
}

float check_normal(check_random *r) {
    double sum = 0.0;
    for (size_t i = 0; i < 4; i++)
        sum += check_unit(r);
    return (float)((sum - 2.0) * 1.7320508);
}

float check_wide(check_random *r, int low, int high) {
    uint32_t exponent = (uint32_t)(127 + low) + (uint32_t)(check_next(r) % (uint64_t)(high - low));
    uint32_t rest = (uint32_t)check_next(r) & 0x807fffffu;
    uint32_t bits = exponent << 23 | rest;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void check_fill_normal(check_random *r, float *x, size_t n, float scale) {
    for (size_t i = 0; i < n; i++)
        x[i] = scale * check_normal(r);
}

void check_fill_hard(check_random *r, float *x, size_t n) {
    size_t kind = check_between(r, 0, 7);
    float scale = kind == 3 ? 0x1p60f : kind == 4 ? 0x1p-105f : 1.0f;
    check_fill_normal(r, x, n, scale);
    for (size_t i = 0; i < n; i++) {
        if (kind == 1 && check_between(r, 0, 63) == 0)
            x[i] *= 100.0f;
        else if (kind == 2 && i / 128 % 2 == 0)
            x[i] = 0.0f;
        else if (kind == 5)
            x[i] = check_wide(r, -60, 60);
        else if (kind == 6) /* constant magnitude: the bound on sums of four decides */
            x[i] = x[i] < 0.0f ? -1.5f : 1.5f;
        else if (kind == 7 && check_between(r, 0, 3) != 0)
            x[i] = 0.0f;
    }
}
