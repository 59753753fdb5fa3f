/**
 * A packed file on a web server: its header, and answers that begin where a chunk does.
 *
 * Owns whether ranges are asked for, the first answer (which holds the header and the bytes behind it), and what is wrong with an answer
 * as a whole: another file, a shorter or a longer one. Knows nothing of what is kept on this device; js/chunk-fetch.js fetches chunks.
 */

import { BmError } from './errors.js'
import { readHeader } from './file-header.js'
import { MAX_HEADER_BYTES } from './format.js'
import { RangeMissing } from './http-file.js'
import { RequestFailure, Retries } from './retry.js'

/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./format.js').TensorTable} TensorTable */
/** @typedef {import('./http-file.js').HttpFile} HttpFile */
/** @typedef {import('./http-file.js').HttpBody} HttpBody */
/** @typedef {import('./retry.js').RetryLimits} RetryLimits */

/** How often an address that has never answered is tried again: it may be a wrong one. */
const UNREACHED_RETRIES = 1

/** The server's file is another one than its header said. */
export class FileChanged extends BmError {
  /** @param {string} message */
  constructor(message) {
    super('integrity', message)
  }
}

/** The server does not give the range that was asked for. */
export class NoRanges extends Error {}

/** @param {string} name @param {number} position @param {string} [where] */
export function endsEarly(name, position, where = '') {
  const place = where && `, ${where}`
  const message = `GET ${name}: truncated: the answer ends after ${position} bytes${place}`
  return new RequestFailure(message, { retryable: true })
}

/** @param {string} name @param {number} fileBytes */
export function trailing(name, fileBytes) {
  return new BmError('format', `${name}: bytes after the end of the model, which has ${fileBytes}`)
}

export class RemoteFile {
  #http
  #identity
  #signal
  /** Past the browser's own cache: what it has may be an old file. */
  #isFresh = false
  /** @type {HttpBody | null} the first answer, at the first byte behind the header */
  #opening = null
  /** @type {Uint8Array} */
  #headerBytes = new Uint8Array(0)
  /** @type {RetryLimits} */
  limits
  /** Whether ranges are asked for. */
  ranged = true
  /** Whether a chunk that came as a range was right: then a wrong one is not the ranges' fault. */
  rangesProven = false
  /** Of bodies, headers included. */
  fetchedBytes = 0

  /**
   * @param {HttpFile} http
   * @param {{ identity: string | null, limits: RetryLimits, signal: AbortSignal | undefined }} options identity: that the file must have
   */
  constructor(http, { identity, limits, signal }) {
    this.#http = http
    this.#identity = identity
    this.#signal = signal
    this.limits = limits
  }

  get name() {
    return this.#http.name
  }

  /** The answer that came with the header, once. @returns {HttpBody | null} */
  takeOpening() {
    const opening = this.#opening
    this.#opening = null
    return opening
  }

  /** Kept waiting, an answer would be taken for a stalled one. */
  async closeOpening() {
    await this.takeOpening()?.close()
  }

  /** From now on what the server has now. */
  async startAgain() {
    this.#isFresh = true
    await this.closeOpening()
  }

  /** What chunks are held against, when the header came from elsewhere. @param {Uint8Array} bytes */
  set headerBytes(bytes) {
    this.#headerBytes = bytes
  }

  get headerBytes() {
    return this.#headerBytes
  }

