/**
 * The engine's boundary: the only file that instantiates WebAssembly and touches its memory.
 *
 * Owns the module instance, the reading of C strings and arrays, and the life of its handles. Does not know files,
 * URLs of models, text or workers. The C side is wasm/bm_wasm.c; what the calls mean is in src/bm.h.
 * The idea: bulk data passes through one staging buffer, only states, which are large, straight. No view of the memory is
 * ever kept, because growth detaches it: a view is taken, used and dropped within one call. Everything but `Core.create` and `startTeam` is
 * synchronous. Numbers are checked here, since on their way to C they would silently become other ones.
 */

import { checkInteger } from './check-integer.js'
import { CoreModel, STATE_DTYPES } from './core-model.js'
import { BmError, reasonOf } from './errors.js'
import { Team } from './team.js'
import { loadWasm } from './wasm-module.js'

/** @typedef {import('./format.js').ModelConfig} ModelConfig */
/** @typedef {import('./format.js').TensorSpec} TensorSpec */

/**
 * @typedef {object} ConfigField
 * @property {string} name
 * @property {number} min      inclusive
 * @property {number} max      inclusive; may be Infinity
 * @property {boolean} integer
 */

/**
 * What a sampler is to do; src/bm.h says what each value means.
 *
 * @typedef {object} Sampling
 * @property {number} repetitionPenalty 1: off
 * @property {number} repetitionWindow tokens
 * @property {number} frequencyPenalty 0: off
 * @property {number} presencePenalty 0: off
 * @property {number} historyWindow tokens
 * @property {number} dryMultiplier 0: off
 * @property {number} dryBase
 * @property {number} dryAllowedLength tokens
 * @property {number} noRepeatNgram tokens; 0: off
 * @property {number} temperature 0: the most likely token
 * @property {number} topK 0: off
 * @property {number} typicalP 1: off
 * @property {number} topP 1: off
 * @property {number} minP 0: off
 * @property {number} mirostatTau bits; 0: off
 * @property {number} mirostatEta
 * @property {number} seed an integer, 0 to 2^53 - 1
 * @property {readonly (readonly [number, number])[]} logitBias pairs of id and bias
 * @property {readonly number[]} dryBreakers ids
 */

/** @typedef {'fast' | 'high' | 'exact'} Precision */
/** @typedef {'f32' | 'i16'} StateType */
/** @typedef {StateType | 'i8'} StoredType how a state can be kept */
/** @typedef {{ name: string, dtype: string, shape: number[], sizeBytes: number, offset: number }} StateTensor */
/** @typedef {'file' | 'int4'} HeadChoice */
/** @typedef {'int8' | 'int4' | 'f16' | 'f32'} HeadType */

/** The exports of the module, by name; all parameters and results are numbers.
 * @typedef {Record<string, (...args: number[]) => number>} Exports */

/** enum bm_status of src/bm.h. @type {import('./errors.js').BmErrorCode[]} */
const STATUS_CODES = ['internal', 'argument', 'config', 'memory', 'internal', 'format', 'numeric']
/** enum bm_dtype of src/bm.h. */
const DTYPES = /** @type {const} */ (['U8', 'I8', 'F16', 'F32', 'I16'])
/** enum bm_weights of src/bm.h, as a config has them; the first is said by leaving the field out. */
const PROJECTIONS = [undefined, 'I4', 'I8', 'F16']
/** One piece of memory that WebAssembly's allocator gives is below 2 GiB; some of it is layout. */
export const MOST_WEIGHT_BYTES = 2 ** 31 - 2 ** 24
/** enum bm_head of src/bm.h. */
const HEADS = /** @type {const} */ (['file', 'int4'])
/** What a head is as the file has it. @type {Record<ModelConfig['embedding_dtype'], HeadType>} */
const FILE_HEADS = { I8: 'int8', F16: 'f16', F32: 'f32' }
/** BM_MAX_THREADS of src/bm.h. */
const MAX_THREADS = 64

/**
 * One instance of the engine. Holds any number of models; freed when nothing refers to it any more, and closed, if
 * it has a team of threads.
 */
export class Core {
  /** @type {Exports} */
  #exports
  /** @type {WebAssembly.Memory} */
  #memory
  #wasm
  /** @type {Team | null} */
  #team = null

  /** @param {WebAssembly.Instance} instance @param {import('./wasm-module.js').EngineModule} wasm */
  constructor(instance, wasm) {
    const { memory, ...functions } = instance.exports
    this.#memory = wasm.memory ?? /** @type {WebAssembly.Memory} */ (memory)
    this.#exports = /** @type {Exports} */ (functions)
    this.#wasm = wasm
    this.call('_initialize')
  }

