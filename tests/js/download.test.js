/**
 * Downloads from servers and lines that fail: either the same model as ever, or one clear error; never a wrong model, never a
 * hang. What is counted is the server's log.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BmError } from '../../js/errors.js'
import { BiMamba } from '../../js/index.js'
import { LoadMeter } from '../../js/load-meter.js'
import { CHUNK_BYTES, chunkedModel } from './support/chunked-model.js'
import { LASTING, PASSING } from './support/fault-cases.js'
import { startFaultServer } from './support/fault-server.js'
import { tempFolder } from './support/temp-folder.js'

/** @typedef {Awaited<ReturnType<typeof chunkedModel>>} ChunkedModel */
/** @typedef {import('../../js/settings.js').LoadOptions} LoadOptions */
/** @typedef {import('./support/fault-server.js').FaultServer} FaultServer */

/** @type {ChunkedModel} */
let model
/** @type {ChunkedModel} another one of the same shape */
let other
/** @type {FaultServer} */
let server
/** What the model thinks of some ids. @type {(number | null)[]} */
let scores = []

const IDS = [1, 5, 900, 67000, 3]
/** Quick to give up, as tests must be. */
const QUICK = { retries: 3, retryDelayMs: 5, stallTimeoutMs: 1000 }

before(async () => {
  model = await chunkedModel(7)
  other = await chunkedModel(8)
  server = await startFaultServer(model.bytes, { other: other.bytes })
  scores = await scoresOf(model.path)
  process.on('unhandledRejection', (error) => {
    throw error
  })
})
after(() => server.close())

/** @param {import('../../js/source.js').ModelSource} source @param {LoadOptions} [options] */
async function scoresOf(source, options) {
  const loaded = await BiMamba.load(source, options)
  const found = await loaded.score(IDS)
  await loaded.close()
  return found
}

/**
 * Loads into a fresh folder, and proves that what came is the file: what is kept, and what it computes.
 *
 * @param {import('node:test').TestContext} t
 * @param {string} url
 * @param {LoadOptions} [options]
 */
async function loads(t, url, options = {}) {
  const cacheFolder = await tempFolder(t)
  const loaded = await BiMamba.load(url, { ...QUICK, cacheFolder, ...options })
  assert.deepEqual(await loaded.score(IDS), scores, url)
  const { info } = loaded
  await loaded.close()
  const kept = await readFile(join(cacheFolder, 'models', info.identity, 'model.safetensors'))
  assert.ok(kept.equals(model.bytes), `${url}: what is kept is not the file`)
  assert.equal(info.cache?.note, null)
  return { cache: info.cache, cacheFolder }
}

/**
 * @param {import('node:test').TestContext} t
 * @param {string} url
 * @param {string} code
 * @param {RegExp[]} patterns  the message also names the server
 * @param {LoadOptions} [options]
 */
async function fails(t, url, code, patterns, options = {}) {
  const cacheFolder = await tempFolder(t)
  const began = performance.now()
  await assert.rejects(BiMamba.load(url, { ...QUICK, cacheFolder, ...options }), (error) => {
    assert.ok(error instanceof BmError, `${url}: ${error}`)
    assert.equal(error.code, code, error.message)
    for (const pattern of [/127\.0\.0\.1/, ...patterns]) assert.match(error.message, pattern)
    return true
  })
  assert.ok(performance.now() - began < 8000, `${url}: ${performance.now() - began} ms`)
  assert.ok(
    (await BiMamba.cache.list({ cacheFolder })).every(({ complete }) => !complete),
    url,
  )
}

/** @param {number} chunk @returns {number} its first byte in the file */
const startOf = (chunk) => model.dataOffset + chunk * CHUNK_BYTES

for (const [mode, params] of PASSING) {
  test(`${mode} ${JSON.stringify(params)}: the same model, in the end`, async (t) => {
    server.reset()
    await loads(t, server.url(mode, params))
    assert.ok(server.requests.every(({ method }) => method === 'GET'))
  })
}

