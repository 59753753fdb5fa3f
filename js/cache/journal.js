/**
 * Which chunks of a file were written: a line of text and a character for each.
 *
 * Owns that text. Does not know where it is stored.
 * The idea: it is only a hint of what need not be looked at, so it may be lost or damaged: then everything is looked at. A chunk is one
 * byte in its place, so marking it writes one byte.
 */

/** @typedef {import('./stores.js').FileSizes} FileSizes */

const WRITTEN = 0x31 // '1'
const NOT_WRITTEN = 0x30 // '0'
/** Of a chunk that was there when a journal had been lost. */
const UNKNOWN = 0x3f // '?'
const MARKS = [WRITTEN, NOT_WRITTEN, UNKNOWN]

export class Journal {
  /** @type {Uint8Array} */
  #marks
  /** Bytes before the first mark. */
  start

  /** @param {string} identity @param {number} fileBytes @param {Uint8Array} marks */
  constructor(identity, fileBytes, marks) {
    this.#marks = marks
    this.fileBytes = fileBytes
    this.firstLine = `${identity} ${fileBytes}\n`
    this.start = this.firstLine.length
  }

  /** @param {string} identity @param {FileSizes} sizes @param {boolean} isNew  nothing is written yet; else nobody knows */
  static begin(identity, { fileBytes, chunkCount }, isNew) {
    const mark = isNew ? NOT_WRITTEN : UNKNOWN
    return new Journal(identity, fileBytes, new Uint8Array(chunkCount).fill(mark))
  }

  /** @param {string} identity that it must be of @param {Uint8Array} bytes @returns {Journal | null} null: lost or damaged */
  static parse(identity, bytes) {
    const end = bytes.indexOf(0x0a)
    if (end < 0 || end > 100) return null
    const line = String.fromCharCode(...bytes.subarray(0, end))
    const [, name, size] = /^([0-9a-f]{64}) (\d{1,15})$/.exec(line) ?? []
    const marks = bytes.slice(end + 1)
    const isGood = marks.length > 0 && marks.every((mark) => MARKS.includes(mark))
    return name === identity && isGood ? new Journal(identity, Number(size), marks) : null
  }

  /** @returns {Uint8Array} */
  get bytes() {
    const line = new TextEncoder().encode(this.firstLine)
    const bytes = new Uint8Array(line.length + this.#marks.length)
    bytes.set(line)
    bytes.set(this.#marks, line.length)
    return bytes
  }

  /** @param {FileSizes} sizes */
  fits({ fileBytes, chunkCount }) {
    return this.fileBytes === fileBytes && this.#marks.length === chunkCount
  }

  get isComplete() {
    return this.#marks.every((mark) => mark === WRITTEN)
  }

  /** Chunks that are written. */
  get written() {
    return this.#marks.reduce((sum, mark) => sum + (mark === WRITTEN ? 1 : 0), 0)
  }

  /** Whether a chunk may be there. @param {number} chunk */
  has(chunk) {
    return this.#marks[chunk] !== NOT_WRITTEN
  }

  /** All chunks are there. @returns {Uint8Array} the whole journal */
  markAll() {
    this.#marks.fill(WRITTEN)
    return this.bytes
  }

  /** @param {number} chunk @returns {{ at: number, bytes: Uint8Array }} what to write where */
  mark(chunk) {
    this.#marks[chunk] = WRITTEN
    return { at: this.start + chunk, bytes: Uint8Array.of(WRITTEN) }
  }
}
