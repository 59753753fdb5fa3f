/*
 * bm_stream.c: see bm_stream.h. One pass in address order, as the kernels read weights.
 */
#include "bm_stream.h"

/* 128 bits, which a module with SIMD loads at once. */
typedef uint32_t lanes __attribute__((vector_size(16)));

enum { LANES = 4, STREAMS = 8 };

typedef struct {
    const lanes *block;
    uint32_t *sums;
} stream;

/* Eight sums, so that no load waits for an addition. */
static void sum_task(void *arg, size_t task, size_t thread) {
    (void)thread;
    const stream *s = arg;
    const size_t n = BM_STREAM_TASK / sizeof(lanes);
    const lanes *in = s->block + task * n;
    lanes sums[STREAMS] = {0};
    for (size_t i = 0; i < n; i += STREAMS)
        for (size_t k = 0; k < STREAMS; k++)
            sums[k] += in[i + k];
    for (size_t k = 1; k < STREAMS; k++)
        sums[0] += sums[k];
    s->sums[task] = 0;
    for (size_t lane = 0; lane < LANES; lane++)
        s->sums[task] += sums[0][lane];
}

uint32_t bm_stream_sum(const bm_team *team, const void *block, uint32_t *sums, size_t tasks) {
    stream s = {.block = block, .sums = sums};
    if (team)
        team->run(team->self, sum_task, &s, tasks);
    for (size_t task = 0; !team && task < tasks; task++)
        sum_task(&s, task, 0);
    uint32_t sum = 0;
    for (size_t task = 0; task < tasks; task++)
        sum += sums[task];
    return sum;
}
