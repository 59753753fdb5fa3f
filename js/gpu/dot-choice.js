/**
 * In which way the integers of `fast` are added up on a GPU: by dot_plain.wgsl, which every WebGPU can, or dot4.wgsl, where WGSL has what that needs; through
 * sums_memory.wgsl, or sums_subgroups.wgsl, where the device has subgroups.
 *
 * Owns the measurement. Hardware decides, and does not say: some GPUs have an instruction for four products of bytes, on others it becomes a dozen;
 * counting bits is one instruction everywhere, at a quarter of the speed on some. The sums are the same
 * integers.
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
  let least = Number.POSITIVE_INFINITY
  for (const way of different.values()) {
    const ms = await timeProduct(device, config, way)
    if (ms < least) Object.assign(device, way)
    least = Math.min(least, ms)
  }
}

/** @param {GpuDevice} device @param {import('../format.js').ModelConfig} config @param {Way} way @returns {Promise<number>} ms, the best of some */
async function timeProduct(device, config, way) {
  const sizes = sizesOf(config)
  const { inOne } = products(sizes, { precision: 'fast', ...way })
  const { default: shaders } = await import('../../dist/shaders.mjs')
  const { storage, copyDst, uniform } = USAGE
  const made = await device.making('a product', async () => {
    const pipeline = device.pipeline(shaderCode(shaders, inOne), inOne.bindings, 'a product')
    const lengths = [(sizes.inRows * sizes.dModel) / 32, actStride(sizes.dModel), 1, sizes.inRows]
    const buffers = lengths.map((words) => device.buffer(4 * words, storage | copyDst))
    const chunk = device.buffer(16, uniform | copyDst)
    device.queue.writeBuffer(chunk, 0, Uint32Array.of(1, 0, 0))
    return { pipeline: await pipeline, buffers: [...buffers, chunk] }
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
    return best
  } finally {
    for (const buffer of made.buffers) buffer.destroy()
  }
}
