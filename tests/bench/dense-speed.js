/**
 * `npm run bench:dense -- [--shape 780M] [--model FILE] [--text FILE] [--rounds 5] [--tokens 8] [--threads 1]`: what 1 bit saves, beside dense
 * projections of the same model in 16 bits, int8 and 4 bits.
 *
 * Owns two measurements. Speed: random weights in the model's shape and in a published one, all forms in memory, their tokens in turn, so that a
 * machine that drifts slows all of them; ratios are medians of ratios within a round. Loss: the 1-bit model written out as full weights, W =
 * alpha * sign + beta, and stored in each form, over one text. That is the same function again, so it shows what storing loses,
 * and not what a model trained in full precision would gain. Without --text it is measured on stories written by models/training, with Python 3. Prints one JSON line for each
 * shape and form.
 */

import { execFileSync } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { cpus, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { randomModel, SHAPE_NAMES, syntheticConfig } from '../../js/bench/synthetic-model.js'
import { DEFAULT_MODEL } from '../../js/cli/options.js'
import { convertCheckpoint } from '../../js/convert/index.js'
import { Core } from '../../js/core.js'
import { BiMamba } from '../../js/index.js'
import { writeFullWeights } from './full-weights.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const FORMS = /** @type {const} */ (['1 bit', 'int4', 'int8', 'f16'])
const DTYPES = /** @type {const} */ ({ '1 bit': undefined, int4: 'I4', int8: 'I8', f16: 'F16' })
/** Tokens of a prompt that are read at once. */
const PROMPT = 64
const WINDOW = 512
/** Stories that no shipped model was trained on. */
const STORIES = ['--count', '300', '--seed', '4242']

/** @typedef {typeof FORMS[number]} Form */

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** @param {import('../../js/core-session.js').CoreSession} session @param {number} tokens @returns {number} ms a token, with its logits */
function timeTokens(session, tokens) {
  const start = performance.now()
  for (let i = 0; i < tokens; i++) {
    session.append([100 + (i % 1000)])
    session.logits(-1)
  }
  return (performance.now() - start) / tokens
}

/** @param {import('../../js/core-session.js').CoreSession} session @returns {number} ms a token */
function timePrompt(session) {
  const start = performance.now()
  session.append(Array.from({ length: PROMPT }, (_, i) => 3 + i))
  return (performance.now() - start) / PROMPT
}

/** @typedef {import('../../js/format.js').ModelConfig} ModelConfig */

/**
 * A model with its own engine, whose team of threads finds its size for this model's tokens.
 *
 * @param {ModelConfig} shape of 1-bit projections
 * @param {Form} form
 * @param {number} threads
 */
async function openForm(shape, form, threads) {
  const core = await Core.create({ shared: threads > 1 })
  await core.startTeam(threads)
  const projection_dtype = DTYPES[form]
  /** @type {ModelConfig} */
  const config = {
    ...shape,
    ...(projection_dtype ? { projection_dtype } : {}),
    // As `bimamba convert` stores it.
    ...(form === 'f16' ? { embedding_dtype: 'F16' } : {}),
  }
  const session = (await randomModel(core, config)).createSession({ maxChunk: PROMPT })
  const weightBytes = core.tensors(config).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  return { core, session, weightBytes, tokenMs: [0], promptMs: [0] }
}

/** @param {ModelConfig} shape @param {{ rounds: number, tokens: number, threads: number }} plan */
async function measureSpeed(shape, { rounds, tokens, threads }) {
  const subjects = /** @type {Awaited<ReturnType<typeof openForm>>[]} */ ([])
  for (const form of FORMS) subjects.push(await openForm(shape, form, threads))
  // The first round warms the WebAssembly compiler up, lets the teams find their sizes, and is not counted.
  for (const { session } of subjects) timeTokens(session, 8 * tokens)
  for (let round = 0; round < rounds; round++) {
    for (const { session, tokenMs, promptMs } of subjects) {
      tokenMs[round] = timeTokens(session, tokens)
      promptMs[round] = timePrompt(session)
    }
  }
  for (const { core } of subjects) core.close()
  const ratio = (/** @type {number[]} */ ms, /** @type {number[]} */ base) =>
    +median(ms.map((value, round) => Number(base[round]) / value)).toFixed(2)
  return subjects.map(({ tokenMs, promptMs, weightBytes }) => ({
    tokens_per_s: +(1000 / median(tokenMs)).toFixed(1),
    of_1_bit: ratio(tokenMs, subjects[0]?.tokenMs ?? []),
    prompt_tokens_per_s: +(1000 / median(promptMs)).toFixed(1),
    prompt_of_1_bit: ratio(promptMs, subjects[0]?.promptMs ?? []),
    weight_bytes: weightBytes,
  }))
}

/** By the grammar of models/training, which needs Python 3. */
async function writtenStories() {
  const dir = await mkdtemp(join(tmpdir(), 'bimamba-stories-'))
  try {
    const out = join(dir, 'stories.md')
    execFileSync('python3', [`${ROOT}models/training/stories.py`, out, ...STORIES])
    return await readFile(out, 'utf8')
  } finally {
    await rm(dir, { recursive: true })
  }
}

/** @param {string} path @param {string} text @returns {Promise<number>} */
async function bitsPerByte(path, text) {
  const model = await BiMamba.load(path, { threads: 1 })
  try {
    const ids = await model.tokenize(text, { bos: model.info.bosId !== null })
    let nats = 0
    let predicted = 0
    for (let at = 0; at + 1 < ids.length; at += WINDOW) {
      for (const logprob of await model.score(ids.slice(at, at + WINDOW))) {
        if (logprob === null) continue
        nats -= logprob
        predicted++
      }
    }
    return ((nats / predicted / Math.LN2) * ids.length) / Buffer.byteLength(text)
  } finally {
    await model.close()
  }
}

/** @param {string} model @param {string} text */
async function measureLoss(model, text) {
  const core = await Core.create()
  const dir = await mkdtemp(join(tmpdir(), 'bimamba-dense-'))
  try {
    const tokenizer = await writeFullWeights(core, model, dir)
    const results = [{ bits_per_byte: await bitsPerByte(model, text) }]
    for (const form of FORMS.slice(1)) {
      const out = join(dir, 'dense.out')
      const projections = /** @type {'int4'} */ (form)
      await convertCheckpoint(core, dir, out, { projections, tokenizer })
      results.push({ bits_per_byte: await bitsPerByte(out, text) })
      await rm(out)
    }
    return results.map(({ bits_per_byte }) => ({ bits_per_byte: +bits_per_byte.toFixed(4) }))
  } finally {
    await rm(dir, { recursive: true })
  }
}

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: '780M' },
    model: { type: 'string', default: DEFAULT_MODEL },
    text: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    tokens: { type: 'string', default: '8' },
    threads: { type: 'string', default: '1' },
  },
})
if (!SHAPE_NAMES.includes(/** @type {'780M'} */ (values.shape))) {
  throw new Error(`--shape is ${values.shape}, want one of ${SHAPE_NAMES.join(', ')}`)
}
const text =
  values.text === undefined ? await writtenStories() : await readFile(values.text, 'utf8')
const loss = await measureLoss(values.model, text)
const [rounds, tokens, threads] = [values.rounds, values.tokens, values.threads].map(Number)
const about = { threads, machine: cpus()[0]?.model, date: new Date().toISOString().slice(0, 10) }

/** @param {string} shape @param {ModelConfig} config @param {number} tokens @param {object[]} more for each form */
async function printSpeed(shape, config, tokens, more = []) {
  const plan = { rounds: Number(rounds), tokens, threads: Number(threads) }
  for (const [i, speed] of (await measureSpeed(config, plan)).entries())
    console.log(JSON.stringify({ shape, projections: FORMS[i], ...speed, ...more[i], ...about }))
}

const { config } = await BiMamba.inspect(values.model)
// Its tokens take less time: more of them.
await printSpeed(basename(values.model, '.safetensors'), config, 50 * Number(tokens), loss)
await printSpeed(values.shape, syntheticConfig(values.shape), Number(tokens))
