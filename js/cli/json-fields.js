/**
 * The fields of a JSON line, read one by one: a wrong one is an error that names file, line, field, what was found and what was wanted.
 *
 * Owns those messages. Does not know which fields there are.
 */

import { BmError } from '../index.js'

/** @param {unknown} value @returns {string} short and printable */
function show(value) {
  const text = JSON.stringify(value) ?? 'missing'
  return text.length > 60 ? `${text.slice(0, 60)}...` : text
}

export class JsonFields {
  #values
  #place

  /** @param {Record<string, unknown>} values @param {string} place for messages */
  constructor(values, place) {
    this.#values = values
    this.#place = place
  }

  /**
   * @param {string} text of a line
   * @param {string} place `FILE line N`
   * @returns {JsonFields}
   * @throws {BmError} `argument`: no JSON object
   */
  static parse(text, place) {
    /** @type {unknown} */
    let value
    try {
      value = JSON.parse(text)
    } catch (cause) {
      throw new BmError('argument', `${place}: it is no JSON: ${show(text)}`, { cause })
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return new JsonFields(/** @type {Record<string, unknown>} */ (value), place)
    }
    throw new BmError('argument', `${place}: it is ${show(value)}, want a JSON object`)
  }

  /** All of them, unchecked. */
  get values() {
    return this.#values
  }

  /** @param {string} name */
  has(name) {
    return Object.hasOwn(this.#values, name)
  }

  /** @param {string} name @returns {unknown} unchecked; undefined: missing */
  get(name) {
    return this.has(name) ? this.#values[name] : undefined
  }

  /** @param {string} name @param {string} want @returns {BmError} that says what is wrong with the field */
  wrong(name, want) {
    const found = this.has(name) ? show(this.#values[name]) : 'missing'
    return new BmError('argument', `${this.#place}: field '${name}' is ${found}, want ${want}`)
  }

  /** @param {string} name @returns {string} */
  string(name) {
    const value = this.get(name)
    if (typeof value === 'string') return value
    throw this.wrong(name, 'a string')
  }

  /** @param {string} name @returns {string} with something in it that is not white space */
  text(name) {
    const value = this.get(name)
    if (typeof value === 'string' && value.trim() !== '') return value
    throw this.wrong(name, 'a string that is not blank')
  }

  /** @param {string} name @param {number} least how many @returns {string[]} */
  strings(name, least) {
    const value = this.get(name)
    const isList = Array.isArray(value) && value.length >= least
    if (isList && value.every((one) => typeof one === 'string')) return value
    throw this.wrong(name, `an array of ${least} or more strings`)
  }

  /**
   * @param {string} name
   * @param {number} least
   * @param {number} most
   * @returns {number} an integer, which may also be written as a string
   */
  integer(name, least, most) {
    const value = this.get(name)
    const number = typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value
    if (Number.isInteger(number) && Number(number) >= least && Number(number) <= most) {
      return Number(number)
    }
    throw this.wrong(name, `an integer from ${least} to ${most}`)
  }

  /** @param {string} name @returns {boolean} */
  boolean(name) {
    const value = this.get(name)
    if (typeof value === 'boolean') return value
    throw this.wrong(name, 'true or false')
  }

  /** @param {string} name @returns {JsonFields} the object in it */
  object(name) {
    const value = this.get(name)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return new JsonFields(
        /** @type {Record<string, unknown>} */ (value),
        `${this.#place}, in '${name}'`,
      )
    }
    throw this.wrong(name, 'an object')
  }
}
