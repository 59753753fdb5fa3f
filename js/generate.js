/**
 * The generation loop, and scoring: what is done with timelines, one token after another.
 *
 * Owns the only loop that samples, and the only one that walks over given ids. Runs beside the engine. Does not know where
 * its pieces go (a worker's messages or the caller's own loop), nor what a token costs.
 * The idea: both are async generators, pulled one piece at a time. Between two pieces nothing happens. An abort is seen
 * before every step, and every 50 ms the event loop has a turn, which lets the abort arrive: a consumer that pulls without
 * a pause, in the same thread, would never give it one.
 */

import { CoreSession } from './core-session.js'
import { drawOf } from './draw.js'
import { ModelDrafter } from './model-drafter.js'
import { Pace, turn } from './pace.js'
import { persist } from './recovery.js'
import { Speculation } from './speculation.js'
import { TextDrafter } from './text-drafter.js'
import { TextStream } from './text-stream.js'

/** What holds the weights, in WebAssembly or on the GPU. @typedef {import('./core-model.js').CoreModel | import('./gpu/gpu-model.js').GpuModel} AnyModel */
/** @typedef {import('./timeline.js').AnySession} AnySession */
/** @typedef {import('./detokenizer.js').TokenBytes} TokenBytes */
/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {import('./timeline.js').Timeline} Timeline */

/**
 * What a generation did; known when it has ended, however it ended.
 *
 * @typedef {object} Stats
 * @property {number} promptTokens  before the first new one, BOS included
 * @property {number} tokens        sampled, without the EOS that ended it
 * @property {'eos' | 'stop' | 'length' | 'abort' | 'error'} finishReason  'stop': a stop string, or the format is complete; 'abort': by signal, or the caller stopped pulling
 * @property {number} seed          give it again for the same text
 * @property {number} prefillMs
 * @property {number} decodeMs      from the end of the prompt to the last token; the caller's time between pulls counts
 * @property {{ id: number, logprob: number, top: Alternative[] } | null} end  the token that ended it, which is no part of the text; where log-probabilities
 *                                  were asked for
 * @property {number} drafted       tokens that were guessed and read together, with `draft`
 * @property {number} accepted      those of them that were right
 */

/** @param {number} seed @returns {Stats} of a generation that has not begun */
export function newStats(seed) {
  const times = { prefillMs: 0, decodeMs: 0 }
  const guesses = { end: null, drafted: 0, accepted: 0 }
  return { promptTokens: 0, tokens: 0, finishReason: 'abort', seed, ...times, ...guesses }
}

/**
 * @typedef {object} GeneratedPiece
 * @property {number} lane        index of the text that it belongs to
 * @property {number | null} id   null: text that was held back, no new token
 * @property {string} text
 * @property {number} position    of that text then, in tokens
 * @property {number} [logprob]   of the id, natural logarithm, before any setting changed it; where it was asked for
 * @property {Alternative[]} [top]  the likeliest ids there, where they were asked for
 */

/** text: of the token alone; U+FFFD for a part of a character. @typedef {{ id: number, text: string, logprob: number }} Alternative */

/**
 * One text to be continued.
 *
 * @typedef {object} Lane
 * @property {Timeline} timeline  with at least one token
 * @property {Settings} settings
 * @property {import('./constraint.js').PreparedFormat | null} format  of its settings
 * @property {Stats} stats        written to: what was counted, and how the text ended, if it came to its end
 */

/**
 * @typedef {object} GenerateJob
 * @property {AnyModel} model            of all timelines
 * @property {readonly Lane[]} lanes     all different; they step together, and the weights are read once for all
 * @property {readonly number[]} eosIds
 * @property {TokenBytes | null} table   null: a model without a tokenizer; all texts are empty
 * @property {boolean} isLast            nothing will continue these texts
 * @property {import('./recovery.js').Recover} [recover]
 * @property {(() => CoreSession) | undefined} [drafts]  a session of the smaller model, where there is one
 * @property {AbortSignal} [signal]
 */

/** Scoring hands out its results in batches; with logits a batch holds about this many numbers. */
const BATCH_FLOATS = 1 << 18

/** A lane at work. */
class Writer {
  /** What guesses tokens ahead. @type {Speculation | null} */
  speculation = null

  /** @param {number} index @param {Lane} lane @param {GenerateJob} job */
  constructor(index, { timeline, settings, format, stats }, { eosIds, table, isLast }) {
    this.index = index
    this.timeline = timeline
    this.stats = stats
    this.isDone = false
    this.settings = settings
    this.draw = drawOf(settings)
    this.isLast = isLast
    this.table = table
    this.ends = settings.stopTokens ?? eosIds
    this.text = new TextStream(table, settings.stop, timeline, format !== null)
    this.constraint = format?.begin(this.ends, this.text.atStart)
    // Random numbers go on where the last generation left them, unless a seed says where they begin.
    if (settings.seed !== null) Object.assign(timeline, { seed: settings.seed, random: null })
    stats.seed = timeline.seed
    stats.promptTokens = timeline.position
    this.sampler = timeline.session.createSampler(samplerOptions(settings, timeline.seed))
    if (timeline.random) this.sampler.restore(timeline.random)
    const { ids } = timeline
    for (let i = Math.max(0, ids.length - MOST_HISTORY); i < ids.length; i++) {
      this.sampler.accept(ids.at(i))
    }
  }

