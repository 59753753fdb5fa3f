/**
 * What a session refuses, and by which code.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BiMamba, Session } from '../../js/index.js'
import { collect } from './support/collect.js'
import { openModels } from './support/each-model.js'
import { tinyModel } from './support/tiny-model.js'

const { models, eachModel } = openModels(() => tinyModel())

/** A call, and what its error says. @typedef {[() => Promise<unknown>, RegExp]} WrongCall */

const any = /** @type {(value: unknown) => never} */ ((value) => /** @type {never} */ (value))

/** @param {BiMamba} model @param {Session} session @returns {WrongCall[]} of three tokens */
const wrongCalls = (model, session) => [
  [() => model.createSession({ seed: -1 }), /seed is -1/],
  [() => model.createSession({ seed: Number.NaN }), /seed is NaN/],
  [() => model.createSession({ checkpointBytes: -1 }), /checkpointBytes is -1/],
  [() => model.createSession({ checkpointBytes: 0.5 }), /checkpointBytes is 0.5/],
  [() => model.createSession(any({ sed: 1 })), /unknown option 'sed', did you mean 'seed'/],
  [() => model.loadSession(new Uint8Array(0), any({ seed: 1 })), /unknown option 'seed'/],
  [() => session.append(any(5)), /text is 5, want a string or an array of token ids/],
  [() => session.append(any(null)), /text is null/],
  [() => session.append([300.5]), /text\[0\] is 300.5/],
  [() => session.append([-1]), /text\[0\] is -1/],
  [() => session.append('a', any({ boss: true })), /unknown option 'boss', did you mean 'bos'/],
  [() => session.append('a', any({ bos: 1 })), /bos is 1/],
  [() => session.append('a', any({ signal: 1 })), /signal is 1/],
  [() => session.rewind(4), /position is 4, want an integer from -3 to 3/],
  [() => session.rewind(-4), /position is -4/],
  [() => session.rewind(1.5), /position is 1.5/],
  [() => session.rewind(any('1')), /position is "1"/],
  [() => session.edit(2, 1, ''), /start is 2, which is behind end, 1/],
  [() => session.edit(0, 9, ''), /end is 9/],
  [() => session.edit(0, 1, any(undefined)), /text is undefined/],
  [() => session.save(any({ state: 'f64' })), /state is "f64", want own, f32, i16 or i8/],
  [() => session.restore(any({})), /want a Snapshot/],
  [() => session.top(65), /count is 65/],
  [() => session.top(0), /count is 0/],
]

/** @param {BiMamba} model @param {Session} session @returns {WrongCall[]} */
const wrongGenerations = (model, session) => [
  [() => collect(session.generate(any({ bos: true }))), /'bos': it belongs to append/],
  [() => collect(session.generate({ temperature: Number.NaN })), /temperature is NaN/],
  [() => collect(session.generate({ typicalP: 0 })), /typicalP is 0/],
  [() => collect(session.generate({ mirostatEta: 2 })), /mirostatEta is 2/],
  [() => collect(session.generate({ dryBase: 0 })), /dryBase is 0/],
  [() => collect(session.generate({ noRepeatNgram: 65 })), /noRepeatNgram is 65/],
  [() => collect(session.generate({ frequencyPenalty: 101 })), /frequencyPenalty is 101/],
  [() => collect(session.generate({ historyWindow: 65537 })), /historyWindow is 65537/],
  [() => collect(session.generate(any({ topk: 1 }))), /unknown option 'topk', did you mean 'topK'/],
  [() => collect(session.generate({ stopTokens: [-1] })), /stopTokens\[0\] is -1/],
  [() => collect(session.generate({ dryBreakers: [1e6] })), /dryBreakers\[0\] is 1000000/],
  [() => collect(session.generate({ logitBias: { 5: 101 } })), /logitBias of 5 is 101/],
  [() => collect(session.generate({ logitBias: [[5, Number.NaN]] })), /logitBias of 5 is NaN/],
  [() => collect(session.generate({ logitBias: any({ x: 1 }) })), /logitBias: id\[0\] is "x"/],
  [
    () =>
      collect(
        session.generate({
          logitBias: [
            [5, 1],
            [5, 2],
          ],
        }),
      ),
    /token id 5 twice/,
  ],
  [() => collect(session.generate({ logitBias: any(7) })), /logitBias is 7/],
  [() => collect(session.generateTokens({ logprobs: 65 })), /logprobs is 65/],
  [() => collect(session.generateMany(0)), /n is 0/],
  [() => collect(session.generateMany(65)), /n is 65/],
  [() => collect(model.generateTogether([])), /sessions.length is 0/],
  [() => collect(model.generateTogether([session, session])), /the same one twice/],
  [() => collect(model.generateTogether(any([1]))), /want an array of sessions/],
  [() => collect(model.generateTogether([session], [{}, {}])), /options.length is 2/],
  [() => collect(session.chat(any(5))), /said: want an array of up to/],
  [() => session.say(any([{ role: 'king', content: '' }])), /messages\[0\].role is "king"/],
  [() => session.say(any([{ role: 'user', content: 5 }])), /messages\[0\].content is number/],
  [() => session.say(any([{ role: 'user', content: '', x: 1 }])), /unknown key 'x'/],
  [() => collect(session.chat('hello')), /3 tokens that are no chat/],
]

