/**
 * What a caller may give as a model, and how each is opened: a URL, a path, bytes in memory, a Blob, a file handle.
 *
 * Owns telling them apart, and what crosses to the engine's thread in their place. Knows nothing about the format.
 * The idea: a source is described by plain data that can cross to a worker (`describeSource`), and opened where the
 * engine is (`openSource`). Bytes in memory do not cross: the engine pulls them piece by piece, so that there is
 * never a second whole copy and the caller keeps its own. Nor do Node's Blobs, of which some cannot.
 */

import { openStores } from './cache/stores.js'
import { Download } from './download.js'
import { BmError, reasonOf } from './errors.js'
import { fetchThrough, serveFetch } from './fetch-port.js'
import { HttpFile } from './http-file.js'
import { LoadMeter } from './load-meter.js'
import {
  blobReader,
  bytesReader,
  LocalFile,
  pathReader,
  portReader,
  readBlob,
} from './local-file.js'
import {
  absoluteUrl,
  blobOfUrl,
  blobsCross,
  fileSystem,
  pathOfUrl,
  resolvePath,
} from './platform.js'
import { RemoteFile } from './remote-file.js'
import { StoredCopy } from './stored-copy.js'

/** @typedef {import('./local-file.js').LocalReader} LocalReader */
/** @typedef {import('./http-file.js').Fetch} Fetch */
/** @typedef {import('./download.js').DownloadOptions} DownloadOptions */

/**
 * Node's open file, of `fs.promises.open`; it stays open.
 * @typedef {{ fd: number, read: (buffer: Uint8Array, offset: number, length: number, position: number) => Promise<{ bytesRead: number }> }} NodeFileHandle
 */

/** @typedef {string | URL | ArrayBuffer | Uint8Array | Blob | FileSystemFileHandle | NodeFileHandle} ModelSource */

/**
 * @typedef {{ kind: 'http', url: string, fetch: Fetch | null, fetchPort?: MessagePort }
 *   | { kind: 'fetched', url: string }
 *   | { kind: 'path', path: string }
 *   | { kind: 'blob', blob: Blob }
 *   | { kind: 'handle', handle: FileSystemFileHandle }
 *   | { kind: 'file', file: NodeFileHandle }
 *   | { kind: 'bytes', bytes: Uint8Array }
 *   | { kind: 'port', port: MessagePort, name: string }} SourceDescriptor
 */

/**
 * How a remote file is got and kept; plain data.
 *
 * @typedef {DownloadOptions & { headers: Record<string, string>, stallTimeoutMs: number, cacheFolder?: string }} FetchOptions
 */

/** @typedef {LocalFile | Download} ModelFile */

const HUB = 'https://huggingface.co'
const HUB_FILE = 'model.safetensors'

/**
 * @param {unknown} source
 * @param {Fetch | null} [fetch] the caller's own, for http: and https:
 * @returns {SourceDescriptor}
 * @throws {BmError} `argument`
 */
export function describeSource(source, fetch = null) {
  if (typeof source === 'string') return describeText(source, fetch)
  if (source instanceof URL) return describeUrl(source.href, fetch)
  if (source instanceof ArrayBuffer) return { kind: 'bytes', bytes: new Uint8Array(source) }
  if (source instanceof Uint8Array) {
    // Not the object itself: a Buffer's slice() is no copy, and what is transferred must be one.
    const bytes = new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    return { kind: 'bytes', bytes }
  }
  if (source instanceof Blob) return { kind: 'blob', blob: source }
  const object = /** @type {Record<string, unknown>} */ (Object(source))
  if (object.kind === 'file' && typeof object.getFile === 'function') {
    return { kind: 'handle', handle: /** @type {FileSystemFileHandle} */ (source) }
  }
  if (typeof object.fd === 'number' && typeof object.read === 'function') {
    return { kind: 'file', file: /** @type {NodeFileHandle} */ (source) }
  }
  throw new BmError(
    'argument',
    'the model source must be a URL, hf:OWNER/REPO, a path, an ArrayBuffer, a Uint8Array, a Blob or a file handle',
  )
}

