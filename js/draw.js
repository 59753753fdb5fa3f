/**
 * How much of the logits a sampler looks at.
 *
 * Owns which settings leave all but the likeliest tokens out of account, whatever their logits are: greedy choice, and top_k, which comes before every other
 * filter (src/bm_sampler.c). For those a GPU need not give back the rest.
 */

/** Of more it is no use. */
const MOST = 100

/**
 * A draw that depends on the likeliest tokens only.
 *
 * @typedef {object} Draw
 * @property {number} count        of them, ties to the lowest id
 * @property {number} temperature  0: the logits alone decide; above, two that are nearly the same may tie
 */

/** @param {import('./settings.js').Settings} settings @returns {Draw | null} null: any logit may matter */
export function drawOf(settings) {
  const { temperature, topK, logprobs, format, logitBias } = settings
  const isChanged =
    settings.repetitionPenalty !== 1 ||
    settings.frequencyPenalty !== 0 ||
    settings.presencePenalty !== 0 ||
    settings.dryMultiplier !== 0 ||
    settings.noRepeatNgram !== 0 ||
    logitBias.length > 0
  if (isChanged || logprobs !== null || format !== null) return null
  if (temperature === 0) return { count: 1, temperature }
  if (settings.mirostatTau !== 0 || topK < 1 || topK > MOST) return null
  return { count: topK, temperature }
}
