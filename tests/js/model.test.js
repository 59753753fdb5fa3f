/**
 * The contract of a loaded model, in a worker and inline: what is generated, what stops it, and what is refused.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { BiMamba, BmError, VERSION } from '../../js/index.js'
import { checkGenerate } from '../../js/settings.js'
import { collect } from './support/collect.js'
import { tinyModel } from './support/tiny-model.js'

const INDEX = new URL('../../js/index.js', import.meta.url).href
/** Lists that cannot be. */
const LENGTHS = [{ length: -1 }, { length: 2 ** 40 }, { length: 0.5 }]
const GREEDY = { temperature: 0, maxTokens: 40 }

let path = ''
/** @type {Record<'worker' | 'inline', BiMamba>} */
let models
/** With this seed the text after 'a' is long. */
let longSeed = 0

before(async () => {
  path = await tinyModel()
  models = {
    worker: await BiMamba.load(path),
    inline: await BiMamba.load(path, { inline: true }),
  }
  for (; longSeed < 100; longSeed++) {
    const options = { seed: longSeed, maxTokens: 200 }
    if ((await collect(models.inline.generate('a', options))).length > 100) break
  }
})
after(() => Promise.all([models.worker.close(), models.inline.close()]))

/** @param {string} name @param {(model: BiMamba, kind: 'worker' | 'inline') => Promise<void>} body */
function eachKind(name, body) {
  for (const kind of /** @type {const} */ (['worker', 'inline'])) {
    test(`${kind}: ${name}`, () => body(models[kind], kind))
  }
}

/** @param {AsyncGenerator<string, unknown, void>} pieces @returns {Promise<string>} */
async function join(pieces) {
  let text = ''
  for await (const piece of pieces) {
    assert.notEqual(piece, '')
    text += piece
  }
  return text
}

/** @param {string} code @param {RegExp} [pattern] */
const bmError =
  (code, pattern = /./) =>
  (/** @type {unknown} */ error) => {
    assert.ok(error instanceof BmError, String(error))
    assert.equal(error.code, code, error.message)
    assert.match(error.message, pattern)
    return true
  }

test('the version is that of package.json', async () => {
  const { version } = JSON.parse(
    await readFile(new URL('../../package.json', import.meta.url), 'utf8'),
  )
  assert.equal(VERSION, version)
})

test('a worker and this thread give the same text for the same seed', async () => {
  for (const options of [GREEDY, { seed: 5 }, { seed: 2 ** 53 - 1, temperature: 1.5, topK: 0 }]) {
    const [one, again, inline] = [
      await join(models.worker.generate('once upon', options)),
      await join(models.worker.generate('once upon', options)),
      await join(models.inline.generate('once upon', options)),
    ]
    assert.ok(one.length > 0)
    assert.equal(again, one)
    assert.equal(inline, one)
  }
})

eachKind('a drawn seed is reported and gives the text again', async (model) => {
  const first = await join(model.generate('a cat', { maxTokens: 30, temperature: 2 }))
  const seed = Number(model.lastStats?.seed)
  assert.ok(Number.isInteger(seed))
  assert.equal(await join(model.generate('a cat', { maxTokens: 30, temperature: 2, seed })), first)
})

eachKind('greedy text is the argmax of the logits, ties to the lowest id', async (model) => {
  const prompt = [...(await model.tokenize('the cat', { bos: true }))]
  const ids = await collect(model.generateIds(prompt, GREEDY))
  const whole = [...prompt, ...ids]
  const scored = await collect(model.evaluate(whole, { logits: true }))
  for (const { position, logits } of scored.slice(prompt.length - 1, -1)) {
    assert.ok(logits)
    assert.equal(logits.indexOf(Math.max(...logits)), whole[position + 1])
  }
  assert.equal(await join(model.generate(prompt, GREEDY)), await continuation(model, prompt, ids))
})

