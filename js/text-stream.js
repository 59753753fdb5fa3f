/**
 * The text of a generation, token by token, as it can be given out.
 *
 * Owns where one generation's text ends and the next one's begins: a character that is not whole yet is completed by the next tokens, and a stop
 * string is found across the border. Knows no model; js/detokenizer.js has the two parts.
 */

import { Detokenizer, StopMatcher } from './detokenizer.js'

/** @typedef {import('./detokenizer.js').TokenBytes} TokenBytes */

/**
 * The end of a generated text, as long as a stop string can be.
 *
 * @typedef {object} Tail
 * @property {string} text
 * @property {number} given  how many of its UTF-16 units were given out; the rest was held back, because a stop string may begin there
 */

/** @type {Readonly<Tail>} */
export const NO_TAIL = Object.freeze({ text: '', given: 0 })

/** A stop string has at most 1000 units. */
const MOST_TAIL = 999

export class TextStream {
  #detokenizer
  #stops
  #tail

  /**
   * @param {TokenBytes | null} table null: no tokenizer, so no text
   * @param {readonly string[]} stops
   * @param {{ ids: import('./id-list.js').IdList, tail: Tail }} before what the text continues
   * @param {boolean} isApart a text of its own: nothing that is before it is completed in it
   */
  constructor(table, stops, { ids, tail: before }, isApart) {
    const tail = isApart ? NO_TAIL : before
    this.#detokenizer = table && new Detokenizer(table, ids)
    if (isApart) this.#detokenizer?.flush()
    this.#stops = new StopMatcher(stops, tail)
    this.#tail = tail.text
  }

  /** @returns {string} what was held back, if these stop strings do not hold it back */
  begin() {
    return this.#stops.push('')
  }

  /** @param {number} id @returns {string} what can be given out */
  push(id) {
    const text = this.#detokenizer?.push(id) ?? ''
    this.#tail = (this.#tail + text).slice(-MOST_TAIL)
    return this.#stops.push(text)
  }

  /** @returns {boolean} whether a space that comes now is the tokenizer's own, and not printed */
  get atStart() {
    return this.#detokenizer?.atStart ?? false
  }

  /** @returns {boolean} whether a stop string was found */
  get stopped() {
    return this.#stops.stopped
  }

  /** @param {boolean} isLast nothing will continue it: a character that is not whole is given out as U+FFFD @returns {string} the rest */
  end(isLast) {
    const rest = isLast ? (this.#detokenizer?.flush() ?? '') : ''
    return this.#stops.push(rest) + this.#stops.flush()
  }

  /** @returns {Tail} what the next generation must know */
  get tail() {
    if (this.#stops.stopped) return { text: '', given: 0 }
    return { text: this.#tail, given: this.#tail.length - this.#stops.heldLength }
  }
}
