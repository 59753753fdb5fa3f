/**
 * The head in 4 bits: what `head: 'int4'` is made from, what it says of itself, and what it loses.
 *
 * Owns the measure of the loss on the trained model, text that it wrote itself. How codes are made and multiplied is
 * tested in C.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { Core } from '../../js/core.js'
import { BiMamba } from '../../js/index.js'
import { divergence } from './support/divergence.js'
import { logitsOfParts, openPacked } from './support/packed-engine.js'
import { tinyModel } from './support/tiny-model.js'
import { TOLERANCES } from './support/tolerances.js'
import { missingTrained, TRAINED, writtenText } from './support/trained-model.js'

/** @typedef {import('../../js/core.js').HeadChoice} HeadChoice */

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))
const IDS = [1, 5, 9, 12, 7, 30, 2]
const TEXTS = 4
const TEXT_TOKENS = 128

/** @param {string} path @param {import('../../js/settings.js').LoadOptions} options */
async function scores(path, options) {
  const model = await BiMamba.load(path, options)
  const logprobs = await model.score(IDS)
  await model.close()
  return { head: model.info.head, logprobs: logprobs.slice(1).map(Number) }
}

for (const tied of [true, false]) {
  test(`a ${tied ? 'tied' : 'separate'} int8 head in 4 bits: reported, near, the same on all kernels`, async () => {
    const path = await tinyModel({ config: { tie_embeddings: tied } })
    const wide = await scores(path, {})
    const packed = await scores(path, { head: 'int4' })
    assert.deepEqual([wide.head, packed.head], ['int8', 'int4'])
    const errors = wide.logprobs.map((logprob, i) => Math.abs(logprob - Number(packed.logprobs[i])))
    assert.ok(Math.max(...errors) > 0 && Math.max(...errors) < 0.5, `errors ${errors}`)
    for (const variant of ['ref', 'popcount']) {
      assert.deepEqual(await scores(path, { head: 'int4', variant, inline: true }), packed)
    }
  })
}

test('a head that is not int8 stays what it is, and does not become int4', async () => {
  const path = await tinyModel({ embedding: 'f32' })
  assert.equal((await scores(path, { head: 'file', inline: true })).head, 'f32')
  for (const inline of [true, false]) {
    await assert.rejects(BiMamba.load(path, { head: 'int4', inline }), {
      code: 'argument',
      message: /an int4 head is made from int8, and this model has f32/,
    })
  }
})

test('--head on the command line', async () => {
  const path = await tinyModel()
  const run = (/** @type {string[]} */ ...args) => {
    const line = [MAIN, 'score', '--model', path, '--tokens', IDS.join(','), ...args]
    return spawnSync(process.execPath, line, { encoding: 'utf8' })
  }
  const { stdout } = run('--head', 'int4')
  const { logprobs } = await scores(path, { head: 'int4' })
  assert.deepEqual(JSON.parse(stdout).logprobs.slice(1), logprobs)
  assert.match(run('--head', 'int2').stderr, /--head is "int2", want file, int4/)
})

const skip = missingTrained()
if (skip) console.log(`skipped: the loss of an int4 head on the trained model (${skip})`)

test('what 4 bits lose on the trained model', { skip }, async (t) => {
  const core = await Core.create()
  /** @param {HeadChoice} head */
  const open = (head) => openPacked(core, TRAINED, { head })
  const { model, header } = await open('file')
  const texts = Array.from({ length: TEXTS }, (_, seed) =>
    writtenText(model, header, { seed, maxTokens: TEXT_TOKENS }),
  )
  /** @param {import('../../js/core-model.js').CoreModel} opened */
  const measure = (opened) => {
    const session = opened.createSession({ precision: 'fast', maxChunk: TEXT_TOKENS })
    /** @type {Float32Array[]} */
    const rows = []
    let nats = 0
    let count = 0
    for (const text of texts) {
      rows.push(...logitsOfParts(session, text, [text.length]))
      for (let at = 1; at < text.length; at++) nats -= session.logprob(at - 1, Number(text[at]))
      count += text.length - 1
    }
    opened.close()
    return { rows, nats: nats / count }
  }
  const wide = measure(model)
  const packed = measure((await open('int4')).model)
  const sum = wide.rows.reduce(
    (total, row, i) => total + divergence(row, /** @type {Float32Array} */ (packed.rows[i])),
    0,
  )
  const kl = sum / wide.rows.length
  const change = packed.nats - wide.nats
  t.diagnostic(
    `int4 against int8 over ${wide.rows.length} tokens: mean KL ${kl.toExponential(2)}, loss ${change.toFixed(5)} nats more than ${wide.nats.toFixed(4)}`,
  )
  assert.ok(kl > 0 && kl <= TOLERANCES.int4HeadOnTrained.limit, `KL ${kl}`)
  assert.ok(Math.abs(change) <= TOLERANCES.int4HeadOnTrained.limit, `loss ${change}`)
})