for (const [mode, params, code, patterns] of LASTING) {
  test(`${mode} ${JSON.stringify(params)}: one error, ${code}`, async (t) => {
    await fails(t, server.url(mode, params), code, patterns)
  })
}

test('the same errors arrive from a worker, and there is no rejection that nobody caught', async (t) => {
  for (const [mode, params, code] of LASTING.filter((_, i) => i % 4 === 0)) {
    await fails(t, server.url(mode, params), code, [], { inline: false })
  }
  await new Promise((resolve) => setTimeout(resolve, 100))
})

test('an address where nobody listens is given up soon', async (t) => {
  const began = performance.now()
  await fails(t, 'http://127.0.0.1:1/model', 'network', [], { retries: 20, retryDelayMs: 50 })
  assert.ok(performance.now() - began < 2000)
})

test('interrupted at 10, 50, 90 and 99 %: at most one chunk for each stream comes twice', async (t) => {
  for (const share of [0.1, 0.5, 0.9, 0.99]) {
    for (const streams of [1, 4]) {
      const cacheFolder = await tempFolder(t)
      const stop = new AbortController()
      const url = server.url('slow', { rate: 60e6 })
      server.reset()
      const onProgress = (/** @type {import('../../js/load-meter.js').Progress} */ progress) => {
        if (progress.loadedBytes >= share * model.bytes.length) stop.abort(new Error('enough'))
      }
      const interrupted = BiMamba.load(url, {
        ...QUICK,
        cacheFolder,
        streams,
        onProgress,
        signal: stop.signal,
      })
      await assert.rejects(interrupted, /enough/)
      const loaded = await BiMamba.load(url, { ...QUICK, cacheFolder, streams })
      assert.deepEqual(await loaded.score(IDS), scores)
      await loaded.close()
      const twice = server.bytesServed() - model.bytes.length
      assert.ok(
        twice <= streams * CHUNK_BYTES,
        `${share}, ${streams} streams: ${twice} bytes twice`,
      )
    }
  }
})

test('a line that breaks goes on at the very byte', async (t) => {
  server.reset()
  const { cache } = await loads(t, server.url('drop', { at: 10000000, times: 3 }), { streams: 1 })
  const twice = server.bytesServed() - model.bytes.length
  assert.ok(twice < 200000, `${twice} bytes came twice`)
  assert.equal(cache?.repairedChunks, 0)
})

test('a complete copy asks nothing, online or not', async (t) => {
  const url = server.url('ok')
  const { cacheFolder } = await loads(t, url)
  server.reset()
  for (const cache of /** @type {const} */ (['auto', 'only'])) {
    const loaded = await BiMamba.load(url, { cacheFolder, cache })
    assert.deepEqual(await loaded.score(IDS), scores)
    assert.equal(loaded.info.cache?.cachedBytes, model.bytes.length)
    assert.equal(loaded.info.cache?.fetchedBytes, 0)
    await loaded.close()
  }
  assert.equal(server.requests.length, 0)
})

test('a file that changes while it comes: begun again once, and never two halves of one', async (t) => {
  for (const n of [1, 2, 3]) {
    const cacheFolder = await tempFolder(t)
    const url = server.url('swap', { n })
    const loaded = await BiMamba.load(url, { ...QUICK, cacheFolder, streams: 1 })
    const isOther = loaded.info.identity !== (await identityOf(model.path))
    assert.ok(isOther || n > 2, `n = ${n}`)
    const wanted = isOther ? await scoresOf(other.path) : scores
    assert.deepEqual(await loaded.score(IDS), wanted)
    await loaded.close()
  }
})

/** @param {string} path */
async function identityOf(path) {
  const loaded = await BiMamba.load(path)
  await loaded.close()
  return loaded.info.identity
}

