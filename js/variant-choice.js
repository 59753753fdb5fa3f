/**
 * Which family of kernels is the fastest on this machine, found by letting each compute a few tokens.
 *
 * Owns the measurement and remembers its outcome; does not know what the families do. The idea: they give the same bits, so
 * nothing but time is at stake, and time is best asked of the machine: look-up tables win by far on x86-64, on ARM counting
 * bits comes close. One layer of random weights is enough, since families differ in its two products alone.
 */

/** @typedef {import('./core.js').Core} Core */

/** One layer with 3.6 million weights in its two products: more than a call costs, little enough for a cache. @type {import('./core.js').ModelConfig} */
const PROBE = {
  n_layer: 1,
  d_model: 768,
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

/** Noise only adds time, so the least of a few rounds counts; the first rounds run in the JavaScript engine's first tier. */
const ROUNDS = 8
const TOKENS = 2

/** Name of the fastest family, once known; it is a fact of the machine. @type {string | null} */
let known = null

/**
 * @param {Core} core
 * @param {() => number} [now] a clock in ms
 * @returns {string} one of `core.variants`, never the reference
 */
export function fastestVariant(core, now = () => performance.now()) {
  known ??= measure(core, now)
  return known
}

/** @param {Core} core @param {() => number} now */
function measure(core, now) {
  const candidates = core.variants.slice(1).map((variant) => {
    const model = probeModel(core, variant)
    const session = model.createSession({ precision: 'fast', state: 'f32', maxChunk: TOKENS })
    return { variant, model, session, ms: Number.POSITIVE_INFINITY }
  })
  for (let round = 0; round < ROUNDS; round++) {
    for (const candidate of candidates) {
      const start = now()
      for (let i = 0; i < TOKENS; i++) candidate.session.append([i])
      candidate.ms = Math.min(candidate.ms, now() - start)
    }
  }
  for (const { model } of candidates) model.close()
  // The default, the last, also wins where the clock is too coarse to tell.
  return candidates.reduce((best, other) => (other.ms <= best.ms ? other : best)).variant
}

/** @param {Core} core @param {string} variant */
function probeModel(core, variant) {
  const model = core.createModel(PROBE, { variant })
  core.tensors(PROBE).forEach(({ dtype, sizeBytes }, index) => {
    const bytes = new Uint8Array(sizeBytes)
    if (dtype === 'F32') new Float32Array(bytes.buffer).fill(0.01)
    else for (let i = 0; i < sizeBytes; i++) bytes[i] = i * 37 // any pattern: none is faster than another
    model.write(index, 0, bytes)
  })
  for (let part = 0; part < model.parts; part++) model.seal(part)
  return model
}
