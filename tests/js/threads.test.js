/**
 * The engine with several threads: the same bits, whatever their number and whatever becomes of them.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import os from 'node:os'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Core } from '../../js/core.js'
import { CoreModel } from '../../js/core-model.js'
import { BiMamba } from '../../js/index.js'
import { sameBits } from './support/divergence.js'
import { logitsOfParts, openPacked } from './support/packed-engine.js'
import { seeded } from './support/seeded.js'
import { tinyModel } from './support/tiny-model.js'

const SEED = Number(process.env.BIMAMBA_SEED ?? Date.now() % 1000000)
const TOKENS = 90
/** Prefill by chunks of 64 and steps; tasks are cut for each differently. */
const PARTS = [64, 1, 1, 1, 17, 1, 1, 4]
const INDEX = fileURLToPath(new URL('../../js/index.js', import.meta.url))

/** Rows enough for the product of 16 tokens at once, heads and rows that no number of threads divides. */
const SHAPE = { n_layer: 2, d_model: 288, d_state: 24, headdim: 32, ngroups: 2, vocab_size: 777 }

/** Threads and kernel family; one thread and tables are what all are compared with. @type {[number, string][]} */
const TEAMS = [
  [1, 'table'],
  [2, 'table'],
  [3, 'table'],
  [8, 'table'],
  [3, 'popcount'],
]

/** @type {string} */
let path
before(async () => {
  // Without an EOS, which any seed may draw first.
  path = await tinyModel({ seed: SEED, tokenizer: null, config: SHAPE, bos: false })
})

describe(`bits, seed ${SEED}`, () => {
  const random = seeded(SEED)
  const tokens = Array.from({ length: TOKENS }, () => random.below(SHAPE.vocab_size))
  for (const precision of /** @type {const} */ (['fast', 'high', 'exact'])) {
    for (const state of /** @type {const} */ (['f32', 'i16'])) {
      test(`1, 2, 3 and 8 threads, ${precision}, state ${state}`, async () => {
        const plain = await openPacked(await Core.create(), path)
        const options = { precision, state, maxChunk: 64 }
        const want = logitsOfParts(plain.model.createSession(options), tokens, PARTS)
        for (const [threads, variant] of TEAMS) {
          const core = await Core.create({ shared: true })
          await core.startTeam(threads)
          const { model } = await openPacked(core, path, { variant })
          const session = model.createSession(options)
          // More than once: the team tries other sizes as it goes.
          for (let round = 0; round < 3; round++) {
            const got = logitsOfParts(session, tokens, PARTS)
            assert(
              got.every((row, t) => sameBits(row, /** @type {Float32Array} */ (want[t]))),
              `${threads} threads, ${variant}, round ${round}`,
            )
          }
          model.close()
          core.close()
        }
      })
    }
  }
})

test('every thread takes part, and the team finds its size', async () => {
  const core = await Core.create({ shared: true })
  await core.startTeam(4)
  const { model } = await openPacked(core, path)
  const session = model.createSession()
  // On a busy machine one may come late.
  for (let i = 0; i < 200 || (i < 20000 && core.call('threads_joined') < 3); i++)
    session.append([i % 60])
  assert.equal(core.call('threads_joined'), 3)
  assert(core.threads >= 1 && core.threads <= 4)
  model.close()
  core.close()
})

test('a build without shared memory has no team, and says so', async () => {
  const core = await Core.create()
  assert.equal(core.isShared, false)
  assert.equal(core.threads, 1)
  await core.startTeam(1)
  await assert.rejects(core.startTeam(2), { name: 'BmError', code: 'unsupported' })
  for (const threads of [0, 65, 1.5, Number.NaN]) {
    await assert.rejects(core.startTeam(threads), { code: 'argument', message: /from 1 to 64/ })
  }
})

test('where no shared memory can be had, one thread does the work', async (t) => {
  const { Memory } = WebAssembly
  t.after(() => {
    WebAssembly.Memory = Memory
  })
  // @ts-expect-error: only what the package calls
  WebAssembly.Memory = class {
    constructor() {
      throw new RangeError('could not allocate memory')
    }
  }
  const core = await Core.create({ shared: true })
  assert.equal(core.isShared, false)
  const wasm = new URL('../../dist/bimamba-threads.wasm', import.meta.url)
  await assert.rejects(Core.create({ wasm }), {
    code: 'memory',
    message: /threads\.wasm: no shared/,
  })
  const model = await BiMamba.load(path, { threads: 3, inline: true })
  assert.equal(model.info.threads, 1)
  await model.close()
})

