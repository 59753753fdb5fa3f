/**
 * Two JSON schemas as one that allows what both allow.
 *
 * Owns what becomes of a keyword that both have. Knows no text. Where it cannot be said in one schema, that is an error.
 */

import { KEYWORDS, typesOf } from './schema-keywords.js'

/** @typedef {import('./schema-keywords.js').Schema} Schema */

/** The narrower of two bounds. */
const LARGER = ['minimum', 'exclusiveMinimum', 'minLength', 'minItems']
const SMALLER = ['maximum', 'exclusiveMaximum', 'maxLength', 'maxItems']

/**
 * @param {unknown} a @param {unknown} b
 * @param {(problem: string) => never} fail
 * @returns {unknown}
 */
export function merged(a, b, fail) {
  if (a === true || b === true) return a === true ? b : a
  if (a === false || b === false) return false
  const [one, two] = [/** @type {Schema} */ (a), /** @type {Schema} */ (b)]
  if (typeof a !== 'object' || typeof b !== 'object' || !a || !b) fail('want schemas')
  /** @type {Schema} */
  const both = { ...one }
  for (const [name, value] of Object.entries(two)) {
    const other = one[name]
    if (other === undefined || KEYWORDS.get(name) === 'note') both[name] = value
    else both[name] = mergedKeyword(name, other, value, fail)
  }
  checkClosed(one, two, fail)
  checkClosed(two, one, fail)
  return both
}

/** @param {string} name @param {unknown} a @param {unknown} b @param {(problem: string) => never} fail @returns {unknown} */
function mergedKeyword(name, a, b, fail) {
  if (JSON.stringify(a) === JSON.stringify(b)) return a
  if (LARGER.includes(name)) return Math.max(Number(a), Number(b))
  if (SMALLER.includes(name)) return Math.min(Number(a), Number(b))
  switch (name) {
    case 'type':
      return commonTypes(a, b, fail)
    case 'required':
      return [...new Set([...list(a), ...list(b)])]
    case 'enum': {
      const texts = list(b).map((value) => JSON.stringify(value))
      return list(a).filter((value) => texts.includes(JSON.stringify(value)))
    }
    case 'allOf':
      return [...list(a), ...list(b)]
    case 'properties': {
      const all = { .../** @type {Schema} */ (Object(a)) }
      for (const [key, schema] of Object.entries(Object(b)))
        all[key] = Object.hasOwn(all, key) ? merged(all[key], schema, fail) : schema
      return all
    }
    case 'items':
    case 'additionalProperties':
      return merged(a, b, fail)
    default:
      return fail(`two of '${name}' together are not supported`)
  }
}

/** @param {unknown} a @param {unknown} b @param {(problem: string) => never} fail @returns {string[]} */
function commonTypes(a, b, fail) {
  const [one, two] = [typesOf({ type: a }, 'allOf'), typesOf({ type: b }, 'allOf')]
  const has = (/** @type {string[]} */ types, /** @type {string} */ type) =>
    types.includes(type) || (type === 'integer' && types.includes('number'))
  const both = [...new Set([...one, ...two])].filter((type) => has(one, type) && has(two, type))
  return both.length > 0 ? both : fail('the types have nothing in common')
}

/**
 * A schema that closes its object must know the other one's properties: else it would be about those, too.
 * @param {Schema} closed @param {Schema} other @param {(problem: string) => never} fail
 */
function checkClosed(closed, other, fail) {
  const { additionalProperties: rest, properties, prefixItems } = closed
  if (prefixItems !== undefined && (other.items !== undefined || other.prefixItems !== undefined))
    fail('prefixItems and items of two schemas together are not supported')
  if (rest === undefined || rest === true) return
  const known = Object.keys(Object(properties))
  const unknown = Object.keys(Object(other.properties)).find((name) => !known.includes(name))
  if (unknown !== undefined)
    fail(`additionalProperties of one schema is about '${unknown}' of the other: not supported`)
}

/** @param {unknown} value @returns {unknown[]} */
const list = (value) => (Array.isArray(value) ? value : [value])