/** @param {BiMamba} model @param {number[]} prompt @param {number[]} ids the text that ids add to a prompt */
async function continuation(model, prompt, ids) {
  const before = await model.detokenize(prompt)
  return (await model.detokenize([...prompt, ...ids])).slice(before.length)
}

eachKind(
  'log-probabilities are the log-softmax of the logits before, across chunks',
  async (model) => {
    const ids = Array.from({ length: 150 }, (_, i) => (i * 37) % 300)
    const scored = await collect(model.evaluate(ids, { logits: true }))
    assert.deepEqual(
      scored.map(({ position, id }) => [position, id]),
      ids.map((id, i) => [i, id]),
    )
    assert.equal(scored[0]?.logprob, null)
    for (const [t, { logprob, id }] of scored.entries()) {
      if (t === 0) continue
      const logits = [...(scored[t - 1]?.logits ?? [])]
      assert.equal(logits.length, model.config.vocab_size)
      const max = Math.max(...logits)
      const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0)
      assert.ok(Math.abs(Number(logprob) - (Number(logits[id]) - max - Math.log(sum))) < 1e-4)
    }
    assert.deepEqual(
      await model.score(ids),
      scored.map(({ logprob }) => logprob),
    )
    assert.deepEqual(await model.score([]), [])
    assert.deepEqual(await model.score([4]), [null])
  },
)

eachKind('stop strings end the text before them', async (model) => {
  const whole = await join(model.generate('once', { seed: 3, maxTokens: 60 }))
  const characters = [...whole]
  for (let i = 0; i + 3 <= characters.length; i += 7) {
    const stop = characters.slice(i, i + 3).join('')
    const text = await join(
      model.generate('once', { seed: 3, maxTokens: 60, stop: ['never there', stop] }),
    )
    assert.equal(text, whole.slice(0, whole.indexOf(stop)))
    assert.equal(model.lastStats?.finishReason, 'stop')
  }
})

eachKind('what ended a text is told, and how many tokens it took', async (model) => {
  await join(model.generate('once', { seed: 1, maxTokens: 3 }))
  assert.deepEqual(
    { ...model.lastStats, prefillMs: 0, decodeMs: 0 },
    {
      promptTokens: 2,
      tokens: 3,
      finishReason: 'length',
      seed: 1,
      prefillMs: 0,
      decodeMs: 0,
      end: null,
      drafted: 0,
      accepted: 0,
    },
  )
  const pieces = model.generate('once', { seed: 1, maxTokens: 3 })
  let last = await pieces.next()
  while (!last.done) last = await pieces.next()
  assert.deepEqual(last.value, model.lastStats)
  // Some seed ends by the EOS token, which is not printed and not counted.
  let ended = false
  for (let seed = 0; seed < 40 && !ended; seed++) {
    await join(model.generate('once', { seed, temperature: 3, topK: 0, topP: 1, maxTokens: 200 }))
    ended = model.lastStats?.finishReason === 'eos'
  }
  assert.ok(ended)
})

eachKind('what is told is of the last text that has ended', async (model) => {
  await join(model.generate('once', { seed: 1, maxTokens: 3 }))
  const before = model.lastStats
  const pieces = model.generate('a', { seed: longSeed })
  await pieces.next()
  assert.deepEqual(model.lastStats, before)
  await assert.rejects(model.generate('b').next(), bmError('busy'))
  await assert.rejects(model.score([1, 2]), bmError('busy'))
  assert.deepEqual(model.lastStats, before)
  await pieces.return(/** @type {never} */ (undefined))
  assert.equal(model.lastStats?.seed, longSeed)
  assert.equal(model.lastStats?.finishReason, 'abort')
  await assert.rejects(model.generate('', { bos: false, seed: 9 }).next(), bmError('argument'))
  const { seed, finishReason, tokens } = { ...model.lastStats }
  assert.deepEqual({ seed, finishReason, tokens }, { seed: 9, finishReason: 'error', tokens: 0 })
})

