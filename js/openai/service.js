/**
 * Answers of OpenAI's API, computed in this process.
 *
 * Owns the form of answers: whole ones, and streams of chunks. What requests mean is in js/openai/text-completion.js and js/openai/chat-completion.js, which
 * both give pieces: so a whole answer is a stream that was joined.
 */

import { VERSION } from '../index.js'
import { completeChat, readChatRequest } from './chat-completion.js'
import { Fields } from './fields.js'
import { asOpenAIError, OpenAIError } from './openai-error.js'
import { SessionPool } from './session-pool.js'
import { completeTexts, readTextRequest } from './text-completion.js'
import { TokenNames } from './token-names.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./text-completion.js').TextLogprobs} TextLogprobs */
/** @typedef {import('./chat-completion.js').ChatLogprobs} ChatLogprobs */
/** @typedef {{ prompt_tokens: number, completion_tokens: number, total_tokens: number }} Usage */

/** A model with what is kept beside it. @typedef {{ name: string, model: BiMamba, names: TokenNames, pool: SessionPool, created: number }} Served */

/**
 * A part of the choice `index`. finish: why it ends, with its last part.
 *
 * @typedef {{ index: number, text: string, logprobs: TextLogprobs | ChatLogprobs | null, finish: 'stop' | 'length' | null }} Piece
 */

/** An answer or a chunk: plain data, as OpenAI's API documents it. @typedef {Record<string, unknown>} Answer */

/** Sessions of earlier requests that are kept for each model. */
const KEPT_SESSIONS = 4

/** What differs between the two kinds of completions. */
const KINDS = {
  text: {
    prefix: 'cmpl',
    object: 'text_completion',
    chunk: 'text_completion',
    read: readTextRequest,
    complete: completeTexts,
    /** @param {string} text */
    whole: (text) => ({ text }),
    /** @param {string} text */
    part: (text) => ({ text }),
    first: null,
  },
  chat: {
    prefix: 'chatcmpl',
    object: 'chat.completion',
    chunk: 'chat.completion.chunk',
    read: readChatRequest,
    complete: completeChat,
    /** @param {string} content */
    whole: (content) => ({ message: { role: 'assistant', content, refusal: null } }),
    /** @param {string} content */
    part: (content) => ({ delta: content === '' ? {} : { content } }),
    first: { delta: { role: 'assistant', content: '' } },
  },
}

export class Service {
  /** @type {Map<string, Served>} */
  #models = new Map()

  /** @param {Record<string, BiMamba>} models by the names that requests have for them @param {{ keptSessions?: number }} [options] */
  constructor(models, { keptSessions = KEPT_SESSIONS } = {}) {
    const created = seconds()
    for (const [name, model] of Object.entries(models)) {
      const [names, pool] = [new TokenNames(model), new SessionPool(model, keptSessions)]
      this.#models.set(name, { name, model, names, pool, created })
    }
  }

