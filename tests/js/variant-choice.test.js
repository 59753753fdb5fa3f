/**
 * The choice of the kernel family: the quickest by the clock, remembered, and reported.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { Core } from '../../js/core.js'
import { BiMamba } from '../../js/index.js'
import { MODEL_FILE } from './support/model-file.js'

const core = await Core.create({ wasm: readFileSync('dist/bimamba.wasm') })

/** The choice keeps its outcome, so every test takes its own copy of the module. */
let copies = 0
const freshChoice = async () => {
  const { fastestVariant } = await import(`../../js/variant-choice.js?copy=${copies++}`)
  return /** @type {typeof import('../../js/variant-choice.js').fastestVariant} */ (fastestVariant)
}

/**
 * A clock that is read twice a measurement, the families in turn: the family at `slow` costs more.
 * @param {number} slow index among the candidates
 */
function clock(slow) {
  const candidates = core.variants.length - 1
  let reads = 0
  let time = 0
  return () => {
    if (reads % 2 === 1) time += Math.floor(reads / 2) % candidates === slow ? 5 : 1
    reads++
    return time
  }
}

test('takes the family that took the least time', async () => {
  const [first, second] = core.variants.slice(1)
  assert.equal((await freshChoice())(core, clock(0)), second)
  assert.equal((await freshChoice())(core, clock(1)), first)
})

test('takes the default where the clock cannot tell', async () => {
  assert.equal(
    (await freshChoice())(core, () => 0),
    core.variants.at(-1),
  )
})

test('measures once, and leaves no memory behind', async () => {
  const choose = await freshChoice()
  const chosen = choose(core)
  assert.ok(core.variants.slice(1).includes(chosen), chosen)
  const before = core.memoryBytes
  const fail = () => {
    throw new Error('measured again')
  }
  assert.equal(choose(core, fail), chosen)
  for (let i = 0; i < 20; i++) (await freshChoice())(core)
  assert.equal(core.memoryBytes, before)
})

test('a model says what it runs on, and gives the same text on every family', async () => {
  const texts = new Set()
  for (const variant of [undefined, ...core.variants]) {
    const model = await BiMamba.load(MODEL_FILE, variant === undefined ? {} : { variant })
    assert.ok(core.variants.includes(model.info.variant))
    if (variant !== undefined) assert.equal(model.info.variant, variant)
    let text = ''
    for await (const piece of model.generate('Once', { maxTokens: 12, seed: 3 })) text += piece
    texts.add(text)
    await model.close()
  }
  assert.equal(texts.size, 1)
})

test('an unknown family is an error that lists the known ones', async () => {
  await assert.rejects(BiMamba.load(MODEL_FILE, { variant: 'fastest' }), {
    code: 'argument',
    message: /variant is 'fastest', want one of ref, popcount, table/,
  })
})