test('a thread whose script is missing is reported, and the engine goes on alone', async () => {
  const core = await Core.create({ shared: true })
  const missing = new URL('./absent.js', import.meta.url).href
  await assert.rejects(core.startTeam(2, missing), { code: 'internal', message: /thread .* died/ })
  const { model } = await openPacked(core, path)
  const session = model.createSession()
  session.append([1, 2, 3])
  assert.equal(session.logits().length, SHAPE.vocab_size)
  model.close()
  core.close()
})

test('an abort ends a load that waits for a thread', { timeout: 30000 }, async () => {
  const reason = new Error('enough')
  const threadUrl = 'data:text/javascript,setInterval(() => {}, 1000)'
  for (const inline of [true, false]) {
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), 300)
    const { signal } = controller
    const loading = BiMamba.load(path, { inline, threads: 2, threadUrl, signal })
    await assert.rejects(loading, (error) => error === reason)
  }
})

describe('loaded models', () => {
  /** @type {BiMamba[]} */
  const models = []
  after(async () => {
    for (const model of models) await model.close()
  })

  test('give the same tokens with any number of threads, in a worker and inline', async () => {
    const prompt = Array.from({ length: 50 }, (_, i) => (i * 37) % SHAPE.vocab_size)
    /** @type {number[] | null} */
    let want = null
    for (const inline of [false, true]) {
      for (const threads of /** @type {const} */ ([1, 3, 'auto'])) {
        const model = await BiMamba.load(path, { threads, inline })
        models.push(model)
        // The file is small: 'auto' sees that it is not worth a thread.
        assert.equal(model.info.threads, threads === 'auto' ? 1 : threads)
        const ids = []
        const options = { maxTokens: 40, seed: 5, temperature: 1 }
        for await (const id of model.generateIds(prompt, options)) ids.push(id)
        want ??= ids
        assert.deepEqual(ids, want, `${threads} threads, inline ${inline}`)
      }
    }
  })

  test('have as many threads as were asked for, also where that is more than cores', async (t) => {
    t.mock.method(os, 'availableParallelism', () => 1)
    const model = await BiMamba.load(path, { threads: 2, inline: true })
    models.push(model)
    assert.equal(model.info.threads, 2)
  })

  test('refuse numbers of threads that are none', async () => {
    for (const threads of [0, 65, 2.5, 'many', null]) {
      const options = /** @type {import('../../js/settings.js').LoadOptions} */ ({ threads })
      await assert.rejects(BiMamba.load(path, options), {
        code: 'argument',
        message: /threads is .*, want 'auto' or an integer from 1 to 64/,
      })
    }
  })
})

test('threads end with the model: the process ends by itself, closed or not', async () => {
  for (const inline of [true, false]) {
    for (const close of ['await model.close()', '']) {
      const program = `
        import { BiMamba } from ${JSON.stringify(INDEX)}
        const model = await BiMamba.load(${JSON.stringify(path)}, { threads: 4, inline: ${inline} })
        let count = 0
        for await (const id of model.generateIds([1, 2], { maxTokens: 20, seed: 1 })) count++
        ${close}
        console.log(count)`
      const run = promisify(execFile)
      const args = ['--input-type=module', '-e', program]
      const { stdout } = await run(process.execPath, args, { timeout: 30000 })
      assert.equal(stdout.trim(), '20', `inline ${inline}, ${close || 'not closed'}`)
    }
  }
})

test('a loaded model works with the threads that it has started', async () => {
  const { startTeam } = Core.prototype
  const { createSession } = CoreModel.prototype
  /** @type {string[]} */
  const calls = []
  Core.prototype.startTeam = function (...args) {
    calls.push(`team of ${args[0]}`)
    return startTeam.apply(this, args)
  }
  CoreModel.prototype.createSession = function (...args) {
    calls.push('session')
    return createSession.apply(this, args)
  }
  try {
    const model = await BiMamba.load(path, { inline: true, threads: 3 })
    // A session that is made before has no team, and nothing else would tell.
    assert.deepEqual(calls, ['team of 3', 'session'])
    await model.close()
  } finally {
    Object.assign(Core.prototype, { startTeam })
    Object.assign(CoreModel.prototype, { createSession })
  }
})
