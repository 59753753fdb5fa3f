/**
 * Prompts that are read while the model arrives: the same text as ever, from every kind of source and with any number of threads.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import { startFaultServer } from './support/fault-server.js'
import { MODEL_FILE } from './support/model-file.js'
import { tinyModel } from './support/tiny-model.js'

const PROMPT = 'Once upon a time there was a little fox who lived in the woods and'
const OPTIONS = { maxTokens: 30, seed: 5 }

/** @type {Awaited<ReturnType<typeof startFaultServer>>} */
let server
let text = ''

before(async () => {
  server = await startFaultServer(await readFile(MODEL_FILE))
  const model = await BiMamba.load(MODEL_FILE)
  text = await continued(model, PROMPT)
  await model.close()
})
after(() => server.close())

/** @param {BiMamba} model @param {string | ArrayLike<number>} prompt */
async function continued(model, prompt) {
  let all = ''
  for await (const piece of model.generate(prompt, OPTIONS)) all += piece
  return all
}

test('the same text, with any number of threads, from a file and from a slow server', async () => {
  for (const threads of [1, 2, 3]) {
    for (const inline of [true, false]) {
      for (const source of [MODEL_FILE, server.url('slow', { rate: 4e6 })]) {
        const options = /** @type {const} */ ({ threads, inline, cache: 'off', prompt: PROMPT })
        let wait = Number.POSITIVE_INFINITY
        // A busy machine may hold one of them up.
        for (let tries = 0; tries < 3 && wait >= 5; tries++) {
          const model = await BiMamba.load(source, options)
          assert.equal(await continued(model, PROMPT), text, `${threads} threads, ${source}`)
          const { promptTokens = 0, prefillMs = 1e9 } = model.lastStats ?? {}
          assert.ok(promptTokens > 10, `${promptTokens} tokens`)
          wait = prefillMs
          assert.equal(await continued(model, PROMPT), text, 'it is read anew for a second text')
          await model.close()
        }
        assert.ok(wait < 5, `it is read in ${wait} ms when the model is there`)
      }
    }
  }
})

test('ids, a longer prompt, another prompt, and what comes in between', async () => {
  const plain = await BiMamba.load(MODEL_FILE)
  const ids = await plain.tokenize(PROMPT, { bos: true })
  const load = async () => {
    const model = await BiMamba.load(MODEL_FILE, { prompt: ids })
    return model
  }
  const longer = [...ids, 300, 301, 302]
  const cases = [
    { prompt: ids, wanted: text },
    { prompt: longer, wanted: await continued(plain, longer) },
    { prompt: 'The fox', wanted: await continued(plain, 'The fox') },
    { prompt: ids.subarray(0, 4), wanted: await continued(plain, ids.subarray(0, 4)) },
  ]
  for (const { prompt, wanted } of cases) {
    const model = await load()
    assert.equal(await continued(model, prompt), wanted)
    await model.close()
  }
  const scored = await load()
  assert.deepEqual(await scored.score(longer), await plain.score(longer))
  assert.equal(await continued(scored, ids), text)
  await scored.close()
  await plain.close()
})

test('a prompt of thousands of tokens, longer than any chunk', async () => {
  const ids = Array.from({ length: 5000 }, (_, i) => 3 + (i % 3000))
  const plain = await BiMamba.load(MODEL_FILE)
  const wanted = await continued(plain, ids)
  await plain.close()
  const model = await BiMamba.load(MODEL_FILE, { prompt: ids })
  assert.equal(await continued(model, ids), wanted)
  await model.close()
})

test('a prompt that cannot be read ends the load with its own error', async () => {
  for (const inline of [true, false]) {
    await assert.rejects(BiMamba.load(MODEL_FILE, { inline, prompt: [1, 99999] }), {
      code: 'argument',
      message: /prompt\[1\] is 99999/,
    })
    await assert.rejects(BiMamba.load(MODEL_FILE, { inline, prompt: [] }).then(close), undefined)
    const silent = await tinyModel({ tokenizer: null })
    await assert.rejects(BiMamba.load(silent, { inline, prompt: 'text' }), { code: 'tokenizer' })
    // @ts-expect-error: not a prompt
    await assert.rejects(BiMamba.load(MODEL_FILE, { inline, prompt: 5 }), { code: 'argument' })
  }
})

/** @param {BiMamba} model */
async function close(model) {
  await model.close()
  // An empty prompt is BOS where the file has one.
  throw new Error('closed')
}

test('an abort in the middle of the reading ends it', async () => {
  for (const inline of [true, false]) {
    const signal = AbortSignal.timeout(300)
    const ids = new Uint32Array(200000).fill(7)
    const began = performance.now()
    await assert.rejects(BiMamba.load(MODEL_FILE, { inline, prompt: ids, signal }), {
      name: 'TimeoutError',
    })
    assert.ok(performance.now() - began < 2000, `${performance.now() - began} ms`)
  }
})
