/**
 * The engine's boundary: the only file that instantiates WebAssembly and touches its memory.
 *
 * Owns the module instance, the reading of C strings and arrays, and the life of its handles. Does not know files,
 * URLs of models, text or workers. The C side is wasm/bm_wasm.c; what the calls mean is in src/bm.h.
 * The idea: bulk data passes through one staging buffer, and no view of the memory is ever kept, because growth
 * detaches it: a view is taken, used and dropped within one call. Everything but `Core.create` and `startTeam` is
 * synchronous. Numbers are checked here, since on their way to C they would silently become other ones.
 */

import { checkInteger, MAX_U32 } from './check-integer.js'
import { CorePrompt } from './core-prompt.js'
import { CoreSampler } from './core-sampler.js'
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
 * @typedef {object} Sampling all values as in src/bm.h, in this order
 * @property {number} repetitionPenalty
 * @property {number} repetitionWindow tokens
 * @property {number} temperature 0: the most likely token
 * @property {number} topK 0: off
 * @property {number} topP 1: off
 * @property {number} minP 0: off
 * @property {number} seed an integer, 0 to 2^53 - 1
 */

/** @typedef {'fast' | 'high' | 'exact'} Precision */
/** @typedef {'f32' | 'i16'} StateType */
/** @typedef {'file' | 'int4'} HeadChoice */
/** @typedef {'int8' | 'int4' | 'f16' | 'f32'} HeadType */

/** The exports of the module, by name; all parameters and results are numbers.
 * @typedef {Record<string, (...args: number[]) => number>} Exports */

/** enum bm_status of src/bm.h. @type {import('./errors.js').BmErrorCode[]} */
const STATUS_CODES = ['internal', 'argument', 'config', 'memory', 'internal', 'format', 'numeric']
/** enum bm_dtype of src/bm.h. */
const DTYPES = /** @type {const} */ (['U8', 'I8', 'F16', 'F32'])
/** enum bm_precision of src/bm.h. */
const PRECISIONS = /** @type {const} */ (['fast', 'high', 'exact'])
/** enum bm_head of src/bm.h. */
const HEADS = /** @type {const} */ (['file', 'int4'])
/** What a head is as the file has it. @type {Record<ModelConfig['embedding_dtype'], HeadType>} */
const FILE_HEADS = { I8: 'int8', F16: 'f16', F32: 'f32' }
/** Of enum bm_dtype in src/bm.h. @type {Record<StateType, number>} */
const STATE_DTYPES = { f32: 3, i16: 4 }

/** Most tokens of one append; the C side says the same. */
const MAX_CHUNK = 1024
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

  /** @returns {string[]} the steps of an append, in order; none in a module from before it had them */
  get steps() {
    const count = 'step_count' in this.#exports ? this.call('step_count') : 0
    return Array.from({ length: count }, (_, i) => this.#string(this.call('step_name', i)))
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
    new Float64Array(this.#memory.buffer, this.call('staging'), values.length).set(values)
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
      return {
        name: this.#string(this.call('tensor_name')),
        dtype: DTYPES[this.call('tensor_dtype')] ?? 'U8',
        shape: Array.from({ length: this.call('tensor_dims') }, (_, d) =>
          this.call('tensor_shape', d),
        ),
        sizeBytes: this.call('tensor_bytes'),
        part: this.call('tensor_part'),
      }
    })
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
    const handle = this.pointer('model_create', index, form)
    const type = head === 'int4' ? head : FILE_HEADS[config.embedding_dtype]
    return new CoreModel(this, { handle, config, variant: String(variants[index]), head: type })
  }
}

/** The weights of one model in an engine. */
export class CoreModel {
  #core
  #handle
  /** @type {Set<CoreSession>} that are open */
  #sessions = new Set()

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.handle
   * @param {ModelConfig} parts.config
   * @param {string} parts.variant
   * @param {HeadType} parts.head
   */
  constructor(core, { handle, config, variant, head }) {
    this.#core = core
    this.#handle = handle
    this.config = config
    /** The kernel family that lays out the weights. */
    this.variant = variant
    /** What the logits are computed with. */
    this.head = head
    /** Parts to seal: the embedding, every layer, the final norm with the head. */
    this.parts = config.n_layer + 2
  }

