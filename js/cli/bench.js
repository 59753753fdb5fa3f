/**
 * `bimamba bench`: what a model costs on this machine, and where the time goes.
 *
 * Owns the options. Measuring is js/bench/bench-run.js, what the numbers mean js/bench/bench-report.js, their layout js/bench/bench-table.js.
 * Options that may be repeated are multiplied with each other: every combination is a setting, and all are timed in turn.
 */

import { benchmark } from '../bench/benchmark.js'
import { SHAPE_NAMES } from '../bench/synthetic-model.js'
import { checkFetch } from '../settings.js'
import { describeSource } from '../source.js'
import {
  COMMON_OPTIONS,
  DEFAULT_MODEL,
  MODEL_OPTIONS,
  readChoices,
  readNumber,
  UsageError,
} from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('./options.js').ParsedOptions} ParsedOptions */
/** @typedef {import('../bench/bench-run.js').BenchPlan} BenchPlan */

export const USAGE = `
Usage: bimamba bench [options]

Measures loading, decoding, prompts, the steps of a token, and memory. What is repeated is compared, round by round.`

/** @type {('wasm' | 'webgpu')[]} */
const DEVICES = ['wasm', 'webgpu']
/** What the GPU does not have. */
const OF_WASM = ['threads', 'variant', 'wasm']

/** Options that are counts. */
const COUNTS = {
  threads: { default: 1, min: 1, max: 64 },
  rounds: { default: 5, min: 1, max: 1000 },
  'prompt-tokens': { default: 512, min: 1, max: 1e7 },
  long: { default: 0, min: 0, max: 1e8 },
}

/** @type {import('./options.js').OptionTable} */
export const OPTIONS = {
  model: MODEL_OPTIONS.model,
  synthetic: {
    value: SHAPE_NAMES.join('|'),
    help: 'random weights of this published shape instead of a model',
  },
  device: {
    value: DEVICES.join('|'),
    multiple: true,
    help: 'that computes (default wasm; may be repeated); in Node webgpu needs the package of that name',
  },
  threads: {
    value: 'N',
    multiple: true,
    help: 'that compute, 1 to 64 (default 1; may be repeated)',
  },
  variant: {
    value: 'NAME',
    multiple: true,
    help: 'kernel family: table (default), popcount or ref (may be repeated)',
  },
  wasm: {
    value: 'FILE',
    multiple: true,
    help: 'another build of the module (may be repeated); a path from here',
  },
  precision: MODEL_OPTIONS.precision,
  state: MODEL_OPTIONS.state,
  head: MODEL_OPTIONS.head,
  rounds: { value: 'N', help: `of which the medians are taken (default ${COUNTS.rounds.default})` },
  'prompt-tokens': {
    value: 'N',
    help: `of the prompt (default ${COUNTS['prompt-tokens'].default})`,
  },
  long: { value: 'N', help: 'also compare decoding before and after N further tokens' },
  json: { help: 'one JSON document; js/bench/bench-report.js has its fields' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const plan = readPlan(parsed)
  const { signal, stdout, stderr } = io
  const onProgress = (/** @type {string} */ what) => {
    if (stderr.isTTY) stderr.write(`\r\x1b[K${what}`)
  }
  try {
    const { text, ...report } = await benchmark(plan, { signal, onProgress })
    onProgress('')
    const output = parsed.flags.has('json') ? `${JSON.stringify(report, null, 2)}\n` : text
    await write(stdout, withoutControls(output), signal)
    return 0
  } finally {
    onProgress('')
  }
}

/** @param {ParsedOptions} parsed @returns {BenchPlan} @throws {UsageError} */
function readPlan(parsed) {
  const { values } = parsed
  for (const [name, texts] of values) {
    if (texts.includes('')) throw new UsageError(`--${name} is empty`)
  }
  const name = values.get('model')?.[0] ?? DEFAULT_MODEL
  return {
    model: {
      source: describeSource(name),
      name,
      download: checkFetch({}),
      synthetic: readShape(values),
      ...readChoices(parsed),
    },
    settings: readCombinations(values),
    rounds: readCount('rounds', values.get('rounds')?.[0]),
    promptTokens: readCount('prompt-tokens', values.get('prompt-tokens')?.[0]),
    longTokens: readCount('long', values.get('long')?.[0]),
  }
}

/** @param {ParsedOptions['values']} values */
function readShape(values) {
  const text = values.get('synthetic')?.[0]
  if (text === undefined) return null
  if (values.has('model')) throw new UsageError('--model and --synthetic: want one of them')
  const shape = SHAPE_NAMES.find((name) => name === text)
  if (shape) return shape
  throw new UsageError(`--synthetic is '${text}', want ${SHAPE_NAMES.join(', ')}`)
}

/** @param {ParsedOptions['values']} values @returns {BenchPlan['settings']} every combination */
function readCombinations(values) {
  const devices = values.get('device') ?? DEVICES.slice(0, 1)
  for (const name of devices) {
    if (DEVICES.some((one) => one === name)) continue
    throw new UsageError(`--device is '${name}', want ${DEVICES.join(', ')}`)
  }
  if (!devices.includes('wasm')) {
    const extra = OF_WASM.find((name) => values.has(name))
    if (extra) throw new UsageError(`--${extra} is not of the GPU: add --device wasm`)
  }
  return devices.flatMap((name) =>
    name === 'wasm' ? wasmCombinations(values) : [{ device: 'webgpu', threads: 1 }],
  )
}

/** @param {ParsedOptions['values']} values @returns {BenchPlan['settings']} */
function wasmCombinations(values) {
  const counts = (values.get('threads') ?? [undefined]).map((text) => readCount('threads', text))
  /** @type {{ variant?: string }[]} */
  const variants = values.get('variant')?.map((variant) => ({ variant })) ?? [{}]
  /** @type {{ wasm?: string }[]} */
  const modules = values.get('wasm')?.map((wasm) => ({ wasm })) ?? [{}]
  return counts.flatMap((threads) =>
    modules.flatMap((module) => variants.map((variant) => ({ threads, ...variant, ...module }))),
  )
}

/** @param {keyof typeof COUNTS} name @param {string | undefined} text @returns {number} */
function readCount(name, text) {
  const { default: preset, min, max } = COUNTS[name]
  const count = text === undefined ? preset : readNumber(text, `--${name}`)
  if (Number.isInteger(count) && count >= min && count <= max) return count
  throw new UsageError(`--${name} is ${text}, want an integer from ${min} to ${max}`)
}