test("check: what the server has now, or what is kept when it can't be asked", async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('swap', { n: 8 })
  const load = async (/** @type {'auto' | 'check'} */ cache, at = url) => {
    const loaded = await BiMamba.load(at, { ...QUICK, cacheFolder, cache, streams: 1 })
    await loaded.close()
    return loaded.info
  }
  const first = await load('auto')
  const checked = await load('check')
  assert.equal(checked.identity, first.identity)
  assert.ok(Number(checked.cache?.fetchedBytes) < 70000, 'the header alone')
  for (let i = 0; i < 8; i++) await fetch(url, { headers: { Range: 'bytes=0-0' } })
  assert.equal((await load('auto')).identity, first.identity)
  const second = await load('check')
  assert.notEqual(second.identity, first.identity)
  const list = await BiMamba.cache.list({ cacheFolder })
  assert.deepEqual(
    list.map(({ identity }) => identity),
    [second.identity],
    'the file that the URL was before is gone',
  )
  const gone = await startFaultServer(model.bytes)
  const lost = gone.url('ok')
  await load('auto', lost)
  await gone.close()
  const kept = await load('check', lost)
  assert.equal(kept.identity, first.identity)
  assert.match(
    String(kept.cache?.note),
    /could not be asked.*the kept copy is used|kept copy is used/,
  )
})

test('a redirect whose target leads on later is followed anew, with headers too', async (t) => {
  for (const headers of [{}, { 'X-Key': 'k' }]) {
    await loads(t, server.url('expiring', { n: 2, code: 302 }), { headers })
  }
})

test('a damaged file whose header cannot be had again is given up', async (t) => {
  let heads = 0
  /** @type {typeof globalThis.fetch} */
  const fetch = async (at, init) => {
    const range = String(new Headers(init?.headers).get('range'))
    if (range.startsWith('bytes=0-') && ++heads > 1) return new Response('', { status: 503 })
    return globalThis.fetch(at, init)
  }
  await fails(t, server.url('flip', { at: 5000000 }), 'network', [/503.*times in a row/], {
    fetch,
    inline: true,
  })
})

test('an answer that comes after it was given up is closed, also from a worker', async (t) => {
  for (const inline of [true, false]) {
    let [count, closed] = [0, 0]
    /** @type {typeof globalThis.fetch} */
    const fetch = async (at, init) => {
      if (++count > 2) return globalThis.fetch(at, init)
      // Deaf to its signal.
      await new Promise((resolve) => setTimeout(resolve, 400))
      return new Response(new ReadableStream({ cancel: () => void closed++ }))
    }
    await loads(t, server.url('ok'), { fetch, inline, stallTimeoutMs: 300 })
    await new Promise((resolve) => setTimeout(resolve, 500))
    assert.equal(closed, 2, `inline ${inline}`)
  }
})

test('a refusal whose body breaks is a refusal all the same', async (t) => {
  let count = 0
  /** @type {typeof globalThis.fetch} */
  const fetch = async (at, init) => {
    if (++count > 2) return globalThis.fetch(at, init)
    const start = (/** @type {ReadableStreamDefaultController} */ stream) =>
      stream.error(new Error('reset'))
    return new Response(new ReadableStream({ start }), { status: 503 })
  }
  await loads(t, server.url('ok'), { fetch, inline: true })
})

test('a pinned identity is held', async (t) => {
  const identity = await identityOf(model.path)
  await loads(t, server.url('ok'), { identity })
  server.reset()
  await fails(t, server.url('swap', { n: 0 }), 'integrity', [RegExp(`want ${identity}`)], {
    identity,
  })
  assert.ok(server.bytesServed() < CHUNK_BYTES * 1.1, 'nothing beyond the first answer')
})

test('headers go to the origin of the URL, and no further', async (t) => {
  const headers = { Authorization: 'Bearer x', 'X-Key': 'secret' }
  await loads(t, server.url('auth', { token: 'Bearer x' }), { headers })
  for (const own of [headers, { Authorization: 'Bearer x' }]) {
    server.reset()
    await loads(t, server.url('redirect', { hops: 3, to: 'localhost' }), { headers: own })
    const foreign = server.requests.filter(({ host }) => host.startsWith('localhost'))
    assert.ok(foreign.length > 0)
    for (const request of server.requests) {
      const isForeign = foreign.includes(request)
      assert.equal(request.headers.authorization, isForeign ? undefined : 'Bearer x')
      assert.ok(!isForeign || request.headers['x-key'] === undefined)
    }
  }
  await fails(t, server.url('lost'), 'network', [/which is no URL/], { headers })
  server.reset()
  await loads(t, server.url('redirect', { hops: 2 }), { headers })
  assert.ok(server.requests.every((request) => request.headers['x-key'] === 'secret'))
})

