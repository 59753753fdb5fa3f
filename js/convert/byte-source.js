/**
 * Random access to bytes, wherever they lie, and to a checkpoint folder as named files.
 *
 * Owns the two small interfaces that the converter reads through, and their forms for bytes and Blobs, which is
 * what a browser has. The form for Node's files is node-files.js. Knows no file format.
 * The idea: a read either gives exactly the bytes asked for or throws; readers above never see a short read.
 */

import { BmError } from '../errors.js'

/**
 * @typedef {object} ByteSource
 * @property {string} name for messages
 * @property {number} size in bytes
 * @property {(offset: number, length: number, into?: Uint8Array) => Promise<Uint8Array>} read exactly `length` bytes;
 *   rejects with `checkpoint` when they are not all inside the source. They may lie in `into`, if it is given and large
 *   enough; else they are the caller's to keep
 */

/**
 * @typedef {object} CheckpointFolder
 * @property {string} name for messages
 * @property {string[]} files plain names of the files in it, sorted
 * @property {(file: string) => Promise<ByteSource>} open one of `files`
 * @property {() => Promise<void>} close releases every opened file
 */

/**
 * @param {ByteSource | { name: string, size: number }} source
 * @param {number} offset
 * @param {number} length
 * @throws {BmError} `checkpoint` when the range does not lie inside the source
 */
export function checkRange(source, offset, length) {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length)
  if (!whole || offset < 0 || length < 0 || offset + length > source.size) {
    const wanted = `bytes ${offset} .. ${offset + length}`
    throw new BmError('checkpoint', `${source.name}: ${source.size} bytes long, want ${wanted}`)
  }
}

/** @param {string} name @param {Uint8Array} bytes @returns {ByteSource} */
export function bytesSource(name, bytes) {
  const source = { name, size: bytes.length }
  const read = async (/** @type {number} */ offset, /** @type {number} */ length) => {
    checkRange(source, offset, length)
    return bytes.slice(offset, offset + length)
  }
  return { ...source, read }
}

/** @param {string} name @param {Blob} blob @returns {ByteSource} */
export function blobSource(name, blob) {
  const source = { name, size: blob.size }
  const read = async (/** @type {number} */ offset, /** @type {number} */ length) => {
    checkRange(source, offset, length)
    try {
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer())
    } catch (cause) {
      throw new BmError('io', `${name}: cannot be read`, { cause })
    }
  }
  return { ...source, read }
}

/**
 * A part of a source as a source of its own.
 *
 * @param {ByteSource} source
 * @param {number} start
 * @param {number} size
 * @param {string} [name]
 * @returns {ByteSource}
 */
export function sliceSource(source, start, size, name = source.name) {
  checkRange(source, start, size)
  const part = { name, size }
  /** @type {ByteSource['read']} */
  const read = async (offset, length, into) => {
    checkRange(part, offset, length)
    return source.read(start + offset, length, into)
  }
  return { ...part, read }
}

/**
 * A folder that a page was given, for example by `<input type="file" webkitdirectory>`.
 *
 * @param {Iterable<File>} files only their last name counts
 * @param {string} [name]
 * @returns {CheckpointFolder}
 */
export function blobFolder(files, name = 'checkpoint') {
  const byName = new Map(Array.from(files, (file) => [file.name, file]))
  return {
    name,
    files: [...byName.keys()].sort(),
    open: async (file) => {
      const blob = byName.get(file)
      if (!blob) throw new BmError('checkpoint', `${name}: has no file ${JSON.stringify(file)}`)
      return blobSource(file, blob)
    },
    close: async () => {},
  }
}

/**
 * Reads a small text file whole.
 *
 * @param {CheckpointFolder} folder
 * @param {string} file
 * @param {number} maxBytes
 * @returns {Promise<Uint8Array | null>} null when the folder has no such file
 */
export async function readSmallFile(folder, file, maxBytes) {
  if (!folder.files.includes(file)) return null
  const source = await folder.open(file)
  if (source.size > maxBytes) {
    throw new BmError('checkpoint', `${file}: ${source.size} bytes, want at most ${maxBytes}`)
  }
  return source.read(0, source.size)
}

/**
 * JSON as Python writes it: Infinity and NaN may stand for numbers.
 *
 * @param {string} file for messages
 * @param {Uint8Array} bytes
 * @returns {Record<string, unknown>}
 */
export function parsePythonJson(file, bytes) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    const strict = text.replace(/"(?:[^"\\]|\\.)*"|\bInfinity\b|\bNaN\b/g, (token) =>
      token === 'Infinity' ? '1e999' : token === 'NaN' ? 'null' : token,
    )
    const value = /** @type {unknown} */ (JSON.parse(strict))
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new TypeError('not an object')
    }
    return /** @type {Record<string, unknown>} */ (value)
  } catch (cause) {
    throw new BmError('checkpoint', `${file}: not a JSON object in UTF-8`, { cause })
  }
}
