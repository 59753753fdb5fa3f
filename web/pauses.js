/**
 * When the work must rest: while the page is hidden, and when memory is short.
 *
 * Owns the reasons, and waiting until they are gone. Streams are pulled, so whoever waits here between two pieces stops the engine, too. Tells by the
 * event `change`.
 */

/** Chromium's figures about the page's own heap. @typedef {{ usedJSHeapSize: number, jsHeapSizeLimit: number }} Heap */

/** Above this share of the heap that a page may have, memory is short. */
const FULL_SHARE = 0.9

export class Pauses extends EventTarget {
  /** @type {'hidden' | 'memory' | null} why the work rests */
  reason = null
  /** The user knows that memory is short, and goes on. */
  #ignoresMemory = false
  /** @type {(() => void)[]} who waits */
  #waiting = []

  constructor() {
    super()
    document.addEventListener('visibilitychange', () => this.#look())
  }

  /** Returns when the work may go on; at once, mostly. @param {AbortSignal} signal */
  async passage(signal) {
    if (document.hidden) this.#rest('hidden')
    else if (isHeapFull() && !this.#ignoresMemory) this.#rest('memory')
    while (this.reason && !signal.aborted) {
      await new Promise((resolve) => {
        this.#waiting.push(() => resolve(undefined))
        signal.addEventListener('abort', resolve, { once: true })
      })
    }
    signal.throwIfAborted()
  }

  /** The user wants to go on although memory is short. */
  goOn() {
    this.#ignoresMemory = true
    this.#rest(null)
  }

  /** No work is left to rest. */
  end() {
    this.#ignoresMemory = false
    this.#rest(null)
  }

  #look() {
    if (!document.hidden && this.reason === 'hidden') this.#rest(null)
  }

  /** @param {'hidden' | 'memory' | null} reason */
  #rest(reason) {
    if (this.reason === reason) return
    this.reason = reason
    if (reason === null) for (const go of this.#waiting.splice(0)) go()
    this.dispatchEvent(new Event('change'))
  }
}

function isHeapFull() {
  const { memory } = /** @type {{ memory?: Heap }} */ (/** @type {unknown} */ (performance))
  return memory !== undefined && memory.usedJSHeapSize > FULL_SHARE * memory.jsHeapSizeLimit
}
