/**
 * `bimamba batch`: a file of prompts in, a file of texts out, in as many processes and attempts as it takes.
 *
 * Owns the command's options, which lines are this shard's, and which of them the output has already. What a line means is js/cli/batch-lines.js.
 * The idea: an answer depends on the line, its index and the options only, and says so by a fingerprint. So what is there needs no second file to
 * be trusted, and any split of the work gives the same lines.
 */

import { BmError } from '../index.js'
import { answerLine, fingerprint } from './batch-lines.js'
import { JsonFields } from './json-fields.js'
import { isSameFile, LineFile, readLines } from './line-file.js'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  FORMAT_OPTIONS,
  MODEL_OPTIONS,
  readModelOptions,
  readTextSettings,
  settingOptions,
  UsageError,
} from './options.js'
import { write } from './output.js'
import { createItemProgress } from './progress.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('./batch-lines.js').BatchLine} BatchLine */
/** @typedef {import('../settings.js').GenerateOptions & { seed: number }} BatchSettings */
/** @typedef {{ number: number, of: number }} Shard number: from 1 */

export const USAGE = `
Usage: bimamba batch [options] IN.jsonl OUT.jsonl

Continues the prompt, or answers the messages, of each line {"id", "prompt" | "messages", ...}; other fields are generation
options as the API names them, and come before those given here. Lines that OUT.jsonl has already are skipped.`

export const ARGUMENTS = ['IN.jsonl', 'OUT.jsonl']

export const OPTIONS = {
  ...MODEL_OPTIONS,
  ...settingOptions(),
  ...FORMAT_OPTIONS,
  seed: {
    value: 'N',
    help: 'line i, from 0, has the seed N + i unless it gives its own (default 0)',
  },
  shard: { value: 'I/N', help: 'only the I-th of N parts: each N-th line, from the I-th on' },
  strict: { help: 'end with the first line that is wrong' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const [input = '', output = ''] = parsed.positionals
  if (await isSameFile(input, output)) throw new UsageError('IN.jsonl and OUT.jsonl are one file')
  const shard = readShard(parsed.values.get('shard')?.[0] ?? '1/1')
  const { seed = 0, ...rest } = await readTextSettings(parsed)
  const settings = { ...rest, seed }
  const isStrict = parsed.flags.has('strict')
  const { source, load } = readModelOptions(parsed)
  const model = await openModel(source, load, io)
  try {
    if (!model.info.hasTokenizer) {
      throw new BmError('tokenizer', 'the model file has no tokenizer: batch writes text')
    }
    const job = { model, settings, input, output, shard, isStrict }
    await write(io.stderr, `${summary(await runBatch(job, io))}\n`)
    return 0
  } finally {
    await model.close()
  }
}

/** @param {string} text @returns {Shard} @throws {UsageError} */
function readShard(text) {
  const [, number, of] = /^(\d{1,9})\/(\d{1,9})$/.exec(text)?.map(Number) ?? []
  if (number !== undefined && of !== undefined && number >= 1 && number <= of) return { number, of }
  throw new UsageError(`--shard is '${text}', want I/N with I from 1 to N`)
}

/**
 * @typedef {object} BatchJob
 * @property {BiMamba} model
 * @property {BatchSettings} settings
 * @property {string} input
 * @property {string} output
 * @property {Shard} shard
 * @property {boolean} isStrict
 */

/** @typedef {{ made: number, found: number, failed: number }} BatchCounts failed: lines of the output that say an error */

/** @param {BatchJob} job @param {Io} io @returns {Promise<BatchCounts>} */
async function runBatch(job, { stderr, signal }) {
  const { model, settings, input, output, isStrict } = job
  const { file, done } = await openOutput(output)
  const found = done.size
  let failed = [...done.values()].filter(({ error }) => error !== null).length
  let made = 0
  try {
    const total = await checkDone(job, done)
    const progress = createItemProgress(stderr, 'lines', found)
    try {
      for await (const line of linesOfShard(job)) {
        if (done.has(line.index)) continue
        const answer = await answerLine(model, settings, line, signal)
        if (answer.error && isStrict) throw wrongLine(input, answer.error.message)
        await file.append(JSON.stringify(answer))
        made++
        if (answer.error) failed++
        progress.update(found + made, total, failed > 0 ? `, ${failed} wrong` : '')
      }
    } finally {
      progress.clear()
    }
    return { made, found, failed }
  } finally {
    await file.close()
  }
}

/** A line of the output. @typedef {{ number: number, run: unknown, error: string | null }} DoneLine */

/** @param {string} path @returns {Promise<{ file: LineFile, done: Map<number, DoneLine> }>} done: by the index */
async function openOutput(path) {
  /** @type {Map<number, DoneLine>} */
  const done = new Map()
  /** @param {import('./line-file.js').Line} line */
  const take = ({ text, number }) => {
    const fields = JsonFields.parse(text, `${path} line ${number}`)
    const index = fields.integer('index', 0, Number.MAX_SAFE_INTEGER)
    if (done.has(index)) throw fields.wrong('index', 'each only once')
    const error = fields.has('error') ? fields.object('error').string('message') : null
    done.set(index, { number, run: fields.get('run'), error })
  }
  const file = await LineFile.open(path, take, '{"index":')
  return { file, done }
}

/**
 * Whether what the output has is of this run: found out before anything is computed.
 *
 * @param {BatchJob} job
 * @param {Map<number, DoneLine>} done
 * @returns {Promise<number>} lines of the shard
 * @throws {BmError} `mismatch`; `argument`: with `strict`, a line that is wrong
 */
async function checkDone({ model, settings, input, output, shard, isStrict }, done) {
  const unknown = new Set(done.keys())
  let total = 0
  for await (const line of linesOfShard({ input, shard })) {
    total++
    const there = done.get(line.index)
    if (!there) continue
    unknown.delete(line.index)
    if (there.run !== fingerprint(model, settings, line)) {
      throw new BmError(
        'mismatch',
        `${output} line ${there.number} was made from ${line.place} of ${input} with another model, options or prompt: want a new file`,
      )
    }
    if (isStrict && there.error !== null) throw wrongLine(input, there.error)
  }
  for (const index of unknown) {
    throw new BmError(
      'mismatch',
      `${output} line ${done.get(index)?.number} has the index ${index}, which is not in this shard of ${input}: want a new file`,
    )
  }
  return total
}

/** @param {string} input @param {string} message */
const wrongLine = (input, message) => new BmError('argument', `${input} ${message}`)

/**
 * Blank lines have an index and no answer.
 *
 * @param {{ input: string, shard: Shard }} job
 * @returns {AsyncGenerator<BatchLine, void, void>}
 */
async function* linesOfShard({ input, shard }) {
  for await (const { text, number } of readLines(input)) {
    const index = number - 1
    if (index % shard.of !== shard.number - 1 || text.trim() === '') continue
    yield { text, index, place: `line ${number}` }
  }
}

/** @param {BatchCounts} counts */
function summary({ made, found, failed }) {
  const before = found > 0 ? `, ${found} were there` : ''
  const wrong = failed > 0 ? `; ${failed} in all with an error` : ''
  const lines = made === 1 ? '1 line' : `${made} lines`
  return `[${lines} made${before}${wrong}]`
}
