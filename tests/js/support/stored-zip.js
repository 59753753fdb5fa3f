/**
 * Writes zip files the way torch.save does: entries stored, sizes 0 in the local headers, data aligned to
 * 64 bytes by a padding field, true sizes in the central directory.
 *
 * Owns the byte layout, zip64 included. Knows nothing of pickles or tensors. The idea: one generator yields
 * the parts in order; a consumer puts them into memory or into a file, where a hole costs no disk.
 * `lie` lets a hostile test overwrite any central-directory field.
 */

import { open } from 'node:fs/promises'
import { crc32 } from 'node:zlib'

/**
 * @typedef {object} ZipEntry
 * @property {string} name
 * @property {Uint8Array | (() => Uint8Array)} [bytes] the data; a function is called once, when it is written
 * @property {number} [holeBytes] instead of bytes: this many zero bytes, left as a hole in a file (CRC written as 0)
 * @property {number} [size] size of what a `bytes` function returns
 * @property {{ method?: number, flags?: number, crc?: number, size?: number, packedSize?: number, offset?: number, name?: string }} [lie]
 *   replaces fields of the central directory
 */

/**
 * @param {number} length
 * @param {(view: DataView) => void} fill
 */
function record(length, fill) {
  const bytes = new Uint8Array(length)
  fill(new DataView(bytes.buffer))
  return bytes
}

/** @param {Uint8Array[]} parts */
export function concatBytes(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/**
 * @param {Uint8Array} name
 * @param {number} position where the local header starts
 */
function localHeader(name, position) {
  const fixed = 30 + name.length + 4
  const padding = (64 - ((position + fixed) % 64)) % 64
  const head = record(30, (v) => {
    v.setUint32(0, 0x04034b50, true)
    v.setUint16(4, 20, true)
    v.setUint16(6, 0x0808, true)
    v.setUint16(26, name.length, true)
    v.setUint16(28, 4 + padding, true)
  })
  const extra = record(4 + padding, (v) => {
    v.setUint16(0, 0x4246, true)
    v.setUint16(2, padding, true)
  })
  return concatBytes([head, name, extra])
}

/**
 * @param {{ entry: ZipEntry, name: Uint8Array, crc: number, size: number, offset: number }} done
 * @param {boolean} zip64
 */
function centralRecord({ entry, name: realName, crc, size, offset }, zip64) {
  const lie = { ...entry.lie }
  const name = lie.name === undefined ? realName : new TextEncoder().encode(lie.name)
  const sizes = [lie.size ?? size, lie.packedSize ?? lie.size ?? size, lie.offset ?? offset]
  const big = sizes.map((value) => zip64 || value >= 0xffffffff)
  const wide = sizes.filter((_, i) => big[i])
  const extra = record(wide.length ? 4 + wide.length * 8 : 0, (v) => {
    if (wide.length === 0) return
    v.setUint16(0, 1, true)
    v.setUint16(2, wide.length * 8, true)
    for (const [i, value] of wide.entries()) v.setBigUint64(4 + i * 8, BigInt(value), true)
  })
  const narrow = sizes.map((value, i) => (big[i] ? 0xffffffff : value))
  const head = record(46, (v) => {
    v.setUint32(0, 0x02014b50, true)
    v.setUint16(6, 20, true)
    v.setUint16(8, lie.flags ?? 0x0808, true)
    v.setUint16(10, lie.method ?? 0, true)
    v.setUint32(16, lie.crc ?? crc, true)
    v.setUint32(20, Number(narrow[1]), true)
    v.setUint32(24, Number(narrow[0]), true)
    v.setUint16(28, name.length, true)
    v.setUint16(30, extra.length, true)
    v.setUint32(42, Number(narrow[2]), true)
  })
  return concatBytes([head, name, extra])
}

/**
 * @param {{ count: number, start: number, length: number }} directory
 * @param {boolean} zip64
 */
function endRecords({ count, start, length }, zip64) {
  const wide = zip64 || start >= 0xffffffff || count >= 0xffff
  const end64 = record(wide ? 76 : 0, (v) => {
    if (!wide) return
    v.setUint32(0, 0x06064b50, true)
    v.setBigUint64(4, 44n, true)
    v.setUint16(14, 45, true)
    v.setBigUint64(24, BigInt(count), true)
    v.setBigUint64(32, BigInt(count), true)
    v.setBigUint64(40, BigInt(length), true)
    v.setBigUint64(48, BigInt(start), true)
    v.setUint32(56, 0x07064b50, true)
    v.setBigUint64(64, BigInt(start + length), true)
    v.setUint32(72, 1, true)
  })
  const end = record(22, (v) => {
    v.setUint32(0, 0x06054b50, true)
    v.setUint16(8, wide ? 0xffff : count, true)
    v.setUint16(10, wide ? 0xffff : count, true)
    v.setUint32(12, wide ? 0xffffffff : length, true)
    v.setUint32(16, wide ? 0xffffffff : start, true)
  })
  return concatBytes([end64, end])
}

/**
 * @param {ZipEntry[]} entries
 * @param {{ zip64?: boolean }} [options] zip64: use its fields even where the numbers are small
 * @returns {Generator<Uint8Array | number>} bytes to write, or a number of zero bytes
 */
function* zipParts(entries, { zip64 = false } = {}) {
  let position = 0
  const done = []
  for (const entry of entries) {
    const name = new TextEncoder().encode(entry.name)
    const offset = position
    const header = localHeader(name, position)
    yield header
    position += header.length
    const bytes = typeof entry.bytes === 'function' ? entry.bytes() : entry.bytes
    const size = entry.holeBytes ?? bytes?.length ?? 0
    const crc = bytes ? crc32(bytes) : 0
    yield bytes ?? size
    const wide = size >= 0xffffffff
    const descriptor = record(wide ? 24 : 16, (v) => {
      v.setUint32(0, 0x08074b50, true)
      v.setUint32(4, crc, true)
      if (wide) {
        v.setBigUint64(8, BigInt(size), true)
        v.setBigUint64(16, BigInt(size), true)
      } else {
        v.setUint32(8, size, true)
        v.setUint32(12, size, true)
      }
    })
    yield descriptor
    position += size + descriptor.length
    done.push({ entry, name, crc, size, offset })
  }
  const directory = concatBytes(done.map((one) => centralRecord(one, zip64)))
  yield directory
  yield endRecords({ count: done.length, start: position, length: directory.length }, zip64)
}

/**
 * @param {ZipEntry[]} entries
 * @param {{ zip64?: boolean }} [options]
 */
export function storedZip(entries, options) {
  const parts = [...zipParts(entries, options)]
  return concatBytes(parts.map((part) => (typeof part === 'number' ? new Uint8Array(part) : part)))
}

/**
 * @param {string} path
 * @param {ZipEntry[]} entries
 * @param {{ zip64?: boolean }} [options]
 */
export async function writeStoredZip(path, entries, options) {
  const file = await open(path, 'w')
  try {
    let position = 0
    for (const part of zipParts(entries, options)) {
      if (typeof part !== 'number') await file.write(part, 0, part.length, position)
      position += typeof part === 'number' ? part : part.length
    }
  } finally {
    await file.close()
  }
}
