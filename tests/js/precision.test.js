/**
 * What `fast` and `high` lose against `exact` on the same file, as a mean KL divergence in nats.
 *
 * Owns the texts and models it is measured on: random models of 8 layers, a worst case in which nothing is
 * contractive, and the trained model that is shipped, on text it wrote itself at temperature 1. That the
 * integer products are right one by one is tested in C; here only their cost in quality is measured.
 */

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Core } from '../../js/core.js'
import { divergence } from './support/divergence.js'
import { logitsOfParts, openPacked, pack } from './support/packed-engine.js'
import { tokensOf, writeCase } from './support/reference-cases.js'
import { TOLERANCES } from './support/tolerances.js'
import { missingTrained, TRAINED, writtenText } from './support/trained-model.js'

/** @typedef {import('../../js/core-model.js').CoreModel} CoreModel */

const RANDOM = [
  { d_state: 128, headdim: 64, ngroups: 1 },
  { d_state: 64, headdim: 32, ngroups: 2, tie_embeddings: false },
].map((sizes, i) => ({
  name: `8 layers of 256, state ${sizes.d_state}`,
  seed: 301 + i,
  config: { n_layer: 8, d_model: 256, vocab_size: 500, ...sizes },
}))
const RANDOM_TOKENS = 160
const TEXTS = 4
const TEXT_TOKENS = 128

/** @type {string} */
let dir
/** @type {Core} */
let core
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bimamba-precision-'))
  core = await Core.create()
})
after(() => rm(dir, { recursive: true }))

/**
 * @param {CoreModel} model
 * @param {'exact' | 'high' | 'fast'} precision
 * @param {number[][]} texts token ids
 * @param {'f32' | 'i16'} [state]
 */
function logitsOfTexts(model, precision, texts, state = 'f32') {
  const session = model.createSession({ precision, state, maxChunk: 256 })
  const rows = texts.flatMap((text) => logitsOfParts(session, text, [text.length]))
  session.close()
  return rows
}

/**
 * @param {Float32Array[]} truth
 * @param {Float32Array[]} found
 */
function meanDivergence(truth, found) {
  const sum = truth.reduce(
    (a, p, i) => a + divergence(p, /** @type {Float32Array} */ (found[i])),
    0,
  )
  return sum / truth.length
}

/**
 * Mean divergences of the reduced precisions from `exact`; said in the test's output.
 *
 * @param {import('node:test').TestContext} t
 * @param {CoreModel} model
 * @param {number[][]} texts
 */
function measure(t, model, texts) {
  const truth = logitsOfTexts(model, 'exact', texts)
  const loss = {
    high: meanDivergence(truth, logitsOfTexts(model, 'high', texts)),
    fast: meanDivergence(truth, logitsOfTexts(model, 'fast', texts)),
    i16State: meanDivergence(truth, logitsOfTexts(model, 'exact', texts, 'i16')),
  }
  const numbers = Object.entries(loss).map(([name, kl]) => `${name} ${kl.toExponential(2)}`)
  t.diagnostic(`mean KL against exact over ${truth.length} tokens: ${numbers.join(', ')}`)
  assert.ok(loss.high > 0 && loss.fast > 0, 'a reduced precision gave the very bits of exact')
  assert.ok(loss.high < loss.fast, `high ${loss.high} should lose less than fast ${loss.fast}`)
  return loss
}

describe('random models', () => {
  for (const chosen of RANDOM) {
    test(chosen.name, async (t) => {
      const folder = join(dir, String(chosen.seed))
      await writeCase(folder, chosen)
      const { model } = await openPacked(core, await pack(core, folder, { embedding: 'int8' }))
      const text = tokensOf(chosen, RANDOM_TOKENS)
      const loss = measure(t, model, [text])
      model.close()
      assert.ok(loss.high <= TOLERANCES.highOnRandom.limit, `high: ${loss.high}`)
      const { limit } = TOLERANCES.i16StateDivergence
      assert.ok(loss.i16State <= limit, `i16: ${loss.i16State}`)
    })
  }
})

const skip = missingTrained()
if (skip) console.log(`skipped: precision on the trained model (${skip})`)

test('the trained model', { skip }, async (t) => {
  const { model, header } = await openPacked(core, TRAINED)
  const texts = Array.from({ length: TEXTS }, (_, seed) =>
    writtenText(model, header, { seed, maxTokens: TEXT_TOKENS }),
  )
  const loss = measure(t, model, texts)
  model.close()
  assert.ok(loss.high <= TOLERANCES.highOnTrained.limit, `high: ${loss.high}`)
  assert.ok(loss.fast <= TOLERANCES.fastOnTrained.limit, `fast: ${loss.fast}`)
  assert.ok(loss.i16State <= TOLERANCES.i16StateDivergence.limit, `i16: ${loss.i16State}`)
})