eachKind('BOS: as the file says, as the caller says, and for an empty prompt', async (model) => {
  /** @param {string | number[]} prompt @param {boolean} [bos] */
  const tokens = async (prompt, bos) => {
    await join(
      model.generate(prompt, { maxTokens: 1, seed: 1, ...(bos === undefined ? {} : { bos }) }),
    )
    return model.lastStats?.promptTokens
  }
  assert.equal(await tokens('once'), 2)
  assert.equal(await tokens('once', false), 1)
  assert.equal(await tokens([5, 6]), 2)
  assert.equal(await tokens([5, 6], true), 3)
  assert.equal(await tokens(''), 1)
  assert.equal(await tokens([]), 1)
  await assert.rejects(tokens('', false), bmError('argument', /prompt is empty/))
  assert.deepEqual([...(await model.tokenize('once', { bos: true }))][0], 1)
  assert.equal(await model.countTokens('once'), 1)
})

eachKind(
  'an abort before the start, in the prompt and between tokens gives the reason',
  async (model) => {
    const reason = new Error('enough')
    await join(model.generate('a', { seed: 5, maxTokens: 2 }))
    const signal = AbortSignal.abort(reason)
    for (const early of [
      () => model.generate('a', { signal }).next(),
      () => model.generateIds('', { signal }).next(),
      () => model.score([], { signal }),
      () => model.tokenize('', { signal }),
    ]) {
      await assert.rejects(early(), (error) => error === reason)
    }
    // What never began has not ended.
    assert.equal(model.lastStats?.seed, 5)

    const controller = new AbortController()
    const prompt = Array.from({ length: 100000 }, (_, i) => i % 300)
    const began = performance.now()
    setTimeout(() => controller.abort(reason), 30)
    const long = model.generate(prompt, { signal: controller.signal })
    await assert.rejects(long.next(), (error) => error === reason)
    assert.ok(performance.now() - began < 3000)
    assert.equal(model.lastStats?.finishReason, 'abort')
    assert.equal(model.lastStats?.tokens, 0)

    const between = new AbortController()
    let pieces = 0
    await assert.rejects(
      async () => {
        for await (const _ of model.generate('a', { signal: between.signal, seed: longSeed })) {
          if (++pieces === 3) between.abort()
        }
      },
      { name: 'AbortError' },
    )
    assert.equal(pieces, 3)

    const scoring = new AbortController()
    setTimeout(() => scoring.abort(reason), 30)
    await assert.rejects(
      model.score(prompt, { signal: scoring.signal }),
      (error) => error === reason,
    )
    // Nothing of it is left over.
    assert.equal((await collect(model.generateIds('a', GREEDY))).length > 0, true)
  },
)

eachKind('break, return and throw in the loop free the model', async (model) => {
  for await (const _ of model.generate('a', { seed: longSeed })) break
  assert.equal(model.lastStats?.finishReason, 'abort')
  const pieces = model.generate('a', { seed: longSeed })
  await pieces.next()
  await pieces.return(/** @type {never} */ (undefined))
  assert.equal((await pieces.next()).done, true)
  await assert.rejects(async () => {
    for await (const _ of model.generate('a', { seed: longSeed })) throw new Error('mine')
  }, /mine/)
  const unused = model.generate('a')
  await join(model.generate('a', { maxTokens: 2, seed: longSeed }))
  await unused.return(/** @type {never} */ (undefined))
})

eachKind('a second job while one runs is busy, and disturbs nothing', async (model) => {
  const alone = await join(model.generate('a', { seed: longSeed, maxTokens: 20 }))
  const pieces = model.generate('a', { seed: longSeed, maxTokens: 20 })
  let text = String((await pieces.next()).value)
  await assert.rejects(model.generate('b').next(), bmError('busy'))
  await assert.rejects(model.score([1, 2]), bmError('busy'))
  assert.equal(await model.countTokens('once'), 1)
  text += await join(pieces)
  assert.equal(text, alone)
})

