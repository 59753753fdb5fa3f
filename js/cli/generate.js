/**
 * `bimamba generate`: a prompt in, text out as it is made.
 *
 * Owns the command's options, where the prompt comes from, and the line of numbers at the end. Text goes to stdout and nothing
 * else does; all else goes to stderr.
 */

import { addAbortSignal } from 'node:stream'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  FORMAT_OPTIONS,
  MODEL_OPTIONS,
  readIds,
  readModelOptions,
  readTextSettings,
  settingOptions,
  UsageError,
} from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('../generate.js').Stats} Stats */

export const USAGE = `
Usage: bimamba generate [options] [PROMPT|-]

Continues PROMPT and prints the text as it is made. Without a prompt, or with -, it is read from stdin.
An empty prompt starts from the model's BOS token. Ctrl-C ends the text.`

export const ARGUMENTS = ['[PROMPT]']

export const OPTIONS = {
  ...MODEL_OPTIONS,
  ...settingOptions(),
  ...FORMAT_OPTIONS,
  tokens: { value: 'IDS', help: 'the prompt as token ids, 1,2,3: taken as they are' },
  'no-bos': { help: 'do not begin with the BOS token' },
  echo: { help: 'print the prompt before the text' },
  json: { help: 'print one JSON object at the end instead of the text' },
  ...COMMON_OPTIONS,
}

/** Longer prompts than this are a mistake (a wrong file in the pipe), not a prompt. */
const MAX_STDIN_BYTES = 64 * 2 ** 20

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const { source, load } = readModelOptions(parsed)
  const settings = await readTextSettings(parsed)
  if (parsed.flags.has('no-bos')) settings.bos = false
  const prompt = await readPrompt(parsed, io)
  // Read while the model loads. Not without BOS: a prompt is then other ids than the load would read.
  const early = settings.bos === undefined ? { prompt } : {}
  const model = await openModel(source, { ...load, ...early }, io)
  try {
    const output = { json: parsed.flags.has('json'), echo: parsed.flags.has('echo') }
    await printText(model, prompt, { ...settings, signal: io.signal }, output, io)
    return 0
  } finally {
    await model.close()
  }
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<string | number[]>}
 */
async function readPrompt({ values, positionals }, io) {
  const ids = values.get('tokens')?.[0]
  const [text] = positionals
  if (ids !== undefined) {
    if (text !== undefined) throw new UsageError('a PROMPT and --tokens: want one of them')
    return readIds(ids, '--tokens')
  }
  return text === undefined || text === '-' ? readStdin(io) : text
}

/** @param {Io} io @returns {Promise<string>} without the line feed that ends a file or an echo */
async function readStdin({ stdin, signal }) {
  addAbortSignal(signal, stdin)
  const parts = []
  let sizeBytes = 0
  for await (const part of stdin) {
    const bytes = typeof part === 'string' ? new TextEncoder().encode(part) : part
    sizeBytes += bytes.length
    if (sizeBytes > MAX_STDIN_BYTES)
      throw new UsageError('the prompt on stdin is longer than 64 MiB')
    parts.push(bytes)
  }
  return new TextDecoder().decode(Buffer.concat(parts)).replace(/\r?\n$/, '')
}

/**
 * @param {BiMamba} model
 * @param {string | number[]} prompt
 * @param {import('../settings.js').GenerateOptions} options
 * @param {{ json: boolean, echo: boolean }} output
 * @param {Io} io
 */
async function printText(model, prompt, options, { json, echo }, io) {
  const { stdout, stderr, signal } = io
  const shown = (/** @type {string} */ text) => (stdout.isTTY ? withoutControls(text) : text)
  const pieces = model.info.hasTokenizer
    ? model.generate(prompt, options)
    : idPieces(model, prompt, options)
  let text = echo ? await promptText(model, prompt) : ''
  if (text && !json) await write(stdout, shown(text), signal)
  try {
    for await (const piece of pieces) {
      text += piece
      if (!json) await write(stdout, shown(piece), signal)
    }
  } catch (error) {
    // Ctrl-C ends the text, it does not fail: what was made so far stands.
    if (!signal.aborted) throw error
  }
  const stats = model.lastStats
  if (json)
    await write(stdout, `${JSON.stringify({ text, ...stats, tokensPerSecond: speed(stats) })}\n`)
  else await write(stdout, '\n')
  await write(stderr, `${finalLine(stats)}\n`)
}

/**
 * A model without a tokenizer prints ids, in the form that --tokens takes.
 *
 * @param {BiMamba} model
 * @param {string | number[]} prompt
 * @param {import('../settings.js').GenerateOptions} options
 */
async function* idPieces(model, prompt, options) {
  let separator = ''
  for await (const id of model.generateIds(prompt, options)) {
    yield separator + id
    separator = ','
  }
}

/** @param {BiMamba} model @param {string | number[]} prompt @returns {Promise<string>} */
async function promptText(model, prompt) {
  if (typeof prompt === 'string') return prompt
  return model.info.hasTokenizer ? model.detokenize(prompt) : `${prompt.join(',')},`
}

/** @param {Stats | null} stats @returns {number} tokens a second after the prompt */
function speed(stats) {
  return stats && stats.decodeMs > 0 ? Math.round((stats.tokens / stats.decodeMs) * 1e4) / 10 : 0
}

/** @param {Stats | null} stats */
function finalLine(stats) {
  if (!stats) return 'stopped before the first token'
  const { tokens, promptTokens, prefillMs, decodeMs, finishReason, seed, drafted } = stats
  const seconds = (/** @type {number} */ ms) => `${(ms / 1000).toFixed(2)} s`
  const guesses = drafted > 0 ? `; ${stats.accepted} of ${drafted} guesses right` : ''
  const ends = {
    eos: 'end of text',
    stop: 'stop string or whole format',
    length: 'length',
    abort: 'interrupted',
    error: 'error',
  }
  return `[${tokens} tokens in ${seconds(decodeMs)}, ${speed(stats)} tokens/s; prompt of ${promptTokens} in ${seconds(prefillMs)}; ${ends[finishReason]}; seed ${seed}${guesses}]`
}
