/**
 * The lines of `bimamba batch`: what one asks for, and what is answered.
 *
 * Owns the fields of both, and which failures are a line's own. Nothing in an answer depends on when or where it was made: a line's seed is the
 * run's plus the line's index, and times are left out.
 */

import { createHash } from 'node:crypto'
import { BmError, VERSION } from '../index.js'
import { seedAfter } from '../settings.js'
import { JsonFields } from './json-fields.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('../settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('../chat-template.js').ChatMessage} ChatMessage */

/**
 * @typedef {object} BatchLine
 * @property {string} text
 * @property {number} index  in the input, from 0
 * @property {string} place  `line N`, for messages: an answer does not say where the input lay
 */

/**
 * A line of the output. It has the first five fields after `id`, or `error`.
 *
 * @typedef {object} BatchAnswer
 * @property {number} index
 * @property {string | number} id       as the line gives it, or the index
 * @property {string} [text]
 * @property {number} [promptTokens]
 * @property {number} [tokens]
 * @property {string} [finishReason]
 * @property {number} [seed]
 * @property {{ code: string, message: string }} [error]
 * @property {string} run               see `fingerprint`
 */

/** Codes of errors that come of a line; the others end the run. */
const LINE_ERRORS = ['argument', 'numeric', 'tokenizer']

/**
 * What an answer depends on, in short: lines with the same one have the same answer.
 *
 * @param {BiMamba} model
 * @param {GenerateOptions} settings of the run
 * @param {BatchLine} line
 * @returns {string} 16 hex digits
 */
export function fingerprint({ info }, settings, { text, index }) {
  const { identity, precision, state, head, device } = info
  const parts = [VERSION, identity, precision, state, head, device, settings, index, text]
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16)
}

/**
 * @param {BiMamba} model
 * @param {GenerateOptions & { seed: number }} settings of the run; a line's own come before them
 * @param {BatchLine} line
 * @param {AbortSignal} signal
 * @returns {Promise<BatchAnswer>}
 * @throws {BmError} what is not the line's fault; or `signal.reason`
 */
export async function answerLine(model, settings, line, signal) {
  const { index, text, place } = line
  const run = fingerprint(model, settings, line)
  /** @type {string | number} */
  let id = index
  try {
    const fields = JsonFields.parse(text, place)
    id = readId(fields, index)
    const seed = seedAfter(settings.seed, index)
    return { index, id, ...(await continueLine(model, { ...settings, seed }, fields, signal)), run }
  } catch (error) {
    if (!(error instanceof BmError) || !LINE_ERRORS.includes(error.code)) throw error
    const message = error.message.startsWith(place) ? error.message : `${place}: ${error.message}`
    return { index, id, error: { code: error.code, message }, run }
  }
}

/** @param {JsonFields} fields @param {number} index @returns {string | number} */
function readId(fields, index) {
  if (!fields.has('id')) return index
  const id = fields.get('id')
  if (typeof id === 'string' || typeof id === 'number') return id
  throw fields.wrong('id', 'a string or a number')
}

/**
 * @param {BiMamba} model
 * @param {GenerateOptions} settings
 * @param {JsonFields} fields
 * @param {AbortSignal} signal
 */
async function continueLine(model, settings, fields, signal) {
  const { id: _, prompt, messages, ...own } = fields.values
  if (fields.has('signal')) throw fields.wrong('signal', 'no such field')
  if (fields.has('prompt') === fields.has('messages')) {
    throw fields.wrong('prompt', "a prompt or 'messages', one of them")
  }
  const options = { ...settings, ...own, signal }
  const { text, stats } = fields.has('messages')
    ? await reply(model, readMessages(fields), options)
    : await complete(model, prompt, options)
  const { promptTokens, tokens, finishReason, seed } = stats
  return { text, promptTokens, tokens, finishReason, seed }
}

/** @param {JsonFields} fields @returns {ChatMessage[]} the last one is the user's */
function readMessages(fields) {
  const messages = fields.get('messages')
  if (Array.isArray(messages) && messages.at(-1)?.role === 'user') return messages
  throw fields.wrong('messages', "an array of messages, the last one of the role 'user'")
}

/** @param {BiMamba} model @param {unknown} prompt the model checks it @param {GenerateOptions} options */
async function complete(model, prompt, options) {
  return drain(model.generate(/** @type {string | number[]} */ (prompt), options))
}

/** @param {BiMamba} model @param {ChatMessage[]} messages the session checks them @param {GenerateOptions} options */
async function reply(model, messages, options) {
  const session = await model.createSession({ checkpointBytes: 0 })
  try {
    return await drain(session.chat(messages, options))
  } finally {
    await session.close()
  }
}

/** @param {AsyncGenerator<string, import('../generate.js').Stats, void>} pieces */
async function drain(pieces) {
  let text = ''
  for (;;) {
    const { done, value } = await pieces.next()
    if (done) return { text, stats: value }
    text += value
  }
}
