/**
 * `bimamba/ai-sdk`: a provider for the AI SDK (the npm package `ai`, version 6, whose language models are of specification v3).
 *
 * Owns the way between the SDK's calls and sessions of the package. What a model of this kind cannot do (tools, pictures) is warned about or refused, as the
 * specification asks for, and never silently left out.
 */

import { SessionPool } from '../openai/session-pool.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('../index.js').Session} Session */
/** @typedef {import('../index.js').ChatMessage} ChatMessage */
/** @typedef {import('@ai-sdk/provider').LanguageModelV3} LanguageModelV3 */
/** @typedef {import('@ai-sdk/provider').LanguageModelV3CallOptions} CallOptions */
/** @typedef {import('@ai-sdk/provider').LanguageModelV3Message} Message */
/** @typedef {import('@ai-sdk/provider').LanguageModelV3StreamPart} StreamPart */
/** @typedef {import('@ai-sdk/provider').LanguageModelV3GenerateResult} GenerateResult */
/** @typedef {import('@ai-sdk/provider').SharedV3Warning} Warning */

/** Where the SDK gives none: a model that does not end would go on for ever. */
const DEFAULT_TOKENS = 1024
const KEPT_SESSIONS = 4
/** The text of an answer has one part. */
const PART = '0'

/**
 * @typedef {object} BimambaProvider
 * @property {(name?: string) => LanguageModelV3} languageModel    that talks: messages go through the model's chat template
 * @property {(name?: string) => LanguageModelV3} completionModel  that continues: the texts of the messages are one text
 * @property {() => Promise<void>} close  frees the sessions that are kept for later calls; the models stay the caller's
 */

/**
 * @param {BiMamba | Record<string, BiMamba>} models  one, or several by name
 * @returns {BimambaProvider & ((name?: string) => LanguageModelV3)}  called itself it gives a `languageModel`
 */
export function createBimamba(models) {
  const named = typeof Object(models).createSession === 'function' ? { bimamba: models } : models
  const all = new Map(Object.entries(/** @type {Record<string, BiMamba>} */ (named)))
  const pools = new Map(
    [...all].map(([name, model]) => [name, new SessionPool(model, KEPT_SESSIONS)]),
  )
  /** @param {string} [name] @param {Call['kind']} [kind] */
  const open = (name = [...all.keys()][0] ?? '', kind = 'chat') => {
    const [model, pool] = [all.get(name), pools.get(name)]
    if (model && pool) return new BimambaLanguageModel(name, model, pool, kind)
    throw new Error(`there is no model ${JSON.stringify(name)}, only ${[...all.keys()].join(', ')}`)
  }
  return Object.assign((/** @type {string | undefined} */ name) => open(name), {
    languageModel: (/** @type {string | undefined} */ name) => open(name),
    completionModel: (/** @type {string | undefined} */ name) => open(name, 'completion'),
    close: async () => {
      for (const pool of pools.values()) await pool.close()
    },
  })
}

/** What a call asks for. @typedef {{ kind: 'chat' | 'completion', messages: ChatMessage[], options: import('../index.js').SessionGenerateOptions, warnings: Warning[] }} Call */

/** @implements {LanguageModelV3} */
class BimambaLanguageModel {
  specificationVersion = /** @type {const} */ ('v3')
  provider = 'bimamba'
  modelId
  supportedUrls = {}
  #model
  #pool
  #kind

  /** @param {string} name @param {BiMamba} model @param {SessionPool} pool @param {Call['kind']} kind */
  constructor(name, model, pool, kind) {
    this.modelId = name
    this.#model = model
    this.#pool = pool
    this.#kind = kind
  }

