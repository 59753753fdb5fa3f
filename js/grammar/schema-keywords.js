/**
 * The keywords of JSON Schema that are understood, and what they say about types.
 *
 * Owns that list, the types of a schema, and when two schemas can have no value in common. Knows no text.
 */

import { BmError } from '../errors.js'

/** @typedef {Record<string, unknown>} Schema */

export const TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'array', 'object']

const NOTES =
  '$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly'
/** Keywords by the type that they are about. */
const BY_TYPE = {
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems'],
  object: ['properties', 'required', 'additionalProperties'],
}

/** What each is about; 'note': it says nothing about values. @type {ReadonlyMap<string, string>} */
export const KEYWORDS = new Map([
  ...NOTES.split(' ').map((name) => /** @type {const} */ ([name, 'note'])),
  ...['type', 'enum', 'const', '$ref', 'allOf', 'anyOf', 'oneOf'].map(
    (name) => /** @type {const} */ ([name, 'all']),
  ),
  ...Object.entries(BY_TYPE).flatMap(([type, names]) =>
    names.map((name) => /** @type {const} */ ([name, type])),
  ),
])

/** @param {Schema} schema @param {string} where @returns {string[]} the types that it is written as */
export function typesOf(schema, where) {
  const { type } = schema
  if (type === undefined) {
    const about = new Set(Object.keys(schema).map((name) => KEYWORDS.get(name)))
    const found = Object.keys(BY_TYPE).filter((name) => about.has(name))
    return found.length > 0 ? found : TYPES.filter((name) => name !== 'integer')
  }
  const types = Array.isArray(type) ? type : [type]
  const unknown = types.find((name) => !TYPES.includes(name))
  if (unknown !== undefined || types.length === 0) {
    const found = JSON.stringify(unknown ?? type)
    throw new BmError(
      'argument',
      `format.jsonSchema at ${where}: type is ${found}, want ${TYPES.join(', ')}`,
    )
  }
  // What is an integer is a number, too.
  return types.filter((name) => name !== 'integer' || !types.includes('number'))
}

/** @param {unknown} value @returns {string} of the names above, the most exact one */
function typeOf(value) {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  return Number.isInteger(value) ? 'integer' : typeof value
}

/**
 * @param {unknown} a @param {unknown} b schemas
 * @param {(schema: unknown) => unknown} resolve a reference
 * @returns {boolean} whether it is sure that no value fits both
 */
export function areApart(a, b, resolve) {
  const [one, two] = [summary(a), summary(b)]
  if (!one || !two) return false
  const kind = (/** @type {string} */ type) => (type === 'integer' ? 'number' : type)
  if (!one.types.some((type) => two.types.some((other) => kind(type) === kind(other)))) return true
  if (one.values && two.values) {
    const others = two.values.map((value) => JSON.stringify(value))
    return !one.values.some((value) => others.includes(JSON.stringify(value)))
  }
  const [first, second] = [/** @type {Schema} */ (a), /** @type {Schema} */ (b)]
  const isObject = [one, two].every(({ types }) => types.length === 1 && types[0] === 'object')
  if (!isObject || one.values || two.values) return false
  const needed = (/** @type {Schema} */ { required }) => (Array.isArray(required) ? required : [])
  const both = needed(first).filter((name) => needed(second).includes(name))
  return both.some((name) => {
    const [own, other] = [first, second].map(({ properties }) =>
      resolve(/** @type {Schema} */ (Object(properties))[name]),
    )
    return own !== undefined && other !== undefined && areApart(own, other, resolve)
  })
}

/** @param {unknown} schema @returns {{ types: string[], values: unknown[] | null } | null} null: not known */
function summary(schema) {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return null
  const { const: only, enum: all, type, allOf, anyOf, oneOf } = /** @type {Schema} */ (schema)
  if (allOf || anyOf || oneOf) return null
  const values = only !== undefined ? [only] : Array.isArray(all) ? all : null
  if (values) return { types: values.map(typeOf), values }
  // Values are written as these types only, but others fit as long as none is said.
  return type === undefined ? null : { types: typesOf({ type }, ''), values: null }
}
