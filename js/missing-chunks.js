/**
 * Which chunks of a file are still to come, and which lane brings them.
 *
 * Owns handing them out, each once. Knows nothing about where they come from.
 */

/** Which chunks are still to come; each is given to one lane. */
export class MissingChunks {
  #count
  #done
  #next = 0
  /** Chunks that are not there yet. */
  left

  /** @param {number} count */
  constructor(count) {
    this.#count = count
    this.#done = new Uint8Array(count)
    this.left = count
  }

  /** @returns {number | null} the first one that no lane has */
  next() {
    while (this.#next < this.#count && this.#done[this.#next]) this.#next++
    return this.#next < this.#count ? this.#next++ : null
  }

  /** @param {number} chunk the last one given @param {number} most @param {(chunk: number) => boolean} mayTake @returns {number[]} those behind it */
  following(chunk, most, mayTake) {
    /** @type {number[]} */
    const chunks = []
    if (this.#next !== chunk + 1) return chunks
    while (chunks.length < most && this.#next < this.#count) {
      if (this.#done[this.#next]) break
      if (!mayTake(this.#next)) break
      chunks.push(this.#next++)
    }
    return chunks
  }

  /** @param {number} chunk */
  done(chunk) {
    this.#done[chunk] = 1
    this.left--
  }

  /** Gives those again that lanes took and did not bring. */
  rewind() {
    this.#next = 0
  }
}

/** @param {number[]} chunks @param {number} i @returns {number} the last of the neighbours from chunks[i] on */
export function lastOfRun(chunks, i) {
  let last = i
  while (chunks[last + 1] === Number(chunks[last]) + 1) last++
  return Number(chunks[last])
}