/** @param {string} text @param {Fetch | null} fetch @returns {SourceDescriptor} */
function describeText(text, fetch) {
  if (text === '') throw new BmError('argument', 'the model source is an empty string')
  if (text.startsWith('hf:')) return describeUrl(hubUrl(text), fetch)
  const isUrl = /^([a-z][a-z0-9+.-]*:\/\/|data:|blob:)/i.test(text)
  return isUrl || !fileSystem() ? describeUrl(absoluteUrl(text), fetch) : describePath(text)
}

/**
 * `hf:OWNER/REPO[@REVISION][/FILE]`. A revision that is a commit never changes; `main`, the default, may.
 *
 * @param {string} text
 * @returns {string} URL
 */
function hubUrl(text) {
  const match = /^hf:(\w[\w.-]*\/\w[\w.-]*)(?:@((?:[^/%]|%[0-9a-f]{2})+))?(?:\/(.+))?$/i.exec(text)
  if (!match) {
    throw new BmError('argument', `'${text}' is not of the form hf:OWNER/REPO[@REVISION][/FILE]`)
  }
  const [, repo, revision = 'main', file = HUB_FILE] = match
  const path = file.split('/').map(encodeURIComponent).join('/')
  // One with a slash in it is given encoded: refs%2Fpr%2F1.
  const commit = revision.includes('%') ? revision : encodeURIComponent(revision)
  return `${HUB}/${repo}/resolve/${commit}/${path}`
}

/** @param {string} path @returns {SourceDescriptor} */
function describePath(path) {
  return { kind: 'path', path: resolvePath(path) }
}

/** @param {string} href @param {Fetch | null} fetch @returns {SourceDescriptor} */
function describeUrl(href, fetch) {
  const url = new URL(href)
  if (url.protocol === 'file:' && fileSystem()) return { kind: 'path', path: pathOfUrl(url) }
  const blob = url.protocol === 'blob:' ? blobOfUrl(href) : null
  if (blob) return { kind: 'blob', blob }
  if (/^(blob|data):$/.test(url.protocol)) return { kind: 'fetched', url: href }
  if (/^https?:$/.test(url.protocol)) {
    url.hash = ''
    return { kind: 'http', url: url.href, fetch }
  }
  throw new BmError('argument', `${href}: cannot read ${url.protocol} URLs, want http: or https:`)
}

/**
 * Makes a description fit to cross to a worker. What cannot cross stays here and is served on request.
 *
 * @param {SourceDescriptor} descriptor
 * @returns {{ descriptor: SourceDescriptor, transfer: Transferable[], close: () => void }}
 */
export function shareSource(descriptor) {
  switch (descriptor.kind) {
    case 'bytes': {
      const { bytes } = descriptor
      // The caller may have transferred its bytes to elsewhere: that must end the reading, not hang it.
      const readRange = async (/** @type {number} */ start, /** @type {number} */ end) =>
        bytes.length === 0 ? new Uint8Array(0) : bytes.slice(start, end)
      return servePort('the bytes', readRange)
    }
    case 'file': {
      const { file } = descriptor
      return servePort('the file', async (start, end) => {
        const target = new Uint8Array(end - start)
        return target.subarray(0, await readFile(file, start, target))
      })
    }
    case 'blob': {
      const { blob } = descriptor
      if (blobsCross()) break
      return servePort('the Blob', (start, end) => readBlob(blob, start, end))
    }
    case 'http': {
      if (descriptor.fetch === null) break
      const { port, close } = serveFetch(descriptor.fetch)
      const { url } = descriptor
      return {
        descriptor: { kind: 'http', url, fetch: null, fetchPort: port },
        transfer: [port],
        close,
      }
    }
  }
  return { descriptor, transfer: [], close: () => {} }
}

/**
 * @param {string} name
 * @param {(start: number, end: number) => Promise<Uint8Array>} readRange
 */
function servePort(name, readRange) {
  const { port1, port2 } = new MessageChannel()
  port1.onmessage = async ({ data: { id, start, end } }) => {
    try {
      const piece = await readRange(start, end)
      port1.postMessage({ id, piece }, [piece.buffer])
    } catch (error) {
      port1.postMessage({ id, reason: reasonOf(error) })
    }
  }
  /** @type {SourceDescriptor} */
  const descriptor = { kind: 'port', port: port2, name }
  return { descriptor, transfer: [port2], close: () => port1.close() }
}

