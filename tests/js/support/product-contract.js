/**
 * The products of `fast` once more, as src/kernels/kernels.h says them, in JavaScript: every step rounded to f32.
 *
 * Owns nothing but the arithmetic. tests/js/gpu-integers.test.js holds that it gives the bits of the core, and then compares the GPU with it.
 */

const { fround } = Math
const GROUP = 256

/** @param {number} v @returns {number} the nearest integer, ties to even */
function nearest(v) {
  const low = Math.floor(v)
  const rest = v - low
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low
}

/** @param {Float32Array} x @returns {{ q: Int32Array, d: Float32Array }} codes, and a scale for each 256 of them */
export function quantized(x) {
  const q = new Int32Array(x.length)
  const d = new Float32Array(Math.ceil(x.length / GROUP))
  for (let g = 0; g < d.length; g++) {
    const values = x.subarray(g * GROUP, (g + 1) * GROUP)
    let [most, most4] = [0, 0]
    for (let i = 0; i < values.length; i += 4) {
      const [a = 0, b = 0, c = 0, e = 0] = values.subarray(i, i + 4).map(Math.abs)
      most = Math.max(most, a, b, c, e)
      most4 = Math.max(most4, fround(fround(a + b) + fround(c + e)))
    }
    const step = Math.max(fround(most / 127), fround(most4 / 253))
    if (step < 2 ** -100) continue
    d[g] = step
    const inverse = fround(1 / step)
    for (const [i, value] of values.entries()) q[g * GROUP + i] = nearest(fround(value * inverse))
  }
  return { q, d }
}

/** @param {Uint8Array} row of signs @param {Int32Array} q @returns {number[]} the integer of each group */
export function dots(row, q) {
  const sums = new Array(Math.ceil(q.length / GROUP)).fill(0)
  for (const [i, code] of q.entries()) {
    sums[Math.floor(i / GROUP)] += (Number(row[i >> 3]) >> (i & 7)) & 1 ? code : -code
  }
  return sums
}

/** @param {number} c @param {number[]} sums @param {Float32Array} d @returns {number} */
export function scaled(c, sums, d) {
  return sums.reduce((y, dot, g) => fround(y + fround(Number(d[g]) * dot)), c)
}

/** @param {Float32Array} terms @returns {number} as the core adds up: in 16 stripes */
function striped(terms) {
  const s = new Float32Array(16)
  for (const [i, term] of terms.entries()) s[i % 16] = fround(Number(s[i % 16]) + term)
  const lane = [0, 1, 2, 3].map((l) => {
    const [a = 0, b = 0, c = 0, e = 0] = [s[l], s[4 + l], s[8 + l], s[12 + l]]
    return fround(fround(a + b) + fround(c + e))
  })
  const [a = 0, b = 0, c = 0, e = 0] = lane
  return fround(fround(a + b) + fround(c + e))
}

/**
 * @param {Float32Array} r @param {Float32Array} scale @param {Float32Array} bias @param {number} eps
 * @returns {{ x: Float32Array, c: number }}
 */
export function normed(r, scale, bias, eps) {
  const mean = fround(fround(striped(r.map((v) => v * v)) / r.length) + fround(eps))
  const rstd = fround(1 / fround(Math.sqrt(mean)))
  const x = r.map((v, i) => fround(v * rstd) * Number(scale[i]))
  return { x, c: fround(rstd * striped(r.map((v, i) => v * Number(bias[i])))) }
}
