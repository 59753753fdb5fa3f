/**
 * The measuring of `bimamba bench`: all settings in turn, round by round.
 *
 * Owns the order of things. A shared machine drifts, so every round times every setting, and the memory's speed too: what is
 * compared was measured within seconds. Before the first round each setting works until the JavaScript engine's optimising compiler
 * has replaced the quickly made code and the team of threads has found its size. Gives times as they were; js/bench/bench-report.js
 * says what they mean.
 */

import { Core } from '../core.js'
import { breathe } from '../platform.js'
import { BenchSubject } from './bench-subject.js'
import { GpuSubject } from './gpu-subject.js'

/** A setting works at least this long before it is timed, and at least so many tokens: a team tries its sizes on them. */
const WARM_UP_MS = 1000
const WARM_UP_TOKENS = 64
/** So long one kind of measurement takes in a round, if its least numbers of tokens allow. */
const SAMPLE_MS = 200
/** Tokens that are decoded in a round. */
const DECODE_TOKENS = { least: 8, most: 256 }
/** Chunks that are timed step by step in a round. */
const STEP_CHUNKS = { least: 1, most: 8 }
/** Where the text is when the long one begins. */
export const LONG_START = 100
/** MiB that are read to see how fast memory is; no cache holds them. */
const STREAM_TASKS = 256
/** Passes over them in a round; the quickest of all counts. */
const STREAM_PASSES = 3

/** @typedef {BenchSubject | GpuSubject} Subject */

/**
 * @typedef {object} BenchPlan
 * @property {import('./bench-subject.js').BenchModel} model
 * @property {import('./bench-subject.js').BenchSetting[]} settings at least one
 * @property {number} rounds
 * @property {number} promptTokens
 * @property {number} longTokens to be appended between two measurements of decoding; 0: none
 */

/**
 * @typedef {object} BenchRound times of one round and one setting
 * @property {number} decodeMs     a token
 * @property {number} prefillMs    a token
 * @property {number[]} decodeSteps   ms a token of each step
 * @property {number[]} prefillSteps  ms a chunk of each step
 */

/**
 * @typedef {object} BenchMeasured of one setting
 * @property {Subject} subject     closed
 * @property {BenchRound[]} rounds
 * @property {number} decodeTokens      in a round
 * @property {number} chunkTokens       in a chunk that was timed step by step
 * @property {number} memoryBytes       of the module, or of the GPU, after the rounds
 * @property {import('./gpu-subject.js').GpuFacts | null} gpu  null: WebAssembly
 * @property {number} threadsUsed       of those it has, in the last round
 * @property {{ earlyMs: number[], lateMs: number[] } | null} long  ms a token of each round
 */

/**
 * @typedef {object} BenchResults
 * @property {BenchMeasured[]} settings  in the plan's order
 * @property {import('../format.js').TensorSpec[]} tensors  of the model
 * @property {{ threads: number, bytesPerMs: number }[]} streams  the quickest reading of memory, by the number of threads; none where nothing runs in
 *   WebAssembly
 */

/**
 * @param {BenchPlan} plan
 * @param {{ signal: AbortSignal, onProgress: (what: string) => void }} control
 * @returns {Promise<BenchResults>}
 * @throws {BmError} as loading does; `argument` or `unsupported` for a setting that its module or this page cannot have; or `signal.reason`
 */
export async function runBench(plan, { signal, onProgress }) {
  /** @type {Subject[]} */
  const subjects = []
  /** @type {MemoryStream | null} */
  let stream = null
  try {
    for (const [i, setting] of plan.settings.entries()) {
      onProgress(`loading, setting ${i + 1} of ${plan.settings.length}`)
      subjects.push(await openSubject(plan.model, setting, signal))
    }
    const onCore = plan.settings.filter(({ device }) => device !== 'webgpu')
    if (onCore.length > 0) stream = await MemoryStream.open(onCore.map(({ threads }) => threads))
    /** @type {BenchMeasured[]} */
    const settings = []
    for (const [i, subject] of subjects.entries()) {
      onProgress(`warming up, setting ${i + 1} of ${subjects.length}`)
      settings.push(await warmUp(subject, plan))
    }
    for (let round = 1; round <= plan.rounds; round++) {
      onProgress(`round ${round} of ${plan.rounds}`)
      for (const measured of settings) await runRound(measured, plan)
      await stream?.read(signal)
    }
    for (const measured of settings) {
      const { core } = measured.subject
      measured.gpu = measured.subject instanceof GpuSubject ? measured.subject.gpu : null
      measured.memoryBytes = measured.gpu?.bytes ?? core.memoryBytes
      measured.threadsUsed = core.threads
    }
    if (plan.longTokens > 0) {
      for (const measured of settings) measured.long = await runLong(measured, plan, onProgress)
    }
    const [{ core, model }] = subjects
    const tensors = core.tensors(model.config)
    return { settings, tensors, streams: stream?.results ?? [] }
  } finally {
    for (const subject of subjects) subject.close()
    stream?.close()
  }
}

