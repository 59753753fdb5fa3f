/**
 * The copy of one remote file that is kept on this device, whole or in part.
 *
 * Owns which store it is in, when its lock is held, and what happens when keeping fails: loading goes on from memory, and `note` says
 * why. Does not check bytes (js/download.js does, whenever they are read) and does not know how a store works (js/cache/).
 * The idea: reading needs no lock, because nothing is believed without its hash; only writing takes one, so that a file that two
 * tabs want is downloaded once. Whoever has waited for the lock looks again at what is there.
 */

import { StorageFullError } from './cache/store-errors.js'
import { BmError, reasonOf } from './errors.js'

/** @typedef {import('./cache/stores.js').Store} Store */
/** @typedef {import('./cache/stores.js').Entry} Entry */
/** @typedef {import('./cache/stores.js').WritableEntry} WritableEntry */

export class StoredCopy {
  #stores
  #url
  /** @type {Store | null} that has the file, or is to have it */
  #store = null
  /** @type {Entry | null} */
  #entry = null
  /** @type {WritableEntry | null} the same, while writing */
  #writable = null
  /** @type {(() => Promise<void>) | null} */
  #unlock = null
  /** @type {Promise<boolean> | null} */
  #starting = null
  /** @type {string | null} of the file that `find` looked for */
  #identity = null
  /** Something could not be written: nothing more is tried. */
  #hasGivenUp = false
  /** @type {string | null} why the file is not kept, for people */
  note = null

  /**
   * @param {string} url
   * @param {Store[]} stores     best first
   * @param {string[]} refusals  why there are no better ones
   */
  constructor(url, stores, refusals) {
    this.#url = url
    this.#stores = stores
    if (!stores.some(({ writable }) => writable)) {
      this.note = `nothing can be kept here: ${refusals.join('; ') || 'no store can be written to'}`
    }
  }

  /** Where it is kept; null: only in memory. */
  get kind() {
    return this.#entry ? (this.#store?.kind ?? null) : null
  }

  /** Whether all may be there and the store does not know it, and could be told. */
  get isUnsure() {
    return this.#entry !== null && !this.#entry.complete && this.#store?.writable === true
  }

  /** The file that the URL was when it was last seen. @returns {Promise<string | null>} its identity */
  async lastIdentity() {
    for (const store of this.#stores) {
      const identity = await store.identityOf(this.#url).catch(() => null)
      if (identity !== null) return identity
    }
    return null
  }

  /**
   * Opens what there is of a file, for reading.
   *
   * @param {string} identity
   * @returns {Promise<boolean>} whether there is anything
   */
  async find(identity) {
    await this.close()
    this.#identity = identity
    for (const store of this.#stores) {
      const entry = await store.open(identity).catch(() => null)
      if (!entry) continue
      const isBetter = this.#entry === null || (entry.complete && !this.#entry.complete)
      await (isBetter ? this.#entry : entry)?.close()
      if (isBetter) [this.#store, this.#entry] = [store, entry]
    }
    return this.#entry !== null
  }

  /** @param {number} chunk @param {number} start of it @returns {boolean} false: it is certainly not there */
  mayHave(chunk, start) {
    return this.#entry?.mayHave(chunk, start) ?? false
  }

  /**
   * @param {number} start 0, or the start of a chunk
   * @param {Uint8Array} target
   * @returns {Promise<number>} bytes read; what cannot be read is not there
   */
  async read(start, target) {
    return (await this.#entry?.read(start, target).catch(() => 0)) ?? 0
  }

  /**
   * Takes the lock and opens the file for writing; from then on `mayHave` and `read` are of that.
   *
   * @param {Uint8Array} header of the file that `find` looked for
   * @param {{ fileBytes: number, chunkCount: number }} sizes
   * @param {{ signal?: AbortSignal | undefined, onWait?: () => void }} [control]
   * @returns {Promise<boolean>} whether what is fetched is kept
   */
  async startWriting(header, sizes, control = {}) {
    this.#starting ??= this.#startWriting(header, sizes, control)
    return this.#starting
  }

  /**
   * @param {Uint8Array} header
   * @param {{ fileBytes: number, chunkCount: number }} sizes
   * @param {{ signal?: AbortSignal | undefined, onWait?: () => void }} control
   */
  async #startWriting(header, sizes, { signal, onWait = () => {} }) {
    const store = this.#store?.writable
      ? this.#store
      : this.#stores.find(({ writable }) => writable)
    const identity = String(this.#identity)
    if (!store || this.#hasGivenUp) return false
    try {
      this.#unlock = await store.lock(identity, { ...(signal ? { signal } : {}), onWait })
      const writable = await store.create(identity)
      await this.#entry?.close()
      this.#store = store
      this.#entry = writable
      this.#writable = writable
      await writable.writeHeader(header, sizes)
      await this.#rememberUrl(store, identity)
      return true
    } catch (error) {
      signal?.throwIfAborted()
      await this.#giveUp(error)
      return false
    }
  }

  /** A URL that is another file now needs the old one no more. @param {Store} store @param {string} identity */
  async #rememberUrl(store, identity) {
    const before = await store.identityOf(this.#url)
    await store.remember(this.#url, identity)
    if (before === null || before === identity) return
    const old = (await store.list()).find((model) => model.identity === before)
    if (old && old.urls.length === 0) await store.remove(before).catch(() => {})
  }

  /**
   * Does nothing when the file is not being kept.
   *
   * @param {number} chunk @param {number} start @param {Uint8Array} bytes that are right
   */
  async write(chunk, start, bytes) {
    try {
      await this.#writable?.writeChunk(chunk, start, bytes)
    } catch (error) {
      await this.#giveUp(error)
    }
  }

  /** Every chunk has been read or written, and was right. */
  async finish() {
    try {
      await this.#writable?.finish()
      await this.#entry?.touch()
    } catch (error) {
      await this.#giveUp(error)
    }
  }

  /** Keeps nothing from here on. What fills the device up is taken away again. @param {unknown} error */
  async #giveUp(error) {
    this.#hasGivenUp = true
    if (this.note === null) {
      const reason = error instanceof BmError ? error.message : reasonOf(error)
      this.note = `the file is not kept, and the model runs from memory: ${reason}`
    }
    this.#writable = null
    if (!(error instanceof StorageFullError)) return
    const store = this.#store
    await this.close()
    await store?.remove(String(this.#identity)).catch(() => {})
  }

  /** Idempotent. */
  async close() {
    const [entry, unlock] = [this.#entry, this.#unlock]
    this.#entry = null
    this.#writable = null
    this.#unlock = null
    this.#starting = null
    this.#store = null
    await entry?.close().catch(() => {})
    await unlock?.().catch(() => {})
  }
}
