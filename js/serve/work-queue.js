/**
 * One work after another.
 *
 * Owns the order and how many may wait: the engine is as fast with one text as the machine's memory is, so two at once would both be half as fast. Who
 * goes away while waiting leaves the queue.
 */

import { OpenAIError } from '../openai/index.js'

export class WorkQueue {
  #most
  #isBusy = false
  /** @type {(() => void)[]} */
  #waiting = []

  /** @param {number} most that may wait */
  constructor(most) {
    this.#most = most
  }

  /** @returns {number} */
  get length() {
    return this.#waiting.length
  }

  /**
   * @template T
   * @param {() => Promise<T>} work
   * @param {AbortSignal} signal  of whoever waits
   * @returns {Promise<T>}
   * @throws {OpenAIError} 429: too many wait already
   */
  async run(work, signal) {
    signal.throwIfAborted()
    if (this.#isBusy) await this.#wait(signal)
    this.#isBusy = true
    try {
      signal.throwIfAborted()
      return await work()
    } finally {
      this.#isBusy = false
      this.#waiting.shift()?.()
    }
  }

  /** @param {AbortSignal} signal */
  async #wait(signal) {
    if (this.#waiting.length >= this.#most) {
      throw new OpenAIError(`${this.#most} requests wait already`, {
        status: 429,
        type: 'server_overloaded',
        code: 'queue_full',
      })
    }
    await new Promise((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave)
        // Whoever comes in the meantime must not go first.
        this.#isBusy = true
        resolve(undefined)
      }
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(go), 1)
        reject(signal.reason)
      }
      this.#waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }
}
