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
  /** `exact`, f32 state: max |logit - reference| / (1 + max |reference|). */
  exact: {
    limit: 1e-3,
    measured: 'TODO',
  },
  /** The same with the 16-bit state. */
  exactHalfState: {
    limit: 1e-2,
    measured: 'TODO',
  },
  /** A packed file read by the reference against its checkpoint read by the reference, same measure. */
  repacked: {
    limit: 1e-12,
    measured: 'TODO',
  },
  /** The reference run anew against the golden files, which keep 9 digits. */
  golden: {
    limit: 1e-8,
    measured: 'TODO',
  },
  /** How far each known mistake must move the logits of some case, same measure: ten times `exact`. */
  visibleMistake: {
    limit: 1e-2,
    measured: 'TODO',
  },
  /** `high` against `exact` on random models of 8 layers: mean KL divergence in nats. */
  highOnRandom: {
    limit: 1e-3,
    measured: 'TODO',
  },
  /** `high` against `exact` on the trained model: mean KL divergence in nats. */
  highOnTrained: {
    limit: 1e-5,
    measured: 'TODO',
  },
  /** `fast` against `exact` on the trained model: mean KL divergence in nats. */
  fastOnTrained: {
    limit: 1e-3,
    measured: 'TODO',
  },
}
