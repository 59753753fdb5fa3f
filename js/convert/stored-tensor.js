/**
 * A tensor of a checkpoint: where its numbers lie, and how to read some of its rows as float32.
 *
 * Owns the dtypes F32, F16 and BF16, strides, and slices that bound memory. Knows nothing of containers (it
 * reads a ByteSource) and nothing of what tensors mean.
 * The idea: a tensor is rows, its first dimension; whoever streams asks for as many as fit a few MiB.
 */

import { BmError } from '../errors.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */

const DTYPE_BYTES = /** @type {Record<string, number>} */ ({ F32: 4, F16: 2, BF16: 2 })

/** Rows are read in slices of about this many bytes. */
export const SLICE_BYTES = 2097152

/** Largest row stride that is read column by column; beyond it, reads would mostly be of other elements. */
const MAX_SCATTER = 8

/** @param {number[]} shape @returns {number[]} row-major, in elements */
export function rowMajor(shape) {
  const strides = new Array(shape.length).fill(1)
  for (let i = shape.length - 2; i >= 0; i--) strides[i] = strides[i + 1] * Number(shape[i + 1])
  return strides
}

/** @param {number[]} shape */
export function countOf(shape) {
  return shape.reduce((product, n) => product * n, 1)
}

export class StoredTensor {
  /**
   * @param {object} fields
   * @param {string} fields.name
   * @param {string} fields.file for messages
   * @param {string} fields.dtype
   * @param {number[]} fields.shape
   * @param {number[]} fields.strides in elements
   * @param {number} fields.offset first element in the storage
   * @param {string} fields.storageKey two tensors with the same key share a storage
   * @param {() => Promise<ByteSource>} fields.openStorage called once at the first read
   */
  constructor({ name, file, dtype, shape, strides, offset, storageKey, openStorage }) {
    this.name = name
    this.file = file
    this.dtype = dtype
    this.shape = shape
    this.strides = strides
    this.offset = offset
    this.storageKey = storageKey
    this.#open = openStorage
  }

  #open
  /** @type {ByteSource | null} */
  #storage = null
  /** Reused by every read of `slices`, so that gigabytes of weights leave no garbage. @type {Uint8Array | undefined} */
  #buffer

  get rows() {
    return this.shape[0] ?? 1
  }

  /** Elements in a row. */
  get columns() {
    return countOf(this.shape.slice(1))
  }

  get sizeBytes() {
    return countOf(this.shape) * (DTYPE_BYTES[this.dtype] ?? 0)
  }

  get hasFloats() {
    return Object.hasOwn(DTYPE_BYTES, this.dtype)
  }

  /** Whether both are the same view of the same bytes. @param {StoredTensor} other */
  sameAs(other) {
    const view = (/** @type {StoredTensor} */ t) =>
      JSON.stringify([t.storageKey, t.dtype, t.offset, t.shape, t.strides])
    return view(this) === view(other)
  }

  /**
   * The rows in order, a few MiB at a time. One loop at a time for each tensor.
   *
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<{ row: number, count: number, values: Float32Array }>} `values` [count, columns], exact,
   *   valid until the next slice
   */
  async *slices(signal) {
    const wanted = Math.max(1, Math.floor(SLICE_BYTES / Math.max(1, this.columns * 4)))
    const width = DTYPE_BYTES[this.dtype] ?? 0
    this.#buffer = new Uint8Array(Math.min(wanted, this.rows) * this.columns * width)
    try {
      for (let row = 0; row < this.rows; row += wanted) {
        signal?.throwIfAborted()
        const count = Math.min(wanted, this.rows - row)
        yield { row, count, values: await this.readRows(row, count) }
      }
    } finally {
      this.#buffer = undefined
    }
  }

