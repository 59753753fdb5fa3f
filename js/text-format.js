/**
 * The option `format`: what a generated text has to be.
 *
 * Owns its check and its plain form, which can cross to a worker. What is in a schema, an expression or a grammar is looked at beside the engine, by
 * js/constraint.js, before anything is generated.
 */

import { BmError } from './errors.js'

/**
 * One of three:
 *
 * - `jsonSchema`: the text is JSON that is valid by this schema; `true`: any JSON
 * - `regex`: the text matches this expression from its beginning to its end, as one of JavaScript with the flag `u`
 * - `grammar`: the text is a `root` of this grammar, in the notation of llama.cpp (GBNF)
 *
 * @typedef {{ jsonSchema: object | boolean } | { regex: string } | { grammar: string }} TextFormat
 */

const NAMES = ['jsonSchema', 'regex', 'grammar']
/** Longer ones are a mistake. */
const MOST_UNITS = 2 ** 20

/**
 * @param {unknown} format
 * @returns {TextFormat} plain data, a copy
 * @throws {BmError} `argument`
 */
export function checkFormat(format) {
  const names = typeof format === 'object' && format !== null ? Object.keys(format) : []
  const [name = ''] = names
  if (names.length !== 1 || !NAMES.includes(name)) {
    const found = names.length > 0 ? `has ${names.join(', ')}` : `is ${String(format)}`
    throw new BmError('argument', `format ${found}, want one of ${NAMES.join(', ')}`)
  }
  const value = /** @type {Record<string, unknown>} */ (format)[name]
  if (name === 'jsonSchema') return { jsonSchema: plainSchema(value) }
  if (typeof value !== 'string' || value.length > MOST_UNITS) {
    const found = typeof value === 'string' ? `${value.length} characters` : typeof value
    throw new BmError(
      'argument',
      `format.${name} is ${found}, want a string of up to ${MOST_UNITS}`,
    )
  }
  return name === 'regex' ? { regex: value } : { grammar: value }
}

/** @param {unknown} schema @returns {object | boolean} */
function plainSchema(schema) {
  let text = ''
  try {
    text = JSON.stringify(schema) ?? ''
  } catch (cause) {
    throw new BmError('argument', `format.jsonSchema is no JSON: ${cause}`, { cause })
  }
  if (!/^[{tf]/.test(text) || text.length > MOST_UNITS) {
    const found = text.length > MOST_UNITS ? `${text.length} characters of JSON` : typeof schema
    throw new BmError('argument', `format.jsonSchema is ${found}, want a schema: an object`)
  }
  return JSON.parse(text)
}
