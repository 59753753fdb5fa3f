/**
 * Keeps what is written, so that a reload, an update or a closed tab loses no text, and no moment that was wanted.
 *
 * Owns where: a tab has a slot of its own as long as it lives, by a lock, so two tabs never write over each other, and the next tab finds what the last
 * one left. The session goes to the package's store, its text also by itself, for the day on which the model is another one.
 */

import { SessionStore } from './bimamba.js'

/** @typedef {import('./story.js').Outline} Outline */
/** @typedef {{ outline: Outline, address: string | null }} Draft  address: of the model that it was written with */

const MOST_TABS = 32
const SLOT_KEY = 'bimamba.slot'
/** Changes that come so soon after each other are kept together, ms. */
const DELAY_MS = 800

export class DraftKeeper {
  #store = new SessionStore()
  #slot = 0
  #timer = 0
  /** What was left is known, so it may be written over. */
  #isRead = false
  /** @type {Promise<void>} */
  #writing = Promise.resolve()
  #onFull

  /** @param {() => void} onFull what was written could not be kept; called each time */
  constructor(onFull) {
    this.#onFull = onFull
  }

  /** Takes the first slot that no other tab has. */
  async claim() {
    const { locks } = navigator
    if (!locks) return
    // A tab that is loaded anew goes on with its own; in a copy of it that one is taken.
    const own = readSlot()
    for (const slot of [...(own === null ? [] : [own]), ...Array(MOST_TABS).keys()]) {
      this.#slot = slot
      const isOurs = await new Promise((resolve) => {
        locks
          .request(`bimamba-draft-${slot}`, { ifAvailable: true }, (lock) => {
            resolve(lock !== null)
            // Held until the tab is gone.
            return lock ? new Promise(() => {}) : undefined
          })
          .catch(() => resolve(true)) // no locks here: as if there were one tab
      })
      if (isOurs) break
    }
    keepSlot(this.#slot)
  }

  /** @returns {Draft | null} what was left in this slot */
  read() {
    this.#isRead = true
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
    if (!this.#isRead) return
    try {
      localStorage.setItem(this.#key, JSON.stringify(draft))
    } catch {
      // No storage here, or it is full: the text lasts as long as the page.
      this.#onFull()
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

/** @returns {number | null} the slot that this tab had before it was loaded anew */
function readSlot() {
  try {
    const slot = Number(sessionStorage.getItem(SLOT_KEY) ?? Number.NaN)
    return Number.isInteger(slot) && slot >= 0 && slot < MOST_TABS ? slot : null
  } catch {
    return null // no storage here
  }
}

/** @param {number} slot */
function keepSlot(slot) {
  try {
    sessionStorage.setItem(SLOT_KEY, String(slot))
  } catch {
    // No storage here: the tab takes the first slot that is free.
  }
}

/** @param {unknown} value @returns {value is Outline} */
function isOutline(value) {
  const { branches, current } = Object(value)
  return (
    Array.isArray(branches) &&
    typeof branches[current]?.text === 'string' &&
    branches.every(
      ({ name, text, moments = [] }) =>
        typeof name === 'string' &&
        typeof text === 'string' &&
        Array.isArray(moments) &&
        moments.every(isMoment),
    )
  )
}

/** @param {unknown} value @returns {value is import('./story.js').KeptMoment} */
function isMoment(value) {
  const { label, text, position } = Object(value)
  return typeof label === 'string' && typeof text === 'string' && typeof position === 'number'
}
