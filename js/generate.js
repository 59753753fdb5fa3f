/**
 * The generation loop, and scoring: what is done with a session, one token after another.
 *
 * Owns the only loop that samples, and the only one that walks over given ids. Runs beside the engine. Does not know where
 * its pieces go (a worker's messages or the caller's own loop), nor what a token costs.
 * The idea: both are async generators, pulled one piece at a time. Between two pieces nothing happens. An abort is seen
 * before every step, and every 50 ms the event loop has a turn, which lets the abort arrive: a consumer that pulls without
 * a pause, in the same thread, would never give it one.
 */

import { Detokenizer, StopMatcher } from './detokenizer.js'
import { breathe } from './platform.js'

/** @typedef {import('./core-session.js').CoreSession} CoreSession */
/** @typedef {import('./detokenizer.js').TokenBytes} TokenBytes */
/** @typedef {import('./settings.js').Settings} Settings */

/**
 * What a generation did; known when it has ended, however it ended.
 *
 * @typedef {object} Stats
 * @property {number} promptTokens  BOS included
 * @property {number} tokens        sampled, without the EOS that ended it
 * @property {'eos' | 'stop' | 'length' | 'abort' | 'error'} finishReason  'abort': by signal, or the caller stopped pulling
 * @property {number} seed          give it again for the same text
 * @property {number} prefillMs
 * @property {number} decodeMs      from the end of the prompt to the last token; the caller's time between pulls counts
 */

/** @typedef {{ id: number | null, text: string }} GeneratedPiece id null: text that was held back, no new token */

/**
 * @typedef {object} GenerateJob
 * @property {CoreSession} session
 * @property {ArrayLike<number>} prompt  at least one id
 * @property {number} [read]             how many of them the session has read already, the last of them just now; default 0: it is reset first
 * @property {readonly number[]} eosIds
 * @property {TokenBytes | null} table   null: a model without a tokenizer; all texts are empty
 * @property {Settings} settings
 * @property {Stats} stats               written to: what was counted, and how the text ended, if it came to its end
 * @property {AbortSignal} [signal]
 */

/** Scoring hands out its results in batches; with logits a batch holds about this many numbers. */
const BATCH_FLOATS = 1 << 18

/**
 * @param {GenerateJob} job
 * @returns {AsyncGenerator<GeneratedPiece, void, void>} one piece a token, then perhaps one with the rest of the text
 */
export async function* generate(job) {
  const { session, prompt, read = 0, eosIds, table, settings, stats, signal } = job
  const sampler = session.createSampler(samplerOptions(settings))
  const detokenizer = table && new Detokenizer(table)
  const stops = new StopMatcher(settings.stop)
  try {
    let began = performance.now()
    const pace = new Pace(session.maxChunk)
    for await (const chunk of prefill(session, prompt, read, pace, signal)) {
      for (const id of chunk) {
        sampler.accept(id)
        // The decoder, too: a character that the prompt leaves open is completed by the first token.
        detokenizer?.push(id)
      }
    }
    stats.prefillMs = performance.now() - began
    began = performance.now()
    for (;;) {
      if (pace.isOver()) await turn(signal)
      signal?.throwIfAborted()
      const id = sampler.sample()
      if (eosIds.includes(id)) {
        stats.finishReason = 'eos'
        break
      }
      sampler.accept(id)
      const text = stops.push(detokenizer?.push(id) ?? '')
      stats.tokens++
      stats.decodeMs = performance.now() - began
      yield { id, text }
      if (stops.stopped || stats.tokens >= settings.maxTokens) {
        stats.finishReason = stops.stopped ? 'stop' : 'length'
        break
      }
      signal?.throwIfAborted()
      session.append([id])
    }
  } finally {
    sampler.close()
  }
  const rest = stops.push(detokenizer?.flush() ?? '') + stops.flush()
  if (stops.stopped) stats.finishReason = 'stop'
  if (rest) yield { id: null, text: rest }
}

