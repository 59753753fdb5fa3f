/**
 * A loaded model and all that works on it: core, tokenizer, its own timeline and the sessions of its users.
 *
 * Owns the rule that the model's own timeline does one thing at a time, and taking all of it down; js/startup.js sets it up. The same class runs in a worker (js/worker.js) and, with `inline`, in the caller's thread; js/remote.js has the same
 * methods. Knows nothing of messages, and trusts its arguments: js/model.js has checked them.
 */

import { Formats } from './constraint.js'
import { detokenize, TokenBytes } from './detokenizer.js'
import { BmError } from './errors.js'
import { projectionsOf } from './format.js'
import { evaluate, generate, newStats } from './generate.js'
import { DeviceFailure } from './gpu/gpu-device.js'
import { GpuModel } from './gpu/gpu-model.js'
import { needBos, needTokenizer, promptIds } from './prompt-ids.js'
import { MOST_LOSSES } from './recovery.js'
import { SessionHost } from './session-host.js'
import { Timeline } from './timeline.js'

/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./generate.js').Stats} Stats */
/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {import('./tokenizer.js').Tokenizer} Tokenizer */

/**
 * Plain data, so that it can cross to a worker.
 *
 * @typedef {object} EngineOptions
 * @property {'fast' | 'high' | 'exact'} precision
 * @property {'f32' | 'i16'} state
 * @property {'file' | 'int4'} head
 * @property {'wasm' | 'webgpu' | 'auto'} device
 * @property {number | 'auto'} threads
 * @property {string} [variant]
 * @property {string} [wasmUrl] absolute
 * @property {string} [threadUrl] absolute
 * @property {string | Uint32Array} [prompt] to read while the model loads
 * @property {import('./source.js').SourceDescriptor} [draftSource] of a smaller model, which guesses
 * @property {import('./source.js').FetchOptions} download
 */

/**
 * What is known of a loaded model.
 *
 * @typedef {object} ModelInfo
 * @property {string} identity     SHA-256 of the file's header, which holds the hashes of the rest; lower-case hex
 * @property {number} fileBytes
 * @property {number} memoryBytes  of the engine: weights, state and buffers
 * @property {number} stateBytes   of one text: all that the model remembers of it, however long it is
 * @property {import('./format.js').Projections} projections  how in_proj and out_proj are stored
 * @property {'fast' | 'high' | 'exact'} precision
 * @property {'f32' | 'i16'} state
 * @property {'int8' | 'int4' | 'f16' | 'f32'} head  the type of the weights that give the logits
 * @property {'wasm' | 'webgpu'} device  that computes
 * @property {string | null} deviceNote  why not the GPU, where `device: 'auto'` has looked for one, or how a GPU was lost
 * @property {number | null} backupTokens  on the GPU: each text's state is copied from there every so many tokens, so no more of them are read again when it
 *                                 is lost; null: WebAssembly, which is not
 * @property {string} variant      the kernel family: as asked for, or the quickest here. No result depends on it
 * @property {'plain' | 'relaxed'} simd  of the module: 'relaxed' where the JavaScript engine has relaxed SIMD. No result depends on it
 * @property {number} threads      that were started; how many of them work is found by what tokens cost
 * @property {boolean} hasTokenizer
 * @property {number | null} bosId
 * @property {number[]} eosIds
 * @property {boolean} addBos      a prompt begins with BOS unless the caller says otherwise
 * @property {string | null} chatTemplate
 * @property {string} source       where the weights come from
 * @property {string} licence      of the weights
 * @property {import('./download.js').CacheReport | null} cache  how a remote file came and where it is kept; null for others
 */

/**
 * What is in memory now.
 *
 * @typedef {object} MemoryUse
 * @property {number} engineBytes  WebAssembly memory: weights, and for each session its state and what it works in. It never shrinks;
 *                                 what is freed is used again
 * @property {number} sessions     that are open
 * @property {number} snapshots    that are open
 * @property {number} keptBytes    states of snapshots, checkpoints and, with a GPU, backups, outside of the engine's memory
 */

/** @typedef {{ config: import('./format.js').ModelConfig, info: ModelInfo }} Description */

export class Engine {
  #core
  #threads
  #model
  /** What `generate` and `evaluate` of the model itself work on. */
  #timeline
  #sessions
  #header
  #options
  #deviceNote
  #reload
  /** @type {Description | null} */
  #description = null
  /** @type {Promise<import('./generate.js').AnyModel> | null} another device takes over */
  #takeover = null
  /** How often a GPU was lost. */
  #losses
  #tokenizer
  #table
  #formats
  #cache
  /** @type {Uint32Array | null} what the session has read of a prompt that no job has asked for yet */
  #readIds
  #busy = false
  #closed = false
  /** @type {Stats | null} of the last generation that has ended */
  stats = null

