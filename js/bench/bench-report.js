/**
 * What `bimamba bench --json` prints: its fields and their units, and how they follow from the times.
 *
 * Owns the document. A time is the median over the rounds, so that a round in which the machine did something else does not count;
 * `bestMs` is the quickest round. A ratio of two settings is the median of the ratios of each round, since only what was
 * measured together compares. Bytes are what a token must move (js/bench/bench-traffic.js), not what was seen to move.
 */

import { describeMachine } from '../platform.js'
import { VERSION } from '../version.js'
import { LONG_START } from './bench-run.js'
import { trafficOf } from './bench-traffic.js'

/** @typedef {import('./bench-run.js').BenchMeasured} BenchMeasured */
/** @typedef {import('./bench-run.js').BenchPlan} BenchPlan */
/** @typedef {import('./bench-run.js').BenchResults} BenchResults */
/** @typedef {import('./bench-traffic.js').Traffic} Traffic */

/** Memory that an engine may have beside weights and state. */
const SPARE_BYTES = 32e6

/**
 * @typedef {object} BenchReport
 * @property {{ cpu: string | null, cores: number, runtime: string, bimamba: string, date: string }} machine  cpu: null where a page may not know; runtime: Node and
 *   its version, or the browser as it calls itself; the date in ISO 8601
 * @property {object} model
 * @property {string} model.source         path or URL, or `synthetic` and the shape
 * @property {import('../format.js').ModelConfig} model.config
 * @property {number} model.weightBytes    of all tensors
 * @property {number} model.stateBytes     of the recurrent state of one text
 * @property {number} model.bytesPerToken  read and written to decode a token: weights that are used, state twice
 * @property {'fast' | 'high' | 'exact'} precision
 * @property {'f32' | 'i16'} state
 * @property {'file' | 'int4'} head
 * @property {number} rounds
 * @property {number} promptTokens
 * @property {number} chunkTokens          of the prompt that are computed at once
 * @property {{ threads: number, gbPerS: number }[]} streams  the most that was read of a block larger than caches, 10^9 bytes/s
 * @property {BenchSettingReport[]} settings  in the order of the command line
 */

/**
 * @typedef {object} BenchSettingReport
 * @property {'wasm' | 'webgpu'} device
 * @property {GpuReport | null} gpu  null: WebAssembly
 * @property {number} threads      that were started
 * @property {number} threadsUsed  of them, when decoding last; found by what tokens cost
 * @property {string} variant      kernel family
 * @property {string | null} wasm  the module; null: the package's
 * @property {{ ms: number, bytesPerS: number } | null} load  from nothing until tokens can be computed: module, file, threads; without
 *   the tokenizer. null: not measured, the model is synthetic
 * @property {DecodeReport} decode
 * @property {PrefillReport} prefill
 * @property {{ decode: StepReport[], prefill: StepReport[] } | null} steps  one token at a time, and a chunk of `chunkTokens`.
 *   null: the module is from before its steps could be called one by one, or the GPU's clock cannot be read
 * @property {{ bytes: number, limitBytes: number }} memory  of the module, or of the buffers on the GPU; weights + state + 32 MB
 * @property {{ earlyPosition: number, latePosition: number, earlyMs: number, lateMs: number, ratio: number } | null} long  ms to
 *   decode a token after so many others, and late / early; null: not asked for
 */

/**
 * @typedef {object} GpuReport
 * @property {string} adapter      its vendor, architecture and description, as far as the browser tells
 * @property {boolean} isSoftware  it is a program on the processor
 * @property {string | null} integers  how those of `fast` are added up; null: there are none
 * @property {boolean} hasClock    whether it has `timestamp-query`, by which steps are timed, each dispatch in a pass of its own
 * @property {number} copyGbPerS   the quickest copy from buffer to buffer, 10^9 bytes/s, what is read and what is written
 */