  /**
   * @param {number} row
   * @param {number} count
   * @returns {Promise<Float32Array>} [count, columns]; inside a loop over `slices`, valid until the next one
   */
  async readRows(row, count) {
    this.#storage ??= await this.#open()
    const shape = [count, ...this.shape.slice(1)]
    const start = this.offset + row * (this.strides[0] ?? 1)
    const needed = countOf(shape)
    if (needed === 0) return new Float32Array(0)
    const span = 1 + shape.reduce((sum, n, i) => sum + (n - 1) * (this.strides[i] ?? 1), 0)
    const contiguous = rowMajor(shape).every((s, i) => s === this.strides[i] || shape[i] === 1)
    if (contiguous) return this.#read(start, needed, this.#buffer)
    if (span <= Math.max(2 * needed, SLICE_BYTES / 4))
      return gather(await this.#read(start, span), shape, this.strides)
    return this.#readScattered(start, shape)
  }

  /** @param {number} start @param {number} count both in elements @param {Uint8Array} [into] */
  async #read(start, count, into) {
    const width = DTYPE_BYTES[this.dtype]
    if (!width || !this.#storage)
      throw new BmError('internal', `${this.name}: ${this.dtype} is not readable`)
    return decodeFloats(await this.#storage.read(start * width, count * width, into), this.dtype)
  }

  /** Rows far apart in the file, as in a transposed view: one read for each column. @param {number} start @param {number[]} shape */
  async #readScattered(start, shape) {
    const [down = 1, across = 1] = this.strides
    if (shape.length !== 2 || down > MAX_SCATTER) {
      throw new BmError(
        'checkpoint',
        `${this.file}: ${this.name}: strides ${this.strides} are not supported: save a contiguous copy`,
      )
    }
    const [rows = 0, columns = 0] = shape
    const out = new Float32Array(rows * columns)
    for (let column = 0; column < columns; column++) {
      const run = await this.#read(start + column * across, (rows - 1) * down + 1)
      for (let row = 0; row < rows; row++) out[row * columns + column] = Number(run[row * down])
    }
    return out
  }
}

/**
 * Elements of a strided view, in row-major order.
 *
 * @param {Float32Array} span the view's first to last element
 * @param {number[]} shape
 * @param {number[]} strides
 */
function gather(span, shape, strides) {
  const out = new Float32Array(countOf(shape))
  const index = new Array(shape.length).fill(0)
  let from = 0
  for (let to = 0; to < out.length; to++) {
    out[to] = Number(span[from])
    for (let i = shape.length - 1; i >= 0; i--) {
      from += strides[i] ?? 1
      if (++index[i] < Number(shape[i])) break
      from -= index[i] * (strides[i] ?? 1)
      index[i] = 0
    }
  }
  return out
}

/** @type {Float32Array | null} the value of every half-precision code, made at the first use */
let halfValues = null

function makeHalfValues() {
  return Float32Array.from({ length: 65536 }, (_, bits) => {
    const sign = bits & 0x8000 ? -1 : 1
    const exponent = (bits >> 10) & 31
    const fraction = bits & 1023
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
    return exponent === 0
      ? sign * fraction * 2 ** -24
      : sign * (1024 + fraction) * 2 ** (exponent - 25)
  })
}

/**
 * @param {Uint8Array} bytes little-endian
 * @param {string} dtype F32, F16 or BF16
 * @returns {Float32Array} exact values; may share memory with `bytes`
 */
export function decodeFloats(bytes, dtype) {
  const width = Number(DTYPE_BYTES[dtype])
  const own = bytes.byteOffset % width ? bytes.slice() : bytes
  const count = own.byteLength / width
  if (dtype === 'F32') return new Float32Array(own.buffer, own.byteOffset, count)
  const codes = new Uint16Array(own.buffer, own.byteOffset, count)
  const out = new Float32Array(count)
  if (dtype === 'BF16') {
    const words = new Uint32Array(out.buffer)
    for (let i = 0; i < count; i++) words[i] = Number(codes[i]) << 16
    return out
  }
  halfValues ??= makeHalfValues()
  for (let i = 0; i < count; i++) out[i] = Number(halfValues[Number(codes[i])])
  return out
}
