/**
 * Says to a screen reader what is written, sentence by sentence.
 *
 * Owns the live region: it gets a sentence when that is complete, a few at a time and at most one lot a second, never single tokens. The idea: a voice is
 * slower than the model, so of what came meanwhile it says the last sentences, and the rest is in the text.
 */

import { el } from './element.js'

const PAUSE_MS = 1000
/** Sentences that are said at once. */
const MOST = 3
const ENDED = /[^.!?]*[.!?]+["'\u2019\u201d)]*(?=\s|$)/g

export class SentenceVoice {
  #region
  #text = ''
  #timer = 0

  /** @param {HTMLElement} region that is live */
  constructor(region) {
    this.#region = region
  }

  /** @param {string} text that was written */
  add(text) {
    this.#text += text
    this.#timer ||= window.setTimeout(() => this.#say(false), PAUSE_MS)
  }

  /** The text has ended: what is left is said, too. */
  end() {
    this.#say(true)
  }

  /** @param {boolean} all also a sentence that has not ended */
  #say(all) {
    clearTimeout(this.#timer)
    this.#timer = 0
    /** @type {string[]} */
    const sentences = this.#text.match(ENDED) ?? []
    const length = sentences.join('').length
    const rest = this.#text.slice(length)
    this.#text = all ? '' : rest
    if (all && rest.trim() !== '') sentences.push(rest)
    const said = sentences.slice(-MOST).map((sentence) => el('span', {}, `${sentence.trim()} `))
    if (said.length > 0) this.#region.replaceChildren(...said)
  }
}
