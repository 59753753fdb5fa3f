/**
 * `bimamba/ai-sdk` driven by the real `ai` package.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { generateText, Output, streamText } from 'ai'
import { z } from 'zod'
import { createBimamba } from '../../js/ai-sdk/index.js'
import { BiMamba } from '../../js/index.js'
import { collect } from './support/collect.js'

const TALES = new URL('../../models/tales/tales.safetensors', import.meta.url)

/** @type {BiMamba} */
let model
/** @type {ReturnType<typeof createBimamba>} */
let bimamba

before(async () => {
  model = await BiMamba.load(TALES)
  bimamba = createBimamba({ tales: model })
})

after(async () => {
  await bimamba?.close()
  await model?.close()
})

test('generateText says what a session says, and streamText the same in pieces', async () => {
  const session = await model.createSession()
  await session.say([{ role: 'system', content: 'You tell stories.' }])
  const options = { maxTokens: 20, seed: 2, temperature: 0.7 }
  const reply = (await collect(session.chat('A fox?', options))).join('')
  const call = {
    ...{ model: bimamba('tales'), system: 'You tell stories.', prompt: 'A fox?' },
    ...{ maxOutputTokens: 20, seed: 2, temperature: 0.7 },
  }
  const whole = await generateText(call)
  assert.equal(whole.text, reply)
  assert.equal(whole.finishReason, 'length')
  assert.equal(whole.usage.outputTokens, 20)
  assert.equal(whole.usage.inputTokens, session.lastStats?.promptTokens)
  const { textStream, usage } = streamText(call)
  const pieces = await collect(textStream)
  assert.equal(pieces.join(''), reply)
  assert.ok(pieces.length > 10)
  assert.equal((await usage).outputTokens, 20)
  // The next turn goes on from the state that has read the first one.
  const again = (await collect(session.chat('And then?', options))).join('')
  const next = await generateText({
    ...{ model: bimamba('tales'), maxOutputTokens: 20, seed: 2, temperature: 0.7 },
    messages: [
      { role: 'system', content: 'You tell stories.' },
      { role: 'user', content: 'A fox?' },
      { role: 'assistant', content: [{ type: 'text', text: reply }] },
      { role: 'user', content: [{ type: 'text', text: 'And then?' }] },
    ],
    allowSystemInMessages: true,
  })
  assert.equal(next.text, again)
  assert.ok(Number(next.usage.inputTokenDetails.cacheReadTokens) > 20)
  await session.close()
})

test('a completion model continues the text itself', async () => {
  const options = { maxTokens: 15, temperature: 0 }
  const text = (await collect(model.generate('Once upon a time', options))).join('')
  for (let i = 0; i < 2; i++) {
    const whole = await generateText({
      ...{ model: bimamba.completionModel('tales'), prompt: 'Once upon a time' },
      ...{ maxOutputTokens: 15, temperature: 0 },
    })
    assert.equal(whole.text, text)
  }
})

/** No token ends the text. */
const FREE = { providerOptions: { bimamba: { stopTokens: [] } } }

test('an abort and a cancelled stream stop the work', async () => {
  const controller = new AbortController()
  const call = { model: bimamba(), prompt: 'Go on', maxOutputTokens: 1000000, maxRetries: 0 }
  setTimeout(() => controller.abort(), 100)
  await assert.rejects(generateText({ ...call, ...FREE, abortSignal: controller.signal }), {
    name: 'AbortError',
  })
  const { stream } = await bimamba().doStream({
    prompt: [{ role: 'user', content: [{ type: 'text', text: 'Go on' }] }],
    maxOutputTokens: 1000000,
  })
  const reader = stream.getReader()
  for (let i = 0; i < 5; i++) await reader.read()
  await reader.cancel()
  const { sessions } = await model.memory()
  for (let i = 0; i < 5; i++) {
    const { stream: left } = await bimamba().doStream({
      prompt: [{ role: 'user', content: [{ type: 'text', text: `Go on ${i}` }] }],
    })
    const begun = left.getReader()
    for (let k = 0; k < 4; k++) await begun.read()
    await begun.cancel()
  }
  assert.equal((await model.memory()).sessions, sessions)
})

test('generateText gives an object of a schema', async () => {
  const schema = z.object({ name: z.string().max(12), age: z.int().min(0).max(99) })
  const { output } = await generateText({
    ...{ model: bimamba(), prompt: 'Who?', temperature: 1, seed: 5 },
    output: Output.object({ schema }),
  })
  schema.parse(output)
})

test('what cannot be done is warned about, or refused in words', async () => {
  const { warnings } = await bimamba().doGenerate({
    prompt: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }],
    maxOutputTokens: 2,
    tools: [{ type: 'function', name: 'f', inputSchema: {} }],
  })
  assert.deepEqual(warnings, [{ type: 'unsupported', feature: 'tools' }])
  assert.throws(() => bimamba('other'), /there is no model "other", only tales/)
  await assert.rejects(
    generateText({
      ...{ model: bimamba(), maxRetries: 0 },
      messages: [
        { role: 'user', content: [{ type: 'image', image: new Uint8Array([137, 80, 78, 71]) }] },
      ],
    }),
    /a message has a part of type file, only text can be read/,
  )
  await assert.rejects(
    generateText({ model: bimamba(), prompt: 'x', maxRetries: 0, temperature: 500 }),
    /temperature is 500/,
  )
})
