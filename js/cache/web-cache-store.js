/**
 * Model files in the Cache API, a piece at a time: for pages, which cannot write to the origin private file system, and for browsers without one.
 *
 *   https://bimamba.invalid/models/IDENTITY/START     the header (0), or the chunk that starts there
 *   https://bimamba.invalid/models/IDENTITY/about     the sizes of the file
 *   https://bimamba.invalid/urls/URL                  what a URL led to
 *
 * Owns these names. A piece is there as a whole or not at all, so its name is its journal. Nothing is ever fetched from that host: the
 * names only have to be URLs.
 */

import { BmError } from '../errors.js'
import { storageError } from './store-errors.js'
import { isUrlRecord } from './url-record.js'
import { lockByName } from './web-lock.js'

/** @typedef {import('./stores.js').Entry} Entry */
/** @typedef {import('./stores.js').FileSizes} FileSizes */
/** @typedef {import('./stores.js').Store} Store */
/** @typedef {import('./stores.js').StoredModel} StoredModel */
/** @typedef {import('./stores.js').WritableEntry} WritableEntry */

const BASE = 'https://bimamba.invalid/'

/** @param {string} url */
const urlRecord = (url) => `${BASE}urls/${encodeURIComponent(url)}`

/** @param {string} identity @param {number | 'about'} piece */
const pieceUrl = (identity, piece) => `${BASE}models/${identity}/${piece}`

/**
 * @returns {Promise<Store>}
 * @throws {BmError} `storage` where there is none
 */
export async function openWebCacheStore() {
  try {
    return new WebCacheStore(await caches.open('bimamba'))
  } catch (cause) {
    throw storageError('the Cache API cannot be used', cause)
  }
}

/** @implements {Store} */
class WebCacheStore {
  #cache
  kind = /** @type {const} */ ('cache')
  writable = true

  /** @param {Cache} cache */
  constructor(cache) {
    this.#cache = cache
  }

