/**
 * Reads the header of a packed file whose length nobody knows yet.
 *
 * Owns how much is read for it, and naming the file in what js/format.js refuses. Knows nothing about where bytes come from.
 */

import { BmError } from './errors.js'
import { parseHeader, readHeaderLength } from './format.js'

/** @typedef {import('./format.js').PackedHeader} PackedHeader */

/** Enough of a file's start to say what it is when it is no model. */
const PEEK_BYTES = 512

/**
 * @param {string} name of the file, for messages
 * @param {import('./format.js').TensorTable} core
 * @param {(length: number, isNeeded: boolean) => Promise<Uint8Array>} first gives the file's first `length` bytes, fewer only when it has no
 *   more; it may throw when they are needed and there are fewer
 * @returns {Promise<{ header: PackedHeader, bytes: Uint8Array }>} bytes: those of the header
 * @throws {BmError} `format`
 */
export async function readHeader(name, core, first) {
  try {
    const peek = await first(PEEK_BYTES, false)
    const length = 8 + readHeaderLength(peek)
    const bytes = Uint8Array.from(await first(length, true))
    return { header: await parseHeader(bytes, core), bytes }
  } catch (error) {
    throw withName(name, error)
  }
}

/** @param {string} name @param {unknown} error @returns {unknown} a `format` error says which file */
export function withName(name, error) {
  if (!(error instanceof BmError) || error.code !== 'format') return error
  if (error.message.startsWith(name)) return error
  return new BmError('format', `${name}: ${error.message}`, { cause: error })
}