  /**
   * @param {object} parts
   * @param {import('./core.js').Core} parts.core
   * @param {import('./generate.js').AnyModel} parts.model
   * @param {import('./timeline.js').AnySession} parts.session
   * @param {PackedHeader} parts.header
   * @param {Tokenizer | null} parts.tokenizer
   * @param {EngineOptions} parts.options
   * @param {string | null} [parts.deviceNote]
   * @param {((core: import('./core.js').Core, device: 'wasm' | 'webgpu') => Promise<{ model: import('./generate.js').AnyModel, header: PackedHeader }>) | null} [parts.reload]
   *   the same model again
   * @param {number} [parts.losses]  of GPUs while it was loaded
   * @param {import('./download.js').CacheReport | null} parts.cache
   * @param {Uint32Array | null} parts.readIds  what the session has read already
   * @param {import('./core-model.js').CoreModel | null} [parts.draftModel]  of the same vocabulary
   */
  constructor(parts) {
    const { core, model, session, header, tokenizer, options, cache, readIds } = parts
    this.#core = core
    // Later this is how many of them work.
    this.#threads = core.threads
    this.#model = model
    this.#timeline = new Timeline(session, { seed: 0, checkpointBytes: 0 })
    this.#header = header
    this.#tokenizer = tokenizer
    this.#table = tokenizer && new TokenBytes(tokenizer.file)
    this.#formats = new Formats(this.#table, header.config.vocab_size)
    this.#options = options
    this.#deviceNote = parts.deviceNote ?? null
    this.#reload = parts.reload ?? null
    this.#losses = parts.losses ?? 0
    this.#cache = cache
    this.#readIds = readIds
    const shared = {
      core,
      model,
      header,
      tokenizer,
      table: this.#table,
      formats: this.#formats,
      options,
      drafts: draftsOf(parts.draftModel ?? null, options),
    }
    this.#sessions = new SessionHost(shared, this.#recover.bind(this))
  }

  /** @returns {Description} the same object until something in it changes */
  describe() {
    this.#description ??= this.#newDescription()
    return this.#description
  }