eachModel('wrong arguments name themselves, and change nothing', async (model) => {
  const session = await model.createSession()
  await session.append([5, 6, 7])
  const cases = [...wrongCalls(model, session), ...wrongGenerations(model, session)]
  for (const [act, message] of cases) {
    await assert.rejects(act, { name: 'BmError', code: 'argument', message })
  }
  assert.deepEqual([...(await session.ids())], [5, 6, 7])
  await session.close()
})

eachModel('an empty session has nothing next, but can begin', async (model) => {
  const session = await model.createSession()
  await assert.rejects(session.logits(), { code: 'argument', message: /empty/ })
  await assert.rejects(session.top(), { code: 'argument' })
  assert.equal(await session.rewind(0), 0)
  assert.equal(await session.undo(), null)
  assert.deepEqual(await session.messages(), [])
  await collect(session.generateIds({ maxTokens: 2, stopTokens: [] }))
  assert.equal((await session.ids())[0], model.info.bosId)
  assert.equal(session.position, 3)
  await session.close()
})

eachModel('one thing at a time for a session, side by side for two', async (model) => {
  const [one, two] = [await model.createSession(), await model.createSession()]
  await one.append([1, 2, 3])
  await two.append([4, 5, 6])
  const options = { maxTokens: 8, stopTokens: [] }
  const pieces = one.generateIds(options)
  await pieces.next()
  for (const act of [
    () => one.append('a'),
    () => one.generate(options).next(),
    () => one.rewind(0),
    () => one.save(),
    () => one.fork(),
    () => one.snapshot(),
    () => one.ids(),
    () => model.generateTogether([two, one], options).next(),
  ]) {
    await assert.rejects(act, { code: 'busy', message: /session is already at work/ })
  }
  // The other one, and the model's own text, go on meanwhile.
  const other = two.generateIds(options)
  for (let i = 0; i < 7; i++) {
    assert.ok(!(await pieces.next()).done)
    assert.ok(!(await other.next()).done)
  }
  await collect(model.generateIds([1, 2], options))
  assert.ok((await pieces.next()).done)
  await one.append('a')
  await two.close()
  await assert.rejects(other.next(), { code: 'closed', message: /session was closed/ })
  await one.close()
})

