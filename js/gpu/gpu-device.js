/**
 * A WebGPU device, and making things on it without being fooled.
 *
 * Owns the asking for an adapter, the error scopes around what can fail silently, and the news that the device is lost. Knows nothing about models.
 * The idea: WebGPU reports most failures to nobody. A buffer that could not be made is an object like any other, and everything done with it is
 * ignored; so whatever is made is made inside a scope that is looked at.
 */

import { BmError, reasonOf } from '../errors.js'

/** As GPUBufferUsage has them, which Node has not. */
export const USAGE = {
  mapRead: 0x0001,
  copySrc: 0x0004,
  copyDst: 0x0008,
  uniform: 0x0040,
  storage: 0x0080,
  queryResolve: 0x0200,
}
const MAP_READ = 0x0001
/** Used where the adapter has it. */
const SUBGROUPS = /** @type {GPUFeatureName} */ ('subgroups')
/** Those that add up a group of 256 columns: sums_subgroups.wgsl. */
const LANES_OF_GROUP = 8
/** So long after what fails because of it, a loss is told at the latest. */
const LOSS_MS = 100

/** @template T @param {() => T | Promise<T>} make @returns {Promise<{ value: T } | { error: unknown }>} */
async function attempt(make) {
  try {
    return { value: await make() }
  } catch (error) {
    return { error }
  }
}

/** What a device failed at: it was lost, or refused what was asked of it. */
export class DeviceFailure extends BmError {
  /** @param {GpuDevice} device @param {string} message @param {{ cause?: unknown }} [options] */
  constructor(device, message, options) {
    super('gpu', message, options)
    /** Which device: what is heard late of one that was replaced says nothing about the other. */
    this.device = device
    /** It was lost, which may be different next time; else it refused something. */
    this.isLoss = device.lost !== null
  }
}

export class GpuDevice {
  #device
  /** @type {Map<string, Promise<GPUComputePipeline>>} by their texts: models of one device share them */
  #pipelines = new Map()
  /** @type {GPUBuffer[] | null} what the `making` that is at work has made */
  #made = null
  /** @type {string | null} why nothing can be done any more */
  lost = null
  /** @type {string | null} what a command was refused for: it was left out, and what it would have computed is not there */
  #refused = null

  /** @param {GPUDevice} device @param {GPUAdapterInfo} info @param {GPU} gpu that it is of */
  constructor(device, info, gpu) {
    this.#device = device
    const least = Number(Reflect.get(info, 'subgroupMinSize') ?? 0)
    /** Who made the adapter, and what it is. */
    this.info = info
    /** Node's must not be collected before its device. */
    this.gpu = gpu
    /** Whether integers are multiplied by dot4I8Packed: where WGSL has it, unless js/gpu/dot-choice.js has found that it is slower. */
    this.usesDot4 = gpu.wgslLanguageFeatures?.has('packed_4x8_integer_dot_product') ?? false
    /** Whether integers are added up among the 8 neighbours that every subgroup has, if not js/gpu/dot-choice.js has found that slower. */
    this.usesSubgroups = device.features.has('subgroups') && least >= LANES_OF_GROUP
    // Outside of `making` nothing else would tell.
    device.addEventListener('uncapturederror', ({ error }) => {
      this.#refused ??= error.message
    })
    void device.lost.then(({ message, reason }) => {
      this.lost ??= message || reason
    })
  }

  /**
   * With the limits that every WebGPU has.
   *
   * @param {GPU | null | undefined} gpu  `navigator.gpu`, or what Node's package `webgpu` makes
   * @param {readonly GPUFeatureName[]} [wanted]  features besides `subgroups`, of which the device has those that its adapter has; default: none
   * @returns {Promise<GpuDevice>}
   * @throws {BmError} `unsupported`
   */
  static async open(gpu, wanted = []) {
    if (!gpu)
      throw new BmError(
        'unsupported',
        'WebGPU is not here (in Node it is where the package webgpu is installed)',
      )
    const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' })
    if (!adapter) throw new BmError('unsupported', 'WebGPU is here, but no adapter for it')
    const requiredFeatures = [...wanted, SUBGROUPS].filter((name) => adapter.features.has(name))
    try {
      return new GpuDevice(await adapter.requestDevice({ requiredFeatures }), adapter.info, gpu)
    } catch (cause) {
      throw new BmError('unsupported', `no WebGPU device: ${reasonOf(cause)}`, { cause })
    }
  }

  /** @returns {string | null} its name, where it is a program on the processor and no GPU */
  get softwareName() {
    const { architecture, description, vendor } = this.info
    const isSoftware = Reflect.get(this.info, 'isFallbackAdapter') === true
    const names = [architecture, description, vendor].join(' ')
    return isSoftware || /swiftshader|llvmpipe|lavapipe|basic render/i.test(names)
      ? architecture || description || 'a software adapter'
      : null
  }

  get limits() {
    return this.#device.limits
  }

