/**
 * `bimamba eval`: accuracy on a multiple-choice task, by the rules of lm-evaluation-harness 0.4.2 without examples.
 *
 * Owns the command's options, the run over the items, and the report. What is asked is js/cli/eval-tasks.js, what is remembered
 * js/cli/eval-journal.js. The choice whose continuation is the likeliest is the model's (acc), or the likeliest for its length in characters (acc_norm);
 * among equals it is the first.
 */

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { BmError, VERSION } from '../index.js'
import { suggest } from '../settings.js'
import { EvalJournal } from './eval-journal.js'
import { EVAL_TASKS } from './eval-tasks.js'
import { JsonFields } from './json-fields.js'
import { isSameFile, linesOf, replaceFile } from './line-file.js'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  MODEL_OPTIONS,
  readModelOptions,
  readNumber,
  UsageError,
} from './options.js'
import { write } from './output.js'
import { createItemProgress } from './progress.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('./eval-journal.js').ItemScores} ItemScores */
/** @typedef {import('./eval-tasks.js').EvalTask} EvalTask */
/** @typedef {import('./eval-tasks.js').EvalItem & { place: string }} PlacedItem */

const TASK_NAMES = Object.keys(EVAL_TASKS)

/** Tokens that a model reads of an item at most: as the harness has it for Mamba models. */
const WINDOW = 2048

export const USAGE = `
Usage: bimamba eval [options] --task NAME --file DATA.jsonl

Prints how often a model chooses the right answer, without examples, by the rules of lm-evaluation-harness.
Tasks: ${TASK_NAMES.join(', ')}.
With --report an interrupted run goes on where it was: items that are done are in FILE.journal.jsonl.`

export const OPTIONS = {
  task: { value: 'NAME', help: 'what the file holds' },
  file: { value: 'DATA.jsonl', help: "an item a line, with the data set's own fields" },
  limit: { value: 'N', help: 'only the first N items' },
  report: { value: 'FILE', help: 'write the results as JSON, and a journal beside it' },
  ...MODEL_OPTIONS,
  json: { help: 'print one JSON object' },
  ...COMMON_OPTIONS,
}

/**
 * @typedef {object} EvalData
 * @property {PlacedItem[]} items
 * @property {string} sha256  of the whole file, lower-case hex
 */

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const { task, file, limit, report: reportPath } = await readOptions(parsed)
  const { source, load } = readModelOptions(parsed)
  const data = await readData(file, /** @type {EvalTask} */ (EVAL_TASKS[task]), limit)
  const model = await openModel(source, load, io)
  try {
    const subject = subjectOf(model, task, data)
    const counts = data.items.map(({ lengths }) => lengths.length)
    const journal =
      reportPath === undefined
        ? null
        : await EvalJournal.open(`${reportPath}.journal.jsonl`, subject, counts)
    const scores = await scoreItems(model, data.items, journal, io).finally(() => journal?.close())
    const report = reportOf(subject, file, data.items, scores)
    const text = `${JSON.stringify(report, null, 2)}\n`
    if (reportPath !== undefined) await replaceFile(reportPath, text)
    const isJson = parsed.flags.has('json')
    await write(io.stdout, isJson ? `${JSON.stringify(report)}\n` : describe(report))
    return 0
  } finally {
    await model.close()
  }
}

/** @param {import('./options.js').ParsedOptions} parsed */
async function readOptions({ values }) {
  const value = (/** @type {string} */ name) => values.get(name)?.[0]
  const [task, file, report] = [value('task'), value('file'), value('report')]
  if (task === undefined) throw new UsageError(`--task is missing, want ${TASK_NAMES.join(', ')}`)
  if (!TASK_NAMES.includes(task)) {
    const meant = suggest(task, TASK_NAMES)
    const hint = meant ? `did you mean ${meant}?` : `want ${TASK_NAMES.join(', ')}`
    throw new UsageError(`--task is '${task}', ${hint}`)
  }
  if (file === undefined) throw new UsageError('--file is missing, want the items of the task')
  if (report === '') throw new UsageError('--report is empty, want a file')
  if (report !== undefined && (await isSameFile(report, file))) {
    throw new UsageError('--report and --file are one file')
  }
  const text = value('limit')
  const limit = text === undefined ? Number.POSITIVE_INFINITY : readNumber(text, '--limit')
  if (text !== undefined && !(Number.isSafeInteger(limit) && limit >= 1)) {
    throw new UsageError(`--limit is ${text}, want an integer from 1`)
  }
  return { task, file, limit, report }
}

/**
 * All items are read before a model is: what is wrong with line 10,000 is said at once.
 *
 * @param {string} path
 * @param {EvalTask} task
 * @param {number} limit
 * @returns {Promise<EvalData>}
 */
