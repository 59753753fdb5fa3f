/**
 * `model.loglikelihood` against single steps and against the log-probabilities of whole texts.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import { steppedLoglikelihood } from './support/eval-reference.js'
import { MODEL_FILE } from './support/model-file.js'

/** Room for the softmax of float32 logits; the logits themselves are the same to the bit. */
const TOLERANCE = 1e-4

/** @type {BiMamba} */
let model
before(async () => {
  model = await BiMamba.load(MODEL_FILE, { inline: true, threads: 1 })
})
after(() => model.close())

test('is the sum that single steps give, whatever ends the context', async () => {
  for (const context of ['Once upon a time', 'Once upon a time ', 'Once upon a time \n', 'a']) {
    const continuations = [' there was a fox', ' there', '.']
    const scores = await model.loglikelihood(context, continuations)
    for (const [i, { logprob, tokens }] of scores.entries()) {
      const want = await steppedLoglikelihood(model, context, continuations[i] ?? '')
      assert(Math.abs(logprob - want) < TOLERANCE, `${context}: ${logprob}, want ${want}`)
      assert(tokens >= 1)
    }
  }
  assert.deepEqual(await model.loglikelihood('a', []), [])
  assert.equal((await model.memory()).sessions, 0, 'nothing stays')
})

test('a window drops the beginning of the context', async () => {
  const [context, continuation] = ['A fox lived in the wood. Once upon a time', ' there was']
  const ids = await model.tokenize(context + continuation)
  const [{ tokens = 0 } = {}] = await model.loglikelihood(context, [continuation])
  for (const window of [tokens, tokens + 1, tokens + 3, ids.length - 1, ids.length]) {
    const kept = ids.slice(-(window + 1))
    const logprobs = (await model.score(kept)).slice(-tokens).map(Number)
    const want = logprobs.reduce((sum, logprob) => sum + logprob, 0)
    const [{ logprob = 0 } = {}] = await model.loglikelihood(context, [continuation], { window })
    assert(Math.abs(logprob - want) < 1e-9, `window ${window}: ${logprob}, want ${want}`)
  }
  const mixed = await model.loglikelihood(context, [' there', continuation, ' there'], {
    window: 3,
  })
  const [alone] = await model.loglikelihood(context, [' there'], { window: 3 })
  assert.deepEqual([mixed[0], mixed[2]], [alone, alone])
  await assert.rejects(model.loglikelihood(context, [continuation], { window: tokens - 1 }), {
    code: 'argument',
    message: /has \d+ tokens, want at most the window's \d+/,
  })
})

test('refuses what it cannot score', async () => {
  const wrong = /** @type {(...args: unknown[]) => Promise<unknown>} */ (
    model.loglikelihood.bind(model)
  )
  const cases = /** @type {const} */ ([
    [[5, []], /want a string and an array of strings/],
    [['a', 'b'], /want a string and an array of strings/],
    [['a', ['b', 5]], /want a string and an array of strings/],
    [[' ', ['b']], /the context has no tokens/],
    [['', ['b']], /the context has no tokens/],
    [['Once upon a time', ['s']], /continuations\[0\] is "s", which has no tokens/],
    [['a', [' b', '']], /continuations\[1\] is "", which has no tokens/],
    [['a', [], { window: 0 }], /window is 0, want an integer from 1/],
    [['a', [], { windows: 1 }], /unknown option 'windows', did you mean 'window'/],
  ])
  for (const [args, message] of cases) {
    await assert.rejects(wrong(...args), { code: 'argument', message })
  }
  const reason = new Error('enough')
  const signal = AbortSignal.abort(reason)
  await assert.rejects(model.loglikelihood('a', ['b'], { signal }), reason)
  assert.equal((await model.memory()).sessions, 0, 'nothing stays')
})