  /** @returns {Description} */
  #newDescription() {
    const {
      config,
      identity,
      fileBytes,
      hasTokenizer,
      bosId,
      eosIds,
      addBos,
      chatTemplate,
      source,
      licence,
    } = this.#header
    const { state } = this.#options
    const model = this.#model
    const { variant, head } = model
    const isGpu = model instanceof GpuModel
    const precision = isGpu ? model.precision : this.#options.precision
    const { memoryBytes, simd } = this.#core
    const threads = this.#threads
    const file = {
      identity,
      fileBytes,
      hasTokenizer,
      bosId,
      eosIds,
      addBos,
      chatTemplate,
      source,
      licence,
    }
    return {
      config,
      info: {
        ...file,
        memoryBytes,
        stateBytes: this.#core.stateBytes(config, state),
        projections: projectionsOf(config),
        precision,
        state,
        head,
        device: isGpu ? 'webgpu' : 'wasm',
        deviceNote: this.#deviceNote,
        backupTokens: isGpu ? model.backupTokens : null,
        variant,
        simd,
        threads,
        cache: this.#cache,
      },
    }
  }

  /**
   * @param {string} text
   * @param {boolean} bos
   * @param {AbortSignal} [signal]
   * @returns {Promise<Uint32Array>}
   */
  async tokenize(text, bos, signal) {
    const ids = await this.#needTokenizer().encode(text, signal)
    this.#checkOpen()
    return Uint32Array.from(bos ? [needBos(this.#header), ...ids] : ids)
  }

  /** @param {ArrayLike<number>} ids @returns {Promise<Uint8Array<ArrayBuffer>[]>} */
  async tokenBytes(ids) {
    this.#needTokenizer()
    return Array.from(ids, (id) => Uint8Array.from(this.#table?.of(id) ?? []))
  }

  /**
   * @param {ArrayLike<number>} ids
   * @returns {Promise<string>}
   */
  async detokenize(ids) {
    this.#needTokenizer()
    return this.#table ? detokenize(this.#table, ids) : ''
  }

  /**
   * @param {string | Uint32Array} prompt
   * @param {Settings} settings
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<string, Stats, void>} pieces of text, none of them empty
   */
  async *generate(prompt, settings, signal) {
    this.#needTokenizer()
    const pieces = this.#exclusive(() => this.#generate(prompt, settings, signal))
    for await (const { text } of pieces) if (text) yield text
    return /** @type {Stats} */ (this.stats)
  }

  /**
   * @param {string | Uint32Array} prompt
   * @param {Settings} settings
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<number, Stats, void>}
   */
  async *generateIds(prompt, settings, signal) {
    if (settings.stop.length > 0) this.#needTokenizer()
    const pieces = this.#exclusive(() => this.#generate(prompt, settings, signal))
    for await (const { id } of pieces) if (id !== null) yield id
    return /** @type {Stats} */ (this.stats)
  }

  /**
   * @param {Uint32Array} ids
   * @param {boolean} logits
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<import('./generate.js').Scored[], void, void>}
   */
  async *evaluate(ids, logits, signal) {
    const vocabSize = this.#header.config.vocab_size
    const job = { timeline: this.#timeline, vocabSize, logits, ...(signal ? { signal } : {}) }
    const run = () =>
      this.#exclusive(() => {
        this.#readIds = null
        this.#timeline.restart(ids)
        return evaluate(job)
      })
    let given = 0
    try {
      for await (const batch of run()) {
        given++
        yield batch
      }
    } catch (error) {
      // What was given out has numbers of the GPU: the rest would not be of one piece.
      if (!(await this.#recover(error)) || given > 0) throw error
      yield* run()
    }
  }

  /**
   * When the GPU is lost it is opened again, once, and then WebAssembly goes on: the weights come from where they came from, and each text from its last checkpoint or backup.
   *
   * @param {unknown} error
   * @returns {Promise<import('./generate.js').AnyModel | null>} the model that computes now; null: the error stands
   */
  async #recover(error) {
    if (!(error instanceof DeviceFailure) || !this.#reload || this.#closed) return null
    const model = this.#model
    // It may be told late, by a text that was waiting.
    if (!(model instanceof GpuModel) || model.device !== error.device) return model
    this.#takeover ??= this.#replace(this.#reload, error.message).finally(() => {
      this.#takeover = null
    })
    try {
      return await this.#takeover
    } catch {
      return null
    }
  }

  /** @typedef {NonNullable<ConstructorParameters<typeof Engine>[0]['reload']>} Reload */

  /** @param {Reload} reload @param {string} why */
  async #replace(reload, why) {
    if (++this.#losses < MOST_LOSSES) {
      try {
        return await this.#moveTo(reload, 'webgpu', `${why}; it was opened again`)
      } catch {
        // Not even now: WebAssembly then.
      }
    }
    return this.#moveTo(reload, 'wasm', `${why}; the processor goes on`)
  }

  /** @param {Reload} reload @param {'wasm' | 'webgpu'} device @param {string} note */
  async #moveTo(reload, device, note) {
    const { model, header } = await reload(this.#core, device)
    try {
      if (header.identity !== this.#header.identity || this.#closed) {
        throw new BmError('gpu', 'the file is another one now')
      }
      const own = await model.createSession(this.#options)
      await this.#sessions.moveTo(model)
      this.#checkOpen()
      this.#timeline.moveTo(own)
    } catch (error) {
      model.close()
      throw error
    }
    this.#model.close()
    this.#model = model
    this.#deviceNote = note
    this.#description = null
    return model
  }

  /** @returns {Promise<MemoryUse>} */
  async memory() {
    this.#checkOpen()
    return { engineBytes: this.#core.memoryBytes, ...this.#sessions.memory() }
  }

  /** @param {import('./session-host.js').SessionOptions} options @returns {Promise<number>} a new session */
  async createSession(options) {
    this.#checkOpen()
    return this.#sessions.create(options)
  }

  /**
   * @param {Uint8Array} bytes of a saved session
   * @param {{ checkpointBytes: number }} options
   * @returns {ReturnType<SessionHost['load']>}
   */
  async loadSession(bytes, options) {
    this.#checkOpen()
    const loaded = await this.#sessions.load(bytes, options)
    this.#checkOpen()
    return loaded
  }

  /**
   * @param {number} id of a session
   * @param {import('./session-host.js').SessionAction} action
   * @param {unknown[]} args
   * @param {AbortSignal} [signal]
   * @returns {Promise<import('./session-host.js').Outcome>}
   */
  async act(id, action, args, signal) {
    this.#checkOpen()
    return this.#whileOpen(this.#sessions.act(id, action, args, signal))
  }

  /** @param {number} id */
  async closeSession(id) {
    if (!this.#closed) this.#sessions.close(id)
  }

  /** @param {number} id */
  async closeSnapshot(id) {
    this.#sessions.closeSnapshot(id)
  }

  /**
   * @param {number[]} ids of sessions
   * @param {Settings[]} settings one for each
   * @param {AbortSignal | undefined} signal
   * @param {Stats[]} stats gets one for each session, however that ends; none when the work was refused
   * @returns {AsyncGenerator<import('./generate.js').GeneratedPiece, Stats[], void>}
   */
  async *continueSessions(ids, settings, signal, stats) {
    yield* this.#whileOpenEach(this.#sessions.generate(ids, settings, stats, signal))
    return stats
  }

  /**
   * @param {number} id of a session
   * @param {readonly import('./chat-template.js').ChatMessage[]} messages
   * @param {Settings} settings
   * @param {AbortSignal | undefined} signal
   * @param {Stats[]} stats as for `continueSessions`
   * @returns {AsyncGenerator<import('./generate.js').GeneratedPiece, Stats[], void>}
   */
  async *replyInSession(id, messages, settings, signal, stats) {
    yield* this.#whileOpenEach(this.#sessions.reply(id, messages, settings, stats, signal))
    return stats
  }

  /** @param {AsyncGenerator<import('./generate.js').GeneratedPiece, void, void>} pieces */
  async *#whileOpenEach(pieces) {
    this.#checkOpen()
    try {
      for await (const piece of pieces) {
        yield piece
        this.#checkOpen()
      }
    } catch (error) {
      this.#checkOpen()
      throw error
    }
  }

  /** @template T @param {Promise<T>} work @returns {Promise<T>} what fails because the engine was closed says so */
  async #whileOpen(work) {
    try {
      return await work
    } finally {
      this.#checkOpen()
    }
  }

  /** Frees the engine's memory; a generation that is under way fails with `closed`. */
  async close() {
    if (this.#closed) return
    this.#closed = true
    this.#sessions.closeAll()
    this.#model.close()
    this.#core.close()
  }

  /**
   * @param {string | Uint32Array} prompt
   * @param {Settings} settings
   * @param {AbortSignal} [signal]
   */
  async *#generate(prompt, settings, signal) {
    const stats = newStats(settings.seed ?? 0)
    const { bosId, addBos, eosIds } = this.#header
    try {
      const format = await this.#formats.prepare(settings.format)
      const reader = { bosId, addBos, tokenizer: this.#tokenizer }
      const ids = await promptIds(reader, prompt, settings.bos, signal)
      this.#checkOpen()
      this.#timeline.restart(ids, this.#takeRead(ids))
      const lanes = [{ timeline: this.#timeline, settings, format, stats }]
      const recover = this.#recover.bind(this)
      const { drafts } = this.#sessions.parts
      const shared = { model: this.#model, lanes, eosIds, table: this.#table, drafts }
      const job = { ...shared, isLast: true, recover }
      yield* generate(signal ? { ...job, signal } : job)
    } catch (error) {
      if (!signal?.aborted) stats.finishReason = 'error'
      throw error
    } finally {
      this.stats = stats
    }
  }

  /**
   * What was read while loading helps one prompt, if that begins so.
   * @param {Uint32Array} ids @returns {number} of them that the session has read already
   */
  #takeRead(ids) {
    const read = this.#readIds
    this.#readIds = null
    return read?.every((id, i) => id === ids[i]) ? read.length : 0
  }

  /**
   * One job at a time: there is one session.
   *
   * @template T
   * @param {() => AsyncGenerator<T, void, void>} start
   * @returns {AsyncGenerator<T, void, void>}
   */
  async *#exclusive(start) {
    this.#checkOpen()
    if (this.#busy) {
      throw new BmError('busy', 'the model is already generating or scoring: one at a time')
    }
    this.#busy = true
    const job = start()
    try {
      for (;;) {
        const { done, value } = await job.next()
        this.#checkOpen()
        if (done) return
        yield value
        this.#checkOpen()
      }
    } catch (error) {
      this.#checkOpen()
      throw error
    } finally {
      await job.return()
      this.#busy = false
    }
  }

  #checkOpen() {
    if (this.#closed) throw new BmError('closed', 'the model was closed')
  }

  #needTokenizer() {
    this.#checkOpen()
    return needTokenizer({ tokenizer: this.#tokenizer })
  }
}

/**
 * Sessions of the model that guesses. Its guesses need not be exact, so they are as quick as can be.
 * @param {import('./core-model.js').CoreModel | null} model @param {EngineOptions} options
 */
function draftsOf(model, { state }) {
  return model ? () => model.createSession({ precision: 'fast', state }) : undefined
}
