/**
 * How long to compute before the event loop has a turn.
 *
 * Owns the two times an abort needs to be seen soon: how many tokens are appended at once, and how often messages can arrive. How a
 * prompt is cut changes no result.
 */

import { breathe } from './platform.js'

/** How long computations may last before messages can arrive, ms. */
const PACE_MS = 50
/** Tokens that one step of the prefill kernels takes together: fewer would cost as much as so many. */
const CHUNK_STEP = 16

/** How many tokens to append at once, from what the last ones cost: an abort is to be seen soon with a large model too. */
export class Pace {
  #most
  #since = performance.now()

  /** @param {number} most tokens */
  constructor(most) {
    this.#most = most
    this.chunk = Math.min(CHUNK_STEP, most)
  }

  /** @param {number} tokens @param {() => void} append */
  time(tokens, append) {
    this.#since = performance.now()
    append()
    // A shorter chunk, cut for another reason, says little about a whole one.
    if (tokens < CHUNK_STEP && tokens < this.chunk) return
    const steps = ((PACE_MS / (performance.now() - this.#since)) * tokens) / CHUNK_STEP
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
