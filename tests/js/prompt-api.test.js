/**
 * `bimamba/prompt-api`: what a page that was written for Chrome's `LanguageModel` does, done here.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { createLanguageModel } from '../../js/prompt-api/index.js'
import { collect } from './support/collect.js'

const NANO = fileURLToPath(
  new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url),
)

/** @type {BiMamba} */
let model
/** @type {ReturnType<typeof createLanguageModel>} */
let LanguageModel

before(async () => {
  model = await BiMamba.load(NANO)
  LanguageModel = createLanguageModel(model)
})
after(() => model?.close())

/** The same text each time. */
const GREEDY = { temperature: 0, topK: 1 }

test('a session prompts, streams, appends, and is cloned, as one of the package would', async () => {
  assert.equal(await LanguageModel.availability(), 'available')
  const initialPrompts = [{ role: /** @type {const} */ ('system'), content: 'You tell stories.' }]
  const one = await LanguageModel.create({ ...GREEDY, initialPrompts })
  const own = await model.createSession()
  await own.say(initialPrompts)
  assert.equal(one.inputUsage, own.position)
  assert.equal(one.inputQuota, Number.POSITIVE_INFINITY)
  const options = { ...GREEDY, maxTokens: 4096 }
  const said = (await collect(own.chat('A fox?', options))).join('')
  const copy = await one.clone()
  assert.equal(await one.prompt('A fox?'), said)
  assert.equal((await collect(copy.promptStreaming('A fox?'))).join(''), said)
  await one.append([
    { role: 'user', content: [{ type: 'text', value: 'And' }] },
    { role: 'assistant', content: 'Yes.' },
  ])
  await own.say([
    { role: 'user', content: 'And' },
    { role: 'assistant', content: 'Yes.' },
  ])
  assert.equal(one.inputUsage, own.position)
  // Two at once are done in order.
  const [first, second] = await Promise.all([one.prompt('Then?'), one.prompt('More?')])
  assert.equal(first, (await collect(own.chat('Then?', options))).join(''))
  assert.equal(second, (await collect(own.chat('More?', options))).join(''))
  assert.equal(await one.measureInputUsage('Then?'), await model.countTokens('Then?'))
  for (const session of [one, copy]) session.destroy()
  await own.close()
})

test('what was aborted was never asked', async () => {
  const session = await LanguageModel.create(GREEDY)
  await session.prompt('Hello')
  const usage = session.inputUsage
  const next = await (await session.clone()).prompt('Next')
  const controller = new AbortController()
  const stream = session.promptStreaming('A long story?', { signal: controller.signal })
  controller.abort() // before the end, however quick the model is
  await assert.rejects(collect(stream), { name: 'AbortError' })
  assert.equal(session.inputUsage, usage)
  await session.promptStreaming('Another one?').cancel()
  assert.equal(session.inputUsage, usage)
  assert.equal(await session.prompt('Next'), next)
  session.destroy()
  await assert.rejects(session.prompt('x'), { name: 'InvalidStateError' })
})

test('a stream that is read in part holds up nothing, and creating can be aborted', async () => {
  const { sessions: before, snapshots } = await model.memory()
  const session = await LanguageModel.create(GREEDY)
  const reader = session.promptStreaming('A story?').getReader()
  await reader.read()
  assert.ok((await session.prompt('Another?')).length > 0)
  session
    .promptStreaming('A third?')
    .getReader()
    .read()
    .catch(() => {})
  session.destroy()
  const controller = new AbortController()
  const initialPrompts = [
    { role: /** @type {const} */ ('user'), content: 'A fox ran. '.repeat(3000) },
  ]
  const creating = LanguageModel.create({ initialPrompts, signal: controller.signal })
  setTimeout(() => controller.abort(), 10)
  await assert.rejects(creating, { name: 'AbortError' })
  const wizard = [{ role: /** @type {'user'} */ ('wizard'), content: 'x' }]
  await assert.rejects(LanguageModel.create({ initialPrompts: wizard }), /wizard/)
  await new Promise((resolve) => setTimeout(resolve, 100))
  const after = await model.memory()
  assert.deepEqual([after.sessions, after.snapshots], [before, snapshots])
})

test('destroyed in the middle it ends with an AbortError, and frees what it had', async () => {
  const before = (await model.memory()).sessions
  const session = await LanguageModel.create({ temperature: 1, topK: 50 })
  const prompting = session.prompt('A story?')
  setTimeout(() => session.destroy(), 5)
  await assert.rejects(prompting, { name: 'AbortError' })
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal((await model.memory()).sessions, before)
})

