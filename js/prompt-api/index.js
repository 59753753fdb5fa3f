/**
 * `bimamba/prompt-api`: the shape of the Prompt API that Chrome gives pages as `LanguageModel`, over a model of this package.
 *
 * Owns that shape: availability, creation with its progress, sessions with `prompt`, `promptStreaming`, `append`, `clone`, `destroy`, and its errors, which are
 * DOMExceptions. The shape is that of https://github.com/webmachinelearning/prompt-api. What it calls a quota of input has no end here: a state has one size.
 */

import { BiMamba, BmError } from '../index.js'

/** @typedef {import('../index.js').Session} Session */
/** @typedef {import('../index.js').ChatMessage} ChatMessage */

/** A message; content: a text, or parts that are all text. @typedef {{ role: ChatMessage['role'], content: string | { type: string, value: unknown }[], prefix?: boolean }} PromptMessage */
/** @typedef {string | PromptMessage[]} PromptInput */
/** responseConstraint: a JSON schema that the reply is valid by, or an expression that it matches. @typedef {{ signal?: AbortSignal, responseConstraint?: object | RegExp }} PromptOptions */

/**
 * @typedef {object} CreateOptions
 * @property {PromptMessage[]} [initialPrompts]  a system message first, if there is one
 * @property {number} [temperature]  together with topK
 * @property {number} [topK]
 * @property {AbortSignal} [signal]  ends the creation; later on, the session
 * @property {(monitor: EventTarget) => void} [monitor]  gets `downloadprogress` events: `loaded` from 0 to 1
 */

/** What sampling there is. @typedef {{ defaultTopK: number, maxTopK: number, defaultTemperature: number, maxTemperature: number }} LanguageModelParams */

const PARAMS = { defaultTopK: 40, maxTopK: 1000, defaultTemperature: 0.8, maxTemperature: 2 }
/** A reply that does not end by itself ends here, tokens. */
const MOST_TOKENS = 4096
/** Names of DOMExceptions for our codes; those that are not here are an OperationError. @type {Partial<Record<import('../errors.js').BmErrorCode, string>>} */
const ERROR_NAMES = {
  ...{ argument: 'SyntaxError', unsupported: 'NotSupportedError', closed: 'InvalidStateError' },
  ...{ network: 'NetworkError', memory: 'QuotaExceededError' },
}

/**
 * @typedef {object} LanguageModelShape
 * @property {(options?: object) => Promise<'available' | 'downloadable' | 'downloading'>} availability
 * @property {() => Promise<LanguageModelParams>} params
 * @property {(options?: CreateOptions) => Promise<LanguageModelSession>} create
 * @property {() => Promise<void>} close  not of the shape: frees a model that was loaded here
 */

/**
 * @param {BiMamba | import('../index.js').ModelSource} source  a model, which stays the caller's; or where one is: it is loaded by the first `create`
 * @param {import('../index.js').LoadOptions} [loadOptions]
 * @returns {LanguageModelShape} as the global `LanguageModel`
 */
export function createLanguageModel(source, loadOptions = {}) {
  const holder = new ModelHolder(source, loadOptions)
  return {
    availability: () => holder.availability(),
    params: async () => ({ ...PARAMS }),
    create: (options = {}) => told(() => create(holder, options)),
    close: () => holder.close(),
  }
}

class ModelHolder {
  #source
  #options
  /** @type {Promise<BiMamba> | null} */
  #loading = null
  /** That has been waited for to its end. @type {Promise<BiMamba> | null} */
  #loaded = null
  /** Told how far it is. @type {Set<(loaded: number) => void>} */
  #watchers = new Set()

  /** @param {BiMamba | import('../index.js').ModelSource} source @param {import('../index.js').LoadOptions} options */
  constructor(source, options) {
    this.#source = source
    this.#options = options
  }