test('closing: twice, while generating, and everything after it', async () => {
  for (const inline of [false, true]) {
    const model = await BiMamba.load(path, { inline })
    const pieces = model.generate('a', { seed: longSeed })
    await pieces.next()
    // Inline the next piece is computed at once; in a worker it is under way.
    const pending = inline ? null : pieces.next()
    const closing = [model.close(), model.close()]
    await assert.rejects(pending ?? pieces.next(), bmError('closed'))
    await Promise.all(closing)
    await model.close()
    for (const call of [
      () => model.generate('a').next(),
      () => model.generateIds([1]).next(),
      () => model.evaluate([1]).next(),
      () => model.score([1]),
      () => model.tokenize('a'),
      () => model.detokenize([1]),
      () => model.countTokens('a'),
    ]) {
      await assert.rejects(call(), bmError('closed'))
    }
    assert.equal(model.config.n_layer, 2)
  }
})

eachKind('a long prompt does not hold up closing', async (_, kind) => {
  const model = await BiMamba.load(path, { inline: kind === 'inline' })
  const pending = model.generate(Array(200000).fill(5)).next()
  const began = performance.now()
  const closed = assert.rejects(pending, bmError('closed'))
  await model.close()
  await closed
  assert.ok(performance.now() - began < 2000)
})

eachKind('a long text does not hold up closing, nor is it answered after it', async (_, kind) => {
  const model = await BiMamba.load(path, { inline: kind === 'inline' })
  const text = 'once upon a time '.repeat(50000)
  const pending = [model.tokenize(text), model.generate(text).next()]
  const closed = pending.map((promise) => assert.rejects(promise, bmError('closed')))
  await new Promise((resolve) => setTimeout(resolve, 5))
  await model.close()
  await Promise.all(closed)
})

test('a worker that dies rejects what is pending and what follows', async () => {
  const workerUrl = new URL('./support/dying-worker.js', import.meta.url)
  const exits = await BiMamba.load(path, { workerUrl })
  await assert.rejects(
    join(exits.generate('a', { seed: longSeed })),
    bmError('internal', /exited with code 3/),
  )
  await assert.rejects(exits.generate('a').next(), bmError('internal', /worker died/))
  await exits.close()
  await assert.rejects(exits.tokenize('a'), bmError('closed'))
  const throws = await BiMamba.load(path, { workerUrl })
  const pending = [throws.tokenize('a'), throws.detokenize([5])]
  for (const result of await Promise.allSettled(pending)) {
    if (result.status === 'rejected') bmError('internal', /the worker broke/)(result.reason)
  }
  await assert.rejects(throws.tokenize('a'), bmError('internal'))
  await throws.close()
  const missing = new URL('./support/nothing.js', import.meta.url)
  await assert.rejects(
    BiMamba.load(path, { workerUrl: missing }),
    bmError('internal', /worker died/),
  )
  await assert.rejects(
    BiMamba.load(path, { workerUrl: 'https://localhost/worker.js' }),
    bmError('argument', /workerUrl: no worker starts from https:\/\/localhost\/worker.js/),
  )
})

test('a worker of another version of the package: said at once', async () => {
  const worker = new Worker(new URL('../../js/worker.js', import.meta.url))
  for (const version of ['0.0.1', undefined]) {
    worker.postMessage({
      kind: 'load',
      id: 1,
      source: { kind: 'path', path },
      options: {},
      version,
    })
    const [{ error }] = await once(worker, 'message')
    assert.equal(error.code, 'mismatch')
    const other = version ?? 'an older one'
    assert.ok(
      error.message.startsWith(
        `this is the worker of bimamba ${VERSION}, and what started it is ${other}:`,
      ),
      error.message,
    )
  }
  await worker.terminate()
})

test('a program that forgets to close ends all the same', () => {
  const code = `
    import { BiMamba } from ${JSON.stringify(INDEX)}
    const model = await BiMamba.load(${JSON.stringify(path)})
    for await (const piece of model.generate('a', { seed: 1, maxTokens: 5 })) break
    console.log('done')`
  const args = ['--input-type=module', '-e', code]
  const { stdout, stderr, status } = spawnSync(process.execPath, args, {
    timeout: 20000,
    encoding: 'utf8',
  })
  assert.equal(stderr, '')
  assert.equal(status, 0)
  assert.equal(stdout, 'done\n')
})

