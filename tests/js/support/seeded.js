/**
 * A seeded source of numbers for tests.
 *
 * Owns one small generator (mulberry32) that gives the same numbers in every JavaScript engine: integer
 * arithmetic only, no Math.log or Math.cos. Knows nothing of models. A failing test prints its seed.
 */

/**
 * @typedef {object} Seeded
 * @property {() => number} uint32 0 .. 2^32-1
 * @property {() => number} uniform [0, 1)
 * @property {(low: number, high: number) => number} between uniform in [low, high)
 * @property {(count: number) => number} below integer 0 .. count-1
 * @property {() => number} bell mean 0, variance 1, symmetric, triangular, never 0
 */

/** Standard deviation of a + b for two 16-bit uniform integers. */
const BELL_SPREAD = 65536 / Math.sqrt(6)

/**
 * @param {number} seed any integer
 * @returns {Seeded}
 */
export function seeded(seed) {
  let state = seed >>> 0
  const uint32 = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return (t ^ (t >>> 14)) >>> 0
  }
  const uniform = () => uint32() / 4294967296
  return {
    uint32,
    uniform,
    between: (low, high) => low + (high - low) * uniform(),
    below: (count) => Math.floor(uniform() * count),
    bell: () => {
      const bits = uint32()
      return ((bits & 0xffff) + (bits >>> 16) - 65535 + 0.5) / BELL_SPREAD
    },
  }
}
