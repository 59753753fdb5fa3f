/**
 * Opens a source where the engine is.
 *
 * Owns which reader reads what; what a source may be is said in js/source.js, which a page has without all of this.
 */

import { openStores } from './cache/stores.js'
import { Download } from './download.js'
import { BmError, reasonOf } from './errors.js'
import { fetchThrough } from './fetch-port.js'
import { HttpFile } from './http-file.js'
import { LoadMeter } from './load-meter.js'
import { blobReader, bytesReader, LocalFile, pathReader, portReader } from './local-file.js'
import { RemoteFile } from './remote-file.js'
import { readFile } from './source.js'
import { StoredCopy } from './stored-copy.js'

/** @typedef {import('./local-file.js').LocalReader} LocalReader */
/** @typedef {import('./source.js').SourceDescriptor} SourceDescriptor */
/** @typedef {import('./source.js').FetchOptions} FetchOptions */
/** @typedef {LocalFile | Download} ModelFile */

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
