/**
 * Loads a packed model: one pass over a stream of bytes, straight into the engine's memory.
 *
 * Owns the order of things (header, then chunks; a chunk's SHA-256 is checked before any byte of it is written; a part
 * is sealed as soon as its last byte is there), the progress reports, and saying where a broken file broke.
 * Does not know how bytes are fetched (js/source.js), what the header means (js/format.js) or what the tensors are for.
 * The idea: in 1-bit weights every bit pattern is valid, so only the hashes can see damage; and the end of a stream proves
 * nothing, so bytes are counted. One staging buffer of a chunk is all the memory this needs beside the engine's.
 */

import { BmError } from './errors.js'
import { parseHeader, readHeaderLength } from './format.js'

/** @typedef {import('./source.js').Source} Source */
/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./settings.js').Progress} Progress */
/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core.js').CoreModel} CoreModel */

const PROGRESS_INTERVAL_MS = 100
/** Enough of a file's start to say what it is when it is no model. */
const PEEK_BYTES = 512

/**
 * @param {Core} core
 * @param {Source} source
 * @param {object} [options]
 * @param {((header: PackedHeader) => string | undefined) | undefined} [options.variantFor] the kernel family for a file; default: the standard one
 * @param {import('./core.js').HeadChoice | undefined} [options.head]
 * @param {((progress: Progress) => void) | undefined} [options.onProgress]
 * @param {AbortSignal | undefined} [options.signal]
 * @returns {Promise<{ model: CoreModel, header: PackedHeader, tokenizerJson: string | null }>} the caller closes the model
 * @throws {BmError} `network`, `io`, `format`, `integrity`, `memory`, `config`, `unsupported`
 */
export async function loadModel(core, source, { variantFor, head, onProgress, signal } = {}) {
  if (!globalThis.crypto?.subtle) {
    throw new BmError(
      'unsupported',
      'crypto.subtle is missing: checking a model needs a secure context (https: or localhost)',
    )
  }
  signal?.throwIfAborted()
  const stream = new ByteStream(source, signal)
  /** @type {CoreModel | null} */
  let model = null
  try {
    const header = await readHeader(stream, core)
    model = core.createModel(header.config, { variant: variantFor?.(header), head })
    const progress = new ProgressReport(onProgress, header)
    const tokenizer = await readData(stream, header, model, progress)
    await stream.expectEnd(header.fileBytes)
    progress.finish()
    return { model, header, tokenizerJson: tokenizer && decodeTokenizer(source, tokenizer) }
  } catch (error) {
    model?.close()
    throw error
  } finally {
    await stream.close()
  }
}

/**
 * @param {ByteStream} stream
 * @param {Core} core
 * @returns {Promise<PackedHeader>}
 */
async function readHeader(stream, core) {
  stream.place = 'in the header'
  const peek = new Uint8Array(PEEK_BYTES)
  const peeked = await stream.fill(peek)
  try {
    const length = readHeaderLength(peek.subarray(0, peeked))
    const bytes = new Uint8Array(8 + length)
    bytes.set(peek.subarray(0, Math.min(peeked, bytes.length)))
    stream.unread(peek.subarray(Math.min(peeked, bytes.length), peeked))
    if (bytes.length > peeked) await stream.fillAll(bytes.subarray(peeked))
    return await parseHeader(bytes, core)
  } catch (error) {
    throw withName(stream, error)
  }
}

/** @param {ByteStream} stream @param {unknown} error @returns {unknown} a `format` error says which file */
function withName({ name }, error) {
  if (!(error instanceof BmError) || error.code !== 'format') return error
  if (error.message.startsWith(name)) return error
  return new BmError('format', `${name}: ${error.message}`, { cause: error })
}

/**
 * Reads the data section chunk by chunk.
 *
 * @param {ByteStream} stream
 * @param {PackedHeader} header
 * @param {CoreModel} model
 * @param {ProgressReport} progress
 * @returns {Promise<Uint8Array | null>} the tokenizer's bytes
 */
async function readData(stream, header, model, progress) {
  const { dataBytes, dataOffset, chunkBytes, chunkSha256 } = header
  const writer = new TensorWriter(header, model)
  const staging = new Uint8Array(Math.min(chunkBytes, dataBytes))
  const chunks = Math.ceil(dataBytes / chunkBytes)
  for (let k = 0; k < chunks; k++) {
    const start = k * chunkBytes
    const chunk = staging.subarray(0, Math.min(chunkBytes, dataBytes - start))
    stream.place = `in chunk ${k} of ${chunks}, which starts at byte ${dataOffset + start}`
    await stream.fillAll(chunk, (read) => progress.report(dataOffset + start + read))
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', chunk))
    if (!sameBytes(digest, chunkSha256.subarray(32 * k, 32 * k + 32))) {
      throw new BmError(
        'integrity',
        `${stream.name}: the SHA-256 of chunk ${k} (bytes ${dataOffset + start} to ${dataOffset + start + chunk.length}) is not the one in the header: the file is damaged`,
      )
    }
    try {
      writer.write(start, chunk)
    } catch (error) {
      throw withName(stream, error)
    }
  }
  return writer.tokenizer
}

/** Hands each byte of the data section to the tensor it belongs to, and seals a part when it is complete. */
class TensorWriter {
  #tensors
  #model
  #next = 0
  /** @type {Map<number, number>} bytes still missing by part */
  #missing = new Map()
  /** @type {Uint8Array | null} */
  tokenizer = null