  /** Once the prompt is read; several texts together share their passes already. @param {GenerateJob} job */
  async speculate({ lanes, drafts, signal }) {
    const { timeline, settings } = this
    const { session, ids } = timeline
    if (settings.draft === 'none' || lanes.length > 1 || !(session instanceof CoreSession)) return
    const small = settings.draft === 'model' ? drafts?.() : undefined
    try {
      const drafter = small ? new ModelDrafter(ids, small) : new TextDrafter(ids)
      this.speculation = new Speculation(timeline, session, drafter)
      await drafter.read(signal)
    } finally {
      // No memory for the rest of it, so nobody else has it.
      if (!this.speculation) small?.close()
    }
  }

  /** What the generation before this one held back. @returns {GeneratedPiece[]} */
  begin() {
    const text = this.text.begin()
    if (this.text.stopped || this.constraint?.isComplete) this.#finish('stop')
    return this.#rest(text)
  }

  /** @param {number} began when the prompt was read @returns {GeneratedPiece[]} the next token's, none at the end of the text */
  next(began) {
    const { settings, timeline, stats } = this
    if (this.constraint) this.sampler.allow(this.constraint.mask())
    const id = this.sampler.sample()
    const about = this.#chances(id)
    if (this.ends.includes(id)) {
      if (about) stats.end = { id, ...about }
      this.#finish('eos')
      return this.#rest(this.#end())
    }
    this.sampler.accept(id)
    timeline.push(id)
    if (this.table) this.constraint?.accept(this.table.of(id))
    const text = this.text.push(id)
    stats.tokens++
    stats.decodeMs = performance.now() - began
    if (this.text.stopped || this.constraint?.isComplete) this.#finish('stop')
    else if (stats.tokens >= settings.maxTokens) this.#finish('length')
    const rest = this.isDone ? this.#end() : ''
    return [{ lane: this.index, id, text: text + rest, position: timeline.position, ...about }]
  }

  /** What the model thought of a token, and of others in its place. @param {number} id */
  #chances(id) {
    const { logprobs } = this.settings
    if (logprobs === null) return null
    const { session } = this.timeline
    return { logprob: session.logprob(-1, id), top: likeliest(session, logprobs, this.table) }
  }

  /** @returns {string} what is left of the text */
  #end() {
    const text = this.text.end(this.isLast)
    if (this.text.stopped) this.#finish('stop')
    return text
  }

  /** @param {string} text @returns {GeneratedPiece[]} */
  #rest(text) {
    return text ? [{ lane: this.index, id: null, text, position: this.timeline.position }] : []
  }

  /** @param {Stats['finishReason']} reason */
  #finish(reason) {
    this.isDone = true
    this.stats.finishReason = reason
  }

  /** Leaves the timeline as the next generation wants it. */
  async close() {
    const { speculation, stats } = this
    if (speculation) {
      await speculation.close()
      stats.drafted = speculation.drafted
      stats.accepted = speculation.accepted
    }
    this.timeline.random = this.sampler.save()
    this.timeline.tail = this.text.tail
    this.sampler.close()
  }
}

/** The longest window that a sampler looks at. */
const MOST_HISTORY = 65536

/**
 * @param {GenerateJob} job
 * @returns {AsyncGenerator<GeneratedPiece, void, void>} of each lane one piece a token, and perhaps one with the rest of the text behind EOS
 */
export async function* generate(job) {
  const { signal } = job
  /** @type {Writer[]} */
  const writers = []
  try {
    for (const [i, lane] of job.lanes.entries()) writers.push(new Writer(i, lane, job))
    let began = performance.now()
    const pace = new Pace(Number(writers[0]?.timeline.session.maxChunk))
    let model = (await settle(job, writers, pace)) ?? job.model
    for (const { stats } of writers) stats.prefillMs = performance.now() - began
    for (const writer of writers) {
      await writer.speculate(job)
      yield* writer.begin()
    }
    began = performance.now()
    for (;;) {
      const active = writers.filter(({ isDone }) => !isDone)
      if (active.length === 0) return
      await persist(job.recover, async (other) => {
        model = other ?? model
        // Between two pieces, too, what computes may have become another one.
        if (active.some(({ timeline }) => timeline.isStale))
          model = (await settle(job, writers, pace)) ?? model
        await step(model, active, pace, signal)
      })
      for (const writer of active) {
        signal?.throwIfAborted()
        yield* writer.next(began)
      }
    }
  } finally {
    for (const writer of writers) await writer.close()
  }
}

/**
 * Lets all timelines read what they have not read.
 * @param {GenerateJob} job @param {Writer[]} writers @param {Pace} pace @returns {Promise<AnyModel | null>} what computes since a loss; null: there was none
 */
