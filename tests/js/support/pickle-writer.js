/**
 * Writes pickles (protocol 2) as torch.save does, and by single opcodes for hostile ones.
 *
 * Owns the opcode bytes. Knows torch's way to describe a tensor: _rebuild_tensor_v2 over a storage named by a
 * persistent id. Nothing here reads pickles, so reader and writer can only agree by following the format.
 */

import { concatBytes } from './stored-zip.js'

const STORAGE = /** @type {Record<string, string>} */ ({
  F32: 'FloatStorage',
  F16: 'HalfStorage',
  BF16: 'BFloat16Storage',
  F64: 'DoubleStorage',
  I64: 'LongStorage',
})

/**
 * @typedef {object} PickledTensor
 * @property {string} name
 * @property {string} dtype F32, F16, BF16, F64 or I64
 * @property {number[]} shape
 * @property {number[]} [strides] default row-major
 * @property {number} [offset] first element in the storage
 * @property {string} storage key of the storage: the entry data/<key>
 * @property {number} storageLength elements in the whole storage
 */

/** Builds one pickle, opcode by opcode. */
export class PickleWriter {
  /** @type {Uint8Array[]} */
  #parts = [Uint8Array.of(0x80, 2)]
  #memo = 0

  /** @param {ArrayLike<number> | string} bytes raw opcodes; a string stands for its Latin-1 bytes */
  raw(bytes) {
    const text = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
    this.#parts.push(Uint8Array.from(text))
    return this
  }

  /** @param {string} module @param {string} name */
  global(module, name) {
    return this.raw(`c${module}\n${name}\n`).put()
  }

  put() {
    const index = this.#memo++
    return this.raw(index < 256 ? [0x71, index] : [0x72, ...le32(index)])
  }

  /** @param {string} text */
  text(text) {
    const bytes = new TextEncoder().encode(text)
    return this.raw([0x58, ...le32(bytes.length), ...bytes]).put()
  }

  /** @param {number} value */
  int(value) {
    if (value >= 0 && value < 256) return this.raw([0x4b, value])
    if (value >= 0 && value < 65536) return this.raw([0x4d, value & 255, value >> 8])
    if (value === (value | 0)) return this.raw([0x4a, ...le32(value)])
    const wide = new Uint8Array(8)
    new DataView(wide.buffer).setBigInt64(0, BigInt(value), true)
    return this.raw([0x8a, 8, ...wide])
  }

  /** @param {number[]} values */
  tuple(values) {
    if (values.length === 0) return this.raw(')')
    if (values.length > 3) this.raw('(')
    for (const value of values) this.int(value)
    return this.raw(values.length > 3 ? 't' : [0x84 + values.length]).put()
  }

  orderedDict() {
    return this.global('collections', 'OrderedDict').raw(')R').put()
  }

  /** @param {PickledTensor} tensor @param {{ parameter?: boolean }} [options] */
  tensor(tensor, { parameter = false } = {}) {
    const { dtype, shape, storage, storageLength, offset = 0 } = tensor
    const strides =
      tensor.strides ?? shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1))
    if (parameter) this.global('torch._utils', '_rebuild_parameter').raw('(')
    this.global('torch._utils', '_rebuild_tensor_v2').raw('((')
    this.text('storage').global('torch', STORAGE[dtype] ?? dtype)
    this.text(storage).text('cpu').int(storageLength).raw('t').put().raw('Q')
    this.int(offset).tuple(shape).tuple(strides).raw([0x89])
    this.orderedDict().raw('t').put().raw('R').put()
    if (parameter) this.raw([0x88]).orderedDict().raw('t').put().raw('R').put()
    return this
  }

  /** @returns {Uint8Array} */
  bytes() {
    return concatBytes([...this.#parts, Uint8Array.of(0x2e)])
  }
}

/** @param {number} value */
function le32(value) {
  return [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, (value >>> 24) & 255]
}

/**
 * The pickle of a state_dict, with the _metadata attribute that torch modules leave on it.
 *
 * @param {PickledTensor[]} tensors
 * @param {{ nest?: string[], parameter?: boolean }} [options] nest: dict keys to wrap around it, outermost first
 */
export function pickleStateDict(tensors, { nest = [], parameter = false } = {}) {
  const p = new PickleWriter()
  for (const key of nest) p.raw('}').put().raw('(').text('epoch').int(3).text(key)
  p.orderedDict().raw('(')
  for (const tensor of tensors) p.text(tensor.name).tensor(tensor, { parameter })
  p.raw('u}').put().text('_metadata').orderedDict().raw('(').text('').raw('}').put()
  p.text('version').int(1).raw('sus').raw('b')
  for (const _ of nest) p.raw('u')
  return p.bytes()
}
