/**
 * Reads the fields of a request, one by one, and says which one is wrong.
 *
 * Owns the rules that are the same for all of them: null is as if it were not there, and an error names the field, what was found and what was wanted.
 * Fields that nobody asks for are not looked at, as clients send many that mean nothing here.
 */

import { OpenAIError } from './openai-error.js'

/** @typedef {{ min: number, max: number, integer?: boolean }} Range */

/** Characters of a value in a message. */
const MOST_SHOWN = 60

export class Fields {
  #body
  #path

  /** @param {unknown} body @param {string} [path] of the field that it is, for messages */
  constructor(body, path = '') {
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      throw new OpenAIError(`${path || 'the request'} is ${shown(body)}, want an object`, {
        param: path || null,
      })
    }
    this.#body = /** @type {Record<string, unknown>} */ (body)
    this.#path = path === '' ? '' : `${path}.`
  }

  /** @param {string} name @returns {unknown} undefined: it is not there */
  get(name) {
    return Object.hasOwn(this.#body, name) ? (this.#body[name] ?? undefined) : undefined
  }

  /** @param {string} name @param {Range} range @returns {number | undefined} */
  number(name, { min, max, integer = false }) {
    const value = this.get(name)
    if (value === undefined) return undefined
    const isOne = typeof value === 'number' && value >= min && value <= max
    if (isOne && (!integer || Number.isInteger(value))) return value
    throw this.wrong(name, `want ${integer ? 'an integer' : 'a number'} from ${min} to ${max}`)
  }

  /** @param {string} name @returns {boolean} false: it is not there */
  flag(name) {
    const value = this.get(name) ?? false
    if (typeof value === 'boolean') return value
    throw this.wrong(name, 'want true or false')
  }

  /** @param {string} name @returns {string | undefined} */
  text(name) {
    const value = this.get(name)
    if (value === undefined || typeof value === 'string') return value
    throw this.wrong(name, 'want a string')
  }

  /** @param {string} name @param {string} [otherwise] what is wanted besides @returns {unknown[] | undefined} */
  list(name, otherwise = '') {
    const value = this.get(name)
    if (value === undefined || Array.isArray(value)) return value
    throw this.wrong(name, `want an array${otherwise}`)
  }

  /** @param {string} name @returns {Fields | undefined} of an object */
  object(name) {
    const value = this.get(name)
    return value === undefined ? undefined : new Fields(value, this.#path + name)
  }

  /** What would be ignored, and then the answer would not be what was asked for. @param {string} name @param {unknown} [harmless] a value that asks for nothing */
  refuse(name, harmless) {
    const value = this.get(name)
    const isEmpty = value === undefined || value === harmless || value === ''
    if (isEmpty || (Array.isArray(value) && value.length === 0)) return
    throw this.wrong(name, 'which is not supported')
  }

  /** @param {string} name @param {string} wanted @returns {OpenAIError} */
  wrong(name, wanted) {
    const param = this.#path + name
    return new OpenAIError(`${param} is ${shown(this.#body[name])}, ${wanted}`, { param })
  }
}

/** @param {unknown} value @returns {string} the beginning of it */
function shown(value) {
  try {
    const found = JSON.stringify(value) ?? 'missing'
    return found.length > MOST_SHOWN ? `${found.slice(0, MOST_SHOWN)}…` : found
  } catch {
    return 'too deep to be shown'
  }
}
