/*
 * test_pool.c: the pool of threads, natively: every task once, whoever takes part, however often it changes.
 *
 * Owns the promises of bm_pool.h under many short runs, in which threads come late, sleep, are told to
 * stay away and come back. Build it with -fsanitize=thread to look for data races:
 *   clang -g -O1 -fsanitize=thread -Isrc -Iwasm -Itests/c tests/c/test_pool.c tests/c/check.c \
 *     wasm/bm_pool.c -o test_pool -lm -lpthread
 */
#include "bm_pool.h"
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { MAX_TASKS = 500, MAX_THREADS = 9 };

static _Thread_local bool is_helper;

static void *join(void *seat) {
    is_helper = true;
    bm_pool_join((uint32_t)(uintptr_t)seat);
    return NULL;
}

typedef struct {
    unsigned times[MAX_TASKS]; /* not atomic: each is one task's own, and read after the run */
    unsigned before;           /* written before the run, read by all tasks */
    unsigned nanoseconds;      /* how long a task takes at most */
    _Atomic unsigned by_helpers;
    _Atomic unsigned wrong;
    _Atomic bool is_busy[MAX_THREADS];
} job;

static void task(void *arg, size_t index, size_t thread) {
    job *j = arg;
    if (thread >= MAX_THREADS || (thread == 0) == is_helper ||
        atomic_exchange(&j->is_busy[thread], true))
        atomic_fetch_add(&j->wrong, 1);
    j->times[index] += j->before;
    if (is_helper)
        atomic_fetch_add(&j->by_helpers, 1);
    if (j->nanoseconds > 0 && index % 3 == 0) {
        const struct timespec rest = {.tv_nsec = j->nanoseconds};
        nanosleep(&rest, NULL);
    }
    if (j->times[index] != j->before)
        atomic_fetch_add(&j->wrong, 1);
    if (thread < MAX_THREADS)
        atomic_store(&j->is_busy[thread], false);
}

/* Between runs a pause now and then, so that helpers fall asleep. */
static void pause_sometimes(check_random *r) {
    if (check_between(r, 0, 20) == 0) {
        const struct timespec rest = {.tv_nsec = (long)check_between(r, 1, 300000)};
        nanosleep(&rest, NULL);
    }
}

/* All helpers come, and take their part of work that is long enough to be shared. */
static void check_help(const bm_team *team) {
    const struct timespec moment = {.tv_nsec = 100000};
    for (unsigned i = 0; bm_pool_joined() + 1 < team->n_threads; i++) {
        CHECK(i < 100000, "%u of %u threads came", bm_pool_joined() + 1, team->n_threads);
        nanosleep(&moment, NULL);
    }
    job j = {.before = 1, .nanoseconds = 99999};
    team->run(team->self, task, &j, MAX_TASKS);
    CHECK(team->n_threads == 1 || atomic_load(&j.by_helpers) > 0, "%s", "no helper did a task");
}

static void every_task_once(uint64_t seed) {
    check_random r = check_seed(seed, 1);
    uint32_t n_threads = (uint32_t)check_between(&r, 1, MAX_THREADS);
    bm_pool_open(n_threads);
    const bm_team *team = bm_pool_team();
    CHECK(team->n_threads == n_threads, "%u threads", team->n_threads);
    pthread_t threads[MAX_THREADS];
    for (uintptr_t seat = 1; seat < n_threads; seat++)
        CHECK(!pthread_create(&threads[seat], NULL, join, (void *)seat), "seat %zu", (size_t)seat);
    check_help(team);
    for (unsigned round = 0; round < 300; round++) {
        job j = {.before = round + 1,
                 .nanoseconds =
                     check_between(&r, 0, 30) ? 0 : (unsigned)check_between(&r, 1, 99999)};
        size_t count = check_between(&r, 0, check_between(&r, 0, 3) ? 12 : MAX_TASKS);
        if (check_between(&r, 0, 9) == 0)
            bm_pool_limit((uint32_t)check_between(&r, 1, n_threads));
        team->run(team->self, task, &j, count);
        CHECK(atomic_load(&j.wrong) == 0, "round %u: tasks done twice, or a thread", round);
        for (size_t i = 0; i < MAX_TASKS; i++)
            CHECK(j.times[i] == (i < count ? round + 1 : 0), "round %u, task %zu of %zu", round, i,
                  count);
        pause_sometimes(&r);
    }
    bm_pool_close();
    for (uintptr_t seat = 1; seat < n_threads; seat++)
        pthread_join(threads[seat], NULL);
    CHECK(bm_pool_joined() == 0, "%u still there", bm_pool_joined());
    job j = {.before = 7};
    team->run(team->self, task, &j, 5);
    CHECK(j.times[4] == 7, "%s", "alone after the end");
}

/* Before anybody opens the team, as after it was closed, the caller does everything. */
static void alone(uint64_t seed) {
    (void)seed;
    job j = {.before = 1};
    const bm_team *team = bm_pool_team();
    team->run(team->self, task, &j, MAX_TASKS);
    CHECK(atomic_load(&j.wrong) == 0, "%s", "a task was done twice");
    for (size_t i = 0; i < MAX_TASKS; i++)
        CHECK(j.times[i] == 1, "task %zu was done %u times", i, j.times[i]);
}

int main(int argc, char **argv) {
    static const check_case cases[] = {
        {"alone", alone, 1}, {"every_task_once", every_task_once, 40}, {"alone", alone, 1}};
    return check_main(argc, argv, cases, sizeof cases / sizeof cases[0]);
}
