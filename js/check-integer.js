/**
 * The check of numbers on their way into the engine, which takes any bit pattern.
 */

import { BmError } from './errors.js'

/** The largest of uint32_t in C. */
export const MAX_U32 = 2 ** 32 - 1

/**
 * @param {string} name for the message
 * @param {unknown} value
 * @param {number} min
 * @param {number} max
 * @throws {BmError} `argument`
 */
export function checkInteger(name, value, min, max) {
  const isInteger = typeof value === 'number' && Number.isInteger(value)
  if (isInteger && value >= min && value <= max) return
  throw new BmError('argument', `${name} is ${value}, want an integer from ${min} to ${max}`)
}
