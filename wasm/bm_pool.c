/*
 * bm_pool.c: hands out tasks to threads that share the memory. See bm_pool.h.
 *
 * A run is open while its tasks may be taken. The computing thread opens it, works like everyone else,
 * closes it when no task is left, and waits for those still inside. `gate` is the open bit and the
 * number of helpers inside in one word, so that nobody enters a run that has been closed; what a run
 * consists of changes only while the gate is shut and nobody is inside.
 *
 * Every thread has a share of the tasks, the same one in every run of as many tasks, and takes them one
 * at a time from a counter; who is done helps the others. So a head's state stays in the cache of one core,
 * and a thread that the system took away costs one task, not a share. Waiting is a short spin, because
 * the next run is usually some microseconds away, and then sleep, because on a busy machine the
 * processor is needed elsewhere.
 */
#include "bm_pool.h"

#include "bm_park.h"

#include <stdatomic.h>

enum {
    OPEN = 1u << 16, /* above any count of helpers */
    HELPER_SPINS = 1 << 14,
    CALLER_SPINS = 1 << 12,
    PATIENCE =
        4 /* times BM_PARK_SECONDS until a helper that does not come back is taken for dead */
};

/* Words that different threads write lie in different cache lines. */
typedef struct {
    _Alignas(64) _Atomic size_t next; /* task to be taken */
} share;

typedef struct {
    _Alignas(64) _Atomic uint32_t gate;
    _Alignas(64) _Atomic uint32_t
        generation;            /* counts what helpers must look at: runs, limits, the end */
    _Atomic uint32_t sleepers; /* helpers parked, or about to be, on `generation` */
    _Atomic uint32_t limit;
    _Atomic uint32_t joined;
    _Atomic bool closing;
    _Atomic bool failed;
    /* The run; read only inside the gate. */
    _Alignas(64) bm_task *task;
    void *arg;
    size_t count;
    uint32_t n_shares;
    share shares[BM_MAX_THREADS];
} pool;

static pool shared = {.limit = 1};

static size_t start_of_share(uint32_t k) {
    return shared.count * k / shared.n_shares;
}

/* The own share first, then what is left of the others'. */
static void work(uint32_t seat) {
    for (uint32_t k = 0; k < shared.n_shares; k++) {
        uint32_t owner = (seat + k) % shared.n_shares;
        size_t end = start_of_share(owner + 1);
        _Atomic size_t *next = &shared.shares[owner].next;
        for (size_t i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed); i < end;
             i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed))
            shared.task(shared.arg, i, seat);
    }
}

/* After the store that sleepers wait for. Both sides are sequentially consistent: either the caller
   sees the sleeper, or the sleeper sees the new generation. */
static void wake_helpers(void) {
    atomic_fetch_add(&shared.generation, 1);
    if (atomic_load(&shared.sleepers) > 0)
        bm_unpark(&shared.generation);
}

static void wait_for_helpers(void) {
    uint32_t inside = atomic_fetch_and(&shared.gate, ~(uint32_t)OPEN) & ~(uint32_t)OPEN;
    for (unsigned spins = 0; inside > 0 && spins < CALLER_SPINS; spins++)
        inside = atomic_load(&shared.gate);
    for (unsigned late = 0; inside > 0; inside = atomic_load(&shared.gate)) {
        if (late >= PATIENCE || atomic_load(&shared.failed))
            __builtin_trap(); /* a share of the result is missing, and will be */
        late = bm_park(&shared.gate, inside) ? 0 : late + 1;
    }
}

static void run(void *self, bm_task *task, void *arg, size_t count) {
    (void)self;
    shared.task = task;
    shared.arg = arg;
    shared.count = count;
    shared.n_shares = atomic_load(&shared.limit);
    bool is_shared = shared.n_shares > 1;
    for (uint32_t k = 0; k < shared.n_shares; k++)
        atomic_store_explicit(&shared.shares[k].next, start_of_share(k), memory_order_relaxed);
    if (is_shared) {
        atomic_store(&shared.gate, OPEN);
        wake_helpers();
    }
    work(0);
    if (is_shared)
        wait_for_helpers();
}

static bm_team team = {.run = run, .n_threads = 1};

const bm_team *bm_pool_team(void) {
    return &team;
}

void bm_pool_open(uint32_t n_threads) {
    team.n_threads = n_threads;
    atomic_store(&shared.closing, false);
    atomic_store(&shared.limit, n_threads);
}

void bm_pool_limit(uint32_t n_threads) {
    atomic_store(&shared.limit, n_threads);
    wake_helpers();
}

void bm_pool_close(void) {
    atomic_store(&shared.limit, 1);
    atomic_store(&shared.closing, true);
    wake_helpers();
}

void bm_pool_fail(void) {
    atomic_store(&shared.failed, true);
    bm_unpark(&shared.gate);
}

uint32_t bm_pool_joined(void) {
    return atomic_load(&shared.joined);
}

/* ---- Helpers ------------------------------------------------------------------------------------ */

/* One more inside, unless the gate is shut. */
static bool enter(void) {
    uint32_t gate = atomic_load(&shared.gate);
    while (gate & OPEN)
        if (atomic_compare_exchange_weak(&shared.gate, &gate, gate + 1))
            return true;
    return false;
}

static void leave(void) {
    uint32_t before = atomic_fetch_sub(&shared.gate, 1);
    if (before == 1) /* shut, and the last one: the caller may be asleep */
        bm_unpark(&shared.gate);
}

/* Until the generation is no longer `seen`; returns the new one. */
static uint32_t next_generation(uint32_t seen, bool may_spin) {
    uint32_t now = atomic_load(&shared.generation);
    for (unsigned spins = 0; may_spin && now == seen && spins < HELPER_SPINS; spins++)
        now = atomic_load(&shared.generation);
    while (now == seen) {
        atomic_fetch_add(&shared.sleepers, 1);
        bm_park(&shared.generation, seen);
        atomic_fetch_sub(&shared.sleepers, 1);
        now = atomic_load(&shared.generation);
    }
    return now;
}

void bm_pool_join(uint32_t seat) {
    uint32_t seen = atomic_load(&shared.generation);
    atomic_fetch_add(&shared.joined, 1);
    while (!atomic_load(&shared.closing)) {
        bool takes_part = seat < atomic_load(&shared.limit);
        if (takes_part && enter()) {
            work(seat);
            leave();
        }
        seen = next_generation(seen, takes_part);
    }
    atomic_fetch_sub(&shared.joined, 1);
}
