/**
 * Tokens in the engine's memory that may turn out wrong.
 *
 * Owns one handle. What the calls mean is said in src/bm.h (`bm_draft`); js/core-session.js makes drafts and closes them with their session.
 */

import { checkInteger } from './check-integer.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */

export class CoreDraft {
  #core
  #handle
  #onClose
  #lookAt

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.session   handle
   * @param {number} parts.capacity  most tokens of a draft
   * @param {(count: number) => void} parts.lookAt  so many tokens are the session's last append
   * @param {(draft: CoreDraft) => void} parts.onClose
   */
  constructor(core, { session, capacity, lookAt, onClose }) {
    this.#core = core
    this.capacity = capacity
    this.#lookAt = lookAt
    this.#onClose = onClose
    this.#handle = core.pointer('draft_create', session, capacity)
  }

  /**
   * Reads tokens as `append` does, but the session moves by the first ones only; nothing else may be read before `keep`.
   * The session's last logits are those after the first token then: `lookAt` says otherwise.
   *
   * @param {ArrayLike<number>} ids @param {number} certain how many of them need no proof
   */
  read(ids, certain) {
    const handle = this.#open()
    checkInteger('ids.length', ids.length, 1, this.capacity)
    checkInteger('certain', certain, 0, ids.length)
    const core = this.#core
    core.stageIds(ids)
    core.compute(ids.length, () => core.check('draft_read', handle, ids.length, certain))
    this.#lookAt(1)
  }

  /** The last logits of the session are those after so many tokens of the draft. @param {number} count */
  lookAt(count) {
    this.#lookAt(count)
  }

  /** The first ones are right: the session is as after an append of those. @param {number} count at least 1, and those that were certain */
  keep(count) {
    const core = this.#core
    core.compute(count, () => core.check('draft_keep', this.#open(), count))
    this.#lookAt(count)
  }

  /** @returns {boolean} whether neither it nor its session was closed */
  get isOpen() {
    return this.#handle !== 0
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the draft was closed')
    return this.#handle
  }

  /** What was not kept was never read. Idempotent. */
  close() {
    if (this.#handle === 0) return
    this.#core.call('draft_free', this.#handle)
    this.#handle = 0
    this.#onClose(this)
  }
}
