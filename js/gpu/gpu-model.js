/**
 * A model's weights on the GPU, and the forward pass over them.
 *
 * Owns the buffers of the weights, what is folded when a part is complete, the memory that chunks are worked in, and the order of dispatches: the
 * steps of src/bm_forward.c, by the same names. js/gpu/gpu-session.js has the state. Takes weights as js/core-model.js does, so that the loader
 * does not know the difference.
 * The idea: everything that a token needs is made before the first one. A chunk is one pass of 6 dispatches a layer and one submit.
 */

import { BmError } from '../errors.js'
import { FOUND_BYTES } from './gpu-candidates.js'
import { USAGE } from './gpu-device.js'
import { actStride, createKernels, hasIntegerHead, PRODUCT_TILES } from './gpu-kernels.js'
import { GpuSession } from './gpu-session.js'
import {
  backupTokensOf,
  bytesOf,
  HEAD_ROWS,
  MOST_TOKENS,
  segmentsOf,
  sizesOf,
} from './gpu-sizes.js'

/** @typedef {import('../core.js').Core} Core */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */
/** @typedef {import('../format.js').TensorSpec} TensorSpec */
/** @typedef {import('./gpu-device.js').GpuDevice} GpuDevice */

const STORAGE = USAGE.storage | USAGE.copyDst | USAGE.copySrc

/**
 * A table of rows by token id: the embedding, and the head where it is another.
 * @typedef {{ segments: { first: number, count: number, buffer: GPUBuffer, uniform: GPUBuffer }[], scales: GPUBuffer }} Table
 */

/** @typedef {Record<'inSign' | 'inScale' | 'inBias' | 'conv' | 'convBias' | 'heads' | 'outSign' | 'outScale' | 'outBias', GPUBuffer>} LayerBuffers */

/** @type {Record<ModelConfig['embedding_dtype'], import('../core.js').HeadType>} */
const HEADS = { I8: 'int8', F16: 'f16', F32: 'f32' }

/** Small tensors wait in JavaScript until their part is complete; the names of the rest, which go straight to the GPU. */
const LARGE = /^(embedding\.weight|head\.weight|layers\.\d+\.(in|out)_proj\.sign)$/

/** What dispatches are recorded in: a pass of the GPU, or what times each of them. @typedef {Pick<GPUComputePassEncoder, 'setPipeline' | 'setBindGroup' | 'dispatchWorkgroups' | 'end'>} Pass */

export class GpuModel {
  /** @type {Set<GpuSession>} that are open */
  #sessions = new Set()
  /** @type {Map<number, Uint8Array>} small tensors that are arriving, by index */
  #small = new Map()
  /** @type {Map<number, number>} bytes that are missing, by part */
  #missing = new Map()
  #closed = false
  /** What times each dispatch, while that is measured. @type {import('./gpu-profile.js').GpuProfile | null} */
  profile = null

  /**
   * @param {GpuModelParts} parts
   */
  constructor(parts) {
    this.core = parts.core
    this.device = parts.device
    this.config = parts.config
    this.sizes = parts.sizes
    /** Of the computation: `high` is computed as `exact`. */
    this.precision = parts.mode.precision
    this.state = parts.mode.state
    this.hasIntegerHead = hasIntegerHead(parts.sizes, parts.mode)
    this.tensors = parts.tensors
    this.layers = parts.layers
    this.embeddingTable = parts.embeddingTable
    this.headTable = parts.headTable
    /** What computes, as a core's model names its kernel family. */
    this.variant = 'webgpu'
    /** What the logits are computed with. @type {import('../core.js').HeadType} */
    this.head = HEADS[parts.config.embedding_dtype]
    this.normF = parts.normF
    this.work = parts.work
    /** Parts to seal: the embedding, every layer, the final norm with the head. */
    this.parts = parts.config.n_layer + 2
    for (const { part, sizeBytes } of this.tensors) {
      this.#missing.set(part, (this.#missing.get(part) ?? 0) + sizeBytes)
    }
    /** Shaders are compiled while weights arrive; sessions wait for it. */
    this.ready = this.#finish(parts.kernels)
    this.ready.catch(() => {}) // whoever needs it awaits it
  }

