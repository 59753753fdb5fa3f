/**
 * The pace of the work: an abort is seen soon, with a slow model and with a quick one, and how a prompt is cut changes nothing.
 *
 * The slow model is a real one whose every layer waits as a large one would.
 */

import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { Core } from '../../js/core.js'
import { evaluate, generate, newStats } from '../../js/generate.js'
import { checkGenerate } from '../../js/settings.js'
import { Timeline } from '../../js/timeline.js'
import { openPacked } from './support/packed-engine.js'
import { tinyModel } from './support/tiny-model.js'

/** @typedef {import('../../js/core-session.js').CoreSession} CoreSession */

const SETTINGS = checkGenerate({ maxTokens: 8, temperature: 0.9, topK: 0, topP: 1, seed: 3 }, 300)
const PROMPT = Array.from({ length: 400 }, (_, i) => (i * 31) % 300)

/** @type {import('../../js/core-model.js').CoreModel} */
let model
before(async () => {
  model = (await openPacked(await Core.create(), await tinyModel())).model
})

/**
 * @param {number} msPerToken
 * @returns {{ session: CoreSession, chunks: number[] }} chunks: the lengths of its appends
 */
function slowSession(msPerToken) {
  const session = model.createSession()
  const append = session.append.bind(session)
  const appendByLayers = session.appendByLayers.bind(session)
  /** @type {number[]} */
  const chunks = []
  const wait = (/** @type {number} */ ms) => {
    const end = performance.now() + ms
    while (performance.now() < end);
  }
  session.append = (/** @type {ArrayLike<number>} */ ids) => {
    append(ids)
    wait(msPerToken * ids.length)
    chunks.push(ids.length)
  }
  session.appendByLayers = function* (/** @type {ArrayLike<number>} */ ids) {
    chunks.push(ids.length)
    for (const _ of appendByLayers(ids)) {
      wait((msPerToken * ids.length) / model.config.n_layer)
      yield
    }
  }
  return { session, chunks }
}

/** @param {CoreSession} session @returns {Timeline} that is to read the prompt */
function timelineOf(session) {
  const timeline = new Timeline(session, { seed: 0, checkpointBytes: 0 })
  timeline.restart(PROMPT)
  return timeline
}

/**
 * @param {CoreSession} session
 * @param {AbortSignal} [signal]
 * @param {{ maxTokens?: number, onPiece?: (tokens: number) => void }} [options]
 */
async function generated(session, signal, { maxTokens = SETTINGS.maxTokens, onPiece } = {}) {
  const stats = newStats(3)
  const settings = { ...SETTINGS, maxTokens }
  const lanes = [{ timeline: timelineOf(session), settings, format: null, stats }]
  const job = { model, lanes, eosIds: [], table: null, isLast: true }
  const ids = []
  for await (const { id } of generate(signal ? { ...job, signal } : job)) {
    onPiece?.(ids.push(id))
  }
  return ids
}

/** @param {CoreSession} session @param {AbortSignal} [signal] */
async function scored(session, signal) {
  const job = { timeline: timelineOf(session), vocabSize: session.vocabSize, logits: false }
  const logprobs = []
  for await (const batch of evaluate(signal ? { ...job, signal } : job)) {
    for (const { logprob } of batch) logprobs.push(logprob)
  }
  return logprobs
}

for (const [name, run] of Object.entries({ generated, scored })) {
  test(`${name}: an abort in a slow prompt is seen within a layer of 16 tokens`, async () => {
    const { session, chunks } = slowSession(20)
    const controller = new AbortController()
    setTimeout(() => controller.abort(), 200)
    const began = performance.now()
    await assert.rejects(run(session, controller.signal), { name: 'AbortError' })
    // A layer takes 160 ms, a chunk 320; the whole prompt would take 8000.
    assert(performance.now() - began < 900, `${performance.now() - began} ms`)
    assert(
      chunks.every((length) => length === 16),
      chunks.join(),
    )
  })

  test(`${name}: a quick prompt is taken in chunks as large as they come, with the same result`, async () => {
    const quick = slowSession(0)
    const middling = slowSession(2.5)
    const want = await run(quick.session)
    assert.deepEqual(await run(middling.session), want)
    assert.equal(Math.max(...quick.chunks), 64)
    const most = Math.max(...middling.chunks)
    assert(most >= 16 && most <= 48, `${middling.chunks.join()}`)
  })
}

test('an abort arrives though the consumer, in the same thread, pulls without a pause', async () => {
  const { session } = slowSession(0.1)
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 100)
  const began = performance.now()
  await assert.rejects(generated(session, controller.signal, { maxTokens: 20000 }), {
    name: 'AbortError',
  })
  assert(performance.now() - began < 1000, `${performance.now() - began} ms`)
})

test('an abort between two tokens is seen before the next one is computed', async () => {
  const { session, chunks } = slowSession(0)
  const controller = new AbortController()
  let atAbort = 0
  const onPiece = (/** @type {number} */ tokens) => {
    if (tokens !== 3) return
    atAbort = chunks.length
    controller.abort()
  }
  await assert.rejects(generated(session, controller.signal, { onPiece }), { name: 'AbortError' })
  assert(atAbort > 0)
  assert.equal(chunks.length, atAbort)
})
