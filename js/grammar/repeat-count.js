/**
 * How often something comes: `*`, `+`, `?`, `{n}`, `{n,}`, `{n,m}`, as grammars and regular expressions write it.
 *
 * Owns that notation and its limit.
 */

/** A number of copies larger than this is a mistake. */
const MOST_COUNT = 100000

/**
 * @param {string} text
 * @param {number} at
 * @returns {{ min: number, max: number, end: number, problem: string | null } | null} null: there is none
 */
export function readCount(text, at) {
  const sign = text[at]
  if (sign === '*') return { min: 0, max: Infinity, end: at + 1, problem: null }
  if (sign === '+') return { min: 1, max: Infinity, end: at + 1, problem: null }
  if (sign === '?') return { min: 0, max: 1, end: at + 1, problem: null }
  if (sign !== '{') return null
  const pattern = /\{\s*(\d+)\s*(,\s*(\d*)\s*)?\}/y
  pattern.lastIndex = at
  const found = pattern.exec(text)
  if (!found) return { min: 0, max: 0, end: at, problem: 'want {n}, {n,} or {n,m}' }
  const min = Number(found[1])
  const max = found[2] === undefined ? min : found[3] ? Number(found[3]) : Infinity
  const end = at + found[0].length
  const largest = max === Infinity ? min : max
  if (largest > MOST_COUNT) {
    return { min, max, end, problem: `${found[0]}: want at most ${MOST_COUNT} times` }
  }
  return { min, max, end, problem: max < min ? `${found[0]}: the second is the smaller one` : null }
}
