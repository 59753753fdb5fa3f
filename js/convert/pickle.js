/**
 * Reads the pickles of torch.save as data. Executes nothing.
 *
 * Owns the opcodes of protocol 2 that torch writes, and the list of the few names a pickle may call; any other
 * opcode or name is refused. Knows what a storage and a tensor are, but not where storages' bytes lie.
 * The idea: a pickle is a program for a stack machine. Here every value is inert (Map, Array, string, number,
 * Storage, TensorRef), so the worst a hostile program can do is to be refused. Work and memory are linear
 * in its length, and its length is capped by the caller.
 */

import { BmError } from '../errors.js'

/** torch's storage classes and the dtype each holds, in the names of safetensors. */
const STORAGE_DTYPES = new Map([
  ['FloatStorage', 'F32'],
  ['HalfStorage', 'F16'],
  ['BFloat16Storage', 'BF16'],
  ['DoubleStorage', 'F64'],
  ['LongStorage', 'I64'],
  ['IntStorage', 'I32'],
  ['ShortStorage', 'I16'],
  ['CharStorage', 'I8'],
  ['ByteStorage', 'U8'],
  ['BoolStorage', 'BOOL'],
])

const MAX_RANK = 8

/** A storage named by a persistent id. */
export class Storage {
  /** @param {string} key @param {string} dtype @param {number} length in elements */
  constructor(key, dtype, length) {
    this.key = key
    this.dtype = dtype
    this.length = length
  }
}

/** A tensor as a view of a storage: element [i, j, ...] is at offset + i * strides[0] + j * strides[1] ... */
export class TensorRef {
  /** @param {Storage} storage @param {number} offset @param {number[]} shape @param {number[]} strides */
  constructor(storage, offset, shape, strides) {
    this.storage = storage
    this.offset = offset
    this.shape = shape
    this.strides = strides
  }
}

/** Something a pickle may name: a function to call or a storage class. */
class Name {
  /** @param {string} text @param {string | null} dtype of a storage class */
  constructor(text, dtype = null) {
    this.text = text
    this.dtype = dtype
  }
}

const MARK = Symbol('mark')

/** @typedef {unknown} Value */

/**
 * @param {Uint8Array} bytes one whole pickle
 * @param {string} file for messages
 * @returns {Value} Map for dicts, Array for lists and tuples, string, number, boolean, null, Storage, TensorRef
 * @throws {BmError} `checkpoint`
 */
export function readPickle(bytes, file) {
  return new Unpickler(bytes, file).run()
}

class Unpickler {
  #bytes
  #view
  #file
  #at = 0
  /** @type {Value[]} */
  #stack = []
  /** @type {Map<number, Value>} */
  #memo = new Map()

