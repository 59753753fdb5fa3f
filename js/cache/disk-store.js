/**
 * Model files in a folder on the disk.
 *
 *   models/IDENTITY/model.safetensors        all of it was written: an ordinary packed file, for any program
 *   models/IDENTITY/model.safetensors.part   on its way, with the journal beside it
 *   models/IDENTITY/lock                     while somebody writes
 *   urls/SHA256.json                         what a URL led to
 *
 * Owns these names. Knows nothing about what the bytes are. The last step of a download is a rename, so that the final name never
 * stands for half a file.
 */

import { BmError } from '../errors.js'
import { fileSystem, joinPath } from '../platform.js'
import { lockFile } from './disk-lock.js'
import { Journal } from './journal.js'
import { storageError } from './store-errors.js'
import { isUrlRecord, urlKey } from './url-record.js'

/** @typedef {import('node:fs/promises').FileHandle} FileHandle */
/** @typedef {import('./stores.js').Entry} Entry */
/** @typedef {import('./stores.js').FileSizes} FileSizes */
/** @typedef {import('./stores.js').Store} Store */
/** @typedef {import('./stores.js').StoredModel} StoredModel */
/** @typedef {import('./stores.js').WritableEntry} WritableEntry */

const FILE = 'model.safetensors'
const PART = 'model.safetensors.part'
const JOURNAL = 'journal'
const LOCK = 'lock'

function files() {
  return /** @type {NonNullable<ReturnType<typeof fileSystem>>} */ (fileSystem())
}

/**
 * @param {string} folder
 * @returns {Promise<Store>}
 * @throws {BmError} `storage` when the folder cannot be made
 */
export async function openDiskStore(folder) {
  try {
    await files().mkdir(joinPath(folder, 'models'), { recursive: true })
    await files().mkdir(joinPath(folder, 'urls'), { recursive: true })
  } catch (cause) {
    throw storageError(`the cache folder ${folder} cannot be made`, cause)
  }
  return new DiskStore(folder)
}

/** @implements {Store} */
class DiskStore {
  #folder
  kind = /** @type {const} */ ('disk')
  writable = true

  /** @param {string} folder */
  constructor(folder) {
    this.#folder = folder
  }

  /** @param {string} identity */
  #modelFolder(identity) {
    return joinPath(this.#folder, 'models', identity)
  }

  /** @param {string} url */
  async #urlFile(url) {
    return joinPath(this.#folder, 'urls', `${await urlKey(url)}.json`)
  }