/**
 * @typedef {object} Scored
 * @property {number} position
 * @property {number} id
 * @property {number | null} logprob  natural log of p(id | the ids before it); null at position 0
 * @property {Float32Array} [logits]  after this token, one per id of the vocabulary
 */

/**
 * Walks over given ids.
 *
 * @param {object} job
 * @param {CoreSession} job.session
 * @param {ArrayLike<number>} job.ids  at least one
 * @param {number} job.vocabSize
 * @param {boolean} job.logits
 * @param {AbortSignal} [job.signal]
 * @returns {AsyncGenerator<Scored[], void, void>} in batches, for a worker's message costs as much as many positions
 */
export async function* evaluate({ session, ids, vocabSize, logits, signal }) {
  const batchLength = logits
    ? Math.max(1, Math.floor(BATCH_FLOATS / vocabSize))
    : Number.POSITIVE_INFINITY
  /** @type {number | null} */
  let logprob = null
  const pace = new Pace(session.maxChunk)
  for await (const chunk of prefill(session, ids, 0, pace, signal)) {
    const start = session.position - chunk.length
    /** @type {Scored[]} */
    let batch = []
    for (const [i, id] of chunk.entries()) {
      // The head costs as much as some tokens of the prompt do.
      if (pace.isOver()) await turn(signal)
      batch.push({
        position: start + i,
        id,
        logprob,
        ...(logits ? { logits: session.logits(i) } : {}),
      })
      const next = ids[start + i + 1]
      logprob = next === undefined ? null : session.logprob(i, next)
      if (batch.length < batchLength) continue
      yield batch
      signal?.throwIfAborted()
      batch = []
    }
    if (batch.length > 0) yield batch
  }
}

/**
 * Appends given ids to an empty session, or those that it has not read yet.
 *
 * @param {CoreSession} session
 * @param {ArrayLike<number>} ids
 * @param {number} read  how many of them it has read; they are the first chunk
 * @param {Pace} pace
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<number[], void, void>} each chunk when it has been appended
 */
async function* prefill(session, ids, read, pace, signal) {
  if (read === 0) session.reset()
  else yield Array.prototype.slice.call(ids, 0, read)
  for (let start = read; start < ids.length; ) {
    await turn(signal)
    const chunk = Array.prototype.slice.call(ids, start, start + pace.chunk)
    pace.time(chunk.length, () => session.append(chunk))
    start += chunk.length
    yield chunk
  }
}

/** How long computations may last before messages can arrive, ms. */
const PACE_MS = 50
/** Tokens that one step of the prefill kernels takes together: fewer would cost as much as so many. */
const CHUNK_STEP = 16

/**
 * How many tokens to append at once, from what the last ones cost: an abort is to be seen soon with a large model too.
 * How a prompt is cut changes no result.
 */
class Pace {
  #most
  #since = performance.now()

  /** @param {number} most tokens */
  constructor(most) {
    this.#most = most
    this.chunk = Math.min(CHUNK_STEP, most)
  }

  /** @param {number} tokens @param {() => void} append */
  time(tokens, append) {
    this.#since = performance.now()
    append()
    const steps = ((PACE_MS / (performance.now() - this.#since)) * tokens) / CHUNK_STEP
    this.chunk = Math.min(this.#most, CHUNK_STEP * Math.max(1, Math.floor(steps)))
  }

  /** Whether it is time for a turn; the next period begins then. */
  isOver() {
    const now = performance.now()
    if (now - this.#since < PACE_MS) return false
    this.#since = now
    return true
  }
}

/** Lets messages arrive, then looks whether one of them was an abort. @param {AbortSignal} [signal] */
async function turn(signal) {
  signal?.throwIfAborted()
  await breathe()
  signal?.throwIfAborted()
}

/** @param {Settings} settings @returns {Omit<Settings, 'maxTokens' | 'stop' | 'bos'>} */
function samplerOptions({
  temperature,
  topK,
  topP,
  minP,
  repetitionPenalty,
  repetitionWindow,
  seed,
}) {
  return { temperature, topK, topP, minP, repetitionPenalty, repetitionWindow, seed }
}
