/**
 * The sampling options, from the names that callers give to what comes out. That the sampler computes them right is for the C tests.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import { NUMBER_SETTINGS } from '../../js/settings.js'
import { collect } from './support/collect.js'
import { tinyModel } from './support/tiny-model.js'

const PROMPT = Array.from({ length: 60 }, (_, i) => (i * 7) % 40)
const FREE = { stopTokens: [], topK: 0, topP: 1, seed: 8, maxTokens: 80 }

/** @type {BiMamba} */
let model
before(async () => {
  model = await BiMamba.load(await tinyModel(), { inline: true })
})
after(() => model.close())

/** @param {import('../../js/settings.js').GenerateOptions} options @returns {Promise<number[]>} */
const ids = (options) => collect(model.generateIds(PROMPT, { ...FREE, ...options }))

test('every numeric option reaches the sampler: its ends are taken, and each changes something', async () => {
  const plain = await ids({ temperature: 1 })
  // Few tokens, so that the text repeats itself.
  const few = { logitBias: [50, 51, 52].map((id) => /** @type {[number, number]} */ ([id, 30])) }
  /** Options that do something only together. @type {Record<string, object>} */
  const beside = {
    mirostatEta: { mirostatTau: 3 },
    dryMultiplier: few,
    dryBase: { ...few, dryMultiplier: 0.2 },
    dryAllowedLength: { ...few, dryMultiplier: 3 },
    historyWindow: { noRepeatNgram: 1 },
    repetitionWindow: { frequencyPenalty: 5 },
  }
  const telling = {
    temperature: 0.3,
    topK: 3,
    topP: 0.3,
    minP: 0.5,
    typicalP: 0.3,
    mirostatTau: 1,
    mirostatEta: 1,
    repetitionPenalty: 0.2,
    frequencyPenalty: -3,
    presencePenalty: -5,
    repetitionWindow: 1,
    noRepeatNgram: 1,
    dryMultiplier: 30,
    dryBase: 10,
    dryAllowedLength: 1,
    historyWindow: 3,
    seed: 9,
  }
  for (const [name, value] of Object.entries(telling)) {
    const others = { temperature: 1, ...beside[name] }
    const without = name in beside ? await ids(others) : plain
    assert.notDeepEqual(await ids({ ...others, [name]: value }), without, name)
  }
  assert.deepEqual(
    Object.keys(NUMBER_SETTINGS).filter((name) => !(name in telling)),
    ['maxTokens'],
  )
  for (const [name, rule] of Object.entries(NUMBER_SETTINGS)) {
    if (name === 'maxTokens') continue
    for (const value of [rule.min, rule.max]) {
      const isOpen = 'open' in rule && value === rule.min
      const run = ids({ ...beside[name], [name]: value, maxTokens: 3 })
      if (isOpen) await assert.rejects(run, { code: 'argument', message: RegExp(name) })
      else assert.equal((await run).length, 3, `${name} ${value}`)
    }
  }
})

test('a bias of 100 forces a token, -Infinity forbids it, and both may be said in any form', async () => {
  for (const logitBias of [
    new Map([[17, 100]]),
    { 17: 100 },
    [/** @type {[number, number]} */ ([17, 100])],
  ]) {
    assert.deepEqual(await ids({ logitBias, maxTokens: 5 }), [17, 17, 17, 17, 17])
  }
  const plain = await ids({ temperature: 2 })
  const banned = [...new Set(plain)].slice(0, 20)
  const logitBias = new Map(banned.map((id) => [id, Number.NEGATIVE_INFINITY]))
  const rest = await ids({ temperature: 2, logitBias, maxTokens: 500 })
  assert.ok(rest.every((id) => !banned.includes(id)))
})

test('no n-gram comes twice', async () => {
  for (const n of [1, 2, 3]) {
    const text = [...PROMPT, ...(await ids({ noRepeatNgram: n, temperature: 0.5 }))]
    const seen = new Set()
    for (let i = 0; i + n <= text.length; i++) {
      const gram = text.slice(i, i + n).join()
      // Those of the prompt repeat as they like.
      assert.ok(!seen.has(gram) || i + n <= PROMPT.length, `${gram} at ${i}`)
      seen.add(gram)
    }
  }
})

test('DRY ends a loop, and a breaker lets it go on', async () => {
  const loop = Array.from({ length: 40 }, (_, i) => 50 + (i % 4))
  const next = 50
  // The model is noise; a bias makes it want to go on with the loop.
  const options = { ...FREE, temperature: 0, maxTokens: 1, logitBias: new Map([[next, 50]]) }
  const after = async (/** @type {object} */ more) =>
    (await collect(model.generateIds(loop, { ...options, ...more })))[0]
  assert.equal(await after({}), next)
  assert.notEqual(await after({ dryMultiplier: 1, dryBase: 2 }), next)
  assert.equal(await after({ dryMultiplier: 1, dryBase: 2, dryBreakers: [53] }), next)
  assert.equal(await after({ dryMultiplier: 1, dryBase: 2, historyWindow: 4 }), next)
})

test('stop tokens end a text, are no part of it, and take the place of EOS', async () => {
  const plain = await ids({ temperature: 1 })
  const stop = Number(plain[10])
  const first = plain.indexOf(stop)
  assert.deepEqual(await ids({ temperature: 1, stopTokens: [stop] }), plain.slice(0, first))
  assert.equal(model.lastStats?.finishReason, 'eos')
  const eos = Number(model.info.eosIds[0])
  const forced = { logitBias: new Map([[eos, 100]]), maxTokens: 4 }
  assert.deepEqual(await ids(forced), [eos, eos, eos, eos])
  const { stopTokens: _, ...withEos } = FREE
  assert.deepEqual(await collect(model.generateIds(PROMPT, { ...withEos, ...forced })), [])
})

test('mirostat moves the surprise to where it is wanted', async () => {
  const session = await model.createSession()
  await session.append(PROMPT)
  const means = []
  for (const mirostatTau of [1, 3, 5]) {
    const options = { ...FREE, mirostatTau, mirostatEta: 0.1, maxTokens: 600 }
    const tokens = await collect(session.generateTokens(options))
    const bits = tokens.slice(100).map(({ logprob }) => -Number(logprob) / Math.LN2)
    means.push(bits.reduce((sum, one) => sum + one, 0) / bits.length)
  }
  // The surprise it looks at is that among the tokens it keeps, which is lower than the model's where few are kept.
  const [one = 0, three = 0, five = 0] = means
  assert.ok(one < three - 0.2 && three < five - 0.5 && Math.abs(five - 5) < 0.8, means.join())
  await session.close()
})

test('random numbers go on from one generation to the next, and a seed begins them anew', async () => {
  const session = await model.createSession({ seed: 5 })
  const { seed: _, ...free } = { ...FREE, maxTokens: 6, mirostatTau: 2 }
  const all = []
  for (let i = 0; i < 3; i++) all.push(...(await collect(session.generateIds(free))))
  const once = await model.createSession({ seed: 5 })
  assert.deepEqual(await collect(once.generateIds({ ...free, maxTokens: 18 })), all)
  // Back to the beginning other numbers are drawn; with the seed the same.
  await session.rewind(0)
  assert.notDeepEqual(await collect(session.generateIds({ ...free, maxTokens: 18 })), all)
  await session.rewind(0)
  assert.deepEqual(await collect(session.generateIds({ ...free, maxTokens: 18, seed: 5 })), all)
  await Promise.all([session.close(), once.close()])
})
