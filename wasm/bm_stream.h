/*
 * bm_stream.h: reads a block of memory as fast as the module can: what the bytes of a token are held against.
 *
 * Knows no model. Only whoever measures calls it: what it computes is of no use but to show that all was read.
 */
#ifndef BM_STREAM_H
#define BM_STREAM_H

#include "../src/bm.h"

/* Bytes of one task, a multiple of what a loop reads at once. */
enum { BM_STREAM_TASK = 1 << 20 };

/*
 * The sum of all 32-bit words of a block, modulo 2^32; its tasks are spread over the team (may be NULL).
 *   block  [tasks * BM_STREAM_TASK] bytes, aligned to 16
 *   sums   [tasks] overwritten
 */
uint32_t bm_stream_sum(const bm_team *team, const void *block, uint32_t *sums, size_t tasks);

#endif
