/**
 * A loaded model and all that works on it: core, session, tokenizer.
 *
 * Owns the order of setting up and taking down, which prompt ids a text becomes, and the rule that a model does one thing at
 * a time. The same class runs in a worker (js/worker.js) and, with `inline`, in the caller's thread; js/remote.js has the same
 * methods. Knows nothing of messages, and trusts its arguments: js/model.js has checked them.
 */

import { Core } from './core.js'
import { detokenize, TokenBytes } from './detokenizer.js'
import { BmError } from './errors.js'
import { evaluate, generate } from './generate.js'
import { isWorthChoosing, quickestVariant } from './kernel-choice.js'
import { loadModel } from './loader.js'
import { coreCount, mayHaveThreads } from './platform.js'
import { openSource } from './source.js'
import { createTokenizer } from './tokenizer.js'

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
 * @property {number | 'auto'} threads
 * @property {string} [variant]
 * @property {string} [wasmUrl] absolute
 * @property {string} [threadUrl] absolute
 */

/**
 * What is known of a loaded model.
 *
 * @typedef {object} ModelInfo
 * @property {string} identity     SHA-256 of the file's header, which holds the hashes of the rest; lower-case hex
 * @property {number} fileBytes
 * @property {number} memoryBytes  of the engine: weights, state and buffers
 * @property {'fast' | 'high' | 'exact'} precision
 * @property {'f32' | 'i16'} state
 * @property {'int8' | 'int4' | 'f16' | 'f32'} head  the type of the weights that give the logits
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
 */

/** @typedef {{ config: import('./format.js').ModelConfig, info: ModelInfo }} Description */

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

export class Engine {
  #core
  #model
  #session
  #header
  #options
  #tokenizer
  #table
  #busy = false
  #closed = false
  /** @type {Stats | null} of the last generation that has ended */
  stats = null

  /**
   * @param {object} parts
   * @param {Core} parts.core
   * @param {import('./core.js').CoreModel} parts.model
   * @param {import('./core.js').CoreSession} parts.session
   * @param {PackedHeader} parts.header
   * @param {Tokenizer | null} parts.tokenizer
   * @param {EngineOptions} parts.options
   */
  constructor({ core, model, session, header, tokenizer, options }) {
    this.#core = core
    this.#model = model
    this.#session = session
    this.#header = header
    this.#tokenizer = tokenizer
    this.#table = tokenizer && new TokenBytes(tokenizer.file)
    this.#options = options
  }

  /**
   * @param {import('./source.js').SourceDescriptor} source
   * @param {EngineOptions} options
   * @param {{ onProgress?: ((progress: import('./settings.js').Progress) => void) | undefined, signal?: AbortSignal | undefined }} [control]
   * @returns {Promise<Engine>}
   */
  static async load(source, options, { onProgress, signal } = {}) {
    signal?.throwIfAborted()
    const { precision, state, head, variant, wasmUrl, threads, threadUrl } = options
    const most = threads === 'auto' ? coreCount() : threads
    const shared = most > 1 && mayHaveThreads()
    const core = await Core.create({ wasm: wasmUrl, shared, signal })
    const variantFor = (/** @type {PackedHeader} */ { fileBytes }) =>
      variant ?? (isWorthChoosing(fileBytes) ? quickestVariant(core, { precision }) : undefined)
    const control = { variantFor, head, onProgress, signal }
    const loaded = await loadModel(core, openSource(source), control)
    const { model, header, tokenizerJson } = loaded
    // A thread whose script does not come would be awaited for ever.
    const onAbort = () => core.close()
    signal?.addEventListener('abort', onAbort)
    try {
      await core.startTeam(core.isShared ? threadsFor(threads, header.fileBytes) : 1, threadUrl)
      const { padded_vocab_size: paddedVocabSize } = header.config
      const reservedIds = [...header.eosIds, ...(header.bosId === null ? [] : [header.bosId])]
      const tokenizer =
        tokenizerJson === null
          ? null
          : await createTokenizer(tokenizerJson, { paddedVocabSize, reservedIds })
      signal?.throwIfAborted()
      const session = model.createSession({ precision, state })
      return new Engine({ core, model, session, header, tokenizer, options })
    } catch (error) {
      model.close()
      core.close()
      signal?.throwIfAborted()
      throw error
    } finally {
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** @returns {Description} */
  describe() {
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
    const { precision, state } = this.#options
    const { variant, head } = this.#model
    const { memoryBytes, simd, threads } = this.#core
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
      info: { ...file, memoryBytes, precision, state, head, variant, simd, threads },
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
    return Uint32Array.from(bos ? [this.#needBos(), ...ids] : ids)
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
    const job = { session: this.#session, ids, vocabSize, logits, ...(signal ? { signal } : {}) }
    yield* this.#exclusive(() => evaluate(job))
  }

  /** Frees the engine's memory; a generation that is under way fails with `closed`. */
  async close() {
    if (this.#closed) return
    this.#closed = true
    this.#session.close()
    this.#model.close()
    this.#core.close()
  }

  /**
   * @param {string | Uint32Array} prompt
   * @param {Settings} settings
   * @param {AbortSignal} [signal]
   */
  async *#generate(prompt, settings, signal) {
    /** @type {Stats} */
    const stats = {
      promptTokens: 0,
      tokens: 0,
      finishReason: 'abort',
      seed: settings.seed,
      prefillMs: 0,
      decodeMs: 0,
    }
    const { eosIds } = this.#header
    const job = { session: this.#session, eosIds, table: this.#table, settings, stats }
    try {
      const ids = await this.#promptIds(prompt, settings.bos, signal)
      stats.promptTokens = ids.length
      yield* generate({ ...job, prompt: ids, ...(signal ? { signal } : {}) })
    } catch (error) {
      if (!signal?.aborted) stats.finishReason = 'error'
      throw error
    } finally {
      this.stats = stats
    }
  }

  /**
   * Text begins with BOS as the file says, ids are taken as they are; an empty prompt begins with BOS in any case.
   *
   * @param {string | Uint32Array} prompt
   * @param {boolean | null} bos
   * @param {AbortSignal} [signal]
   * @returns {Promise<Uint32Array>}
   */
  async #promptIds(prompt, bos, signal) {
    const isText = typeof prompt === 'string'
    const { addBos, bosId } = this.#header
    const wantsBos = bos ?? (prompt.length === 0 ? bosId !== null : isText && addBos)
    const first = wantsBos ? [this.#needBos()] : []
    const ids = isText ? await this.#needTokenizer().encode(prompt, signal) : prompt
    if (first.length + ids.length === 0) {
      throw new BmError('argument', 'the prompt is empty and there is no BOS token to start from')
    }
    const all = new Uint32Array(first.length + ids.length)
    all.set(first)
    all.set(ids, first.length)
    return all
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
    if (this.#tokenizer) return this.#tokenizer
    throw new BmError('tokenizer', 'the model file has no tokenizer: it works on token ids only')
  }

  #needBos() {
    const { bosId } = this.#header
    if (bosId !== null) return bosId
    throw new BmError('argument', 'bos: the model has no BOS token')
  }
}
