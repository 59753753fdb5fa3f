/**
 * A software adapter that looks like another one, and fails when it is told to.
 *
 * Owns `navigator.gpu` of this process, which the package looks at first: so inline models and benchmarks of the command line use it, workers do not. Each
 * object of WebGPU is wrapped where something is changed about it; all else goes to the real one.
 */

import { findGpu } from '../../../js/platform.js'

/** Node's must stay referenced while its adapters and devices live. @type {GPU[]} */
const kept = []

/**
 * @typedef {object} Disguise
 * @property {boolean} [none]        there is no adapter
 * @property {boolean} [hardware]    it says that it is no program
 * @property {string[]} [without]    features that the adapter does not have
 * @property {Partial<Record<keyof GPUSupportedLimits, number>>} [limits]  of the devices, below what they are
 * @property {(descriptor: GPUBufferDescriptor, count: number) => 'memory' | 'validation' | 'throws' | undefined} [buffer]  how a buffer fails, by its number
 * @property {(descriptor: GPUComputePipelineDescriptor) => Promise<void> | void} [pipeline]  awaited before one is made
 * @property {(bytes: number, count: number) => boolean | Promise<boolean>} [map]  whether a `mapAsync` fails, by its size and number; awaited
 * @property {(count: number) => boolean} [device]  whether a `requestDevice` is refused, by its number
 */

/**
 * @typedef {object} Asked what the package has asked for
 * @property {GPUFeatureName[][]} features  of each device
 * @property {GPUDevice[]} devices          the real ones
 * @property {Set<GPUDevice>} open          those of them that the package has not destroyed
 * @property {Set<GPUBuffer>} buffers       that are not destroyed
 * @property {number} mostBound             bytes of the largest binding of a storage buffer
 * @property {object[]} limits              that were asked for
 * @property {number} made                  buffers that were asked for
 */

/** An object with some members in the place of its own. @template {object} T @param {T} real @param {Partial<Record<keyof T, unknown>>} own @returns {T} */
function wrap(real, own) {
  return new Proxy(real, {
    get(target, name) {
      if (Object.hasOwn(own, name)) return Reflect.get(own, name)
      const value = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/**
 * @param {Disguise | null} disguise  null: `navigator` is as it was
 * @returns {Promise<Asked>}
 */
export async function gpuAs(disguise) {
  /** @type {Asked} */
  const asked = {
    ...{ features: [], devices: [], limits: [], made: 0, mostBound: 0 },
    ...{ buffers: new Set(), open: new Set() },
  }
  Reflect.deleteProperty(globalThis, 'navigator')
  if (!disguise) return asked
  const real = await findGpu()
  if (!real) return asked
  kept.push(real)
  const gpu = wrap(real, {
    requestAdapter: async (/** @type {GPURequestAdapterOptions} */ options) => {
      const adapter = disguise.none ? null : await real.requestAdapter(options)
      return adapter && disguised(adapter, disguise, asked)
    },
  })
  const value = { hardwareConcurrency: 2, gpu }
  Object.defineProperty(globalThis, 'navigator', { value, configurable: true })
  return asked
}

/** @param {GPUAdapter} adapter @param {Disguise} disguise @param {Asked} asked */
function disguised(adapter, disguise, asked) {
  const { without = [], hardware = false } = disguise
  const info = { vendor: 'acme', architecture: 'fast-1', description: '', isFallbackAdapter: false }
  return wrap(adapter, {
    ...(hardware ? { info } : {}),
    features: new Set([...adapter.features].filter((name) => !without.includes(name))),
    requestDevice: async (/** @type {GPUDeviceDescriptor} */ descriptor = {}) => {
      if (disguise.device?.(asked.devices.length)) throw new Error('no device today')
      const features = [...(descriptor.requiredFeatures ?? [])]
      asked.features.push(features)
      const device = await adapter.requestDevice(descriptor)
      asked.devices.push(device)
      asked.open.add(device)
      if (descriptor.requiredLimits) asked.limits.push(descriptor.requiredLimits)
      return wrap(device, ownOf(device, disguise, asked))
    },
  })
}

/** @param {GPUDevice} device @param {Disguise} disguise @param {Asked} asked */
function ownOf(device, disguise, asked) {
  /** What the scopes that are open have seen; the real ones do not see what is only played. @type {(string | null)[]} */
  const played = []
  let mapped = 0
  return {
    ...(disguise.limits ? { limits: wrap(device.limits, disguise.limits) } : {}),
    destroy() {
      asked.open.delete(device)
      device.destroy()
    },
    createBindGroup(/** @type {GPUBindGroupDescriptor} */ descriptor) {
      for (const { resource } of descriptor.entries) {
        const { buffer, size } = /** @type {GPUBufferBinding} */ (resource)
        asked.mostBound = Math.max(asked.mostBound, size ?? buffer.size)
      }
      return device.createBindGroup(descriptor)
    },
    pushErrorScope(/** @type {GPUErrorFilter} */ filter) {
      played.push(null)
      device.pushErrorScope(filter)
    },
    popErrorScope() {
      const message = played.pop()
      const found = device.popErrorScope()
      return message ? found.then(() => ({ message })) : found
    },
    createComputePipelineAsync: async (/** @type {GPUComputePipelineDescriptor} */ one) => {
      await disguise.pipeline?.(one)
      return device.createComputePipelineAsync(one)
    },
    createBuffer(/** @type {GPUBufferDescriptor} */ descriptor) {
      const count = asked.made++
      const fault = disguise.buffer?.(descriptor, count)
      if (fault === 'throws') throw new RangeError('createBuffer failed')
      if (fault) played[played.length - (fault === 'memory' ? 1 : 2)] = `${fault} of a test`
      const buffer = device.createBuffer(descriptor)
      asked.buffers.add(buffer)
      const real = { destroy: buffer.destroy.bind(buffer), map: buffer.mapAsync.bind(buffer) }
      return Object.assign(buffer, {
        destroy() {
          asked.buffers.delete(buffer)
          real.destroy()
        },
        async mapAsync(
          /** @type {number} */ mode,
          /** @type {number} */ from,
          /** @type {number} */ size,
        ) {
          if (await disguise.map?.(size, mapped++)) throw new Error('mapAsync of a test')
          return real.map(mode, from, size)
        },
      })
    },
  }
}
