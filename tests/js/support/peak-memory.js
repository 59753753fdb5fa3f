/**
 * Measures the peak resident memory of a conversion, in a process that does nothing else.
 *
 * Owns the child process and the baseline (the same program converting a tiny checkpoint). Reads the peak from
 * getrusage, so nothing is sampled and no spike is missed.
 */

import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { writeCheckpoint } from './checkpoint.js'

const CONVERT = new URL('../../../js/cli/main.js', import.meta.url).href

/** Runs `bimamba convert` and prints its peak in bytes. */
const PROGRAM = `
const { main } = await import(${JSON.stringify(CONVERT)})
const io = { stdin: process.stdin, stdout: process.stderr, stderr: process.stderr, signal: new AbortController().signal }
const start = performance.now()
process.exitCode = await main(['convert', process.argv[1], process.argv[2]], io)
const seconds = (performance.now() - start) / 1000
console.log(JSON.stringify({ peakBytes: process.resourceUsage().maxRSS * 1024, seconds }))
`

/**
 * @param {string} folder
 * @param {string} out
 * @returns {Promise<{ peakBytes: number, seconds: number }>}
 */
async function peakOf(folder, out) {
  const args = ['--input-type=module', '-e', PROGRAM, folder, out]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return JSON.parse(stdout)
}

/**
 * Makes a checkpoint in `folder` and converts it there to packed.safetensors.
 *
 * @param {string} folder
 * @param {import('./checkpoint.js').CheckpointOptions} options
 * @returns {Promise<{ checkpointBytes: number, peakBytes: number, baselineBytes: number, seconds: number }>}
 */
export async function measureConversion(folder, options) {
  const tiny = join(folder, 'tiny')
  await writeCheckpoint(tiny, { container: options.container ?? 'bin' })
  const baseline = await peakOf(tiny, join(folder, 'tiny.safetensors'))
  const big = join(folder, 'big')
  await writeCheckpoint(big, { ...options, keep: false })
  const file = options.container === 'safetensors' ? 'model.safetensors' : 'pytorch_model.bin'
  const { size } = await stat(join(big, file))
  const { peakBytes, seconds } = await peakOf(big, join(folder, 'packed.safetensors'))
  return { checkpointBytes: size, peakBytes, baselineBytes: baseline.peakBytes, seconds }
}
