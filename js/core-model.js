/**
 * A model in the engine's memory: its weights, and what is made of them.
 *
 * Owns one handle, the sessions that are open on it, and the changing of a state's type. What the calls mean is said in src/bm.h;
 * js/core.js makes models.
 */

import { checkInteger, MAX_U32 } from './check-integer.js'
import { CoreSession } from './core-session.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core.js').HeadType} HeadType */
/** @typedef {import('./core.js').Precision} Precision */
/** @typedef {import('./core.js').StateType} StateType */
/** @typedef {import('./format.js').ModelConfig} ModelConfig */

/** enum bm_precision of src/bm.h. */
const PRECISIONS = /** @type {const} */ (['fast', 'high', 'exact'])
/** Of enum bm_dtype in src/bm.h. @type {Record<import('./core.js').StoredType, number>} */
export const STATE_DTYPES = { i8: 1, f32: 3, i16: 4 }
/** Most tokens of one append; the C side says the same. */
const MAX_CHUNK = 1024

/** The weights of one model in an engine. */
export class CoreModel {
  #core
  #handle
  /** @type {Set<CoreSession>} that are open */
  #sessions = new Set()

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.handle
   * @param {ModelConfig} parts.config
   * @param {string} parts.variant
   * @param {HeadType} parts.head
   */
  constructor(core, { handle, config, variant, head }) {
    this.#core = core
    this.#handle = handle
    this.config = config
    /** The kernel family that lays out the weights. */
    this.variant = variant
    /** What the logits are computed with. */
    this.head = head
    /** Parts to seal: the embedding, every layer, the final norm with the head. */
    this.parts = config.n_layer + 2
  }

  /**
   * Takes bytes of a tensor in their file form: any ranges in any order, each byte exactly once. Only an untied head that
   * becomes int4 must come in order.
   * @param {number} index into `core.tensors(config)`
   * @param {number} offset within the tensor, in bytes
   * @param {Uint8Array} bytes
   * @throws {BmError} `argument` outside the tensor, `internal` for bytes written twice
   */
  write(index, offset, bytes) {
    checkInteger('tensor index', index, 0, MAX_U32)
    checkInteger('offset', offset, 0, Number.MAX_SAFE_INTEGER)
    const step = this.#core.stagingBytes
    for (let at = 0; at < bytes.length; at += step) {
      const piece = bytes.subarray(at, at + step)
      this.#core.stageBytes(piece)
      this.#core.check('model_write', this.#open(), index, offset + at, piece.length)
    }
  }

  /**
   * Declares a part complete.
   * @param {number} part
   * @throws {BmError} `format` for NaN or infinity in a weight, `internal` when bytes are missing
   */
  seal(part) {
    checkInteger('part', part, 0, this.parts - 1)
    this.#core.check('model_seal_part', this.#open(), part)
  }

  /**
   * @param {object} [options]
   * @param {Precision} [options.precision] default 'fast'
   * @param {StateType} [options.state] type of the SSM state, default 'f32'
   * @param {number} [options.maxChunk] most tokens in one append, 1 to 1024; default 64
   * @returns {CoreSession} at position 0; the model need not be complete until it computes
   * @throws {BmError} `argument`, `memory`
   */
  createSession({ precision = 'fast', state = 'f32', maxChunk = 64 } = {}) {
    checkInteger('maxChunk', maxChunk, 1, MAX_CHUNK)
    const dtype = STATE_DTYPES[state]
    const level = PRECISIONS.indexOf(precision)
    if (level < 0)
      throw new BmError('argument', `precision is '${precision}', want fast, high or exact`)
    if (dtype === undefined || state === /** @type {string} */ ('i8')) {
      throw new BmError('argument', `state is '${state}', want f32 or i16`)
    }
    const handle = this.#core.pointer('session_create', this.#open(), level, dtype, maxChunk)
    const onClose = (/** @type {CoreSession} */ session) => void this.#sessions.delete(session)
    const { vocab_size: vocabSize } = this.config
    const { parts } = this
    const stateBytes = this.#core.stateBytes(this.config, state)
    const session = new CoreSession(this.#core, {
      handle,
      vocabSize,
      parts,
      maxChunk,
      stateBytes,
      onClose,
    })
    this.#sessions.add(session)
    return session
  }

  /**
   * Appends one token to each of several sessions; the weights are read once for all. To each it is as if it were alone.
   * @param {readonly CoreSession[]} sessions of this model, all different, 1 to 64
   * @param {ArrayLike<number>} ids one for each
   * @throws {BmError} `argument` (nothing has changed), `numeric`
   */
  appendEach(sessions, ids) {
    const handles = sessions.map((session) => session.handle)
    for (const [i, { vocabSize }] of sessions.entries()) {
      checkInteger(`token id ${i}`, ids[i], 0, vocabSize - 1)
    }
    const core = this.#core
    core.stageIds([...handles, ...Array.from(ids)])
    core.compute(handles.length, () => core.check('session_append_each', handles.length))
    for (const session of sessions) session.appended(1)
  }

  /**
   * Computes what `logits(-1)` of each of them then finds.
   * @param {readonly CoreSession[]} sessions as for appendEach
   * @throws {BmError} `argument`: one has read no token; `numeric`
   */
  logitsEach(sessions) {
    this.#core.stageIds(sessions.map((session) => session.handle))
    this.#core.check('session_logits_each', sessions.length)
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the model was closed')
    return this.#handle
  }

  /** Frees the weights, and the sessions that are still open. Idempotent. */
  close() {
    for (const session of this.#sessions) session.close()
    if (this.#handle !== 0) this.#core.call('model_free', this.#handle)
    this.#handle = 0
  }
}