  /**
   * Takes bytes of a tensor in their file form: any ranges in any order, each byte exactly once. Only an untied head that
   * becomes int4 must come in order.
   * @param {number} index into `core.tensors(config)`
   * @param {number} offset within the tensor, in bytes
   * @param {Uint8Array} bytes
   * @throws {BmError} `argument` outside the tensor, `internal` for bytes written twice
   */
  write(index, offset, bytes) {
    checkInteger('tensor index', index, 0, MAX_U32)
    checkInteger('offset', offset, 0, Number.MAX_SAFE_INTEGER)
    const step = this.#core.stagingBytes
    for (let at = 0; at < bytes.length; at += step) {
      const piece = bytes.subarray(at, at + step)
      this.#core.stageBytes(piece)
      this.#core.check('model_write', this.#open(), index, offset + at, piece.length)
    }
  }

  /**
   * Declares a part complete.
   * @param {number} part
   * @throws {BmError} `format` for NaN or infinity in a weight, `internal` when bytes are missing
   */
  seal(part) {
    checkInteger('part', part, 0, this.parts - 1)
    this.#core.check('model_seal_part', this.#open(), part)
  }

  /**
   * @param {object} [options]
   * @param {Precision} [options.precision] default 'fast'
   * @param {StateType} [options.state] type of the SSM state, default 'f32'
   * @param {number} [options.maxChunk] most tokens in one append, 1 to 1024; default 64
   * @returns {CoreSession} at position 0; the model need not be complete until it computes
   * @throws {BmError} `argument`, `memory`
   */
  createSession({ precision = 'fast', state = 'f32', maxChunk = 64 } = {}) {
    checkInteger('maxChunk', maxChunk, 1, MAX_CHUNK)
    const dtype = STATE_DTYPES[state]
    const level = PRECISIONS.indexOf(precision)
    if (level < 0)
      throw new BmError('argument', `precision is '${precision}', want fast, high or exact`)
    if (dtype === undefined) throw new BmError('argument', `state is '${state}', want f32 or i16`)
    const handle = this.#core.pointer('session_create', this.#open(), level, dtype, maxChunk)
    const onClose = (/** @type {CoreSession} */ session) => void this.#sessions.delete(session)
    const { vocab_size: vocabSize } = this.config
    const { parts } = this
    const session = new CoreSession(this.#core, { handle, vocabSize, parts, maxChunk, onClose })
    this.#sessions.add(session)
    return session
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the model was closed')
    return this.#handle
  }

  /** Frees the weights, and the sessions that are still open. Idempotent. */
  close() {
    for (const session of this.#sessions) session.close()
    if (this.#handle !== 0) this.#core.call('model_free', this.#handle)
    this.#handle = 0
  }
}

/** One timeline over a model: a recurrent state, a position, the logits of the last tokens. */
export class CoreSession {
  #core
  #handle
  #onClose
  #parts
  /** @type {Set<CorePrompt>} that are open */
  #prompts = new Set()
  /** Tokens of the last append; 0 after a reset. */
  #lastCount = 0

  /**
   * @param {Core} core
   * @param {object} parts
   * @param {number} parts.handle
   * @param {number} parts.vocabSize
   * @param {number} parts.parts  of the model
   * @param {number} parts.maxChunk
   * @param {(session: CoreSession) => void} parts.onClose
   */
  constructor(core, { handle, vocabSize, parts, maxChunk, onClose }) {
    this.#core = core
    this.#handle = handle
    this.#onClose = onClose
    this.#parts = parts
    this.vocabSize = vocabSize
    this.maxChunk = maxChunk
  }

  /** Tokens consumed since the last reset. */
  get position() {
    return this.#core.call('session_position', this.#open())
  }

  /** Back to position 0 and a zero state. */
  reset() {
    this.#core.call('session_reset', this.#open())
    this.#lastCount = 0
  }

  /**
   * Consumes tokens. How a sequence is cut into appends does not change a bit of the results.
   * @param {ArrayLike<number>} ids 1 to maxChunk of them
   * @throws {BmError} `argument` (the session is unchanged), `numeric` (reset the session)
   */
  append(ids) {
    const handle = this.#open()
    if (!(ids.length >= 1 && ids.length <= this.maxChunk)) {
      throw new BmError(
        'argument',
        `${ids.length} tokens in one append, want 1 to ${this.maxChunk}`,
      )
    }
    for (let i = 0; i < ids.length; i++) {
      checkInteger(`token id ${i}`, ids[i], 0, this.vocabSize - 1)
    }
    this.#core.stageIds(ids)
    this.#core.compute(ids.length, () => this.#core.check('session_append', handle, ids.length))
    this.#lastCount = ids.length
  }

  /**
   * A prompt to be read layer by layer, while the model arrives; the session does nothing else meanwhile.
   * @param {ArrayLike<number>} ids at least one; the session is at position 0
   * @returns {CorePrompt}
   * @throws {BmError} `argument`, `memory`
   */
  createPrompt(ids) {
    const { vocabSize, maxChunk } = this
    const onRead = () => {
      this.#lastCount = ids.length % maxChunk || maxChunk
    }
    const onClose = (/** @type {CorePrompt} */ prompt) => void this.#prompts.delete(prompt)
    const shared = { vocabSize, parts: this.#parts, maxChunk, onRead, onClose }
    const prompt = new CorePrompt(this.#core, { session: this.#open(), ids, ...shared })
    this.#prompts.add(prompt)
    return prompt
  }

  /**
   * One step of an append in one layer, for who times them: bm_session_step of src/bm.h says in which order.
   * @param {number} step of `core.steps` @param {number} layer @param {number} count of the ids that `stageIds` took
   */
  step(step, layer, count) {
    this.#core.check('session_step', this.#open(), step, layer, count)
    this.#lastCount = count
  }

  /**
   * @param {number} [index] token of the last append; negative counts from its end; default: its last token
   * @returns {Float32Array} [vocab_size], a copy
   * @throws {BmError} `argument`: there is no such token; `numeric`
   */
  logits(index = -1) {
    return this.#core.copyFloats(this.logitsPointer(index), this.vocabSize)
  }

  /**
   * @param {number} index as for `logits`
   * @param {number} id
   * @returns {number} log p(id), natural logarithm
   */
  logprob(index, id) {
    checkInteger('token id', id, 0, this.vocabSize - 1)
    return this.#core.call('log_softmax', this.logitsPointer(index), this.vocabSize, id)
  }

  /**
   * Computes the logits where the engine keeps them; any further call may overwrite them.
   * @param {number} index as for `logits`
   */
  logitsPointer(index) {
    const at = index < 0 ? this.#lastCount + index : index
    if (!(Number.isInteger(at) && at >= 0 && at < this.#lastCount)) {
      throw new BmError(
        'argument',
        `logits of token ${index}: the last append had ${this.#lastCount}`,
      )
    }
    return this.#core.pointer('session_logits', this.#open(), at)
  }

  /**
   * @param {Sampling} sampling
   * @returns {CoreSampler}
   * @throws {BmError} `argument`, `memory`
   */
  createSampler(sampling) {
    return new CoreSampler(this.#core, this, sampling)
  }

  #open() {
    if (this.#handle === 0) throw new BmError('closed', 'the session was closed')
    return this.#handle
  }

  /** Frees the state. Idempotent. */
  close() {
    if (this.#handle === 0) return
    for (const prompt of this.#prompts) prompt.close()
    this.#core.call('session_free', this.#handle)
    this.#handle = 0
    this.#onClose(this)
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
  if (typeof value === 'number') return value
  if (typeof value === 'boolean') return Number(value)
  if (value === null && field.max === Number.POSITIVE_INFINITY) return field.max
  const dtype = DTYPES.indexOf(/** @type {"U8"} */ (value))
  if (dtype >= 0) return dtype
  throw new BmError('config', `config.${field.name} is ${JSON.stringify(value)}, want a number`)
}
