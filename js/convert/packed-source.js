/**
 * A packed model for reading in any order: its header, checked, and the bytes of its tensors.
 *
 * Owns the check of a whole file against its chunk hashes, and finding a tensor by name. The rules of the header are those of
 * js/format.js. Knows nothing of where the tensors go. Memory: one chunk, and what the caller asks for.
 */

import { BmError, reasonOf } from '../errors.js'
import { parseHeader, readHeaderLength } from '../format.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('../format.js').PackedHeader} PackedHeader */
/** @typedef {import('../format.js').PackedTensor} PackedTensor */

/** Enough of a file's start to say what it is when it is no model. */
const PEEK_BYTES = 512

export class PackedSource {
  #source
  /** @type {Map<string, PackedTensor>} */
  #tensors

  /** @param {ByteSource} source @param {PackedHeader} header */
  constructor(source, header) {
    this.#source = source
    this.header = header
    this.#tensors = new Map(header.tensors.map((tensor) => [tensor.name, tensor]))
  }

  get name() {
    return this.#source.name
  }

  /**
   * @param {import('../format.js').TensorTable} core
   * @param {ByteSource} source
   * @returns {Promise<PackedSource>}
   * @throws {BmError} `format`, `io`
   */
  static async open(core, source) {
    try {
      const peek = await source.read(0, Math.min(PEEK_BYTES, source.size))
      const headerBytes = Math.min(8 + readHeaderLength(peek), source.size)
      const header = await parseHeader(await source.read(0, headerBytes), core)
      if (header.fileBytes !== source.size) {
        const what = source.size < header.fileBytes ? 'truncated' : 'followed by other bytes'
        const sizes = `${source.size} bytes, want ${header.fileBytes}`
        throw new BmError('format', `${sizes}: the file is ${what}`)
      }
      return new PackedSource(source, header)
    } catch (cause) {
      const isOurs = cause instanceof BmError
      const code = isOurs ? cause.code : 'io'
      const reason = isOurs ? cause.message : reasonOf(cause)
      const named = reason.startsWith(source.name) ? reason : `${source.name}: ${reason}`
      throw new BmError(code, named, { cause })
    }
  }

  /**
   * Compares every byte of the data with its hash.
   *
   * @param {{ onProgress?: (done: number, total: number) => void, signal?: AbortSignal | undefined }} [options] bytes
   * @returns {AsyncGenerator<number, void, void>} the chunks whose bytes are not those hashed
   */
  async *damagedChunks({ onProgress, signal } = {}) {
    const { dataOffset, dataBytes, chunkBytes, chunkSha256 } = this.header
    for (let start = 0, k = 0; start < dataBytes; start += chunkBytes, k++) {
      signal?.throwIfAborted()
      const length = Math.min(chunkBytes, dataBytes - start)
      const bytes = await this.#source.read(dataOffset + start, length)
      const digest = new Uint8Array(
        await crypto.subtle.digest('SHA-256', /** @type {BufferSource} */ (bytes)),
      )
      if (digest.some((byte, i) => byte !== chunkSha256[32 * k + i])) yield k
      onProgress?.(start + length, dataBytes)
    }
  }

  /** @param {AbortSignal} [signal] @throws {BmError} `integrity`: names the first damaged chunk */
  async verify(signal) {
    for await (const k of this.damagedChunks({ signal })) {
      const where = `chunk ${k} (from byte ${this.header.dataOffset + k * this.header.chunkBytes})`
      throw new BmError('integrity', `${this.name}: ${where} is damaged: its SHA-256 differs`)
    }
  }

  /** @param {string} name @returns {PackedTensor} */
  tensor(name) {
    const found = this.#tensors.get(name)
    if (!found) throw new BmError('internal', `${this.name}: no tensor ${name}`)
    return found
  }

  /** @param {string} name @returns {boolean} */
  has(name) {
    return this.#tensors.has(name)
  }

  /**
   * @param {string} name
   * @param {number} [start] in bytes, within the tensor
   * @param {number} [length] in bytes; default: to its end
   * @returns {Promise<Uint8Array>} the caller's to keep
   */
  async bytes(name, start = 0, length) {
    const { offset, sizeBytes } = this.tensor(name)
    const at = this.header.dataOffset + offset + start
    return this.#source.read(at, length ?? sizeBytes - start)
  }

  /** @param {string} name of an F32 tensor @returns {Promise<Float32Array>} */
  async floats(name) {
    const bytes = await this.bytes(name)
    return new Float32Array(bytes.slice().buffer)
  }

  /** @returns {Promise<string | null>} the tokenizer.json */
  async tokenizerJson() {
    if (!this.header.hasTokenizer) return null
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(await this.bytes('tokenizer'))
    } catch (cause) {
      if (cause instanceof BmError) throw cause
      throw new BmError('tokenizer', `${this.name}: the tokenizer is not UTF-8`, { cause })
    }
  }
}
