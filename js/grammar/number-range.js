/**
 * Numbers between two bounds, as digits.
 *
 * Owns the way from a range to the texts of its numbers. The idea: all numbers of a length that begin alike and end in any way are one
 * sequence, so a range is cut at the first digit that differs. Bounds are whole multiples of a power of ten, so nothing is rounded.
 */

import { characters, choice, literal, NEVER, NOTHING, repeat, sequence } from './expression.js'

/** @typedef {import('./expression.js').Expression} Expression */

/** Numbers of so many digits before the point are the same in every program. */
export const MOST_DIGITS = 15
const LARGEST = 10n ** BigInt(MOST_DIGITS) - 1n

const DIGIT = characters('09')

/** @param {number} first @param {number} last @returns {Expression} */
const digits = (first, last) => characters(`${first}${last}`)

/** @param {string} low @param {string} high as long @returns {Expression} the numbers between, as long */
function sameLength(low, high) {
  if (low === high) return literal(low)
  if (/^0*$/.test(low) && /^9*$/.test(high)) return repeat(DIGIT, low.length, low.length)
  const [first, last] = [Number(low[0]), Number(high[0])]
  const [restLow, restHigh] = [low.slice(1), high.slice(1)]
  if (first === last) return sequence(digits(first, first), sameLength(restLow, restHigh))
  const parts = [
    sequence(digits(first, first), sameLength(restLow, '9'.repeat(restLow.length))),
    sequence(digits(last, last), sameLength('0'.repeat(restHigh.length), restHigh)),
  ]
  if (first + 1 < last)
    parts.push(sequence(digits(first + 1, last - 1), repeat(DIGIT, restLow.length, restLow.length)))
  return choice(parts)
}

/** @param {bigint} low @param {bigint} high not negative @returns {Expression} without leading zeros */
function wholeNumbers(low, high) {
  /** @type {Expression[]} */
  const parts = []
  for (let length = low.toString().length; length <= high.toString().length; length++) {
    const least = length === 1 ? 0n : 10n ** BigInt(length - 1)
    const most = 10n ** BigInt(length) - 1n
    const from = low > least ? low : least
    const to = high < most ? high : most
    if (from <= to) parts.push(sameLength(from.toString(), to.toString()))
  }
  return low > high ? NEVER : choice(parts)
}

/**
 * The digits behind a point, some of them or none.
 *
 * @param {string | null} low  null: no bound; else as many digits as there may be
 * @param {string | null} high
 * @param {number} left        digits that may come
 * @returns {Expression}
 */
function fraction(low, high, left) {
  const least = low && /[1-9]/.test(low) ? low : null
  const most = high && /[0-8]/.test(high) ? high : null
  if (!least && !most) return repeat(DIGIT, 0, left)
  const [first, last] = [Number(least?.[0] ?? 0), Number(most?.[0] ?? 9)]
  const [restLow, restHigh] = [least?.slice(1) ?? null, most?.slice(1) ?? null]
  /** @type {Expression[]} none is as all zeros */
  const parts = least ? [] : [NOTHING]
  if (left === 0) return choice(parts)
  if (first === last)
    return choice([...parts, sequence(digits(first, first), fraction(restLow, restHigh, left - 1))])
  const from = least ? first + 1 : first
  const to = most ? last - 1 : last
  if (least) parts.push(sequence(digits(first, first), fraction(restLow, null, left - 1)))
  if (most) parts.push(sequence(digits(last, last), fraction(null, restHigh, left - 1)))
  if (from <= to) parts.push(sequence(digits(from, to), repeat(DIGIT, 0, left - 1)))
  return choice(parts)
}

/** @param {string | null} low @param {string | null} high @param {number} scale @returns {Expression} nothing, or a point and digits */
function pointAnd(low, high, scale) {
  /** @type {Expression[]} */
  const parts = low && /[1-9]/.test(low) ? [] : [NOTHING]
  const isAll = !(low && /[1-9]/.test(low)) && !high
  // A point wants a digit behind it.
  const first = (
    /** @type {number} */ from,
    /** @type {number} */ to,
    /** @type {Expression} */ rest,
  ) => parts.push(sequence(literal('.'), digits(from, to), rest))
  if (isAll) first(0, 9, repeat(DIGIT, 0, scale - 1))
  else
    for (let digit = 0; digit <= 9; digit++) {
      const lowest = low ? Number(low[0]) : 0
      const highest = high ? Number(high[0]) : 9
      if (digit < lowest || digit > highest) continue
      const restLow = low && digit === lowest ? low.slice(1) : null
      const restHigh = high && digit === highest ? high.slice(1) : null
      first(digit, digit, fraction(restLow, restHigh, scale - 1))
    }
  return choice(parts)
}

/** @param {bigint} low @param {bigint} high not negative, in units of 10^-scale @param {number} scale */
function positive(low, high, scale) {
  if (low > high) return NEVER
  if (scale === 0) return wholeNumbers(low, high)
  const unit = 10n ** BigInt(scale)
  const digitsOf = (/** @type {bigint} */ value) => (value % unit).toString().padStart(scale, '0')
  const [first, last] = [low / unit, high / unit]
  if (first === last)
    return sequence(literal(first.toString()), pointAnd(digitsOf(low), digitsOf(high), scale))
  const parts = [
    sequence(literal(first.toString()), pointAnd(digitsOf(low), null, scale)),
    sequence(literal(last.toString()), pointAnd(null, digitsOf(high), scale)),
  ]
  if (first + 1n < last)
    parts.push(sequence(wholeNumbers(first + 1n, last - 1n), pointAnd(null, null, scale)))
  return choice(parts)
}

/**
 * @param {bigint | null} low   in units of 10^-scale, included; null: as small as 15 digits allow
 * @param {bigint | null} high
 * @param {number} scale        most digits behind the point
 * @returns {Expression}
 */
export function numbersBetween(low, high, scale) {
  const most = (LARGEST + 1n) * 10n ** BigInt(scale) - 1n
  const clip = (/** @type {bigint} */ value) =>
    value > most ? most : value < -most ? -most : value
  const from = low === null ? -most : low
  const to = high === null ? most : high
  if (from > most || to < -most) return NEVER
  const [a, b] = [clip(from), clip(to)]
  const parts = []
  if (b >= 0n) parts.push(positive(a > 0n ? a : 0n, b, scale))
  // Zero has no sign here.
  if (a < 0n) parts.push(sequence(literal('-'), positive(b < 0n ? -b : 1n, -a, scale)))
  return choice(parts)
}

/**
 * @param {number} value finite
 * @param {number} scale
 * @param {'up' | 'down'} rounding where it is between two multiples
 * @returns {bigint} in units of 10^-scale
 */
export function scaled(value, scale, rounding) {
  const [, sign = '', whole = '', part = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/.exec(String(value)) ?? []
  const shift = scale - part.length + Number(exponent)
  const all = BigInt(sign + whole + part)
  if (shift >= 0) return all * 10n ** BigInt(shift)
  const unit = 10n ** BigInt(-shift)
  const down = all / unit - (all < 0n && all % unit !== 0n ? 1n : 0n)
  return rounding === 'up' && all % unit !== 0n ? down + 1n : down
}

/** @param {number} value @returns {number} digits behind its point */
export function decimalsOf(value) {
  const [, part = '', exponent = '0'] = /(?:\.(\d+))?(?:e([+-]?\d+))?$/.exec(String(value)) ?? []
  return Math.max(0, part.length - Number(exponent))
}
