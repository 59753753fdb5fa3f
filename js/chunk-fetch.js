/**
 * Fetches some chunks of a file, one behind the other, until each is right.
 *
 * Owns one answer at a time, what of a chunk is there when a line breaks (it goes on at that very byte), and what is tried when a chunk
 * is wrong. Does not know what becomes of chunks.
 */

import { BmError } from './errors.js'
import { RangeMissing } from './http-file.js'
import { lastOfRun } from './missing-chunks.js'
import { endsEarly, FileChanged, NoRanges, trailing } from './remote-file.js'
import { RequestFailure, Retries } from './retry.js'

/** @typedef {import('./chunk-map.js').ChunkMap} ChunkMap */
/** @typedef {import('./http-file.js').HttpBody} HttpBody */
/** @typedef {import('./remote-file.js').RemoteFile} RemoteFile */

/** An answer of so many bytes is progress. */
const PROGRESS_BYTES = 65536
/** A wrong chunk is fetched again so often before it is asked why. */
const MOST_WRONG = 2

/**
 * @typedef {object} FetchEvents
 * @property {(count: number) => void} onBytes  arrived; negative: they were wrong, or not enough for a chunk
 * @property {(chunk: number, bytes: Uint8Array) => Promise<void>} onChunk  it is right; its bytes are valid until the promise resolves
 */

export class ChunkFetch {
  #file
  #map
  #buffer
  #events
  #signal
  #retries
  /** @type {HttpBody | null} */
  #body
  /** Bytes of the present chunk that are there. */
  #filled = 0
  /** How often the present chunk was wrong. */
  #wrong = 0
  #sinceProgress = 0

  /**
   * @param {RemoteFile} file
   * @param {ChunkMap} map
   * @param {Uint8Array<ArrayBuffer>} buffer  of the longest chunk
   * @param {FetchEvents} events
   * @param {AbortSignal} signal
   */
  constructor(file, map, buffer, events, signal) {
    this.#file = file
    this.#map = map
    this.#buffer = buffer
    this.#events = events
    this.#signal = signal
    this.#retries = new Retries(file.limits, signal)
    this.#body = file.takeOpening()
  }

  /**
   * @param {number[]} chunks ascending
   * @throws {NoRanges} {RequestFailure} {FileChanged} {BmError} `integrity`, `format`; or the signal's reason
   */
  async run(chunks) {
    try {
      for (let i = 0; i < chunks.length; ) {
        const chunk = Number(chunks[i])
        try {
          const end = this.#map.range(lastOfRun(chunks, i)).end
          if (await this.#fetch(chunk, end)) i++
        } catch (error) {
          await this.#closeBody()
          await this.#pause(error, chunk)
        }
      }
    } finally {
      this.#events.onBytes(-this.#filled)
      await this.#closeBody()
    }
  }

  /**
   * One step towards a chunk.
   *
   * @param {number} chunk
   * @param {number} end  of what is worth asking for
   * @returns {Promise<boolean>} whether it is there, and right
   */
  async #fetch(chunk, end) {
    const { start, length } = this.#map.range(chunk)
    const bytes = this.#buffer.subarray(0, length)
    const body = await this.#bodyAt(start + this.#filled, end)
    const before = this.#filled
    await this.#fill(body, bytes)
    if (this.#filled < length) {
      const hasMore = this.#filled > before
      if (hasMore && body.position === body.end) return false // as much as was asked for
      if (hasMore) this.#retries.progress() // a server that gives less at a time
      throw endsEarly(this.#file.name, body.position)
    }
    if (!(await this.#map.isRight(chunk, bytes))) {
      await this.#takeBack(chunk)
      return false
    }
    if (start + length === this.#map.fileBytes) await this.#checkEnd(body)
    this.#filled = 0
    this.#wrong = 0
    this.#retries.progress()
    this.#file.rangesProven ||= this.#file.ranged && chunk > 0
    await this.#events.onChunk(chunk, bytes)
    return true
  }

  /** @param {number} at @param {number} end @returns {Promise<HttpBody>} an answer at that byte */
  async #bodyAt(at, end) {
    const open = this.#body
    const isReady = open !== null && open.position <= at && (open.end === null || at < open.end)
    if (!isReady) await this.#closeBody()
    const options = { signal: this.#signal, fresh: this.#wrong > 0 }
    this.#body ??= await this.#file.openAt(at, end, this.#map, options)
    const body = this.#body
    if (!(await body.skipTo(at))) throw endsEarly(this.#file.name, body.position)
    return body
  }

  /** @param {HttpBody} body @param {Uint8Array} bytes  of the chunk; filled unless the body ends before */
  async #fill(body, bytes) {
    while (this.#filled < bytes.length) {
      const count = await body.take(bytes.subarray(this.#filled))
      if (count === 0) return
      this.#filled += count
      this.#file.fetchedBytes += count
      this.#events.onBytes(count)
      this.#sinceProgress += count
      if (this.#sinceProgress < PROGRESS_BYTES) continue
      this.#sinceProgress = 0
      this.#retries.progress()
    }
  }

  /** A chunk came and is wrong: returns when it is to be fetched again. @param {number} chunk */
  async #takeBack(chunk) {
    this.#events.onBytes(-this.#filled)
    this.#filled = 0
    this.#wrong++
    await this.#closeBody()
    if (this.#wrong <= MOST_WRONG) return
    const { name, ranged, rangesProven } = this.#file
    const where = this.#map.name(chunk)
    if (await this.#hasChanged()) {
      throw new FileChanged(
        `${name}: the file changed on the server while it was fetched, at ${where}: load it again`,
      )
    }
    if (ranged && !rangesProven) throw new NoRanges()
    throw new BmError(
      'integrity',
      `${name}: the SHA-256 of ${where} is not the one in the header, ${this.#wrong} times: the file on the server is damaged`,
    )
  }

  /** Retries of its own: that wrong bytes arrive is no progress. @returns {Promise<boolean>} */
  async #hasChanged() {
    const retries = new Retries(this.#file.limits, this.#signal)
    for (;;) {
      try {
        return await this.#file.hasChanged()
      } catch (error) {
        await retries.pause(error)
      }
    }
  }

  /** @param {HttpBody} body behind the last byte of the file */
  async #checkEnd(body) {
    const { fileBytes } = this.#map
    const more = body.end === fileBytes ? 0 : await body.take(new Uint8Array(1)).catch(() => 0)
    if (more > 0) throw trailing(this.#file.name, fileBytes)
  }

  /** @param {unknown} error @param {number} chunk */
  async #pause(error, chunk) {
    if (error instanceof RangeMissing) {
      this.#file.checkTotal(error, this.#map)
      if (this.#file.ranged) throw new NoRanges()
    }
    await this.#retries.pause(this.#placed(error, chunk))
  }

  /** @param {unknown} error @param {number} chunk @returns {unknown} a failure says where it happened */
  #placed(error, chunk) {
    if (!(error instanceof RequestFailure)) return error
    const { retryable, retryAfterMs } = error
    const message = `${error.message}; in ${this.#map.name(chunk)}, ${this.#filled} of its bytes were there`
    return new RequestFailure(message, { retryable, retryAfterMs, cause: error })
  }

  async #closeBody() {
    const body = this.#body
    this.#body = null
    await body?.close()
  }
}
