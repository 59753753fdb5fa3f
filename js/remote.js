/**
 * An engine in another thread: the same methods as js/engine.js, by messages.
 *
 * Owns the worker's life and the requests that await an answer. Knows nothing about models.
 * The idea: every request is answered, or rejected when the worker dies or is closed: nothing ever hangs. The process is
 * kept alive only while an answer is awaited, so a program that forgets to close a model still ends.
 */

import { BmError } from './errors.js'
import { shareSource } from './source.js'
import { VERSION } from './version.js'
import { unpackError } from './wire.js'
import { startThread } from './worker-handle.js'

/** @typedef {import('./wire.js').Answer} Answer */
/** @typedef {import('./wire.js').FirstRequest} FirstRequest */
/** @typedef {import('./wire.js').Request} Request */
/** @typedef {import('./wire.js').StreamMethod} StreamMethod */
/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {import('./generate.js').Stats} Stats */

/**
 * @typedef {object} Pending
 * @property {(answer: Answer) => void} resolve
 * @property {(error: unknown) => void} reject
 * @property {((progress: never) => void) | undefined} onProgress
 */

/**
 * A request before it has an id. (Omit on a union would keep only what all its members share.)
 * @template T
 * @typedef {T extends { id: number } ? Omit<T, 'id'> : never} WithoutId
 */

/** @typedef {{ workerUrl?: string | undefined, onProgress?: ((progress: never) => void) | undefined, signal?: AbortSignal | undefined }} RemoteControl */

/** @type {import('./worker-handle.js').ThreadScript} */
const SCRIPT = {
  ...{ option: 'workerUrl', file: './worker.js' },
  // Bundlers look for exactly this expression, options included: keep it in one piece.
  own: () => new Worker(new URL('./worker.js', import.meta.url), { type: 'module' }),
}

/** So long an aborted load may take to end by itself, ms. */
const GRACE_MS = 150

export class RemoteEngine {
  #worker
  /** @type {Map<number, Pending>} */
  #pending = new Map()
  #lastId = 0
  /** @type {BmError | null} why no more requests can be made */
  #ended = null
  /** @type {Promise<void> | null} */
  #stopping = null
  /** @type {import('./engine.js').Description | null} */
  #description = null
  /** @type {Stats | null} of the last generation that has ended */
  stats = null

