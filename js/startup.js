/**
 * From a source to a running engine.
 *
 * Owns what is done at the same time: while weights arrive, threads start, the tokenizer is made, and a prompt that was given is read
 * layer by layer. Takes everything down again when one of them fails. Knows nothing about what the engine does later.
 */

import { Core } from './core.js'
import { chooseDevice, chooseDeviceAgain } from './device-choice.js'
import { EarlyPrompt } from './early-prompt.js'
import { Engine } from './engine.js'
import { BmError } from './errors.js'
import { projectionsOf } from './format.js'
import { DeviceFailure } from './gpu/gpu-device.js'
import { GpuModel } from './gpu/gpu-model.js'
import { isWorthChoosing, quickestVariant } from './kernel-choice.js'
import { LoadMeter } from './load-meter.js'
import { loadModel, pullFile, readModelHeader } from './loader.js'
import { coreCount, mayHaveThreads } from './platform.js'
import { promptIds } from './prompt-ids.js'
import { MOST_LOSSES } from './recovery.js'
import { FileChanged } from './remote-file.js'
import { checkIds } from './settings.js'
import { openSource } from './source-opening.js'
import { createTokenizer } from './tokenizer.js'

/** @typedef {import('./engine.js').EngineOptions} EngineOptions */
/** @typedef {import('./generate.js').AnyModel} AnyModel */
/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./gpu/gpu-device.js').GpuDevice} GpuDevice */
/** @typedef {import('./load-meter.js').Progress} Progress */
/** @typedef {import('./source.js').SourceDescriptor} SourceDescriptor */
/** @typedef {import('./source-opening.js').ModelFile} ModelFile */
/** @typedef {{ onProgress?: ((progress: Progress) => void) | undefined, signal?: AbortSignal | undefined }} StartControl */

/** Codes of what a GPU refuses and WebAssembly may do. */
const OF_GPU = new Set(['gpu', 'memory', 'unsupported'])
const NO_GPU = /** @type {const} */ ('wasm')
/** Files below this have too little work in a token to share it. */
const SHARING_BYTES = 16e6
/** More threads than this wait for memory more than they compute. */
const MOST_THREADS = 8

/**
 * @param {number | 'auto'} wanted
 * @param {number} fileBytes
 * @returns {number} threads to start
 */
function threadsFor(wanted, fileBytes) {
  if (wanted !== 'auto') return wanted
  return fileBytes < SHARING_BYTES ? 1 : Math.min(coreCount(), MOST_THREADS)
}

/**
 * @param {SourceDescriptor} source
 * @param {EngineOptions} options
 * @param {StartControl} [control]
 * @returns {Promise<Engine>}
 */
export async function startEngine(source, options, control = {}) {
  const reload = (/** @type {Core} */ core, /** @type {'wasm' | 'webgpu'} */ device) =>
    loadAgain(core, source, { ...options, device })
  /** @type {Losses} */
  const losses = { count: 0, note: null, isOnGpu: false }
  for (;;) {
    const tried = losses.count < MOST_LOSSES ? options : { ...options, device: NO_GPU }
    try {
      return await startOnce(source, tried, { source, reload, losses }, control)
    } catch (error) {
      if (!(error instanceof BmError) || losses.count === MOST_LOSSES) throw error
      const isLost = error instanceof DeviceFailure && error.isLoss
      const isRefused = options.device === 'auto' && losses.isOnGpu && OF_GPU.has(error.code)
      if (!isLost && !isRefused) throw error
      // What the GPU has no room for it will not have next time.
      losses.count = isLost ? losses.count + 1 : MOST_LOSSES
      const then = losses.count < MOST_LOSSES ? 'it was opened again' : 'the processor goes on'
      losses.note = `${error.message}; ${then}`
    }
  }
}

/** GPUs that were lost while the model was loaded, and whether one was chosen. @typedef {{ count: number, note: string | null, isOnGpu: boolean }} Losses */
/** @typedef {(core: Core, device: 'wasm' | 'webgpu') => Promise<Loaded>} Reload */

/** @typedef {{ source: SourceDescriptor, reload: Reload, losses: Losses }} Rest */

/** @param {SourceDescriptor} source @param {EngineOptions} options @param {Rest} rest @param {StartControl} control */
function startOnce(source, options, rest, { onProgress, signal }) {
  const meter = new LoadMeter(onProgress)
  return withFile(source, options.download, { meter, signal }, async (file, stop) => {
    const engine = await new Startup(file, options, stop, rest).run(meter)
    meter.enter('ready')
    return engine
  })
}

