/**
 * The public model: what a program holds.
 *
 * Owns the checks of every argument and the life of the engine behind it, which is in a worker or, with `inline`, in this thread. Does no
 * computation and knows no message.
 */

import { checkBenchmark } from './benchmark-settings.js'
import { BmError } from './errors.js'
import { isWorthChoosing } from './kernel-choice.js'
import { scoreContinuations } from './loglikelihood.js'
import { ModelCache } from './model-cache.js'
import { absoluteUrl, askToPersist } from './platform.js'
import { RemoteEngine } from './remote.js'
import { continueSessions, mapped, Session } from './session.js'
import { checkCount, checkCreateSession, checkSessionGenerate } from './session-settings.js'
import {
  checkFlag,
  checkGenerate,
  checkIds,
  checkLoad,
  checkNames,
  checkPull,
  checkSignal,
} from './settings.js'
import { describeSource } from './source.js'

/** @typedef {import('./settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./settings.js').LoadOptions} LoadOptions */
/** @typedef {import('./session-settings.js').CreateSessionOptions} CreateSessionOptions */
/** @typedef {import('./session-settings.js').SessionGenerateOptions} SessionGenerateOptions */
/** @typedef {import('./source.js').ModelSource} ModelSource */
/** @typedef {import('./generate.js').Stats} Stats */
/** @typedef {import('./generate.js').Scored} Scored */

/** What only an engine in this thread needs: a page that has it in a worker does not load that. */
const engineHere = () => import('./startup.js')

/** As many ids as an array of them may have. */
const MOST_READ = 2 ** 28

/** Kernel families found to be the quickest here, by precision and module: each is looked for once. @type {Map<string, string>} */
const quickestFamilies = new Map()

/**
 * A loaded model. It does one thing at a time: a second `generate` (or `evaluate`) while one is running throws `busy`.
 * An argument of the wrong type, name or range throws `argument`; after `close()` everything throws `closed`.
 */
export class BiMamba {
  #engine
  /** @type {Promise<void> | null} */
  #closing = null

  /** Use `BiMamba.load`. @param {import('./engine.js').Engine | RemoteEngine} engine */
  constructor(engine) {
    this.#engine = engine
  }

  /** The files that are kept on this device. */
  static get cache() {
    return new ModelCache()
  }

  /**
   * Loads a packed model. The bytes stream straight into the engine; each chunk is checked by its SHA-256 first. A file on a server is
   * kept on this device, and what is there already is not fetched again.
   *
   * @param {ModelSource} source a URL, or `hf:OWNER/REPO[@REVISION][/FILE]` (default revision main, file model.safetensors), in Node also a
   *   path; or the file's bytes (they stay the caller's), a Blob, or an open file: a FileSystemFileHandle, or Node's FileHandle
   * @param {LoadOptions} [options]
   * @returns {Promise<BiMamba>}
   * @throws {BmError} `argument`, `network` (no answer, a status that is not OK, an early end), `io`, `format`,
   *   `integrity`, `config`, `tokenizer`, `memory`, `storage` (with `cache: 'only'`), `unsupported`; or `signal.reason`
   */
  static async load(source, options = {}) {
    const checked = checkLoad(options)
    const { precision, state, head, device, threads, variant, inline, onProgress, signal } = checked
    const { wasmUrl, workerUrl, threadUrl, prompt, draftModel, download } = checked
    const family = `${precision} ${wasmUrl ?? ''}`
    const known = variant ?? quickestFamilies.get(family)
    const engineOptions = {
      precision,
      state,
      head,
      device,
      threads,
      download,
      ...(known === undefined ? {} : { variant: known }),
      ...(wasmUrl === undefined ? {} : { wasmUrl: absoluteUrl(wasmUrl) }),
      ...(threadUrl === undefined ? {} : { threadUrl: absoluteUrl(threadUrl) }),
      ...(prompt === undefined ? {} : { prompt: checkPrompt(prompt) }),
      ...(draftModel === undefined
        ? {}
        : { draftSource: describeSource(draftModel, checked.fetch) }),
    }
    const descriptor = describeSource(source, checked.fetch)
    const worker = workerUrl === undefined ? undefined : absoluteUrl(workerUrl)
    const engine = inline
      ? await (await engineHere()).startEngine(descriptor, engineOptions, { onProgress, signal })
      : await RemoteEngine.load(descriptor, engineOptions, {
          workerUrl: worker,
          onProgress,
          signal,
        })
    if (engine.describe().info.cache?.store) askToPersist()
    const model = new BiMamba(engine)
    if (
      known === undefined &&
      isWorthChoosing(model.info.fileBytes) &&
      model.info.device === 'wasm' &&
      !model.config.projection_dtype
    ) {
      quickestFamilies.set(family, model.info.variant)
    }
    return model
  }

