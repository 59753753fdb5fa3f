/**
 * `completions`: texts that are continued.
 *
 * Owns what its requests mean: prompts as text or ids, several of them, `echo` and `logprobs`. What lm-evaluation-harness asks for is here: `echo` with
 * `logprobs` tells what the model thinks of the prompt itself. Knows nothing of streams and ids of answers: js/openai/service.js does.
 */

import { Fields } from './fields.js'
import { readMaxTokens, readSampling, seedOf } from './sampling-fields.js'

/** @typedef {import('../index.js').Session} Session */
/** @typedef {import('../index.js').Token} Token */
/** @typedef {import('../index.js').Stats} Stats */
/** @typedef {import('./token-names.js').NamedToken} NamedToken */
/** @typedef {import('./service.js').Served} Served */
/** @typedef {import('./service.js').Piece} Piece */
/** @typedef {import('./service.js').Usage} Usage */

/** As OpenAI's API has it. */
const DEFAULT_TOKENS = 16
const MOST_PROMPTS = 2048
const MOST_LOGPROBS = 64
/** What is below it and no token of the model, the package refuses. */
const MOST_ID = 2 ** 32 - 1

/**
 * @typedef {import('./sampling-fields.js').SamplingFields & { prompts: (string | number[])[], echo: boolean, logprobs: number | null, maxTokens: number }} TextRequest
 */

/** @param {unknown} body @returns {TextRequest} */
export function readTextRequest(body) {
  const fields = new Fields(body)
  const sampling = readSampling(fields)
  fields.refuse('suffix')
  const bestOf = fields.number('best_of', { min: 1, max: MOST_PROMPTS, integer: true })
  if (bestOf !== undefined && bestOf !== sampling.n) throw fields.wrong('best_of', 'want what n is')
  const logprobs = fields.number('logprobs', { min: 0, max: MOST_LOGPROBS, integer: true })
  return {
    ...sampling,
    prompts: readPrompts(fields),
    echo: fields.flag('echo'),
    logprobs: logprobs ?? null,
    maxTokens: readMaxTokens(fields, 'max_tokens') ?? DEFAULT_TOKENS,
  }
}

/** @param {Fields} fields @returns {(string | number[])[]} */
function readPrompts(fields) {
  const prompt = fields.get('prompt') ?? ''
  const wanted = `want a text, token ids, or up to ${MOST_PROMPTS} of either`
  if (typeof prompt === 'string') return [prompt]
  if (!Array.isArray(prompt) || prompt.length === 0) throw fields.wrong('prompt', wanted)
  if (isIds(prompt)) return [prompt]
  const areAll = prompt.every(
    (one) => typeof one === 'string' || (Array.isArray(one) && isIds(one)),
  )
  if (areAll && prompt.length <= MOST_PROMPTS) return prompt
  throw fields.wrong('prompt', wanted)
}

/** @param {unknown[]} list @returns {list is number[]} */
function isIds(list) {
  return list.every((one) => Number.isInteger(one) && Number(one) >= 0 && Number(one) <= MOST_ID)
}

/**
 * @param {Served} served
 * @param {TextRequest} request
 * @param {AbortSignal | undefined} signal
 * @returns {AsyncGenerator<Piece, Usage, void>}
 */
export async function* completeTexts(served, request, signal) {
  const usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }
  for (const [i, prompt] of request.prompts.entries()) {
    const begun = await begin(served, prompt, request, signal)
    const { session } = begun
    usage.prompt_tokens += session.position
    try {
      for (let k = 0; k < request.n; k++) {
        // The last choice needs no copy.
        const own = k < request.n - 1 ? await session.fork() : session
        const choice = { index: i * request.n + k, seed: seedOf(request, k) }
        try {
          yield* continueOne(served, { ...begun, session: own }, request, choice, signal)
          usage.completion_tokens += request.maxTokens > 0 ? (own.lastStats?.tokens ?? 0) : 0
        } finally {
          if (own !== session) await own.close()
        }
      }
    } finally {
      await served.pool.giveBack(session)
    }
  }
  usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
  return usage
}

