/**
 * A session on the GPU: the same methods as js/core-session.js, some of which must be awaited.
 *
 * Owns the buffers of one state, and what has been asked for but not submitted. Logits come back to the engine's memory, where the core samples.
 * The idea: a token that is appended is only noted. When its logits are asked for next, both go to the GPU in one submit.
 */

import { CoreLogits } from '../core-logits.js'
import { BmError } from '../errors.js'
import { candidatesIn, FOUND_BYTES, MOST_CANDIDATES, wantedFor } from './gpu-candidates.js'
import { USAGE } from './gpu-device.js'
import { aligned, backupTokensOf, bytesOf, MOST_TOKENS } from './gpu-sizes.js'

/** @typedef {import('./gpu-model.js').GpuModel} GpuModel */

const MAX_F32 = 3.4028234663852886e38
const STORAGE = USAGE.storage | USAGE.copySrc | USAGE.copyDst

/** @typedef {'conv' | 'scales' | 'ssm' | 'unit' | 'most'} ArrayName  of a state; the last two are there in 16 bits only */

/** Bytes that a layer has of each array. @param {GpuModel} model @returns {[ArrayName, number][]} */
function layerBytes({ sizes: s, state }) {
  const rows = s.nHeads * s.headdim
  const isI16 = state === 'i16'
  return [
    ['conv', 4 * (s.dConv - 1) * s.convDim],
    ['scales', 8 * s.nHeads],
    ['ssm', (isI16 ? 2 : 4) * rows * s.dState],
    ...(isI16
      ? /** @type {[ArrayName, number][]} */ ([
          ['unit', 4 * rows],
          ['most', 4 * rows],
        ])
      : []),
  ]
}

/** What the core calls them. @type {Record<ArrayName, string>} */
const NAMES = {
  conv: 'conv',
  scales: 'ssm.scale',
  ssm: 'ssm',
  unit: 'ssm.unit',
  most: 'ssm.most',
}

export class GpuSession extends CoreLogits {
  #model
  #buffers
  #onClose
  /** @type {Uint32Array | null} of the chunk that has not been submitted */
  #pending = null
  /** Tokens of the last chunk; 0 after a reset. */
  #lastCount = 0
  #position = 0
  #logits
  /** The token of the last chunk whose logits are in the engine's memory; -1: none. */
  #logitsOf = -1
  /** @type {Uint32Array | null} ids of the only ones that are there; null: all may be */
  #candidates = null
  /** These are all that the next draw looks at. */
  #hasDraw = false
  #failed = false
  #closed = false
  maxChunk = MOST_TOKENS

  /** Use `create`. @param {GpuModel} model @param {SessionBuffers} buffers @param {(session: GpuSession) => void} onClose */
  constructor(model, buffers, onClose) {
    super(model.core, model.config.vocab_size)
    this.#model = model
    this.#buffers = buffers
    this.#onClose = onClose
    this.stateBytes = model.core.stateBytes(model.config, model.state)
    /** A state is copied from the GPU every so many tokens, for it can be lost. */
    this.backupTokens = backupTokensOf(this.stateBytes)
    this.#logits = model.core.pointer('block_create', 4 * this.vocabSize)
    Object.assign(this, makeGroups(model, buffers))
  }

  /** @type {Record<'conv' | 'scan' | 'in' | 'out' | 'rescale', GPUBindGroup>[]} of each layer */
  groups = []
  /** @type {GPUBindGroup} of the last norm */
  finish = /** @type {never} */ (null)
  /** @type {GPUBindGroup[]} of each segment of the head */
  heads = []
  /** @type {GPUBindGroup | null} of its inputs as integers */
  headInputs = null
  /** @type {GPUBindGroup} */
  candidates = /** @type {never} */ (null)

  /** @param {GpuModel} model @param {(session: GpuSession) => void} onClose @returns {Promise<GpuSession>} */
  static async create(model, onClose) {
    const { device, sizes } = model
    /** @type {GpuSession[]} */
    const made = []
    const make = () => {
      const arrays = layerBytes(model).map(([name, bytes]) => [
        name,
        device.buffer(sizes.nLayer * aligned(bytes), STORAGE),
      ])
      const buffers = {
        .../** @type {StateBuffers} */ (Object.fromEntries(arrays)),
        hidden: device.buffer(4 * MOST_TOKENS * sizes.dModel, STORAGE),
        chunk: device.buffer(16, USAGE.uniform | USAGE.copyDst),
        logits: device.buffer(4 * sizes.vocabSize, USAGE.mapRead | USAGE.copyDst),
        found: device.buffer(FOUND_BYTES, USAGE.mapRead | USAGE.copyDst),
      }
      const session = new GpuSession(model, buffers, onClose)
      made.push(session)
      return session
    }
    try {
      return await device.making('a session', make)
    } catch (error) {
      made[0]?.close()
      throw error
    }
  }

