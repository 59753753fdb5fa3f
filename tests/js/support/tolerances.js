/**
 * Every tolerance of the JavaScript tests, with the measurement that justifies it.
 *
 * Owns the numbers; the tests import them. CPU results among themselves have none: they are compared bit for
 * bit. A limit is a promise of the project, `measured` is the worst value seen and where; the distance between
 * the two is the room for other shapes. A limit is not loosened to go green.
 */

/** @typedef {{ limit: number, measured: string }} Tolerance */

/** @satisfies {Record<string, Tolerance>} */
export const TOLERANCES = {
  /** `exact`, f32 state: max |logit - reference| / (1 + max |reference|). The project promises 1e-3. */
  exact: {
    limit: 1e-4,
    measured:
      '2.2e-6 on 150 random shapes of 1 to 3 layers, 300 tokens each; 1.3e-5 in "decays down to 0", ' +
      'where large terms of S . C cancel',
  },
  /** `exact`, i16 state, the same measure. */
  i16State: {
    limit: 1e-3,
    measured: '1.1e-4 on 13 shapes, 300 tokens each; typically 4e-5',
  },
  /** i16 state, 1500 tokens, decays near 1 and next to no skip term: one rounding a token adds up. */
  i16StateMemory: {
    limit: 1e-2,
    measured: '2.3e-3; a float64 state rounded to f16 after each token: 6.1e-3',
  },
  /** i16 state that only decays, by less than half a unit in the last place. */
  i16StateSilence: {
    limit: 1e-3,
    measured: '3.9e-5, not growing; a float64 state rounded to f16 after each token: 7.3e-3',
  },
  /** |log p - reference|, absolute, where logits reach 15. */
  logprob: {
    limit: 1e-4,
    measured: '2.6e-6',
  },
  /** A packed file with an f32 table against its checkpoint, both read by the reference; as `exact`. */
  repacked: {
    limit: 1e-12,
    measured: '0',
  },
  /** The reference run anew against the golden files, which keep 9 digits; as `exact`. */
  golden: {
    limit: 2e-8,
    measured: '2.5e-9',
  },
  /** How far each known mistake must move the logits of some case, at the least; as `exact`. */
  visibleMistake: {
    limit: 1e-2,
    measured: '2.2e-2: dt clamped at 0.001',
  },
  /** `high` against `exact` on random models of 8 layers: mean KL divergence in nats. */
  highOnRandom: {
    limit: 1e-3,
    measured: '1.0e-5; 14-bit inputs emulated in float64: 9.6e-6',
  },
  /** `high` against `exact` on the trained model: mean KL divergence in nats. */
  highOnTrained: {
    limit: 1e-5,
    measured: '1.1e-8, models/tales, 512 tokens it wrote; 1.5e-7, models/llama-stories',
  },
  /** `fast` against `exact` on the trained model: mean KL divergence in nats. */
  fastOnTrained: {
    limit: 1e-3,
    measured: '3.1e-5, models/tales, 512 tokens it wrote; 6.6e-4, models/llama-stories',
  },
  /** `fast` on the GPU against `fast` in WebAssembly on the trained model: mean KL divergence in nats. */
  fastElsewhere: {
    limit: 1e-4,
    measured:
      '1.9e-5, models/tales, 128 tokens it wrote: a number half way between two integers may become the other one',
  },
  /** An i16 state against an f32 one, `exact`, random and trained models: mean KL divergence in nats. */
  i16StateDivergence: {
    limit: 1e-6,
    measured: '7.3e-8, random models of 8 layers; 2.0e-9, models/tales, 512 tokens it wrote',
  },
  /** llama.cpp with the exported model, signs as F32, against `exact`; as `exact`. Looked at by `npm run bench:peers`. */
  llamaFloats: {
    limit: 1e-5,
    measured: '4.0e-7, models/tales-nano, 128 tokens it wrote; 6.5e-7, models/llama-stories',
  },
  /** The same with signs as Q1_0 and Q4_0, for which llama.cpp rounds inputs to int8. */
  llamaIntegers: {
    limit: 5e-2,
    measured: '9.1e-3, models/tales-nano; 1.4e-2, models/tales',
  },
  /** An int4 head against its int8 one, `fast`, trained model: mean KL divergence and change of the loss, in nats. */
  int4HeadOnTrained: {
    limit: 3e-2,
    measured:
      'KL 1.8e-3 and loss -2.5e-3, models/tales, 512 tokens it wrote; 6.0e-3 and 4.3e-3, tales-nano; 1.5e-2 and ' +
      '4.5e-3, llama-stories. 116 KB of stories of the grammar, perplexity: 1.993 to 2.005, 2.216 to 2.219, 65.3 to 66.7',
  },
}
