/**
 * The models on which an engine is compared with the reference.
 *
 * Owns their sizes, their seeds and values lively enough that a mistake shows. Knows neither the engine nor
 * the reference. The idea: each case is there for something that hides when it is equal, even or one: a
 * state as wide as a head, a single group, four taps, row counts that fill whole vectors.
 */

import { DEFAULTS, writeCheckpoint } from './checkpoint.js'
import { seeded } from './seeded.js'

/** @typedef {import('./checkpoint.js').TestConfig} TestConfig */

/**
 * @typedef {object} ReferenceCase
 * @property {string} name
 * @property {number} seed
 * @property {TestConfig} config
 * @property {number} [embeddingStd] default 0.5; about 0.004 makes norm_eps matter
 * @property {[number, number]} [steps] softplus(dt_bias) is between these, log-uniform; default 1e-4 to 0.2
 * @property {number} [skip] about the size of D, default 1; small: the state is most of what a layer says
 * @property {boolean} [dense] full precision, in 16 bits, which a packed model can have to the bit
 * @property {boolean} [silence] token 0 writes nothing and reads nothing: the state only decays
 */

/** Mamba-2 as the paper's baseline is; 160 columns are no whole groups. @type {ReferenceCase} */
export const DENSE = {
  name: 'dense, 2 groups',
  seed: 121,
  config: { d_model: 160, d_state: 16, headdim: 32, ngroups: 2, vocab_size: 70 },
  dense: true,
}

/** @type {ReferenceCase[]} */
export const CASES = [
  {
    name: 'state 16, head 32',
    seed: 101,
    config: { d_state: 16, headdim: 32 },
  },
  {
    name: 'state 128, head 64',
    seed: 102,
    config: { d_model: 128, d_state: 128, headdim: 64, vocab_size: 200 },
  },
  {
    name: 'state 64, 2 groups, untied',
    seed: 103,
    config: { d_state: 64, ngroups: 2, tie_embeddings: false, vocab_size: 93 },
  },
  {
    name: 'state = head = 64, 3 heads, 3 taps, expand 3',
    seed: 104,
    config: { d_state: 64, headdim: 64, expand: 3, d_conv: 3, vocab_size: 33 },
  },
  {
    name: 'state 128, head 32, 3 groups of one head, 2 taps, expand 1',
    seed: 105,
    config: { d_model: 96, d_state: 128, expand: 1, ngroups: 3, d_conv: 2, vocab_size: 64 },
  },
  {
    name: '5 heads: 677 rows, untied',
    seed: 106,
    config: { d_model: 160, d_state: 16, headdim: 64, tie_embeddings: false, vocab_size: 77 },
  },
  {
    name: '4 groups, finite dt_limit',
    seed: 107,
    config: { d_state: 16, headdim: 16, ngroups: 4, dt_min: 0.002, dt_max: 0.05 },
  },
  {
    name: 'small activations',
    seed: 108,
    config: { d_state: 64, ngroups: 2, tie_embeddings: false },
    embeddingStd: 0.004,
  },
  {
    name: '8 layers',
    seed: 109,
    config: { n_layer: 8, d_model: 96, d_state: 64, headdim: 32, vocab_size: 100 },
  },
  {
    name: 'the smallest sizes',
    seed: 110,
    config: {
      n_layer: 1,
      d_model: 32,
      d_state: 8,
      headdim: 4,
      expand: 1,
      d_conv: 2,
      vocab_size: 1,
    },
  },
  {
    name: 'decays down to 0',
    seed: 112,
    config: { d_state: 24, headdim: 8, ngroups: 2, vocab_size: 40 },
    steps: [0.5, 60],
  },
  {
    name: '256 wide, 3 layers',
    seed: 111,
    config: { n_layer: 3, d_model: 256, d_state: 128, headdim: 64, vocab_size: 500 },
  },
]

/** Decays of 0.99 to 0.9999 a token and nothing but the state: what rounding forgets, or keeps, adds up. */
export const LONG_MEMORY = /** @satisfies {ReferenceCase} */ ({
  name: 'long memory',
  seed: 120,
  config: { d_state: 32, headdim: 16 },
  steps: [1e-5, 1e-3],
  skip: 0.02,
})
/** A decay smaller than half a unit in the last place, applied alone, never happens in a naive 16-bit state. */
export const LONG_SILENCE = /** @satisfies {ReferenceCase} */ ({
  ...LONG_MEMORY,
  name: 'long silence',
  silence: true,
})

