/**
 * How likely continuations of a text are: what multiple-choice evaluations ask of a model.
 *
 * Owns where a text is split into tokens of the context and tokens of a continuation, by the rule of lm-evaluation-harness 0.4.2, and what is
 * dropped of a context that is too long. Does no computation: sessions do.
 * The idea: the context is read once, and each continuation is scored from a copy of its state, which has a constant size.
 */

import { BmError } from './errors.js'

/** @typedef {import('./model.js').BiMamba} BiMamba */
/** @typedef {{ context: Uint32Array, continuation: Uint32Array }} EncodedPair */

/**
 * @typedef {object} Loglikelihood
 * @property {number} logprob  natural logarithm of the probability of all of the continuation's tokens, one after another
 * @property {number} tokens   how many they are
 */

/**
 * @param {BiMamba} model
 * @param {string} context
 * @param {readonly string[]} continuations
 * @param {{ window: number, signal?: AbortSignal | undefined }} options window: as for `BiMamba.loglikelihood`
 * @returns {Promise<Loglikelihood[]>}
 */
export async function scoreContinuations(model, context, continuations, { window, signal }) {
  const cancellation = signal ? { signal } : {}
  const pairs = await encodePairs(model, context, continuations, cancellation)
  /** @type {Loglikelihood[]} */
  const scores = []
  /** @type {import('./session.js').Session | null} */
  let session = null
  try {
    for (const pair of pairs) {
      const { continuation } = pair
      const kept = keepEnd(pair, window)
      // All are ends of the same context.
      if (session?.position !== kept.length) {
        await session?.close()
        session = await model.createSession({ checkpointBytes: 0 })
        await session.append(kept, cancellation)
      }
      const tokens = await session.score(continuation, cancellation)
      const logprob = tokens.reduce((sum, token) => sum + Number(token.logprob), 0)
      scores.push({ logprob, tokens: tokens.length })
    }
    return scores
  } finally {
    await session?.close()
  }
}

/**
 * Space at the end of the context goes to the continuation, for tokenizers join it with the word behind it. The whole is tokenized, and what is
 * behind as many tokens as the context has alone is the continuation's.
 *
 * @param {BiMamba} model
 * @param {string} context
 * @param {readonly string[]} continuations
 * @param {{ signal?: AbortSignal }} cancellation
 * @returns {Promise<EncodedPair[]>}
 * @throws {BmError} `argument`: no tokens
 */
async function encodePairs(model, context, continuations, cancellation) {
  const before = context.replace(/\p{White_Space}+$/u, '')
  const ids = await model.tokenize(before, cancellation)
  if (ids.length === 0) throw new BmError('argument', 'the context has no tokens')
  const pairs = []
  for (const [i, continuation] of continuations.entries()) {
    const whole = await model.tokenize(context + continuation, cancellation)
    if (whole.length <= ids.length) {
      const found = JSON.stringify(continuation.slice(0, 40))
      throw new BmError('argument', `continuations[${i}] is ${found}, which has no tokens`)
    }
    pairs.push({ context: ids, continuation: whole.subarray(ids.length) })
  }
  return pairs
}

/**
 * The last token is not read, only scored, so one more than the window fits.
 *
 * @param {EncodedPair} pair
 * @param {number} window
 * @returns {Uint32Array<ArrayBuffer>} the end of the context
 */
function keepEnd({ context, continuation }, window) {
  const most = window + 1 - continuation.length
  if (most < 1) {
    throw new BmError(
      'argument',
      `a continuation has ${continuation.length} tokens, want at most the window's ${window}`,
    )
  }
  return context.slice(Math.max(0, context.length - most))
}
