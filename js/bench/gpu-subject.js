/**
 * A setting of `bimamba bench` on the GPU: as js/bench/bench-subject.js, where the clock is looked at when the results are there.
 *
 * Owns what is timed there: a token until its logits have come back, a chunk until it is done, each kernel by the GPU's own clock where the adapter
 * lets that be read, and how fast the GPU copies its memory, which is the bound.
 */

import { Core } from '../core.js'
import { chooseDevice } from '../device-choice.js'
import { BmError } from '../errors.js'
import { USAGE } from '../gpu/gpu-device.js'
import { GpuModel } from '../gpu/gpu-model.js'
import { GpuProfile, PROFILE_STEPS } from '../gpu/gpu-profile.js'
import { breathe } from '../platform.js'
import { loadFile, someId } from './bench-subject.js'
import { fillRandomly, syntheticConfig } from './synthetic-model.js'

/** @typedef {import('./bench-subject.js').BenchModel} BenchModel */
/** @typedef {import('./bench-subject.js').BenchSetting} BenchSetting */
/** @typedef {import('../gpu/gpu-session.js').GpuSession} GpuSession */

/**
 * @typedef {object} GpuFacts
 * @property {string} adapter      its vendor, architecture and description, as far as they are told
 * @property {boolean} isSoftware  it is a program on the processor
 * @property {boolean} hasClock    its kernels could be timed
 * @property {string | null} integers  how those of `fast` are added up: the way that was the quickest; null: there are none
 * @property {number} copyBytesPerMs  the quickest copy from one buffer to another, bytes read and bytes written
 * @property {number} bytes        of weights, state and what is worked in, on the GPU
 */

/** Larger than caches are. */
const COPY_BYTES = 1 << 27
/** Copies take at least so long that waiting for them does not count. */
const COPY_MS = 50
const MOST_COPIES = 256

/** @param {import('../gpu/gpu-device.js').GpuDevice} device @returns {string} */
function wayOf({ usesDot4, usesSubgroups }) {
  return `${usesDot4 ? 'dot4I8Packed' : 'countOneBits'}${usesSubgroups ? ', subgroups' : ''}`
}

export class GpuSubject {
  /** @type {GpuProfile | null} */
  #profile = null
  /** @type {[GPUBuffer, GPUBuffer] | null} between which is copied */
  #pair = null
  #copies = 1
  /** Bytes a ms, read and written, of the quickest copy. */
  copyBytesPerMs = 0

  /**
   * @param {object} parts
   * @param {BenchSetting} parts.setting
   * @param {Core} parts.core
   * @param {GpuModel} parts.model
   * @param {GpuSession} parts.session
   * @param {{ ms: number, fileBytes: number } | null} parts.load
   * @param {AbortSignal} parts.signal
   */
  constructor({ setting, core, model, session, load, signal }) {
    this.setting = setting
    this.core = core
    this.model = model
    this.session = session
    this.load = load
    /** Names of the timed steps; empty where the GPU's clock cannot be read. @type {string[]} */
    this.steps = []
    this.signal = signal
  }

  /**
   * @param {BenchModel} wanted
   * @param {BenchSetting} setting
   * @param {AbortSignal} signal
   * @returns {Promise<GpuSubject>} the caller closes it
   * @throws {BmError} as `chooseDevice` and `loadModel` do
   */
  static async open(wanted, setting, signal) {
    const began = performance.now()
    const core = await Core.create({ signal })
    /** @type {GpuModel[]} */
    const made = []
    const modelFor = async (/** @type {import('../format.js').ModelConfig} */ config) => {
      const choice = { device: /** @type {const} */ ('webgpu'), ...wanted }
      const { device, tested } = await chooseDevice(core, config, choice, ['timestamp-query'])
      if (!device) throw new BmError('internal', 'a GPU that was not chosen')
      const model = await GpuModel.create(core, device, config, wanted)
      made.push(model)
      await tested
      return model
    }
    try {
      const { model, header } = await fill(core, wanted, modelFor, signal)
      const session = await model.createSession()
      const load = header && { ms: performance.now() - began, fileBytes: header.fileBytes }
      const subject = new GpuSubject({ setting, core, model, session, load, signal })
      await subject.#prepare()
      return subject
    } catch (error) {
      made[0]?.close()
      core.close()
      throw error
    }
  }

