/**
 * What is in a buffer of the GPU, for tests that look between two kernels.
 *
 * Owns the copy to a buffer that can be mapped, and running one kernel alone.
 */

import { USAGE } from '../../../js/gpu/gpu-device.js'

/** @typedef {import('../../../js/gpu/gpu-device.js').GpuDevice} GpuDevice */

/**
 * @param {GpuDevice} device @param {GPUBuffer} buffer @param {number} bytes
 * @returns {Promise<ArrayBuffer>}
 */
export async function readBuffer(device, buffer, bytes) {
  const copy = await device.making('a copy', () =>
    device.buffer(bytes, USAGE.mapRead | USAGE.copyDst),
  )
  const encoder = device.encoder()
  encoder.copyBufferToBuffer(buffer, 0, copy, 0, bytes)
  device.queue.submit([encoder.finish()])
  const found = await device.read(copy, bytes)
  copy.destroy()
  return found.buffer
}

/**
 * @param {GpuDevice} device
 * @param {readonly [GPUComputePipeline | undefined, GPUBindGroup, number, number?][]} steps kernel, bindings, and the grid
 */
export function runKernels(device, steps) {
  const encoder = device.encoder()
  const pass = encoder.beginComputePass()
  for (const [kernel, group, x, y = 1] of steps) {
    if (!kernel) throw new Error('no such kernel')
    pass.setPipeline(kernel)
    pass.setBindGroup(0, group)
    pass.dispatchWorkgroups(x, y)
  }
  pass.end()
  device.queue.submit([encoder.finish()])
}
