/**
 * Reads zip files whose entries are stored, not compressed: what torch.save writes.
 *
 * Owns the central directory, zip64 and the CRC of entries. Knows nothing of pickles or tensors.
 * The idea: only the central directory is believed (torch leaves sizes 0 in local headers), and every number
 * in it is checked against the file before it is used: entries lie inside the file, apart from each other.
 */

import { BmError } from '../errors.js'
import { checkRange } from './byte-source.js'
import { crc32 } from './crc32.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */

/**
 * @typedef {object} ZipMember
 * @property {string} name
 * @property {number} size
 * @property {number} crc CRC-32 of its bytes
 * @property {number} headerOffset of its local header in the file
 */

const MAX_DIRECTORY_BYTES = 16777216
const END_BYTES = 22
const MAX_COMMENT_BYTES = 65535

/** @param {ByteSource} source @param {string} what */
function bad(source, what) {
  return new BmError('checkpoint', `${source.name}: damaged zip file: ${what}`)
}

/** @param {Uint8Array} bytes */
function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** @param {DataView} view @param {number} at @returns {number} exact, or beyond 2^53 where any use is refused */
function uint64(view, at) {
  return Number(view.getBigUint64(at, true))
}

/**
 * @param {ByteSource} source
 * @returns {Promise<ZipMember[]>} in directory order
 * @throws {BmError} `checkpoint`
 */
export async function readZipDirectory(source) {
  const { count, start, length, end } = await findDirectory(source)
  if (length > MAX_DIRECTORY_BYTES || start + length > end) {
    throw bad(source, `directory of ${length} bytes at ${start}`)
  }
  const bytes = await source.read(start, length)
  /** @type {ZipMember[]} */
  const members = []
  let at = 0
  for (let i = 0; i < count; i++) {
    const { member, next } = readMember(source, bytes, at)
    members.push(member)
    at = next
  }
  if (at !== length)
    throw bad(source, `directory is ${length} bytes long, its ${count} entries ${at}`)
  checkMembers(source, members, start)
  return members
}

/**
 * Finds the end record, and zip64's where the file has one.
 *
 * @param {ByteSource} source
 * @returns {Promise<{ count: number, start: number, length: number, end: number }>} `end`: first byte after the directory
 */
async function findDirectory(source) {
  const tailBytes = Math.min(source.size, END_BYTES + MAX_COMMENT_BYTES)
  const tail = viewOf(await source.read(source.size - tailBytes, tailBytes))
  let at = tailBytes - END_BYTES
  const isEnd = () =>
    tail.getUint32(at, true) === 0x06054b50 &&
    tail.getUint16(at + 20, true) === tailBytes - at - END_BYTES
  while (at >= 0 && !isEnd()) at--
  if (at < 0) throw bad(source, 'no end record (truncated, or no zip file)')
  const endAt = source.size - tailBytes + at
  const narrow = {
    count: tail.getUint16(at + 10, true),
    length: tail.getUint32(at + 12, true),
    start: tail.getUint32(at + 16, true),
    end: endAt,
  }
  const disks = tail.getUint16(at + 4, true) | tail.getUint16(at + 6, true)
  const wide =
    narrow.count === 0xffff || narrow.length === 0xffffffff || narrow.start === 0xffffffff
  if (!wide) {
    if (disks) throw bad(source, 'it is one of several parts')
    return narrow
  }
  return readEnd64(source, endAt)
}

/** @param {ByteSource} source @param {number} endAt where the old end record starts */
async function readEnd64(source, endAt) {
  if (endAt < 20) throw bad(source, 'no zip64 locator')
  const locator = viewOf(await source.read(endAt - 20, 20))
  if (locator.getUint32(0, true) !== 0x07064b50) throw bad(source, 'no zip64 locator')
  const at = uint64(locator, 8)
  if (at + 56 > endAt - 20) throw bad(source, `zip64 end record at ${at}`)
  const end = viewOf(await source.read(at, 56))
  if (end.getUint32(0, true) !== 0x06064b50) throw bad(source, `no zip64 end record at ${at}`)
  return { count: uint64(end, 32), length: uint64(end, 40), start: uint64(end, 48), end: at }
}

/**
 * @param {ByteSource} source
 * @param {Uint8Array} bytes the directory
 * @param {number} at
 * @returns {{ member: ZipMember, next: number }}
 */
