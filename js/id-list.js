/**
 * Token ids that become more: four bytes each.
 *
 * Owns nothing but the growing. A plain array of numbers would take up to twice the memory, and copy slower.
 */

export class IdList {
  #ids
  #length = 0

  /** @param {ArrayLike<number>} [ids] */
  constructor(ids = []) {
    this.#ids = new Uint32Array(Math.max(64, ids.length))
    this.push(ids)
  }

  get length() {
    return this.#length
  }

  /** @param {ArrayLike<number>} ids */
  push(ids) {
    const length = this.#length + ids.length
    if (length > this.#ids.length) {
      const wider = new Uint32Array(Math.max(length, 2 * this.#ids.length))
      wider.set(this.#ids.subarray(0, this.#length))
      this.#ids = wider
    }
    this.#ids.set(ids, this.#length)
    this.#length = length
  }

  /** Forgets what is behind the first ids. @param {number} length at most this.length */
  truncate(length) {
    this.#length = length
  }

  /** @param {number} index @returns {number} */
  at(index) {
    return Number(this.#ids[index])
  }

  /** @param {number} [start] @param {number} [end] @returns {Uint32Array<ArrayBuffer>} a copy */
  slice(start = 0, end = this.#length) {
    return this.#ids.slice(start, Math.min(end, this.#length))
  }
}
