/**
 * Trying again: how often, after how long, and what ends the waiting.
 *
 * Owns the backoff. Knows nothing about what is tried; a failure says whether trying again can help.
 * The idea: tries are counted from the last progress, so a bad line may fail a hundred times on the way, and a dead server
 * is given up after a few. Waits double and are drawn at random within their upper half: clients that failed together do not come back together.
 */

import { BmError } from './errors.js'

/** Longest pause of our own, ms. */
const MOST_DELAY_MS = 30_000
/** A server that wants a longer pause than this is not waited for, ms. */
const MOST_RETRY_AFTER_MS = 120_000

/** A request that failed. */
export class RequestFailure extends BmError {
  /**
   * @param {string} message
   * @param {{ retryable?: boolean, retryAfterMs?: number | null, cause?: unknown }} [details]
   */
  constructor(message, { retryable = false, retryAfterMs = null, cause } = {}) {
    super('network', message, cause === undefined ? {} : { cause })
    this.retryable = retryable
    /** What the server asked for. */
    this.retryAfterMs = retryAfterMs
  }
}

/**
 * @typedef {object} RetryLimits
 * @property {number} retries      after a failure, without progress between them
 * @property {number} retryDelayMs before the first of them; doubles with each
 */

/** The failures of one sequence of requests. */
export class Retries {
  #limits
  #signal
  #failed = 0

  /** @param {RetryLimits} limits @param {AbortSignal} [signal] */
  constructor(limits, signal) {
    this.#limits = limits
    this.#signal = signal
  }

  /** Something arrived: the count begins anew. */
  progress() {
    this.#failed = 0
  }

  /**
   * Waits before the next try.
   *
   * @param {unknown} error thrown again when trying again cannot help, or was tried often enough
   * @param {number} [most] fewer retries than the limits say
   */
  async pause(error, most = this.#limits.retries) {
    this.#signal?.throwIfAborted()
    if (!(error instanceof RequestFailure) || !error.retryable) throw error
    const { retryAfterMs } = error
    if (retryAfterMs !== null && retryAfterMs > MOST_RETRY_AFTER_MS) {
      const seconds = Math.ceil(retryAfterMs / 1000)
      throw new RequestFailure(`${error.message}; it asks to come back in ${seconds} s`, {
        retryAfterMs,
        cause: error,
      })
    }
    if (this.#failed >= Math.min(most, this.#limits.retries)) {
      const tries = this.#failed + 1
      const message = tries > 1 ? `${error.message}, ${tries} times in a row` : error.message
      throw new RequestFailure(message, { cause: error })
    }
    const longest = Math.min(MOST_DELAY_MS, this.#limits.retryDelayMs * 2 ** this.#failed)
    this.#failed++
    await sleep(Math.max(retryAfterMs ?? 0, longest * (0.5 + Math.random() / 2)), this.#signal)
  }
}

/**
 * Ends early when a machine that was offline is online again.
 *
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
async function sleep(ms, signal) {
  const host = globalThis.navigator?.onLine === false ? globalThis : null
  await new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer)
      host?.removeEventListener('online', done)
      signal?.removeEventListener('abort', done)
      resolve(undefined)
    }
    const timer = setTimeout(done, ms)
    host?.addEventListener('online', done)
    signal?.addEventListener('abort', done)
  })
  signal?.throwIfAborted()
}
