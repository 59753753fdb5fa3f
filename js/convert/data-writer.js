/**
 * Writes the data section front to back and hashes it in chunks.
 *
 * Owns the one chunk being filled. Knows nothing of what the bytes mean. Memory: one chunk.
 */

import { CHUNK_BYTES } from '../format.js'

/** @typedef {import('./node-files.js').Output} Output */

export class DataWriter {
  #output
  #start
  #chunk = new Uint8Array(CHUNK_BYTES)
  #filled = 0
  #chunks = 0
  /** @type {Uint8Array[]} */
  #hashes = []

  /** @param {Output} output @param {number} start where the data section starts in the file */
  constructor(output, start) {
    this.#output = output
    this.#start = start
  }

  /** @param {Uint8Array} bytes the next of the section; copied or written before this resolves */
  async write(bytes) {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + CHUNK_BYTES - this.#filled)
      this.#chunk.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
      if (this.#filled === CHUNK_BYTES) await this.#flush()
    }
  }

  async #flush() {
    const bytes = this.#chunk.subarray(0, this.#filled)
    this.#hashes.push(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
    await this.#output.write(this.#start + this.#chunks * CHUNK_BYTES, bytes)
    this.#chunks++
    this.#filled = 0
  }

  /** @returns {Promise<{ chunkSha256: Uint8Array, fileBytes: number }>} hashes end to end */
  async finish() {
    const dataBytes = this.#chunks * CHUNK_BYTES + this.#filled
    if (this.#filled) await this.#flush()
    const chunkSha256 = new Uint8Array(32 * this.#hashes.length)
    for (const [i, hash] of this.#hashes.entries()) chunkSha256.set(hash, 32 * i)
    return { chunkSha256, fileBytes: this.#start + dataBytes }
  }
}
