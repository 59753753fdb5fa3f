/**
 * Where a model file's bytes come from: a URL, a path, bytes in memory, a Blob, or the other end of a message port.
 *
 * Owns turning each of them into one stream of bytes from the file's start, and the errors of that transport. Knows
 * nothing about the format: `js/loader.js` decides whether the bytes are a model and where in them it stopped.
 * The idea: a source is described by plain data that can cross to a worker (`describeSource`), and opened where the
 * engine is (`openSource`). Bytes in memory do not cross: the engine pulls them piece by piece, so that there is
 * never a second whole copy and the caller keeps its own. Nor do Node's Blobs, of which some cannot.
 */

import { BmError, reasonOf } from './errors.js'
import {
  absoluteUrl,
  blobOfUrl,
  blobsCross,
  fileSystem,
  pathOfUrl,
  resolvePath,
} from './platform.js'

/** @typedef {string | URL | ArrayBuffer | Uint8Array | Blob} ModelSource */

/**
 * @typedef {{ kind: 'url', url: string }
 *   | { kind: 'path', path: string }
 *   | { kind: 'blob', blob: Blob }
 *   | { kind: 'bytes', bytes: Uint8Array }
 *   | { kind: 'port', port: MessagePort, name: string, sizeBytes: number }} SourceDescriptor
 */

/**
 * @typedef {object} Source
 * @property {string} name     for messages
 * @property {'network' | 'io' | 'format'} shortCode  what it means when the bytes end too early
 * @property {(signal?: AbortSignal) => AsyncGenerator<Uint8Array, void, void>} read  from the first byte; ending the
 *   generator releases the connection or file. A piece is valid until the next one is asked for
 */

const READ_BYTES = 1 << 20

/**
 * @param {unknown} source
 * @returns {SourceDescriptor}
 * @throws {BmError} `argument`
 */
export function describeSource(source) {
  if (typeof source === 'string') {
    if (source === '') throw new BmError('argument', 'the model source is an empty string')
    const isUrl = /^([a-z][a-z0-9+.-]*:\/\/|data:|blob:)/i.test(source)
    return isUrl || !fileSystem() ? describeUrl(absoluteUrl(source)) : describePath(source)
  }
  if (source instanceof URL) return describeUrl(source.href)
  if (source instanceof ArrayBuffer) return { kind: 'bytes', bytes: new Uint8Array(source) }
  if (source instanceof Uint8Array) {
    // Not the object itself: a Buffer's slice() is no copy, and what is transferred must be one.
    const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    return { kind: 'bytes', bytes }
  }
  if (source instanceof Blob) return { kind: 'blob', blob: source }
  throw new BmError(
    'argument',
    'the model source must be a URL, a path, an ArrayBuffer, a Uint8Array or a Blob',
  )
}

/** @param {string} path @returns {SourceDescriptor} */
function describePath(path) {
  return { kind: 'path', path: resolvePath(path) }
}

/** @param {string} href @returns {SourceDescriptor} */
function describeUrl(href) {
  const url = new URL(href)
  if (url.protocol === 'file:' && fileSystem()) return { kind: 'path', path: pathOfUrl(url) }
  const blob = url.protocol === 'blob:' ? blobOfUrl(href) : null
  if (blob) return { kind: 'blob', blob }
  if (/^(https?|blob|data):$/.test(url.protocol)) return { kind: 'url', url: href }
  throw new BmError('argument', `${href}: cannot read ${url.protocol} URLs, want http: or https:`)
}

/**
 * Makes a description fit to cross to a worker. What cannot cross stays here and is served on request.
 *
 * @param {SourceDescriptor} descriptor
 * @returns {{ descriptor: SourceDescriptor, transfer: Transferable[], close: () => void }}
 */
export function shareSource(descriptor) {
  if (descriptor.kind === 'bytes') {
    const { bytes } = descriptor
    // The caller may have transferred its bytes to elsewhere: that must end the reading, not hang it.
    const readRange = async (/** @type {number} */ start, /** @type {number} */ end) =>
      end > bytes.length ? new Uint8Array(0) : bytes.slice(start, end)
    return servePort('the bytes', bytes.length, readRange)
  }
  if (descriptor.kind === 'blob' && !blobsCross()) {
    const { blob } = descriptor
    return servePort('the Blob', blob.size, (start, end) => readRangeOfBlob(blob, start, end))
  }
  return { descriptor, transfer: [], close: () => {} }
}

/**
 * @param {string} name
 * @param {number} sizeBytes
 * @param {(start: number, end: number) => Promise<Uint8Array>} readRange
 */