/** @param {NodeFileHandle} file @param {number} start @param {Uint8Array} target @returns {Promise<number>} */
async function readFile(file, start, target) {
  for (let filled = 0; ; ) {
    if (filled === target.length) return filled
    const { bytesRead } = await file.read(target, filled, target.length - filled, start + filled)
    if (bytesRead === 0) return filled
    filled += bytesRead
  }
}

/**
 * @param {SourceDescriptor} descriptor
 * @param {object} [control]
 * @param {FetchOptions} [control.options] of remote files; default: no cache
 * @param {LoadMeter} [control.meter]
 * @param {AbortSignal | undefined} [control.signal]
 * @returns {Promise<ModelFile>} the caller closes it
 */
export async function openSource(descriptor, { options, meter, signal } = {}) {
  const progress = meter ?? new LoadMeter(undefined)
  if (descriptor.kind === 'http') {
    return openDownload(descriptor, options ?? NO_CACHE, progress, signal)
  }
  return new LocalFile(() => openReader(descriptor, signal), progress, signal)
}

/** @type {FetchOptions} */
const NO_CACHE = {
  cache: 'off',
  identity: null,
  streams: 4,
  retries: 4,
  retryDelayMs: 500,
  stallTimeoutMs: 20000,
  headers: {},
}

/**
 * @param {Extract<SourceDescriptor, { kind: 'http' }>} descriptor
 * @param {FetchOptions} options
 * @param {LoadMeter} meter
 * @param {AbortSignal | undefined} signal
 */
async function openDownload({ url, fetch, fetchPort }, options, meter, signal) {
  const { headers, stallTimeoutMs, cacheFolder, cache } = options
  const own = fetchPort ? fetchThrough(fetchPort) : fetch
  const http = new HttpFile(url, {
    fetch: own ?? ((/** @type {string} */ at, init) => globalThis.fetch(at, init)),
    headers,
    stallTimeoutMs,
    // What we keep ourselves the browser need not keep a second time.
    cache: cache === 'off' ? 'default' : 'no-store',
  })
  const folder = cacheFolder === undefined ? {} : { folder: cacheFolder }
  const { stores, refusals } =
    cache === 'off' ? { stores: [], refusals: [] } : await openStores(folder)
  const copy = new StoredCopy(url, stores, refusals)
  const { identity, retries, retryDelayMs } = options
  const file = new RemoteFile(http, { identity, limits: { retries, retryDelayMs }, signal })
  return new Download({ file, copy, options, meter, signal })
}

/**
 * @param {Exclude<SourceDescriptor, { kind: 'http' }>} descriptor
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<LocalReader>}
 */
async function openReader(descriptor, signal) {
  switch (descriptor.kind) {
    case 'fetched':
      return blobReader(await fetchBlob(descriptor.url, signal))
    case 'path':
      return pathReader(descriptor.path)
    case 'blob':
      return blobReader(descriptor.blob)
    case 'handle':
      return blobReader(await fileOf(descriptor.handle))
    case 'file': {
      const { file } = descriptor
      const read = (/** @type {number} */ start, /** @type {Uint8Array} */ target) =>
        readFile(file, start, target).catch((cause) => {
          throw new BmError('io', `the file cannot be read: ${reasonOf(cause)}`, { cause })
        })
      return { name: 'the file', read, close: async () => {} }
    }
    case 'bytes':
      return bytesReader(descriptor.bytes)
    case 'port':
      return portReader(descriptor.port, descriptor.name)
  }
}

/** @param {string} url with the scheme data: or blob: @param {AbortSignal | undefined} signal */
async function fetchBlob(url, signal) {
  try {
    const response = await fetch(url, signal ? { signal } : {})
    return await response.blob()
  } catch (cause) {
    signal?.throwIfAborted()
    // A data: URL can be megabytes long.
    throw new BmError('network', `GET ${url.slice(0, 100)}: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {FileSystemFileHandle} handle */
async function fileOf(handle) {
  try {
    return await handle.getFile()
  } catch (cause) {
    throw new BmError('io', `${handle.name}: cannot be read: ${reasonOf(cause)}`, { cause })
  }
}
