/**
 * `npm run bench:draft -- [--rounds 7] [--shape 780M]`: what guessing tokens ahead gains, and what it costs where it gains nothing.
 *
 * Owns the measurement: a text that repeats itself, one that does not, and random weights in the shape of a published model, whose text
 * is one token over and over. With and without guesses take turns, and each ratio is the median of its rounds.
 */

import { parseArgs } from 'node:util'
import { SHAPE_NAMES } from '../../js/bench/synthetic-model.js'
import { BiMamba } from '../../js/index.js'
import { TRAINED } from '../js/support/trained-model.js'
import { randomPacked } from './random-packed.js'

/** @typedef {import('../../js/index.js').GenerateOptions} GenerateOptions */

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/**
 * @param {string} what @param {BiMamba} model @param {string | number[]} prompt @param {GenerateOptions} options @param {number} rounds
 * @param {'text' | 'model'} [guesser]
 */
async function measure(what, model, prompt, options, rounds, guesser = 'text') {
  /** @type {number[]} */
  const ratios = []
  let told = ''
  for (let round = 0; round <= rounds; round++) {
    const ms = { none: 0, text: 0, model: 0 }
    for (const draft of /** @type {const} */ (['none', guesser])) {
      for await (const _ of model.generateIds(prompt, { ...options, stopTokens: [], draft }));
      const { decodeMs = 0, tokens = 0, drafted = 0, accepted = 0 } = model.lastStats ?? {}
      ms[draft] = decodeMs
      told = `${tokens} tokens, ${accepted} of ${drafted} guesses right`
    }
    if (round > 0) ratios.push(ms.none / ms[guesser])
  }
  console.log(`${what.padEnd(40)}${median(ratios).toFixed(3)} times as fast   ${told}`)
}

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, shape: { type: 'string', default: '780M' } },
})
const rounds = Number(values.rounds)
if (!SHAPE_NAMES.some((name) => name === values.shape))
  throw new Error(`--shape is ${values.shape}, want ${SHAPE_NAMES.join(', ')}`)

const small = new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url)
const trained = await BiMamba.load(TRAINED, { inline: true, threads: 1, draftModel: small })
const prompt = 'Once upon a time'
const greedy = { temperature: 0 }
await measure(
  'greedy, long: it repeats itself',
  trained,
  prompt,
  { ...greedy, maxTokens: 4000 },
  rounds,
)
for (const seed of [1, 2, 3]) {
  const sampled = { temperature: 0.8, maxTokens: 1500, seed }
  await measure(`sampled, seed ${seed}: it does not`, trained, prompt, sampled, rounds)
}
const sampled = { temperature: 0.6, maxTokens: 1500, seed: 1 }
await measure('sampled, tales-nano guesses', trained, prompt, sampled, rounds, 'model')
await trained.close()

const shape = /** @type {import('../../js/bench/synthetic-model.js').ShapeName} */ (values.shape)
const path = await randomPacked(shape)
for (const threads of [1, 2]) {
  const model = await BiMamba.load(path, { inline: true, threads })
  // Random weights write noise; a bias makes it one token over and over.
  const options = { ...greedy, maxTokens: 160, logitBias: { 7: 100 } }
  const what = `${shape} shape, ${threads} thread${threads > 1 ? 's' : ''}`
  await measure(what, model, [5, 6, 7], options, Math.min(rounds, 3))
  await model.close()
}
