/**
 * Peak memory and speed of converting a checkpoint of the 780M size (3.0 GB in F32), or of any size named.
 *
 * Owns nothing but the measurement: it makes a checkpoint from a seed in a temporary folder, converts it with
 * `bimamba convert` in a process of its own, and prints one JSON line with that process's peak resident memory.
 * Needs twice the checkpoint's size in free disk space at most. Not part of `npm test`, which runs a smaller one.
 *
 *   node tests/bench/convert-memory.js [--container bin|safetensors] [--layers 48] [--width 1536] [--vocab 32000]
 */

import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { measureConversion } from '../js/support/peak-memory.js'

const { values } = parseArgs({
  options: {
    container: { type: 'string', default: 'bin' },
    layers: { type: 'string', default: '48' },
    width: { type: 'string', default: '1536' },
    vocab: { type: 'string', default: '32000' },
  },
})
const container = values.container === 'safetensors' ? 'safetensors' : 'bin'
const config = {
  n_layer: Number(values.layers),
  d_model: Number(values.width),
  vocab_size: Number(values.vocab),
  d_state: 128,
  headdim: 64,
}
const folder = await mkdtemp(join(tmpdir(), 'bimamba-memory-'))
try {
  const result = await measureConversion(folder, { config, container })
  const { size } = await stat(join(folder, 'packed.safetensors'))
  console.log(JSON.stringify({ op: 'convert', container, ...config, ...result, packedBytes: size }))
} finally {
  await rm(folder, { recursive: true })
}
