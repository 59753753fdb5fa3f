/**
 * The chunks of a packed file: where each is, and whether bytes are the right ones.
 *
 * Owns the arithmetic of chunks and the check of their hashes. Knows nothing about where bytes come from or go.
 * The idea: in 1-bit weights every bit pattern is valid, so only the hashes can see damage.
 */

/** @typedef {import('./format.js').PackedHeader} PackedHeader */

export class ChunkMap {
  #header

  /** @param {PackedHeader} header */
  constructor(header) {
    this.#header = header
    this.count = Math.ceil(header.dataBytes / header.chunkBytes)
    /** Length of the whole file. */
    this.fileBytes = header.fileBytes
  }

  /** Bytes of the longest chunk. */
  get longest() {
    return Math.min(this.#header.chunkBytes, this.#header.dataBytes)
  }

  /** @param {number} chunk @returns {{ start: number, end: number, length: number }} in the file, `end` exclusive */
  range(chunk) {
    const { dataOffset, chunkBytes, fileBytes } = this.#header
    const start = dataOffset + chunk * chunkBytes
    const end = Math.min(start + chunkBytes, fileBytes)
    return { start, end, length: end - start }
  }

  /** @param {number} chunk @returns {string} for messages */
  name(chunk) {
    const { start, end } = this.range(chunk)
    return `chunk ${chunk} of ${this.count} (bytes ${start} to ${end})`
  }

  /** @param {number} chunk @param {Uint8Array<ArrayBuffer>} bytes @returns {Promise<boolean>} */
  async isRight(chunk, bytes) {
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
    const wanted = this.#header.chunkSha256.subarray(32 * chunk, 32 * chunk + 32)
    return digest.every((byte, i) => byte === wanted[i])
  }
}