test('importing the package does nothing', () => {
  const code = `
    const before = Object.keys(globalThis).length
    await import(${JSON.stringify(INDEX)})
    console.log(Object.keys(globalThis).length - before, process.getActiveResourcesInfo().length)`
  const args = ['--input-type=module', '-e', code]
  const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  assert.match(stdout, /^0 \d\n$/)
})

eachKind('a model without a tokenizer works on ids', async (_, kind) => {
  const plain = await tinyModel({ tokenizer: null, bos: false })
  const model = await BiMamba.load(plain, { inline: kind === 'inline' })
  const ids = await collect(model.generateIds([3, 4], { ...GREEDY, maxTokens: 5 }))
  assert.equal(ids.length, 5)
  await assert.rejects(model.generate([3]).next(), bmError('tokenizer'))
  await assert.rejects(model.generateIds('text').next(), bmError('tokenizer'))
  await assert.rejects(model.generateIds([3], { stop: 'x' }).next(), bmError('tokenizer'))
  await assert.rejects(model.tokenize('a'), bmError('tokenizer'))
  await assert.rejects(model.detokenize([1]), bmError('tokenizer'))
  await assert.rejects(model.generateIds([]).next(), bmError('argument', /no BOS/))
  await assert.rejects(model.generateIds([3], { bos: true }).next(), bmError('argument', /no BOS/))
  await model[Symbol.asyncDispose]()
  await assert.rejects(model.score([1]), bmError('closed'))
})

test('every option is checked by name, type and range', async () => {
  /** @type {[object, RegExp][]} */
  const wrong = [
    [{ maxTokens: 0 }, /maxTokens is 0, want an integer from 1/],
    [{ maxTokens: null }, /maxTokens is null/],
    [{ stop: null }, /stop is null/],
    [{ maxTokens: 1.5 }, /maxTokens is 1.5/],
    [{ maxTokens: '5' }, /maxTokens is "5"/],
    [{ temperature: Number.NaN }, /temperature is NaN/],
    [{ temperature: -1 }, /temperature/],
    [{ temperature: 1e-9 }, /temperature.*or 0/],
    [{ temperature: Number.POSITIVE_INFINITY }, /temperature/],
    [{ topK: -1 }, /topK/],
    [{ topP: 0 }, /topP is 0, want a number from above 0 to 1/],
    [{ topP: 1.1 }, /topP/],
    [{ minP: 2 }, /minP/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty/],
    [{ repetitionWindow: 1e9 }, /repetitionWindow/],
    [{ seed: -1 }, /seed/],
    [{ seed: 2 ** 53 }, /seed/],
    [{ stop: '' }, /stop/],
    [{ stop: [1] }, /stop/],
    [{ stop: Array(1000).fill('a') }, /stop is an array of 1000/],
    [{ stop: '\ud83d' }, /surrogate/],
    [{ bos: 1 }, /bos/],
    [{ signal: {} }, /signal/],
    [{ topp: 1 }, /unknown option 'topp', did you mean 'topP'/],
    [{ max_tokens: 1 }, /did you mean 'maxTokens'/],
    [{ temprature: 1 }, /did you mean 'temperature'/],
    [{ beams: 4 }, /unknown option 'beams'$/],
  ]
  for (const [options, pattern] of wrong) {
    await assert.rejects(models.inline.generate('a', options).next(), bmError('argument', pattern))
  }
  for (const [options, pattern] of /** @type {[object, RegExp][]} */ ([
    [{ precision: 'half' }, /precision is "half", want fast, high, exact/],
    [{ state: 16 }, /state/],
    [{ head: 'int8' }, /head is "int8", want file, int4/],
    [{ inline: 'yes' }, /inline/],
    [{ onProgress: 1 }, /onProgress/],
    [{ wasmUrl: 5 }, /wasmUrl/],
    [{ onprogress: () => {} }, /did you mean 'onProgress'/],
    [{ variant: 'none', inline: true }, /variant is 'none', want one of ref/],
  ])) {
    await assert.rejects(BiMamba.load(path, options), bmError('argument', pattern))
  }
  await assert.rejects(
    models.inline.generate('a', /** @type {never} */ (null)).next(),
    bmError('argument'),
  )
  // Each extreme is allowed.
  checkGenerate({ temperature: 0, topK: 0, topP: 1, minP: 1, seed: 0, repetitionWindow: 0 }, 300)
})

