/**
 * A small reader of GGUF files for tests, written from the format's description and not from our writer.
 *
 * Owns the parsing and what the blocks of a few types mean as numbers. Complains about everything that is not as it must be.
 */

import assert from 'node:assert/strict'

/** @typedef {{ shape: number[], type: number, values: Float32Array }} ReadTensor shape: the fastest dimension first */

/** Numbers and bytes of a block, by the number of the type. @type {Record<number, [number, number]>} */
const BLOCKS = { 0: [1, 4], 2: [32, 18], 8: [32, 34], 41: [128, 18] }

/**
 * @param {Uint8Array} file
 * @returns {{ metadata: Map<string, unknown>, tensors: Map<string, ReadTensor> }} in file order
 */
export function readGguf(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  let at = 0
  const take = (/** @type {number} */ count) => {
    at += count
    return at - count
  }
  const u32 = () => view.getUint32(take(4), true)
  const u64 = () => Number(view.getBigUint64(take(8), true))
  const text = () => {
    const length = u64()
    const start = take(length)
    return new TextDecoder('utf-8', { fatal: true }).decode(file.subarray(start, at))
  }
  /** @param {number} type @returns {unknown} */
  const value = (type) => {
    if (type === 4) return u32()
    if (type === 5) return view.getInt32(take(4), true)
    if (type === 6) return view.getFloat32(take(4), true)
    if (type === 7) return file[at++] === 1
    if (type === 8) return text()
    assert.equal(type, 9, 'type of a value')
    const [element, count] = [u32(), u64()]
    return Array.from({ length: count }, () => value(element))
  }
  assert.equal(String.fromCharCode(...file.subarray(0, 4)), 'GGUF')
  at = 4
  assert.equal(u32(), 3, 'version')
  const [tensorCount, entryCount] = [u64(), u64()]
  const metadata = new Map(
    Array.from({ length: entryCount }, () => /** @type {const} */ ([text(), value(u32())])),
  )
  const infos = Array.from({ length: tensorCount }, () => ({
    name: text(),
    shape: Array.from({ length: u32() }, u64),
    type: u32(),
    offset: u64(),
  }))
  const dataStart = Math.ceil(at / 32) * 32
  let end = dataStart
  const tensors = new Map(
    infos.map(({ name, shape, type, offset }) => {
      const [block, size] = BLOCKS[type] ?? [1, 0]
      assert.equal(Number(shape[0]) % block, 0, `${name}: whole blocks`)
      assert.equal(dataStart + offset, end, `${name}: begins where the one before ends`)
      const bytes = (shape.reduce((a, b) => a * b) / block) * size
      end += Math.ceil(bytes / 32) * 32
      const data = file.slice(dataStart + offset, dataStart + offset + bytes)
      return [name, { shape, type, values: decode(data, type) }]
    }),
  )
  assert.equal(file.length, end, 'the file ends with its last tensor')
  assert.equal(metadata.size, entryCount, 'no key twice')
  assert.equal(tensors.size, tensorCount, 'no tensor twice')
  return { metadata, tensors }
}

/** @param {Uint8Array} data @param {number} type */
function decode(data, type) {
  if (type === 0) return new Float32Array(data.buffer)
  const [block, size] = BLOCKS[type] ?? [0, 0]
  const out = new Float32Array((data.length / size) * block)
  for (let b = 0; b * size < data.length; b++) {
    const [low = 0, high = 0] = data.subarray(b * size)
    const d = half(low | (high << 8))
    const codes = data.subarray(b * size + 2, (b + 1) * size)
    for (let i = 0; i < block; i++) out[b * block + i] = d * code(codes, i, type)
  }
  return out
}

/** @param {Uint8Array} codes of a block @param {number} i @param {number} type */
function code(codes, i, type) {
  const byte = (/** @type {number} */ at) => Number(codes[at])
  if (type === 8) return (byte(i) << 24) >> 24
  if (type === 41) return (byte(i >> 3) >> (i & 7)) & 1 ? 1 : -1
  return (i < 16 ? byte(i) & 15 : byte(i - 16) >> 4) - 8
}

/** @param {number} bits of a finite binary16 */
function half(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023]
  const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24
  return bits & 0x8000 ? -size : size
}
