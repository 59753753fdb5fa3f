/**
 * One setting of `bimamba bench` at work: an engine of its own with a model in it, and the clock.
 *
 * Owns how each thing is timed: only the engine's work is between the two looks at the clock, and between two of those the event
 * loop has a turn, so that Ctrl-C arrives. Does not know rounds or other settings (js/bench/bench-run.js) nor what the times mean
 * (js/bench/bench-report.js).
 */

import { Core } from '../core.js'
import { BmError } from '../errors.js'
import { loadModel } from '../loader.js'
import { breathe } from '../platform.js'
import { openSource } from '../source-opening.js'
import { randomModel, syntheticConfig } from './synthetic-model.js'

/** @typedef {import('../core-session.js').CoreSession} CoreSession */

/**
 * @typedef {object} BenchSetting what is compared
 * @property {'wasm' | 'webgpu'} [device]  default: WebAssembly; the GPU's is js/bench/gpu-subject.js
 * @property {number} threads   1 on the GPU
 * @property {string} [variant] kernel family; default: the fastest
 * @property {string} [wasm]    path or URL of the module; default: of the package
 */

/**
 * @typedef {object} BenchModel what all settings run
 * @property {import('../source.js').SourceDescriptor | null} source of a packed model; not looked at with `synthetic`
 * @property {string} name     what the report calls the source
 * @property {import('../source.js').FetchOptions} download  how a file on a server is got and kept
 * @property {import('./synthetic-model.js').ShapeName | null} synthetic
 * @property {import('../core.js').Precision} precision
 * @property {import('../core.js').StateType} state
 * @property {import('../core.js').HeadChoice} head
 */

/** Tokens between two turns of the event loop. */
const TURN_TOKENS = 8

export class BenchSubject {
  /**
   * @param {object} parts
   * @param {BenchSetting} parts.setting
   * @param {Core} parts.core
   * @param {import('../core-model.js').CoreModel} parts.model
   * @param {CoreSession} parts.session
   * @param {{ ms: number, fileBytes: number } | null} parts.load
   * @param {import('../timeline.js').StateOptions} parts.options
   * @param {AbortSignal} parts.signal
   */
  constructor({ setting, core, model, session, load, options, signal }) {
    this.setting = setting
    this.options = options
    this.core = core
    this.model = model
    this.session = session
    /** Until it could take tokens; null for a synthetic model. */
    this.load = load
    /** Names of the timed steps: those of an append, then the head; empty for a module that has none. */
    this.steps = core.steps.length > 0 ? [...core.steps, 'head'] : []
    this.signal = signal
  }

  /**
   * @param {BenchModel} wanted
   * @param {BenchSetting} setting
   * @param {AbortSignal} signal
   * @returns {Promise<BenchSubject>} the caller closes it
   * @throws {BmError} as `loadModel` does; `argument`: threads for a module that has none; `unsupported`: where memory cannot be shared
   */
  static async open(wanted, setting, signal) {
    const { synthetic, precision, state, head } = wanted
    const { threads, variant, wasm } = setting
    const began = performance.now()
    const core = await Core.create({ wasm, shared: threads > 1, signal })
    if (threads > 1 && !core.isShared) {
      throw wasm
        ? new BmError('argument', `${threads} threads: ${wasm} is a build without threads`)
        : new BmError('unsupported', `${threads} threads: memory cannot be shared here`)
    }
    try {
      const loaded = synthetic
        ? {
            model: await randomModel(core, syntheticConfig(synthetic), { variant, head, signal }),
            header: null,
          }
        : await loadFile(
            core,
            wanted,
            ({ config }) => core.createModel(config, { variant, head }),
            signal,
          )
      const { model, header } = loaded
      await core.startTeam(threads)
      const options = { precision, state }
      const session = model.createSession(options)
      const load = header && { ms: performance.now() - began, fileBytes: header.fileBytes }
      return new BenchSubject({ setting, core, model, session, load, options, signal })
    } catch (error) {
      core.close()
      throw error
    }
  }