test('nor to the server of a draft model, where that is another one', async () => {
  const headers = { 'X-Key': 'secret' }
  const url = server.url('ok')
  for (const draftModel of [url, url.replace('127.0.0.1', 'localhost')]) {
    for (const inline of [true, false]) {
      server.reset()
      const options = { ...QUICK, headers, draftModel, inline, cache: /** @type {const} */ ('off') }
      await (await BiMamba.load(url, options)).close()
      const foreign = server.requests.filter(({ host }) => host.startsWith('localhost'))
      assert.equal(foreign.length > 0, draftModel !== url)
      for (const request of server.requests) {
        const wanted = foreign.includes(request) ? undefined : 'secret'
        assert.equal(request.headers['x-key'], wanted)
      }
    }
  }
})

test("a caller's own fetch is used, also from a worker", async (t) => {
  for (const inline of [true, false]) {
    let calls = 0
    /** @type {typeof globalThis.fetch} */
    const own = (url, init) => {
      calls++
      return fetch(url, init)
    }
    server.reset()
    await loads(t, server.url('drop', { at: 5000000, times: 1 }), { fetch: own, inline })
    assert.equal(calls, server.requests.length)
    const broken = /** @type {typeof globalThis.fetch} */ (
      async () => {
        throw new Error('no way out')
      }
    )
    await fails(t, server.url('ok'), 'network', [/no way out/], { fetch: broken, inline })
  }
})

test('an abort ends every connection, gives its reason, and what has come is kept', async (t) => {
  const reason = new Error('enough')
  for (const inline of [true, false]) {
    const cacheFolder = await tempFolder(t)
    // The answer with the fourth chunk is one of the first five.
    const url = server.url('stall', { at: 14000000, times: 5 })
    const stop = new AbortController()
    let abortedAt = 0
    const abort = () => {
      abortedAt = performance.now()
      stop.abort(reason)
    }
    // By then all has arrived that will.
    setTimeout(abort, 2500)
    const loading = BiMamba.load(url, {
      cacheFolder,
      inline,
      signal: stop.signal,
      stallTimeoutMs: 60000,
    })
    await assert.rejects(loading, (error) => error === reason)
    assert.ok(performance.now() - abortedAt < 500, `${performance.now() - abortedAt} ms`)
    server.reset()
    const loaded = await BiMamba.load(url, { ...QUICK, cacheFolder })
    await loaded.close()
    assert.ok(Number(loaded.info.cache?.cachedBytes) >= 2 * CHUNK_BYTES)
  }
})

test('progress: phases in order, bytes that never go back, and what came from the cache', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('drop', { at: 9000000, times: 3 })
  for (const isCached of [false, true]) {
    /** @type {import('../../js/load-meter.js').Progress[]} */
    const reports = []
    const onProgress = (/** @type {import('../../js/load-meter.js').Progress} */ report) =>
      void reports.push(report)
    const loaded = await BiMamba.load(url, { ...QUICK, cacheFolder, onProgress })
    await loaded.close()
    const phases = reports.map(({ phase }) => phase).filter((phase, i, all) => phase !== all[i - 1])
    assert.deepEqual(phases, ['load', 'start', 'ready'])
    for (const [i, { loadedBytes, totalBytes, cachedBytes }] of reports.entries()) {
      assert.equal(totalBytes, model.bytes.length)
      assert.ok(
        loadedBytes >= Number(reports[i - 1]?.loadedBytes ?? 0) && loadedBytes <= totalBytes,
      )
      assert.ok(cachedBytes <= loadedBytes)
    }
    const last = reports.at(-1)
    assert.equal(last?.loadedBytes, model.bytes.length)
    assert.equal(last?.cachedBytes, isCached ? model.bytes.length : 0)
    assert.equal(last?.etaMs, 0)
  }
})