/** A session that has read a prompt. tokens: what it thought of them, if that is wanted. @typedef {{ session: Session, text: string, tokens: NamedToken[] }} Begun */

/**
 * @param {Served} served @param {string | number[]} prompt @param {TextRequest} request @param {AbortSignal} [signal]
 * @returns {Promise<Begun>}
 */
async function begin({ model, pool, names }, prompt, { echo, logprobs }, signal) {
  const control = signal ? { signal } : {}
  if (echo && logprobs !== null && prompt.length > 0) {
    const session = await pool.forText(new Uint32Array(0))
    try {
      const tokens = await session.read(prompt, { logprobs, ...control })
      return { session, text: await session.text(), tokens: await names.of(tokens) }
    } catch (error) {
      await session.close()
      throw error
    }
  }
  const { bosId, addBos } = model.info
  const isText = typeof prompt === 'string'
  const bos = isText && addBos && bosId !== null && prompt !== ''
  const ids = isText ? await model.tokenize(prompt, { bos, ...control }) : Uint32Array.from(prompt)
  const session = await pool.forText(ids)
  try {
    const rest = ids.subarray(session.position)
    if (rest.length > 0) await session.append(rest, control)
    return { session, text: model.info.hasTokenizer ? await session.text() : '', tokens: [] }
  } catch (error) {
    await session.close()
    throw error
  }
}

/**
 * @param {Served} served @param {Begun} begun @param {TextRequest} request
 * @param {{ index: number, seed: number }} choice @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<Piece, void, void>}
 */
async function* continueOne(served, { session, text, tokens }, request, { index, seed }, signal) {
  const { echo, logprobs, maxTokens, options } = request
  const names = new Logprobs(echo ? 0 : text.length)
  if (echo && text !== '')
    yield { index, text, logprobs: logprobs === null ? null : names.of(tokens), finish: null }
  if (maxTokens === 0) {
    yield { index, text: '', logprobs: null, finish: 'length' }
    return
  }
  const all = {
    ...{ ...options, maxTokens, seed },
    ...(signal ? { signal } : {}),
  }
  if (logprobs === null) {
    for await (const text of session.generate(all))
      yield { index, text, logprobs: null, finish: null }
  } else {
    for await (const token of session.generateTokens({ ...all, logprobs })) {
      const named = names.of(await served.names.of([token]))
      yield { index, text: token.text, logprobs: named, finish: null }
    }
  }
  // The token that ends a text is none of it, but whoever counts tokens counts it.
  const end = logprobs === null ? null : session.lastStats?.end
  const told = end ? names.of(await served.names.of([{ ...end, text: '' }])) : null
  yield { index, text: '', logprobs: told, finish: finishOf(session.lastStats) }
}

/** @param {Stats | null} stats @returns {'stop' | 'length'} */
export function finishOf(stats) {
  return stats?.finishReason === 'length' ? 'length' : 'stop'
}

/** @typedef {{ tokens: string[], token_logprobs: (number | null)[], top_logprobs: (Record<string, number> | null)[], text_offset: number[] }} TextLogprobs */

/** Tells of tokens as `completions` does. */
class Logprobs {
  #offset

  /** @param {number} offset where the first one begins, in UTF-16 units */
  constructor(offset) {
    this.#offset = offset
  }

  /** @param {NamedToken[]} tokens @returns {TextLogprobs} */
  of(tokens) {
    /** @type {TextLogprobs} */
    const told = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
    for (const { name, text, logprob, top } of tokens) {
      const hasOne = !Number.isNaN(logprob)
      told.tokens.push(name)
      told.token_logprobs.push(hasOne ? logprob : null)
      told.top_logprobs.push(hasOne ? likeliest(top, name, logprob) : null)
      told.text_offset.push(this.#offset)
      this.#offset += text.length
    }
    return told
  }
}

/**
 * The likeliest tokens, and the one that is there. Two of one name are one: the likelier.
 * @param {import('./token-names.js').Named[]} top falling @param {string} name @param {number} logprob @returns {Record<string, number>}
 */
function likeliest(top, name, logprob) {
  const entries = [...top, { name, logprob }]
  return Object.fromEntries(entries.map((one) => [one.name, one.logprob]).reverse())
}
