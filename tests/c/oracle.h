/*
 * oracle.h: the forward pass of Bi-Mamba in double precision, straight from the papers' equations.
 *
 * Owns a second opinion: recurrent form, dense W = alpha * sign + beta, plain S = a S + dt x B, libm.
 * Reads the tensors in file form and shares nothing with the core but the table of their shapes.
 * Source: arXiv 2405.21060 (Mamba-2), 2411.11843 (Bi-Mamba).
 */
#ifndef ORACLE_H
#define ORACLE_H

#include "random_model.h"

/* logits [n, vocab_size] after each of the n tokens. */
void oracle_forward(const random_model *m, const uint32_t *ids, size_t n, double *logits);

#endif
