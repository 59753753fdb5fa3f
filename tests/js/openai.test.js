/**
 * `bimamba/openai` and `bimamba serve` as clients see them: the real `openai` package drives the server, and what it gets is what the core says.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import OpenAI from 'openai'
import { BiMamba } from '../../js/index.js'
import { createOpenAI, OpenAIError } from '../../js/openai/index.js'
import { serveModels } from '../../js/serve/server.js'
import { collect } from './support/collect.js'

const TALES = new URL('../../models/tales/tales.safetensors', import.meta.url)
const PROMPT = 'Once upon a time there was a “fox”'

/** @type {BiMamba} */
let model
/** @type {ReturnType<typeof createOpenAI>} */
let inProcess
/** @type {Awaited<ReturnType<typeof serveModels>>} */
let server
/** @type {OpenAI} */
let client

before(async () => {
  model = await BiMamba.load(TALES)
  inProcess = createOpenAI({ tales: model })
  server = await serveModels({ tales: model })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 })
})

after(async () => {
  await server?.close()
  await inProcess?.close()
  await model?.close()
})

/** What the core itself writes. @param {string} prompt @param {import('../../js/index.js').SessionGenerateOptions} options */
async function written(prompt, options) {
  const session = await model.createSession()
  await session.append(prompt)
  const start = (await session.text()).length
  await collect(session.generate({ topK: 0, topP: 1, temperature: 1, ...options }))
  const text = (await session.text()).slice(start)
  const { lastStats } = session
  await session.close()
  return { text, stats: lastStats }
}

test('models are listed and found by name', async () => {
  const list = await client.models.list()
  assert.deepEqual(
    list.data.map(({ id }) => id),
    ['tales'],
  )
  assert.equal((await client.models.retrieve('tales')).object, 'model')
  await assert.rejects(client.models.retrieve('gpt-4'), { status: 404, code: 'model_not_found' })
  assert.deepEqual(await inProcess.models.list().then(({ object }) => object), 'list')
})

test('a completion is what the core writes, whole and in pieces', async () => {
  const body = { model: 'tales', prompt: PROMPT, max_tokens: 40, seed: 9, temperature: 0.7 }
  const { text, stats } = await written(PROMPT, { maxTokens: 40, seed: 9, temperature: 0.7 })
  const whole = await client.completions.create(body)
  assert.equal(whole.object, 'text_completion')
  assert.match(whole.id, /^cmpl-[0-9a-f]{32}$/)
  assert.equal(whole.choices[0]?.text, text)
  assert.equal(whole.choices[0]?.finish_reason, 'length')
  const prompt_tokens = Number(stats?.promptTokens)
  assert.deepEqual(whole.usage, {
    prompt_tokens,
    completion_tokens: 40,
    total_tokens: prompt_tokens + 40,
  })
  const options = { stream: /** @type {const} */ (true), stream_options: { include_usage: true } }
  const chunks = await collect(await client.completions.create({ ...body, ...options }))
  assert.equal(chunks.map(({ choices: [choice] }) => choice?.text ?? '').join(''), text)
  assert.ok(chunks.length >= 40)
  assert.equal(new Set(chunks.map(({ id }) => id)).size, 1)
  assert.deepEqual(chunks.at(-1)?.usage, whole.usage)
  assert.equal(chunks.at(-2)?.choices[0]?.finish_reason, 'length')
  // In this process it is the same.
  const here = Object(await inProcess.completions.create(body))
  assert.deepEqual(here.choices, whole.choices)
})

test('choices of a chat: those of as many requests with the seeds that follow, the messages read once', async () => {
  const chat = {
    ...{ model: 'tales', max_tokens: 30, temperature: 0.9 },
    messages: [{ role: /** @type {const} */ ('user'), content: 'Tell me about the fox.' }],
  }
  const { choices, usage } = await client.chat.completions.create({ ...chat, n: 3, seed: 7 })
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2],
  )
  let tokens = 0
  for (const [i, { message }] of choices.entries()) {
    const alone = await client.chat.completions.create({ ...chat, seed: 7 + i })
    assert.equal(message.content, alone.choices[0]?.message.content)
    assert.equal(usage?.prompt_tokens, alone.usage?.prompt_tokens)
    tokens += Number(alone.usage?.completion_tokens)
  }
  assert.equal(usage?.completion_tokens, tokens)
})

