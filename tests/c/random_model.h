/*
 * random_model.h: configs and weights from a seed, the same bits on every host, and a hash of floats.
 *
 * Owns what a random but reasonable Bi-Mamba looks like: alpha of either sign, beta, decays from quick
 * to slow, outliers. The tensors are kept in file form, so that an oracle can read what the core was
 * given. Knows nothing of how the core stores them.
 */
#ifndef RANDOM_MODEL_H
#define RANDOM_MODEL_H

#include "bm.h"
#include "check.h"

enum { RANDOM_MODEL_TENSORS = 64 };

typedef struct {
    bm_config config;
    uint8_t *tensors[RANDOM_MODEL_TENSORS]; /* in file form, freed with the seed's buffers */
} random_model;

/* A legal config, small enough for tests: at most 3 layers, d_inner at most 512. */
bm_config random_config(check_random *r);

/* The values of one tensor in file form, as suits its name. */
uint8_t *random_tensor(check_random *r, const bm_tensor *tensor);

random_model random_weights(check_random *r, const bm_config *config);

/* The tensor called `name`, or `layers.LAYER.name`. Fails the test when there is none. */
void *random_model_tensor(const random_model *m, int layer, const char *name);

/* A sealed core model with these weights; its caller frees it. Fails the test when the core refuses. */
bm_model *random_model_load(const random_model *m, size_t variant);
bm_model *random_model_load_head(const random_model *m, size_t variant, bm_head head);

/* One of the ways in which a model of this config can keep its head. */
bm_head random_head(check_random *r, const bm_config *config);

void random_ids(check_random *r, const bm_config *config, uint32_t *ids, size_t n);

/* FNV-1a over the bytes of n floats; start with HASH_START. */
#define HASH_START 0xcbf29ce484222325u
uint64_t hash_floats(uint64_t hash, const float *x, size_t n);

#endif
