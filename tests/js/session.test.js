/**
 * Sessions: whatever way a text has come to be, what follows is the same to the bit.
 *
 * The reference is always another session that has read the same token ids from the beginning, and nothing else.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BiMamba, BmError, Session, Snapshot } from '../../js/index.js'
import { collect, join } from './support/collect.js'
import { openModels } from './support/each-model.js'
import { tinyModel } from './support/tiny-model.js'

/** No EOS, so that texts are as long as is asked for. */
const FREE = { stopTokens: [], topK: 0, topP: 1, temperature: 1.2 }
const PROMPT = Array.from({ length: 400 }, (_, i) => (i * 31 + 7) % 300)

const { models, eachModel } = openModels(() => tinyModel(), {
  worker: {},
  inline: { inline: true },
  i16: { inline: true, state: 'i16' },
  threads: { threads: 3 },
})

/** @param {string} code @param {RegExp} [pattern] */
const bmError =
  (code, pattern = /./) =>
  (/** @type {unknown} */ error) => {
    assert.ok(error instanceof BmError, String(error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    return true
  }

/**
 * That a session is at these ids, and goes on as one that has read them alone.
 * @param {BiMamba} model @param {Session} session @param {ArrayLike<number>} ids
 */
async function isAt(model, session, ids) {
  assert.deepEqual([...(await session.ids())], [...Array.from(ids)])
  assert.equal(session.position, ids.length)
  const fresh = await model.createSession({ checkpointBytes: 0 })
  await fresh.append(ids)
  assert.deepEqual(await session.logits(), await fresh.logits())
  const options = { ...FREE, seed: 11, maxTokens: 12 }
  const copy = await session.fork()
  assert.deepEqual(
    await collect(copy.generateIds(options)),
    await collect(fresh.generateIds(options)),
  )
  await Promise.all([copy.close(), fresh.close()])
}

eachModel('text in pieces, ids in pieces and a whole text are one text', async (model) => {
  const session = await model.createSession()
  assert.equal(session.position, 0)
  const ids = [...(await model.tokenize('once upon a time', { bos: true }))]
  assert.equal(await session.append('once upon a time'), ids.length)
  await isAt(model, session, ids)
  await session.append(PROMPT.slice(0, 150))
  for (const id of PROMPT.slice(150, 160)) await session.append([id])
  await session.append([])
  await isAt(model, session, [...ids, ...PROMPT.slice(0, 160)])
  // What is added to a text has no space in front that is not there.
  const before = (await session.text()).length
  await session.append('day')
  assert.equal((await session.text()).slice(before), 'day')
  assert.ok((await session.text(2, 4)).length > 0)
  await session.close()
})

eachModel('a session goes on as the model itself does', async (model) => {
  const options = { seed: 5, maxTokens: 40, ...FREE }
  const want = await join(model.generate('once upon', options))
  const session = await model.createSession({ seed: 5 })
  await session.append('once upon')
  const { seed, ...rest } = options
  let text = ''
  for (const maxTokens of [1, 2, 3, 14, 20]) {
    text += await join(session.generate({ ...rest, maxTokens }))
    assert.equal(session.lastStats?.tokens, maxTokens)
    assert.equal(session.lastStats?.seed, seed)
  }
  // A character that is open at the end is closed by what follows; a model's own text ends there.
  assert.equal(text, want.replace(/\ufffd$/, ''))
  await session.close()
})

eachModel(
  'wherever the loop is left, the session is at the tokens that were given out',
  async (model) => {
    for (const count of [1, 2, 5, 63, 64, 65]) {
      const session = await model.createSession({ seed: count })
      await session.append(PROMPT.slice(0, 20))
      const ids = []
      for await (const id of session.generateIds({ ...FREE, maxTokens: 200 })) {
        ids.push(id)
        assert.equal(session.position, 20 + ids.length)
        if (ids.length === count) break
      }
      assert.equal(session.lastStats?.finishReason, 'abort')
      await isAt(model, session, [...PROMPT.slice(0, 20), ...ids])
      await session.close()
    }
  },
)

eachModel(
  'an abort, before, in a prompt and between tokens, leaves what was there',
  async (model) => {
    const session = await model.createSession({ seed: 3 })
    await session.append(PROMPT.slice(0, 70))
    const reason = new Error('enough')
    await assert.rejects(session.append('x', { signal: AbortSignal.abort(reason) }), reason)
    for (const ms of [0, 1, 3, 8]) {
      const controller = new AbortController()
      const long = Array.from({ length: 40000 }, (_, i) => i % 300)
      const appended = session.append(long, { signal: controller.signal })
      setTimeout(() => controller.abort(reason), ms)
      await assert.rejects(appended, reason)
      await isAt(model, session, PROMPT.slice(0, 70))
    }
    const controller = new AbortController()
    const ids = PROMPT.slice(0, 70)
    await assert.rejects(async () => {
      const options = { ...FREE, maxTokens: 1000, signal: controller.signal }
      for await (const id of session.generateIds(options))
        if (ids.push(id) === 77) controller.abort(reason)
    }, reason)
    await isAt(model, session, ids)
    await session.close()
  },
)

eachModel('fork, snapshot and restore are to the bit what they were taken from', async (model) => {
  const session = await model.createSession({ seed: 9 })
  await session.append(PROMPT.slice(0, 100))
  await collect(session.generateIds({ ...FREE, maxTokens: 7 }))
  const snapshot = await session.snapshot()
  const fork = await session.fork()
  const ids = await session.ids()
  assert.ok(snapshot instanceof Snapshot && fork instanceof Session)
  assert.equal(snapshot.position, 107)
  const options = { ...FREE, maxTokens: 30 }
  // Without a seed the random numbers go on where they were, in each of them.
  const want = await collect(session.generateIds(options))
  assert.deepEqual(await collect(fork.generateIds(options)), want)
  for (let round = 0; round < 2; round++) {
    await session.restore(snapshot)
    await isAt(model, session, ids)
    assert.deepEqual(await collect(session.generateIds(options)), want)
  }
  const other = await model.createSession()
  await other.restore(snapshot)
  assert.deepEqual(await collect(other.generateIds(options)), want)
  await session.close()
  await isAt(model, fork, [...ids, ...want])
  await snapshot.close()
  await snapshot.close()
  await assert.rejects(other.restore(snapshot), bmError('closed', /snapshot was closed/))
  await isAt(model, other, [...ids, ...want])
  await Promise.all([fork.close(), other.close()])
})

eachModel(
  'rewind to anywhere, with any number of checkpoints, reads at most one spacing',
  async (model) => {
    const stateBytes = (await bytesOfState(model)) + 1
    for (const [count, spacing] of [
      [0, 400],
      [1, 256],
      [3, 128],
      [100, 64],
    ]) {
      const session = await model.createSession({ checkpointBytes: Number(count) * stateBytes })
      await session.append(PROMPT)
      for (const position of [400, 399, 321, 320, 200, 128, 127, 65, 1, 0]) {
        const read = await session.rewind(position)
        assert.ok(read <= Math.min(Number(spacing), position), `${read} at ${position} of ${count}`)
        if (position > 0) await isAt(model, session, PROMPT.slice(0, position))
        else assert.equal(session.position, 0)
      }
      await session.append(PROMPT.slice(0, 130))
      assert.equal(await session.rewind(-2), count === 0 ? 128 : 0)
      await isAt(model, session, PROMPT.slice(0, 128))
      await session.close()
    }
  },
)

/** @param {BiMamba} model */
async function bytesOfState(model) {
  const session = await model.createSession()
  await session.append([1])
  const { length } = await session.save()
  await session.close()
  return length
}

eachModel(
  'an edit in the middle reads what follows, and at most one spacing before',
  async (model) => {
    const session = await model.createSession()
    await session.append(PROMPT)
    const insert = [5, 6, 7]
    const read = await session.edit(200, 210, insert)
    assert.ok(read <= 64 + insert.length + 190, `${read} tokens`)
    const edited = [...PROMPT.slice(0, 200), ...insert, ...PROMPT.slice(210)]
    await isAt(model, session, edited)
    await session.edit(-3, session.position, '')
    await isAt(model, session, edited.slice(0, -3))
    await session.edit(0, 0, [9])
    await isAt(model, session, [9, ...edited.slice(0, -3)])
    // An abort leaves the text as it was.
    const controller = new AbortController()
    const long = Array.from({ length: 40000 }, (_, i) => i % 300)
    const editing = session.edit(3, 8, long, { signal: controller.signal })
    setTimeout(() => controller.abort(), 3)
    await assert.rejects(editing, { name: 'AbortError' })
    await isAt(model, session, [9, ...edited.slice(0, -3)])
    await session.close()
  },
)

eachModel('saved, and loaded in any other engine of the state type, it goes on', async (model) => {
  const session = await model.createSession({ seed: 21 })
  await session.append(PROMPT.slice(0, 90))
  await collect(session.generateIds({ ...FREE, maxTokens: 5, mirostatTau: 3 }))
  const bytes = await session.save()
  const options = { ...FREE, maxTokens: 40, mirostatTau: 3 }
  const want = await collect(session.generateIds(options))
  const sameType = Object.values(models).filter(({ info }) => info.state === model.info.state)
  for (const other of sameType) {
    for (const form of [bytes, bytes.buffer, new Blob([bytes])]) {
      const loaded = await other.loadSession(form)
      assert.equal(loaded.position, 95)
      assert.deepEqual(await collect(loaded.generateIds(options)), want)
      // From where it was saved on there is a checkpoint.
      assert.equal(await loaded.rewind(96), 1)
      assert.equal(await loaded.rewind(95), 0)
      assert.equal(await loaded.rewind(94), 94)
      await loaded.close()
    }
  }
  const empty = await model.createSession({ seed: 21 })
  const again = await model.loadSession(await empty.save())
  assert.equal(again.position, 0)
  await again.append(PROMPT.slice(0, 3))
  await isAt(model, again, PROMPT.slice(0, 3))
  await Promise.all([session.close(), empty.close(), again.close()])
})

test('to fewer bits and back: the tokens stay, the state is near', async () => {
  const { inline, i16 } = models
  assert.ok(inline && i16)
  const session = await inline.createSession()
  await session.append(PROMPT)
  const want = await session.logits()
  const sizes = []
  for (const state of /** @type {const} */ (['f32', 'i16', 'i8'])) {
    const bytes = await session.save({ state })
    sizes.push(bytes.length)
    for (const model of [inline, i16]) {
      const loaded = await model.loadSession(bytes)
      // The logits are those of the final normed vector, which is kept whole.
      assert.deepEqual(await loaded.logits(), want)
      await session.append([5])
      await loaded.append([5])
      const [a, b] = [await session.logits(), await loaded.logits()]
      const off = Math.max(...a.map((x, i) => Math.abs(x - Number(b[i]))))
      assert.ok(off < (state === 'i8' ? 0.3 : 0.02), `${state}: ${off}`)
      if (state === 'f32' && model === inline) assert.equal(off, 0)
      await session.rewind(400)
      await loaded.close()
    }
  }
  const [f32 = 0, half = 0, quarter = 0] = sizes
  assert.ok(half < 0.8 * f32 && quarter < 0.75 * half, sizes.join())
  await session.close()
})

eachModel('together is as alone, and the weights are shared', async (model) => {
  const sessions = []
  const want = []
  for (let i = 0; i < 5; i++) {
    const session = await model.createSession({ seed: i })
    await session.append(PROMPT.slice(i, 3 * i + 4))
    const alone = await session.fork()
    want.push(await join(alone.generate({ ...FREE, maxTokens: 10 + i })))
    await alone.close()
    sessions.push(session)
  }
  const each = sessions.map((_, i) => ({ ...FREE, maxTokens: 10 + i }))
  const texts = sessions.map(() => '')
  for await (const { index, text } of model.generateTogether(sessions, each)) texts[index] += text
  assert.deepEqual(texts, want)
  assert.deepEqual(
    sessions.map((session) => session.lastStats?.tokens),
    [10, 11, 12, 13, 14],
  )
  // Left in the middle each is where its own pieces were.
  let count = 0
  const pieces = model.generateTogether(sessions, { ...FREE, maxTokens: 50 })
  for await (const { index } of pieces) if (index === 2 && ++count === 6) break
  for (const session of sessions) await isAt(model, session, await session.ids())
  await Promise.all(sessions.map((session) => session.close()))
})

eachModel('several ways on from one place', async (model) => {
  const session = await model.createSession()
  await session.append(PROMPT.slice(0, 30))
  const texts = ['', '', '']
  const options = { ...FREE, maxTokens: 15, seed: 40 }
  for await (const { index, text } of session.generateMany(3, options)) texts[index] += text
  for (const [i, text] of texts.entries()) {
    const fork = await session.fork()
    assert.equal(await join(fork.generate({ ...options, seed: 40 + i })), text)
    await fork.close()
  }
  assert.equal(session.position, 30)
  await session.close()
})

eachModel('tokens with their chances, and what might have come instead', async (model) => {
  const session = await model.createSession({ seed: 2 })
  await session.append(PROMPT.slice(0, 25))
  const tokens = await collect(session.generateTokens({ ...FREE, maxTokens: 6, logprobs: 4 }))
  const ids = [...(await session.ids())]
  const logprobs = await model.score(ids)
  for (const [i, { id, logprob, top }] of tokens.entries()) {
    assert.equal(id, ids[25 + i])
    assert.equal(logprob, logprobs[25 + i])
    assert.equal(top.length, 4)
    assert.ok(top.every((one, k) => k === 0 || one.logprob <= Number(top[k - 1]?.logprob)))
  }
  const text = tokens.map((token) => token.text).join('')
  // A character that is not whole yet is U+FFFD in the one and nothing in the other.
  assert.ok((await session.text(25)).startsWith(text))
  const [best, ...others] = await session.top(5)
  assert.equal(others.length, 4)
  const logits = await session.logits()
  assert.equal(best?.id, logits.indexOf(Math.max(...logits)))
  // Scoring goes on from the session and leaves it.
  const scored = await session.score([7, 8, 9])
  assert.deepEqual(
    scored.map(({ logprob }) => logprob),
    (await model.score([...ids, 7, 8, 9])).slice(-3),
  )
  await isAt(model, session, ids)
  const empty = await model.createSession()
  assert.deepEqual(
    (await empty.score([4, 5])).map(({ logprob }) => logprob),
    await model.score([4, 5]),
  )
  await Promise.all([session.close(), empty.close()])
})

eachModel(
  'a character over the border of two generations is whole, also saved between',
  async (model) => {
    // Bytes of a character as tokens of their own, forced one after another.
    const bytes = new TextEncoder().encode('é€😀')
    const idOf = async (/** @type {number} */ byte) => byteToken(model, byte)
    const session = await model.createSession()
    await session.append('a')
    let current = session
    let text = ''
    for (const byte of bytes) {
      const options = {
        ...FREE,
        maxTokens: 1,
        stopTokens: [],
        logitBias: new Map([[await idOf(byte), 100]]),
      }
      text += await join(current.generate(options))
      const loaded = await model.loadSession(await current.save())
      await current.close()
      current = loaded
    }
    assert.equal(text, 'é€😀')
    assert.equal(await current.text(), 'aé€😀')
    await current.close()
  },
)

/** @param {BiMamba} model @param {number} byte @returns {Promise<number>} its token */
async function byteToken(model, byte) {
  // The byte tokens stand in order, and a character that has no token of its own is made of them.
  const last = (await model.tokenize('\u{10ffff}')).at(-1)
  return Number(last) - 0xbf + byte
}

eachModel('a stop string over the border of two generations ends the second', async (model) => {
  const forced = async (
    /** @type {Session} */ session,
    /** @type {string} */ text,
    /** @type {string[]} */ stop,
  ) => {
    let out = ''
    for (const byte of new TextEncoder().encode(text)) {
      const logitBias = new Map([[await byteToken(model, byte), 100]])
      out += await join(session.generate({ ...FREE, maxTokens: 1, stop, logitBias }))
      if (session.lastStats?.finishReason === 'stop') break
    }
    return out
  }
  const session = await model.createSession()
  await session.append('a')
  assert.equal(await forced(session, 'one END two', ['END']), 'one EN')
  assert.equal(session.lastStats?.finishReason, 'stop')
  // It is not found a second time, and what was appended is not looked at.
  assert.equal(await forced(session, ' on', ['END', 'ND on']), ' on')
  await session.append('EN')
  assert.equal(await forced(session, 'D.', ['END']), 'D.')
  // Saved between.
  assert.equal(await forced(session, 'E', ['END']), 'E')
  const loaded = await model.loadSession(await session.save())
  assert.equal(await forced(loaded, 'ND', ['END']), 'N')
  assert.equal(loaded.lastStats?.finishReason, 'stop')
  await Promise.all([session.close(), loaded.close()])
})

test('what was held back when a loop was left comes first in the next one', async () => {
  const model = /** @type {BiMamba} */ (models.inline)
  const session = await model.createSession()
  await session.append('a')
  const ids = await Promise.all([...'EN'].map((letter) => byteToken(model, letter.charCodeAt(0))))
  for (const id of ids) {
    const options = {
      ...FREE,
      maxTokens: 5,
      stop: 'END',
      logitBias: [/** @type {[number, number]} */ ([id, 100])],
    }
    for await (const { text } of session.generateTokens(options)) {
      assert.equal(text, '')
      break
    }
  }
  const logitBias = new Map([[await byteToken(model, 0x2e), 100]])
  assert.equal(
    await join(session.generate({ ...FREE, maxTokens: 1, stop: 'END', logitBias })),
    'EN.',
  )
  await session.close()
})

test('nothing in the place of nothing changes nothing: not what is held back, nor what was said', async () => {
  const model = /** @type {BiMamba} */ (models.inline)
  const logitBias = new Map([[await byteToken(model, 0x45), 100]])
  /** @type {((session: Session) => Promise<unknown>)[]} */
  const nothings = [
    (session) => session.append(''),
    (session) => session.append([]),
    (session) => session.read(''),
    (session) => session.rewind(session.position),
    (session) => session.edit(2, 2, ''),
  ]
  for (const nothing of nothings) {
    const session = await model.createSession()
    await session.say([{ role: 'user', content: 'a' }])
    for await (const _ of session.generateTokens({ ...FREE, stop: 'END', logitBias })) break
    await nothing(session)
    assert.equal(await join(session.generate({ ...FREE, maxTokens: 1, logitBias })), 'EE')
    assert.equal((await session.messages()).length, 1)
    await session.close()
  }
})
