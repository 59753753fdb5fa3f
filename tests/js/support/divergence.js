/**
 * How far two sets of logits are from each other.
 *
 * Owns the three measures the tests use: bits, worst logit, mean KL divergence. Knows no model.
 */

/**
 * True when two arrays hold the same bits (so that NaN equals itself and 0 differs from -0).
 *
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
export function sameBits(a, b) {
  const bytes = (/** @type {Float32Array} */ v) => Buffer.from(v.buffer, v.byteOffset, v.byteLength)
  return bytes(a).equals(bytes(b))
}

/**
 * max |found - wanted| / (1 + maxWanted); Infinity when a number is not finite.
 *
 * @param {ArrayLike<number>} found
 * @param {ArrayLike<number>} wanted
 * @param {number} maxWanted largest |wanted| of the whole comparison, of which this may be one row
 */
export function logitError(found, wanted, maxWanted) {
  if (found.length !== wanted.length)
    throw new Error(`${found.length} logits, want ${wanted.length}`)
  let worst = 0
  for (let i = 0; i < found.length; i++) {
    const error = Math.abs(Number(found[i]) - Number(wanted[i]))
    if (!Number.isFinite(error)) return Infinity
    worst = Math.max(worst, error)
  }
  return worst / (1 + maxWanted)
}

/** @param {Float32Array} logits @returns {Float64Array} log-probabilities */
function logSoftmax(logits) {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity)
  const sum = logits.reduce((a, b) => a + Math.exp(b - max), 0)
  return Float64Array.from(logits, (v) => v - max - Math.log(sum))
}

/**
 * KL(p || q) in nats of the distributions that two rows of logits mean.
 *
 * @param {Float32Array} p the truth
 * @param {Float32Array} q
 */
export function divergence(p, q) {
  const logP = logSoftmax(p)
  const logQ = logSoftmax(q)
  return logP.reduce((sum, v, i) => sum + Math.exp(v) * (v - Number(logQ[i])), 0)
}