test('several prompts, as texts and ids, with several choices: each with a seed of its own', async () => {
  const ids = [...(await model.tokenize(PROMPT, { bos: true }))]
  const { choices } = await client.completions.create({
    ...{ model: 'tales', prompt: /** @type {never} */ ([PROMPT, 'The king']), n: 2 },
    ...{ max_tokens: 12, seed: 4 },
  })
  assert.deepEqual(
    choices.map(({ index }) => index),
    [0, 1, 2, 3],
  )
  for (const [i, { text }] of choices.entries()) {
    const prompt = i < 2 ? PROMPT : 'The king'
    assert.equal(
      text,
      (await written(prompt, { maxTokens: 12, seed: 4 + (i % 2) })).text,
      `choice ${i}`,
    )
  }
  const { choices: byIds } = await client.completions.create({
    ...{ model: 'tales', prompt: ids, max_tokens: 12, seed: 4 },
  })
  assert.equal(byIds[0]?.text, choices[0]?.text)
})

test('stop strings and an ending of the model end with `stop`', async () => {
  const greedy = { model: 'tales', prompt: 'Once upon a time', temperature: 0 }
  const { choices } = await client.completions.create({ ...greedy, max_tokens: 400 })
  const text = String(choices[0]?.text)
  const stopped = await client.completions.create({ ...greedy, max_tokens: 400, stop: ['.'] })
  assert.equal(stopped.choices[0]?.finish_reason, 'stop')
  assert.equal(stopped.choices[0]?.text, text.slice(0, text.indexOf('.')))
  const ended = await client.completions.create({
    ...greedy,
    max_tokens: 3000,
    temperature: 0.6,
    seed: 3,
  })
  assert.equal(ended.choices[0]?.finish_reason, 'stop')
})

test('echo and logprobs are those of the core', async () => {
  const { choices } = await client.completions.create({
    ...{ model: 'tales', prompt: PROMPT, echo: true, logprobs: 3 },
    ...{ max_tokens: 5, temperature: 0 },
  })
  const [{ text, logprobs }] = /** @type {[OpenAI.CompletionChoice]} */ (choices)
  assert.ok(text.startsWith(PROMPT))
  const session = await model.createSession()
  await session.append(PROMPT)
  await collect(session.generate({ maxTokens: 5, temperature: 0 }))
  const ids = await session.ids()
  const scored = await model.score(ids)
  const { tokens = [], token_logprobs = [], top_logprobs = [], text_offset = [] } = logprobs ?? {}
  assert.equal(tokens.length, ids.length)
  assert.deepEqual(token_logprobs.slice(1), scored.slice(1))
  assert.equal(token_logprobs[0], null)
  for (const [i, top] of top_logprobs.entries()) {
    if (i === 0) continue
    const values = Object.values(top)
    assert.ok(values.length >= 3 && values.length <= 4, JSON.stringify(top))
    assert.ok(values.includes(Number(token_logprobs[i])))
  }
  // The generated ones were the likeliest, and so they are called.
  for (const i of [-1, -2, -3, -4, -5])
    assert.equal(token_logprobs.at(i), Math.max(...Object.values(Object(top_logprobs.at(i)))))
  // Offsets lead to the tokens; those of one character in pieces are called by their bytes.
  const place = tokens.indexOf(' there')
  assert.ok(text.slice(text_offset[place]).startsWith(' there'))
  assert.ok(
    tokens.some((name) => name.startsWith('bytes:\\x')),
    JSON.stringify(tokens),
  )
  await session.close()
})

test('the token that ends a text is told with logprobs: who cuts the last one off cuts no other', async () => {
  const ids = [...(await model.tokenize('Once upon a time', { bos: true }))]
  const session = await model.createSession()
  await session.append(ids)
  await collect(session.generate({ maxTokens: 3000, temperature: 0.6, seed: 3, topK: 0, topP: 1 }))
  assert.equal(session.lastStats?.finishReason, 'eos')
  const whole = [...(await session.ids())]
  await session.close()
  const [end = 0] = model.info.eosIds
  const bias = { [end]: 100 } // the last token is sure to be the end
  for (const prompt of [whole, whole.slice(0, -3)]) {
    const { choices } = await client.completions.create({
      ...{ model: 'tales', prompt, echo: true, logprobs: 1, max_tokens: 1, temperature: 0 },
      logit_bias: bias,
    })
    assert.equal(choices[0]?.finish_reason, 'stop')
    assert.equal(choices[0]?.logprobs?.tokens?.length, prompt.length + 1)
    assert.equal(typeof choices[0]?.logprobs?.token_logprobs?.at(-1), 'number')
  }
  // Also where that is all.
  const { choices } = await client.completions.create({
    ...{ model: 'tales', prompt: 'Once', logprobs: 1, max_tokens: 1, logit_bias: bias },
  })
  assert.equal(choices[0]?.text, '')
  assert.equal(choices[0]?.logprobs?.tokens?.length, 1)
})

