/**
 * A sampler in the engine's memory: draws token ids from a session's logits.
 *
 * Owns one handle. What the settings mean is said in src/bm.h; js/core.js makes and closes samplers with their sessions.
 */

import { checkInteger, MAX_U32 } from './check-integer.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core-session.js').CoreSession} CoreSession */
/** @typedef {import('./core.js').Sampling} Sampling */

/** Draws tokens from the logits of one session, with its own random state and penalty window. */
export class CoreSampler {
  #core
  #session
  #handle

  /**
   * @param {Core} core
   * @param {CoreSession} session
   * @param {Sampling} s
   */
  constructor(core, session, s) {
    checkInteger('repetitionWindow', s.repetitionWindow, 0, MAX_U32)
    checkInteger('topK', s.topK, 0, MAX_U32)
    checkInteger('seed', s.seed, 0, Number.MAX_SAFE_INTEGER)
    this.#core = core
    this.#session = session
    this.#handle = core.pointer(
      'sampler_create',
      session.vocabSize,
      s.repetitionPenalty,
      s.repetitionWindow,
      s.temperature,
      s.topK,
      s.topP,
      s.minP,
      s.seed,
    )
  }

  /** @param {number} id one token of the context, prompt or output, in order */
  accept(id) {
    checkInteger('token id', id, 0, this.#session.vocabSize - 1)
    this.#core.call('sampler_accept', this.#open(), id)
  }

  /** @returns {number} an id drawn from the session's last logits; neither appended nor accepted */
  sample() {
    return this.#core.call('sampler_sample', this.#open(), this.#session.logitsPointer(-1))
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the sampler was closed')
    return this.#handle
  }

  /** Frees the sampler. Idempotent. */
  close() {
    if (this.#handle !== 0) this.#core.call('sampler_free', this.#handle)
    this.#handle = 0
  }
}