  /** One turn of the event loop. */
  async #turn() {
    await breathe()
    this.signal.throwIfAborted()
  }

  /** @param {number} first @param {number} length @returns {number[]} */
  #ids(first, length) {
    return Array.from({ length }, (_, i) => someId(first + i, this.model.config))
  }

  async #prepare() {
    const { device } = this.model
    this.#profile = await GpuProfile.create(this.model)
    if (this.#profile) this.steps = PROFILE_STEPS
    const bytes = Math.min(COPY_BYTES, device.limits.maxBufferSize)
    this.#pair = await device.making('what is copied', () => {
      const one = () => device.buffer(bytes, USAGE.copySrc | USAGE.copyDst)
      return /** @type {[GPUBuffer, GPUBuffer]} */ ([one(), one()])
    })
  }

  /** @returns {GpuFacts} */
  get gpu() {
    const { device, gpuBytes } = this.model
    const { vendor, architecture, description } = device.info
    return {
      adapter: [...new Set([vendor, architecture, description].filter(Boolean))].join(' '),
      isSoftware: device.softwareName !== null,
      hasClock: this.#profile !== null,
      integers: this.model.precision === 'fast' ? wayOf(device) : null,
      copyBytesPerMs: this.copyBytesPerMs,
      bytes: gpuBytes,
    }
  }

  /** @returns {Promise<GpuSession>} another text over the same weights */
  openSession() {
    return this.model.createSession()
  }

  /** @param {number} tokens @param {GpuSession} [session] @returns {Promise<number>} ms a token */
  async prefill(tokens, session = this.session) {
    let ms = 0
    for (let at = 0; at < tokens; at += session.maxChunk) {
      const ids = this.#ids(at, Math.min(session.maxChunk, tokens - at))
      const start = performance.now()
      for await (const _ of session.appendByLayers(ids));
      ms += performance.now() - start
      await this.#turn()
    }
    return ms / tokens
  }

  /** @param {number} tokens @param {GpuSession} [session] @returns {Promise<number>} ms a token */
  async decode(tokens, session = this.session) {
    let ms = 0
    for (let i = 0; i < tokens; i++) {
      const start = performance.now()
      session.append(this.#ids(i, 1))
      await session.prepareLogits()
      ms += performance.now() - start
      await this.#turn()
    }
    return ms / tokens
  }

  /** @param {number} chunks @param {number} tokens in each @returns {Promise<number[]>} ms a chunk of each of `steps`, in order */
  async timeSteps(chunks, tokens) {
    const profile = this.#profile
    if (!profile) return []
    const sums = this.steps.map(() => 0)
    this.model.profile = profile
    try {
      for (let chunk = 0; chunk < chunks; chunk++) {
        this.session.append(this.#ids(chunk * tokens, tokens))
        await this.session.prepareLogits()
        const ms = await profile.read()
        for (const [i, step] of this.steps.entries()) sums[i] += ms.get(step) ?? 0
        await this.#turn()
      }
    } finally {
      this.model.profile = null
    }
    return sums.map((sum) => sum / chunks)
  }

  /** Copies between two blocks; the quickest counts. */
  async readMemory() {
    if (!this.#pair) return
    const [from, to] = this.#pair
    const { queue } = this.model.device
    for (;;) {
      const encoder = this.model.device.encoder()
      for (let i = 0; i < this.#copies; i++) {
        encoder.copyBufferToBuffer(i % 2 ? to : from, 0, i % 2 ? from : to, 0, from.size)
      }
      const commands = encoder.finish()
      const start = performance.now()
      queue.submit([commands])
      await queue.onSubmittedWorkDone()
      const ms = performance.now() - start
      this.model.device.checkLost()
      this.copyBytesPerMs = Math.max(this.copyBytesPerMs, (2 * from.size * this.#copies) / ms)
      await this.#turn()
      if (ms >= COPY_MS || this.#copies >= MOST_COPIES) return
      this.#copies *= 2
    }
  }

  close() {
    this.#profile?.close()
    for (const buffer of this.#pair ?? []) buffer.destroy()
    this.model.close()
    this.core.close()
  }
}

/**
 * @param {Core} core
 * @param {BenchModel} wanted
 * @param {(config: import('../format.js').ModelConfig) => Promise<GpuModel>} modelFor
 * @param {AbortSignal} signal
 */
async function fill(core, wanted, modelFor, signal) {
  if (!wanted.synthetic) return loadFile(core, wanted, ({ config }) => modelFor(config), signal)
  const model = await modelFor(syntheticConfig(wanted.synthetic))
  await fillRandomly(model, core, signal)
  return { model, header: null }
}