  /**
   * @param {TensorTable} core
   * @param {number} most  bytes to ask for; more when the header is longer
   * @returns {Promise<PackedHeader>} the answer stays open, for `takeOpening`
   */
  async readHeader(core, most) {
    let asked = most
    const retries = new Retries(this.limits, this.#signal)
    for (;;) {
      /** @type {HttpBody | null} */
      let body = null
      try {
        body = await this.#open({ start: 0, end: asked }, { signal: this.#signal })
        const { header, bytes } = await this.#headerOf(body, core)
        this.#checkIdentity(header)
        this.checkTotal(body, header)
        // The whole file for the answer, though a range was asked for: so it will be for every other.
        if (body.end === null) this.ranged = false
        this.#headerBytes = bytes
        this.#opening = body
        return header
      } catch (error) {
        await body?.close()
        const isLonger = asked < MAX_HEADER_BYTES && body?.position === asked
        if (this.ranged && (error instanceof RangeMissing || error instanceof NoRanges)) {
          this.ranged = false
        } else if (isLonger && error instanceof RequestFailure) {
          asked = MAX_HEADER_BYTES
        } else {
          await this.#pause(error, retries)
        }
      }
    }
  }

  /** @param {unknown} error @param {Retries} retries */
  async #pause(error, retries) {
    if (this.#http.reached) return retries.pause(error)
    try {
      await retries.pause(error, UNREACHED_RETRIES)
    } catch (last) {
      // Some browsers ask a foreign server before they send a range, and some servers answer one with what cannot be unpacked.
      if (!this.ranged || !(error instanceof RequestFailure && error.retryable)) throw last
      this.ranged = false
    }
  }

  /** @param {HttpBody} body at the start of the file @param {TensorTable} core */
  async #headerOf(body, core) {
    if (body.position !== 0) throw new NoRanges()
    let bytes = new Uint8Array(0)
    const first = async (/** @type {number} */ length, /** @type {boolean} */ isNeeded) => {
      const more = new Uint8Array(Math.max(length, bytes.length))
      more.set(bytes)
      const filled = await this.#fill(body, more, bytes.length)
      if (filled < length && isNeeded) throw endsEarly(this.name, filled, 'in the header')
      bytes = more.subarray(0, filled)
      return bytes.subarray(0, length)
    }
    const read = await readHeader(this.name, core, first)
    body.untake(bytes.subarray(read.bytes.length))
    return read
  }

  /** @param {PackedHeader} header */
  #checkIdentity({ identity }) {
    if (this.#identity === null || identity === this.#identity) return
    throw new BmError(
      'integrity',
      `${this.name}: the file's identity is ${identity}, want ${this.#identity}: the server has another file than the one asked for`,
    )
  }

  /** @param {{ total: number | null }} body @param {{ fileBytes: number }} file */
  checkTotal({ total }, { fileBytes }) {
    if (total === null || total === fileBytes) return
    if (total > fileBytes) throw trailing(this.name, fileBytes)
    throw new BmError(
      'network',
      `${this.name}: truncated: the server has ${total} bytes of the file's ${fileBytes}`,
    )
  }

  /**
   * @param {number} at
   * @param {number} end  exclusive
   * @param {{ fileBytes: number }} file
   * @param {{ signal: AbortSignal, fresh: boolean }} options
   * @returns {Promise<HttpBody>} at that byte, or at the start of the file where no ranges are asked for
   */
  async openAt(at, end, file, options) {
    // One byte more than there is, where the file should end: an answer that has it is not this file.
    const range = { start: at, end: end === file.fileBytes ? end + 1 : end }
    const body = await this.#open(range, options)
    try {
      this.checkTotal(body, file)
      if (this.ranged && body.position !== at) throw new NoRanges()
      return body
    } catch (error) {
      await body.close()
      throw error
    }
  }

  /**
   * @param {{ start: number, end: number }} range
   * @param {{ signal: AbortSignal | undefined, fresh?: boolean }} options
   */
  async #open(range, { signal, fresh = false }) {
    return this.#http.open(this.ranged ? range : null, { signal, fresh: fresh || this.#isFresh })
  }

  /** @param {HttpBody} body @param {Uint8Array} target @param {number} filled @returns {Promise<number>} bytes filled, fewer only at the end */
  async #fill(body, target, filled) {
    for (let at = filled; ; ) {
      if (at === target.length) return at
      const count = await body.take(target.subarray(at))
      if (count === 0) return at
      this.fetchedBytes += count
      at += count
    }
  }

  /** @returns {Promise<boolean>} whether the server's header is another one now */
  async hasChanged() {
    const bytes = new Uint8Array(this.#headerBytes.length)
    const options = { signal: this.#signal, fresh: true }
    const body = await this.#open({ start: 0, end: bytes.length }, options)
    try {
      const filled = body.position === 0 ? await this.#fill(body, bytes, 0) : 0
      return filled === bytes.length && bytes.some((byte, i) => byte !== this.#headerBytes[i])
    } finally {
      await body.close()
    }
  }
}
