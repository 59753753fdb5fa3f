/**
 * Speculative decoding: whatever is guessed, the text is what it would be without.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Core } from '../../js/core.js'
import { generate, newStats } from '../../js/generate.js'
import { IdList } from '../../js/id-list.js'
import { BiMamba, BmError } from '../../js/index.js'
import { checkGenerate } from '../../js/settings.js'
import { TextDrafter } from '../../js/text-drafter.js'
import { Timeline } from '../../js/timeline.js'
import { collect } from './support/collect.js'
import { openPacked } from './support/packed-engine.js'
import { seeded } from './support/seeded.js'
import { tinyModel } from './support/tiny-model.js'

const NANO = new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url)
const TALES = new URL('../../models/tales/tales.safetensors', import.meta.url)
/** No end, so that texts are long enough to repeat themselves. */
const GREEDY = { temperature: 0, stopTokens: [] }

/** @type {BiMamba} */
let nano
before(async () => {
  nano = await BiMamba.load(NANO, { inline: true })
})
after(() => nano.close())

/**
 * @param {BiMamba} model @param {string | number[]} prompt @param {import('../../js/index.js').GenerateOptions} options
 * @returns {Promise<number[][]>} without drafts, and with
 */
async function both(model, prompt, options) {
  const texts = []
  for (const draft of /** @type {const} */ (['none', 'text']))
    texts.push(await collect(model.generateIds(prompt, { ...options, draft })))
  return texts
}

test('the greedy text of two hundred prompts is the same, to the token', async () => {
  const random = seeded(7).uniform
  const words = 'the fox king girl ran to a house and saw big red ball , . " he said'.split(' ')
  let [drafted, accepted] = [0, 0]
  for (let i = 0; i < 200; i++) {
    const some = Array.from(
      { length: 3 + Math.floor(8 * random()) },
      () => words[Math.floor(words.length * random())],
    )
    const prompt = `${some.join(' ')} `.repeat(i % 4 === 0 ? 6 : 1)
    const [plain, guessed] = await both(nano, prompt, {
      ...GREEDY,
      maxTokens: i % 10 === 0 ? 700 : 60,
    })
    assert.deepEqual(guessed, plain, JSON.stringify(prompt))
    drafted += Number(nano.lastStats?.drafted)
    accepted += Number(nano.lastStats?.accepted)
  }
  assert.ok(accepted > 200 && accepted <= drafted, `${accepted} of ${drafted}`)
})

test('so is a sampled one, with every kind of sampling, and its log-probabilities', async () => {
  const session = await nano.createSession()
  await session.append('One day a fox ran. One day a fox ran. One day a fox ran. One day a fox')
  const settings = [
    { temperature: 0.3, topK: 5 },
    { temperature: 0.6, topP: 0.9, repetitionPenalty: 1.1 },
    { temperature: 0.2, mirostatTau: 2 },
    { temperature: 0.5, typicalP: 0.9, frequencyPenalty: 0.1, presencePenalty: 0.1 },
    { temperature: 0.4, noRepeatNgram: 30, dryMultiplier: 0.1 },
  ]
  for (const [i, options] of settings.entries()) {
    const texts = []
    for (const draft of /** @type {const} */ (['none', 'text'])) {
      const copy = await session.fork()
      const all = { ...options, maxTokens: 400, seed: i, stopTokens: [], draft, logprobs: 2 }
      texts.push(await collect(copy.generateTokens(all)))
      await copy.close()
    }
    assert.deepEqual(texts[1], texts[0], JSON.stringify(options))
  }
  await session.close()
})

for (const options of [
  { state: 'i16' },
  { threads: 2 },
  { precision: 'exact' },
  { inline: false },
]) {
  test(`the same with ${JSON.stringify(options)}`, async () => {
    const model = await BiMamba.load(TALES, {
      inline: true,
      .../** @type {{ state: 'i16' }} */ (options),
    })
    let [drafted, accepted] = [0, 0]
    // How much is guessed depends on what a token takes, which on a busy machine may be misjudged once.
    for (let tries = 0; tries < 3 && accepted <= 100; tries++) {
      const [plain, guessed] = await both(model, 'Once upon a time', { ...GREEDY, maxTokens: 1500 })
      assert.deepEqual(guessed, plain)
      ;({ drafted = 0, accepted = 0 } = model.lastStats ?? {})
    }
    assert.ok(accepted > 100, `${accepted} of ${drafted}`)
    await model.close()
  })
}

test('wherever the loop is left, the session is at the tokens that were given out', async () => {
  // A model that goes round in a ring of few tokens.
  const model = await BiMamba.load(await tinyModel(), { inline: true })
  const options = { ...GREEDY, maxTokens: 300, draft: /** @type {const} */ ('text') }
  const all = await collect(
    model.generateIds([5, 6], { ...options, maxTokens: 400, draft: 'none' }),
  )
  for (let count = 1; count < 300; count += 7) {
    const session = await model.createSession({ checkpointBytes: count % 2 === 0 ? 0 : 1e6 })
    await session.append([5, 6])
    const given = []
    for await (const id of session.generateIds(options)) {
      given.push(id)
      if (given.length === count) break
    }
    assert.deepEqual(given, all.slice(0, count))
    assert.deepEqual([...(await session.ids())], [5, 6, ...given])
    const fresh = await model.createSession()
    await fresh.append([5, 6, ...given])
    assert.deepEqual(await session.logits(), await fresh.logits(), `after ${count}`)
    // It goes on, back, and elsewhere as any other.
    const more = await collect(session.generateIds({ ...options, maxTokens: 40 }))
    assert.deepEqual(more, all.slice(count, count + 40))
    await session.rewind(-30)
    await fresh.append(more)
    await fresh.rewind(-30)
    assert.deepEqual(await session.logits(), await fresh.logits())
    await Promise.all([session.close(), fresh.close()])
  }
  const { sessions } = await model.memory()
  assert.equal(sessions, 0)
  await model.close()
})

