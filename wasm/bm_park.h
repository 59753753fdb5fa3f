/*
 * bm_park.h: a thread sleeps until a word of shared memory changes: the instructions of WebAssembly.
 *
 * The native tests of the pool have no such instruction and look again and again.
 */
#ifndef BM_PARK_H
#define BM_PARK_H

#include <stdbool.h>
#include <stdint.h>

enum { BM_PARK_SECONDS = 5 };

#ifdef __wasm__

/*
 * Sleeps while *word == seen, until somebody unparks it. May return early; false after BM_PARK_SECONDS.
 * Traps on a page's main thread, which must not sleep.
 */
static inline bool bm_park(_Atomic uint32_t *word, uint32_t seen) {
    return __builtin_wasm_memory_atomic_wait32((int32_t *)(uintptr_t)word, (int32_t)seen,
                                               BM_PARK_SECONDS * 1000000000ll) != 2;
}

/* Wakes all that sleep on the word. After the store that changed it. */
static inline void bm_unpark(_Atomic uint32_t *word) {
    __builtin_wasm_memory_atomic_notify((int32_t *)(uintptr_t)word, UINT32_MAX);
}

#else

#include <stdatomic.h>
#include <time.h>

static inline bool bm_park(_Atomic uint32_t *word, uint32_t seen) {
    const struct timespec step = {.tv_nsec = 50000};
    for (long n = 0; n < BM_PARK_SECONDS * 20000l; n++) {
        if (atomic_load(word) != seen)
            return true;
        nanosleep(&step, NULL);
    }
    return false;
}

static inline void bm_unpark(_Atomic uint32_t *word) {
    (void)word;
}

#endif

#endif
