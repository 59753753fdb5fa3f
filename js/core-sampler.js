/**
 * A sampler in the engine's memory: draws token ids from a session's logits.
 *
 * Owns one handle. What the settings mean is said in src/bm.h; js/core-logits.js makes samplers, and who asked for one closes it.
 */

import { checkInteger, MAX_U32 } from './check-integer.js'
import { BmError } from './errors.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core-logits.js').CoreLogits} CoreLogits */
/** @typedef {import('./core.js').Sampling} Sampling */

/** What changes no logit. @type {Sampling} */
const NEUTRAL = {
  repetitionPenalty: 1,
  repetitionWindow: 0,
  frequencyPenalty: 0,
  presencePenalty: 0,
  historyWindow: 0,
  dryMultiplier: 0,
  dryBase: 1,
  dryAllowedLength: 1,
  noRepeatNgram: 0,
  temperature: 1,
  topK: 0,
  typicalP: 1,
  topP: 1,
  minP: 0,
  mirostatTau: 0,
  mirostatEta: 0.1,
  seed: 0,
  logitBias: [],
  dryBreakers: [],
}

/** As sampler_create of wasm/bm_wasm.c wants them. */
const ORDER = /** @type {const} */ ([
  'repetitionPenalty',
  'repetitionWindow',
  'frequencyPenalty',
  'presencePenalty',
  'historyWindow',
  'dryMultiplier',
  'dryBase',
  'dryAllowedLength',
  'noRepeatNgram',
  'temperature',
  'topK',
  'typicalP',
  'topP',
  'minP',
  'mirostatTau',
  'mirostatEta',
  'seed',
])
const INTEGERS = /** @type {const} */ ([
  'repetitionWindow',
  'historyWindow',
  'dryAllowedLength',
  'noRepeatNgram',
  'topK',
])

/** Draws tokens from the logits of one session, with its own random state and penalty window. */
export class CoreSampler {
  #core
  #session
  #handle

  /**
   * @param {Core} core
   * @param {CoreLogits} session
   * @param {Partial<Sampling>} sampling what is left out changes nothing
   */
  constructor(core, session, sampling) {
    const s = { ...NEUTRAL, ...sampling }
    for (const name of INTEGERS) checkInteger(name, s[name], 0, MAX_U32)
    checkInteger('seed', s.seed, 0, Number.MAX_SAFE_INTEGER)
    for (const [id] of s.logitBias) checkInteger('logitBias', id, 0, MAX_U32)
    for (const id of s.dryBreakers) checkInteger('dryBreakers', id, 0, MAX_U32)
    this.#core = core
    this.#session = session
    core.stageValues([
      ...ORDER.map((name) => s[name]),
      s.logitBias.length,
      s.dryBreakers.length,
      ...s.logitBias.flat(),
      ...s.dryBreakers,
    ])
    this.#handle = core.pointer('sampler_create', session.vocabSize)
  }

  /** Draws from another session's logits from now on. @param {CoreLogits} session */
  follow(session) {
    this.#session = session
  }

  /** @param {number} id one token of the context, prompt or output, in order */
  accept(id) {
    checkInteger('token id', id, 0, this.#session.vocabSize - 1)
    this.#core.call('sampler_accept', this.#open(), id)
  }

  /**
   * What may be drawn from now on, whatever the settings say.
   *
   * @param {Uint32Array | null} mask bit id % 32 of word id / 32; null: everything
   * @throws {BmError} `argument`: that leaves none
   */
  allow(mask) {
    if (mask) this.#core.stageIds(mask)
    this.#core.check('sampler_allow', this.#open(), mask ? 0 : 1)
  }

  /** @returns {number} an id drawn from the session's last logits; neither appended nor accepted */
  sample() {
    return this.#core.call('sampler_sample', this.#open(), this.#session.drawPointer())
  }

  /** @returns {Uint8Array} the random state, and what else sampling has changed; the accepted tokens are not in it */
  save() {
    const bytes = this.#core.call('sampler_save', this.#open())
    return new Uint8Array(this.#core.stagedIds(bytes / 4).buffer)
  }

  /** @param {Uint8Array} state that `save` gave */
  restore(state) {
    this.#core.stageBytes(state)
    this.#core.call('sampler_restore', this.#open())
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
