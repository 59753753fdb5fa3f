/**
 * A prompt in the engine's memory, on its way through a model that is still arriving.
 *
 * Owns one handle. What a step does is said in src/bm.h (`bm_prompt`); js/core-session.js makes prompts and closes them with their session.
 */

import { checkInteger } from './check-integer.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */

export class CorePrompt {
  #core
  #handle
  #parts
  #maxChunk
  #onRead
  #onClose

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.session  handle
   * @param {ArrayLike<number>} parts.ids
   * @param {number} parts.vocabSize
   * @param {number} parts.parts  of the model
   * @param {number} parts.maxChunk
   * @param {() => void} parts.onRead  all is read
   * @param {(prompt: CorePrompt) => void} parts.onClose
   */
  constructor(core, { session, ids, vocabSize, parts, maxChunk, onRead, onClose }) {
    for (let i = 0; i < ids.length; i++) checkInteger(`token id ${i}`, ids[i], 0, vocabSize - 1)
    this.#core = core
    this.#parts = parts
    this.#maxChunk = maxChunk
    this.#onRead = onRead
    this.#onClose = onClose
    this.#handle = core.pointer('prompt_create', session, ids.length)
    const most = core.stagingBytes / 4
    for (let start = 0; start < ids.length; start += most) {
      const piece = Uint32Array.prototype.slice.call(ids, start, start + most)
      core.stageIds(piece)
      core.check('prompt_set', this.#handle, start, piece.length)
    }
  }

  /** @returns {number | null} the part of the model that the next step needs sealed; null: all is read */
  get nextPart() {
    const part = this.#core.call('prompt_next_part', this.#open())
    return part < this.#parts ? part : null
  }

  /**
   * Takes up to maxChunk tokens through the next part. After the last step the session is as after an append of the ids.
   * @throws {BmError} `internal`: the part is not sealed, or the session was used meanwhile; `numeric`
   */
  step() {
    const handle = this.#open()
    this.#core.compute(this.#maxChunk, () => this.#core.check('prompt_step', handle))
    if (this.nextPart === null) this.#onRead()
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the prompt was closed')
    return this.#handle
  }

  /** In the middle of the reading this resets the session. Idempotent. */
  close() {
    if (this.#handle === 0) return
    this.#core.call('prompt_free', this.#handle)
    this.#handle = 0
    this.#onClose(this)
  }
}
