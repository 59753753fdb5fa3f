/**
 * How long to compute before the event loop has a turn.
 *
 * Owns the two things that let an abort be seen soon: how many tokens go through a layer at once, and how often messages can arrive. How
 * a prompt is cut changes no result.
 */

import { breathe } from './platform.js'

/** How long computations may last before messages can arrive, ms. */
const PACE_MS = 50
/** Tokens that one step of the prefill kernels takes together: fewer would cost as much as so many. */
const CHUNK_STEP = 16

/** For one prompt or text: chunks of a size that lets one layer take no longer than the pace. */
export class Pace {
  #most
  #since = performance.now()

  /** @param {number} most tokens of a chunk */
  constructor(most) {
    this.#most = most
    /** How many tokens to append next. */
    this.chunk = Math.min(CHUNK_STEP, most)
  }

  /**
   * Appends a chunk, with turns between its layers.
   * @param {import('./timeline.js').AnySession} session
   * @param {ArrayLike<number>} ids
   * @param {AbortSignal} [signal]
   */
  async append(session, ids, signal) {
    let longest = 0
    let began = performance.now()
    for await (const _ of session.appendByLayers(ids)) {
      longest = Math.max(longest, performance.now() - began)
      if (this.isOver()) await turn(signal)
      began = performance.now()
    }
    // A short chunk, cut for another reason, says little about a whole one.
    if (ids.length < this.chunk) return
    const steps = ((PACE_MS / Math.max(longest, 1e-3)) * ids.length) / CHUNK_STEP
    this.chunk = Math.min(this.#most, CHUNK_STEP * Math.max(1, Math.floor(steps)))
  }

  /** Whether it is time for a turn; the next period begins then. */
  isOver() {
    const now = performance.now()
    if (now - this.#since < PACE_MS) return false
    this.#since = now
    return true
  }
}

/** Lets messages arrive, then looks whether one of them was an abort. @param {AbortSignal} [signal] */
export async function turn(signal) {
  signal?.throwIfAborted()
  await breathe()
  signal?.throwIfAborted()
}