  /** @param {PackedHeader} header @param {CoreModel} model */
  constructor({ tensors }, model) {
    this.#tensors = tensors
    this.#model = model
    for (const { index, part, sizeBytes } of tensors) {
      if (index < 0) this.tokenizer = new Uint8Array(sizeBytes)
      else this.#missing.set(part, (this.#missing.get(part) ?? 0) + sizeBytes)
    }
  }

  /**
   * @param {number} start of the bytes in the data section; calls come in order, without gaps
   * @param {Uint8Array} bytes
   */
  write(start, bytes) {
    for (let done = 0; done < bytes.length; ) {
      const tensor = this.#tensors[this.#next]
      if (!tensor) throw new BmError('internal', 'the data section is longer than its tensors')
      const inTensor = start + done - tensor.offset
      const count = Math.min(bytes.length - done, tensor.sizeBytes - inTensor)
      this.#put(tensor, inTensor, bytes.subarray(done, done + count))
      done += count
      if (inTensor + count === tensor.sizeBytes) this.#next++
    }
  }

  /**
   * @param {import('./format.js').PackedTensor} tensor
   * @param {number} offset
   * @param {Uint8Array} bytes
   */
  #put({ index, part }, offset, bytes) {
    if (index < 0) {
      this.tokenizer?.set(bytes, offset)
      return
    }
    this.#model.write(index, offset, bytes)
    const missing = Number(this.#missing.get(part)) - bytes.length
    this.#missing.set(part, missing)
    if (missing === 0) this.#model.seal(part)
  }
}

/** A source's bytes, taken in the amounts the reader wants; adds to errors where in the file they happened. */
class ByteStream {
  #source
  #iterator
  #signal
  /** @type {Uint8Array} read from the source, not yet taken */
  #rest = new Uint8Array(0)
  #taken = 0
  /** Where the reader is, for messages. */
  place = ''

  /** @param {Source} source @param {AbortSignal} [signal] */
  constructor(source, signal) {
    this.#source = source
    this.#signal = signal
    this.#iterator = source.read(signal)
  }

  get name() {
    return this.#source.name
  }

  /**
   * @param {Uint8Array} target
   * @param {(bytes: number) => void} [onBytes] how many of the target's bytes are there
   * @returns {Promise<number>} bytes filled, fewer only at the end of the file
   */
  async fill(target, onBytes) {
    let filled = 0
    while (filled < target.length) {
      if (this.#rest.length === 0 && !(await this.#pull())) break
      const piece = this.#rest.subarray(0, target.length - filled)
      target.set(piece, filled)
      this.#rest = this.#rest.subarray(piece.length)
      filled += piece.length
      this.#taken += piece.length
      onBytes?.(filled)
    }
    return filled
  }

  /** @param {Uint8Array} target @param {(bytes: number) => void} [onBytes] */
  async fillAll(target, onBytes) {
    const filled = await this.fill(target, onBytes)
    if (filled === target.length) return
    throw new BmError(
      this.#source.shortCode,
      `${this.name}: ends after ${this.#taken} bytes ${this.place}: the file is truncated, ${target.length - filled} more bytes wanted there`,
    )
  }

  /** @param {Uint8Array} bytes taken before, to be taken again */
  unread(bytes) {
    const rest = new Uint8Array(bytes.length + this.#rest.length)
    rest.set(bytes)
    rest.set(this.#rest, bytes.length)
    this.#rest = rest
    this.#taken -= bytes.length
  }

  /** @param {number} fileBytes */
  async expectEnd(fileBytes) {
    if (this.#rest.length === 0 && !(await this.#pull())) return
    throw new BmError(
      'format',
      `${this.name}: bytes after the end of the model, which has ${fileBytes}`,
    )
  }

  /** @returns {Promise<boolean>} false at the end */
  async #pull() {
    this.#signal?.throwIfAborted()
    try {
      const { done, value } = await this.#iterator.next()
      this.#signal?.throwIfAborted()
      if (done) return false
      this.#rest = value
      return true
    } catch (error) {
      if (!(error instanceof BmError) || this.#taken === 0) throw error
      throw new BmError(error.code, `${error.message} after ${this.#taken} bytes, ${this.place}`, {
        cause: error,
      })
    }
  }

  async close() {
    await this.#iterator.return()
  }
}

/** Reports at most ten times a second, and once at the end. */
class ProgressReport {
  #onProgress
  #totalBytes
  #last = Number.NEGATIVE_INFINITY

  /** @param {((progress: Progress) => void) | undefined} onProgress @param {PackedHeader} header */
  constructor(onProgress, { fileBytes }) {
    this.#onProgress = onProgress
    this.#totalBytes = fileBytes
  }

  /** @param {number} loadedBytes */
  report(loadedBytes) {
    const now = performance.now()
    if (!this.#onProgress || now - this.#last < PROGRESS_INTERVAL_MS) return
    this.#last = now
    this.#onProgress({ phase: 'load', loadedBytes, totalBytes: this.#totalBytes })
  }

  finish() {
    const bytes = this.#totalBytes
    this.#onProgress?.({ phase: 'ready', loadedBytes: bytes, totalBytes: bytes })
  }
}

/** @param {Source} source @param {Uint8Array} bytes @returns {string} */
function decodeTokenizer({ name }, bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new BmError('tokenizer', `${name}: the tokenizer is not UTF-8`, { cause })
  }
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function sameBytes(a, b) {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
