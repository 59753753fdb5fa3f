/**
 * WebGPU without a GPU: the package `webgpu` on a software driver.
 *
 * A driver is chosen when the process starts (VK_DRIVER_FILES), which scripts/test.js does; scripts/gpu-tests.js names another one. Owns that it is the
 * one that was meant.
 */

import { findGpu } from '../../../js/platform.js'

/** @returns {Promise<false | string>} why tests of the GPU are skipped, as node:test wants it */
export async function missingGpu() {
  const gpu = await findGpu()
  const adapter = await gpu?.requestAdapter()
  const wanted = process.env.BIMAMBA_TEST_GPU
  const { architecture = '', description = '' } = adapter?.info ?? {}
  if (wanted && !`${architecture} ${description}`.includes(wanted)) {
    throw new Error(`the adapter is "${architecture} ${description}", want ${wanted}`)
  }
  return adapter ? false : 'no WebGPU adapter: VK_DRIVER_FILES names no driver (npm test sets it)'
}