/**
 * @typedef {object} DecodeReport token by token, with the logits of each
 * @property {number} ms           a token
 * @property {number} bestMs       a token
 * @property {number} tokensPerS
 * @property {number} speed        times that of the first setting
 * @property {number} gbPerS       `bytesPerToken` in that time, 10^9 bytes/s
 * @property {number} boundMs      a token, if the bytes were read as fast as `streams` says for as many threads; on the GPU, as fast as it copies
 * @property {number} boundShare   boundMs / ms: 1 would be at the bound
 * @property {number} bestBoundShare  boundMs / bestMs
 * @property {number[]} roundMs    a token, of each round
 * @property {number} roundTokens  tokens in a round
 */

/**
 * @typedef {object} PrefillReport a whole prompt, in chunks
 * @property {number} ms           a token
 * @property {number} bestMs       a token
 * @property {number} tokensPerS
 * @property {number} speed        times that of the first setting
 * @property {number} timesDecode  tokensPerS / decode.tokensPerS
 * @property {number[]} roundMs    a token, of each round
 */

/**
 * @typedef {object} StepReport
 * @property {string} step         as in src/bm.h, and `head` for the logits; for a chunk those of its last token only
 * @property {number} ms           a token
 * @property {number} share        of the sum over all steps
 * @property {number} gbPerS       weights and state that it reads and writes, 10^9 bytes/s
 * @property {number} boundShare   gbPerS of what `streams` says for as many threads; on the GPU, of `copyGbPerS`
 * @property {number | null} gigaWeightsPerS  of a binary product: 10^9 weights times tokens a second
 */

/** @param {readonly number[]} values @returns {number} */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1]
  const lower = sorted[(sorted.length - 1) >> 1]
  return (lower + upper) / 2
}

/** @param {BenchPlan} plan @param {BenchResults} results @returns {BenchReport} */
export function reportOf(
  { model, rounds, promptTokens, longTokens },
  { settings, tensors, streams },
) {
  const [first] = settings
  const { config } = first.subject.model
  const traffic = trafficOf(tensors, config, model.state, model.head)
  const bytesPerToken = sumOf(traffic.stepBytes(1).values())
  return {
    machine: {
      ...describeMachine(),
      bimamba: VERSION,
      date: new Date().toISOString(),
    },
    model: {
      source: model.synthetic ? `synthetic ${model.synthetic}` : model.name,
      config,
      weightBytes: traffic.weightBytes,
      stateBytes: traffic.stateBytes,
      bytesPerToken,
    },
    precision: model.precision,
    state: model.state,
    head: model.head,
    rounds,
    promptTokens,
    chunkTokens: first.chunkTokens,
    streams: streams.map(({ threads, bytesPerMs }) => ({ threads, gbPerS: bytesPerMs / 1e6 })),
    settings: settings.map((measured) => {
      const { threads } = measured.subject.setting
      const stream = streams.find((other) => other.threads === threads)
      const bytesPerMs = measured.gpu?.copyBytesPerMs ?? stream?.bytesPerMs ?? Number.NaN
      return settingReport(measured, first, { traffic, bytesPerToken, bytesPerMs, longTokens })
    }),
  }
}

/** @param {Iterable<number>} values */
const sumOf = (values) => [...values].reduce((sum, value) => sum + value, 0)

/**
 * @param {BenchMeasured} measured
 * @param {BenchMeasured} first
 * @param {{ traffic: Traffic, bytesPerToken: number, bytesPerMs: number, longTokens: number }} facts of all settings, but bytesPerMs, which memory can do, is of its own
 * @returns {BenchSettingReport}
 */