async function settle(job, writers, pace) {
  /** @type {AnyModel | null} */
  let model = null
  for (const { timeline } of writers) {
    await persist(job.recover, async (other) => {
      model = other ?? model
      await timeline.settle(job.signal, pace)
    })
  }
  // What computes may be another one since.
  for (const { sampler, timeline } of writers) sampler.follow(timeline.session)
  return model
}

/**
 * Lets all timelines read their last token, and computes what follows each.
 * @param {AnyModel} model @param {Writer[]} writers @param {Pace} pace @param {AbortSignal} [signal]
 */
async function step(model, writers, pace, signal) {
  const together = /** @type {Together} */ (/** @type {unknown} */ (model))
  if (pace.isOver()) await turn(signal)
  signal?.throwIfAborted()
  const [first] = writers
  if (first?.speculation) {
    await first.speculation.step(first.settings.maxTokens - first.stats.tokens)
    return
  }
  const behind = writers.map(({ timeline }) => timeline).filter((one) => one.isBehindByOne)
  const sessions = behind.map(({ session }) => session)
  const ids = behind.map((timeline) => timeline.ids.at(timeline.position - 1))
  if (sessions.length === 1) sessions[0]?.append(ids)
  else if (sessions.length > 1) together.appendEach(sessions, ids)
  for (const timeline of behind) await timeline.passed()
  const all = writers.map(({ timeline }) => timeline.session)
  if (all.length > 1) together.logitsEach(all)
  for (const { timeline, draw } of writers) await timeline.session.prepareDraw(draw)
}

/**
 * What models of either kind do with several sessions; which are of the model's own kind.
 * @typedef {{ appendEach: (sessions: AnySession[], ids: number[]) => void, logitsEach: (sessions: AnySession[]) => void }} Together
 */

/** @param {AnySession} session @param {number} count @param {TokenBytes | null} table @param {number} [index] in the chunk that was read last @returns {Alternative[]} what may come next, falling */
export function likeliest(session, count, table, index = -1) {
  return session.topLogprobs(index, count).map(({ id, logprob }) => {
    const text = new TextDecoder().decode(table?.of(id) ?? new Uint8Array(0))
    return { id, text, logprob }
  })
}

/**
 * @typedef {object} Scored
 * @property {number} position
 * @property {number} id
 * @property {number | null} logprob  natural log of p(id | the ids before it); null at position 0
 * @property {Float32Array} [logits]  after this token, one per id of the vocabulary
 * @property {Alternative[]} [top]  the likeliest ids in its place, falling; where they were asked for, and not at position 0
 */

/**
 * Walks over the ids that a timeline has not read, and leaves it settled.
 *
 * @param {object} job
 * @param {Timeline} job.timeline
 * @param {number} job.vocabSize
 * @param {boolean} job.logits
 * @param {{ count: number, table: TokenBytes | null }} [job.top]  how many alternatives to tell with each token
 * @param {AbortSignal} [job.signal]
 * @returns {AsyncGenerator<Scored[], void, void>} in batches, for a worker's message costs as much as many positions
 */
export async function* evaluate({ timeline, vocabSize, logits, top, signal }) {
  const batchLength = logits
    ? Math.max(1, Math.floor(BATCH_FLOATS / vocabSize))
    : Number.POSITIVE_INFINITY
  const { session, ids } = timeline
  let start = session.position
  const isAfter = start > 0 && start < ids.length
  if (isAfter) await session.prepareLogits()
  /** @param {number} index in the chunk, -1: its end @param {number} next position */
  const chancesOf = (index, next) => ({
    logprob: session.logprob(index, ids.at(next)),
    ...(top ? { top: likeliest(session, top.count, top.table, index) } : {}),
  })
  /** @type {{ logprob: number | null, top?: Alternative[] }} */
  let chances = isAfter ? chancesOf(-1, start) : { logprob: null }
  const pace = new Pace(session.maxChunk)
  for await (const chunk of timeline.read(signal, pace)) {
    /** @type {Scored[]} */
    let batch = []
    for (const [i, id] of chunk.entries()) {
      // The head costs as much as some tokens of the prompt do.
      if (pace.isOver()) await turn(signal)
      const next = start + i + 1
      if (logits || next < ids.length) await session.prepareLogits(i)
      batch.push({
        position: start + i,
        id,
        ...chances,
        ...(logits ? { logits: session.logits(i) } : {}),
      })
      chances = next < ids.length ? chancesOf(i, next) : { logprob: null }
      if (batch.length < batchLength) continue
      yield batch
      signal?.throwIfAborted()
      batch = []
    }
    start += chunk.length
    if (batch.length > 0) yield batch
  }
}

/** @param {Settings} settings @param {number} seed @returns {import('./core.js').Sampling} */
function samplerOptions(settings, seed) {
  const { maxTokens, stop, stopTokens, bos, logprobs, format, draft, ...sampling } = settings
  return { ...sampling, seed }
}