/**
 * The model once more: from the cache, where that has it.
 * @param {Core} core @param {SourceDescriptor} source @param {EngineOptions} options @returns {Promise<Loaded>}
 */
async function loadAgain(core, source, options) {
  const { download, head, variant, device } = options
  // Nobody has kept what was given as bytes.
  if (source.kind === 'bytes')
    throw new BmError('gpu', 'the model was given as bytes: load it again')
  const control = { meter: new LoadMeter(undefined), signal: undefined }
  let tested = Promise.resolve()
  /** @returns {AnyModel | Promise<AnyModel>} */
  const modelFor = (/** @type {PackedHeader} */ { config }) => {
    if (device === 'wasm') return core.createModel(config, { variant, head })
    return chooseDeviceAgain(core, config, options).then((choice) => {
      tested = choice.tested
      return createOn(core, /** @type {GpuDevice} */ (choice.device), config, options)
    })
  }
  const loaded = await withFile(source, download, control, (file) =>
    loadModel(core, file, { modelFor, head }),
  )
  try {
    await tested
    return loaded
  } catch (error) {
    loaded.model.close()
    throw error
  }
}

/** @param {Core} core @param {GpuDevice} device  closed when it fails @param {import('./format.js').ModelConfig} config @param {EngineOptions} options */
async function createOn(core, device, config, options) {
  try {
    return await GpuModel.create(core, device, config, options)
  } catch (error) {
    device.close()
    throw error
  }
}

/** @typedef {{ model: AnyModel, header: PackedHeader }} Loaded */

/**
 * Gets a file into the cache, and no further.
 *
 * @param {SourceDescriptor} source
 * @param {{ download: import('./source.js').FetchOptions, wasmUrl?: string }} options
 * @param {StartControl} [control]
 * @returns {Promise<Pulled>}
 */
export async function pullModel(source, { download, wasmUrl }, { onProgress, signal } = {}) {
  const meter = new LoadMeter(onProgress)
  return withFile(source, download, { meter, signal }, async (file) => {
    const core = await Core.create({ wasm: wasmUrl, signal })
    const { identity, fileBytes } = await pullFile(core, file)
    const pulled = { identity, fileBytes, cache: file.report() }
    meter.enter('ready')
    return pulled
  })
}

/** @typedef {{ identity: string, fileBytes: number, cache: import('./download.js').CacheReport | null }} Pulled */

/**
 * Reads a file's header, and no further.
 *
 * @param {SourceDescriptor} source
 * @param {{ download: import('./source.js').FetchOptions, wasmUrl?: string }} options
 * @param {StartControl} [control]
 * @returns {Promise<FileDescription>}
 */
export async function inspectModel(source, { download, wasmUrl }, { signal } = {}) {
  const meter = new LoadMeter(undefined)
  const options = { ...download, headerOnly: true }
  return withFile(source, options, { meter, signal }, async (file) => {
    const core = await Core.create({ wasm: wasmUrl, signal })
    const { config, identity, fileBytes, hasTokenizer, chatTemplate, ...rest } =
      await readModelHeader(core, file)
    const { source, licence } = rest
    const projections = projectionsOf(config)
    return { config, projections, identity, fileBytes, hasTokenizer, chatTemplate, source, licence }
  })
}

/**
 * What a packed file says about itself.
 *
 * @typedef {object} FileDescription
 * @property {import('./format.js').ModelConfig} config  its shape
 * @property {import('./format.js').Projections} projections  as `info.projections`
 * @property {string} identity       as `info.identity`
 * @property {number} fileBytes
 * @property {boolean} hasTokenizer
 * @property {string | null} chatTemplate
 * @property {string} source         where the weights come from
 * @property {string} licence        of the weights
 */

/**
 * Opens a file for a job, and closes it. A job that finds the file to be another one than it was begins again, once.
 *
 * @template T
 * @param {SourceDescriptor} source
 * @param {import('./source.js').FetchOptions} options
 * @param {{ meter: LoadMeter, signal: AbortSignal | undefined }} control
 * @param {(file: ModelFile, stop: AbortController) => Promise<T>} job  `stop` ends what the file does
 * @returns {Promise<T>}
 */
