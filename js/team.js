/**
 * The threads of an engine: starts them, sizes the team by what tokens cost, sends them home.
 *
 * Owns the helper threads (js/thread.js) and the exports `thread*` of the shared module. Does not know what they compute.
 * The idea: the engine's own thread is one of the team and never waits for a helper to come. Where memory cannot be
 * shared, or with one thread, there is no team, and nothing else differs: results do not depend on its size.
 */

import { BmError } from './errors.js'
import { TeamSize } from './team-size.js'
import { startThread } from './worker-handle.js'

/** @typedef {import('./worker-handle.js').WorkerHandle} WorkerHandle */
/** @typedef {(name: string, ...args: number[]) => number} Call of an export of the engine's own instance */

/** @type {import('./worker-handle.js').ThreadScript} */
const SCRIPT = {
  ...{ option: 'threadUrl', file: './thread.js' },
  // Bundlers look for exactly this expression, options included: keep it in one piece.
  own: () => new Worker(new URL('./thread.js', import.meta.url), { type: 'module' }),
}

export class Team {
  #call
  /** @type {WorkerHandle[]} */
  #helpers = []
  #size
  #limit
  #closed = false
  /** Makes `ready` reject. @type {(error: BmError) => void} */
  #giveUp = () => {}

  /**
   * @param {object} parts
   * @param {Call} parts.call
   * @param {WebAssembly.Module} parts.module the shared one
   * @param {WebAssembly.Memory} parts.memory shared
   * @param {number} parts.threads 2 to 64, the engine's own included
   * @param {string | undefined} [parts.threadUrl] where js/thread.js is; default: beside this file
   */
  constructor({ call, module, memory, threads, threadUrl }) {
    this.#call = call
    this.#size = new TeamSize(threads)
    this.#limit = threads
    call('threads_open', threads)
    const helpers = Array.from({ length: threads - 1 }, (_, i) =>
      this.#start({ module, memory, seat: i + 1 }, threadUrl),
    )
    /** @type {Promise<never>} */
    const givenUp = new Promise((_, reject) => {
      this.#giveUp = reject
    })
    /** Resolves when every helper has come; rejects when one could not, or the team was closed before. */
    this.ready = Promise.race([Promise.all(helpers), givenUp])
    this.ready.catch(() => {}) // it may be awaited later, or never
  }

  /** @returns {number} threads that work now */
  get threads() {
    return this.#size.best
  }

  /**
   * Runs a computation with the number of threads that is best, or to be tried.
   *
   * @param {number} tokens how many it is about; one of them is timed
   * @param {() => void} compute
   */
  run(tokens, compute) {
    this.#setLimit(tokens === 1 ? this.#size.next : this.#size.best)
    const began = performance.now()
    compute()
    if (tokens === 1) this.#size.report(performance.now() - began)
  }

  /** Sends the helpers home and ends their threads. */
  close() {
    if (this.#closed) return
    this.#closed = true
    this.#giveUp(new BmError('closed', 'the engine was closed while its threads came'))
    this.#call('threads_close')
    for (const helper of this.#helpers) void helper.terminate()
  }

  /**
   * @param {{ module: WebAssembly.Module, memory: WebAssembly.Memory, seat: number }} seat
   * @param {string | undefined} threadUrl
   * @returns {Promise<void>}
   */
  #start(seat, threadUrl) {
    return new Promise((resolve, reject) => {
      const stack = this.#call('thread_stack')
      if (stack === 0) throw new BmError('memory', 'no memory for the stack of a thread')
      const helper = startThread(SCRIPT, threadUrl, {
        onMessage: () => {
          helper.release()
          resolve()
        },
        onDeath: (reason, cause) => {
          this.#loseHelper()
          reject(new BmError('internal', `a thread of the engine died: ${reason}`, { cause }))
        },
      })
      this.#helpers.push(helper)
      helper.post({ ...seat, stack })
    })
  }

  /** A helper died between two computations, or the one it died in has failed: go on alone. */
  #loseHelper() {
    if (this.#closed) return
    this.#size = new TeamSize(1)
    this.#setLimit(1)
  }

  /** @param {number} threads */
  #setLimit(threads) {
    if (threads === this.#limit) return
    this.#limit = threads
    this.#call('threads_limit', threads)
  }
}
