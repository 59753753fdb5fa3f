/**
 * A real packed model of a few kilobytes, made when a test asks for it: random weights from a seed, a small tokenizer,
 * packed by the converter.
 *
 * Owns where it lies (a temporary folder, removed when the process ends) and its sizes. Everything in it is random, so its
 * text is noise; what tests look at is that the noise is right.
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { convertCheckpoint } from '../../../js/convert/index.js'
import { Core } from '../../../js/core.js'
import { writeCheckpoint } from './checkpoint.js'
import { sentencePieceTokenizer, vocabularySize } from './small-tokenizer.js'

/** @type {string | null} */
let folder = null

/** @returns {string} removed when the process ends */
export function temporaryFolder() {
  if (folder) return folder
  const made = mkdtempSync(join(tmpdir(), 'bimamba-test-'))
  process.on('exit', () => rmSync(made, { recursive: true, force: true }))
  folder = made
  return made
}

let count = 0

/**
 * @param {object} [options]
 * @param {number} [options.seed]
 * @param {object | null} [options.tokenizer] a tokenizer.json; null: none
 * @param {import('./checkpoint.js').TestConfig} [options.config]
 * @param {'int8' | 'f32'} [options.embedding]
 * @param {'f16' | 'int8' | 'int4'} [options.projections] of a full-precision checkpoint; default: a 1-bit one
 * @param {{ source?: string, licence?: string }} [options.words] what the file says of itself
 * @param {boolean} [options.bos] give the file BOS and EOS ids (1 and 2)
 * @param {string} [options.template] of chats, beside a tokenizer
 * @returns {Promise<string>} path
 */
export async function tinyModel({
  seed = 7,
  tokenizer = sentencePieceTokenizer(),
  config = {},
  embedding = 'int8',
  projections,
  words = {},
  bos = true,
  template,
} = {}) {
  const base = join(temporaryFolder(), `tiny-${++count}`)
  const vocab_size = tokenizer
    ? vocabularySize(/** @type {ReturnType<typeof sentencePieceTokenizer>} */ (tokenizer))
    : 300
  await writeCheckpoint(base, {
    seed,
    config: { vocab_size, ...config },
    projections: projections ? 'full' : 'latent',
    files: {
      ...(tokenizer ? { 'tokenizer.json': JSON.stringify(tokenizer) } : {}),
      ...(template ? { 'chat_template.jinja': template } : {}),
    },
    ...(bos ? { editConfig: (json) => ({ ...json, bos_token_id: 1, eos_token_id: 2 }) } : {}),
  })
  const path = `${base}.safetensors`
  await convertCheckpoint(await Core.create(), base, path, {
    embedding,
    ...(projections ? { projections } : {}),
    ...words,
  })
  return path
}
