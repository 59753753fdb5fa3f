/**
 * Saved sessions on this device, by name: a folder in Node, the origin private file system in browsers.
 *
 * Owns the places and the writing: a session that is there is whole, whatever broke off. Knows nothing about what is in the bytes.
 */

import { storageError } from './cache/store-errors.js'
import { BmError } from './errors.js'
import { askToPersist, dataFolder, fileSystem, joinPath, resolvePath } from './platform.js'
import { Session } from './session.js'
import { checkNames, wellFormed } from './settings.js'

/** @typedef {import('./model.js').BiMamba} BiMamba */
/** @typedef {import('./session-settings.js').CreateSessionOptions} CreateSessionOptions */

/**
 * A session that is kept.
 *
 * @typedef {object} KeptSession
 * @property {string} name
 * @property {number} bytes
 * @property {Date} savedAt
 */

/**
 * A folder of files.
 *
 * @typedef {object} Files
 * @property {(file: string, bytes: Uint8Array<ArrayBuffer>) => Promise<void>} write  all or nothing
 * @property {(file: string) => Promise<Uint8Array | null>} read  null: there is none
 * @property {() => Promise<{ file: string, bytes: number, savedAt: Date }[]>} list
 * @property {(file: string) => Promise<boolean>} delete  whether it was there
 */

const EXTENSION = '.session.safetensors'
/** File systems allow 255 bytes for a name; a temporary one is longer. */
const MOST_NAME = 200

/** The sessions that are kept on this device. */
export class SessionStore {
  #folder
  /** @type {Promise<Files> | null} */
  #files = null

  /**
   * @param {{ folder?: string }} [options] folder: in Node, where the files are; default: `bimamba/sessions` where this user's programs keep their data
   * @throws {BmError} `argument`
   */
  constructor(options = {}) {
    checkNames(options, ['folder'], 'SessionStore')
    const { folder } = options
    if (folder !== undefined && typeof folder !== 'string') {
      throw new BmError('argument', `folder is of type ${typeof folder}, want a path`)
    }
    this.#folder = folder
  }

  /**
   * Keeps a session under a name. One that has the name already is replaced when all of this one is written.
   *
   * @param {string} name 1 to some 200 characters
   * @param {Session | Uint8Array<ArrayBuffer>} session or what `session.save` gave
   * @param {{ state?: 'own' | 'f32' | 'i16' | 'i8' }} [options] as for `session.save`
   * @returns {Promise<void>}
   * @throws {BmError} `argument`, `storage`; as `session.save`
   */
  async save(name, session, options = {}) {
    const file = fileOf(name)
    const bytes = session instanceof Session ? await session.save(options) : session
    if (!(bytes instanceof Uint8Array)) {
      throw new BmError('argument', 'save: want a session, or the bytes of one')
    }
    await (await this.#open()).write(file, bytes)
    askToPersist()
  }

  /**
   * @param {string} name
   * @param {BiMamba} model that the session is of
   * @param {Omit<CreateSessionOptions, 'seed'>} [options]
   * @returns {Promise<Session>}
   * @throws {BmError} `storage`: there is none of this name; as `model.loadSession`
   */
  async load(name, model, options = {}) {
    const bytes = await (await this.#open()).read(fileOf(name))
    if (bytes) return model.loadSession(bytes, options)
    throw new BmError('storage', `no session is kept as ${JSON.stringify(name)}`)
  }

  /** @returns {Promise<KeptSession[]>} by name */
  async list() {
    const found = await (await this.#open()).list()
    return found
      .filter(({ file }) => file.endsWith(EXTENSION))
      .map(({ file, bytes, savedAt }) => ({ name: nameOf(file), bytes, savedAt }))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  /** @param {string} name @returns {Promise<boolean>} whether there was one */
  async delete(name) {
    return (await this.#open()).delete(fileOf(name))
  }

  /** @returns {Promise<Files>} */
  #open() {
    this.#files ??= openFiles(this.#folder)
    // A folder that cannot be opened now perhaps can later.
    this.#files.catch(() => {
      this.#files = null
    })
    return this.#files
  }
}

/** Names may hold what file names may not. @param {string} name */
function fileOf(name) {
  if (typeof name !== 'string' || name === '') {
    throw new BmError('argument', `name is ${JSON.stringify(name)}, want a text`)
  }
  const safe = encodeURIComponent(wellFormed(name)).replace(
    /[.*'()!~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
  if (safe.length <= MOST_NAME) return safe + EXTENSION
  throw new BmError(
    'argument',
    `name: ${safe.length} bytes as a file's name, want at most ${MOST_NAME}`,
  )
}

/** @param {string} file */
function nameOf(file) {
  const safe = file.slice(0, -EXTENSION.length)
  try {
    return decodeURIComponent(safe)
  } catch {
    return safe // put there by hand
  }
}

/** @param {string | undefined} folder @returns {Promise<Files>} */
async function openFiles(folder) {
  const fs = fileSystem()
  if (fs)
    return new DiskFiles(
      fs,
      folder === undefined ? joinPath(dataFolder(), 'sessions') : resolvePath(folder),
    )
  if (folder !== undefined) throw new BmError('argument', 'folder: only Node has folders')
  try {
    const root = await navigator.storage.getDirectory()
    const all = await root.getDirectoryHandle('bimamba', { create: true })
    return new OpfsFiles(await all.getDirectoryHandle('sessions', { create: true }))
  } catch (cause) {
    throw storageError('the origin private file system cannot be used', cause)
  }
}

/** @implements {Files} */
class DiskFiles {
  #fs
  #folder

  /** @param {import('./platform.js').FileSystem} fs @param {string} folder */
  constructor(fs, folder) {
    this.#fs = fs
    this.#folder = folder
  }

  /** @param {string} file @param {Uint8Array} bytes */
  async write(file, bytes) {
    await this.#trying(`${file} cannot be written`, async () => {
      await this.#fs.mkdir(this.#folder, { recursive: true })
      const temporary = joinPath(this.#folder, `${file}.${crypto.randomUUID().slice(0, 8)}.part`)
      try {
        await this.#fs.writeFile(temporary, bytes, { flush: true })
        await this.#fs.rename(temporary, joinPath(this.#folder, file))
      } catch (error) {
        await this.#fs.rm(temporary, { force: true })
        throw error
      }
    })
  }

  /** @param {string} file */
  read(file) {
    return this.#trying(`${file} cannot be read`, async () => {
      try {
        return await this.#fs.readFile(joinPath(this.#folder, file))
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return null
        throw error
      }
    })
  }

  list() {
    return this.#trying('the sessions cannot be listed', async () => {
      try {
        const names = await this.#fs.readdir(this.#folder)
        const stats = names.map((file) => this.#about(file))
        return (await Promise.all(stats)).filter((about) => about !== null)
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return []
        throw error
      }
    })
  }