  /** @param {CallOptions} options @returns {Promise<GenerateResult>} */
  async doGenerate(options) {
    const call = readCall(options, this.#kind)
    let text = ''
    const pieces = this.#pieces(call)
    for (;;) {
      const { done, value } = await pieces.next()
      if (!done) text += value
      else return { ...value, content: [{ type: 'text', text }], warnings: call.warnings }
    }
  }

  /** @param {CallOptions} options */
  async doStream(options) {
    const call = readCall(options, this.#kind)
    const parts = partsOf(this.#pieces(call), call.warnings)
    /** @type {ReadableStream<StreamPart>} */
    const stream = new ReadableStream({
      async pull(controller) {
        const { done, value } = await parts.next()
        if (done) controller.close()
        else controller.enqueue(value)
      },
      cancel: async () => {
        await parts.return()
      },
    })
    return { stream }
  }

  /** @param {Call} call @returns {AsyncGenerator<string, Ending, void>} */
  async *#pieces({ kind, messages, options }) {
    const isChat = kind === 'chat'
    const ids = isChat ? null : await this.#idsOf(messages, options.signal)
    const session = await (ids ? this.#pool.forText(ids) : this.#pool.forChat(messages))
    const cached = session.position
    let isWhole = false // a stream that is cancelled comes to `finally` only
    try {
      if (ids) {
        const rest = ids.subarray(cached)
        if (rest.length > 0) await session.append(rest, control(options))
        yield* session.generate(options)
      } else {
        const said = (await session.messages()).length
        yield* session.chat(messages.slice(said), options)
      }
      isWhole = true
      return endingOf(session, cached)
    } finally {
      if (isWhole) await this.#pool.giveBack(session)
      else await session.close()
    }
  }

  /** @param {ChatMessage[]} messages @param {AbortSignal} [signal] @returns {Promise<Uint32Array>} of their texts as one */
  async #idsOf(messages, signal) {
    const { addBos, bosId } = this.#model.info
    const text = messages.map(({ content }) => content).join('\n')
    const bos = addBos && bosId !== null && text !== ''
    return this.#model.tokenize(text, { bos, ...control({ signal }) })
  }
}

/** @param {{ signal?: AbortSignal | undefined }} options @returns {{ signal?: AbortSignal }} */
function control({ signal }) {
  return signal ? { signal } : {}
}

/** @typedef {Pick<GenerateResult, 'finishReason' | 'usage'>} Ending */

/** @param {Session} session @param {number} cached tokens that it had read before @returns {Ending} */
function endingOf({ lastStats }, cached) {
  const { promptTokens = 0, tokens = 0, finishReason = 'error' } = lastStats ?? {}
  const unified = { eos: 'stop', stop: 'stop', length: 'length', abort: 'other', error: 'error' }
  return {
    finishReason: {
      unified: /** @type {'stop' | 'length' | 'other' | 'error'} */ (unified[finishReason]),
      raw: finishReason,
    },
    usage: {
      inputTokens: {
        ...{ total: promptTokens, noCache: promptTokens - cached },
        ...{ cacheRead: cached, cacheWrite: undefined },
      },
      outputTokens: { total: tokens, text: tokens, reasoning: undefined },
    },
  }
}

/** @param {AsyncGenerator<string, Ending, void>} pieces @param {Warning[]} warnings @returns {AsyncGenerator<StreamPart, void, void>} */
async function* partsOf(pieces, warnings) {
  try {
    yield { type: 'stream-start', warnings }
    yield { type: 'text-start', id: PART }
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) {
        yield { type: 'text-end', id: PART }
        yield { type: 'finish', ...value }
        return
      }
      yield { type: 'text-delta', id: PART, delta: value }
    }
  } catch (error) {
    yield { type: 'error', error }
  } finally {
    await pieces.return(/** @type {never} */ (undefined))
  }
}

/** @param {CallOptions} asked @param {Call['kind']} kind @returns {Call} */
function readCall(asked, kind) {
  const given = {
    temperature: asked.temperature,
    topP: asked.topP,
    topK: asked.topK,
    presencePenalty: asked.presencePenalty,
    frequencyPenalty: asked.frequencyPenalty,
    seed: asked.seed,
    stop: asked.stopSequences,
    format: formatOf(asked.responseFormat),
    signal: asked.abortSignal,
    ...asked.providerOptions?.bimamba,
  }
  const options = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  )
  /** @type {Warning[]} */
  const warnings = []
  if (asked.tools && asked.tools.length > 0)
    warnings.push({ type: 'unsupported', feature: 'tools' })
  return {
    ...{ kind, warnings },
    messages: asked.prompt.map(readMessage),
    options: { maxTokens: asked.maxOutputTokens ?? DEFAULT_TOKENS, ...options },
  }
}

/** @param {Message} message @returns {ChatMessage} */
function readMessage({ role, content }) {
  if (role === 'tool') throw new Error('bimamba: messages of tools cannot be read')
  if (typeof content === 'string') return { role, content }
  const texts = content.map((part) => {
    if (part.type === 'text') return part.text
    throw new Error(`bimamba: a message has a part of type ${part.type}, only text can be read`)
  })
  const text = texts.join('')
  // As the package keeps what it has said.
  return { role, content: role === 'assistant' ? text.trim() : text }
}

/** @param {CallOptions['responseFormat']} wanted @returns {import('../index.js').TextFormat | undefined} */
function formatOf(wanted) {
  if (wanted?.type !== 'json') return undefined
  return { jsonSchema: wanted.schema ?? { type: 'object' } }
}
