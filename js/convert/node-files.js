/**
 * The converter's files in Node: a checkpoint folder to read, and an output that appears whole or not at all.
 *
 * Owns file handles, the temporary name, fsync and rename. Modules of Node are imported inside functions, so that
 * a page can load the rest of js/convert. Knows no format.
 * The idea: the output is written under a temporary name in the same folder, and renamed when everything,
 * the header last, is on the disk; whatever goes wrong before leaves the target as it was.
 */

import { BmError } from '../errors.js'
import { checkRange } from './byte-source.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('./byte-source.js').CheckpointFolder} CheckpointFolder */

/**
 * Where the packed model goes.
 * @typedef {object} Output
 * @property {(position: number, bytes: Uint8Array) => Promise<void>} write all of `bytes` at `position`
 * @property {() => Promise<void>} commit everything is written: make it last and visible
 * @property {() => Promise<void>} abort forget it; does nothing after commit
 */

/** @param {string} what @param {unknown} cause */
function ioError(what, cause) {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return new BmError('io', `${what}: ${reason}`, { cause })
}

/**
 * @param {string} path a folder
 * @returns {Promise<CheckpointFolder>}
 * @throws {BmError} `io`
 */
export async function openFolder(path) {
  const { readdir } = await import('node:fs/promises')
  const { join } = await import('node:path')
  /** @type {string[]} */
  let files
  try {
    files = (await readdir(path, { withFileTypes: true }))
      .filter((entry) => entry.isFile() || entry.isSymbolicLink())
      .map((entry) => entry.name)
      .sort()
  } catch (cause) {
    throw ioError(`checkpoint folder ${path}`, cause)
  }
  /** @type {Map<string, ByteSource & { close: () => Promise<void> }>} */
  const opened = new Map()
  return {
    name: path,
    files,
    open: async (file) => {
      if (!files.includes(file)) {
        throw new BmError('checkpoint', `${path}: has no file ${JSON.stringify(file)}`)
      }
      const source = opened.get(file) ?? (await openFile(join(path, file), file))
      opened.set(file, source)
      return source
    },
    close: async () => {
      for (const source of opened.values()) await source.close()
      opened.clear()
    },
  }
}

/**
 * @param {string} path
 * @param {string} [name] for messages
 * @returns {Promise<ByteSource & { close: () => Promise<void> }>}
 * @throws {BmError} `io`
 */
export async function openFile(path, name = path) {
  const { open } = await import('node:fs/promises')
  try {
    const handle = await open(path, 'r')
    const { size } = await handle.stat()
    /** @type {ByteSource['read']} */
    const read = async (offset, length, into) => {
      checkRange({ name, size }, offset, length)
      const fits = into !== undefined && into.length >= length
      const bytes = fits ? into.subarray(0, length) : new Uint8Array(length)
      let done = 0
      while (done < length) {
        const { bytesRead } = await handle.read(bytes, done, length - done, offset + done)
        if (bytesRead === 0) throw new BmError('io', `${name}: became shorter while it was read`)
        done += bytesRead
      }
      return bytes
    }
    return { name, size, read, close: () => handle.close() }
  } catch (cause) {
    throw ioError(name, cause)
  }
}

/**
 * @param {string} path the file to make or replace
 * @returns {Promise<Output>}
 * @throws {BmError} `io`
 */
export async function createOutput(path) {
  const { open, rename, unlink, stat } = await import('node:fs/promises')
  const { basename, dirname, join } = await import('node:path')
  const folder = dirname(path)
  // Not the number of the process: threads share it, and so do containers.
  const part = join(folder, `.${basename(path)}.${crypto.randomUUID().slice(0, 8)}.part`)
  const existing = await stat(path).catch(() => null)
  if (existing && !existing.isFile()) throw new BmError('io', `${path}: exists and is no file`)
  const handle = await open(part, 'wx').catch((cause) => {
    throw ioError(`cannot write in ${folder}`, cause)
  })
  let open_ = true
  return {
    write: async (position, bytes) => {
      let done = 0
      while (done < bytes.length) {
        const left = bytes.length - done
        const { bytesWritten } = await handle
          .write(bytes, done, left, position + done)
          .catch((cause) => {
            throw ioError(part, cause)
          })
        done += bytesWritten
      }
    },
    commit: async () => {
      try {
        await handle.sync()
        await handle.close()
        await rename(part, path)
        open_ = false
        const directory = await open(folder, 'r')
        await directory.sync().finally(() => directory.close())
      } catch (cause) {
        throw ioError(path, cause)
      }
    },
    abort: async () => {
      if (!open_) return
      open_ = false
      await handle.close().catch(() => {})
      await unlink(part).catch(() => {})
    },
  }
}

/**
 * @param {string} path of a file that is there
 * @param {string} other may not be there
 * @returns {Promise<boolean>} also true for links to one file
 */
export async function isSameFile(path, other) {
  const { realpath } = await import('node:fs/promises')
  try {
    return (await realpath(path)) === (await realpath(other))
  } catch {
    return false // the other one is not there
  }
}

/**
 * Removes a file that may not be there.
 * @param {string} path
 * @throws {BmError} `io`
 */
export async function removeFile(path) {
  const { rm } = await import('node:fs/promises')
  try {
    await rm(path, { force: true })
  } catch (cause) {
    throw ioError(path, cause)
  }
}
