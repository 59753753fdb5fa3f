/**
 * Keeps what is written, so that a reload, an update or a closed tab loses nothing.
 *
 * Owns where: a tab has a slot of its own as long as it lives, by a lock, so two tabs never write over each other, and the next tab finds what the last
 * one left. The session goes to the package's store, its text also by itself, for the day on which the model is another one.
 */

import { SessionStore } from './bimamba.js'

/** @typedef {import('./story.js').Outline} Outline */
/** @typedef {{ outline: Outline, address: string | null }} Draft  address: of the model that it was written with */

const MOST_TABS = 32
/** Changes that come so soon after each other are kept together, ms. */
const DELAY_MS = 800

export class DraftKeeper {
  #store = new SessionStore()
  #slot = 0
  #timer = 0
  /** @type {Promise<void>} */
  #writing = Promise.resolve()

  /** Takes the first slot that no other tab has. */
  async claim() {
    const { locks } = navigator
    if (!locks) return
    for (let slot = 0; slot < MOST_TABS; slot++) {
      const isOurs = await new Promise((resolve) => {
        void locks.request(`bimamba-draft-${slot}`, { ifAvailable: true }, (lock) => {
          resolve(lock !== null)
          // Held until the tab is gone.
          return lock ? new Promise(() => {}) : undefined
        })
      })
      this.#slot = slot
      if (isOurs) return
    }
  }

  /** @returns {Draft | null} what was left in this slot */
  read() {
    try {
      const { outline, address } = Object(JSON.parse(localStorage.getItem(this.#key) ?? '{}'))
      if (!isOutline(outline)) return null
      return { outline, address: typeof address === 'string' ? address : null }
    } catch {
      return null // no storage here, or something else is kept under that name
    }
  }

  /**
   * The session that was left, if it is of this model and has read that text.
   * @param {import('../js/index.js').BiMamba} model
   * @param {{ checkpointBytes: number }} options
   */
  async session(model, options) {
    try {
      return await this.#store.load(this.#key, model, options)
    } catch {
      return null // of another model, or there is none: the text is read anew
    }
  }

  /** Keeps the text soon. @param {() => Draft} read */
  keepSoon(read) {
    clearTimeout(this.#timer)
    this.#timer = window.setTimeout(() => this.keepText(read()), DELAY_MS)
  }

  /** @param {Draft} draft */
  keepText(draft) {
    clearTimeout(this.#timer)
    try {
      localStorage.setItem(this.#key, JSON.stringify(draft))
    } catch {
      // No storage here, or it is full: the text lasts as long as the page.
    }
  }

  /** @param {Uint8Array<ArrayBuffer>} bytes of the session */
  async keepSession(bytes) {
    this.#writing = this.#writing.then(() => this.#store.save(this.#key, bytes)).catch(() => {}) // no storage here: the text is kept all the same
    await this.#writing
  }

  get #key() {
    return `bimamba.draft-${this.#slot}`
  }
}

/** @param {unknown} value @returns {value is Outline} */
function isOutline(value) {
  const { branches, current } = Object(value)
  return (
    Array.isArray(branches) &&
    typeof branches[current]?.text === 'string' &&
    branches.every(({ name, text }) => typeof name === 'string' && typeof text === 'string')
  )
}