test('who waits for a turn and is aborted, or creates and is aborted, is told at once', async (t) => {
  const session = await LanguageModel.create(GREEDY)
  const controller = new AbortController()
  let isFirstDone = false
  const first = session.prompt('A long story?').then(() => {
    isFirstDone = true
  })
  const second = session.prompt('And?', { signal: controller.signal })
  const third = session.prompt('Then?')
  controller.abort()
  await assert.rejects(second, { name: 'AbortError' })
  assert.equal(isFirstDone, false)
  await Promise.all([first, third])
  const other = await model.createSession()
  for (const said of ['A long story?', 'Then?'])
    await collect(other.chat(said, { ...GREEDY, maxTokens: 4096 }))
  assert.equal(session.inputUsage, other.position, 'the others are as if it had not been')
  session.destroy()
  await other.close()

  const lazy = createLanguageModel(NANO)
  t.after(lazy.close)
  const creating = lazy.create({ signal: AbortSignal.timeout(1) })
  await assert.rejects(creating, { name: 'TimeoutError' })
  assert.equal(await lazy.availability(), 'downloading')
  await lazy.close()
  assert.equal(await lazy.availability(), 'downloadable')
  ;(await lazy.create()).destroy()
})

test('errors of the package are DOMExceptions', async () => {
  const missing = createLanguageModel('http://127.0.0.1:1/x.safetensors', { retries: 0 })
  await assert.rejects(missing.create(), (error) => {
    assert.ok(error instanceof DOMException)
    assert.equal(error.name, 'NetworkError')
    assert.ok(Reflect.get(error, 'cause') instanceof Error)
    return true
  })
  const session = await LanguageModel.create()
  const schema = { type: 'nonsense' }
  await assert.rejects(session.prompt('x', { responseConstraint: schema }), {
    name: 'SyntaxError',
  })
  await assert.rejects(session.prompt('x', { responseConstraint: /a/i }), {
    name: 'NotSupportedError',
  })
  session.destroy()
})

test('a model by its place is loaded once, with progress', async (t) => {
  const lazy = createLanguageModel(NANO)
  t.after(lazy.close)
  /** @type {number[]} */
  const loaded = []
  const creating = Promise.all(
    [0, 1].map(() =>
      lazy.create({
        monitor: (events) =>
          events.addEventListener('downloadprogress', (event) =>
            loaded.push(Reflect.get(event, 'loaded')),
          ),
      }),
    ),
  )
  assert.equal(await lazy.availability(), 'downloading')
  const sessions = await creating
  assert.equal(await lazy.availability(), 'available')
  assert.equal(loaded.at(-1), 1)
  assert.ok(loaded.every((share) => share >= 0 && share <= 1))
  for (const session of sessions) session.destroy()
  const missing = createLanguageModel('/no/such/file.safetensors')
  await assert.rejects(missing.create(), /no such file/i)
  await assert.rejects(missing.create(), /no such file/i) // and it may be tried again
})

test('a reply keeps to a schema or an expression', async () => {
  const session = await LanguageModel.create({ temperature: 1, topK: 40 })
  const schema = {
    type: 'object',
    properties: { yes: { type: 'boolean' } },
    required: ['yes'],
    additionalProperties: false,
  }
  const reply = JSON.parse(await session.prompt('Is it so?', { responseConstraint: schema }))
  assert.equal(typeof reply.yes, 'boolean')
  assert.match(
    await session.prompt('And?', { responseConstraint: /(yes|no), [0-9]{2}/ }),
    /^(yes|no), [0-9]{2}$/,
  )
  await assert.rejects(
    session.prompt('x', { responseConstraint: { type: 'nonsense' } }),
    /nonsense/,
  )
  session.destroy()
})

test('what cannot be is refused as Chrome does', async () => {
  await assert.rejects(LanguageModel.create({ temperature: 1 }), TypeError)
  await assert.rejects(LanguageModel.create({ temperature: 9, topK: 3 }), RangeError)
  const session = await LanguageModel.create()
  await assert.rejects(session.prompt([{ role: 'user', content: [{ type: 'image', value: 1 }] }]), {
    name: 'NotSupportedError',
  })
  await assert.rejects(session.prompt([{ role: 'assistant', content: 'x', prefix: true }]), {
    name: 'NotSupportedError',
  })
  await assert.rejects(LanguageModel.create({ signal: AbortSignal.abort() }), {
    name: 'AbortError',
  })
  session.destroy()
})