async function readData(path, task, limit) {
  const bytes = await readFile(path).catch((cause) => {
    throw new BmError('io', `cannot read ${path}: ${cause.message}`, { cause })
  })
  /** @type {PlacedItem[]} */
  const items = []
  for await (const { text, number } of linesOf([bytes], path)) {
    if (items.length >= limit) break
    if (text.trim() === '') continue
    const place = `${path} line ${number}`
    items.push({ ...task.read(JsonFields.parse(text, place)), place })
  }
  if (items.length === 0) throw new BmError('argument', `${path} has no items`)
  return { items, sha256: createHash('sha256').update(bytes).digest('hex') }
}

/** What the results depend on. @param {BiMamba} model @param {string} task @param {EvalData} data */
function subjectOf({ info }, task, { sha256 }) {
  const { identity, precision, state, head, device } = info
  return {
    version: VERSION,
    task,
    file_sha256: sha256,
    model: identity,
    precision,
    state,
    head,
    device,
    window: WINDOW,
  }
}

/**
 * @param {BiMamba} model
 * @param {PlacedItem[]} items
 * @param {EvalJournal | null} journal
 * @param {Io} io
 * @returns {Promise<ItemScores[]>}
 */
async function scoreItems(model, items, journal, { stderr, signal }) {
  const scores = [...(journal?.scores ?? [])]
  const progress = createItemProgress(stderr, 'items', scores.length)
  let right = scores.filter(({ logprobs }, i) => best(logprobs) === items[i]?.gold).length
  try {
    for (const item of items.slice(scores.length)) {
      const scored = await scoreItem(model, item, signal)
      await journal?.add(scores.length, scored)
      scores.push(scored)
      if (best(scored.logprobs) === item.gold) right++
      const note = `  acc ${(right / scores.length).toFixed(4)}`
      progress.update(scores.length, items.length, note)
    }
    return scores
  } finally {
    progress.clear()
  }
}

/** @param {BiMamba} model @param {PlacedItem} item @param {AbortSignal} signal @returns {Promise<ItemScores>} */
async function scoreItem(model, { groups, place }, signal) {
  /** @type {import('../loglikelihood.js').Loglikelihood[]} */
  const all = []
  for (const { context, continuations } of groups) {
    try {
      all.push(...(await model.loglikelihood(context, continuations, { window: WINDOW, signal })))
    } catch (error) {
      if (!(error instanceof BmError)) throw error
      throw new BmError(error.code, `${place}: ${error.message}`, { cause: error })
    }
  }
  return { logprobs: all.map(({ logprob }) => logprob), tokens: all.map(({ tokens }) => tokens) }
}

/** @param {number[]} values @returns {number} where the largest is, the first among equals */
function best(values) {
  return values.indexOf(Math.max(...values))
}

/**
 * @param {ReturnType<typeof subjectOf>} subject
 * @param {string} file
 * @param {PlacedItem[]} items
 * @param {ItemScores[]} scores
 */
function reportOf(subject, file, items, scores) {
  const { version, task, file_sha256, model, ...settings } = subject
  const { metric } = /** @type {EvalTask} */ (EVAL_TASKS[task])
  const rows = items.map((item, i) => ({ ...item, ...(scores[i] ?? { logprobs: [] }) }))
  const acc = rows.map(({ gold, logprobs }) => best(logprobs) === gold)
  const norm = rows.map(
    ({ gold, logprobs, lengths }) =>
      best(logprobs.map((logprob, i) => logprob / Number(lengths[i]))) === gold,
  )
  return {
    task,
    metric,
    items: items.length,
    ...accuracy('acc', acc),
    ...(metric === 'acc_norm' ? accuracy('acc_norm', norm) : {}),
    file: basename(file),
    file_sha256,
    model,
    settings: { ...settings, num_fewshot: 0 },
    version,
  }
}

/**
 * @param {string} name
 * @param {boolean[]} hits
 * @returns {Record<string, number | null>} the mean, and its standard error from the variance of a sample; null of a single item
 */
function accuracy(name, hits) {
  const mean = hits.filter((hit) => hit).length / hits.length
  const error = hits.length > 1 ? Math.sqrt((mean * (1 - mean)) / (hits.length - 1)) : null
  return { [name]: mean, [`${name}_stderr`]: error }
}

/** @param {ReturnType<typeof reportOf>} report @returns {string} */
function describe(report) {
  const values = new Map(Object.entries(report))
  const rows = ['acc', 'acc_norm'].flatMap((name) => {
    const [mean, error] = [values.get(name), values.get(`${name}_stderr`)]
    if (typeof mean !== 'number') return []
    const spread = typeof error === 'number' ? ` ± ${error.toFixed(4)}` : ''
    return [`  ${name.padEnd(8)}  ${mean.toFixed(4)}${spread}\n`]
  })
  const count = report.items === 1 ? '1 item' : `${report.items} items`
  return `${report.task}: ${count} of ${report.file}\n${rows.join('')}`
}
