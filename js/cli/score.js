/**
 * `bimamba score`: what the model thinks of given token ids, for comparing with other implementations.
 *
 * Owns the command's options and the two outputs: log-probabilities as JSON, logits as a file of little-endian float32. The
 * logits go to a temporary name beside the file, which gets its own name only when it is complete.
 */

import { open, rename, rm } from 'node:fs/promises'
import { BmError } from '../index.js'
import { openModel } from './model-loading.js'
import { COMMON_OPTIONS, MODEL_OPTIONS, readIds, readModelOptions, UsageError } from './options.js'
import { write } from './output.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba score [options] --tokens 1,2,3

Prints JSON: logprobs[t] is the natural log of p(token t | the tokens before it), null for t = 0.
The ids are taken as they are: no BOS is added.`

export const OPTIONS = {
  tokens: { value: 'IDS', help: 'token ids separated by commas' },
  logits: {
    value: 'FILE',
    help: 'write the logits: row t, after token t, is vocab_size little-endian float32',
  },
  ...MODEL_OPTIONS,
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const text = parsed.values.get('tokens')?.[0]
  if (text === undefined)
    throw new UsageError('--tokens is missing, want token ids separated by commas')
  const tokens = readIds(text, '--tokens')
  const { source, load } = readModelOptions(parsed)
  const logitsPath = parsed.values.get('logits')?.[0]
  const model = await openModel(source, load, io)
  try {
    const logprobs = logitsPath
      ? await scoreToFile(model, tokens, logitsPath, io.signal)
      : await model.score(tokens, { signal: io.signal })
    const known = logprobs.filter((logprob) => logprob !== null)
    const total = known.reduce((sum, logprob) => sum + logprob, 0)
    const result = {
      precision: model.info.precision,
      vocabSize: model.config.vocab_size,
      tokens,
      logprobs,
      total,
    }
    await write(io.stdout, `${JSON.stringify(result)}\n`)
    return 0
  } finally {
    await model.close()
  }
}

/**
 * @param {BiMamba} model
 * @param {number[]} tokens
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<(number | null)[]>}
 */
async function scoreToFile(model, tokens, path, signal) {
  const temporary = `${path}.${process.pid}.part`
  const file = await open(temporary, 'wx').catch((cause) => {
    throw new BmError('io', `cannot write ${path}: ${cause.message}`, { cause })
  })
  try {
    const logprobs = []
    for await (const { logprob, logits } of model.evaluate(tokens, { logits: true, signal })) {
      logprobs.push(logprob)
      await file.writeFile(littleEndian(logits ?? new Float32Array(0)))
    }
    await file.close()
    await rename(temporary, path)
    return logprobs
  } catch (error) {
    await file.close().catch(() => {})
    await rm(temporary, { force: true })
    if (!(error instanceof Error && 'syscall' in error)) throw error
    throw new BmError('io', `cannot write ${path}: ${error.message}`, { cause: error })
  }
}

/** @param {Float32Array} values @returns {Uint8Array} */
function littleEndian(values) {
  const view = new DataView(new ArrayBuffer(values.length * 4))
  for (const [i, value] of values.entries()) view.setFloat32(i * 4, value, true)
  return new Uint8Array(view.buffer)
}
