/**
 * Reads a prompt while the model's layers are still arriving.
 *
 * Owns waiting for what each step needs: the ids, which need the tokenizer, and the layer. Knows nothing about where layers come from.
 * The idea: a prompt can go through a layer as soon as that is complete, all its tokens before the next one. A download takes longer than the
 * work, so behind the last byte only the last layer is left; and how a prompt is cut changes no bit of the result.
 */

import { BmError } from './errors.js'
import { breathe } from './platform.js'

/** @typedef {import('./core-session.js').CoreSession} CoreSession */

export class EarlyPrompt {
  #session
  /** @type {Set<number>} parts of the model that are sealed */
  #sealed = new Set()
  /** @type {() => void} */
  #wake = () => {}
  #stopped = false
  /** @type {Promise<Uint32Array>} */
  #work

  /**
   * @param {CoreSession} session  at position 0, of a model that need not be complete
   * @param {Promise<Uint32Array>} ids
   */
  constructor(session, ids) {
    this.#session = session
    this.#work = this.#run(ids)
    this.#work.catch(() => {}) // whoever awaits `done` is told
  }

  /** @returns {Promise<Uint32Array>} the ids that the session has read then */
  get done() {
    return this.#work
  }

  /** @param {number} part of the model is sealed */
  partSealed(part) {
    this.#sealed.add(part)
    this.#wake()
  }

  /** Before the session is closed. */
  stop() {
    this.#stopped = true
    this.#wake()
  }

  /** @param {Promise<Uint32Array>} promise */
  async #run(promise) {
    const ids = await promise
    this.#checkGoing()
    const prompt = this.#session.createPrompt(ids)
    try {
      while (prompt.nextPart !== null) {
        while (!this.#sealed.has(prompt.nextPart)) await this.#nextSealing()
        prompt.step()
        // Bytes arrive only between steps.
        await breathe()
        this.#checkGoing()
      }
      return ids
    } finally {
      prompt.close()
    }
  }

  async #nextSealing() {
    await new Promise((resolve) => {
      this.#wake = () => resolve(undefined)
    })
    this.#checkGoing()
  }

  #checkGoing() {
    if (this.#stopped) throw new BmError('closed', 'the load has ended')
  }
}