function servePort(name, sizeBytes, readRange) {
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = async ({ data: { start, end } }) => {
    try {
      const piece = await readRange(start, end)
      port1.postMessage({ piece }, [piece.buffer])
    } catch (error) {
      port1.postMessage({ reason: reasonOf(error) })
    }
  }
  /** @type {SourceDescriptor} */
  const descriptor = { kind: 'port', port: port2, name, sizeBytes }
  return { descriptor, transfer: [port2], close: () => port1.close() }
}

/** @param {SourceDescriptor} descriptor @returns {Source} */
export function openSource(descriptor) {
  switch (descriptor.kind) {
    case 'url':
      return {
        name: shortUrl(descriptor.url),
        shortCode: 'network',
        read: (signal) => readUrl(descriptor.url, signal),
      }
    case 'path':
      return { name: descriptor.path, shortCode: 'format', read: () => readPath(descriptor.path) }
    case 'blob':
      return { name: 'the Blob', shortCode: 'format', read: () => readBlob(descriptor.blob) }
    case 'bytes':
      return { name: 'the bytes', shortCode: 'format', read: () => readBytes(descriptor.bytes) }
    case 'port':
      return {
        name: descriptor.name,
        shortCode: 'format',
        read: () => readPort(descriptor.port, descriptor.sizeBytes),
      }
  }
}

/** @param {string} url @returns {string} a data: URL can be megabytes long */
function shortUrl(url) {
  return url.length > 500 ? `${url.slice(0, 500)}...` : url
}

/**
 * @param {string} url
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* readUrl(url, signal) {
  const name = shortUrl(url)
  const response = await request(url, signal)
  if (!response.ok || !response.body) {
    await response.body?.cancel()
    throw new BmError(
      'network',
      `GET ${name}: HTTP status ${response.status} ${response.statusText}`.trimEnd(),
    )
  }
  const reader = response.body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield value
    }
  } catch (cause) {
    signal?.throwIfAborted()
    throw new BmError('network', `GET ${name}: the connection broke (${reasonOf(cause)})`, {
      cause,
    })
  } finally {
    // Also after an error or an early return: the socket is closed, not left to the collector.
    await reader.cancel().catch(() => {})
  }
}

/**
 * @param {string} url
 * @param {AbortSignal} [signal]
 */
async function request(url, signal) {
  try {
    return await fetch(url, signal ? { signal } : {})
  } catch (cause) {
    signal?.throwIfAborted()
    const hint = globalThis.location
      ? ' (offline, or the server does not allow this page: CORS)'
      : ''
    throw new BmError('network', `GET ${shortUrl(url)}: ${reasonOf(cause)}${hint}`, { cause })
  }
}

/** @param {string} path @returns {AsyncGenerator<Uint8Array, void, void>} */
async function* readPath(path) {
  const files = fileSystem()
  if (!files) throw new BmError('unsupported', `${path}: paths can be read in Node only`)
  const file = await files.open(path).catch((cause) => {
    throw new BmError('io', `${path}: ${fileReason(cause)}`, { cause })
  })
  try {
    const buffer = new Uint8Array(READ_BYTES)
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length).catch((cause) => {
        throw new BmError('io', `${path}: ${fileReason(cause)}`, { cause })
      })
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await file.close()
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

/** @param {Blob} blob @returns {AsyncGenerator<Uint8Array, void, void>} */
async function* readBlob(blob) {
  for (let start = 0; start < blob.size; start += READ_BYTES) {
    yield await readRangeOfBlob(blob, start, start + READ_BYTES)
  }
}

/** @param {Blob} blob @param {number} start @param {number} end @returns {Promise<Uint8Array<ArrayBuffer>>} */
async function readRangeOfBlob(blob, start, end) {
  try {
    return new Uint8Array(await blob.slice(start, end).arrayBuffer())
  } catch (cause) {
    throw new BmError('io', `the Blob cannot be read: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {Uint8Array} bytes @returns {AsyncGenerator<Uint8Array, void, void>} */
async function* readBytes(bytes) {
  for (let start = 0; start < bytes.length; start += READ_BYTES) {
    yield bytes.subarray(start, start + READ_BYTES)
  }
}

/**
 * @param {MessagePort} port
 * @param {number} sizeBytes
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* readPort(port, sizeBytes) {
  try {
    for (let start = 0; start < sizeBytes; start += READ_BYTES) {
      const end = Math.min(start + READ_BYTES, sizeBytes)
      /** @type {{ piece?: Uint8Array, reason?: string }} */
      const { piece, reason } = await new Promise((resolve) => {
        port.onmessage = ({ data }) => resolve(data)
        port.postMessage({ start, end })
      })
      if (reason !== undefined) throw new BmError('io', reason)
      if (!piece?.length) return
      yield piece
    }
  } finally {
    port.close()
  }
}
