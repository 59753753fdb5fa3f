/**
 * What can be done with the logits of a session, wherever it computes them.
 *
 * Owns the way from logits in the engine's memory to copies, log-probabilities and samplers. js/core-session.js and js/gpu/gpu-session.js say where
 * they are.
 */

import { checkInteger } from './check-integer.js'
import { CoreSampler } from './core-sampler.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core.js').Sampling} Sampling */

/** BM_MAX_TOP of src/bm.h. */
const MOST_TOP = 64

/** @abstract */
export class CoreLogits {
  #core

  /** @param {Core} core @param {number} vocabSize */
  constructor(core, vocabSize) {
    this.#core = core
    this.vocabSize = vocabSize
  }

  /**
   * @param {number} _index token of the last append; negative counts from its end
   * @returns {number} where the engine has the logits; a further call may overwrite them
   */
  logitsPointer(_index) {
    throw new BmError('internal', 'a session without logits')
  }

  /** @returns {number} where the engine has what a sampler needs of the last logits: of all that `prepareDraw` was told it will look at */
  drawPointer() {
    return this.logitsPointer(-1)
  }

  /**
   * @param {number} index as for `logitsPointer` @param {number} count tokens of the last append
   * @returns {number} from its beginning
   * @throws {BmError} `argument`: there is no such token
   */
  placeInChunk(index, count) {
    const at = index < 0 ? count + index : index
    if (Number.isInteger(at) && at >= 0 && at < count) return at
    throw new BmError('argument', `logits of token ${index}: the last append had ${count}`)
  }

  /** @param {ArrayLike<number>} ids @param {number} most @throws {BmError} `argument` */
  checkChunk(ids, most) {
    if (!(ids.length >= 1 && ids.length <= most)) {
      throw new BmError('argument', `${ids.length} tokens in one append, want 1 to ${most}`)
    }
    for (let i = 0; i < ids.length; i++) {
      checkInteger(`token id ${i}`, ids[i], 0, this.vocabSize - 1)
    }
  }

  /**
   * @param {number} [index] as for `logitsPointer`; default: the last token
   * @returns {Float32Array} [vocab_size], a copy
   * @throws {BmError} `argument`: there is no such token; `numeric`
   */
  logits(index = -1) {
    return this.#core.copyFloats(this.logitsPointer(index), this.vocabSize)
  }

  /**
   * @param {number} index as for `logitsPointer`
   * @param {number} id
   * @returns {number} log p(id), natural logarithm
   */
  logprob(index, id) {
    checkInteger('token id', id, 0, this.vocabSize - 1)
    return this.#core.call('log_softmax', this.logitsPointer(index), this.vocabSize, id)
  }

  /**
   * @param {number} index as for `logitsPointer`
   * @param {number} count 0 to 64
   * @returns {{ id: number, logprob: number }[]} the likeliest ids after it, falling, ties to the lowest id
   */
  topLogprobs(index, count) {
    checkInteger('count', count, 0, MOST_TOP)
    const core = this.#core
    const found = core.call('top_logprobs', this.logitsPointer(index), this.vocabSize, count)
    const logprobs = core.stagedValues(found)
    const ids = core.stagedIds(found, 8 * MOST_TOP)
    return Array.from(ids, (id, i) => ({ id, logprob: Number(logprobs[i]) }))
  }

  /**
   * @param {Partial<Sampling>} sampling what is left out changes nothing
   * @returns {CoreSampler}
   * @throws {BmError} `argument`, `memory`
   */
  createSampler(sampling) {
    return new CoreSampler(this.#core, this, sampling)
  }
}
