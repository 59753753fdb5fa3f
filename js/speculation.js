/**
 * Speculative decoding: several tokens are guessed, read at once, and kept as far as they are what would have been drawn.
 *
 * Owns when to guess, and the draft between its reading and its end. Each token is drawn from the logits of the model itself, as without a guess: so a text is
 * the same to the bit, whatever the sampling; a guess only decides which tokens were read before they were asked for. js/generate.js draws.
 * The idea: a pass over 16 tokens costs about as much as 9 single ones on a CPU, so a guess must be long and likely; and what guesses have lost may never be
 * more than a small share of what the text took.
 */

/** @typedef {import('./core-session.js').CoreSession} CoreSession */
/** @typedef {import('./timeline.js').Timeline} Timeline */

/** Tokens that a pass takes together; more cost a second one. */
const PASS_TOKENS = 16
/** With fewer a pass saves nothing. */
const LEAST_GUESS = 7
/** What may be lost, in tokens: so many at once, and this share of those that were made. */
const CREDIT = 8
const SHARE = 0.03
/** So many tokens must have been guessed right, in silence, before a guess is tried; and after each that failed at once, twice as many. */
const LEAST_RUN = 12
const MOST_RUN = 48
/** The weight of a new time among the earlier ones. */
const FRESH = 0.1

/**
 * What guesses.
 *
 * @typedef {object} Drafter
 * @property {number} run          tokens that it would have guessed right up to here
 * @property {() => void} follow   the text has grown
 * @property {(signal?: AbortSignal) => Promise<void>} read  what it must read of the text, however long that is
 * @property {(count: number) => number[] | Promise<number[]>} propose  at most so many tokens
 * @property {(tokens: number) => void} lost  what the last guess has cost more than it gave; below 0: gained
 * @property {() => void} close
 */

export class Speculation {
  #timeline
  #drafter
  #draft
  /** What is left to be lost, tokens. */
  #credit = CREDIT
  #leastRun = LEAST_RUN
  /** Of a pass over one token, ms. */
  #tokenMs = 0
  /** That was read: what was guessed, how much of it was right so far, what it took. @type {{ ids: number[], right: number, ms: number } | null} */
  #trial = null
  /** Tokens that were guessed and read, and those of them that were right. */
  drafted = 0
  accepted = 0

  /** @param {Timeline} timeline @param {CoreSession} session of it @param {Drafter} drafter */
  constructor(timeline, session, drafter) {
    this.#timeline = timeline
    this.#drafter = drafter
    this.#draft = session.createDraft(Math.min(PASS_TOKENS, session.maxChunk))
  }

  /**
   * After this the session's last logits are those after the timeline's last token.
   * @param {number} most tokens that are still wanted
   */
  async step(most) {
    const { ids } = this.#timeline
    const trial = this.#trial
    if (trial && trial.ids[trial.right] === ids.at(ids.length - 1)) {
      trial.right++
      this.#draft.lookAt(trial.right + 1)
      return
    }
    await this.settle()
    if (!this.#timeline.isBehindByOne) return
    this.#drafter.follow()
    const began = performance.now()
    const guess = await this.#guess(most)
    if (guess.length < LEAST_GUESS) await this.#readOne()
    else this.#try(guess, began)
  }

  /** @param {number} most @returns {Promise<number[]>} */
  async #guess(most) {
    const isLikely = this.#drafter.run >= this.#leastRun
    if (!isLikely || this.#credit < CREDIT || this.#tokenMs === 0) return []
    const room = Math.min(most - 1, this.#timeline.room - 1, this.#draft.capacity - 1)
    return room < LEAST_GUESS ? [] : this.#drafter.propose(room)
  }

  async #readOne() {
    const { session, ids } = this.#timeline
    const began = performance.now()
    session.append([ids.at(ids.length - 1)])
    const ms = performance.now() - began
    this.#tokenMs = this.#tokenMs === 0 ? ms : this.#tokenMs + FRESH * (ms - this.#tokenMs)
    this.#credit = Math.min(Math.max(CREDIT, this.#credit), this.#credit + SHARE)
    await this.#timeline.passed()
  }

  /** @param {number[]} guess @param {number} began when it was asked for */
  #try(guess, began) {
    const { ids } = this.#timeline
    this.#draft.read([ids.at(ids.length - 1), ...guess], 1)
    this.#trial = { ids: guess, right: 0, ms: performance.now() - began }
    this.drafted += guess.length
  }

  /** What was guessed wrong, or is not wanted, was never read: the session is as the timeline says. */
  async settle() {
    const trial = this.#trial
    if (!trial) return
    this.#trial = null
    const { ids, session } = this.#timeline
    const { right } = trial
    const began = performance.now()
    this.#draft.keep(Math.max(1, Math.min(right + 1, ids.length - session.position)))
    const ms = trial.ms + performance.now() - began
    this.accepted += right
    const loss = ms / this.#tokenMs - right - 1
    this.#drafter.lost(loss)
    this.#credit = Math.min(2 * CREDIT, this.#credit - loss)
    this.#leastRun = right > 0 ? LEAST_RUN : Math.min(MOST_RUN, 2 * this.#leastRun)
    await this.#timeline.passed()
  }

  async close() {
    try {
      // Of a session that was closed meanwhile there is nothing to settle.
      if (this.#draft.isOpen) await this.settle()
    } finally {
      this.#draft.close()
      this.#drafter.close()
    }
  }
}