  /** @param {Uint8Array} bytes @param {string} file */
  constructor(bytes, file) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#file = file
  }

  run() {
    if (this.#take(1) !== 0 || this.#byteAt(0) !== 0x80 || this.#take(1) !== 1) {
      throw this.#bad('no pickle of protocol 2')
    }
    const protocol = this.#byteAt(1)
    if (protocol !== 2) throw this.#bad(`pickle protocol ${protocol}, want 2`)
    for (;;) {
      const op = this.#byteAt(this.#take(1))
      if (op === 0x2e) break
      this.#step(op)
    }
    if (this.#stack.length !== 1) throw this.#bad(`${this.#stack.length} values left, want 1`)
    return this.#stack[0]
  }

  /** @param {string} what */
  #bad(what) {
    return new BmError('checkpoint', `${this.#file}: refused at byte ${this.#at}: ${what}`)
  }

  /** Moves past `length` bytes and returns where they start. @param {number} length */
  #take(length) {
    const start = this.#at
    if (start + length > this.#bytes.length) throw this.#bad('the pickle ends early')
    this.#at += length
    return start
  }

  /** @param {number} at */
  #byteAt(at) {
    return this.#view.getUint8(at)
  }

  /** @param {number} length */
  #text(length) {
    const start = this.#take(length)
    try {
      const part = this.#bytes.subarray(start, start + length)
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(part)
    } catch {
      throw this.#bad('a string is not UTF-8')
    }
  }

  #line() {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    if (end < 0) throw this.#bad('the pickle ends inside a name')
    const text = this.#text(end - this.#at)
    this.#take(1)
    return text
  }

  #pop() {
    const value = this.#stack.pop()
    if (value === undefined || value === MARK) throw this.#bad('the stack is empty')
    return value
  }

  #top() {
    const value = this.#stack.at(-1)
    if (value === undefined || value === MARK) throw this.#bad('the stack is empty')
    return value
  }

  /** Takes everything above the last mark, and the mark. */
  #popMark() {
    const at = this.#stack.lastIndexOf(MARK)
    if (at < 0) throw this.#bad('no mark on the stack')
    const values = this.#stack.splice(at)
    return values.slice(1)
  }

  /** @param {number} count */
  #popTuple(count) {
    return Array.from({ length: count }, () => this.#pop()).reverse()
  }

  /** @param {number} op */
  #step(op) {
    const push = (/** @type {Value} */ value) => this.#stack.push(value)
    switch (op) {
      case 0x28: // MARK
        return push(MARK)
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
        return push([])
      case 0x7d: // EMPTY_DICT
        return push(new Map())
      case 0x4e: // NONE
        return push(null)
      case 0x88: // NEWTRUE
        return push(true)
      case 0x89: // NEWFALSE
        return push(false)
      case 0x4b: // BININT1
        return push(this.#byteAt(this.#take(1)))
      case 0x4d: // BININT2
        return push(this.#view.getUint16(this.#take(2), true))
      case 0x4a: // BININT
        return push(this.#view.getInt32(this.#take(4), true))
      case 0x8a: // LONG1
        return push(this.#long(this.#byteAt(this.#take(1))))
      case 0x47: // BINFLOAT
        return push(this.#view.getFloat64(this.#take(8), false))
      case 0x58: // BINUNICODE
        return push(this.#text(this.#view.getUint32(this.#take(4), true)))
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        return push(this.#popTuple(op - 0x84))
      case 0x74: // TUPLE
        return push(this.#popMark())
      case 0x71: // BINPUT
        return this.#memo.set(this.#byteAt(this.#take(1)), this.#top())
      case 0x72: // LONG_BINPUT
        return this.#memo.set(this.#view.getUint32(this.#take(4), true), this.#top())
      case 0x68: // BINGET
        return push(this.#recall(this.#byteAt(this.#take(1))))
      case 0x6a: // LONG_BINGET
        return push(this.#recall(this.#view.getUint32(this.#take(4), true)))
      default:
        return this.#stepOnObjects(op)
    }
  }

  /** @param {number} op */
  #stepOnObjects(op) {
    switch (op) {
      case 0x61: // APPEND
        return this.#append([this.#pop()])
      case 0x65: // APPENDS
        return this.#append(this.#popMark())
      case 0x73: // SETITEM
        return this.#setItems(this.#popTuple(2))
      case 0x75: // SETITEMS
        return this.#setItems(this.#popMark())
      case 0x63: // GLOBAL
        return this.#stack.push(this.#name(this.#line(), this.#line()))
      case 0x51: // BINPERSID
        return this.#stack.push(this.#storage(this.#pop()))
      case 0x52: // REDUCE
        return this.#stack.push(this.#call(...this.#popTuple(2)))
      case 0x62: // BUILD
        return this.#build(...this.#popTuple(2))
      default:
        throw this.#bad(`opcode 0x${op.toString(16)} is not one that torch.save writes for weights`)
    }
  }

  /** Little-endian two's complement. @param {number} length */
  #long(length) {
    if (length > 8) throw this.#bad(`an integer of ${length} bytes`)
    const start = this.#take(length)
    let value = 0n
    for (let i = 0; i < length; i++) value |= BigInt(this.#byteAt(start + i)) << BigInt(8 * i)
    return Number(BigInt.asIntN(8 * length, value))
  }

  /** @param {number} index */
  #recall(index) {
    const value = this.#memo.get(index)
    if (value === undefined) throw this.#bad(`memo ${index} was never set`)
    return value
  }

  /** @param {Value[]} values */
  #append(values) {
    const list = this.#top()
    if (!Array.isArray(list)) throw this.#bad('append to something that is no list')
    for (const value of values) list.push(value)
  }

  /** @param {Value[]} pairs key, value, key, value ... */
  #setItems(pairs) {
    const dict = this.#top()
    if (!(dict instanceof Map)) throw this.#bad('items set on something that is no dict')
    if (pairs.length % 2) throw this.#bad('a key without a value')
    for (let i = 0; i < pairs.length; i += 2) {
      const key = pairs[i]
      if (typeof key !== 'string' && typeof key !== 'number') {
        throw this.#bad('a dict key that is neither string nor number')
      }
      dict.set(key, pairs[i + 1])
    }
  }

  /** @param {string} module @param {string} attribute */
  #name(module, attribute) {
    const text = `${module}.${attribute}`
    if (text === 'collections.OrderedDict') return new Name(text)
    if (text === 'torch._utils._rebuild_tensor_v2') return new Name(text)
    if (text === 'torch._utils._rebuild_parameter') return new Name(text)
    const dtype = module === 'torch' ? STORAGE_DTYPES.get(attribute) : undefined
    if (dtype) return new Name(text, dtype)
    const shown = JSON.stringify(text.slice(0, 100))
    throw this.#bad(`it names ${shown}, which is not on the list of what weights need`)
  }

  /** @param {Value} id @returns {Storage} */
  #storage(id) {
    if (!Array.isArray(id) || id.length !== 5) throw this.#bad('a persistent id that is no storage')
    const [kind, type, key, , length] = id
    const named = type instanceof Name && type.dtype !== null && typeof key === 'string'
    if (kind !== 'storage' || !named) throw this.#bad('a persistent id that is no storage')
    // Any other value may be a tree whose text is longer than memory: the same part again and again.
    if (typeof length !== 'number') throw this.#bad('a storage whose length is no number')
    if (!isCount(length)) throw this.#bad(`a storage of ${length} elements`)
    return new Storage(key, String(type.dtype), length)
  }

  /** @param {Value[]} both the function and its arguments */
  #call(...both) {
    const [target, args] = both
    if (!(target instanceof Name) || !Array.isArray(args)) throw this.#bad('a call of a value')
    if (target.text === 'collections.OrderedDict' && args.length === 0) return new Map()
    if (target.text === 'torch._utils._rebuild_tensor_v2') return this.#tensor(args)
    if (target.text === 'torch._utils._rebuild_parameter' && args[0] instanceof TensorRef) {
      return args[0]
    }
    throw this.#bad(`a call of ${target.text} with ${args.length} arguments`)
  }

  /** @param {Value[]} args storage, offset, size, stride, requires_grad, backward_hooks */
  #tensor([storage, offset, shape, strides]) {
    if (!(storage instanceof Storage)) throw this.#bad('a tensor without a storage')
    const counts = isCount(offset) && isCounts(shape) && isCounts(strides)
    if (!counts || shape.length !== strides.length || shape.length > MAX_RANK) {
      throw this.#bad('a tensor whose offset, shape and strides do not fit together')
    }
    const last = shape.reduce((sum, n, i) => sum + (n - 1) * Number(strides[i]), offset)
    if (!shape.includes(0) && !(last < storage.length)) {
      throw this.#bad(`a tensor reaches element ${last} of a storage of ${storage.length}`)
    }
    if (shape.some((n, i) => n > 1 && strides[i] === 0)) {
      throw this.#bad('an expanded tensor (stride 0): save a contiguous copy')
    }
    return new TensorRef(storage, offset, shape, strides)
  }

  /** The attributes that torch leaves on a state_dict (_metadata) mean nothing here. @param {Value[]} both */
  #build(...both) {
    const [target, state] = both
    if (!(target instanceof Map) || !(state instanceof Map)) throw this.#bad('state set on a value')
    this.#stack.push(target)
  }
}

/** @param {unknown} value @returns {value is number} */
function isCount(value) {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** @param {unknown} value @returns {value is number[]} */
function isCounts(value) {
  return Array.isArray(value) && value.every(isCount)
}
