/**
 * The container of GGUF, version 3: typed metadata, then a list of tensors, then their bytes.
 *
 * Owns the encoding of the header and the place of every tensor; knows nothing of models or of what lies inside a block. The
 * format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The idea: sizes follow from types and shapes
 * alone, so the header is written first and tensors are streamed behind it.
 */

import { BmError } from '../errors.js'

/**
 * Types of tensors: their number in ggml.h, numbers in a block, bytes of a block. Rows are whole blocks.
 *
 * @satisfies {Record<string, { id: number, block: number, bytes: number }>}
 */
export const GGML_TYPES = {
  F32: { id: 0, block: 1, bytes: 4 },
  Q4_0: { id: 2, block: 32, bytes: 18 },
  Q8_0: { id: 8, block: 32, bytes: 34 },
  Q4_K: { id: 12, block: 256, bytes: 144 },
  TQ2_0: { id: 35, block: 256, bytes: 66 },
  Q1_0: { id: 41, block: 128, bytes: 18 },
}

/** @typedef {keyof typeof GGML_TYPES} GgmlType */

/** Types of metadata: their number, and that of their elements. */
const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8 }
const ARRAY = 9
const VERSION = 3
const ALIGNMENT = 32

/** @typedef {keyof typeof VALUE_TYPES} ScalarType */
/** @typedef {number | boolean | string} Scalar */

/**
 * One metadata entry.
 * @typedef {{ key: string, type: ScalarType, value: Scalar } | { key: string, type: ScalarType, list: Scalar[] }} GgufEntry
 */

/**
 * @typedef {object} GgufTensor
 * @property {string} name
 * @property {GgmlType} type
 * @property {number[]} shape as GGML counts: the dimension that varies fastest first
 */

/** @param {Pick<GgufTensor, 'type' | 'shape'>} tensor @returns {number} bytes */
export function ggufTensorBytes({ type, shape }) {
  const { block, bytes } = GGML_TYPES[type]
  return (shape.reduce((product, n) => product * n, 1) / block) * bytes
}

/**
 * @param {GgufEntry[]} metadata
 * @param {GgufTensor[]} tensors
 * @returns {{ header: Uint8Array, positions: number[], fileBytes: number }} `positions` of the tensors in the file
 * @throws {BmError} `internal` for a row that is not whole blocks
 */
export function encodeGgufHeader(metadata, tensors) {
  const bytes = new ByteList()
  bytes.push(new TextEncoder().encode('GGUF'))
  bytes.u32(VERSION)
  bytes.u64(tensors.length)
  bytes.u64(metadata.length)
  for (const entry of metadata) writeEntry(bytes, entry)
  let offset = 0
  const offsets = tensors.map((tensor) => {
    checkRow(tensor)
    const start = offset
    bytes.string(tensor.name)
    bytes.u32(tensor.shape.length)
    for (const n of tensor.shape) bytes.u64(n)
    bytes.u32(GGML_TYPES[tensor.type].id)
    bytes.u64(start)
    offset = alignUp(start + ggufTensorBytes(tensor))
    return start
  })
  const dataStart = alignUp(bytes.length)
  const header = bytes.join(dataStart)
  const positions = offsets.map((start) => dataStart + start)
  return { header, positions, fileBytes: dataStart + offset }
}

/** @param {GgufTensor} tensor */
function checkRow({ name, type, shape }) {
  const { block } = GGML_TYPES[type]
  if (Number(shape[0]) % block === 0) return
  throw new BmError('internal', `${name}: rows of ${shape[0]}, want a multiple of ${block}`)
}

/** @param {ByteList} bytes @param {GgufEntry} entry */
function writeEntry(bytes, entry) {
  bytes.string(entry.key)
  if ('value' in entry) {
    bytes.u32(VALUE_TYPES[entry.type])
    bytes.scalar(entry.type, entry.value)
    return
  }
  bytes.u32(ARRAY)
  bytes.u32(VALUE_TYPES[entry.type])
  bytes.u64(entry.list.length)
  for (const value of entry.list) bytes.scalar(entry.type, value)
}

/** @param {number} size */
function alignUp(size) {
  return Math.ceil(size / ALIGNMENT) * ALIGNMENT
}

/** Little-endian bytes that grow. */
class ByteList {
  #bytes = new Uint8Array(65536)
  length = 0

  /** @param {Uint8Array} bytes */
  push(bytes) {
    this.#reserve(bytes.length)
    this.#bytes.set(bytes, this.length)
    this.length += bytes.length
  }

  /** @param {number} count @returns {DataView} of the next bytes, which are taken */
  #take(count) {
    this.#reserve(count)
    const view = new DataView(this.#bytes.buffer, this.length, count)
    this.length += count
    return view
  }

  /** @param {number} count */
  #reserve(count) {
    if (this.length + count <= this.#bytes.length) return
    const larger = new Uint8Array(2 * (this.length + count))
    larger.set(this.#bytes.subarray(0, this.length))
    this.#bytes = larger
  }

  /** @param {number} value */
  u32(value) {
    this.#take(4).setUint32(0, value, true)
  }

  /** @param {number} value */
  u64(value) {
    this.#take(8).setBigUint64(0, BigInt(value), true)
  }

  /** @param {string} text */
  string(text) {
    const bytes = new TextEncoder().encode(text)
    this.u64(bytes.length)
    this.push(bytes)
  }

  /** @param {ScalarType} type @param {Scalar} value */
  scalar(type, value) {
    if (type === 'string') this.string(String(value))
    else if (type === 'bool') this.#take(1).setUint8(0, Number(value))
    else if (type === 'f32') this.#take(4).setFloat32(0, Number(value), true)
    else if (type === 'i32') this.#take(4).setInt32(0, Number(value), true)
    else this.u32(Number(value))
  }

  /** @param {number} size @returns {Uint8Array} the bytes, and zeros up to `size` */
  join(size) {
    const all = new Uint8Array(size)
    all.set(this.#bytes.subarray(0, this.length))
    return all
  }
}

/**
 * A tensor with its bytes, in pieces that end to end have the size that type and shape imply.
 * @typedef {GgufTensor & { pieces: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array> }} GgufSource
 */

/**
 * Writes a whole file.
 *
 * @param {import('./node-files.js').Output} output written, neither committed nor aborted
 * @param {GgufEntry[]} metadata
 * @param {GgufSource[]} tensors
 * @param {{ onBytes?: (bytes: number) => void, signal?: AbortSignal | undefined }} [options] `onBytes`: after each piece, its length
 * @returns {Promise<number>} bytes of the file
 * @throws {BmError} `internal` when a tensor's pieces have another size; rejects with the signal's reason
 */
export async function writeGguf(output, metadata, tensors, { onBytes, signal } = {}) {
  const { header, positions, fileBytes } = encodeGgufHeader(metadata, tensors)
  await output.write(0, header)
  for (const [i, tensor] of tensors.entries()) {
    const start = Number(positions[i])
    let position = start
    for await (const piece of tensor.pieces()) {
      signal?.throwIfAborted()
      await output.write(position, piece)
      position += piece.length
      onBytes?.(piece.length)
    }
    const [found, wanted] = [position - start, ggufTensorBytes(tensor)]
    if (found !== wanted) {
      throw new BmError('internal', `${tensor.name}: ${found} bytes, want ${wanted}`)
    }
    const next = positions[i + 1] ?? fileBytes
    await output.write(position, new Uint8Array(next - position))
  }
  return fileBytes
}
