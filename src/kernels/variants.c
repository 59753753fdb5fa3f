/*
 * variants.c: the one list of kernel variants; tests, benchmarks and models all go through it.
 */
#include "kernels.h"

const bm_kernels *const bm_kernels_all[] = {&bm_kernels_ref, &bm_kernels_popcount,
                                            &bm_kernels_table};
const size_t bm_kernels_count = sizeof bm_kernels_all / sizeof bm_kernels_all[0];
