/*
 * bm_pool.h: a team of threads for the core, over shared WebAssembly memory.
 *
 * Each helper thread is another instance of the same module over the same memory, with a stack of its
 * own, that calls bm_pool_join and stays there. The thread that computes (the only one that may call
 * anything else) hands out tasks through the bm_team.
 */
#ifndef BM_POOL_H
#define BM_POOL_H

#include "../src/bm.h"

/* The one team. Its n_threads is what bm_pool_open said. */
const bm_team *bm_pool_team(void);

/* Before sessions are made: how many threads tasks are cut for, 1 ... BM_MAX_THREADS, this one included. */
void bm_pool_open(uint32_t n_threads);

/* How many threads take part from the next call on, 1 ... n_threads. Changes no result. */
void bm_pool_limit(uint32_t n_threads);

/* A helper's life: seat 1 ... n_threads - 1, each once. Returns after bm_pool_close. */
void bm_pool_join(uint32_t seat);

/* Sends all helpers home. The team then works alone, until it is opened again. */
void bm_pool_close(void);

/* A helper that cannot go on (it trapped inside a task) says so; the computing thread traps too. */
void bm_pool_fail(void);

/* Helpers that have joined and not left: for whoever starts them and must know that they came. */
uint32_t bm_pool_joined(void);

#endif
