/**
 * `bimamba convert`: a checkpoint folder to one packed file.
 *
 * Owns the options, the progress bar and the closing summary. The work is done by js/convert.
 */

import { formatBytes } from '../byte-count.js'
import { convertCheckpoint } from '../convert/index.js'
import { Core } from '../core.js'
import { projectionsOf } from '../format.js'
import { COMMON_OPTIONS, oneOf } from './options.js'
import { withoutControls, write } from './output.js'
import { createProgress } from './progress.js'

/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('./options.js').ParsedOptions} ParsedOptions */

export const USAGE = `
Usage: bimamba convert [options] CHECKPOINT_DIR OUT.safetensors

Packs a Bi-Mamba or Mamba-2 checkpoint (config.json with *.safetensors or pytorch_model*.bin) into one file.`

const EMBEDDINGS = /** @type {const} */ (['int8', 'f16', 'f32'])
const PROJECTIONS = /** @type {const} */ (['auto', 'f16', 'int8', 'int4'])
const ZEROS = /** @type {const} */ (['refuse', 'plus'])

export const ARGUMENTS = ['CHECKPOINT_DIR', 'OUT.safetensors']

export const OPTIONS = {
  embedding: {
    value: EMBEDDINGS.join('|'),
    help: 'how embedding and head are stored (default int8, with a scale for each row; f16 with --projections f16)',
  },
  projections: {
    value: PROJECTIONS.join('|'),
    help: 'how in_proj and out_proj are stored: 1 bit if the checkpoint is, else int8 (default auto)',
  },
  zeros: {
    value: ZEROS.join('|'),
    help: 'latent weights that are exactly 0: refuse more than a few (default), or all become +1',
  },
  tokenizer: {
    value: 'FILE',
    help: 'tokenizer.json or SentencePiece model (default: the one in the folder)',
  },
  source: {
    value: 'TEXT',
    help: "where the weights come from, kept in the file (default: the folder's name)",
  },
  licence: { value: 'TEXT', help: 'licence of the weights, kept in the file (default unknown)' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const [folder = '', out = ''] = parsed.positionals
  const options = readOptions(parsed)
  const progress = createProgress(io.stderr)
  try {
    const summary = await convertCheckpoint(await Core.create(), folder, out, {
      ...options,
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

/** @param {ParsedOptions} parsed */
function readOptions({ values }) {
  const text = (/** @type {string} */ name) => values.get(name)?.[0]
  const tokenizer = text('tokenizer')
  const source = text('source')
  const licence = text('licence')
  const embedding = text('embedding')
  return {
    ...(embedding === undefined ? {} : { embedding: oneOf('embedding', embedding, EMBEDDINGS) }),
    projections: oneOf('projections', text('projections') ?? PROJECTIONS[0], PROJECTIONS),
    zeros: oneOf('zeros', text('zeros') ?? ZEROS[0], ZEROS),
    ...(tokenizer === undefined ? {} : { tokenizer }),
    ...(source === undefined ? {} : { source }),
    ...(licence === undefined ? {} : { licence }),
  }
}

/** @param {import('../convert/index.js').PackSummary} summary @param {string} out */
function describe({ config, fileBytes, tensors, files, tokenizer, zeros, dense }, out) {
  const zeroCount = zeros.reduce((sum, tensor) => sum + tensor.zeros, 0)
  const first = zeros.slice(0, 3).map((tensor) => `${tensor.name} ${tensor.zeros}`)
  return [
    `${out}: ${formatBytes(fileBytes)}, ${tensors} tensors`,
    `  model      ${config.n_layer} layers, d_model ${config.d_model}, vocabulary ${config.vocab_size}, projections ${projectionsOf(config)}, embedding ${config.embedding_dtype}, ${config.tie_embeddings ? 'tied' : 'own'} head`,
    `  weights    ${files.join(', ')}${dense ? ' (dense export: signs and scales recovered)' : ''}`,
    `  tokenizer  ${tokenizer ?? 'none'}`,
    `  zeros      ${zeroCount ? `${zeroCount} exact zeros became +1 in ${zeros.length} tensors (${first.join(', ')}${zeros.length > 3 ? ', ...' : ''})` : 'none'}`,
    '',
  ].join('\n')
}