function readMember(source, bytes, at) {
  const view = viewOf(bytes)
  if (at + 46 > bytes.length || view.getUint32(at, true) !== 0x02014b50) {
    throw bad(source, `no directory entry at byte ${at} of the directory`)
  }
  const nameEnd = at + 46 + view.getUint16(at + 28, true)
  const extraEnd = nameEnd + view.getUint16(at + 30, true)
  const next = extraEnd + view.getUint16(at + 32, true)
  if (next > bytes.length) throw bad(source, 'a directory entry passes the end')
  const name = readName(source, bytes.subarray(at + 46, nameEnd))
  const flags = view.getUint16(at + 8, true)
  const method = view.getUint16(at + 10, true)
  if (flags & 1) throw bad(source, `${JSON.stringify(name)} is encrypted`)
  if (method !== 0)
    throw bad(source, `${JSON.stringify(name)} is compressed (method ${method}), want stored`)
  const fields = [
    view.getUint32(at + 24, true),
    view.getUint32(at + 20, true),
    view.getUint32(at + 42, true),
  ]
  const [size = 0, packedSize = 0, headerOffset = 0] = widen(
    source,
    fields,
    bytes.subarray(nameEnd, extraEnd),
  )
  if (size !== packedSize)
    throw bad(source, `${JSON.stringify(name)}: sizes ${packedSize} and ${size}`)
  return { member: { name, size, crc: view.getUint32(at + 16, true), headerOffset }, next }
}

/** @param {ByteSource} source @param {Uint8Array} bytes */
function readName(source, bytes) {
  let name = ''
  try {
    name = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new BmError('checkpoint', `${source.name}: damaged zip file: a name is not UTF-8`, {
      cause,
    })
  }
  const parts = name.split('/')
  if (
    name === '' ||
    name.includes('\\') ||
    name.includes('\0') ||
    parts.includes('..') ||
    parts[0] === ''
  ) {
    throw bad(source, `unsafe entry name ${JSON.stringify(name.slice(0, 80))}`)
  }
  return name
}

/**
 * Takes from the zip64 field the values that did not fit.
 *
 * @param {ByteSource} source
 * @param {number[]} fields size, packed size, offset
 * @param {Uint8Array} extra
 */
function widen(source, fields, extra) {
  if (!fields.includes(0xffffffff)) return fields
  const view = viewOf(extra)
  let at = 0
  while (at + 4 <= extra.length && view.getUint16(at, true) !== 1)
    at += 4 + view.getUint16(at + 2, true)
  const end = at + 4 <= extra.length ? at + 4 + view.getUint16(at + 2, true) : -1
  at += 4
  return fields.map((value) => {
    if (value !== 0xffffffff) return value
    if (at + 8 > end || end > extra.length) throw bad(source, 'zip64 field is missing a value')
    at += 8
    return uint64(view, at - 8)
  })
}

/** @param {ByteSource} source @param {ZipMember[]} members @param {number} directoryStart */
function checkMembers(source, members, directoryStart) {
  const names = new Set()
  for (const { name } of members) {
    if (names.has(name)) throw bad(source, `two entries are named ${JSON.stringify(name)}`)
    names.add(name)
  }
  const sorted = [...members].sort((a, b) => a.headerOffset - b.headerOffset)
  for (const [i, { name, size, headerOffset }] of sorted.entries()) {
    const limit = sorted[i + 1]?.headerOffset ?? directoryStart
    if (headerOffset + 30 + size > limit) {
      throw bad(
        source,
        `${JSON.stringify(name)} (${size} bytes at ${headerOffset}) passes ${limit}`,
      )
    }
  }
}

/**
 * The bytes of one entry. When they are read from first to last, their CRC is checked at the last.
 *
 * @param {ByteSource} source
 * @param {ZipMember} member
 * @returns {Promise<ByteSource>}
 */
export async function openZipMember(source, member) {
  const head = viewOf(await source.read(member.headerOffset, 30))
  if (head.getUint32(0, true) !== 0x04034b50) {
    throw bad(
      source,
      `no entry at ${member.headerOffset}, where ${JSON.stringify(member.name)} should be`,
    )
  }
  const start = member.headerOffset + 30 + head.getUint16(26, true) + head.getUint16(28, true)
  const part = { name: `${source.name}: ${member.name}`, size: member.size }
  if (start + part.size > source.size)
    throw bad(source, `${JSON.stringify(member.name)} passes the end`)
  let hashed = 0
  let crc = 0
  /** @type {ByteSource['read']} */
  const read = async (offset, length, into) => {
    checkRange(part, offset, length)
    const bytes = await source.read(start + offset, length, into)
    if (offset <= hashed && offset + length > hashed) {
      crc = crc32(bytes.subarray(hashed - offset), crc)
      hashed = offset + length
      if (hashed === part.size && crc !== member.crc) {
        throw bad(source, `${JSON.stringify(member.name)}: its CRC is not the one stored with it`)
      }
    }
    return bytes
  }
  return { ...part, read }
}
