/**
 * `bimamba export-gguf`: a packed model to GGUF files, for llama.cpp.
 *
 * Owns the options, the progress bar and the closing summary. The work is done by js/convert.
 */

import { formatBytes } from '../byte-count.js'
import { exportGgufFile } from '../convert/index.js'
import { Core } from '../core.js'
import { COMMON_OPTIONS, oneOf } from './options.js'
import { withoutControls, write } from './output.js'
import { createProgress } from './progress.js'

/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba export-gguf [options] MODEL OUT.gguf

Writes a packed model as GGUF, architecture mamba2, which llama.cpp runs unchanged. The part of the weights that is the
same in a whole column goes to an adapter beside it, OUT.lora.gguf: llama-cli -m OUT.gguf --lora OUT.lora.gguf`

const SIGNS = /** @type {const} */ (['q1_0', 'f32'])
const EMBEDDINGS = /** @type {const} */ (['f32', 'q8_0'])

export const ARGUMENTS = ['MODEL', 'OUT.gguf']

export const OPTIONS = {
  signs: {
    value: SIGNS.join('|'),
    help: 'type of the 1-bit matrices (default q1_0, and q4_0 where rows are no multiple of 128)',
  },
  embedding: {
    value: EMBEDDINGS.join('|'),
    help: 'type of embedding and head (default f32: exact; q8_0 rounds the scales of an int8 table)',
  },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run({ values, positionals }, io) {
  const [model = '', out = ''] = positionals
  const progress = createProgress(io.stderr)
  try {
    const summary = await exportGgufFile(await Core.create(), model, out, {
      signs: oneOf('signs', values.get('signs')?.[0] ?? SIGNS[0], SIGNS),
      embedding: oneOf('embedding', values.get('embedding')?.[0] ?? EMBEDDINGS[0], EMBEDDINGS),
      onProgress: progress.update,
      signal: io.signal,
    })
    progress.clear()
    for (const warning of summary.warnings) await write(io.stderr, `bimamba: warning: ${warning}\n`)
    await write(io.stdout, withoutControls(describe(summary, out)))
    return 0
  } finally {
    progress.clear()
  }
}

/** @param {Awaited<ReturnType<typeof exportGgufFile>>} summary @param {string} out */
function describe({ fileBytes, adapter, adapterBytes, types, tableBytes }, out) {
  const kinds = [...types].map(
    ([type, { tensors, bytes }]) => `${tensors} ${type} (${formatBytes(bytes)})`,
  )
  return [
    `${out}: ${formatBytes(fileBytes)}`,
    `  tensors    ${kinds.join(', ')}`,
    `  embedding  ${formatBytes(tableBytes)}`,
    `  adapter    ${adapter ? `${adapter}: ${formatBytes(adapterBytes)}` : 'none needed: beta is zero'}`,
    '',
  ].join('\n')
}
