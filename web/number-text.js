/**
 * Numbers for people: bytes, times, counts.
 *
 * Owns how many digits are shown. Decimal units: 1 MB is 10^6 bytes.
 */

const whole = new Intl.NumberFormat('en')

/** @param {number} count */
export const formatCount = (count) => whole.format(Math.round(count))

/** @param {number} value @returns {string} three digits that count */
export function formatDigits(value) {
  if (value >= 100) return whole.format(Math.round(value))
  return value >= 1 || value === 0 ? String(Number(value.toPrecision(3))) : value.toPrecision(2)
}

/** @param {number} bytes */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${Math.round(bytes)} bytes`
  const units = ['kB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length, Math.floor(Math.log10(bytes) / 3))
  return `${formatDigits(bytes / 1000 ** power)} ${units[power - 1]}`
}

/** @param {number} ms */
export function formatTime(ms) {
  if (ms < 1000) return `${formatDigits(ms)} ms`
  const seconds = ms / 1000
  if (seconds < 60) return `${formatDigits(seconds)} s`
  const rounded = Math.round(seconds)
  return `${Math.floor(rounded / 60)} min ${rounded % 60} s`
}

/** @param {number} count @param {string} word */
export const plural = (count, word) => `${formatCount(count)} ${word}${count === 1 ? '' : 's'}`
