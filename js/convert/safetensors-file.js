/**
 * Reads a `.safetensors` checkpoint: a JSON header that says where tensors are.
 *
 * Owns that format's rules as far as a reader of weights needs them. Knows no model. The packed model is also a
 * safetensors file, but with stricter rules and its own reader (js/format.js); given one, this says so.
 */

import { BmError } from '../errors.js'
import { describeWrongFile } from '../wrong-file.js'
import { sliceSource } from './byte-source.js'
import { countOf, rowMajor, StoredTensor } from './stored-tensor.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */

const MAX_HEADER_BYTES = 67108864
const DTYPE_BYTES = /** @type {Record<string, number>} */ ({
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
})

/**
 * @param {ByteSource} source
 * @returns {Promise<StoredTensor[]>}
 * @throws {BmError} `checkpoint`
 */
export async function readSafetensorsFile(source) {
  const bad = (/** @type {string} */ what) => new BmError('checkpoint', `${source.name}: ${what}`)
  const head = await source.read(0, Math.min(source.size, 512))
  const found = `it looks like ${describeWrongFile(head)}`
  if (source.size < 8) throw bad(`${source.size} bytes, want a safetensors file; ${found}`)
  const length = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true))
  if (length > MAX_HEADER_BYTES || 8 + length > source.size) {
    const most = Math.min(MAX_HEADER_BYTES, source.size - 8)
    throw bad(
      `header of ${length} bytes, want at most ${most} (truncated, or no safetensors file; ${found})`,
    )
  }
  const entries = parseHeader(source, await source.read(8, length))
  const data = sliceSource(source, 8 + length, source.size - 8 - length)
  return entries.map(({ name, dtype, shape, start, end }) => {
    const sizeBytes = countOf(shape) * Number(DTYPE_BYTES[dtype])
    if (!(start <= end && end <= data.size))
      throw bad(`${name}: bytes ${start} .. ${end} of ${data.size} (truncated?)`)
    if (end - start !== sizeBytes)
      throw bad(`${name}: ${end - start} bytes, want ${sizeBytes} for ${dtype} [${shape}]`)
    return new StoredTensor({
      name,
      file: source.name,
      dtype,
      shape,
      strides: rowMajor(shape),
      offset: 0,
      storageKey: `${source.name}@${start}`,
      openStorage: async () => sliceSource(data, start, sizeBytes, `${source.name}: ${name}`),
    })
  })
}

/**
 * @param {ByteSource} source
 * @param {Uint8Array} bytes
 * @returns {{ name: string, dtype: string, shape: number[], start: number, end: number }[]}
 */
function parseHeader(source, bytes) {
  const bad = (/** @type {string} */ what, cause = /** @type {unknown} */ (undefined)) =>
    new BmError('checkpoint', `${source.name}: ${what}`, { cause })
  let parsed = /** @type {unknown} */ (null)
  try {
    parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw bad('header is not JSON in UTF-8', cause)
  }
  if (!isObject(parsed)) throw bad('header is not a JSON object')
  const format = isObject(parsed.__metadata__) ? parsed.__metadata__.format : null
  if (typeof format === 'string' && format.startsWith('bimamba ')) {
    throw bad('it is a packed model already, want a checkpoint')
  }
  return Object.entries(parsed)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => {
      const { dtype, shape, data_offsets: range } = isObject(entry) ? entry : {}
      if (typeof dtype !== 'string' || !Object.hasOwn(DTYPE_BYTES, dtype)) {
        throw bad(
          `${JSON.stringify(name.slice(0, 100))}: dtype ${JSON.stringify(dtype)} is unknown`,
        )
      }
      if (!isCounts(shape) || shape.length > 8 || !isCounts(range) || range.length !== 2) {
        throw bad(
          `${JSON.stringify(name.slice(0, 100))}: shape or data_offsets are not lists of counts`,
        )
      }
      return { name, dtype, shape, start: Number(range[0]), end: Number(range[1]) }
    })
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @param {unknown} value @returns {value is number[]} */
function isCounts(value) {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0)
}
