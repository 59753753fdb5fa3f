/**
 * `chat.completions`: replies to messages.
 *
 * Owns what its requests mean. The text of a chat is made by the model's own template, in the package. Knows nothing of streams and ids of answers:
 * js/openai/service.js does.
 */

import { Fields } from './fields.js'
import { OpenAIError } from './openai-error.js'
import { readMaxTokens, readSampling, seedOf } from './sampling-fields.js'
import { finishOf } from './text-completion.js'

/** @typedef {import('../index.js').ChatMessage} ChatMessage */
/** @typedef {import('./token-names.js').Named} Named */
/** @typedef {import('./token-names.js').NamedToken} NamedToken */
/** @typedef {import('./service.js').Served} Served */
/** @typedef {import('./service.js').Piece} Piece */
/** @typedef {import('./service.js').Usage} Usage */

/** OpenAI's API has no limit; a model that does not end would go on for ever. */
const DEFAULT_TOKENS = 1024
const MOST_MESSAGES = 10000
const MOST_LOGPROBS = 20
/** Names that others give the roles that there are. @type {Record<string, ChatMessage['role']>} */
const ROLES = { system: 'system', developer: 'system', user: 'user', assistant: 'assistant' }

/** @typedef {import('./sampling-fields.js').SamplingFields & { messages: ChatMessage[], logprobs: number | null, maxTokens: number }} ChatRequest */

/** @param {unknown} body @returns {ChatRequest} */
export function readChatRequest(body) {
  const fields = new Fields(body)
  const sampling = readSampling(fields)
  for (const name of ['tools', 'functions', 'audio']) fields.refuse(name)
  const wantsLogprobs = fields.flag('logprobs')
  const top = fields.number('top_logprobs', { min: 0, max: MOST_LOGPROBS, integer: true })
  if (top !== undefined && !wantsLogprobs)
    throw fields.wrong('top_logprobs', 'which needs logprobs to be true')
  return {
    ...sampling,
    messages: readMessages(fields),
    logprobs: wantsLogprobs ? (top ?? 0) : null,
    maxTokens: readMaxTokens(fields, 'max_completion_tokens', 'max_tokens') ?? DEFAULT_TOKENS,
  }
}

/** @param {Fields} fields @returns {ChatMessage[]} */
function readMessages(fields) {
  const messages = fields.list('messages') ?? []
  if (messages.length === 0 || messages.length > MOST_MESSAGES)
    throw fields.wrong('messages', `want 1 to ${MOST_MESSAGES} messages`)
  return messages.map((message, i) => {
    const one = new Fields(message, `messages[${i}]`)
    const name = one.text('role') ?? ''
    const role = Object.hasOwn(ROLES, name) ? ROLES[name] : undefined
    if (!role) throw one.wrong('role', `want ${Object.keys(ROLES).join(', ')}`)
    one.refuse('tool_calls')
    const content = readContent(one)
    // As the package keeps what it has said.
    return { role, content: role === 'assistant' ? content.trim() : content }
  })
}

/** @param {Fields} message @returns {string} of parts, all of them text */
function readContent(message) {
  const content = message.get('content') ?? ''
  if (typeof content === 'string') return content
  const parts = message.list('content', ' or a string') ?? []
  const texts = parts.map((part) => {
    const { type, text } = Object(part)
    if (type === 'text' && typeof text === 'string') return text
    throw message.wrong('content', 'of which only parts of type text can be read')
  })
  return texts.join('')
}

/**
 * @param {Served} served
 * @param {ChatRequest} request
 * @param {AbortSignal | undefined} signal
 * @returns {AsyncGenerator<Piece, Usage, void>}
 */
export async function* completeChat(served, request, signal) {
  const usage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }
  if (request.maxTokens === 0)
    throw new OpenAIError('max_tokens is 0, want 1 or more', { param: 'max_tokens' })
  const session = await served.pool.forChat(request.messages)
  let isWhole = false // a loop that is left comes to `finally` only
  try {
    let rest = request.messages.slice((await session.messages()).length)
    if (request.n > 1) {
      // Read once for all choices.
      await session.say(rest, signal ? { signal } : {})
      rest = []
    }
    for (let index = 0; index < request.n; index++) {
      // The last choice needs no copy.
      const own = index < request.n - 1 ? await session.fork() : session
      const choice = { index, seed: seedOf(request, index) }
      try {
        yield* replyOne(served, own, rest, request, choice, signal)
        const { promptTokens = 0, tokens = 0 } = own.lastStats ?? {}
        usage.prompt_tokens = promptTokens
        usage.completion_tokens += tokens
      } finally {
        if (own !== session) await own.close()
      }
    }
    isWhole = true
  } finally {
    if (isWhole) await served.pool.giveBack(session)
    else await session.close()
  }
  usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
  return usage
}

/**
 * @param {Served} served @param {import('../index.js').Session} session @param {ChatMessage[]} messages that it has not heard
 * @param {ChatRequest} request @param {{ index: number, seed: number }} choice @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<Piece, void, void>}
 */
async function* replyOne(served, session, messages, request, { index, seed }, signal) {
  const { logprobs, maxTokens, options } = request
  const all = {
    ...{ ...options, maxTokens, seed },
    ...(signal ? { signal } : {}),
  }
  const pieces =
    logprobs === null
      ? textsOf(session.chat(messages, all))
      : session.chatTokens(messages, { ...all, logprobs })
  for await (const token of pieces) {
    const { text } = token
    const told = logprobs === null ? null : chatLogprobs(await served.names.of([token]))
    yield { index, text, logprobs: told, finish: null }
  }
  yield { index, text: '', logprobs: null, finish: finishOf(session.lastStats) }
}

/** @param {AsyncGenerator<string, unknown, void>} texts @returns {AsyncGenerator<import('../index.js').Token, void, void>} */
async function* textsOf(texts) {
  for await (const text of texts) yield { id: null, text, logprob: null, top: [] }
}

/** @typedef {{ token: string, logprob: number, bytes: number[] }} ChatChance */
/** @typedef {{ content: (ChatChance & { top_logprobs: ChatChance[] })[], refusal: null }} ChatLogprobs */

/** @param {NamedToken[]} tokens @returns {ChatLogprobs} */
function chatLogprobs(tokens) {
  const content = tokens.map((token) => ({ ...chance(token), top_logprobs: token.top.map(chance) }))
  return { content, refusal: null }
}

/** @param {Named} named @returns {ChatChance} */
function chance({ name, bytes, logprob }) {
  return { token: name, logprob, bytes }
}