function settingReport(measured, first, { traffic, bytesPerToken, bytesPerMs, longTokens }) {
  const { subject, rounds, chunkTokens, memoryBytes, gpu, threadsUsed, long } = measured
  const { load, setting, model, steps } = subject
  const boundMs = bytesPerToken / bytesPerMs
  const decode = timesOf(rounds, first.rounds, ({ decodeMs }) => decodeMs)
  const prefill = timesOf(rounds, first.rounds, ({ prefillMs }) => prefillMs)
  const decodeSteps = stepReports(
    steps,
    rounds.map((round) => round.decodeSteps),
    { tokens: 1, traffic, bytesPerMs },
  )
  const prefillSteps = stepReports(
    steps,
    rounds.map((round) => round.prefillSteps),
    { tokens: chunkTokens, traffic, bytesPerMs },
  )
  return {
    device: gpu ? 'webgpu' : 'wasm',
    gpu: gpu && gpuReport(gpu),
    threads: setting.threads,
    threadsUsed,
    variant: model.variant,
    wasm: setting.wasm ?? null,
    load: load && { ms: load.ms, bytesPerS: (1000 * load.fileBytes) / load.ms },
    decode: {
      ...decode,
      gbPerS: bytesPerToken / decode.ms / 1e6,
      boundMs,
      boundShare: boundMs / decode.ms,
      bestBoundShare: boundMs / decode.bestMs,
      roundTokens: measured.decodeTokens,
    },
    prefill: { ...prefill, timesDecode: decode.ms / prefill.ms },
    steps: steps.length > 0 ? { decode: decodeSteps, prefill: prefillSteps } : null,
    memory: {
      bytes: memoryBytes,
      limitBytes: traffic.weightBytes + traffic.stateBytes + SPARE_BYTES,
    },
    long: long && longReport(long, longTokens),
  }
}

/** @param {import('./gpu-subject.js').GpuFacts} facts @returns {GpuReport} */
function gpuReport({ adapter, isSoftware, hasClock, integers, copyBytesPerMs }) {
  return { adapter, isSoftware, hasClock, integers, copyGbPerS: copyBytesPerMs / 1e6 }
}

/**
 * @param {import('./bench-run.js').BenchRound[]} rounds
 * @param {import('./bench-run.js').BenchRound[]} firstRounds of the first setting
 * @param {(round: import('./bench-run.js').BenchRound) => number} msOf
 */
function timesOf(rounds, firstRounds, msOf) {
  const roundMs = rounds.map(msOf)
  const ms = median(roundMs)
  const speeds = firstRounds.map((round, i) => msOf(round) / roundMs[i])
  return {
    ms,
    bestMs: Math.min(...roundMs),
    tokensPerS: 1000 / ms,
    speed: median(speeds),
    roundMs,
  }
}

/**
 * @param {string[]} steps
 * @param {number[][]} rounds ms of each step, for all the tokens
 * @param {{ tokens: number, traffic: Traffic, bytesPerMs: number }} chunk
 * @returns {StepReport[]}
 */
function stepReports(steps, rounds, { tokens, traffic: { stepBytes, signs }, bytesPerMs }) {
  const bytes = stepBytes(tokens)
  const times = steps.map((_, i) => median(rounds.map((round) => round[i])))
  const total = sumOf(times)
  return steps.map((step, i) => {
    const ms = times[i]
    const weights = signs.get(step)
    const speed = (bytes.get(step) ?? 0) / ms
    return {
      step,
      ms: ms / tokens,
      share: ms / total,
      gbPerS: speed / 1e6,
      boundShare: speed / bytesPerMs,
      gigaWeightsPerS: weights === undefined ? null : (weights * tokens) / ms / 1e6,
    }
  })
}

/** @param {{ earlyMs: number[], lateMs: number[] }} long @param {number} longTokens @returns {BenchSettingReport['long']} */
function longReport({ earlyMs, lateMs }, longTokens) {
  return {
    earlyPosition: LONG_START,
    latePosition: LONG_START + longTokens,
    earlyMs: median(earlyMs),
    lateMs: median(lateMs),
    ratio: median(lateMs.map((ms, i) => ms / earlyMs[i])),
  }
}
