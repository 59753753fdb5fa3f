/**
 * What a caller may give as a model: a URL, a path, bytes in memory, a Blob, a file handle.
 *
 * Owns telling them apart, and what crosses to the engine's thread in their place. Knows nothing about the format.
 * The idea: a source is described by plain data that can cross to a worker, and opened where the engine is
 * (js/source-opening.js). Bytes in memory do not cross: the engine pulls them piece by piece, so that there is
 * never a second whole copy and the caller keeps its own. Nor do Node's Blobs, of which some cannot.
 */

import { BmError, reasonOf } from './errors.js'
import { serveFetch } from './fetch-port.js'
import {
  absoluteUrl,
  blobOfUrl,
  blobsCross,
  fileSystem,
  pathOfUrl,
  resolvePath,
} from './platform.js'

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
  if (!match || !isHubPath(match.slice(2))) {
    throw new BmError('argument', `'${text}' is not of the form hf:OWNER/REPO[@REVISION][/FILE]`)
  }
  const [, repo, revision = 'main', file = HUB_FILE] = match
  const path = file.split('/').map(encodeURIComponent).join('/')
  // One with a slash in it is given encoded: refs%2Fpr%2F1.
  const commit = revision.includes('%') ? revision : encodeURIComponent(revision)
  return `${HUB}/${repo}/resolve/${commit}/${path}`
}

/** A URL that is read takes `.` and `..` away, and a part of the repository's own with them. @param {(string | undefined)[]} paths */
function isHubPath(paths) {
  const parts = paths.flatMap((path) => path?.split('/') ?? [])
  return parts.every((part) => !/^((\.|%2e){0,2}$)|\p{Surrogate}/iu.test(part))
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

/** @param {NodeFileHandle} file @param {number} start @param {Uint8Array} target @returns {Promise<number>} bytes read, fewer at its end */
export async function readFile(file, start, target) {
  for (let filled = 0; ; ) {
    if (filled === target.length) return filled
    const { bytesRead } = await file.read(target, filled, target.length - filled, start + filled)
    if (bytesRead === 0) return filled
    filled += bytesRead
  }
}

/** @param {Blob} blob @param {number} start @param {number} end @returns {Promise<Uint8Array<ArrayBuffer>>} */
export async function readBlob(blob, start, end) {
  try {
    return new Uint8Array(await blob.slice(start, end).arrayBuffer())
  } catch (cause) {
    throw new BmError('io', `the Blob cannot be read: ${reasonOf(cause)}`, { cause })
  }
}
