/**
 * Guesses how a text goes on by a smaller model of the same vocabulary.
 *
 * Owns that model's session, which reads the text and runs ahead of it: what it guessed wrong is taken back by the state from before. Knows nothing of the
 * large model.
 */

import { Pace, turn } from './pace.js'

/** @typedef {import('./core-session.js').CoreSession} CoreSession */

export class ModelDrafter {
  #ids
  #session
  #sampler
  /** The state before the last guess, and how many tokens it had read. @type {{ state: Uint8Array, position: number } | null} */
  #before = null
  /** That the session has read behind `#before`. @type {number[]} */
  #ahead = []
  /** By all its guesses, tokens. */
  #gained = 0
  /** Its guesses need no other proof than how they went. */
  run = Number.POSITIVE_INFINITY

  /** @param {import('./id-list.js').IdList} ids of the text, which grows @param {CoreSession} session of the smaller model, at position 0; closed with this */
  constructor(ids, session) {
    this.#ids = ids
    this.#session = session
    this.#sampler = session.createSampler({ temperature: 0 })
  }

  /** Nothing is to be done between two guesses. */
  follow() {}

  /** Reads what it has not read of the text. @param {AbortSignal} [signal] */
  async read(signal) {
    const session = this.#session
    if (this.#before) {
      const { state, position } = this.#before
      const isRight = this.#ahead.every((id, i) => id === this.#ids.at(position + i))
      if (!isRight || position + this.#ahead.length > this.#ids.length)
        session.adopt(state, position)
      this.#before = null
    }
    const pace = new Pace(session.maxChunk)
    while (session.position < this.#ids.length) {
      const { position } = session
      session.append(
        this.#ids.slice(position, Math.min(position + session.maxChunk, this.#ids.length)),
      )
      if (pace.isOver()) await turn(signal)
    }
  }

  /**
   * Gives up when its guesses do not pay: what it would have to read to take part again costs more than they can bring.
   * @param {number} tokens
   */
  lost(tokens) {
    this.#gained -= tokens
    if (this.#gained < 0) this.run = 0
  }

  /** @param {number} count @returns {Promise<number[]>} what it would write next, greedily */
  async propose(count) {
    await this.read()
    const session = this.#session
    this.#before = { state: session.state(), position: session.position }
    /** @type {number[]} */
    const guess = []
    for (;;) {
      guess.push(this.#sampler.sample())
      if (guess.length >= count) break
      session.append(guess.slice(-1))
    }
    this.#ahead = guess.slice(0, -1)
    return guess
  }

  close() {
    this.#sampler.close()
    this.#session.close()
  }
}