/** One layer as wide as the 780M model: 6448 rows, which fill no whole number of blocks of 64. */
export const FULL_WIDTH = /** @satisfies {ReferenceCase} */ ({
  name: 'one layer of the 780M model',
  seed: 121,
  config: { n_layer: 1, d_model: 1536, d_state: 128, headdim: 64, vocab_size: 100 },
})

/**
 * Shapes nobody thought of.
 *
 * @param {number} seed printed by the test that uses it
 * @param {number} count
 * @returns {ReferenceCase[]}
 */
export function randomCases(seed, count) {
  const r = seeded(seed)
  /** @param {number[]} list */
  const pick = (list) => /** @type {number} */ (list[r.below(list.length)])
  return Array.from({ length: count }, (_, i) => {
    const d_model = 32 * (1 + r.below(4))
    const expand = pick([1, 2, 2, 3])
    const headdim = pick([4, 8, 16, 32, 64].filter((p) => (expand * d_model) % p === 0))
    const heads = (expand * d_model) / headdim
    const limited = r.below(3) === 0
    const config = {
      n_layer: 1 + r.below(3),
      d_model,
      d_state: 8 * pick([1, 2, 3, 5, 8, 16]),
      headdim,
      ngroups: pick([1, 2, 3, 4, heads].filter((g) => heads % g === 0)),
      d_conv: pick([2, 3, 4]),
      expand,
      vocab_size: 2 + r.below(150),
      tie_embeddings: r.below(2) === 0,
      dt_min: limited ? pick([0, 0.001, 0.01]) : 0,
      dt_max: limited ? pick([0.03, 0.1]) : null,
    }
    return {
      name: `random ${i} of seed ${seed}: ${JSON.stringify(config)}`,
      seed: seed + i,
      config,
    }
  })
}

/**
 * Writes a case's checkpoint folder.
 *
 * @param {string} dir
 * @param {ReferenceCase} chosen
 * @param {import('./checkpoint.js').CheckpointOptions} [options] that go before those of the case
 */
export function writeCase(dir, chosen, options = {}) {
  const { config, seed } = chosen
  const edit = (/** @type {import('./checkpoint.js').MadeTensor[]} */ tensors) =>
    tensors.map((tensor, i) => ({ ...tensor, values: lively(tensor, seed * 31 + i, chosen) }))
  const dense = chosen.dense ? /** @type {const} */ ({ projections: 'full', dtype: 'F16' }) : {}
  return writeCheckpoint(dir, { config, seed, edit, ...dense, ...options })
}

/**
 * What training leaves and a plain random model lacks: columns with alpha exactly 0, offsets that matter,
 * steps from 1e-4 to 0.2 (decays of a token from 0.9999 down to below 0.5) and tables of a chosen size.
 *
 * @param {import('./checkpoint.js').MadeTensor} tensor
 * @param {number} seed
 * @param {ReferenceCase} chosen
 * @returns {() => Float32Array}
 */
function lively({ name, shape, values }, seed, chosen) {
  const { embeddingStd = 0.5, steps = [1e-4, 0.2], skip = 1, silence = false } = chosen
  if (name.endsWith('.wscale')) {
    return () => {
      const r = seeded(seed)
      return values().map((v) => (r.below(20) === 0 ? 0 : v))
    }
  }
  if (name.endsWith('.D')) return () => values().map((v) => skip * v)
  if (name.endsWith('.conv1d.bias') && silence) return () => values().fill(0)
  if (name.endsWith('.wbias')) return () => values().map((v) => 3 * v)
  if (name.endsWith('.dt_bias')) {
    return () => {
      const r = seeded(seed)
      return values().map(() => {
        const step = Math.exp(r.between(Math.log(steps[0]), Math.log(steps[1])))
        return Math.log(Math.expm1(step))
      })
    }
  }
  if (name === 'backbone.embedding.weight' || name === 'lm_head.weight') {
    const [, cols = 0] = shape
    const factor = (embeddingStd * Math.sqrt(cols)) / 1.5
    return () => values().map((v, i) => (silence && i < cols ? 0 : factor * v))
  }
  return values
}

/**
 * Token ids of a case, below its vocab_size; of LONG_SILENCE: 20 tokens that speak in every 500.
 *
 * @param {ReferenceCase} chosen
 * @param {number} count
 */
export function tokensOf({ seed, config: { vocab_size = DEFAULTS.vocab_size }, silence }, count) {
  const r = seeded(seed + 977)
  const draw = (/** @type {number} */ i) => {
    if (!silence) return r.below(vocab_size)
    return i % 500 < 20 ? 1 + r.below(vocab_size - 1) : 0
  }
  return Array.from({ length: count }, (_, i) => draw(i))
}