for (const inline of [true, false]) {
  test(`${inline ? 'inline' : 'worker'}: a session that is closed in a loop that is left then`, async () => {
    const model = await BiMamba.load(await tinyModel(), { inline })
    for (const draft of /** @type {const} */ (['none', 'text'])) {
      for (let leaveAt = 1; leaveAt < 300; leaveAt += 3) {
        const session = await model.createSession()
        await session.append([5, 6])
        let count = 0
        for await (const _ of session.generateIds({ ...GREEDY, maxTokens: 300, draft })) {
          if (++count < leaveAt) continue
          await session.close()
          break
        }
      }
    }
    assert.equal((await model.memory()).sessions, 0)
    await model.close()
  })

  test(`${inline ? 'inline' : 'worker'}: a smaller model guesses, and the text is the large one\u2019s`, async () => {
    const model = await BiMamba.load(TALES, { inline, draftModel: NANO })
    let [drafted, accepted] = [0, 0]
    for (const [i, prompt] of ['Once upon a time', 'The king', 'One day a girl'].entries()) {
      const options = { ...GREEDY, maxTokens: 300, temperature: i === 2 ? 0.5 : 0, seed: i }
      const plain = await collect(model.generateIds(prompt, options))
      assert.deepEqual(
        await collect(model.generateIds(prompt, { ...options, draft: 'model' })),
        plain,
      )
      drafted += Number(model.lastStats?.drafted)
      accepted += Number(model.lastStats?.accepted)
      // And in a session that is left and goes on.
      const session = await model.createSession()
      await session.append(prompt)
      /** @type {number[]} */
      const given = []
      for (const count of [3, 50, 1]) {
        const { seed, ...rest } = options
        const all = {
          ...rest,
          ...(given.length === 0 ? { seed } : {}),
          draft: /** @type {const} */ ('model'),
        }
        let left = count
        for await (const id of session.generateIds(all)) {
          given.push(id)
          if (--left === 0) break
        }
      }
      assert.deepEqual(given, plain.slice(0, 54))
      await session.close()
    }
    assert.ok(drafted >= accepted && accepted > 0, `${accepted} of ${drafted}`)
    await model.close()
  })
}

test('a model of another tokenizer cannot guess', async () => {
  const other = await tinyModel()
  await assert.rejects(BiMamba.load(TALES, { draftModel: other }), {
    code: 'mismatch',
    message: /the draft model has another tokenizer/,
  })
})

test('no memory for a draft: the session of what guesses is closed', async () => {
  const core = await Core.create()
  const { model } = await openPacked(core, await tinyModel())
  const create = () => model.createSession({ precision: 'fast', state: 'f32' })
  const [session, small] = [create(), create()]
  session.createDraft = () => {
    throw new BmError('memory', 'none left')
  }
  const timeline = new Timeline(session, { seed: 1, checkpointBytes: 0 })
  timeline.push(5)
  const settings = checkGenerate({ draft: 'model' }, model.config.vocab_size)
  const lanes = [{ timeline, settings, format: null, stats: newStats(1) }]
  const drafts = () => small
  const job = { model, lanes, eosIds: [], table: null, isLast: true, drafts }
  await assert.rejects(collect(generate(job)), { code: 'memory' })
  assert.throws(() => small.handle, { code: 'closed' })
  timeline.close()
  model.close()
})

test('several texts together need no guesses, and a wrong value is refused', async () => {
  const sessions = [await nano.createSession(), await nano.createSession()]
  await Promise.all(sessions.map((session) => session.append('Once upon a time')))
  const options = { ...GREEDY, maxTokens: 20, draft: /** @type {const} */ ('text') }
  await collect(nano.generateTogether(sessions, options))
  for (const session of sessions) assert.equal(session.lastStats?.drafted, 0)
  await Promise.all(sessions.map((session) => session.close()))
  const wrong = { draft: /** @type {'text'} */ (/** @type {unknown} */ ('best')) }
  await assert.rejects(collect(nano.generate('x', wrong)), {
    code: 'argument',
    message: /draft is "best", want none, text, model/,
  })
})

test('what was said before is found, and goes round', () => {
  const ids = new IdList([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4])
  const drafter = new TextDrafter(ids)
  assert.equal(drafter.run, 4)
  assert.deepEqual(drafter.propose(3), [5, 6, 7])
  ids.push([5])
  drafter.follow()
  assert.equal(drafter.run, 5)
  // From the end of what is known it goes on with what it guessed itself.
  assert.deepEqual(drafter.propose(9), [6, 7, 1, 2, 3, 4, 5, 6, 7])
  ids.push([9])
  drafter.follow()
  assert.deepEqual(drafter.propose(3), [])
  const ring = new TextDrafter(new IdList([8, 8, 8, 8, 8, 8, 8]))
  assert.deepEqual(ring.propose(4), [8, 8, 8, 8])
})
