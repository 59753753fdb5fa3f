/**
 * In which way the integers of `fast` are added up on a GPU: by dot_plain.wgsl, which every WebGPU can, or dot4.wgsl, where WGSL has what that needs; through
 * sums_memory.wgsl, or sums_subgroups.wgsl, where the device has subgroups.
 *
 * Owns the measurement. Hardware decides, and does not say: some GPUs have an instruction for four products of bytes, on others it becomes a dozen;
 * counting bits is one instruction everywhere, at a quarter of the speed on some. The sums are the same
 * integers; that neighbours of a subgroup are neighbours of its workgroup WGSL does not promise, so that is looked at here, too.
 */

import { USAGE } from './gpu-device.js'
import { actStride, PRODUCT_TILES, products, shaderCode } from './gpu-kernels.js'
import { sizesOf } from './gpu-sizes.js'

/** @typedef {import('./gpu-device.js').GpuDevice} GpuDevice */

/** Products in one submit, and how often each way is timed; the first time is the driver's. */
const PRODUCTS = 8
const ROUNDS = 4

/** @typedef {{ usesDot4: boolean, usesSubgroups: boolean }} Way */

/**
 * Times the in_proj of a token in each way, and lets the device take the quickest one from now on. A program on the processor has no such instructions.
 * @param {GpuDevice} device
 * @param {import('../format.js').ModelConfig} config
 * @param {{ precision: string }} how
 * @returns {Promise<void>}
 * @throws {import('../errors.js').BmError} `gpu`, `memory`
 */
export async function chooseDot(device, config, { precision }) {
  if (device.softwareName) Object.assign(device, { usesDot4: false, usesSubgroups: false })
  if (precision !== 'fast') return
  /** @type {Way[]} */
  const ways = [false, device.usesDot4].flatMap((usesDot4) =>
    [false, device.usesSubgroups].map((usesSubgroups) => ({ usesDot4, usesSubgroups })),
  )
  const different = new Map(ways.map((way) => [JSON.stringify(way), way]))
  if (different.size === 1) return
  const [plain] = different.values()
  let least = Number.POSITIVE_INFINITY
  /** Of the way before, which has no subgroups where this one has. */
  let sums = new Uint8Array(0)
  for (const way of different.values()) {
    const found = await timeProduct(device, config, way).catch((error) => {
      // What a driver says that it has, and then refuses, is done without.
      if (device.lost !== null || way === plain) throw error
      return { ms: Number.POSITIVE_INFINITY, sums: new Uint8Array(0) }
    })
    const isRight = !way.usesSubgroups || found.sums.every((byte, i) => byte === sums[i])
    sums = found.sums
    if (!isRight || found.ms >= least) continue
    Object.assign(device, way)
    least = found.ms
  }
}

/** Made-up signs, or an input with scales of 1. @param {number} words @param {number} [codes] words of an input before its scales */
function noise(words, codes = words) {
  const one = 0x3f800000
  return Uint32Array.from({ length: words }, (_, i) => {
    if (i >= codes) return i % 2 === codes % 2 ? one : 0
    return Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(i + 7, 0x85ebca6b)
  })
}

/** @param {GpuDevice} device @param {import('../format.js').ModelConfig} config @param {Way} way @returns {Promise<{ ms: number, sums: Uint8Array<ArrayBuffer> }>} ms: the best of some */
async function timeProduct(device, config, way) {
  const sizes = sizesOf(config)
  const { inOne } = products(sizes, { precision: 'fast', ...way })
  const { default: shaders } = await import('../../dist/shaders.mjs')
  const { storage, copyDst, copySrc, mapRead, uniform } = USAGE
  const made = await device.making('a product', async () => {
    const pipeline = device.pipeline(shaderCode(shaders, inOne), inOne.bindings, 'inOne')
    const lengths = [(sizes.inRows * sizes.dModel) / 32, actStride(sizes.dModel), 1, sizes.inRows]
    const buffers = lengths.map((words) => device.buffer(4 * words, storage | copyDst | copySrc))
    const chunk = device.buffer(16, uniform | copyDst)
    const back = device.buffer(4 * sizes.inRows, mapRead | copyDst)
    const [signs, act, , y] = /** @type {[GPUBuffer, GPUBuffer, GPUBuffer, GPUBuffer]} */ (buffers)
    device.queue.writeBuffer(signs, 0, noise(Number(lengths[0])))
    device.queue.writeBuffer(act, 0, noise(Number(lengths[1]), sizes.dModel / 4))
    device.queue.writeBuffer(chunk, 0, Uint32Array.of(1, 0, 0))
    return { pipeline: await pipeline, buffers: [...buffers, chunk], y, back }
  })
  try {
    const group = device.bind(made.pipeline, made.buffers)
    let best = Number.POSITIVE_INFINITY
    for (let round = 0; round < ROUNDS; round++) {
      const began = performance.now()
      const encoder = device.encoder()
      const pass = encoder.beginComputePass()
      pass.setPipeline(made.pipeline)
      pass.setBindGroup(0, group)
      for (let i = 0; i < PRODUCTS; i++) {
        pass.dispatchWorkgroups(Math.ceil(sizes.inRows / PRODUCT_TILES.one.rows))
      }
      pass.end()
      device.queue.submit([encoder.finish()])
      await device.queue.onSubmittedWorkDone()
      best = Math.min(best, performance.now() - began)
    }
    const encoder = device.encoder()
    encoder.copyBufferToBuffer(made.y, 0, made.back, 0, 4 * sizes.inRows)
    device.queue.submit([encoder.finish()])
    return { ms: best, sums: await device.read(made.back, 4 * sizes.inRows) }
  } finally {
    for (const buffer of [...made.buffers, made.back]) buffer.destroy()
  }
}
