/**
 * A packed file that is on this device already: bytes, a Blob, a path, or the other end of a message port.
 *
 * Owns reading each of them from any position, and the chunks in two lanes: while the hash of one is computed, the next is read. Knows
 * nothing of tensors. js/download.js has the same methods for what is elsewhere.
 */

import { ChunkMap } from './chunk-map.js'
import { BmError } from './errors.js'
import { readHeader } from './file-header.js'
import { fileSystem } from './platform.js'
import { readBlob } from './source.js'

/** @typedef {import('./download.js').TakeChunk} TakeChunk */
/** @typedef {import('./format.js').PackedHeader} PackedHeader */

/**
 * @typedef {object} LocalReader
 * @property {string} name for messages
 * @property {(start: number, target: Uint8Array) => Promise<number>} read  bytes read, fewer at the end of the file; two calls may overlap
 * @property {() => Promise<void>} close
 */

const LANES = 2

export class LocalFile {
  #openReader
  #meter
  #signal
  /** @type {LocalReader | null} */
  #reader = null

  /**
   * @param {() => Promise<LocalReader>} openReader
   * @param {import('./load-meter.js').LoadMeter} meter
   * @param {AbortSignal | undefined} signal
   */
  constructor(openReader, meter, signal) {
    this.#openReader = openReader
    this.#meter = meter
    this.#signal = signal
  }

  get name() {
    return this.#open().name
  }

  /** @returns {null} nothing was fetched or kept */
  report() {
    return null
  }

  /** @param {import('./format.js').TensorTable} core @returns {Promise<PackedHeader>} */
  async readHeader(core) {
    this.#signal?.throwIfAborted()
    this.#reader ??= await this.#openReader()
    const { name, read } = this.#reader
    const first = async (/** @type {number} */ length) => {
      const bytes = new Uint8Array(length)
      return bytes.subarray(0, await read(0, bytes))
    }
    const { header, bytes } = await readHeader(name, core, first)
    this.#meter.begin(header.fileBytes, bytes.length, true)
    return header
  }

  /**
   * @param {PackedHeader} header
   * @param {TakeChunk} take
   * @param {{ ordered: boolean }} options  ordered: from the first to the last
   */
  async readChunks(header, take, { ordered }) {
    const { name, read } = this.#open()
    const map = new ChunkMap(header)
    this.#meter.enter('load')
    let next = 0
    /** @type {unknown} */
    let failure = null
    const lane = async () => {
      const buffer = new Uint8Array(map.longest)
      while (next < map.count && failure === null) {
        const chunk = next++
        const bytes = buffer.subarray(0, map.range(chunk).length)
        await this.#readChunk(map, chunk, bytes)
        if (failure === null) await take(chunk, bytes)
      }
    }
    const lanes = Array.from({ length: ordered ? 1 : LANES }, () =>
      lane().catch((error) => {
        failure ??= error
      }),
    )
    await Promise.all(lanes)
    if (failure !== null) throw failure
    if ((await read(map.fileBytes, new Uint8Array(1))) === 0) return
    throw new BmError(
      'format',
      `${name}: bytes after the end of the model, which has ${map.fileBytes}`,
    )
  }

  /** @param {ChunkMap} map @param {number} chunk @param {Uint8Array<ArrayBuffer>} bytes */
  async #readChunk(map, chunk, bytes) {
    const { name, read } = this.#open()
    const { start, length } = map.range(chunk)
    this.#signal?.throwIfAborted()
    const count = await read(start, bytes)
    this.#signal?.throwIfAborted()
    if (count < length) {
      throw new BmError(
        'format',
        `${name}: ends after ${start + count} bytes in ${map.name(chunk)}: the file is truncated, ${length - count} more bytes wanted there`,
      )
    }
    if (!(await map.isRight(chunk, bytes))) {
      throw new BmError(
        'integrity',
        `${name}: the SHA-256 of ${map.name(chunk)} is not the one in the header: the file is damaged`,
      )
    }
    this.#meter.addCached(length)
  }

  #open() {
    if (!this.#reader) throw new BmError('internal', 'a file is read before it is opened')
    return this.#reader
  }

  /** Nothing can have changed: the next try is the last. */
  async startAgain() {}

  async close() {
    await this.#reader?.close()
    this.#reader = null
  }
}

/** @param {Uint8Array} bytes @returns {LocalReader} */
export function bytesReader(bytes) {
  return {
    name: 'the bytes',
    read: async (start, target) => {
      const piece = bytes.subarray(start, start + target.length)
      target.set(piece)
      return piece.length
    },
    close: async () => {},
  }
}

/** @param {Blob} blob @returns {LocalReader} */
export function blobReader(blob) {
  return {
    name: 'the Blob',
    read: async (start, target) => {
      const piece = await readBlob(blob, start, start + target.length)
      target.set(piece)
      return piece.length
    },
    close: async () => {},
  }
}

/** @param {string} path @returns {Promise<LocalReader>} */
export async function pathReader(path) {
  const files = fileSystem()
  if (!files) throw new BmError('unsupported', `${path}: paths can be read in Node only`)
  const failed = (/** @type {unknown} */ cause) => {
    throw new BmError('io', `${path}: ${fileReason(cause)}`, { cause })
  }
  const file = await files.open(path).catch(failed)
  return {
    name: path,
    read: async (start, target) => {
      for (let filled = 0; ; ) {
        if (filled === target.length) return filled
        const piece = target.subarray(filled)
        const { bytesRead } = await file.read(piece, 0, piece.length, start + filled).catch(failed)
        if (bytesRead === 0) return filled
        filled += bytesRead
      }
    },
    close: () => file.close(),
  }
}

/** @param {unknown} error @returns {string} */
function fileReason(error) {
  const { code, message } = /** @type {{ code?: unknown, message?: unknown }} */ (Object(error))
  if (code === 'ENOENT') return 'no such file'
  if (code === 'EISDIR') return 'is a directory, want a model file'
  if (code === 'EACCES') return 'no permission to read it'
  return String(message ?? error)
}

/**
 * What is on the other side of a port, served by `servePort` of js/source.js.
 *
 * @param {MessagePort} port
 * @param {string} name
 * @returns {LocalReader}
 */
export function portReader(port, name) {
  /** @type {Map<number, (reply: { piece?: Uint8Array, reason?: string }) => void>} */
  const waiting = new Map()
  let lastId = 0
  port.onmessage = ({ data }) => waiting.get(data.id)?.(data)
  return {
    name,
    read: async (start, target) => {
      const id = ++lastId
      /** @type {{ piece?: Uint8Array, reason?: string }} */
      const { piece, reason } = await new Promise((resolve) => {
        waiting.set(id, resolve)
        port.postMessage({ id, start, end: start + target.length })
      })
      waiting.delete(id)
      if (reason !== undefined) throw new BmError('io', reason)
      target.set(piece ?? [])
      return piece?.length ?? 0
    },
    close: async () => port.close(),
  }
}