  /**
   * Reads what a file says about itself, and none of its weights: enough to ask a user before a large download. What is kept on this device
   * answers without a request.
   *
   * @param {ModelSource} source as for `load`
   * @param {import('./settings.js').FetchSettings & { inline?: boolean, workerUrl?: string | URL, wasmUrl?: string | URL }} [options]
   * @returns {Promise<import('./startup.js').FileDescription>}
   * @throws {BmError} as `load` does
   */
  static async inspect(source, options = {}) {
    const download = checkPull(options, 'inspect')
    const { inline, workerUrl, wasmUrl, signal, fetch } = options
    const descriptor = describeSource(source, fetch)
    const request = {
      download,
      ...(wasmUrl === undefined ? {} : { wasmUrl: absoluteUrl(wasmUrl) }),
    }
    if (inline) return (await engineHere()).inspectModel(descriptor, request, { signal })
    const job = /** @type {const} */ ({ kind: 'inspect', source: descriptor, options: request })
    const worker = workerUrl === undefined ? undefined : absoluteUrl(workerUrl)
    const found = await RemoteEngine.once(job, { workerUrl: worker, signal })
    return /** @type {import('./startup.js').FileDescription} */ (found)
  }

  /**
   * Measures what a model costs on this machine, and how fast its memory is: decoding, prompts, and every step of a token, in an engine
   * of its own. Takes some seconds a setting, and the memory of one model for each. What `bimamba bench` prints is its `text`.
   *
   * @param {import('./benchmark-settings.js').BenchmarkOptions} options
   * @returns {Promise<import('./bench/benchmark.js').Benchmark>}
   * @throws {BmError} `argument`; `unsupported`: more than one thread where memory cannot be shared; as `load` does
   */
  static async benchmark(options) {
    const { source, settings } = checkBenchmark(options)
    const { onProgress, signal, workerUrl } = options
    const job = /** @type {const} */ ({ kind: 'bench', source, options: settings })
    const worker = workerUrl === undefined ? undefined : absoluteUrl(workerUrl)
    const measured = await RemoteEngine.once(job, { workerUrl: worker, onProgress, signal })
    return /** @type {import('./bench/benchmark.js').Benchmark} */ (measured)
  }

  /** The model's shape: layers, widths, vocabulary. */
  get config() {
    return this.#engine.describe().config
  }

  /** Identity, sizes, special ids, precision, kernel family, SIMD, threads, source and licence. */
  get info() {
    return this.#engine.describe().info
  }

  /** @returns {Stats | null} of the last generation that has ended: tokens, times, the seed, why it ended */
  get lastStats() {
    return this.#engine.stats
  }

  /**
   * Continues a prompt. Nothing is computed before the first piece is asked for; leaving the loop stops the work.
   *
   * @param {string | ArrayLike<number>} prompt text, or token ids taken as they are; empty: from the BOS token
   * @param {GenerateOptions} [options]
   * @returns {AsyncGenerator<string, Stats, void>} pieces of text, whole characters all of them; its return value is the
   *   same as `lastStats`
   * @throws {BmError} `argument`, `busy`, `closed`, `tokenizer`, `numeric`, `internal`; or `signal.reason`
   */
  async *generate(prompt, options = {}) {
    const [checked, settings] = this.#checkJob(prompt, options)
    return yield* this.#engine.generate(checked, settings, options.signal)
  }

  /**
   * Like `generate`, but gives token ids, those of a stop string included. Works without a tokenizer too, when the prompt
   * is ids and nothing is to stop it.
   *
   * @param {string | ArrayLike<number>} prompt
   * @param {GenerateOptions} [options]
   * @returns {AsyncGenerator<number, Stats, void>}
   */
  async *generateIds(prompt, options = {}) {
    const [checked, settings] = this.#checkJob(prompt, options)
    return yield* this.#engine.generateIds(checked, settings, options.signal)
  }

