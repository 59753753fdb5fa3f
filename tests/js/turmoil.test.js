/**
 * A model under random use: pulls, returns, aborts, second jobs and closing, in any order and not awaited.
 *
 * Nothing may hang, nothing may be thrown but errors of the package and the reasons of aborts, and a model
 * that was not closed must give the known text afterwards. A failure names its seed (BIMAMBA_SEED).
 */

import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { BiMamba, BmError } from '../../js/index.js'
import { seeded } from './support/seeded.js'
import { tinyModel } from './support/tiny-model.js'

/** @typedef {AsyncGenerator<unknown, unknown, void>} Stream */

const SEED = Number(process.env.BIMAMBA_SEED ?? Date.now() % 1000000)
const ROUNDS = 60
const REASON = new Error('enough')
const KNOWN = { seed: 3, maxTokens: 20 }
const CODES = ['busy', 'closed']

let path = ''
let known = ''
before(async () => {
  path = await tinyModel()
  const model = await BiMamba.load(path, { inline: true })
  known = await join(model)
  await model.close()
})

/** @param {BiMamba} model */
async function join(model) {
  let text = ''
  for await (const piece of model.generate('once', KNOWN)) text += piece
  return text
}

/** @param {BiMamba} model @param {ReturnType<typeof seeded>} random @param {AbortSignal} signal @returns {Stream} */
function start(model, random, signal) {
  const options = { signal, seed: random.below(1000), maxTokens: 1 + random.below(100) }
  const ids = Array.from({ length: 1 + random.below(2000) }, () => random.below(300))
  switch (random.below(3)) {
    case 0:
      return model.generate(random.below(2) ? 'once upon' : ids, { ...options, stop: ['e', 'qu'] })
    case 1:
      return model.generateIds(ids, options)
    default:
      return model.evaluate(ids, { signal, logits: random.below(2) === 0 })
  }
}

/**
 * @param {BiMamba} model
 * @param {ReturnType<typeof seeded>} random
 * @param {boolean} mayClose
 */
async function round(model, random, mayClose) {
  /** @type {Promise<unknown>[]} */
  const pending = []
  const later = (/** @type {Promise<unknown>} */ promise) => pending.push(promise.catch(expected))
  /** @type {{ stream: Stream, controller: AbortController }[]} */
  const jobs = []
  for (let i = 3 + random.below(20); i > 0; i--) {
    const job = jobs[random.below(jobs.length + 1)]
    const action = random.below(mayClose ? 21 : 20)
    if (action === 20) later(model.close())
    else if (action >= 18) await new Promise((resolve) => setTimeout(resolve, random.below(4)))
    else if (action >= 16) later(model.tokenize('once upon a time '.repeat(random.below(999))))
    else if (!job) {
      const controller = new AbortController()
      jobs.push({ stream: start(model, random, controller.signal), controller })
    } else if (action === 0) job.controller.abort(REASON)
    else if (action <= 2) later(job.stream.return(undefined))
    else if (action <= 8) later(job.stream.next())
    else await job.stream.next().catch(expected)
  }
  for (const { stream } of jobs) later(stream.return(undefined))
  await Promise.all(pending)
}

/** @param {unknown} error */
function expected(error) {
  if (error === REASON) return
  if (!(error instanceof BmError) || !CODES.includes(error.code)) throw error
}

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'worker'}, seed ${SEED}`, { timeout: 60000 }, async () => {
    const random = seeded(SEED)
    const model = await BiMamba.load(path, { inline })
    for (let i = 0; i < ROUNDS; i++) {
      await round(model, random, false)
      assert.equal(await join(model), known, `round ${i}`)
    }
    await model.close()
    for (let i = 0; i < 10; i++) {
      const brief = await BiMamba.load(path, { inline })
      await round(brief, random, true)
      await brief.close()
      await assert.rejects(brief.tokenize('a'), { code: 'closed' })
    }
  })
}