  /** @returns {number} of its state and what it reads back */
  get gpuBytes() {
    return bytesOf(Object.values(this.#buffers))
  }

  /** Tokens consumed since the last reset. */
  get position() {
    this.#checkOpen()
    return this.#position
  }

  /** Back to position 0 and a zero state. */
  reset() {
    this.#checkOpen()
    const encoder = this.#model.device.encoder()
    for (const [name] of layerBytes(this.#model)) encoder.clearBuffer(this.#array(name))
    this.#model.device.queue.submit([encoder.finish()])
    this.#begin(0)
  }

  /** @param {number} position of the state that is there now */
  #begin(position) {
    this.#pending = null
    this.#position = position
    this.#lastCount = Math.min(1, position)
    this.#forgetLogits()
    this.#failed = false
  }

  /**
   * Consumes tokens.
   * @param {ArrayLike<number>} ids 1 to maxChunk of them
   * @throws {BmError} `argument` (the session is unchanged), `numeric` (reset the session)
   */
  append(ids) {
    this.#checkReady()
    this.checkChunk(ids, this.maxChunk)
    this.#flush()
    this.#pending = Uint32Array.from(ids)
    this.#position += ids.length
    this.#lastCount = ids.length
    this.#forgetLogits()
  }

  #forgetLogits() {
    this.#logitsOf = -1
    this.#hasDraw = false
  }

  /** As `append`, and waits until it is done. @param {ArrayLike<number>} ids */
  async *appendByLayers(ids) {
    this.append(ids)
    this.#flush()
    await this.#model.device.queue.onSubmittedWorkDone()
    this.#model.device.checkLost()
    yield
  }

  /**
   * What the device does not do must be asked for before; here everything is one submit.
   * @param {number} token of the last chunk, whose logits are wanted @param {number} wanted only so many of them, the largest; 0: all
   */
  #flush(token = -1, wanted = 0) {
    const ids = this.#pending
    if (!ids && token < 0) return
    const { device, work } = this.#model
    device.checkLost()
    const count = ids?.length ?? 0
    if (ids) device.queue.writeBuffer(work.ids, 0, /** @type {BufferSource} */ (ids))
    const history = this.#model.sizes.dConv - 1
    const first = (this.#position - count) % history
    const chunk = Uint32Array.of(count, first, Math.max(0, token), wanted)
    device.queue.writeBuffer(this.#buffers.chunk, 0, chunk)
    const encoder = device.encoder()
    const pass = this.#model.profile?.begin(encoder, this) ?? encoder.beginComputePass()
    if (ids) this.#model.record(pass, this, count)
    if (token >= 0) this.#model.recordHead(pass, this)
    if (wanted > 0) this.#model.recordCandidates(pass, this)
    pass.end()
    const { logits, found } = this.#buffers
    if (wanted > 0) encoder.copyBufferToBuffer(work.found, 0, found, 0, FOUND_BYTES)
    else if (token >= 0) {
      encoder.copyBufferToBuffer(work.logits, 0, logits, 0, 4 * this.vocabSize)
    }
    device.queue.submit([encoder.finish()])
    this.#pending = null
  }

  /**
   * Brings the logits to where `logits`, `logprob` and samplers find them.
   * @param {number} [index] token of the last append; negative counts from its end
   */
  async prepareLogits(index = -1) {
    this.#checkReady()
    const at = this.placeInChunk(index, this.#lastCount)
    if (this.#logitsOf === at) return
    this.#flush(at)
    const bytes = await this.#read(this.#buffers.logits, 4 * this.vocabSize)
    if (!new Float32Array(bytes.buffer).every(Number.isFinite)) throw this.#spoilt()
    this.#model.core.writeBytes(this.#logits, bytes)
    this.#logitsOf = at
    this.#candidates = null
    this.#hasDraw = false
  }

  /** @param {GPUBuffer} buffer of its own @param {number} bytes */
  async #read(buffer, bytes) {
    const { device } = this.#model
    try {
      return await device.read(buffer, bytes)
    } finally {
      // What was closed meanwhile gives nothing back, and that is no fault of the device's.
      if (device.lost === null) this.#checkOpen()
    }
  }

  #spoilt() {
    this.#failed = true
    const by = `by token ${this.#position - 1}`
    return new BmError('numeric', `the model computed NaN or infinity ${by}`)
  }

  /**
   * Brings what a sampler will look at to where it finds it: where that is little, little is read back.
   * @param {import('./gpu-candidates.js').Draw | null} draw null: it may look at all logits
   */
  async prepareDraw(draw) {
    this.#checkReady()
    const last = this.placeInChunk(-1, this.#lastCount)
    if (!draw || this.#logitsOf === last || this.vocabSize <= MOST_CANDIDATES) {
      await this.prepareLogits()
      return
    }
    this.#flush(last, wantedFor(draw))
    const bytes = await this.#read(this.#buffers.found, FOUND_BYTES)
    const { isSpoilt, isEnough, ids, logits } = candidatesIn(bytes, draw)
    if (isSpoilt) throw this.#spoilt()
    if (!isEnough) {
      await this.prepareLogits()
      return
    }
    this.#logitsOf = -1
    this.#putCandidates(ids, logits)
    this.#hasDraw = true
  }

  /** In the engine's memory all others are as small as can be. @param {Uint32Array} ids @param {Float32Array} logits */
  #putCandidates(ids, logits) {
    const { core } = this.#model
    const at = (/** @type {number} */ id) => this.#logits + 4 * id
    const none = rawBytes(new Float32Array(this.#candidates ? 1 : this.vocabSize).fill(-MAX_F32))
    if (!this.#candidates) core.writeBytes(this.#logits, none)
    for (const id of this.#candidates ?? []) core.writeBytes(at(id), none)
    for (const [i, id] of ids.entries())
      core.writeBytes(at(id), rawBytes(logits.subarray(i, i + 1)))
    this.#candidates = ids
  }

  drawPointer() {
    this.#checkReady()
    return this.#hasDraw ? this.#logits : this.logitsPointer(-1)
  }

  /** @param {number} index as for `prepareLogits`, which must have been awaited */
  logitsPointer(index) {
    this.#checkReady()
    if (this.placeInChunk(index, this.#lastCount) === this.#logitsOf) return this.#logits
    throw new BmError('internal', 'logits that were not prepared')
  }

  /** @returns {Promise<Uint8Array<ArrayBuffer>>} the state that the core would have now; more can be appended meanwhile */
  async state() {
    this.#checkReady()
    this.#flush()
    const { device } = this.#model
    const copy = await device.making('a copy of a state', () => this.#copyOut())
    try {
      return await device.read(copy, this.stateBytes)
    } finally {
      copy.destroy()
    }
  }

  /** @returns {GPUBuffer} that will have the state, when what was submitted is done */
  #copyOut() {
    const { device, kernels, sizes } = this.#model
    const copy = device.buffer(this.stateBytes, USAGE.mapRead | USAGE.copyDst)
    const encoder = device.encoder()
    const pass = encoder.beginComputePass()
    for (const { rescale } of this.groups) {
      pass.setPipeline(kernels.rescale)
      pass.setBindGroup(0, rescale)
      pass.dispatchWorkgroups(sizes.nHeads)
    }
    pass.end()
    for (const { buffer, from, to, bytes } of this.#places()) {
      encoder.copyBufferToBuffer(buffer, from, copy, to, bytes)
    }
    device.queue.submit([encoder.finish()])
    return copy
  }

  /** @param {ArrayName} name of those that are there */
  #array(name) {
    return /** @type {GPUBuffer} */ (this.#buffers[name])
  }

  /** Where each part of a state is on the GPU, and in a block of bytes. */
  #places() {
    const { core, config, sizes, state } = this.#model
    const tensors = core.stateTensors(config, state)
    const offset = (/** @type {string} */ wanted) =>
      Number(tensors.find(({ name }) => name === wanted)?.offset)
    const arrays = layerBytes(this.#model).map(
      ([name, size]) => /** @type {const} */ ([this.#array(name), size, offset(NAMES[name])]),
    )
    const { hidden } = this.#buffers
    const row = 4 * sizes.dModel
    const last = {
      buffer: hidden,
      from: Math.max(0, this.#lastCount - 1) * row,
      to: offset('last'),
      bytes: row,
    }
    return [
      last,
      ...Array.from({ length: sizes.nLayer }, (_, layer) =>
        arrays.map(([buffer, size, start]) => ({
          buffer,
          from: layer * aligned(size),
          to: start + layer * size,
          bytes: size,
        })),
      ).flat(),
    ]
  }

  /**
   * Makes a state its own.
   * @param {Uint8Array | GpuSession} state of the same model: a block that `state` gave here or in the core, or the session to copy
   * @param {number} position of it
   * @throws {BmError} `argument` (nothing has changed), `numeric`
   */
  adopt(state, position) {
    this.#checkOpen()
    if (position === 0) {
      this.reset()
      return
    }
    if (state instanceof GpuSession) this.#copyFrom(state)
    else this.#writeFrom(state)
    this.#begin(position)
  }

  /** @param {GpuSession} other */
  #copyFrom(other) {
    other.#checkReady()
    other.#flush()
    this.#lastCount = 1
    const encoder = this.#model.device.encoder()
    const targets = this.#places()
    for (const [i, { buffer, from, bytes }] of other.#places().entries()) {
      const target = targets[i]
      if (target) encoder.copyBufferToBuffer(buffer, from, target.buffer, target.from, bytes)
    }
    this.#model.device.queue.submit([encoder.finish()])
  }

  /** @param {Uint8Array} block */
  #writeFrom(block) {
    if (block.length !== this.stateBytes) {
      throw new BmError('argument', `a state of ${block.length} bytes, want ${this.stateBytes}`)
    }
    this.#lastCount = 1
    const places = this.#places()
    const last = places[0]
    const view = new DataView(block.buffer, block.byteOffset, block.length)
    for (let i = 0; last && i < last.bytes; i += 4) {
      if (Number.isFinite(view.getFloat32(last.to + i, true))) continue
      this.#failed = true
      throw new BmError('numeric', 'the state holds NaN or infinity')
    }
    for (const { buffer, from, to, bytes } of places) {
      const part = /** @type {BufferSource} */ (block.subarray(to, to + bytes))
      this.#model.device.queue.writeBuffer(buffer, from, part)
    }
  }

  #checkOpen() {
    if (this.#closed) throw new BmError('closed', 'the session was closed')
  }

  #checkReady() {
    this.#checkOpen()
    if (this.#failed)
      throw new BmError('numeric', 'the state holds NaN or infinity: reset the session')
  }

  /** Frees the state. Idempotent. */
  close() {
    if (this.#closed) return
    this.#closed = true
    this.#model.core.call('block_free', this.#logits)
    for (const buffer of Object.values(this.#buffers)) buffer.destroy()
    this.#onClose(this)
  }
}

/** @typedef {Record<'conv' | 'scales' | 'ssm', GPUBuffer> & { unit?: GPUBuffer, most?: GPUBuffer }} StateBuffers */
/** @typedef {StateBuffers & Record<'hidden' | 'chunk' | 'logits' | 'found', GPUBuffer>} SessionBuffers */

/** @param {Float32Array} floats */
const rawBytes = ({ buffer, byteOffset, byteLength }) =>
  new Uint8Array(buffer, byteOffset, byteLength)

/** The bind groups that belong to a session. @param {GpuModel} model @param {SessionBuffers} own */
function makeGroups(model, own) {
  const { device, kernels, layers, work, headTable, normF } = model
  const inputs = model.precision === 'fast' ? work.act : work.x
  const sizesOfArrays = new Map(layerBytes(model))
  const part = (/** @type {ArrayName} */ name, /** @type {number} */ layer) => {
    const size = Number(sizesOfArrays.get(name))
    const buffer = /** @type {GPUBuffer} */ (own[name])
    return { buffer, offset: layer * aligned(size), size }
  }
  const isI16 = model.state === 'i16'
  return {
    groups: layers.map((layer, i) => {
      const [ssm, scales] = [part('ssm', i), part('scales', i)]
      const rows = isI16 ? [part('unit', i), part('most', i)] : []
      const recurrence = [work.zxbcdt, ssm, scales, layer.heads, work.y, own.chunk, ...rows]
      return {
        in: device.bind(kernels.inOne, [layer.inSign, inputs, work.c, work.zxbcdt, own.chunk]),
        conv: device.bind(kernels.conv, [
          work.zxbcdt,
          part('conv', i),
          layer.conv,
          layer.convBias,
          own.chunk,
        ]),
        scan: device.bind(kernels.scan, recurrence),
        out: device.bind(kernels.outOne, [layer.outSign, inputs, work.c, work.r, own.chunk]),
        rescale: device.bind(kernels.rescale, [...(isI16 ? rows : [ssm]), scales]),
      }
    }),
    finish: device.bind(kernels.finish, [work.r, normF.scale, normF.bias, own.hidden, work.c]),
    candidates: device.bind(kernels.candidates, [work.logits, work.found, own.chunk]),
    headInputs: kernels.headInputs
      ? device.bind(kernels.headInputs, [own.hidden, work.x, own.chunk, work.act])
      : null,
    heads: headTable.segments.map(({ buffer, uniform }) =>
      device.bind(kernels.head, [
        buffer,
        headTable.scales,
        uniform,
        ...(model.hasIntegerHead ? [work.act, work.logits] : [own.hidden, work.logits, own.chunk]),
      ]),
    ),
  }
}
