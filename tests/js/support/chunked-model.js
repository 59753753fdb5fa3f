/**
 * A packed model of several chunks whose text is quick: what downloads are tested with.
 *
 * Owns its size: a header and five chunks, the last one short.
 */

import { readFile } from 'node:fs/promises'
import { readHeaderLength } from '../../../js/format.js'
import { tinyModel } from './tiny-model.js'

export const CHUNK_BYTES = 4194304

/**
 * @param {number} [seed]
 * @returns {Promise<{ path: string, bytes: Buffer, dataOffset: number, chunks: number }>}
 */
export async function chunkedModel(seed = 7) {
  // The embedding alone, in f32, has 68,000 rows of 64 numbers.
  const path = await tinyModel({
    seed,
    tokenizer: null,
    config: { vocab_size: 68000 },
    embedding: 'f32',
  })
  const bytes = await readFile(path)
  const dataOffset = 8 + readHeaderLength(bytes)
  return { path, bytes, dataOffset, chunks: Math.ceil((bytes.length - dataOffset) / CHUNK_BYTES) }
}
