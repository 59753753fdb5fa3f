/**
 * Finds the kernel family that is quickest on this machine, by timing one product of a small matrix.
 *
 * Owns the shape of the probe, the time it may take, and what it takes to beat the default. Knows no family. The idea: which
 * family wins depends on what the JavaScript engine makes of a few vector instructions, not on the model. The best time of
 * several rounds counts, for the first ones run in the engine's baseline code.
 */

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core.js').Precision} Precision */
/** @typedef {import('./format.js').ModelConfig} ModelConfig */

/** Smaller files are loaded before the quickest family is found. */
const WORTH_BYTES = 32e6
/** Of all families together. */
const BUDGET_MS = 30
/** A clock may tick only ten times a millisecond. */
const ROUND_MS = 2
/** Of each family, or its best would be the worst of a busy moment. */
const LEAST_ROUNDS = 3
/** Below this, a family's lead over the default may be noise. */
const CLEAR_LEAD = 1.15

/** One layer, whose in_proj has 2,096 x 512 signs. @type {ModelConfig} */
const PROBE = {
  n_layer: 1,
  d_model: 512,
  d_state: 16,
  headdim: 64,
  ngroups: 1,
  d_conv: 4,
  expand: 2,
  vocab_size: 32,
  padded_vocab_size: 32,
  tie_embeddings: true,
  norm_eps: 1e-5,
  dt_min: 0,
  dt_max: null,
  embedding_dtype: 'I8',
}

/** @param {number} fileBytes of a model */
export function isWorthChoosing(fileBytes) {
  return fileBytes >= WORTH_BYTES
}

/**
 * @param {Core} core
 * @param {{ precision: Precision }} options
 * @returns {string} name of a family
 * @throws {BmError} `memory`
 */
export function quickestVariant(core, { precision }) {
  const [reference, ...families] = core.variants
  const standard = families.at(-1) ?? reference
  if (families.length < 2) return standard
  /** @type {Probe[]} */
  const probes = []
  try {
    for (const variant of families) probes.push(new Probe(core, variant, precision))
    const end = performance.now() + BUDGET_MS
    do {
      for (const probe of probes) probe.round()
    } while (performance.now() < end || probes.some(({ rounds }) => rounds < LEAST_ROUNDS))
    const quickest = probes.reduce((a, b) => (b.best < a.best ? b : a))
    const own = probes.find(({ variant }) => variant === standard)
    return own && own.best < CLEAR_LEAD * quickest.best ? standard : quickest.variant
  } finally {
    for (const probe of probes) probe.close()
  }
}

class Probe {
  #core
  #model
  #session
  #step
  #runs = 1
  /** Those that took long enough to be timed. */
  rounds = 0
  /** Milliseconds of a product, the best so far. */
  best = Number.POSITIVE_INFINITY

  /** @param {Core} core @param {string} variant @param {Precision} precision */
  constructor(core, variant, precision) {
    this.variant = variant
    this.#core = core
    this.#step = core.steps.indexOf('project_in')
    this.#model = core.createModel(PROBE, { variant })
    try {
      // The numbers do not matter: integer products take the same time for all.
      for (const [index, { sizeBytes }] of core.tensors(PROBE).entries()) {
        this.#model.write(index, 0, new Uint8Array(sizeBytes))
      }
      for (let part = 0; part < this.#model.parts; part++) this.#model.seal(part)
      this.#session = this.#model.createSession({ precision, maxChunk: 1 })
    } catch (error) {
      this.#model.close()
      throw error
    }
  }

  /** As many products as take ROUND_MS. */
  round() {
    this.#core.stageIds([0])
    const start = performance.now()
    for (let i = 0; i < this.#runs; i++) this.#session.step(this.#step, 0, 1)
    const elapsed = performance.now() - start
    if (elapsed < ROUND_MS / 2) {
      this.#runs *= 2
      return
    }
    this.rounds++
    this.best = Math.min(this.best, elapsed / this.#runs)
  }

  close() {
    this.#model.close()
  }
}