  /** @type {import('./gpu-kernels.js').Kernels} once it is ready */
  kernels = /** @type {never} */ (null)
  /** @type {ReturnType<typeof makePasses>} once it is ready */
  passes = /** @type {never} */ (null)

  /** @param {Promise<import('./gpu-kernels.js').Kernels>} kernels */
  async #finish(kernels) {
    this.kernels = await kernels
    this.passes = await this.device.making('the passes', () => makePasses(this))
  }

  /**
   * Makes all buffers, and begins to compile: weights need not wait for that.
   *
   * @param {Core} core for what a state consists of, and for sampling
   * @param {GpuDevice} device
   * @param {ModelConfig} config
   * @param {object} [options]
   * @param {import('../core.js').Precision} [options.precision]  default 'exact', which 'high' is, too
   * @param {import('../core.js').StateType} [options.state]  of all its sessions; default 'f32'
   * @returns {Promise<GpuModel>} empty: write every tensor, seal every part
   * @throws {BmError} `unsupported`, `memory`, `config`
   */
  static async create(core, device, config, { precision = 'exact', state = 'f32' } = {}) {
    const sizes = sizesOf(config)
    const tensors = core.tensors(config)
    /** @type {import('./gpu-kernels.js').GpuMode} */
    const mode = {
      precision: precision === 'fast' ? 'fast' : 'exact',
      state,
      usesDot4: device.usesDot4,
      usesSubgroups: device.usesSubgroups,
    }
    const kernels = createKernels(device, sizes, mode)
    kernels.catch(() => {}) // it is awaited in `ready`, unless there is no memory
    return device.making('the weights', () => {
      const make = (/** @type {number} */ floats, usage = STORAGE) =>
        device.buffer(4 * floats, usage)
      const embeddingTable = makeTable(device, sizes)
      const layers = Array.from({ length: sizes.nLayer }, () => makeLayer(make, sizes))
      const { dModel, dInner, inRows } = sizes
      const work = {
        ids: make(MOST_TOKENS),
        r: make(MOST_TOKENS * dModel),
        x: make(MOST_TOKENS * Math.max(dModel, dInner)),
        act: make(
          mode.precision === 'fast' ? MOST_TOKENS * actStride(Math.max(dModel, dInner)) : 0,
        ),
        c: make(MOST_TOKENS),
        zxbcdt: make(MOST_TOKENS * inRows),
        y: make(MOST_TOKENS * dInner),
        logits: make(sizes.vocabSize),
        found: make(FOUND_BYTES / 4),
      }
      return new GpuModel({
        core,
        device,
        config,
        sizes,
        mode,
        kernels,
        tensors,
        layers,
        embeddingTable,
        headTable: sizes.isTied ? embeddingTable : makeTable(device, sizes),
        normF: { scale: make(dModel), bias: make(dModel) },
        work,
      })
    })
  }

  /**
   * @param {number} index into the tensors @param {number} offset in bytes @param {Uint8Array} bytes
   * @throws {BmError} `format` for NaN or infinity in a large tensor
   */
  write(index, offset, bytes) {
    this.#checkOpen()
    const tensor = /** @type {TensorSpec} */ (this.tensors[index])
    this.#missing.set(tensor.part, Number(this.#missing.get(tensor.part)) - bytes.length)
    if (LARGE.test(tensor.name)) {
      checkFinite(tensor, bytes)
      this.#writeLarge(tensor, offset, bytes)
      return
    }
    const whole = this.#small.get(index) ?? new Uint8Array(tensor.sizeBytes)
    whole.set(bytes, offset)
    this.#small.set(index, whole)
  }

  /** @param {TensorSpec} tensor @param {number} offset @param {Uint8Array} bytes */
  #writeLarge({ name }, offset, bytes) {
    const { queue } = this.device
    const layer = /^layers\.(\d+)\.(in|out)_/.exec(name)
    if (layer) {
      const buffers = /** @type {LayerBuffers} */ (this.layers[Number(layer[1])])
      const target = layer[2] === 'in' ? buffers.inSign : buffers.outSign
      queue.writeBuffer(target, offset, /** @type {BufferSource} */ (bytes))
      return
    }
    const { rowBytes } = this.sizes
    const table = name.startsWith('head') ? this.headTable : this.embeddingTable
    for (const { first, count, buffer } of table.segments) {
      const start = Math.max(offset, first * rowBytes)
      const end = Math.min(offset + bytes.length, (first + count) * rowBytes)
      if (start >= end) continue
      const part = bytes.subarray(start - offset, end - offset)
      queue.writeBuffer(buffer, start - first * rowBytes, /** @type {BufferSource} */ (part))
    }
  }

  /**
   * Folds what the forward pass wants folded.
   * @param {number} part
   * @throws {BmError} `format` for NaN or infinity in a weight, `internal` when bytes are missing
   */
  seal(part) {
    this.#checkOpen()
    if (this.#missing.get(part) !== 0) {
      throw new BmError('internal', `part ${part} of the model is not complete`)
    }
    /** @type {Record<string, Float32Array>} by the name within the part */
    const found = {}
    for (const [index, tensor] of this.tensors.entries()) {
      const bytes = tensor.part === part ? this.#small.get(index) : undefined
      if (!bytes) continue
      const values = new Float32Array(bytes.buffer)
      if (!values.every(Number.isFinite)) throw notFinite(tensor.name)
      found[tensor.name.replace(/^layers\.\d+\./, '')] = values
      this.#small.delete(index)
    }
    this.#put(part, found)
  }

  /** @param {number} part @param {Record<string, Float32Array>} tensors */
  #put(part, tensors) {
    const put = (
      /** @type {GPUBuffer} */ buffer,
      /** @type {Float32Array | undefined} */ values,
    ) => {
      if (values) this.device.queue.writeBuffer(buffer, 0, /** @type {BufferSource} */ (values))
    }
    put(this.embeddingTable.scales, tensors['embedding.scale'])
    put(this.headTable.scales, tensors['head.scale'])
    put(this.normF.scale, tensors['norm_f.weight'])
    const layer = this.layers[part - 1]
    if (!layer) return
    const need = (/** @type {string} */ name) => /** @type {Float32Array} */ (tensors[name])
    const times = (/** @type {string} */ a, /** @type {string} */ b) => {
      const folded = need(a).map((value, i) => value * Number(need(b)[i]))
      if (!folded.every(Number.isFinite)) throw notFinite(`${a} times ${b}`)
      return folded
    }
    put(layer.inScale, times('norm.weight', 'in_proj.alpha'))
    put(layer.inBias, times('norm.weight', 'in_proj.beta'))
    put(layer.outScale, times('gate_norm.weight', 'out_proj.alpha'))
    put(layer.outBias, times('gate_norm.weight', 'out_proj.beta'))
    put(layer.conv, need('conv.weight'))
    put(layer.convBias, need('conv.bias'))
    put(layer.heads, headsOf(need('dt_bias'), need('A_log'), need('D')))
  }

  /** @returns {Promise<GpuSession>} at position 0 */
  async createSession() {
    this.#checkOpen()
    await this.ready
    this.#checkOpen()
    const onClose = (/** @type {GpuSession} */ session) => void this.#sessions.delete(session)
    const session = await GpuSession.create(this, onClose)
    this.#sessions.add(session)
    return session
  }

  /** @param {readonly GpuSession[]} sessions @param {ArrayLike<number>} ids one for each */
  appendEach(sessions, ids) {
    for (const [i, session] of sessions.entries()) session.append([Number(ids[i])])
  }

  /** Each session asks for its own. */
  logitsEach() {}

  /**
   * Records a chunk: from the ids in `work.ids` to the final normed vectors of a session.
   * @param {Pass} pass @param {GpuSession} session @param {number} tokens
   */
  record(pass, session, tokens) {
    const { kernels, sizes, passes } = this
    const run = (
      /** @type {GPUComputePipeline} */ kernel,
      /** @type {GPUBindGroup} */ group,
      x = 1,
      y = 1,
    ) => {
      pass.setPipeline(kernel)
      pass.setBindGroup(0, group)
      pass.dispatchWorkgroups(x, y)
    }
    const isOne = tokens === 1
    const tile = isOne ? PRODUCT_TILES.one : PRODUCT_TILES.many
    const tiles = Math.ceil(tokens / tile.tokens)
    for (const group of passes.embed)
      run(kernels.embed, group, Math.ceil(sizes.dModel / 256), tokens)
    for (const [i, layer] of passes.layers.entries()) {
      const own =
        /** @type {{ conv: GPUBindGroup, scan: GPUBindGroup, in: GPUBindGroup, out: GPUBindGroup }} */ (
          session.groups[i]
        )
      run(kernels.normIn, layer.prepareIn, tokens)
      run(
        isOne ? kernels.inOne : kernels.inMany,
        own.in,
        Math.ceil(sizes.inRows / tile.rows),
        tiles,
      )
      run(kernels.conv, own.conv, Math.ceil(sizes.convDim / 64))
      run(kernels.scan, own.scan, sizes.nHeads)
      run(kernels.normGated, layer.prepareOut, tokens)
      run(
        isOne ? kernels.outOne : kernels.outMany,
        own.out,
        Math.ceil(sizes.dModel / tile.rows),
        tiles,
      )
    }
    run(kernels.finish, session.finish, tokens)
  }

  /** Records the logits after a token of the session's last chunk. @param {Pass} pass @param {GpuSession} session */
  recordHead(pass, session) {
    if (this.kernels.headInputs && session.headInputs) {
      pass.setPipeline(this.kernels.headInputs)
      pass.setBindGroup(0, session.headInputs)
      pass.dispatchWorkgroups(1)
    }
    for (const [i, group] of session.heads.entries()) {
      pass.setPipeline(this.kernels.head)
      pass.setBindGroup(0, group)
      pass.dispatchWorkgroups(Math.ceil(Number(this.headTable.segments[i]?.count) / HEAD_ROWS))
    }
  }

  /** Records which of them are the largest. @param {Pass} pass @param {GpuSession} session */
  recordCandidates(pass, session) {
    pass.setPipeline(this.kernels.candidates)
    pass.setBindGroup(0, session.candidates)
    pass.dispatchWorkgroups(1)
  }

  #checkOpen() {
    if (this.#closed) throw new BmError('closed', 'the model was closed')
  }

  /** Each once: tables may be the same. */
  get #buffers() {
    const tables = [this.embeddingTable, this.headTable].flatMap(({ segments, scales }) => [
      scales,
      ...segments.flatMap(({ buffer, uniform }) => [buffer, uniform]),
    ])
    const others = [...this.layers, this.normF, this.work].flatMap((one) => Object.values(one))
    return new Set([...tables, ...others])
  }

  /** @returns {number} tokens between two backups of a session's state */
  get backupTokens() {
    return backupTokensOf(this.core.stateBytes(this.config, this.state))
  }

  /** @returns {number} on the GPU: weights, what is worked in, and the open sessions */
  get gpuBytes() {
    const sessions = [...this.#sessions].reduce((sum, { gpuBytes }) => sum + gpuBytes, 0)
    return bytesOf([...this.#buffers]) + sessions
  }

  /** Frees the weights, and the sessions that are still open; the device stays. Idempotent. */
  free() {
    if (this.#closed) return
    this.#closed = true
    for (const session of this.#sessions) session.close()
    for (const buffer of this.#buffers) buffer.destroy()
  }

  /** Ends the device, too. Idempotent. */
  close() {
    this.free()
    this.device.close()
  }
}

/**
 * @typedef {object} GpuModelParts
 * @property {Core} core
 * @property {GpuDevice} device
 * @property {ModelConfig} config
 * @property {import('./gpu-sizes.js').GpuSizes} sizes
 * @property {import('./gpu-kernels.js').GpuMode} mode
 * @property {Promise<import('./gpu-kernels.js').Kernels>} kernels
 * @property {TensorSpec[]} tensors
 * @property {LayerBuffers[]} layers
 * @property {Table} embeddingTable
 * @property {Table} headTable  the same when they are tied
 * @property {{ scale: GPUBuffer, bias: GPUBuffer }} normF
 * @property {Record<'ids' | 'r' | 'x' | 'act' | 'c' | 'zxbcdt' | 'y' | 'logits' | 'found', GPUBuffer>} work
 */

/** @param {GpuDevice} device @param {import('./gpu-sizes.js').GpuSizes} sizes @returns {Table} */
function makeTable(device, sizes) {
  const segments = segmentsOf(sizes, device.limits.maxStorageBufferBindingSize).map(
    ({ first, count }) => {
      const uniform = device.buffer(16, USAGE.uniform | USAGE.copyDst)
      device.queue.writeBuffer(uniform, 0, Uint32Array.of(first, count))
      return { first, count, uniform, buffer: device.buffer(count * sizes.rowBytes, STORAGE) }
    },
  )
  return { segments, scales: device.buffer(4 * sizes.tableRows, STORAGE) }
}

/** @param {(floats: number) => GPUBuffer} make @param {import('./gpu-sizes.js').GpuSizes} s @returns {LayerBuffers} */
function makeLayer(make, s) {
  return {
    inSign: make((s.inRows * s.dModel) / 32),
    inScale: make(s.dModel),
    inBias: make(s.dModel),
    conv: make(s.convDim * s.dConv),
    convBias: make(s.convDim),
    heads: make(4 * s.nHeads),
    outSign: make((s.dModel * s.dInner) / 32),
    outScale: make(s.dInner),
    outBias: make(s.dInner),
  }
}

/** The bind groups that belong to no session. @param {GpuModel} model */
function makePasses({ device, kernels, layers, embeddingTable, work, precision }) {
  const inputs = precision === 'fast' ? [work.act] : []
  return {
    embed: embeddingTable.segments.map(({ buffer, uniform }) =>
      device.bind(kernels.embed, [buffer, embeddingTable.scales, uniform, work.ids, work.r]),
    ),
    layers: layers.map((layer) => ({
      prepareIn: device.bind(kernels.normIn, [
        work.r,
        layer.inScale,
        layer.inBias,
        work.x,
        work.c,
        ...inputs,
      ]),
      prepareOut: device.bind(kernels.normGated, [
        work.y,
        work.zxbcdt,
        layer.outScale,
        layer.outBias,
        work.x,
        work.c,
        ...inputs,
      ]),
    })),
  }
}

/** As scan.wgsl wants them: A = -exp(A_log). @param {Float32Array} bias @param {Float32Array} aLog @param {Float32Array} d */
function headsOf(bias, aLog, d) {
  const heads = new Float32Array(4 * bias.length)
  for (let h = 0; h < bias.length; h++) {
    heads.set([Number(bias[h]), -Math.exp(Number(aLog[h])), Number(d[h])], 4 * h)
  }
  return heads
}

/** @param {TensorSpec} tensor @param {Uint8Array} bytes of it */
function checkFinite({ name, dtype }, bytes) {
  if (dtype === 'F32') {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let i = 0; i < bytes.length; i += 4) {
      if ((view.getUint32(i, true) & 0x7f800000) === 0x7f800000) throw notFinite(name)
    }
  }
  if (dtype === 'F16') {
    for (let i = 1; i < bytes.length; i += 2)
      if ((Number(bytes[i]) & 0x7c) === 0x7c) throw notFinite(name)
  }
}

/** @param {string} name */
function notFinite(name) {
  return new BmError('format', `${name} holds NaN or infinity`)
}