test('choices without a seed differ; any integer is a seed', async () => {
  const body = { model: 'tales', prompt: 'Once upon a time', max_tokens: 30 }
  const { choices } = await client.completions.create({ ...body, n: 4 })
  assert.equal(new Set(choices.map(({ text }) => text)).size, 4)
  const again = await client.completions.create(body)
  assert.notEqual(again.choices[0]?.text, choices[0]?.text)
  for (const seed of [-1, Number.MAX_SAFE_INTEGER]) {
    const texts = await Promise.all(
      [0, 1].map(() => client.completions.create({ ...body, seed, n: 2 })),
    )
    assert.deepEqual(texts[0]?.choices, texts[1]?.choices)
  }
})

test('loops that are left free their sessions', async () => {
  const own = createOpenAI({ tales: model }, { keptSessions: 0 })
  const { sessions: before } = await model.memory()
  for (let i = 0; i < 5; i++) {
    const options = { max_tokens: 500, stream: true }
    for await (const _ of await own.chat.completions.create({ messages: MESSAGES, ...options }))
      break
    for await (const _ of await own.completions.create({ prompt: 'A', n: 2, ...options })) break
  }
  assert.equal((await model.memory()).sessions, before)
  await own.close()
})

test('echo without a token to generate only scores', async () => {
  const { choices, usage } = await client.completions.create({
    ...{ model: 'tales', prompt: PROMPT, echo: true, logprobs: 0, max_tokens: 0 },
  })
  assert.equal(choices[0]?.text, PROMPT)
  assert.equal(usage?.completion_tokens, 0)
})

/**
 * What lm-evaluation-harness's model `local-completions` sends and how it reads the answer (lm_eval/models/openai_completions.py, version 0.4): token ids with
 * `echo`, of which the context's are left out, and the one that was generated.
 */
test('lm-evaluation-harness gets log-likelihoods and whether they are greedy', async () => {
  const context = [...(await model.tokenize('Once upon a time, there was a', { bos: true }))]
  const greedy = await collect(model.generateIds(context, { maxTokens: 3, temperature: 0 }))
  const continuations = [greedy, [...(await model.tokenize(' house of stone'))]]
  const prompt = continuations.map((ids) => [...context, ...ids])
  const fields = { temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true }
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: 'Bearer EMPTY' },
    body: JSON.stringify({ model: 'tales', prompt, ...fields }),
  })
  const { choices } = /** @type {OpenAI.Completion} */ (await response.json())
  const session = await model.createSession()
  await session.append(context)
  for (const [i, { logprobs }] of choices.entries()) {
    const own = logprobs?.token_logprobs?.slice(context.length, -1) ?? []
    const top = logprobs?.top_logprobs?.slice(context.length, -1) ?? []
    const isGreedy = own.every(
      (logprob, k) => logprob === Math.max(...Object.values(Object(top[k]))),
    )
    const scored = await session.score(/** @type {number[]} */ (continuations[i]))
    assert.deepEqual(
      own,
      scored.map(({ logprob }) => logprob),
    )
    assert.equal(isGreedy, i === 0)
  }
  await session.close()
  // And for tasks that generate:
  const { text } = await written('Once upon a time', { maxTokens: 256, temperature: 0 })
  const generated = await client.completions.create({
    ...{ model: 'tales', prompt: /** @type {never} */ (['Once upon a time']), max_tokens: 256 },
    ...{ temperature: 0, stop: ['.', '</s>'], seed: 1234 },
  })
  assert.equal(generated.choices[0]?.text, text.slice(0, text.indexOf('.')))
})

