/**
 * Packs a checkpoint and opens the packed file in the core, for tests of numbers.
 *
 * Owns the short way from a folder to sessions, without loader, worker or tokenizer. Knows nothing of what is
 * compared.
 */

import { readFile } from 'node:fs/promises'
import { convertCheckpoint } from '../../../js/convert/index.js'
import { parseHeader } from '../../../js/format.js'

/** @typedef {import('../../../js/core.js').Core} Core */
/** @typedef {import('../../../js/core-model.js').CoreModel} CoreModel */
/** @typedef {import('../../../js/core-session.js').CoreSession} CoreSession */

/**
 * @param {Core} core
 * @param {string} folder checkpoint
 * @param {{ embedding: 'int8' | 'f16' | 'f32', projections?: 'auto' | 'f16' | 'int8' | 'int4' }} options
 * @returns {Promise<string>} path of the packed file, beside the checkpoint folder
 */
export async function pack(core, folder, { embedding, projections = 'auto' }) {
  const out = `${folder}.${embedding}.${projections}.safetensors`
  await convertCheckpoint(core, folder, out, { embedding, projections })
  return out
}

/**
 * @param {Core} core
 * @param {string} path
 * @param {{ variant?: string, head?: import('../../../js/core.js').HeadChoice }} [options]
 * @returns {Promise<{ model: CoreModel, header: import('../../../js/format.js').PackedHeader }>}
 */
export async function openPacked(core, path, options = {}) {
  const bytes = await readFile(path)
  const header = await parseHeader(bytes, core)
  const model = core.createModel(header.config, options)
  for (const { index, offset, sizeBytes } of header.tensors) {
    const at = header.dataOffset + offset
    if (index >= 0) model.write(index, 0, bytes.subarray(at, at + sizeBytes))
  }
  for (let part = 0; part < model.parts; part++) model.seal(part)
  return { model, header }
}

/**
 * Appends tokens in parts of the given lengths and returns the logits after every token.
 *
 * @param {CoreSession} session
 * @param {number[]} tokens
 * @param {number[]} lengths each at most the session's maxChunk; their sum is the number of tokens used
 * @returns {Float32Array[]}
 */
export function logitsOfParts(session, tokens, lengths) {
  session.reset()
  /** @type {Float32Array[]} */
  const rows = []
  for (const length of lengths) {
    session.append(tokens.slice(rows.length, rows.length + length))
    for (let i = 0; i < length; i++) rows.push(session.logits(i))
  }
  return rows
}
