/**
 * The largest logits, as candidates.wgsl gives them.
 *
 * Owns how many are asked for, and whether they are all that a draw depends on. Two logits that differ may have the same score once they are divided by
 * the temperature, and the lower id comes first then; so some more are asked for, and where even the last of them ties, all logits are needed.
 */

/** @typedef {{ count: number, temperature: number }} Draw as js/draw.js has it */

/** Room for them; more than are asked for may come. */
export const MOST_CANDIDATES = 256
export const FOUND_BYTES = 16 + 8 * MOST_CANDIDATES
/** So many more than the draw depends on. */
const MARGIN = 8

/** @param {Draw} draw @returns {number} how many to ask for */
export const wantedFor = ({ count, temperature }) => (temperature === 0 ? count : count + MARGIN)

/**
 * @param {Uint8Array<ArrayBuffer>} bytes [FOUND_BYTES]
 * @param {Draw} draw
 * @returns {{ isSpoilt: boolean, ids: Uint32Array, logits: Float32Array, isEnough: boolean }} isSpoilt: some logit is no number
 */
export function candidatesIn(bytes, draw) {
  const words = new Uint32Array(bytes.buffer)
  const floats = new Float32Array(bytes.buffer)
  const [found = 0, spoilt = 0] = words
  const count = Math.min(found, MOST_CANDIDATES)
  const ids = Uint32Array.from({ length: count }, (_, i) => Number(words[4 + 2 * i]))
  const logits = Float32Array.from({ length: count }, (_, i) => Number(floats[5 + 2 * i]))
  const isEnough = found === count && isApart(logits, Number(floats[2]), draw)
  return { isSpoilt: spoilt !== 0, ids, logits, isEnough }
}

/** Whether what is below the bound scores below the last one that matters. @param {Float32Array} logits @param {number} bound @param {Draw} draw */
function isApart(logits, bound, { count, temperature }) {
  if (temperature === 0) return true
  const sorted = Float32Array.from(logits).sort().reverse()
  const best = Number(sorted[0])
  const t = Math.fround(temperature)
  const score = (/** @type {number} */ logit) => Math.fround(Math.fround(logit - best) / t)
  return score(bound) < score(Number(sorted[count - 1]))
}