  /** @param {string | undefined} workerUrl */
  constructor(workerUrl) {
    this.#worker = startThread(SCRIPT, workerUrl, {
      onMessage: (message) => this.#receive(/** @type {Answer} */ (message)),
      onDeath: (reason, cause) =>
        this.#end(new BmError('internal', `the engine's worker died: ${reason}`, { cause })),
    })
    this.#worker.release()
  }

  /**
   * @param {import('./source.js').SourceDescriptor} source
   * @param {import('./engine.js').EngineOptions} options
   * @param {RemoteControl} [control]
   * @returns {Promise<RemoteEngine>}
   */
  static async load(source, options, control = {}) {
    const engine = new RemoteEngine(control.workerUrl)
    try {
      const value = await engine.#first({ kind: 'load', source, options }, control)
      engine.#description = /** @type {import('./engine.js').Description} */ (value)
      return engine
    } catch (error) {
      await engine.close()
      throw error
    }
  }

  /**
   * Something else that an engine's thread can do with a source: in a thread of its own, which ends with it.
   *
   * @template T what it gives
   * @param {Exclude<WithoutId<FirstRequest>, { kind: 'load' }>} request
   * @param {RemoteControl} [control]
   * @returns {Promise<T>}
   */
  static async once(request, control = {}) {
    const engine = new RemoteEngine(control.workerUrl)
    try {
      return /** @type {T} */ (await engine.#first(request, control))
    } finally {
      await engine.close()
    }
  }

  /**
   * The request that begins the thread's work.
   *
   * @param {WithoutId<FirstRequest>} request
   * @param {RemoteControl} control
   * @returns {Promise<unknown>}
   */
  async #first(request, { onProgress, signal }) {
    signal?.throwIfAborted()
    const { descriptor, transfer, close } = share(request.source)
    const drafts = share(request.kind === 'load' ? (request.options.draftSource ?? null) : null)
    const own = { ...request, source: descriptor, version: VERSION }
    if (drafts.descriptor)
      Object.assign(own, { options: { ...request.options, draftSource: drafts.descriptor } })
    const shared = /** @type {WithoutId<Request>} */ (own)
    // The thread is told, so that it lets go of what it holds; but one whose script does not come, or that is busy, does not listen.
    const onAbort = () => void setTimeout(() => this.close(), GRACE_MS)
    signal?.addEventListener('abort', onAbort)
    try {
      const { value } = await this.#request(shared, {
        ...{ transfer: [...transfer, ...drafts.transfer] },
        ...{ onProgress, signal },
      })
      signal?.throwIfAborted()
      return value
    } catch (error) {
      signal?.throwIfAborted()
      throw error
    } finally {
      signal?.removeEventListener('abort', onAbort)
      close()
      drafts.close()
    }
  }

  describe() {
    return /** @type {import('./engine.js').Description} */ (this.#description)
  }

  /**
   * @param {string} text
   * @param {boolean} bos
   * @param {AbortSignal} [signal]
   */
  async tokenize(text, bos, signal) {
    return /** @type {Uint32Array} */ (await this.#call('tokenize', [text, bos], signal))
  }

  /** @param {ArrayLike<number>} ids */
  async tokenBytes(ids) {
    return /** @type {Uint8Array<ArrayBuffer>[]} */ (await this.#call('tokenBytes', [ids]))
  }

  /** @param {Uint32Array} ids */
  async detokenize(ids) {
    return /** @type {string} */ (await this.#call('detokenize', [ids]))
  }

  async memory() {
    return /** @type {import('./engine.js').MemoryUse} */ (await this.#call('memory', []))
  }

  /** @param {import('./session-host.js').SessionOptions} options */
  async createSession(options) {
    return /** @type {number} */ (await this.#call('createSession', [options]))
  }

  /** @param {Uint8Array} bytes @param {{ checkpointBytes: number }} options */
  async loadSession(bytes, options) {
    const value = await this.#call('loadSession', [bytes, options])
    return /** @type {Awaited<ReturnType<import('./engine.js').Engine['loadSession']>>} */ (value)
  }

  /**
   * @param {number} id
   * @param {import('./session-host.js').SessionAction} action
   * @param {unknown[]} args
   * @param {AbortSignal} [signal]
   */
  async act(id, action, args, signal) {
    const value = await this.#call('act', [id, action, args], signal)
    return /** @type {import('./session-host.js').Outcome} */ (value)
  }

  /** @param {number} id */
  async closeSession(id) {
    if (!this.#ended) await this.#call('closeSession', [id])
  }

  /** @param {number} id */
  async closeSnapshot(id) {
    if (!this.#ended) await this.#call('closeSnapshot', [id])
  }

  /** @param {number[]} ids @param {Settings[]} settings @param {AbortSignal | undefined} signal @param {Stats[]} stats as js/engine.js has it */
  continueSessions(ids, settings, signal, stats) {
    const pieces = this.#stream('continueSessions', [ids, settings], signal, stats)
    return /** @type {AsyncGenerator<import('./generate.js').GeneratedPiece, Stats[], void>} */ (
      pieces
    )
  }

  /** @param {number} id @param {readonly import('./chat-template.js').ChatMessage[]} messages @param {Settings} settings @param {AbortSignal | undefined} signal @param {Stats[]} stats */
  replyInSession(id, messages, settings, signal, stats) {
    const pieces = this.#stream('replyInSession', [id, messages, settings], signal, stats)
    return /** @type {AsyncGenerator<import('./generate.js').GeneratedPiece, Stats[], void>} */ (
      pieces
    )
  }

  /** @param {string | Uint32Array} prompt @param {Settings} settings @param {AbortSignal} [signal] */
  generate(prompt, settings, signal) {
    const pieces = this.#stream('generate', [prompt, settings], signal)
    return /** @type {AsyncGenerator<string, Stats, void>} */ (pieces)
  }

  /** @param {string | Uint32Array} prompt @param {Settings} settings @param {AbortSignal} [signal] */
  generateIds(prompt, settings, signal) {
    const ids = this.#stream('generateIds', [prompt, settings], signal)
    return /** @type {AsyncGenerator<number, Stats, void>} */ (ids)
  }

  /** @param {Uint32Array} ids @param {boolean} logits @param {AbortSignal} [signal] */
  evaluate(ids, logits, signal) {
    const batches = this.#stream('evaluate', [ids, logits], signal)
    return /** @type {AsyncGenerator<import('./generate.js').Scored[], void, void>} */ (batches)
  }

  /** Stops the thread, whatever it is doing; what awaits an answer rejects with `closed`. */
  async close() {
    this.#end(new BmError('closed', 'the model was closed'))
    this.#stopping ??= this.#worker.terminate()
    await this.#stopping
  }

  /** @param {import('./wire.js').CallMethod} method @param {unknown[]} args @param {AbortSignal} [signal] */
  async #call(method, args, signal) {
    return (await this.#request({ kind: 'call', method, args }, { signal })).value
  }

  /**
   * @param {StreamMethod} method
   * @param {unknown[]} args
   * @param {AbortSignal} [signal]
   * @param {Stats[]} [laneStats] gets those of its sessions when it ends
   * @returns {AsyncGenerator<unknown, unknown, void>}
   */
  async *#stream(method, args, signal, laneStats) {
    const stream = ++this.#lastId
    const onAbort = () => this.#abort(stream)
    signal?.addEventListener('abort', onAbort)
    /** Whether the stream in the worker awaits the next pull: only then it must be told of an early end. */
    let suspended = false
    try {
      /** @type {WithoutId<Request>} */
      let request = { kind: 'next', stream, open: { method, args } }
      for (;;) {
        suspended = false
        const answer = await this.#request(request, { laneStats })
        if (answer.aborted) throw signal?.reason
        if (answer.done) return answer.value
        suspended = true
        yield answer.value
        signal?.throwIfAborted()
        request = { kind: 'next', stream }
      }
    } finally {
      signal?.removeEventListener('abort', onAbort)
      if (suspended && !this.#ended) await this.#request({ kind: 'return', stream }, { laneStats })
    }
  }

  /**
   * @param {WithoutId<Request>} request
   * @param {{ transfer?: Transferable[], onProgress?: ((progress: never) => void) | undefined, signal?: AbortSignal | undefined, laneStats?: Stats[] | undefined }} [control]
   * @returns {Promise<Answer>}
   */
  async #request(request, { transfer, onProgress, signal, laneStats } = {}) {
    if (this.#ended) throw this.#ended
    const id = ++this.#lastId
    const onAbort = () => this.#abort(id)
    signal?.addEventListener('abort', onAbort)
    try {
      /** @type {Answer} */
      const answer = await new Promise((resolve, reject) => {
        this.#pending.set(id, { resolve, reject, onProgress })
        this.#worker.hold()
        this.#worker.post({ ...request, id }, transfer)
      })
      if (answer.stats !== undefined) this.stats = answer.stats
      if (answer.laneStats !== undefined) laneStats?.push(...answer.laneStats)
      if (answer.description !== undefined) this.#description = answer.description
      if (answer.aborted && signal) throw signal.reason
      if (answer.error) throw unpackError(answer.error)
      return answer
    } finally {
      signal?.removeEventListener('abort', onAbort)
      this.#pending.delete(id)
      // Not while it is being ended: the end is awaited too.
      if (this.#pending.size === 0 && !this.#ended) this.#worker.release()
    }
  }

  /** @param {number} id */
  #abort(id) {
    if (!this.#ended) this.#worker.post({ kind: 'abort', id })
  }

  /** @param {Answer} answer */
  #receive(answer) {
    const pending = this.#pending.get(answer.id)
    if (!pending) return
    if (!answer.progress) {
      pending.resolve(answer)
      return
    }
    try {
      pending.onProgress?.(/** @type {never} */ (answer.progress))
    } catch (error) {
      pending.reject(error)
    }
  }

  /** @param {BmError} error */
  #end(error) {
    this.#ended ??= error
    for (const { reject } of this.#pending.values()) reject(error)
  }
}

/** @param {import('./source.js').SourceDescriptor | null} source @returns {{ descriptor: import('./source.js').SourceDescriptor | null, transfer: Transferable[], close: () => void }} */
function share(source) {
  return source ? shareSource(source) : { descriptor: null, transfer: [], close: () => {} }
}
