/**
 * What a session tells of tokens: those that it reads, those of a reply, and their bytes.
 */

import assert from 'node:assert/strict'
import { collect } from './support/collect.js'
import { openModels } from './support/each-model.js'

const NANO = new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url)

const { eachModel } = openModels(() => NANO)

const TEXT = 'Once upon a time there was a fox. “Hé!” said the fox.'

eachModel('what is read is told as it would be generated, token by token', async (model) => {
  const session = await model.createSession()
  const tokens = await session.read(TEXT, { logprobs: 5 })
  assert.equal(session.position, tokens.length)
  assert.equal(tokens.map(({ text }) => text).join(''), TEXT)
  assert.equal(tokens[0]?.logprob, null)
  assert.deepEqual(tokens[0]?.top, [])
  const ids = tokens.map(({ id }) => Number(id))
  assert.deepEqual([...(await session.ids())], ids)
  const scored = await model.score(ids)
  assert.deepEqual(
    tokens.map(({ logprob }) => logprob),
    scored,
  )
  // The alternatives are those of a session that stands there.
  const slow = await model.createSession()
  for (const [i, { id, logprob, top }] of tokens.entries()) {
    if (i > 0) assert.deepEqual(top, await slow.top(5), `token ${i}`)
    const same = top.find((one) => one.id === id)
    if (same) assert.equal(same.logprob, logprob)
    await slow.append([Number(id)])
  }
  assert.deepEqual(await session.logits(), await slow.logits())
  // More is read behind it.
  const more = await session.read(' Then', { logprobs: 1 })
  assert.equal(typeof more[0]?.logprob, 'number')
  assert.ok((await session.text()).endsWith('fox. Then'))
  await Promise.all([session.close(), slow.close()])
})

eachModel('an abort leaves the session as it was', async (model) => {
  const session = await model.createSession()
  await session.append('Once')
  const before = [...(await session.ids())]
  const logits = await session.logits()
  const controller = new AbortController()
  const reading = session.read(TEXT.repeat(300), { signal: controller.signal })
  setTimeout(() => controller.abort(), 20)
  await assert.rejects(reading, { name: 'AbortError' })
  assert.deepEqual([...(await session.ids())], before)
  assert.deepEqual(await session.logits(), logits)
  await assert.rejects(session.read('x', { logprobs: 65 }), {
    code: 'argument',
    message: /logprobs is 65/,
  })
  await session.close()
})

eachModel(
  'a reply to messages: its tokens are its text, and what was said is kept',
  async (model) => {
    const messages = /** @type {const} */ ([
      { role: 'system', content: 'You tell stories.' },
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'Hello.' },
      { role: 'user', content: 'Tell me about a fox.' },
    ])
    const options = { maxTokens: 12, seed: 3 }
    const one = await model.createSession()
    const tokens = await collect(one.chatTokens(messages, { ...options, logprobs: 2 }))
    const other = await model.createSession()
    await other.say(messages.slice(0, 3))
    const text = (await collect(other.chat('Tell me about a fox.', options))).join('')
    assert.equal(tokens.map((token) => token.text).join(''), text)
    for (const { id, logprob, top } of tokens) {
      if (id === null) continue
      assert.equal(typeof logprob, 'number')
      assert.equal(top.length, 2)
    }
    assert.deepEqual(await one.messages(), [
      ...messages,
      { role: 'assistant', content: text.trim() },
    ])
    await assert.rejects(collect(one.chat(/** @type {never} */ (5))), {
      code: 'argument',
      message: /said: want an array/,
    })
    await Promise.all([one.close(), other.close()])
  },
)

eachModel('the bytes of tokens are those of their text', async (model) => {
  const ids = await model.tokenize(TEXT)
  const bytes = await model.tokenBytes(ids)
  assert.equal(bytes.length, ids.length)
  assert.equal(Buffer.concat(bytes).toString().trim(), TEXT)
  const { bosId } = model.info
  assert.deepEqual(await model.tokenBytes([Number(bosId)]), [new Uint8Array(0)])
})