/** @type {OpenAI.ChatCompletionMessageParam[]} */
const MESSAGES = [
  { role: 'system', content: 'You tell stories.' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'Tell me about ' },
      { type: 'text', text: 'a fox.' },
    ],
  },
]

test('a chat is what a session says, whole and in pieces, and goes on from where it was', async () => {
  const session = await model.createSession()
  await session.say([{ role: 'system', content: 'You tell stories.' }])
  const options = { maxTokens: 20, seed: 2, topK: 0, topP: 1, temperature: 1 }
  const reply = (await collect(session.chat('Tell me about a fox.', options))).join('')
  const body = { model: 'tales', max_tokens: 20, seed: 2 }
  const whole = await client.chat.completions.create({ ...body, messages: MESSAGES })
  assert.deepEqual(whole.choices[0]?.message, { role: 'assistant', content: reply, refusal: null })
  assert.equal(whole.object, 'chat.completion')
  const stream = await client.chat.completions.create({ ...body, messages: MESSAGES, stream: true })
  const chunks = await collect(stream)
  assert.equal(chunks.map(({ choices: [choice] }) => choice?.delta.content ?? '').join(''), reply)
  assert.equal(chunks[0]?.choices[0]?.delta.role, 'assistant')
  // The next turn: the same whether the server remembers the chat or not.
  /** @type {OpenAI.ChatCompletionMessageParam[]} */
  const next = [
    ...MESSAGES,
    { role: 'assistant', content: reply },
    { role: 'user', content: 'And then?' },
  ]
  const again = (await collect(session.chat('And then?', { ...options, seed: 3 })))
    .join('')
    .trimStart()
  const forgetful = createOpenAI({ tales: model }, { keptSessions: 0 })
  for (const one of [client, inProcess, forgetful]) {
    const create = /** @type {OpenAI['chat']['completions']['create']} */ (
      one.chat.completions.create.bind(one.chat.completions)
    )
    const { choices } = await create({ ...body, seed: 3, messages: next })
    assert.equal(choices[0]?.message.content, again)
  }
  await forgetful.close()
  await session.close()
})

test('a chat tells of tokens and of others in their place', async () => {
  const { choices } = await client.chat.completions.create({
    ...{ model: 'tales', messages: MESSAGES, max_tokens: 6, temperature: 0 },
    ...{ logprobs: true, top_logprobs: 2 },
  })
  const told = choices[0]?.logprobs?.content ?? []
  assert.equal(told.length, 6)
  for (const { token, bytes, logprob, top_logprobs } of told) {
    assert.equal(Buffer.from(bytes ?? []).toString(), token)
    assert.equal(top_logprobs.length, 2)
    assert.equal(logprob, top_logprobs[0]?.logprob)
  }
})

test('a reply is JSON, by a schema or any; and a text of a grammar', async () => {
  const schema = {
    ...{ type: 'object', required: ['name', 'tags'], additionalProperties: false },
    properties: {
      name: { enum: ['fox', 'dog'] },
      tags: { type: 'array', items: { type: 'integer' }, maxItems: 3 },
    },
  }
  const { choices } = await client.chat.completions.create({
    ...{ model: 'tales', messages: MESSAGES, seed: 1 },
    stop: [], // as many clients send it
    response_format: { type: 'json_schema', json_schema: { name: 'animal', schema, strict: true } },
  })
  const animal = JSON.parse(String(choices[0]?.message.content))
  assert.ok(
    ['fox', 'dog'].includes(animal.name) && Array.isArray(animal.tags),
    JSON.stringify(animal),
  )
  assert.equal(choices[0]?.finish_reason, 'stop')
  const text = await client.completions.create(
    /** @type {never} */ ({ model: 'tales', prompt: 'Is it? ', grammar: 'root ::= "yes" | "no"' }),
  )
  assert.match(String(text.choices[0]?.text), /^(yes|no)$/)
  const wrong = { type: 'json_schema', json_schema: { name: 'x' } }
  await assert.rejects(
    client.chat.completions.create({
      model: 'tales',
      messages: MESSAGES,
      response_format: /** @type {never} */ (wrong),
    }),
    { status: 400, message: /response_format.json_schema is .*, want an object with a schema/ },
  )
})

