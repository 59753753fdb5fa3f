/**
 * `bimamba perplexity`: how well a model predicts a text, by the protocol of the Bi-Mamba paper.
 *
 * Owns the protocol: the text is tokenized once, BOS before it; windows of equal length without overlap, the rest dropped; the
 * state is zero at the start of each; perplexity is exp of the mean over windows of a window's mean loss. Perplexities of different
 * tokenizers do not compare, so it also gives bits per byte: the mean loss of a token times the tokens per byte of the text.
 */

import { readFile } from 'node:fs/promises'
import { BmError } from '../index.js'
import { CHOICES } from '../settings.js'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  MODEL_OPTIONS,
  readModelOptions,
  readNumber,
  UsageError,
} from './options.js'
import { write } from './output.js'
import { createProgress } from './progress.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./output.js').Io} Io */
/** @typedef {'fast' | 'high' | 'exact'} Precision */

export const USAGE = `
Usage: bimamba perplexity [options] --file TEXT

Prints perplexity and bits per byte of a model on a UTF-8 text, in each precision or the one given.`

const DEFAULT_WINDOW = 2048

export const OPTIONS = {
  file: { value: 'TEXT', help: 'the text' },
  window: {
    value: 'N',
    help: `tokens in a window (default ${DEFAULT_WINDOW}); the rest is dropped`,
  },
  ...MODEL_OPTIONS,
  precision: { ...MODEL_OPTIONS.precision, help: 'only this one (default: all three)' },
  json: { help: 'print one JSON object' },
  ...COMMON_OPTIONS,
}

/**
 * @typedef {object} Measured
 * @property {Precision} precision
 * @property {number} nats         mean over windows of the mean loss of a token, natural logarithm
 * @property {number} perplexity   exp(nats)
 * @property {number} bitsPerByte
 */

/**
 * @typedef {object} Corpus
 * @property {Uint32Array} ids
 * @property {number} bytes of the text
 * @property {number} window tokens
 * @property {number} windows
 */

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const path = parsed.values.get('file')?.[0]
  if (path === undefined) throw new UsageError('--file is missing, want a text to measure on')
  const window = readWindow(parsed.values.get('window')?.[0])
  const { source, load } = readModelOptions(parsed)
  const only = parsed.values.has('precision') ? [load.precision] : CHOICES.precision
  const text = await readText(path)
  const isJson = parsed.flags.has('json')
  /** @type {Measured[]} */
  const results = []
  /** @type {Corpus | null} */
  let corpus = null
  for (const precision of /** @type {Precision[]} */ (only)) {
    const model = await openModel(source, { ...load, precision }, io)
    try {
      corpus ??= await tokenizeText(model, text, window, io.signal)
      if (!isJson && results.length === 0) await write(io.stdout, describe(path, corpus))
      const result = await measure(model, corpus, io)
      results.push(result)
      if (!isJson) await write(io.stdout, row(result))
    } finally {
      await model.close()
    }
  }
  if (isJson && corpus) {
    const { ids, bytes, windows } = corpus
    const summary = { file: path, bytes, tokens: ids.length, window, windows, results }
    await write(io.stdout, `${JSON.stringify(summary)}\n`)
  }
  return 0
}

/** @param {string | undefined} text @returns {number} */
function readWindow(text) {
  if (text === undefined) return DEFAULT_WINDOW
  const window = readNumber(text, '--window')
  if (Number.isInteger(window) && window >= 2 && window <= 1e6) return window
  throw new UsageError(`--window is ${text}, want an integer from 2 to 1000000`)
}

/** @param {string} path @returns {Promise<string>} */
async function readText(path) {
  const bytes = await readFile(path).catch((cause) => {
    throw new BmError('io', `cannot read ${path}: ${cause.message}`, { cause })
  })
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new BmError('argument', `${path} is not UTF-8 text`, { cause })
  }
}

/**
 * @param {BiMamba} model
 * @param {string} text
 * @param {number} window
 * @param {AbortSignal} signal
 * @returns {Promise<Corpus>}
 */
async function tokenizeText(model, text, window, signal) {
  const ids = await model.tokenize(text, { bos: model.info.bosId !== null, signal })
  const windows = Math.floor(ids.length / window)
  if (windows === 0) {
    throw new BmError(
      'argument',
      `the text has ${ids.length} tokens, want at least a window of ${window}; see --window`,
    )
  }
  return { ids, bytes: Buffer.byteLength(text), window, windows }
}

/**
 * @param {BiMamba} model
 * @param {Corpus} corpus
 * @param {Io} io
 * @returns {Promise<Measured>}
 */
async function measure(model, { ids, bytes, window, windows }, io) {
  const progress = createProgress(io.stderr, 'tokens')
  let nats = 0
  try {
    for (let i = 0; i < windows; i++) {
      const part = ids.subarray(i * window, (i + 1) * window)
      let loss = 0
      for await (const { position, logprob } of model.evaluate(part, { signal: io.signal })) {
        loss -= logprob ?? 0
        progress.update(i * window + position + 1, windows * window)
      }
      nats += loss / (window - 1) / windows
    }
  } finally {
    progress.clear()
  }
  const { precision } = model.info
  const bitsPerByte = ((nats / Math.LN2) * ids.length) / bytes
  return { precision, nats, perplexity: Math.exp(nats), bitsPerByte }
}

/** @param {string} path @param {Corpus} corpus */
function describe(path, { ids, bytes, window, windows }) {
  return `${path}: ${bytes} bytes, ${ids.length} tokens, ${windows} windows of ${window}\n`
}

/** @param {Measured} result */
function row({ precision, nats, perplexity, bitsPerByte }) {
  const name = precision.padEnd(6)
  return `  ${name} perplexity ${perplexity.toFixed(3)}  bits/byte ${bitsPerByte.toFixed(4)}  nats/token ${nats.toFixed(4)}\n`
}