/** @param {import('./bench-subject.js').BenchModel} model @param {import('./bench-subject.js').BenchSetting} setting @param {AbortSignal} signal @returns {Promise<Subject>} */
function openSubject(model, setting, signal) {
  const kind = setting.device === 'webgpu' ? GpuSubject : BenchSubject
  return kind.open(model, setting, signal)
}

/** @param {number} ms of one @param {{ least: number, most: number }} range @returns {number} how many are a sample */
function sampleSize(ms, { least, most }) {
  return Math.min(most, Math.max(least, Math.ceil(SAMPLE_MS / ms)))
}

/** @param {Subject} subject @param {BenchPlan} plan @returns {Promise<BenchMeasured>} without rounds */
async function warmUp(subject, { promptTokens }) {
  const chunkTokens = Math.min(promptTokens, subject.session.maxChunk)
  const began = performance.now()
  const elapsed = () => performance.now() - began
  let decodeMs = Number.POSITIVE_INFINITY
  for (let tokens = 0; elapsed() < WARM_UP_MS || tokens < WARM_UP_TOKENS; tokens += 8) {
    await subject.prefill(chunkTokens)
    decodeMs = Math.min(decodeMs, await subject.decode(8))
    // The reference takes seconds a token, and has nothing to find out.
    if (elapsed() > 4 * WARM_UP_MS) break
  }
  if (subject.steps.length > 0) {
    await subject.timeSteps(1, chunkTokens)
    await subject.timeSteps(1, 1)
  }
  return {
    subject,
    rounds: [],
    decodeTokens: sampleSize(decodeMs, DECODE_TOKENS),
    chunkTokens,
    memoryBytes: 0,
    gpu: null,
    threadsUsed: 0,
    long: null,
  }
}

/** @param {BenchMeasured} measured @param {BenchPlan} plan */
async function runRound({ subject, rounds, decodeTokens, chunkTokens }, { promptTokens }) {
  subject.session.reset()
  const prefillMs = await subject.prefill(promptTokens)
  const decodeMs = await subject.decode(decodeTokens)
  const round = { prefillMs, decodeMs, decodeSteps: [0], prefillSteps: [0] }
  if (subject.steps.length > 0) {
    const chunks = sampleSize(prefillMs * chunkTokens, STEP_CHUNKS)
    round.prefillSteps = await subject.timeSteps(chunks, chunkTokens)
    round.decodeSteps = await subject.timeSteps(decodeTokens, 1)
  }
  if (subject instanceof GpuSubject) await subject.readMemory()
  rounds.push(round)
}

/**
 * Two timelines over the same weights, one at the start of a text and one far into it, decoding in turn.
 *
 * @param {BenchMeasured} measured
 * @param {BenchPlan} plan
 * @param {(what: string) => void} onProgress
 */
async function runLong({ subject, decodeTokens }, { rounds, longTokens }, onProgress) {
  const late = /** @type {never} */ (await subject.openSession()) // of the subject's own kind
  const { maxChunk } = subject.session
  const step = 8 * maxChunk
  for (let done = 0; done < LONG_START + longTokens; done += step) {
    onProgress(`long text, token ${done} of ${longTokens}`)
    await subject.prefill(Math.min(step, LONG_START + longTokens - done), late)
  }
  /** @type {{ earlyMs: number[], lateMs: number[] }} */
  const long = { earlyMs: [], lateMs: [] }
  for (let round = 0; round < rounds; round++) {
    subject.session.reset()
    await subject.prefill(LONG_START)
    long.earlyMs.push(await subject.decode(decodeTokens))
    long.lateMs.push(await subject.decode(decodeTokens, late))
  }
  return long
}

/** Reads a block of memory with as many threads as each setting has, and with one, to see how fast it can be read. */
class MemoryStream {
  #core
  #block
  /** @type {Map<number, number>} bytes a ms by threads */
  #best

  /** @param {Core} core @param {number} block @param {number[]} threads */
  constructor(core, block, threads) {
    this.#core = core
    this.#block = block
    this.#best = new Map(threads.map((count) => [count, 0]))
  }

  /** @param {number[]} threads @returns {Promise<MemoryStream>} */
  static async open(threads) {
    const counts = [...new Set([1, ...threads])].sort((a, b) => a - b)
    const most = counts.at(-1) ?? 1
    const core = await Core.create({ shared: most > 1 })
    try {
      await core.startTeam(most)
      return new MemoryStream(core, core.pointer('stream_create', STREAM_TASKS), counts)
    } catch (error) {
      core.close()
      throw error
    }
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    const bytes = STREAM_TASKS * this.#core.call('stream_task_bytes')
    for (const [threads, best] of this.#best) {
      let speed = best
      if (this.#best.size > 1) this.#core.call('threads_limit', threads)
      for (let pass = 0; pass < STREAM_PASSES; pass++) {
        const start = performance.now()
        this.#core.call('stream_sum', this.#block, STREAM_TASKS)
        speed = Math.max(speed, bytes / (performance.now() - start))
        await breathe()
        signal.throwIfAborted()
      }
      this.#best.set(threads, speed)
    }
  }

  get results() {
    return Array.from(this.#best, ([threads, bytesPerMs]) => ({ threads, bytesPerMs }))
  }

  close() {
    this.#core.call('stream_free', this.#block)
    this.#core.close()
  }
}
