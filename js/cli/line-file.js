/**
 * Files of lines: reading them, and adding to one in such a way that a run can be killed and go on.
 *
 * Owns what a torn line is (one without its line feed: the process ended while it was written), that it is dropped, and noticing that another
 * process adds to the same file. Does not know what is in the lines.
 */

import { createReadStream } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { BmError } from '../index.js'

const CHUNK_BYTES = 1 << 16

/**
 * @typedef {object} Line
 * @property {string} text    without its line feed
 * @property {number} number  from 1
 * @property {number} end     bytes of the file up to here, the line feed included
 * @property {boolean} isTorn  the file ends without a line feed
 */

/**
 * @param {Iterable<Uint8Array> | AsyncIterable<Uint8Array>} chunks of the file
 * @param {string} path for messages
 * @returns {AsyncGenerator<Line, void, void>}
 * @throws {BmError} `argument`: a whole line is not UTF-8; `io`
 */
export async function* linesOf(chunks, path) {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  /** @type {Uint8Array[]} of the line that goes on */
  let parts = []
  let number = 0
  let end = 0
  const take = (/** @type {boolean} */ isTorn) => {
    const bytes = Buffer.concat(parts)
    parts = []
    number++
    end += bytes.length + (isTorn ? 0 : 1)
    try {
      return { text: decoder.decode(bytes), number, end, isTorn }
    } catch (cause) {
      // A line that was torn within a character is dropped anyway, or is no JSON.
      if (isTorn) return { text: '\ufffd', number, end, isTorn }
      throw new BmError('argument', `${path} line ${number}: it is not UTF-8 text`, { cause })
    }
  }
  try {
    for await (const chunk of chunks) {
      let start = 0
      for (let at = chunk.indexOf(0x0a); at >= 0; at = chunk.indexOf(0x0a, start)) {
        parts.push(chunk.subarray(start, at))
        yield take(false)
        start = at + 1
      }
      if (start < chunk.length) parts.push(chunk.subarray(start))
    }
  } catch (error) {
    throw asIo(error, `cannot read ${path}`)
  }
  if (parts.length > 0) yield take(true)
}

/** @param {string} path @returns {AsyncGenerator<Line, void, void>} */
export const readLines = (path) => linesOf(createReadStream(path), path)

/** @param {import('node:fs/promises').FileHandle} file stays open @returns {AsyncGenerator<Uint8Array, void, void>} */
async function* chunksOf(file) {
  let position = 0
  for (;;) {
    const { bytesRead, buffer } = await file.read({ buffer: Buffer.alloc(CHUNK_BYTES), position })
    if (bytesRead === 0) return
    position += bytesRead
    yield buffer.subarray(0, bytesRead)
  }
}

/** @param {string} a @param {string} b paths @returns {Promise<boolean>} one file, by whatever names */
export async function isSameFile(a, b) {
  const [one, other] = await Promise.all([a, b].map((path) => stat(path).catch(() => null)))
  if (one && other) return one.dev === other.dev && one.ino === other.ino
  return resolve(a) === resolve(b)
}

/** Characters of a foreign file in a message. */
const MOST_SHOWN = 40

/** A file to which lines are added, each by one write. */
export class LineFile {
  #file
  #path
  #size

  /** Use `LineFile.open`. @param {import('node:fs/promises').FileHandle} file @param {string} path @param {number} size bytes */
  constructor(file, path, size) {
    this.#file = file
    this.#path = path
    this.#size = size
  }

  /**
   * @param {string} path made where it is not there
   * @param {(line: Line) => void} take  called for each whole line that is there; a torn one is cut off
   * @param {string} begins  of the first line: a file that is nothing but a torn line is cut only when it is a beginning of ours
   * @returns {Promise<LineFile>} the caller closes it
   * @throws {BmError} `io`, `argument`; or what `take` throws
   */
  static async open(path, take, begins) {
    const file = await open(path, 'a+').catch((error) => {
      throw asIo(error, `cannot write ${path}`)
    })
    let size = 0
    try {
      for await (const line of linesOf(chunksOf(file), path)) {
        if (line.isTorn) {
          const isOurs = line.text.startsWith(begins) || begins.startsWith(line.text)
          if (size === 0 && !isOurs) {
            const found = JSON.stringify(line.text.slice(0, MOST_SHOWN))
            throw new BmError('argument', `${path} is another file, it begins with ${found}`)
          }
          break
        }
        take(line)
        size = line.end
      }
      await file.truncate(size)
      return new LineFile(file, path, size)
    } catch (error) {
      await file.close()
      throw asIo(error, `cannot read ${path}`)
    }
  }

  /** @param {string} text without a line feed @throws {BmError} `io` */
  async append(text) {
    const bytes = Buffer.from(`${text}\n`)
    try {
      const { size } = await this.#file.stat()
      if (size !== this.#size) {
        throw new BmError('io', `${this.#path}: another process writes to it, too`)
      }
      await this.#file.appendFile(bytes)
      this.#size += bytes.length
    } catch (error) {
      throw asIo(error, `cannot write ${this.#path}`)
    }
  }

  async close() {
    await this.#file.close()
  }
}

/**
 * Writes a file whole or not at all: under a temporary name beside it, which then becomes its own.
 *
 * @param {string} path
 * @param {string} text
 * @throws {BmError} `io`
 */
export async function replaceFile(path, text) {
  const temporary = `${path}.${process.pid}.part`
  try {
    const file = await open(temporary, 'wx')
    await file.writeFile(text).finally(() => file.close())
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw asIo(error, `cannot write ${path}`)
  }
}

/** @param {unknown} error @param {string} what failed @returns {unknown} the same unless it is the system's */
function asIo(error, what) {
  if (!(error instanceof Error && 'syscall' in error)) return error
  return new BmError('io', `${what}: ${error.message}`, { cause: error })
}