  /** @returns {Promise<'available' | 'downloadable' | 'downloading'>} */
  async availability() {
    if (this.#loading) return this.#loading === this.#loaded ? 'available' : 'downloading'
    return (await this.#isKept()) ? 'available' : 'downloadable'
  }

  /** @returns {Promise<boolean>} all of it is on this device */
  async #isKept() {
    const source = this.#source
    if (source instanceof BiMamba || typeof source !== 'string') return true
    try {
      const { identity } = await BiMamba.inspect(source, { cache: 'only' })
      const kept = await BiMamba.cache.list()
      return kept.some((model) => model.identity === identity && model.complete)
    } catch {
      return false
    }
  }

  /** @param {(loaded: number) => void} watch @returns {Promise<BiMamba>} */
  async load(watch) {
    const source = this.#source
    if (source instanceof BiMamba) {
      watch(1)
      return source
    }
    this.#watchers.add(watch)
    try {
      this.#loading ??= this.#start(source)
      const loading = this.#loading
      try {
        const model = await loading
        this.#loaded = loading
        watch(1)
        return model
      } catch (error) {
        // It may be tried again.
        if (this.#loading === loading) this.#loading = null
        throw error
      }
    } finally {
      this.#watchers.delete(watch)
    }
  }

  /** @param {import('../index.js').ModelSource} source @returns {Promise<BiMamba>} */
  #start(source) {
    return BiMamba.load(source, {
      ...this.#options,
      onProgress: (progress) => {
        const { loadedBytes, totalBytes } = progress
        if (totalBytes)
          for (const watch of this.#watchers) watch(Math.min(1, loadedBytes / totalBytes))
        this.#options.onProgress?.(progress)
      },
    })
  }

  async close() {
    const loading = this.#loading
    this.#loading = null
    // What has failed was told to who asked for it.
    const model = await loading?.catch(() => null)
    await model?.close()
  }
}

/** @param {unknown} error @returns {unknown} as the shape has it: ours as a DOMException, all others as they are */
function asDomError(error) {
  if (!(error instanceof BmError)) return error
  const name = ERROR_NAMES[error.code] ?? 'OperationError'
  return Object.assign(new DOMException(error.message, name), { cause: error })
}

/** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
async function told(work) {
  try {
    return await work()
  } catch (error) {
    throw asDomError(error)
  }
}

/** @template T @param {Promise<T>} work that goes on all the same @param {AbortSignal | undefined} signal @returns {Promise<T>} */
async function unlessAborted(work, signal) {
  if (!signal) return work
  signal.throwIfAborted()
  let leave = () => {}
  /** @type {Promise<never>} */
  const aborted = new Promise((_, reject) => {
    leave = () => reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', leave)
  }
}

/** @param {ModelHolder} holder @param {CreateOptions} options @returns {Promise<LanguageModelSession>} */
async function create(holder, options) {
  const { initialPrompts = [], temperature, topK, signal, monitor } = options
  signal?.throwIfAborted()
  if ((temperature === undefined) !== (topK === undefined))
    throw new TypeError('temperature and topK come together, or neither')
  const sampling = {
    temperature: checkRange(
      'temperature',
      temperature ?? PARAMS.defaultTemperature,
      0,
      PARAMS.maxTemperature,
    ),
    topK: checkRange('topK', topK ?? PARAMS.defaultTopK, 1, PARAMS.maxTopK),
  }
  const messages = readInput(initialPrompts)
  const events = new EventTarget()
  monitor?.(events)
  let last = -1
  const loading = holder.load((loaded) => {
    if (loaded <= last) return
    last = loaded
    events.dispatchEvent(
      Object.assign(new Event('downloadprogress'), { loaded, total: 1, lengthComputable: true }),
    )
  })
  const model = await unlessAborted(loading, signal)
  const session = await model.createSession()
  try {
    if (messages.length > 0) await session.say(messages, signal ? { signal } : {})
    signal?.throwIfAborted()
  } catch (error) {
    await session.close()
    throw error
  }
  return new LanguageModelSession(model, session, sampling, signal)
}

/** @param {string} name @param {number} value @param {number} min @param {number} max */
function checkRange(name, value, min, max) {
  if (value >= min && value <= max) return value
  throw new RangeError(`${name} is ${value}, want ${min} to ${max}`)
}

/** A chat. What is asked of it is done in order. */
export class LanguageModelSession extends EventTarget {
  #model
  #session
  #sampling
  #isDestroyed = false
  /** The end of what was asked for last. @type {Promise<unknown>} */
  #queue = Promise.resolve()
  /** Ends what is under way when it is destroyed. */
  #end = new AbortController()

  /** @param {BiMamba} model @param {Session} session @param {{ temperature: number, topK: number }} sampling @param {AbortSignal} [signal] that destroys it */
  constructor(model, session, sampling, signal) {
    super()
    this.#model = model
    this.#session = session
    this.#sampling = sampling
    signal?.addEventListener('abort', () => this.destroy(), { once: true })
  }

  /** @returns {number} tokens of the chat so far */
  get inputUsage() {
    return this.#session.position
  }

  /** @returns {number} no end */
  get inputQuota() {
    return Number.POSITIVE_INFINITY
  }

  get temperature() {
    return this.#sampling.temperature
  }

  get topK() {
    return this.#sampling.topK
  }

  /**
   * @param {PromptInput} input
   * @param {PromptOptions} [options]
   * @returns {Promise<string>} the reply
   */
  async prompt(input, options = {}) {
    let text = ''
    for await (const piece of this.#reply(input, options)) text += piece
    return text
  }

  /**
   * @param {PromptInput} input
   * @param {PromptOptions} [options]
   * @returns {ReadableStream<string>} pieces of the reply
   */
  promptStreaming(input, options = {}) {
    const left = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal
    const pieces = this.#reply(input, { ...options, signal })
    /** @param {ReadableStreamDefaultController<string>} controller */
    const pump = async (controller) => {
      try {
        for await (const text of pieces) controller.enqueue(text)
        controller.close()
      } catch (error) {
        if (!left.signal.aborted) controller.error(error)
      }
    }
    /** @type {Promise<void>} */
    let pumping = Promise.resolve()
    // Made whether or not it is read: a stream that nobody reads to its end must not hold up what is asked for next.
    return new ReadableStream({
      start(controller) {
        pumping = pump(controller)
      },
      async cancel() {
        left.abort()
        await pumping
      },
    })
  }

  /** Adds messages that are not answered. @param {PromptInput} input @param {{ signal?: AbortSignal }} [options] */
  async append(input, { signal } = {}) {
    const messages = readInput(input)
    await this.#inOrder(() => this.#session.say(messages, { signal: this.#signal(signal) }), signal)
  }

  /** @param {PromptInput} input @param {{ signal?: AbortSignal }} [options] @returns {Promise<number>} tokens of its text, without what a template adds */
  async measureInputUsage(input, { signal } = {}) {
    this.#check()
    signal?.throwIfAborted()
    const text = readInput(input)
      .map(({ content }) => content)
      .join('\n')
    return this.#model.countTokens(text)
  }

  /** @param {{ signal?: AbortSignal }} [options] @returns {Promise<LanguageModelSession>} another one that is the same, for the price of a copy of the state */
  async clone({ signal } = {}) {
    signal?.throwIfAborted()
    const fork = await this.#inOrder(() => this.#session.fork(), signal)
    if (signal?.aborted) await fork.close()
    signal?.throwIfAborted()
    return new LanguageModelSession(this.#model, fork, this.#sampling, signal)
  }

  /** Frees it; what is under way ends with an AbortError. */
  destroy() {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    this.#end.abort(new DOMException('the session was destroyed', 'AbortError'))
    // The model may have been closed before.
    void this.#queue.then(() => this.#session.close()).catch(() => {})
  }

  /**
   * A reply that is aborted was never asked for: the state goes back to what it was.
   * @param {PromptInput} input @param {PromptOptions} options @returns {AsyncGenerator<string, void, void>}
   */
  async *#reply(input, { signal, responseConstraint }) {
    const format = formatOf(responseConstraint)
    const messages = readInput(input)
    const leave = await this.#enter(signal)
    try {
      const before = await this.#session.snapshot()
      let isWhole = false
      try {
        const options = {
          ...{ ...this.#sampling, ...(format ? { format } : {}) },
          ...{ maxTokens: MOST_TOKENS, signal: this.#signal(signal) },
        }
        yield* this.#session.chat(messages, options)
        isWhole = true
      } catch (error) {
        throw asDomError(error)
      } finally {
        if (!isWhole && !this.#isDestroyed) await this.#session.restore(before)
        await before.close()
      }
    } finally {
      leave()
    }
  }

  /** @param {AbortSignal | undefined} signal */
  #signal(signal) {
    return signal ? AbortSignal.any([signal, this.#end.signal]) : this.#end.signal
  }

  /** @template T @param {() => Promise<T>} work @param {AbortSignal} [signal] @returns {Promise<T>} */
  async #inOrder(work, signal) {
    const leave = await this.#enter(signal)
    try {
      return await told(work)
    } finally {
      leave()
    }
  }

  /** @param {AbortSignal | undefined} asked ends the waiting @returns {Promise<() => void>} when all that was asked for before is done; to be called at the end */
  async #enter(asked) {
    this.#check()
    const signal = this.#signal(asked)
    signal.throwIfAborted()
    const before = this.#queue
    let leave = () => {}
    this.#queue = new Promise((resolve) => {
      leave = () => resolve(undefined)
    })
    try {
      await unlessAborted(before, signal)
      return leave
    } catch (error) {
      // Who comes next still waits for those before.
      void before.then(leave)
      throw error
    }
  }

  #check() {
    if (this.#isDestroyed) throw new DOMException('the session was destroyed', 'InvalidStateError')
  }
}

/** @param {object | RegExp | undefined} constraint @returns {import('../index.js').TextFormat | undefined} */
function formatOf(constraint) {
  if (constraint === undefined) return undefined
  if (!(constraint instanceof RegExp)) return { jsonSchema: constraint }
  const [flag] = /[ims]/.exec(constraint.flags) ?? []
  if (flag === undefined) return { regex: constraint.source }
  throw new DOMException(
    `an expression with the flag ${flag} is not supported`,
    'NotSupportedError',
  )
}

/** @param {PromptInput} input @returns {ChatMessage[]} */
function readInput(input) {
  if (typeof input === 'string') return [{ role: 'user', content: input }]
  if (!Array.isArray(input)) throw new TypeError('want a text or an array of messages')
  return input.map(({ role, content, prefix }) => {
    if (prefix) throw new DOMException('a reply cannot be begun here', 'NotSupportedError')
    if (typeof content === 'string') return { role, content }
    const texts = content.map(({ type, value }) => {
      if (type === 'text' && typeof value === 'string') return value
      throw new DOMException(`only text can be read, not ${type}`, 'NotSupportedError')
    })
    return { role, content: texts.join('') }
  })
}
