/**
 * Model files in the origin private file system of a browser.
 *
 *   bimamba/models/IDENTITY/model.safetensors, journal     the file, and which chunks of it were written
 *   bimamba/urls/SHA256.json                               what a URL led to
 *
 * Owns these names, and what browsers do with quotas. Files are written by a handle that only dedicated workers have and that excludes
 * all others; they are read by `getFile`, which always works, on pages, too, and while another tab writes.
 */

import { BmError } from '../errors.js'
import { Journal } from './journal.js'
import { StorageFullError, storageError } from './store-errors.js'
import { isUrlRecord, urlKey } from './url-record.js'
import { lockByName } from './web-lock.js'

/** @typedef {import('./stores.js').Entry} Entry */
/** @typedef {import('./stores.js').FileSizes} FileSizes */
/** @typedef {import('./stores.js').Store} Store */
/** @typedef {import('./stores.js').StoredModel} StoredModel */
/** @typedef {import('./stores.js').WritableEntry} WritableEntry */

/**
 * Only dedicated workers have it, so the types of a page do not.
 *
 * @typedef {object} SyncAccessHandle
 * @property {(target: Uint8Array, options: { at: number }) => number} read
 * @property {(bytes: Uint8Array, options: { at: number }) => number} write
 * @property {() => number} getSize
 * @property {(size: number) => void} truncate
 * @property {() => void} flush
 * @property {() => void} close
 */

const FILE = 'model.safetensors'
const JOURNAL = 'journal'

/**
 * @returns {Promise<Store>}
 * @throws {BmError} `storage` where there is none: no secure context, or a private window of some browsers
 */
export async function openOpfsStore() {
  try {
    const root = await navigator.storage.getDirectory()
    const folder = await root.getDirectoryHandle('bimamba', { create: true })
    const models = await folder.getDirectoryHandle('models', { create: true })
    const urls = await folder.getDirectoryHandle('urls', { create: true })
    return new OpfsStore(models, urls)
  } catch (cause) {
    throw storageError('the origin private file system cannot be used', cause)
  }
}

/** @implements {Store} */
class OpfsStore {
  #models
  #urls
  kind = /** @type {const} */ ('opfs')
  writable = 'createSyncAccessHandle' in FileSystemFileHandle.prototype

  /** @param {FileSystemDirectoryHandle} models @param {FileSystemDirectoryHandle} urls */
  constructor(models, urls) {
    this.#models = models
    this.#urls = urls
  }