eachModel('after close: of the session, of the model', async (model) => {
  const session = await model.createSession()
  await session.append([1])
  await session.close()
  await session.close()
  for (const act of [
    () => session.append('a'),
    () => session.generate().next(),
    () => session.chat('a').next(),
    () => session.fork(),
    () => session.ids(),
    () => model.generateTogether([session]).next(),
  ]) {
    await assert.rejects(act, { code: 'closed', message: /session was closed/ })
  }
  const disposed = await model.createSession()
  assert.ok(disposed instanceof Session)
  await disposed[Symbol.asyncDispose]()
  await assert.rejects(disposed.ids(), { code: 'closed' })
})

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'worker'}: the model is closed under its sessions`, async () => {
    const model = await BiMamba.load(await tinyModel(), { inline })
    const session = await model.createSession()
    await session.append([1, 2])
    const snapshot = await session.snapshot()
    const pieces = session.generateIds({ maxTokens: 50, stopTokens: [] })
    await pieces.next()
    await model.close()
    await assert.rejects(pieces.next(), { code: 'closed', message: /model was closed/ })
    await assert.rejects(session.append('a'), { code: 'closed' })
    await assert.rejects(session.restore(snapshot), { code: 'closed' })
    await assert.rejects(model.createSession(), { code: 'closed' })
    await snapshot.close()
    await session.close()
  })
}

test('closed at any moment of a fork or a snapshot: none is left that nobody has', async () => {
  const { inline } = models
  const before = await inline.memory()
  for (let ticks = 0; ticks < 50; ticks++) {
    for (const action of /** @type {const} */ (['fork', 'snapshot'])) {
      const session = await inline.createSession()
      await session.append([5, 6])
      const made = session[action]().then(
        (one) => one.close(),
        ({ code }) => assert.equal(code, 'closed'),
      )
      for (let i = 0; i < ticks; i++) await null
      await session.close()
      await made
      const { sessions, snapshots } = await inline.memory()
      const wanted = [before.sessions, before.snapshots]
      assert.deepEqual([sessions, snapshots], wanted, `${action}, closed after ${ticks}`)
    }
  }
})

test('a chat whose template makes nothing of it changes nothing', async () => {
  const template = '{% for message in messages %}{{ message.content }}{% endfor %}'
  const model = await BiMamba.load(await tinyModel({ template }), { inline: true })
  const session = await model.createSession()
  for (const said of ['', []]) {
    await assert.rejects(collect(session.chat(said)), { code: 'argument', message: /no text/ })
    assert.deepEqual([await session.messages(), session.position], [[], 0])
  }
  await collect(session.chat('a', { maxTokens: 2 }))
  assert.equal((await session.messages()).length, 2)
  await model.close()
})

test('many ways are aborted while the text is read again', async () => {
  const session = await models.inline.createSession({ checkpointBytes: 0 })
  await session.append(Array.from({ length: 3000 }, (_, i) => i % 300))
  await session.rewind(-1)
  // What was aborted leaves a text that has to be read again.
  const early = new AbortController()
  setImmediate(() => early.abort())
  await assert.rejects(session.edit(0, 1, [9], { signal: early.signal }), { name: 'AbortError' })
  const late = new AbortController()
  setImmediate(() => late.abort())
  await assert.rejects(session.generateMany(2, { signal: late.signal }).next(), {
    name: 'AbortError',
  })
  const read = await session.edit(2999, 2999, [5])
  assert.ok(read > 1000, `${read} tokens were left to be read`)
  await session.close()
})

eachModel('a snapshot of another session takes no more memory than this one may', async (model) => {
  const few = await model.createSession({ checkpointBytes: 0 })
  const many = await model.createSession()
  const ids = Array.from({ length: 1000 }, (_, i) => i % 300)
  await many.append(ids)
  await few.append(ids)
  const [rich, poor] = [await many.snapshot(), await few.snapshot()]
  await few.restore(rich)
  await many.restore(poor)
  await rich.close()
  await poor.close()
  const { keptBytes } = await model.memory()
  assert.equal(keptBytes, 0)
  await few.append(ids)
  assert.equal((await model.memory()).keptBytes, 0)
  await many.append(ids)
  assert.ok((await many.rewind(-1)) < 128)
  assert.equal(await few.rewind(-1), 1999)
  assert.deepEqual(await few.logits(), await many.logits())
  await Promise.all([few.close(), many.close()])
})

test('sessions and snapshots of another model', async () => {
  const { worker, inline } = models
  const [one, two] = [await worker.createSession(), await inline.createSession()]
  await one.append([1])
  const snapshot = await one.snapshot()
  await assert.rejects(two.restore(snapshot), { code: 'argument', message: /another model/ })
  await assert.rejects(worker.generateTogether([one, two]).next(), {
    code: 'argument',
    message: /another model/,
  })
  await Promise.all([one.close(), two.close(), snapshot.close()])
})

eachModel('a text of 10 MB is read in bounded memory, and can be stopped', async (model) => {
  const session = await model.createSession()
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 300)
  const began = performance.now()
  const long = 'once upon a time '.repeat(600000)
  await assert.rejects(session.append(long, { signal: controller.signal }), { name: 'AbortError' })
  assert.ok(performance.now() - began < 3000, `${performance.now() - began} ms`)
  assert.equal(session.position, 0)
  await session.append('a')
  await session.close()
})