  /**
   * A session: a text of its own, which can be added to, continued, gone back in, forked and saved. Any number of them work side by
   * side, each with the memory of a state.
   *
   * @param {CreateSessionOptions} [options]
   * @returns {Promise<Session>} empty
   * @throws {BmError} `argument`, `closed`, `memory`
   */
  async createSession(options = {}) {
    this.#checkOpen()
    const checked = checkCreateSession(options, 'createSession')
    return new Session(this.#owner, await this.#engine.createSession(checked), 0)
  }

  /**
   * A session that was saved. It goes on where it was, without reading anything again: its text, state, random numbers and chat.
   *
   * @param {Uint8Array | ArrayBuffer | Blob} saved what `session.save` gave, of the same model; stays the caller's
   * @param {Omit<CreateSessionOptions, 'seed'>} [options]
   * @returns {Promise<Session>}
   * @throws {BmError} `format`: no saved session, another version, or cut off; `integrity`: damaged; `mismatch`: of another
   *   model; `argument`, `closed`, `memory`
   */
  async loadSession(saved, options = {}) {
    this.#checkOpen()
    checkNames(options, ['checkpointBytes'], 'loadSession')
    const { checkpointBytes } = checkCreateSession(options, 'loadSession')
    const bytes = await bytesOf(saved)
    const { id, position } = await this.#engine.loadSession(bytes, { checkpointBytes })
    return new Session(this.#owner, id, position)
  }

  /**
   * Continues several sessions of this model together: the weights are read once for all, and each is, to the bit, as it would be alone.
   *
   * @param {readonly Session[]} sessions all different, 1 to 64
   * @param {SessionGenerateOptions | readonly SessionGenerateOptions[]} [options] for all, or one for each. Only the first one's `signal` counts
   * @returns {AsyncGenerator<{ index: number, text: string }, Stats[], void>} pieces of the text of session `index`
   */
  async *generateTogether(sessions, options = {}) {
    this.#checkOpen()
    if (!Array.isArray(sessions) || !sessions.every((session) => session instanceof Session)) {
      throw new BmError('argument', 'sessions: want an array of sessions')
    }
    if (new Set(sessions).size !== sessions.length) {
      throw new BmError('argument', 'sessions: the same one twice')
    }
    checkCount('sessions.length', sessions.length, 1, 64)
    const each = Array.isArray(options) ? options : sessions.map(() => options)
    checkCount('options.length', each.length, sessions.length, sessions.length)
    const settings = each.map((one) => checkSessionGenerate(one, this.config.vocab_size))
    const pieces = continueSessions(this.#engine, sessions, settings, each[0].signal)
    return yield* mapped(pieces, ({ lane, text }) => (text ? { index: lane, text } : null))
  }

  /**
   * What the model thinks of given ids, position by position.
   *
   * @param {ArrayLike<number>} ids as they are: no BOS is added
   * @param {{ logits?: boolean, signal?: AbortSignal }} [options] logits: also give the logits after each token
   * @returns {AsyncGenerator<Scored, void, void>}
   * @throws {BmError} `argument`, `busy`, `closed`, `numeric`, `internal`; or `signal.reason`
   */
  async *evaluate(ids, options = {}) {
    this.#checkOpen()
    checkNames(options, ['logits', 'signal'], 'evaluate')
    checkFlag('logits', options.logits)
    checkSignal(options.signal)
    const list = checkIds(ids, this.config.vocab_size, 'ids')
    options.signal?.throwIfAborted()
    for await (const batch of this.#engine.evaluate(
      list,
      options.logits ?? false,
      options.signal,
    )) {
      yield* batch
    }
  }

  /**
   * @param {ArrayLike<number>} ids
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<(number | null)[]>} at t the natural log of p(ids[t] | ids before t), null at 0
   */
  async score(ids, options = {}) {
    checkNames(options, ['signal'], 'score')
    const logprobs = []
    for await (const { logprob } of this.evaluate(ids, options)) logprobs.push(logprob)
    return logprobs
  }

  /**
   * How likely each of several continuations of a text is: what multiple-choice evaluations compare. The context is read once, without BOS; text is
   * split into tokens as lm-evaluation-harness 0.4.2 does: space at the end of the context goes to the continuation, the whole is tokenized, and
   * what is behind as many tokens as the context has alone is scored.
   *
   * @param {string} context
   * @param {readonly string[]} continuations each with the space that it begins with
   * @param {{ window?: number, signal?: AbortSignal }} [options] window: most tokens that are read, 1 to 2^28; of a longer text the beginning of
   *   the context is dropped. Default 2^28
   * @returns {Promise<import('./loglikelihood.js').Loglikelihood[]>} of each continuation, in their order
   * @throws {BmError} `argument`: also for a context or continuation without tokens; `closed`, `tokenizer`, `memory`, `numeric`; or `signal.reason`
   */
  async loglikelihood(context, continuations, options = {}) {
    this.#checkOpen()
    checkNames(options, ['window', 'signal'], 'loglikelihood')
    const { window = MOST_READ, signal } = options
    checkCount('window', window, 1, MOST_READ)
    checkSignal(signal)
    const isList = Array.isArray(continuations)
    if (typeof context !== 'string' || !isList || continuations.some(isNoText)) {
      throw new BmError('argument', 'loglikelihood: want a string and an array of strings')
    }
    return scoreContinuations(this, context, continuations, { window, signal })
  }

  /**
   * @param {string} text special tokens in it are text
   * @param {{ bos?: boolean, signal?: AbortSignal }} [options] bos: put the BOS token first; default false
   * @returns {Promise<Uint32Array>}
   * @throws {BmError} `tokenizer` when the model has none
   */
  async tokenize(text, options = {}) {
    this.#checkOpen()
    checkNames(options, ['bos', 'signal'], 'tokenize')
    checkFlag('bos', options.bos)
    checkSignal(options.signal)
    if (typeof text !== 'string') {
      throw new BmError('argument', `text is of type ${typeof text}, want a string`)
    }
    options.signal?.throwIfAborted()
    return this.#engine.tokenize(text, options.bos ?? false, options.signal)
  }

  /**
   * @param {ArrayLike<number>} ids
   * @returns {Promise<string>} special tokens print nothing
   */
  async detokenize(ids) {
    this.#checkOpen()
    return this.#engine.detokenize(checkIds(ids, this.config.padded_vocab_size, 'ids'))
  }

  /**
   * What each token is made of: one that is part of a character has bytes, but no text of its own.
   *
   * @param {ArrayLike<number>} ids
   * @returns {Promise<Uint8Array<ArrayBuffer>[]>} of each id the bytes in UTF-8; none of a special token
   * @throws {BmError} `tokenizer` when the model has none
   */
  async tokenBytes(ids) {
    this.#checkOpen()
    return this.#engine.tokenBytes(checkIds(ids, this.config.padded_vocab_size, 'ids'))
  }

  /** @param {string} text @returns {Promise<number>} tokens of the text, without BOS */
  async countTokens(text) {
    return (await this.tokenize(text)).length
  }

  /** @returns {Promise<import('./engine.js').MemoryUse>} what the model, its sessions and their checkpoints take now */
  async memory() {
    this.#checkOpen()
    return this.#engine.memory()
  }

  /** Frees everything and ends the worker; what is under way throws `closed`. May be called again. */
  async close() {
    this.#closing ??= this.#engine.close()
    await this.#closing
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  #checkOpen() {
    if (this.#closing) throw new BmError('closed', 'the model was closed')
  }

  /** What its sessions need. */
  get #owner() {
    return { engine: this.#engine, vocabSize: this.config.vocab_size }
  }

  /**
   * @param {string | ArrayLike<number>} prompt
   * @param {GenerateOptions} options
   * @returns {[string | Uint32Array, import('./settings.js').Settings]}
   */
  #checkJob(prompt, options) {
    this.#checkOpen()
    const settings = checkGenerate(options, this.config.vocab_size)
    const isText = typeof prompt === 'string'
    if (!isText && (typeof prompt !== 'object' || prompt === null)) {
      throw new BmError('argument', `prompt is ${prompt}, want a string or an array of token ids`)
    }
    const checked = isText ? prompt : checkIds(prompt, this.config.vocab_size, 'prompt')
    options.signal?.throwIfAborted()
    return [checked, settings]
  }
}

/** @param {unknown} value */
const isNoText = (value) => typeof value !== 'string'

/** @param {unknown} saved @returns {Promise<Uint8Array>} */
async function bytesOf(saved) {
  if (saved instanceof Uint8Array) return saved
  if (saved instanceof ArrayBuffer) return new Uint8Array(saved)
  if (typeof Blob !== 'undefined' && saved instanceof Blob) {
    return new Uint8Array(await saved.arrayBuffer())
  }
  throw new BmError('argument', 'loadSession: want the bytes of a saved session, or a Blob of them')
}

/** Ids are checked against the vocabulary when the model is there. @param {string | ArrayLike<number>} prompt */
function checkPrompt(prompt) {
  return typeof prompt === 'string' ? prompt : checkIds(prompt, 2 ** 32, 'prompt')
}