async function withFile(source, options, { meter, signal }, job) {
  signal?.throwIfAborted()
  const stop = new AbortController()
  const onAbort = () => stop.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort)
  const file = await openSource(source, { options, meter, signal: stop.signal })
  try {
    return await job(file, stop)
  } catch (error) {
    if (!(error instanceof FileChanged)) throw error
    await file.startAgain()
    return await job(file, stop)
  } finally {
    signal?.removeEventListener('abort', onAbort)
    await file.close()
  }
}

/** @param {SourceDescriptor} one @param {SourceDescriptor} other @returns {boolean} whether they are of two servers: what is meant for one is not for the other */
function isElsewhere(one, other) {
  if (one.kind !== 'http' || other.kind !== 'http') return false
  return new URL(one.url).origin !== new URL(other.url).origin
}

/** One try to start. */
class Startup {
  #file
  #source
  #options
  #stop
  #reload
  #losses
  /** @type {AnyModel | null} */
  #model = null
  /** @type {import('./timeline.js').AnySession | null} */
  #session = null
  /** @type {Promise<void>} */
  #team = Promise.resolve()
  /** @type {(json: string | null) => void} */
  #giveTokenizer = () => {}
  /** @type {Promise<string | null>} */
  #tokenizerJson = new Promise((resolve) => {
    this.#giveTokenizer = resolve
  })
  /** @type {Promise<import('./tokenizer.js').Tokenizer | null>} */
  #tokenizer = Promise.resolve(null)
  /** @type {EarlyPrompt | null} */
  #prompt = null
  /** @type {Promise<void>} of the GPU, before anything that it computes counts */
  #tested = Promise.resolve()
  /** @type {string | null} why not the GPU */
  #note
  /** It has failed, and what fails now does so because of that. */
  #isOver = false

  /** @param {ModelFile} file @param {EngineOptions} options @param {AbortController} stop @param {Rest} rest */
  constructor(file, options, stop, { source, reload, losses }) {
    this.#file = file
    this.#source = source
    this.#reload = reload
    this.#losses = losses
    this.#note = losses.note
    this.#options = options
    this.#stop = stop
  }

  /** @param {LoadMeter} meter @returns {Promise<Engine>} */
  async run(meter) {
    const { precision, head, variant, wasmUrl, threads } = this.#options
    const { signal } = this.#stop
    const most = threads === 'auto' ? coreCount() : threads
    const shared = most > 1 && mayHaveThreads()
    const core = await Core.create({ wasm: wasmUrl, shared, signal })
    // A thread whose script does not come would be awaited for ever.
    const onAbort = () => {
      this.#prompt?.stop()
      core.close()
    }
    signal.addEventListener('abort', onAbort)
    // Families differ in binary products only.
    const variantFor = (/** @type {PackedHeader} */ { fileBytes, config }) =>
      variant ??
      (isWorthChoosing(fileBytes) && !config.projection_dtype
        ? quickestVariant(core, { precision })
        : undefined)
    const modelFor = (/** @type {PackedHeader} */ header) =>
      this.#options.device === 'wasm'
        ? core.createModel(header.config, { variant: variantFor(header), head })
        : this.#chosenModel(core, header, () => variantFor(header))
    try {
      const { model, header } = await loadModel(
        core,
        this.#file,
        { modelFor, head },
        {
          onModel: async (model, header) => {
            try {
              await this.#begin(core, model, header)
            } catch (error) {
              this.#stop.abort(error)
              throw error
            }
          },
          onTokenizer: (json) => this.#giveTokenizer(json),
          onPart: (part) => this.#prompt?.partSealed(part),
        },
      )
      meter.enter('start')
      const [tokenizer, ids] = await this.#last()
      const draftModel = await this.#loadDraftModel(core, header)
      signal.throwIfAborted()
      return new Engine({
        core,
        model,
        session: /** @type {import('./timeline.js').AnySession} */ (this.#session),
        header,
        tokenizer,
        options: this.#options,
        deviceNote: this.#note,
        reload: this.#reload,
        losses: this.#losses.count,
        cache: this.#file.report(),
        readIds: ids ?? null,
        draftModel,
      })
    } catch (error) {
      this.#isOver = true
      this.#prompt?.stop()
      this.#model?.close()
      core.close()
      signal.throwIfAborted()
      throw error
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** What else is awaited when all bytes are there. */
  #last() {
    return Promise.all([this.#tokenizer, this.#prompt?.done, this.#team, this.#tested])
  }

  /**
   * On the GPU, if that can be.
   * @param {Core} core @param {PackedHeader} header @param {() => string | undefined} variantFor
   * @returns {Promise<AnyModel>}
   */
  async #chosenModel(core, { config }, variantFor) {
    try {
      const { device, note, tested } = await chooseDevice(core, config, this.#options)
      this.#note = note ?? this.#note
      this.#tested = tested
      this.#failLoadOn(tested)
      this.#losses.isOnGpu = device !== null
      if (device) return await createOn(core, device, config, this.#options)
      return core.createModel(config, { variant: variantFor(), head: this.#options.head })
    } catch (error) {
      this.#stop.abort(error)
      throw error
    }
  }

  /**
   * The model that guesses, beside the one that is loaded: ids must mean the same to both.
   * @param {Core} core @param {PackedHeader} header @returns {Promise<import('./core-model.js').CoreModel | null>}
   */
  async #loadDraftModel(core, header) {
    const { draftSource, download } = this.#options
    if (!draftSource) return null
    const { signal } = this.#stop
    // Pinned is the model itself.
    const options = {
      ...download,
      identity: null,
      headers: isElsewhere(draftSource, this.#source) ? {} : download.headers,
    }
    const control = { meter: new LoadMeter(undefined), signal }
    return withFile(draftSource, options, control, async (file) => {
      /** @type {string | null} */
      let json = null
      const onTokenizer = (/** @type {string} */ text) => {
        json = text
      }
      const loaded = await loadModel(core, file, {}, { onTokenizer })
      const isSame =
        loaded.header.config.vocab_size === header.config.vocab_size &&
        json === (await this.#tokenizerJson)
      if (isSame) return loaded.model
      loaded.model.close()
      throw new BmError('mismatch', `${file.name}: the draft model has another tokenizer`)
    })
  }

  /**
   * The memory is there: what else can be begun.
   * @param {Core} core @param {AnyModel} model @param {PackedHeader} header
   */
  async #begin(core, model, header) {
    const { precision, state, threads, threadUrl, prompt } = this.#options
    this.#model = model
    this.#team = core.startTeam(
      core.isShared ? threadsFor(threads, header.fileBytes) : 1,
      threadUrl,
    )
    // A session shares its work with the team that there is when it is made.
    const session = model instanceof GpuModel ? null : model.createSession({ precision, state })
    if (!header.hasTokenizer) this.#giveTokenizer(null)
    this.#tokenizer = this.#makeTokenizer(header)
    if (prompt !== undefined && session) {
      this.#prompt = new EarlyPrompt(session, this.#promptIds(header, prompt))
      this.#failLoadOn(this.#prompt.done)
    }
    this.#failLoadOn(this.#team)
    this.#failLoadOn(this.#tokenizer)
    /** @type {import('./timeline.js').AnySession | Promise<import('./timeline.js').AnySession>} */
    const created = session ?? model.createSession({ precision, state })
    this.#session = await this.#unlessStopped(created)
  }

  /** Nobody waits for shaders of what has failed already. @template T @param {T | Promise<T>} work @returns {Promise<T>} */
  #unlessStopped(work) {
    const { signal } = this.#stop
    return new Promise((resolve, reject) => {
      const stop = () => reject(signal.reason)
      if (signal.aborted) stop()
      signal.addEventListener('abort', stop, { once: true })
      Promise.resolve(work)
        .then(resolve, reject)
        .finally(() => signal.removeEventListener('abort', stop))
    })
  }

  /** What cannot be used need not be downloaded to its end. @param {Promise<unknown>} work */
  #failLoadOn(work) {
    work.catch((error) => {
      if (!this.#isOver) this.#stop.abort(error)
    })
  }

  /** @param {PackedHeader} header */
  async #makeTokenizer({ config, eosIds, bosId }) {
    const json = await this.#tokenizerJson
    if (json === null) return null
    const reservedIds = [...eosIds, ...(bosId === null ? [] : [bosId])]
    return createTokenizer(json, { paddedVocabSize: config.padded_vocab_size, reservedIds })
  }

  /** @param {PackedHeader} header @param {string | Uint32Array} prompt */
  async #promptIds({ bosId, addBos, config }, prompt) {
    const isText = typeof prompt === 'string'
    const tokenizer = isText ? await this.#tokenizer : null
    const checked = isText ? prompt : checkIds(prompt, config.vocab_size, 'prompt')
    const ids = await promptIds({ bosId, addBos, tokenizer }, checked, null, this.#stop.signal)
    // With threads from the first token on.
    await this.#team
    return ids
  }
}
