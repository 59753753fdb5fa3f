/**
 * Which token ids a prompt is.
 *
 * Owns the rule for BOS and for an empty prompt. Knows nothing about what is done with the ids.
 */

import { BmError } from './errors.js'

/**
 * @typedef {object} PromptReader what of a model decides
 * @property {number | null} bosId
 * @property {boolean} addBos
 * @property {import('./tokenizer.js').Tokenizer | null} tokenizer
 */

/**
 * Text begins with BOS as the file says, ids are taken as they are; an empty prompt begins with BOS in any case.
 *
 * @param {PromptReader} reader
 * @param {string | Uint32Array} prompt
 * @param {boolean | null} bos  null: as above
 * @param {AbortSignal} [signal]
 * @param {boolean} [isStart] of a text, not of something that is added to one; default true
 * @returns {Promise<Uint32Array>} at least one id
 * @throws {BmError} `argument`, `tokenizer`
 */
export async function promptIds(reader, prompt, bos, signal, isStart = true) {
  const isText = typeof prompt === 'string'
  const { addBos, bosId } = reader
  const wantsBos = bos ?? (prompt.length === 0 ? bosId !== null : isText && addBos)
  const first = wantsBos ? [needBos(reader)] : []
  const ids = isText ? await needTokenizer(reader).encode(prompt, signal, isStart) : prompt
  if (first.length + ids.length === 0) {
    throw new BmError('argument', 'the prompt is empty and there is no BOS token to start from')
  }
  return Uint32Array.from([...first, ...ids])
}

/** @param {{ tokenizer: PromptReader['tokenizer'] }} reader */
export function needTokenizer({ tokenizer }) {
  if (tokenizer) return tokenizer
  throw new BmError('tokenizer', 'the model file has no tokenizer: it works on token ids only')
}

/** @param {{ bosId: number | null }} reader */
export function needBos({ bosId }) {
  if (bosId !== null) return bosId
  throw new BmError('argument', 'bos: the model has no BOS token')
}