  /** @param {string} url */
  async identityOf(url) {
    const record = await readRecord(await this.#urlFile(url))
    return record?.url === url ? record.identity : null
  }

  /** @param {string} url @param {string} identity */
  async remember(url, identity) {
    const path = await this.#urlFile(url)
    await attempt(`${path} cannot be written`, async () => {
      const draft = `${path}.${crypto.randomUUID()}`
      try {
        await files().writeFile(draft, `${JSON.stringify({ url, identity })}\n`)
        await files().rename(draft, path)
      } catch (error) {
        await files().rm(draft, { force: true })
        throw error
      }
    })
  }

  /** @param {string} identity @returns {Promise<Entry | null>} */
  async open(identity) {
    const folder = this.#modelFolder(identity)
    const whole = await files()
      .open(joinPath(folder, FILE), 'r')
      .catch(() => null)
    if (whole) return new DiskEntry({ folder, identity, handle: whole, journal: null, whole: true })
    const part = await files()
      .open(joinPath(folder, PART), 'r')
      .catch(() => null)
    if (!part) return null
    const journal = await readJournal(folder, identity)
    return new DiskEntry({ folder, identity, handle: part, journal, whole: false })
  }

  /** @param {string} identity @returns {Promise<WritableEntry>} */
  async create(identity) {
    const folder = this.#modelFolder(identity)
    return attempt(`${folder} cannot be written`, async () => {
      await files().mkdir(folder, { recursive: true })
      const whole = await files().open(joinPath(folder, FILE), 'r+').catch(ifMissing)
      const path = joinPath(folder, PART)
      const handle =
        whole ??
        (await files().open(path, 'r+').catch(ifMissing)) ??
        (await files().open(path, 'w+'))
      const journal = whole ? null : await readJournal(folder, identity)
      return new DiskEntry({ folder, identity, handle, journal, whole: whole !== null })
    })
  }

  /** @param {string} identity @param {import('./stores.js').LockControl} [control] */
  async lock(identity, { signal, onWait } = {}) {
    const folder = this.#modelFolder(identity)
    try {
      const control = { ...(signal ? { signal } : {}), ...(onWait ? { onWait } : {}) }
      return /** @type {() => Promise<void>} */ (await lockFile(joinPath(folder, LOCK), control))
    } catch (cause) {
      signal?.throwIfAborted()
      throw storageError(`${folder} cannot be locked`, cause)
    }
  }

  async list() {
    const names = await files()
      .readdir(joinPath(this.#folder, 'models'))
      .catch(() => [])
    const records = await this.#records()
    /** @type {StoredModel[]} */
    const models = []
    for (const identity of names.filter((name) => /^[0-9a-f]{64}$/.test(name))) {
      const urls = records.filter((record) => record.identity === identity).map(({ url }) => url)
      const model = await describe(this.#modelFolder(identity), identity)
      if (model) models.push({ ...model, urls })
    }
    return models
  }

  /** @param {string} identity */
  async remove(identity) {
    const folder = this.#modelFolder(identity)
    if (
      !(await files()
        .stat(folder)
        .catch(() => null))
    )
      return
    await attempt(`${folder} cannot be deleted`, async () => {
      const release = await lockFile(joinPath(folder, LOCK), { wait: false })
      if (!release) throw new BmError('busy', `${folder} is being downloaded`)
      try {
        for (const record of await this.#records()) {
          if (record.identity !== identity) continue
          await files().rm(await this.#urlFile(record.url), { force: true })
        }
        await files().rm(folder, { recursive: true, force: true })
      } finally {
        await release()
      }
    })
  }

  /** @returns {Promise<{ url: string, identity: string }[]>} those that are not damaged */
  async #records() {
    const folder = joinPath(this.#folder, 'urls')
    const names = await files()
      .readdir(folder)
      .catch(() => [])
    const records = await Promise.all(
      names
        .filter((name) => name.endsWith('.json'))
        .map((name) => readRecord(joinPath(folder, name))),
    )
    return records.filter((record) => record !== null)
  }
}

/** @implements {WritableEntry} */
class DiskEntry {
  #folder
  #identity
  #handle
  /** @type {Journal | null} null: of a whole file, or lost */
  #journal
  #whole
  /** @type {FileHandle | null} */
  #journalFile = null

  /** @param {{ folder: string, identity: string, handle: FileHandle, journal: Journal | null, whole: boolean }} parts */
  constructor({ folder, identity, handle, journal, whole }) {
    this.#folder = folder
    this.#identity = identity
    this.#handle = handle
    this.#journal = journal
    this.#whole = whole
  }

  /** All chunks may be written and the last step not done. */
  get complete() {
    return this.#whole
  }

  /** @param {number} chunk */
  mayHave(chunk) {
    return this.#journal?.has(chunk) ?? true
  }

  /** @param {number} start @param {Uint8Array} target */
  async read(start, target) {
    for (let filled = 0; ; ) {
      if (filled === target.length) return filled
      const piece = target.subarray(filled)
      const { bytesRead } = await this.#handle.read(piece, 0, piece.length, start + filled)
      if (bytesRead === 0) return filled
      filled += bytesRead
    }
  }

  /** @param {Uint8Array} bytes @param {FileSizes} sizes */
  async writeHeader(bytes, sizes) {
    await attempt(`${this.#folder} cannot be written`, async () => {
      await writeAll(this.#handle, 0, bytes)
      if (this.#whole) return
      const path = joinPath(this.#folder, JOURNAL)
      if (!this.#journal?.fits(sizes)) {
        const isNew = (await this.#handle.stat()).size <= bytes.length
        this.#journal = Journal.begin(this.#identity, sizes, isNew)
        await files().writeFile(path, this.#journal.bytes)
      }
      this.#journalFile = await files().open(path, 'r+')
    })
  }

  /** @param {number} chunk @param {number} start @param {Uint8Array} bytes */
  async writeChunk(chunk, start, bytes) {
    await attempt(`${this.#folder} cannot be written`, async () => {
      await writeAll(this.#handle, start, bytes)
      const mark = this.#journal?.mark(chunk)
      if (mark) await this.#journalFile?.write(mark.bytes, 0, 1, mark.at)
    })
  }

  async finish() {
    if (this.#whole) return
    await attempt(`${this.#folder} cannot be written`, async () => {
      if (this.#journal) await this.#handle.truncate(this.#journal.fileBytes)
      await this.#handle.sync()
      await files()
        .rename(joinPath(this.#folder, PART), joinPath(this.#folder, FILE))
        .catch((error) => this.#checkFinished(error))
      await files().rm(joinPath(this.#folder, JOURNAL), { force: true })
      this.#whole = true
      this.#journal = null
    })
  }

  /** Another writer, who took this one for dead, was done before: nothing is left to do. @param {unknown} error of the rename */
  async #checkFinished(error) {
    const [own, kept] = await Promise.all([
      this.#handle.stat(),
      files().stat(joinPath(this.#folder, FILE)).catch(ifMissing),
    ])
    if (Object(error).code !== 'ENOENT' || own.ino !== kept?.ino) throw error
  }

  async touch() {
    const now = new Date()
    await files()
      .utimes(this.#folder, now, now)
      .catch(() => {})
  }

  async close() {
    await this.#journalFile?.close()
    await this.#handle.close()
  }
}

/** @template T @param {string} what @param {() => Promise<T>} work @returns {Promise<T>} */
async function attempt(what, work) {
  try {
    return await work()
  } catch (cause) {
    throw storageError(what, cause)
  }
}

/** @param {unknown} error */
function ifMissing(error) {
  if (Object(error).code === 'ENOENT') return null
  throw error
}

/** @param {FileHandle} handle @param {number} position @param {Uint8Array} bytes */
async function writeAll(handle, position, bytes) {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

/** @param {string} path */
async function readRecord(path) {
  try {
    const record = JSON.parse(await files().readFile(path, 'utf8'))
    return isUrlRecord(record) ? record : null
  } catch {
    return null
  }
}

/** @param {string} folder @param {string} identity */
async function readJournal(folder, identity) {
  const bytes = await files()
    .readFile(joinPath(folder, JOURNAL))
    .catch(() => null)
  return bytes && Journal.parse(identity, bytes)
}

/** @param {string} folder @param {string} identity @returns {Promise<Omit<StoredModel, 'urls'> | null>} */
async function describe(folder, identity) {
  const used = await files()
    .stat(folder)
    .catch(() => null)
  const whole = await files()
    .stat(joinPath(folder, FILE))
    .catch(() => null)
  const part = await files()
    .stat(joinPath(folder, PART))
    .catch(() => null)
  const file = whole ?? part
  if (!used || !file) return null
  const journal = whole ? null : await readJournal(folder, identity)
  return {
    identity,
    fileBytes: whole ? whole.size : (journal?.fileBytes ?? null),
    // Chunks come in any order, and the gaps between them take no room.
    storedBytes: Math.min(file.size, 512 * (file.blocks ?? Number.POSITIVE_INFINITY)),
    complete: whole !== null,
    usedAt: used.mtimeMs,
  }
}
