/**
 * A session in the engine's memory.
 *
 * Owns one handle, and the prompts and drafts that are open on it. What the calls mean is said in src/bm.h; js/core-model.js makes sessions
 * and closes them with their model.
 */

import { checkInteger } from './check-integer.js'
import { CoreDraft } from './core-draft.js'
import { CoreLogits } from './core-logits.js'
import { CorePrompt } from './core-prompt.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core.js').Sampling} Sampling */

/** One timeline over a model: a recurrent state, a position, the logits of the last tokens. */
export class CoreSession extends CoreLogits {
  #core
  #handle
  #onClose
  #parts
  /** @type {Set<CorePrompt | CoreDraft>} prompts and drafts */
  #opened = new Set()
  /** Tokens of the last append; 0 after a reset. */
  #lastCount = 0

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.handle
   * @param {number} parts.vocabSize
   * @param {number} parts.parts  of the model
   * @param {number} parts.maxChunk
   * @param {number} parts.stateBytes
   * @param {(session: CoreSession) => void} parts.onClose
   */
  constructor(core, { handle, vocabSize, parts, maxChunk, stateBytes, onClose }) {
    super(core, vocabSize)
    this.#core = core
    this.#handle = handle
    this.#onClose = onClose
    this.#parts = parts
    this.maxChunk = maxChunk
    /** Nothing here can be lost. */
    this.backupTokens = Number.POSITIVE_INFINITY
    /** Of the block that `state` copies. */
    this.stateBytes = stateBytes
  }

  /** In the engine's memory, for calls that take several sessions. */
  get handle() {
    return this.#open()
  }

  /** Tokens consumed since the last reset. */
  get position() {
    return this.#core.call('session_position', this.#open())
  }

  /** Back to position 0 and a zero state. */
  reset() {
    this.#core.call('session_reset', this.#open())
    this.#lastCount = 0
  }

  /**
   * Consumes tokens. How a sequence is cut into appends does not change a bit of the results.
   * @param {ArrayLike<number>} ids 1 to maxChunk of them
   * @throws {BmError} `argument` (the session is unchanged), `numeric` (reset the session)
   */
  append(ids) {
    const handle = this.#open()
    this.checkChunk(ids, this.maxChunk)
    this.#core.stageIds(ids)
    this.#core.compute(ids.length, () => this.#core.check('session_append', handle, ids.length))
    this.#lastCount = ids.length
  }

  /**
   * As `append`, layer by layer: in between other sessions can work. Whoever gives it up in the middle must reset the session or let
   * it adopt a state.
   *
   * @param {ArrayLike<number>} ids 1 to maxChunk of them
   * @returns {Generator<void, void, void>}
   * @throws {BmError} `argument` (the session is unchanged), `numeric` (reset the session)
   */
  *appendByLayers(ids) {
    this.#open()
    this.checkChunk(ids, this.maxChunk)
    const core = this.#core
    const finish = core.stepCount - 1
    const run = (
      /** @type {number} */ first,
      /** @type {number} */ last,
      /** @type {number} */ layer,
    ) => {
      // Others may have used the buffer in between.
      core.stageIds(ids)
      core.compute(ids.length, () => {
        for (let step = first; step <= last; step++) this.step(step, layer, ids.length)
      })
    }
    run(0, 0, 0)
    for (let layer = 0; layer < this.#parts - 2; layer++) {
      run(1, finish - 1, layer)
      yield
    }
    run(finish, finish, 0)
  }

  /** Tokens have been appended by a call that took several sessions. @param {number} count */
  appended(count) {
    this.#lastCount = count
  }

  /** @returns {Uint8Array<ArrayBuffer>} the state after the tokens so far: all that the session knows, but for its position */
  state() {
    return this.#core.copyBytes(this.#core.pointer('session_state', this.#open()), this.stateBytes)
  }

  /**
   * Makes a state its own. The logits are then those after the last token of that state.
   * @param {Uint8Array | CoreSession} state of the same model and state type: a block that `state` gave, or the session to copy
   * @param {number} position of it
   * @throws {BmError} `argument` (nothing has changed), `numeric`: NaN or infinity in it
   */
  adopt(state, position) {
    checkInteger('position', position, 0, Number.MAX_SAFE_INTEGER)
    const bytes = state instanceof CoreSession ? state.stateBytes : state.length
    if (bytes !== this.stateBytes) {
      throw new BmError('argument', `a state of ${bytes} bytes, want ${this.stateBytes}`)
    }
    const core = this.#core
    const target = core.pointer('session_state', this.#open())
    if (state instanceof CoreSession) {
      core.moveBytes(target, core.pointer('session_state', state.handle), bytes)
    } else {
      core.writeBytes(target, state)
    }
    this.#lastCount = Math.min(1, position)
    core.check('session_adopt', this.#open(), position)
  }

  /**
   * A prompt to be read layer by layer, while the model arrives; the session does nothing else meanwhile.
   * @param {ArrayLike<number>} ids at least one; the session is at position 0
   * @returns {CorePrompt}
   * @throws {BmError} `argument`, `memory`
   */
  createPrompt(ids) {
    const { vocabSize, maxChunk } = this
    const onRead = () => {
      this.#lastCount = ids.length % maxChunk || maxChunk
    }
    const onClose = (/** @type {CorePrompt} */ prompt) => void this.#opened.delete(prompt)
    const shared = { vocabSize, parts: this.#parts, maxChunk, onRead, onClose }
    const prompt = new CorePrompt(this.#core, { session: this.#open(), ids, ...shared })
    this.#opened.add(prompt)
    return prompt
  }

  /**
   * Room for tokens that may turn out wrong.
   * @param {number} capacity most tokens at once, 1 to maxChunk
   * @returns {CoreDraft}
   * @throws {BmError} `argument`, `memory`
   */
  createDraft(capacity) {
    const lookAt = (/** @type {number} */ count) => {
      this.#lastCount = count
    }
    const onClose = (/** @type {CoreDraft} */ draft) => void this.#opened.delete(draft)
    const draft = new CoreDraft(this.#core, { session: this.#open(), capacity, lookAt, onClose })
    this.#opened.add(draft)
    return draft
  }

  /**
   * One step of an append in one layer, for who times them: bm_session_step of src/bm.h says in which order.
   * @param {number} step of `core.steps` @param {number} layer @param {number} count of the ids that `stageIds` took
   */
  step(step, layer, count) {
    this.#core.check('session_step', this.#open(), step, layer, count)
    this.#lastCount = count
  }

  /** Here logits are computed when they are asked for. @param {number} [_index] */
  async prepareLogits(_index) {}

  /** The same. @param {import('./draw.js').Draw | null} [_draw] */
  async prepareDraw(_draw) {}

  /**
   * Computes the logits where the engine keeps them; any further call may overwrite them.
   * @param {number} index token of the last append; negative counts from its end
   */
  logitsPointer(index) {
    const at = this.placeInChunk(index, this.#lastCount)
    return this.#core.pointer('session_logits', this.#open(), at)
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the session was closed')
    return this.#handle
  }

  /** Frees the state. Idempotent. */
  close() {
    if (this.#handle === 0) return
    for (const one of this.#opened) one.close()
    this.#core.call('session_free', this.#handle)
    this.#handle = 0
    this.#onClose(this)
  }
}