test('the `openai` package\u2019s own stream helper and abort', async () => {
  const runner = client.chat.completions.stream({
    model: 'tales',
    messages: MESSAGES,
    max_tokens: 8,
  })
  const final = await runner.finalChatCompletion()
  assert.ok(String(final.choices[0]?.message.content).length > 0)
  const stream = await client.completions.create({
    ...{ model: 'tales', prompt: PROMPT, max_tokens: 1000000, stream: true },
  })
  let count = 0
  for await (const _ of stream) if (++count === 5) break
  // The engine is free again.
  const { choices } = await client.completions.create({
    model: 'tales',
    prompt: 'A',
    max_tokens: 1,
  })
  assert.equal(choices.length, 1)
})

test('what is wrong with a request is said, with the field', async () => {
  /** @type {[Record<string, unknown>, number, string | null, RegExp][]} */
  const cases = [
    [{ prompt: 5 }, 400, 'prompt', /prompt is 5, want a text/],
    [{ prompt: [1, 'a'] }, 400, 'prompt', /want a text, token ids/],
    [{ prompt: [99999999] }, 400, null, /99999999/],
    [{ prompt: [1.5] }, 400, 'prompt', /want a text, token ids/],
    [{ prompt: [-1] }, 400, 'prompt', /want a text, token ids/],
    [{ prompt: [4294967301] }, 400, 'prompt', /want a text, token ids/],
    [{ temperature: 'hot' }, 400, 'temperature', /temperature is "hot", want a number/],
    [{ max_tokens: 1.5 }, 400, 'max_tokens', /want an integer/],
    [{ n: 0 }, 400, 'n', /n is 0/],
    [{ stop: [''] }, 400, 'stop', /none of them empty/],
    [{ suffix: 'end' }, 400, 'suffix', /not supported/],
    [{ best_of: 3 }, 400, 'best_of', /want what n is/],
    [{ stream: 'yes' }, 400, 'stream', /want true or false/],
    [{ stream_options: 5 }, 400, 'stream_options', /want an object/],
    [{ logit_bias: { 5: 'much' } }, 400, 'logit_bias.5', /want a number from -100 to 100/],
    [{ logit_bias: { a: 1 } }, 400, 'logit_bias', /whose key "a" is no token id/],
    [{ logit_bias: 5 }, 400, 'logit_bias', /want an object/],
    [{ stop: 'x', guided_regex: 'a+' }, 400, 'stop', /a text of a given format/],
    [{ model: 'other' }, 404, 'model', /there is no model "other", only tales/],
  ]
  for (const [fields, status, param, message] of cases) {
    const body = { model: 'tales', prompt: 'x', max_tokens: 2, ...fields }
    await assert.rejects(
      client.completions.create(/** @type {OpenAI.CompletionCreateParams} */ (body)),
      (/** @type {InstanceType<typeof OpenAI.APIError>} */ error) => {
        assert.equal(error.status, status, error.message)
        assert.equal(error.param, param)
        assert.match(error.message, message)
        return true
      },
    )
    await assert.rejects(
      inProcess.completions.create(body),
      (error) =>
        error instanceof OpenAIError && error.status === status && message.test(error.message),
    )
  }
  /** @type {[unknown, RegExp][]} */
  const chats = [
    [[], /messages is \[\], want 1 to/],
    [[{ role: 'tool', content: 'x' }], /messages\[0\]\.role is "tool"/],
    [[{ role: 'user', content: [{ type: 'image_url' }] }], /only parts of type text/],
  ]
  for (const [messages, message] of chats)
    await assert.rejects(
      client.chat.completions.create({ model: 'tales', messages: /** @type {never} */ (messages) }),
      { status: 400, message },
    )
  const tools = [{ type: /** @type {const} */ ('function'), function: { name: 'f' } }]
  await assert.rejects(
    client.chat.completions.create({ model: 'tales', messages: MESSAGES, tools }),
    { status: 400, message: /tools is .* not supported/ },
  )
})

test('an abort in this process ends the work with its reason', async () => {
  const controller = new AbortController()
  const answer = await inProcess.completions.create(
    { prompt: PROMPT, max_tokens: 100000, stream: true },
    { signal: controller.signal },
  )
  await assert.rejects(
    async () => {
      let count = 0
      for await (const _ of answer) if (++count === 3) controller.abort(new Error('enough'))
    },
    { message: 'enough' },
  )
})
