/**
 * What computes, in words: the device, the threads, and why not more.
 *
 * Owns the words. What is said follows from `info` of the package and from what the page may do.
 */

/** @param {import('../js/index.js').ModelInfo} info @returns {{ short: string, long: string }} */
export function deviceWords({ device, deviceNote, threads, simd, precision, variant }) {
  if (device === 'webgpu') {
    return {
      short: 'WebGPU',
      long: `Computed on the GPU; precision ${precision}. Tokens are drawn on the processor.`,
    }
  }
  const count = `${threads} ${threads === 1 ? 'thread' : 'threads'}`
  const short = `WebAssembly, ${count}`
  const parts = [
    `${short}; kernels: ${variant}, ${simd === 'relaxed' ? 'relaxed SIMD' : '128-bit SIMD'}; precision ${precision}.`,
  ]
  if (threads === 1) parts.push(whyOne())
  if (deviceNote) parts.push(`Not the GPU: ${deviceNote}.`)
  return { short, long: parts.join(' ') }
}

function whyOne() {
  if (!crossOriginIsolated) {
    return 'One thread: this page is not cross-origin isolated, so memory cannot be shared. Where a service worker can be had, the next visit is.'
  }
  if ((navigator.hardwareConcurrency || 1) < 2) return 'One thread: this machine offers one.'
  return 'One thread: larger models get more, and Models has the choice.'
}