eachKind('ids are checked before anything runs', async (model) => {
  for (const ids of [[-1], [999], [1.5], [Number.NaN], ['1'], 5, null, {}, ...LENGTHS]) {
    const bad = /** @type {number[]} */ (ids)
    await assert.rejects(model.generate(bad).next(), bmError('argument'))
    await assert.rejects(model.score(bad), bmError('argument'))
    await assert.rejects(model.detokenize(bad), bmError('argument'))
  }
  const noPrompt = /** @type {never} */ (undefined)
  await assert.rejects(
    model.generate(noPrompt).next(),
    bmError('argument', /^prompt is undefined, want a string or an array of token ids$/),
  )
  await assert.rejects(model.tokenize(/** @type {never} */ (5)), bmError('argument'))
})

test('bytes stay with the caller, also when a worker reads them', async () => {
  const bytes = await readFile(path)
  const copy = Uint8Array.from(bytes)
  for (const source of [bytes, bytes.subarray(0), copy, copy.buffer, new Blob([copy])]) {
    const model = await BiMamba.load(source)
    assert.equal(model.info.fileBytes, copy.length)
    await model.close()
  }
  assert.deepEqual(Uint8Array.from(bytes), copy)
})

test('bytes that are transferred away while a worker reads them end the load', async () => {
  const bytes = Uint8Array.from(await readFile(path))
  const loading = BiMamba.load(bytes)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  await assert.rejects(loading, bmError('format', /the bytes/))
})

test('an abort ends a load whose module does not come', async (t) => {
  const server = createServer(() => {})
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const wasmUrl = `http://127.0.0.1:${port}/bimamba.wasm`
  for (const inline of [false, true]) {
    const reason = new Error('enough')
    const controller = new AbortController()
    const { signal } = controller
    const loading = BiMamba.load(path, { wasmUrl, inline, signal })
    await Promise.race([once(server, 'request'), loading])
    controller.abort(reason)
    const late = new Promise((resolve) => setTimeout(() => resolve('late'), 3000).unref())
    await assert.rejects(Promise.race([loading, late]), (error) => error === reason)
  }
})

test('an abort ends a load whose worker never answers', async () => {
  const workerUrl = 'data:text/javascript,setInterval(() => {}, 1e6)'
  const reason = new Error('enough')
  const controller = new AbortController()
  const loading = BiMamba.load(path, { workerUrl, signal: controller.signal })
  setTimeout(() => controller.abort(reason), 50)
  const late = new Promise((resolve) => setTimeout(() => resolve('late'), 3000).unref())
  await assert.rejects(Promise.race([loading, late]), (error) => error === reason)
})

test('precisions, states and kernel families all run; an onProgress that throws fails the load', async () => {
  const bytes = await readFile(path)
  for (const precision of /** @type {const} */ (['fast', 'high', 'exact'])) {
    for (const state of /** @type {const} */ (['f32', 'i16'])) {
      const model = await BiMamba.load(bytes, { precision, state, variant: 'ref' })
      assert.equal((await model.score([1, 2, 3])).length, 3)
      assert.deepEqual([model.info.precision, model.info.state], [precision, state])
      await model.close()
    }
  }
  const mine = new Error('mine')
  const onProgress = () => {
    throw mine
  }
  await assert.rejects(BiMamba.load(path, { onProgress }), (error) => error === mine)
})