  /** @param {string} url */
  async identityOf(url) {
    const record = await readRecord(this.#urls, `${await urlKey(url)}.json`)
    return record?.url === url ? record.identity : null
  }

  /** @param {string} url @param {string} identity */
  async remember(url, identity) {
    await attempt('what a URL led to', async () => {
      const handle = await this.#urls.getFileHandle(`${await urlKey(url)}.json`, { create: true })
      const file = await openSync(handle)
      try {
        file.rewrite(new TextEncoder().encode(JSON.stringify({ url, identity })))
      } finally {
        file.close()
      }
    })
  }

  /** @param {string} identity @returns {Promise<Entry | null>} */
  async open(identity) {
    const folder = await this.#models.getDirectoryHandle(identity).catch(() => null)
    const file = folder && (await fileIn(folder, FILE))
    if (!folder || !file) return null
    return new ReadEntry(folder, file, await readJournal(folder, identity))
  }

  /** @param {string} identity @returns {Promise<WritableEntry>} */
  async create(identity) {
    return attempt('the file', async () => {
      const folder = await this.#models.getDirectoryHandle(identity, { create: true })
      const journal = await readJournal(folder, identity)
      const open = async (/** @type {string} */ name) => {
        const handle = await folder.getFileHandle(name, { create: true })
        return await openSync(handle)
      }
      const data = await open(FILE)
      try {
        return new WriteEntry(identity, data, await open(JOURNAL), journal)
      } catch (error) {
        data.close()
        throw error
      }
    })
  }

  /** @param {string} identity @param {import('./stores.js').LockControl} [control] */
  async lock(identity, control) {
    return /** @type {() => Promise<void>} */ (await lockByName(identity, control))
  }

  async list() {
    const records = await this.#records()
    /** @type {StoredModel[]} */
    const models = []
    for await (const [identity, handle] of this.#models.entries()) {
      if (!/^[0-9a-f]{64}$/.test(identity) || handle.kind !== 'directory') continue
      const folder = /** @type {FileSystemDirectoryHandle} */ (handle)
      const file = await fileIn(folder, FILE)
      if (!file) continue
      const journal = await readJournal(folder, identity)
      models.push({
        identity,
        urls: records.filter((record) => record.identity === identity).map(({ url }) => url),
        fileBytes: journal?.fileBytes ?? null,
        storedBytes: file.size,
        complete: journal?.isComplete ?? false,
        usedAt: (await fileIn(folder, JOURNAL))?.lastModified ?? null,
      })
    }
    return models
  }

  /** @param {string} identity */
  async remove(identity) {
    const release = await lockByName(identity, { wait: false })
    if (!release) throw new BmError('busy', `the model ${identity} is being downloaded`)
    try {
      for (const { url } of (await this.#records()).filter((one) => one.identity === identity)) {
        await this.#urls.removeEntry(`${await urlKey(url)}.json`).catch(() => {})
      }
      await this.#models.removeEntry(identity, { recursive: true }).catch(ifMissing)
    } catch (cause) {
      throw storageError(`the model ${identity} cannot be deleted`, cause)
    } finally {
      await release()
    }
  }

  async #records() {
    const records = []
    for await (const name of this.#urls.keys()) {
      const record = await readRecord(this.#urls, name)
      if (record) records.push(record)
    }
    return records
  }
}

/** @implements {Entry} */
class ReadEntry {
  #folder
  #file
  #journal

  /** @param {FileSystemDirectoryHandle} folder @param {File} file @param {Journal | null} journal */
  constructor(folder, file, journal) {
    this.#folder = folder
    this.#file = file
    this.#journal = journal
  }

  get complete() {
    return this.#journal?.isComplete ?? false
  }

  /** @param {number} chunk */
  mayHave(chunk) {
    return this.#journal?.has(chunk) ?? true
  }

  /** @param {number} start @param {Uint8Array} target @returns {Promise<number>} 0 also when the file has changed or is gone */
  async read(start, target) {
    try {
      const piece = await this.#file.slice(start, start + target.length).arrayBuffer()
      target.set(new Uint8Array(piece))
      return piece.byteLength
    } catch {
      return 0
    }
  }

  /** The journal's age says when; a page cannot write it. */
  async touch() {
    const bytes = this.#journal?.bytes
    if (!bytes) return
    try {
      const file = await openSync(await this.#folder.getFileHandle(JOURNAL))
      file.write(bytes.subarray(0, 1), 0)
      file.close()
    } catch {
      // Another tab has it open, or this is a page.
    }
  }

  async close() {}
}

/** @implements {WritableEntry} */
class WriteEntry {
  #identity
  #data
  #journalFile
  #journal

  /** @param {string} identity @param {SyncFile} data @param {SyncFile} journalFile @param {Journal | null} journal */
  constructor(identity, data, journalFile, journal) {
    this.#identity = identity
    this.#data = data
    this.#journalFile = journalFile
    this.#journal = journal
  }

  get complete() {
    return this.#journal?.isComplete ?? false
  }

  /** @param {number} chunk */
  mayHave(chunk) {
    return this.#journal?.has(chunk) ?? true
  }

  /** @param {number} start @param {Uint8Array} target */
  async read(start, target) {
    return this.#data.read(target, start)
  }

  /** @param {Uint8Array} bytes @param {FileSizes} sizes */
  async writeHeader(bytes, sizes) {
    await attempt('the header', async () => {
      const isNew = this.#data.size <= bytes.length
      this.#data.write(bytes, 0)
      if (this.#journal?.fits(sizes)) return
      this.#journal = Journal.begin(this.#identity, sizes, isNew)
      this.#journalFile.rewrite(this.#journal.bytes)
    })
  }

  /** @param {number} chunk @param {number} start @param {Uint8Array} bytes */
  async writeChunk(chunk, start, bytes) {
    await attempt('a chunk', async () => {
      this.#data.write(bytes, start)
      const mark = this.#journal?.mark(chunk)
      if (mark) this.#journalFile.write(mark.bytes, mark.at)
    })
  }

  async finish() {
    await attempt('the file', async () => {
      if (!this.#journal) return
      this.#data.truncate(this.#journal.fileBytes)
      this.#data.flush()
      this.#journalFile.rewrite(this.#journal.markAll())
    })
  }

  async touch() {}

  async close() {
    this.#data.close()
    this.#journalFile.close()
  }
}

/** A file that is open for writing; says so when a write did not happen. */
class SyncFile {
  #handle

  /** @param {SyncAccessHandle} handle */
  constructor(handle) {
    this.#handle = handle
  }

  get size() {
    return this.#handle.getSize()
  }

  /** @param {Uint8Array} target @param {number} at @returns {number} */
  read(target, at) {
    return this.#handle.read(target, { at })
  }

  /**
   * Over the quota some browsers throw, and others return a number that no file has (an error code read as unsigned).
   *
   * @param {Uint8Array} bytes @param {number} at
   */
  write(bytes, at) {
    const written = this.#handle.write(bytes, { at })
    if (written === bytes.length) return
    throw new StorageFullError(
      `the browser's storage is full: ${bytes.length} bytes were not written`,
    )
  }

  /** @param {Uint8Array} bytes all of the file */
  rewrite(bytes) {
    this.#handle.truncate(0)
    this.write(bytes, 0)
    this.flush()
  }

  /** @param {number} size */
  truncate(size) {
    this.#handle.truncate(size)
  }

  flush() {
    this.#handle.flush()
  }

  close() {
    this.#handle.close()
  }
}

/** @param {FileSystemFileHandle} handle @returns {Promise<SyncFile>} */
async function openSync(handle) {
  const { createSyncAccessHandle } =
    /** @type {{ createSyncAccessHandle: () => Promise<SyncAccessHandle> }} */ (
      /** @type {unknown} */ (handle)
    )
  return new SyncFile(await createSyncAccessHandle.call(handle))
}

/** @template T @param {string} what @param {() => Promise<T>} work @returns {Promise<T>} */
async function attempt(what, work) {
  try {
    return await work()
  } catch (cause) {
    throw storageError(`${what} cannot be written to the origin private file system`, cause)
  }
}

/** @param {unknown} error */
function ifMissing(error) {
  if (Object(error).name !== 'NotFoundError') throw error
}

/** @param {FileSystemDirectoryHandle} folder @param {string} name @returns {Promise<File | null>} */
async function fileIn(folder, name) {
  try {
    return await (await folder.getFileHandle(name)).getFile()
  } catch {
    return null
  }
}

/** @param {FileSystemDirectoryHandle} folder @param {string} identity */
async function readJournal(folder, identity) {
  const file = await fileIn(folder, JOURNAL)
  const bytes = await file?.arrayBuffer().catch(() => null)
  return bytes ? Journal.parse(identity, new Uint8Array(bytes)) : null
}

/** @param {FileSystemDirectoryHandle} folder @param {string} name */
async function readRecord(folder, name) {
  try {
    const record = JSON.parse((await (await fileIn(folder, name))?.text()) ?? '')
    return isUrlRecord(record) ? record : null
  } catch {
    return null
  }
}