  /** @returns {Answer} */
  list() {
    return { object: 'list', data: [...this.#models.keys()].map((name) => this.retrieve(name)) }
  }

  /** @param {string} name @returns {Answer} */
  retrieve(name) {
    const { created, model } = this.#served(name)
    const { identity, source, licence } = model.info
    return { id: name, object: 'model', created, owned_by: 'bimamba', identity, source, licence }
  }

  /**
   * @param {keyof typeof KINDS} kind
   * @param {unknown} body of the request
   * @param {AbortSignal} [signal]
   * @returns {{ isStream: boolean, chunks: () => AsyncGenerator<Answer, void, void>, whole: () => Promise<Answer> }} nothing is computed before one of the two is
   *   asked for
   * @throws {OpenAIError} the request is wrong
   */
  create(kind, body, signal) {
    const served = this.#served(new Fields(body).text('model'))
    const { read, complete } = KINDS[kind]
    const request = read(body)
    const { isStream, tellsUsage } = request
    const pieces = () => complete(served, /** @type {never} */ (request), signal)
    const head = { kind: KINDS[kind], about: aboutOf(kind, served) }
    return {
      isStream,
      chunks: () => guarded(chunksOf(pieces(), head, tellsUsage), signal),
      whole: () => guard(wholeOf(pieces(), head), signal),
    }
  }

  /** Frees what is kept; the models stay the caller's. */
  async close() {
    for (const { pool } of this.#models.values()) await pool.close()
  }

  /** @param {string | undefined} name @returns {Served} without a name the only one */
  #served(name) {
    const found = this.#models.get(name ?? '')
    if (found) return found
    const [only] = this.#models.values()
    if (!name && only && this.#models.size === 1) return only
    const names = [...this.#models.keys()].join(', ')
    throw new OpenAIError(
      name
        ? `there is no model ${JSON.stringify(name)}, only ${names}`
        : `model is missing, want one of ${names}`,
      { status: name ? 404 : 400, param: 'model', code: 'model_not_found' },
    )
  }
}

/** @typedef {{ kind: typeof KINDS[keyof typeof KINDS], about: Answer }} Head */

/** @param {keyof typeof KINDS} kind @param {Served} served @returns {Answer} what all parts of an answer have */
function aboutOf(kind, { name, model }) {
  return {
    id: `${KINDS[kind].prefix}-${crypto.randomUUID().replaceAll('-', '')}`,
    created: seconds(),
    model: name,
    system_fingerprint: `bimamba-${VERSION}-${model.info.identity.slice(0, 12)}`,
  }
}

function seconds() {
  return Math.floor(Date.now() / 1000)
}

/**
 * @param {AsyncGenerator<Piece, Usage, void>} pieces @param {Head} head @param {boolean} tellsUsage
 * @returns {AsyncGenerator<Answer, void, void>}
 */
async function* chunksOf(pieces, { kind, about }, tellsUsage) {
  const none = tellsUsage ? { usage: null } : {}
  const begun = new Set()
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) {
        if (tellsUsage) yield { ...about, object: kind.chunk, choices: [], usage: value }
        return
      }
      const { index, text, logprobs, finish } = value
      if (kind.first && !begun.has(index)) {
        const first = { index, ...kind.first, logprobs: null, finish_reason: null }
        yield { ...about, object: kind.chunk, choices: [first], ...none }
      }
      begun.add(index)
      if (text === '' && logprobs === null && finish === null) continue
      const choice = { index, ...kind.part(text), logprobs, finish_reason: finish }
      yield { ...about, object: kind.chunk, choices: [choice], ...none }
    }
  } finally {
    await pieces.return(/** @type {never} */ (undefined))
  }
}

/** @param {AsyncGenerator<Piece, Usage, void>} pieces @param {Head} head @returns {Promise<Answer>} */
async function wholeOf(pieces, { kind, about }) {
  /** @type {{ text: string, logprobs: Piece['logprobs'], finish: Piece['finish'] }[]} */
  const choices = []
  for (;;) {
    const { done, value } = await pieces.next()
    if (done) {
      const told = choices.map(({ text, logprobs, finish }, index) => ({
        ...{ index, ...kind.whole(text) },
        ...{ logprobs, finish_reason: finish },
      }))
      return { ...about, object: kind.object, choices: told, usage: value }
    }
    const { index, text, logprobs, finish } = value
    choices[index] ??= { text: '', logprobs: null, finish: null }
    const choice = /** @type {typeof choices[number]} */ (choices[index])
    choice.text += text
    choice.logprobs = joined(choice.logprobs, logprobs)
    choice.finish = finish
  }
}

/** Adds the lists of one to those of the other. @template {Piece['logprobs']} T @param {T} a @param {T} b @returns {T} */
function joined(a, b) {
  if (!a || !b) return a ?? b
  for (const [name, list] of Object.entries(b)) {
    const grown = Object(a)[name]
    if (Array.isArray(grown)) for (const one of list) grown.push(one)
  }
  return a
}

/** Errors in OpenAI's form, but for an abort by the caller. @param {unknown} error @param {AbortSignal | undefined} signal @returns {unknown} */
function told(error, signal) {
  return signal?.aborted ? signal.reason : asOpenAIError(error)
}

/** @template T @param {Promise<T>} work @param {AbortSignal | undefined} signal @returns {Promise<T>} */
async function guard(work, signal) {
  try {
    return await work
  } catch (error) {
    throw told(error, signal)
  }
}

/** @template T @param {AsyncGenerator<T, void, void>} work @param {AbortSignal | undefined} signal @returns {AsyncGenerator<T, void, void>} */
async function* guarded(work, signal) {
  try {
    yield* work
  } catch (error) {
    throw told(error, signal)
  }
}