  /** @param {string} url */
  async identityOf(url) {
    const record = await readJson(this.#cache, urlRecord(url))
    return isUrlRecord(record) && record.url === url ? record.identity : null
  }

  /** @param {string} url @param {string} identity */
  async remember(url, identity) {
    await put(this.#cache, urlRecord(url), JSON.stringify({ url, identity }))
  }

  /** @param {string} identity @returns {Promise<Entry | null>} */
  async open(identity) {
    const pieces = await this.#piecesOf(identity)
    if (pieces.size === 0) return null
    return new WebCacheEntry(this.#cache, identity, pieces, await this.#about(identity))
  }

  /** @param {string} identity @returns {Promise<WritableEntry>} */
  async create(identity) {
    const pieces = await this.#piecesOf(identity)
    return new WebCacheEntry(this.#cache, identity, pieces, await this.#about(identity))
  }

  /** @param {string} identity @param {import('./stores.js').LockControl} [control] */
  async lock(identity, control) {
    return /** @type {() => Promise<void>} */ (await lockByName(identity, control))
  }

  async list() {
    const urls = (await this.#cache.keys()).map(({ url }) => url)
    const identities = new Set(
      urls.flatMap((url) => /\/models\/([0-9a-f]{64})\//.exec(url)?.[1] ?? []),
    )
    const records = await this.#records(urls)
    /** @type {StoredModel[]} */
    const models = []
    for (const identity of identities) {
      const pieces = await this.#piecesOf(identity)
      const about = await this.#about(identity)
      let storedBytes = 0
      for (const start of pieces) {
        const response = await this.#cache.match(pieceUrl(identity, start))
        storedBytes += Number(response?.headers.get('content-length') ?? 0)
      }
      models.push({
        identity,
        urls: records.filter((record) => record.identity === identity).map(({ url }) => url),
        fileBytes: about?.fileBytes ?? null,
        storedBytes,
        complete: isComplete(pieces, about),
        usedAt: about?.usedAt ?? null,
      })
    }
    return models
  }

  /** @param {string} identity */
  async remove(identity) {
    const release = await lockByName(identity, { wait: false })
    if (!release) throw new BmError('busy', `the model ${identity} is being downloaded`)
    try {
      const keys = (await this.#cache.keys()).map(({ url }) => url)
      const records = await this.#records(keys)
      const own = records.filter((record) => record.identity === identity)
      for (const { url } of own) await this.#cache.delete(urlRecord(url))
      for (const url of keys.filter((key) => key.startsWith(`${BASE}models/${identity}/`))) {
        await this.#cache.delete(url)
      }
    } catch (cause) {
      throw storageError(`the model ${identity} cannot be deleted`, cause)
    } finally {
      await release()
    }
  }

  /** @param {string} identity @returns {Promise<Set<number>>} starts of its pieces */
  async #piecesOf(identity) {
    const prefix = `${BASE}models/${identity}/`
    const keys = await this.#cache.keys()
    const starts = keys.flatMap(({ url }) => {
      const name = url.startsWith(prefix) ? url.slice(prefix.length) : ''
      return /^\d+$/.test(name) ? Number(name) : []
    })
    return new Set(starts)
  }

  /** @param {string} identity @returns {Promise<About | null>} */
  async #about(identity) {
    const about = await readJson(this.#cache, pieceUrl(identity, 'about'))
    const { fileBytes, chunkCount } = /** @type {Partial<About>} */ (Object(about))
    const isGood = Number.isSafeInteger(fileBytes) && Number.isSafeInteger(chunkCount)
    return isGood ? /** @type {About} */ (about) : null
  }

  /** @param {string[]} urls of all pieces and records */
  async #records(urls) {
    const names = urls.filter((url) => url.startsWith(`${BASE}urls/`))
    const records = await Promise.all(names.map((url) => readJson(this.#cache, url)))
    return records.filter(isUrlRecord)
  }
}

/** @typedef {FileSizes & { usedAt: number }} About */

/** @param {Set<number>} pieces @param {FileSizes | null} about */
function isComplete(pieces, about) {
  return about !== null && pieces.has(0) && pieces.size === about.chunkCount + 1
}

/** @implements {WritableEntry} */
class WebCacheEntry {
  #cache
  #identity
  #pieces
  #about

  /** @param {Cache} cache @param {string} identity @param {Set<number>} pieces @param {About | null} about */
  constructor(cache, identity, pieces, about) {
    this.#cache = cache
    this.#identity = identity
    this.#pieces = pieces
    this.#about = about
  }

  get complete() {
    return isComplete(this.#pieces, this.#about)
  }

  /** @param {number} _ @param {number} start */
  mayHave(_, start) {
    return this.#pieces.has(start)
  }

  /** @param {number} start @param {Uint8Array} target */
  async read(start, target) {
    const response = await this.#cache.match(pieceUrl(this.#identity, start)).catch(() => null)
    const bytes = await response?.arrayBuffer().catch(() => null)
    if (!bytes) return 0
    const piece = new Uint8Array(bytes).subarray(0, target.length)
    target.set(piece)
    return piece.length
  }

  /** @param {Uint8Array} bytes @param {FileSizes} sizes */
  async writeHeader(bytes, sizes) {
    await this.#write(0, bytes)
    await this.#writeAbout(sizes)
  }

  /** @param {FileSizes} sizes */
  async #writeAbout({ fileBytes, chunkCount }) {
    this.#about = { fileBytes, chunkCount, usedAt: Date.now() }
    await put(this.#cache, pieceUrl(this.#identity, 'about'), JSON.stringify(this.#about))
  }

  /** @param {number} _ @param {number} start @param {Uint8Array} bytes */
  async writeChunk(_, start, bytes) {
    await this.#write(start, bytes)
  }

  /** @param {number} start @param {Uint8Array} bytes */
  async #write(start, bytes) {
    await put(
      this.#cache,
      pieceUrl(this.#identity, start),
      /** @type {Uint8Array<ArrayBuffer>} */ (bytes),
    )
    this.#pieces.add(start)
  }

  async finish() {}

  async touch() {
    if (this.#about) await this.#writeAbout(this.#about).catch(() => {})
  }

  async close() {}
}

/** @param {Cache} cache @param {string} url @param {string | Uint8Array<ArrayBuffer>} body */
async function put(cache, url, body) {
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body
  const headers = { 'Content-Length': String(bytes.length) }
  try {
    await cache.put(url, new Response(bytes, { headers }))
  } catch (cause) {
    throw storageError('the Cache API cannot be written to', cause)
  }
}

/** @param {Cache} cache @param {string} url @returns {Promise<unknown>} null when it is missing or damaged */
async function readJson(cache, url) {
  try {
    return (await (await cache.match(url))?.json()) ?? null
  } catch {
    return null
  }
}