  /** @returns {boolean} whether the GPU's clock can be read */
  get hasClock() {
    return this.#device.features.has('timestamp-query')
  }

  get queue() {
    return this.#device.queue
  }

  /** @returns {GPUCommandEncoder} */
  encoder() {
    return this.#device.createCommandEncoder()
  }

  /**
   * Runs what makes things, and fails when any of it failed; then the buffers that were made with it are freed.
   *
   * @template T
   * @param {string} what for the message
   * @param {() => T | Promise<T>} make  asks the device for everything before it awaits anything: only that is watched
   * @returns {Promise<T>}
   * @throws {BmError} `memory`; `gpu` for what the validator refuses, or when the device is lost
   */
  async making(what, make) {
    this.checkLost()
    /** @type {GPUBuffer[]} */
    const made = []
    this.#made = made
    this.#device.pushErrorScope('validation')
    this.#device.pushErrorScope('out-of-memory')
    const work = attempt(make)
    // Closed before anyone else has a turn, so that scopes never interleave.
    const scopes = [this.#device.popErrorScope(), this.#device.popErrorScope()]
    this.#made = null
    const [result, memory, validation] = await Promise.all([
      work,
      ...scopes.map((scope) => scope.catch(() => null)),
    ])
    try {
      this.checkLost()
      if (memory) {
        throw new BmError('memory', `${what}: the GPU has no memory for it: ${memory.message}`)
      }
      if (validation) throw new DeviceFailure(this, `${what}: ${validation.message}`)
      if (!('error' in result)) return result.value
      if (result.error instanceof BmError) throw result.error
      const cause = result.error
      throw new DeviceFailure(this, `${what}: ${reasonOf(cause)}`, { cause })
    } catch (error) {
      for (const buffer of made) buffer.destroy()
      throw error
    }
  }

  /** @param {number} bytes @param {number} usage @returns {GPUBuffer} zeroed; inside `making` */
  buffer(bytes, usage) {
    // Sizes are multiples of 4, and nothing is bound that is empty.
    const size = Math.max(16, Math.ceil(bytes / 4) * 4)
    const buffer = this.#device.createBuffer({ size, usage })
    this.#made?.push(buffer)
    return buffer
  }

  /** @param {number} count @returns {GPUQuerySet} of times; inside `making`, where there is a clock */
  timestamps(count) {
    return this.#device.createQuerySet({ type: 'timestamp', count })
  }

  /**
   * @param {string} code in WGSL
   * @param {readonly GPUBufferBindingType[]} bindings of group 0, in order
   * @param {string} label
   * @returns {Promise<GPUComputePipeline>} one for each text
   */
  pipeline(code, bindings, label) {
    const made = this.#pipelines.get(`${label}\n${code}`) ?? this.#compile(code, bindings, label)
    this.#pipelines.set(`${label}\n${code}`, made)
    return made
  }

  /** @param {string} code @param {readonly GPUBufferBindingType[]} bindings @param {string} label */
  #compile(code, bindings, label) {
    const device = this.#device
    const layout = device.createBindGroupLayout({
      entries: bindings.map((type, binding) => ({ binding, visibility: 4, buffer: { type } })),
    })
    return device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ code, label }), entryPoint: 'main' },
    })
  }

  /** @param {GPUComputePipeline} pipeline @param {readonly (GPUBuffer | GPUBufferBinding)[]} buffers @returns {GPUBindGroup} */
  bind(pipeline, buffers) {
    return this.#device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: buffers.map((one, binding) => ({
        binding,
        resource: 'buffer' in one ? one : { buffer: one },
      })),
    })
  }

  /**
   * @param {GPUBuffer} buffer that was made to be mapped, and written by commands that were submitted
   * @param {number} bytes
   * @returns {Promise<Uint8Array<ArrayBuffer>>} a copy
   */
  async read(buffer, bytes) {
    try {
      await buffer.mapAsync(MAP_READ, 0, bytes)
    } catch (cause) {
      // A loss may be told by this first.
      const soon = new Promise((resolve) => setTimeout(resolve, LOSS_MS))
      await Promise.race([this.#device.lost, soon])
      this.checkLost()
      throw new DeviceFailure(this, `the GPU gave nothing back: ${reasonOf(cause)}`, { cause })
    }
    const copy = new Uint8Array(buffer.getMappedRange(0, bytes).slice(0))
    buffer.unmap()
    this.#checkRefused()
    return copy
  }

  /** Whether it can still be trusted. @throws {BmError} `gpu` */
  checkLost() {
    if (this.lost !== null) throw new DeviceFailure(this, `the GPU was lost: ${this.lost}`)
    this.#checkRefused()
  }

  #checkRefused() {
    if (this.#refused === null) return
    throw new DeviceFailure(this, `the GPU refused a command: ${this.#refused}`)
  }

  close() {
    this.lost ??= 'closed'
    this.#device.destroy()
  }
}
