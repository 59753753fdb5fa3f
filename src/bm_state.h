/*
 * bm_state.h: the recurrent state of a sequence as memory: its arrays, and their place in one block.
 *
 * Knows the shape of a model and the types a state may be stored in; knows no weights and no forward
 * pass. bm.h says what the block is for.
 */
#ifndef BM_STATE_H
#define BM_STATE_H

#include "bm_config.h"

/*
 * The SSM state of a head is S = scale * stored, and |stored| <= 2 * bound. A token's decay multiplies
 * the one number `scale` instead of all of S, so a 16-bit S cannot get stuck when the decay is less
 * than half a unit in its last place, a fading S does not crawl through subnormals, and S is rounded
 * once a token. In 16 and 8 bits, stored is an integer times its row's unit.
 */
typedef struct {
    float scale; /* 0: S is zero, whatever is stored */
    float bound;
} bm_ssm_scale;

/* The recurrent state: all that the model knows of the tokens so far. All zero at position 0. */
typedef struct {
    bm_dtype ssm_dtype; /* BM_F32 or BM_I16; BM_I8 where it is only kept */
    float *
        last; /* [d_model] final normed vector of the last token, once bm_session_state was asked */
    float *conv; /* [n_layer, d_conv - 1, conv_dim]: inputs; position p is row p % (d_conv - 1) */
    void *ssm;   /* [n_layer, n_heads, headdim, d_state] */
    bm_ssm_scale *scales; /* [n_layer, n_heads] */
    float
        *unit; /* [n_layer, n_heads, headdim] of BM_I16 (see scan_i16) and BM_I8; 0: nothing yet */
    float *most;       /* the same, of BM_I16 only: the largest integer of the row */
    uint64_t position; /* tokens consumed */
} bm_timeline;

/* Takes the arrays of a state from an arena, as one stretch of bm_state_bytes from `last` on. */
bm_timeline bm_state_layout(bm_arena *arena, const bm_config *config, bm_dtype dtype);

#endif