test('a file that is shorter than what had come of another: no progress beyond its end', () => {
  /** @type {import('../../js/load-meter.js').Progress[]} */
  const reports = []
  const meter = new LoadMeter((progress) => reports.push(progress))
  meter.begin(1000, 100)
  meter.enter('load')
  meter.add(800)
  meter.enter('wait')
  meter.begin(500, 50)
  for (const phase of /** @type {const} */ (['load', 'start', 'ready'])) meter.enter(phase)
  for (const { loadedBytes, totalBytes, etaMs, bytesPerSecond } of reports) {
    assert.ok(loadedBytes <= Number(totalBytes), `${loadedBytes} of ${totalBytes}`)
    assert.ok(Number(etaMs) >= 0 && Number(bytesPerSecond) >= 0)
  }
  assert.equal(reports.at(-1)?.loadedBytes, 500)
})

test('cache.add fills the cache, goes on where it was, and tells what it did', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('drop', { at: startOf(2) + 10, times: 4 })
  await assert.rejects(BiMamba.cache.add(url, { ...QUICK, retries: 0, streams: 1, cacheFolder }), {
    code: 'network',
  })
  const added = await BiMamba.cache.add(url, { ...QUICK, cacheFolder })
  assert.equal(added.fileBytes, model.bytes.length)
  assert.ok(Number(added.cache?.cachedBytes) >= 2 * CHUNK_BYTES)
  const [kept] = await BiMamba.cache.list({ cacheFolder })
  assert.deepEqual(kept?.urls, [url])
  assert.equal(kept?.complete, true)
  assert.equal(await BiMamba.cache.size({ cacheFolder }), model.bytes.length)
  server.reset()
  await BiMamba.cache.add(url, { cacheFolder, inline: true })
  assert.equal(server.requests.length, 0)
  assert.equal(await BiMamba.cache.delete(url, { cacheFolder }), model.bytes.length)
  assert.equal(await BiMamba.cache.size({ cacheFolder }), 0)
  assert.equal(await BiMamba.cache.delete(url, { cacheFolder }), 0)
  await assert.rejects(BiMamba.cache.add(model.path), { code: 'argument' })
})

test('only: nothing is fetched, and what is not there is said', async (t) => {
  const cacheFolder = await tempFolder(t)
  server.reset()
  const url = server.url('ok')
  await assert.rejects(BiMamba.load(url, { cacheFolder, cache: 'only' }), {
    code: 'storage',
    message: /not in the cache/,
  })
  assert.equal(server.requests.length, 0)
})

test('inspect says what a file is without its weights: from the server, from what is kept, from a path', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('ok')
  const loaded = await BiMamba.load(model.path)
  const { identity, fileBytes, licence, source, hasTokenizer } = loaded.info
  await loaded.close()
  for (const inline of [true, false]) {
    server.reset()
    const found = await BiMamba.inspect(url, { cacheFolder, inline })
    assert.deepEqual(
      [found.identity, found.fileBytes, found.licence, found.source, found.hasTokenizer],
      [identity, fileBytes, licence, source, hasTokenizer],
    )
    assert.equal(found.config.n_layer, loaded.config.n_layer)
    assert.equal(server.requests.length, 1)
    assert.deepEqual(await BiMamba.cache.list({ cacheFolder }), [])
  }
  await BiMamba.cache.add(url, { cacheFolder })
  server.reset()
  assert.equal((await BiMamba.inspect(url, { cacheFolder })).identity, identity)
  assert.equal(server.requests.length, 0)
  assert.equal((await BiMamba.inspect(model.path)).identity, identity)
  assert.equal((await BiMamba.inspect(await readFile(model.path))).identity, identity)
  await assert.rejects(BiMamba.inspect(new Uint8Array(100)), { code: 'format' })
  await assert.rejects(BiMamba.inspect(server.url('status', { code: 404 }), QUICK), {
    code: 'network',
  })
})