  /** One turn of the event loop. */
  async #turn() {
    await breathe()
    this.signal.throwIfAborted()
  }

  /** @param {number} i @returns {number} */
  #id(i) {
    return someId(i, this.model.config)
  }

  /** @returns {CoreSession} another text over the same weights */
  openSession() {
    return this.model.createSession(this.options)
  }

  /**
   * Appends a prompt in chunks.
   * @param {number} tokens
   * @param {CoreSession} [session]
   * @returns {Promise<number>} ms a token
   */
  async prefill(tokens, session = this.session) {
    let ms = 0
    for (let at = 0; at < tokens; at += session.maxChunk) {
      const length = Math.min(session.maxChunk, tokens - at)
      const ids = Array.from({ length }, (_, i) => this.#id(at + i))
      const start = performance.now()
      session.append(ids)
      ms += performance.now() - start
      await this.#turn()
    }
    return ms / tokens
  }

  /**
   * Appends tokens one by one, each with the logits after it.
   * @param {number} tokens
   * @param {CoreSession} [session]
   * @returns {Promise<number>} ms a token
   */
  async decode(tokens, session = this.session) {
    let ms = 0
    for (let i = 0; i < tokens; i++) {
      const start = performance.now()
      session.append([this.#id(i)])
      session.logitsPointer(-1)
      ms += performance.now() - start
      if (i % TURN_TOKENS === 0) await this.#turn()
    }
    return ms / tokens
  }

  /**
   * Appends chunks step by step, and computes the logits after the last token of each.
   * @param {number} chunks
   * @param {number} tokens in each
   * @returns {Promise<number[]>} ms a chunk of each of `steps`, in order
   */
  async timeSteps(chunks, tokens) {
    const { core, session } = this
    const layers = this.model.config.n_layer
    const finish = this.steps.length - 2
    const ms = new Float64Array(this.steps.length)
    for (let chunk = 0; chunk < chunks; chunk++) {
      core.stageIds(Array.from({ length: tokens }, (_, i) => this.#id(chunk * tokens + i)))
      let before = 0
      const lap = (/** @type {number} */ step) => {
        const now = performance.now()
        ms[step] = ms[step] + now - before
        before = now
      }
      core.compute(tokens, () => {
        before = performance.now()
        session.step(0, 0, tokens)
        lap(0)
        for (let layer = 0; layer < layers; layer++) {
          for (let step = 1; step < finish; step++) {
            session.step(step, layer, tokens)
            lap(step)
          }
        }
        session.step(finish, 0, tokens)
        lap(finish)
      })
      before = performance.now()
      session.logitsPointer(-1)
      lap(finish + 1)
      if (chunk % TURN_TOKENS === 0 || tokens > 1) await this.#turn()
    }
    return Array.from(ms, (sum) => sum / chunks)
  }

  /** Frees the model and ends the threads. */
  close() {
    this.model.close()
    this.core.close()
  }
}

/** @param {number} i @param {import('../format.js').ModelConfig} config @returns {number} some token id, not the same for neighbours */
export const someId = (i, { vocab_size: vocabulary }) => (i * 7919) % vocabulary

/**
 * @template {import('../generate.js').AnyModel} M
 * @param {Core} core
 * @param {BenchModel} wanted
 * @param {(header: import('../format.js').PackedHeader) => M | Promise<M>} modelFor
 * @param {AbortSignal} signal
 * @returns {Promise<{ model: M, header: import('../format.js').PackedHeader }>}
 */
export async function loadFile(core, { source, download, head }, modelFor, signal) {
  if (!source) throw new BmError('internal', 'a benchmark without a model')
  const file = await openSource(source, { options: download, signal })
  try {
    return await loadModel(core, file, { modelFor, head })
  } finally {
    await file.close()
  }
}