  /**
   * @param {object} [options]
   * @param {import('./wasm-module.js').WasmSource | undefined} [options.wasm] the module, or where it is
   * @param {boolean} [options.shared] the build that can have further threads, where memory can be shared; default false
   * @param {AbortSignal | undefined} [options.signal] stops getting the module
   * @returns {Promise<Core>}
   * @throws {BmError} as `loadWasm` does
   */
  static async create({ wasm, shared = false, signal } = {}) {
    const loaded = await loadWasm({ wasm, shared, signal })
    return new Core(await instantiate(loaded), loaded)
  }

  /**
   * Starts further threads for the sessions that are made from now on. At most once.
   *
   * @param {number} threads that compute, this one included: 1 to 64. This one must be allowed to wait (js/platform.js knows)
   * @param {string} [threadUrl] where js/thread.js is; default: in the package
   * @throws {BmError} `unsupported` when the module has no shared memory; `internal` when a thread does not start;
   *   `closed` when the engine is closed before
   */
  async startTeam(threads, threadUrl) {
    checkInteger('threads', threads, 1, MAX_THREADS)
    if (threads === 1) return
    const { module, memory } = this.#wasm
    if (!memory) throw new BmError('unsupported', 'this build of the engine has no threads')
    if (this.#team) throw new BmError('internal', 'the engine has its threads already')
    this.#team = new Team({ call: this.call.bind(this), module, memory, threads, threadUrl })
    await this.#team.ready
  }

  /** @returns {boolean} whether further threads can share its memory */
  get isShared() {
    return this.#wasm.memory !== null
  }

  /** @returns {'plain' | 'relaxed'} SIMD that the module was built with */
  get simd() {
    const name = this.#string(this.call('simd'))
    return name === 'relaxed' ? name : 'plain'
  }

  /** @returns {number} threads that compute now */
  get threads() {
    return this.#team?.threads ?? 1
  }

  /** Runs what computes `tokens` tokens with the threads that there are. @param {number} tokens @param {() => void} compute */
  compute(tokens, compute) {
    if (this.#team) this.#team.run(tokens, compute)
    else compute()
  }

  /** Ends the threads, if there are any. What they worked for must be closed before. Idempotent. */
  close() {
    this.#team?.close()
    this.#team = null
  }

  /**
   * Calls an export. A trap is a mistake of ours and leaves the instance unusable.
   * @param {string} name
   * @param {...number} args
   * @returns {number}
   */
  call(name, ...args) {
    const callee = this.#exports[name]
    if (!callee) throw new BmError('internal', `the WebAssembly module has no export '${name}'`)
    try {
      return callee(...args)
    } catch (cause) {
      throw new BmError('internal', `the engine stopped in '${name}': ${cause}`, { cause })
    }
  }

  /**
   * Calls an export that returns a bm_status.
   * @param {string} name
   * @param {...number} args
   * @throws {BmError} with the core's message
   */
  check(name, ...args) {
    if (this.call(name, ...args) !== 0) throw this.#lastError()
  }

  /**
   * Calls an export that returns a pointer, 0 for failure.
   * @param {string} name
   * @param {...number} args
   * @returns {number}
   */
  pointer(name, ...args) {
    const pointer = this.call(name, ...args)
    if (pointer === 0) throw this.#lastError()
    return pointer >>> 0
  }

  #lastError() {
    const code = STATUS_CODES[this.call('error_status')] ?? 'internal'
    return new BmError(code, this.#string(this.call('error_message')))
  }

  /** @param {number} pointer to a zero-terminated ASCII string */
  #string(pointer) {
    const bytes = new Uint8Array(this.#memory.buffer, pointer >>> 0)
    return String.fromCharCode(...bytes.subarray(0, bytes.indexOf(0)))
  }

  /** Size of the staging buffer, in bytes. */
  get stagingBytes() {
    return this.call('staging_size')
  }

  /** @param {ArrayLike<number>} bytes at most stagingBytes */
  stageBytes(bytes) {
    this.#checkStaging(bytes.length)
    new Uint8Array(this.#memory.buffer, this.call('staging'), bytes.length).set(bytes)
  }

  /** @param {ArrayLike<number>} values doubles, at most stagingBytes in all */
  stageValues(values) {
    this.#checkStaging(8 * values.length)
    new Float64Array(this.#memory.buffer, this.call('staging'), values.length).set(values)
  }

  /** @param {number} count of 32-bit numbers @param {number} [skip] bytes before them @returns {Uint32Array} what a call left there */
  stagedIds(count, skip = 0) {
    return new Uint32Array(this.#memory.buffer, this.call('staging') + skip, count).slice()
  }

  /** @param {number} count of doubles @returns {Float64Array} what a call left there */
  stagedValues(count) {
    return new Float64Array(this.#memory.buffer, this.call('staging'), count).slice()
  }

  /** @param {ArrayLike<number>} ids four bytes each, at most stagingBytes in all */
  stageIds(ids) {
    this.#checkStaging(4 * ids.length)
    new Uint32Array(this.#memory.buffer, this.call('staging'), ids.length).set(ids)
  }

  /** @param {number} bytes */
  #checkStaging(bytes) {
    if (bytes > this.stagingBytes) {
      throw new BmError('argument', `${bytes} bytes at once, want at most ${this.stagingBytes}`)
    }
  }

  /**
   * @param {number} pointer
   * @param {number} length
   * @returns {Float32Array} a copy
   */
  copyFloats(pointer, length) {
    return new Float32Array(this.#memory.buffer, pointer, length).slice()
  }

  /**
   * @param {number} pointer
   * @param {number} length
   * @returns {Uint8Array<ArrayBuffer>} a copy
   */
  copyBytes(pointer, length) {
    const bytes = new Uint8Array(length)
    bytes.set(new Uint8Array(this.#memory.buffer, pointer, length))
    return bytes
  }

  /**
   * Writes over memory of the engine that is there for it.
   * @param {number} pointer
   * @param {Uint8Array} bytes
   */
  writeBytes(pointer, bytes) {
    new Uint8Array(this.#memory.buffer, pointer, bytes.length).set(bytes)
  }

  /** @param {number} to @param {number} from @param {number} length all in the engine's memory */
  moveBytes(to, from, length) {
    new Uint8Array(this.#memory.buffer).copyWithin(to, from, from + length)
  }

  /** Bytes of WebAssembly memory in use by this instance, all models and sessions included. */
  get memoryBytes() {
    return this.#memory.buffer.byteLength
  }

  /** @returns {string[]} kernel variants, the reference first, the default last */
  get variants() {
    return Array.from({ length: this.call('variant_count') }, (_, i) =>
      this.#string(this.call('variant_name', i)),
    )
  }

  /** @returns {number} steps of an append; 0 in a module from before it had them */
  get stepCount() {
    return 'step_count' in this.#exports ? this.call('step_count') : 0
  }

  /** @returns {string[]} their names, in order */
  get steps() {
    return Array.from({ length: this.stepCount }, (_, i) => this.#string(this.call('step_name', i)))
  }

  /** @returns {ConfigField[]} in the order of a packed file's config */
  get configFields() {
    return Array.from({ length: this.call('field_count') }, (_, i) => ({
      name: this.#string(this.call('field_name', i)),
      min: this.call('field_min', i),
      max: this.call('field_max', i),
      integer: this.call('field_is_integer', i) !== 0,
    }))
  }

  /**
   * @param {ModelConfig} config
   * @throws {BmError} `config`: names the first field that is missing or breaks a limit
   */
  checkConfig(config) {
    const values = this.configFields.map((field) => configNumber(config, field))
    this.stageValues(values)
    this.check('config_load')
  }

  /**
   * The tensors of a model in the order of its packed file (models/FORMAT.md), the tokenizer apart.
   * @param {ModelConfig} config
   * @returns {TensorSpec[]}
   * @throws {BmError} `config`
   */
  tensors(config) {
    this.checkConfig(config)
    return Array.from({ length: this.call('tensor_count') }, (_, i) => {
      this.call('tensor_select', i)
      const tensor = { ...this.#selectedTensor(), part: this.call('tensor_part') }
      return /** @type {TensorSpec} */ (tensor)
    })
  }

  /**
   * The arrays of a state, and where each begins in its block.
   * @param {ModelConfig} config
   * @param {StoredType} type
   * @returns {StateTensor[]}
   */
  stateTensors(config, type) {
    this.checkConfig(config)
    const dtype = STATE_DTYPES[type]
    return Array.from({ length: this.call('state_tensor_count', dtype) }, (_, i) => {
      const offset = this.call('state_tensor_select', dtype, i)
      return { ...this.#selectedTensor(), offset }
    })
  }

  /** @param {ModelConfig} config @param {StoredType} type @returns {number} bytes of a state's block */
  stateBytes(config, type) {
    this.checkConfig(config)
    return this.call('state_bytes', STATE_DTYPES[type])
  }

  /**
   * @param {ModelConfig} config
   * @param {Uint8Array} block a state of the type `from`
   * @param {StoredType} from
   * @param {StoredType} to
   * @returns {Uint8Array} the same state in the other type; from i16 to f32 is exact
   * @throws {BmError} `argument`, `memory`
   */
  convertState(config, block, from, to) {
    const [size, bytes] = [this.stateBytes(config, from), this.stateBytes(config, to)]
    if (block.length !== size) {
      throw new BmError('argument', `a state of ${block.length} bytes, want ${size}`)
    }
    const source = this.pointer('block_create', size)
    try {
      this.writeBytes(source, block)
      const target = this.pointer('block_create', bytes)
      try {
        this.check('state_convert', STATE_DTYPES[from], source, STATE_DTYPES[to], target)
        return this.copyBytes(target, bytes)
      } finally {
        this.call('block_free', target)
      }
    } finally {
      this.call('block_free', source)
    }
  }

  #selectedTensor() {
    return {
      name: this.#string(this.call('tensor_name')),
      dtype: DTYPES[this.call('tensor_dtype')] ?? 'U8',
      shape: Array.from({ length: this.call('tensor_dims') }, (_, d) =>
        this.call('tensor_shape', d),
      ),
      sizeBytes: this.call('tensor_bytes'),
    }
  }

  /**
   * Takes all the memory that the weights need.
   * @param {ModelConfig} config
   * @param {object} [options]
   * @param {string | undefined} [options.variant] of the kernels; default: the fastest
   * @param {HeadChoice | undefined} [options.head] how the head is kept; default 'file'
   * @returns {CoreModel} empty: write every tensor, seal every part
   * @throws {BmError} `config`, `memory`, `argument`: also an int4 head of a model whose head is not int8
   */
  createModel(config, { variant, head = 'file' } = {}) {
    this.checkConfig(config)
    const { variants } = this
    const index = variant === undefined ? variants.length - 1 : variants.indexOf(variant)
    if (index < 0) {
      throw new BmError('argument', `variant is '${variant}', want one of ${variants.join(', ')}`)
    }
    const form = HEADS.indexOf(head)
    if (form < 0) throw new BmError('argument', `head is '${head}', want file or int4`)
    const handle = this.#createModel(config, index, form)
    const type = head === 'int4' ? head : FILE_HEADS[config.embedding_dtype]
    return new CoreModel(this, { handle, config, variant: String(variants[index]), head: type })
  }

  /** @param {ModelConfig} config that is loaded @param {number} variant @param {number} head @returns {number} handle */
  #createModel(config, variant, head) {
    try {
      return this.pointer('model_create', variant, head)
    } catch (error) {
      const bytes = this.tensors(config).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
      if (bytes <= MOST_WEIGHT_BYTES) throw error
      const [found, most] = [bytes, MOST_WEIGHT_BYTES].map((n) => Math.round(n / 1e6))
      const message = `the weights take ${found} MB, and WebAssembly gives one model ${most} MB at most`
      throw new BmError('memory', message, { cause: error })
    }
  }
}

/** @param {import('./wasm-module.js').EngineModule} wasm @returns {Promise<WebAssembly.Instance>} */
async function instantiate({ module, memory, name }) {
  if (!WebAssembly.Module.exports(module).some((entry) => entry.name === '_initialize')) {
    throw new BmError('unsupported', `${name}: a WebAssembly module of something else`)
  }
  const env = { emscripten_notify_memory_growth: () => {}, ...(memory ? { memory } : {}) }
  try {
    return await WebAssembly.instantiate(module, { env })
  } catch (cause) {
    throw new BmError('unsupported', `${name}: does not start: ${reasonOf(cause)}`, { cause })
  }
}

/**
 * @param {ModelConfig} config
 * @param {ConfigField} field
 * @returns {number} the C form: enums and booleans as integers, null (no limit) as Infinity
 */
function configNumber(config, field) {
  const value = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (config))[field.name]
  if (field.name === 'projection_dtype') {
    const form = PROJECTIONS.indexOf(/** @type {string | undefined} */ (value))
    if (form >= 0) return form
  }
  if (typeof value === 'number') return value
  if (typeof value === 'boolean') return Number(value)
  if (value === null && field.max === Number.POSITIVE_INFINITY) return field.max
  const dtype = DTYPES.indexOf(/** @type {"U8"} */ (value))
  if (dtype >= 0) return dtype
  throw new BmError('config', `config.${field.name} is ${JSON.stringify(value)}, want a number`)
}