  /** @param {string} file @returns {Promise<{ file: string, bytes: number, savedAt: Date } | null>} null: it has gone by now */
  async #about(file) {
    try {
      const { size, mtime } = await this.#fs.stat(joinPath(this.#folder, file))
      return { file, bytes: size, savedAt: mtime }
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw error
    }
  }

  /** @param {string} file */
  delete(file) {
    return this.#trying(`${file} cannot be deleted`, async () => {
      try {
        await this.#fs.rm(joinPath(this.#folder, file))
        return true
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return false
        throw error
      }
    })
  }

  /** @template T @param {string} what @param {() => Promise<T>} work @returns {Promise<T>} */
  async #trying(what, work) {
    try {
      return await work()
    } catch (cause) {
      throw storageError(`${this.#folder}: ${what}`, cause)
    }
  }
}

/** @implements {Files} */
class OpfsFiles {
  #folder

  /** @param {FileSystemDirectoryHandle} folder */
  constructor(folder) {
    this.#folder = folder
  }

  /** The browser swaps the file in when it is closed. @param {string} file @param {Uint8Array<ArrayBuffer>} bytes */
  async write(file, bytes) {
    try {
      const handle = await this.#folder.getFileHandle(file, { create: true })
      if (!('createWritable' in handle)) {
        throw new BmError(
          'unsupported',
          'this browser writes no files on a page: keep session.save() elsewhere',
        )
      }
      const stream = await handle.createWritable()
      await stream.write(bytes)
      await stream.close()
    } catch (cause) {
      if (cause instanceof BmError) throw cause
      await this.#dropEmpty(file)
      throw storageError(`${file} cannot be written`, cause)
    }
  }

  /** A file that was made and never written. @param {string} file */
  async #dropEmpty(file) {
    const bytes = await this.read(file).catch(() => null)
    if (bytes?.length === 0) await this.delete(file).catch(() => false)
  }

  /** @param {string} file */
  async read(file) {
    try {
      const handle = await this.#folder.getFileHandle(file)
      return new Uint8Array(await (await handle.getFile()).arrayBuffer())
    } catch (cause) {
      if (codeOf(cause) === 'NotFoundError') return null
      throw storageError(`${file} cannot be read`, cause)
    }
  }

  async list() {
    const found = []
    for await (const handle of this.#folder.values()) {
      if (handle.kind !== 'file') continue
      const { size, lastModified } = await handle.getFile()
      found.push({ file: handle.name, bytes: size, savedAt: new Date(lastModified) })
    }
    return found
  }

  /** @param {string} file */
  async delete(file) {
    try {
      await this.#folder.removeEntry(file)
      return true
    } catch (cause) {
      if (codeOf(cause) === 'NotFoundError') return false
      throw storageError(`${file} cannot be deleted`, cause)
    }
  }
}

/** @param {unknown} error @returns {string} Node's code, or a browser's name */
function codeOf(error) {
  const { code, name } = /** @type {{ code?: unknown, name?: unknown }} */ (Object(error))
  return typeof code === 'string' ? code : String(name)
}
