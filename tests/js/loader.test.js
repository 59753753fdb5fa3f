/**
 * Loading from every kind of source, and from sources that are broken: each fault has its code, and says where.
 */

import assert from 'node:assert/strict'
import { openAsBlob } from 'node:fs'
import { open, readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { Core } from '../../js/core.js'
import { BmError } from '../../js/errors.js'
import { readHeaderLength } from '../../js/format.js'
import { BiMamba } from '../../js/index.js'
import { LoadMeter } from '../../js/load-meter.js'
import { loadModel } from '../../js/loader.js'
import { describeSource, shareSource } from '../../js/source.js'
import { openSource } from '../../js/source-opening.js'
import { startFaultServer } from './support/fault-server.js'
import { temporaryFolder, tinyModel } from './support/tiny-model.js'

/** Two chunks: the embedding alone is longer than one. */
let path = ''
let bytes = Buffer.alloc(0)
/** @type {Awaited<ReturnType<typeof startFaultServer>>} */
let server
/** @type {Core} */
let core

before(async () => {
  path = await tinyModel({ tokenizer: null, config: { vocab_size: 20000 }, embedding: 'f32' })
  bytes = await readFile(path)
  server = await startFaultServer(bytes)
  core = await Core.create()
})
after(() => server.close())

/** Quick to give up, as a test must be. @type {import('../../js/source.js').FetchOptions} */
const QUICK = {
  cache: 'off',
  identity: null,
  streams: 4,
  retries: 2,
  retryDelayMs: 1,
  stallTimeoutMs: 5000,
  headers: {},
}

/**
 * @param {import('../../js/source.js').SourceDescriptor} descriptor
 * @param {(progress: import('../../js/load-meter.js').Progress) => void} [onProgress]
 */
async function loadDescribed(descriptor, onProgress) {
  const meter = new LoadMeter(onProgress)
  const file = await openSource(descriptor, { options: QUICK, meter })
  /** @type {string | null} */
  let tokenizerJson = null
  try {
    const onTokenizer = (/** @type {string} */ json) => {
      tokenizerJson = json
    }
    const loaded = await loadModel(core, file, {}, { onTokenizer })
    meter.enter('ready')
    return { ...loaded, tokenizerJson }
  } finally {
    await file.close()
  }
}

/** @param {unknown} source */
const load = (source) => loadDescribed(describeSource(source))

/** @param {unknown} source @param {string} code @param {...RegExp} patterns */
async function fails(source, code, ...patterns) {
  await assert.rejects(load(source), (error) => {
    assert.ok(error instanceof BmError, String(error))
    assert.equal(error.code, code, error.message)
    for (const pattern of patterns) assert.match(error.message, pattern)
    return true
  })
}

test('the same model from a path, URLs, bytes, a Blob and a message port', async () => {
  const view = new Uint8Array(bytes.length + 3).subarray(3)
  view.set(bytes)
  const plain = Uint8Array.from(bytes)
  const shared = shareSource(describeSource(plain))
  const sources = [
    describeSource(path),
    describeSource(pathToFileURL(path)),
    describeSource(pathToFileURL(path).href),
    describeSource(server.url('ok')),
    describeSource(new URL(server.url('gzip'))),
    describeSource(plain.buffer),
    describeSource(view),
    describeSource(new Blob([plain])),
    shared.descriptor,
  ]
  for (const descriptor of sources) {
    const { model, header, tokenizerJson } = await loadDescribed(descriptor)
    const session = model.createSession()
    session.append([1, 2, 3])
    assert.equal(session.logits().length, 20000, descriptor.kind)
    assert.equal(header.fileBytes, bytes.length)
    assert.equal(tokenizerJson, null)
    session.close()
    model.close()
  }
  shared.close()
  assert.equal(plain.length, bytes.length, 'the bytes stay with the caller')
})

test('every kind of Blob, inline and in a worker: of bytes, of a file, by its URL', async () => {
  const blob = new Blob([Uint8Array.from(bytes)])
  const url = URL.createObjectURL(blob)
  const small = join(temporaryFolder(), 'small.safetensors')
  await writeFile(small, bytes)
  for (const inline of [true, false]) {
    for (const source of [blob, await openAsBlob(path), url, new URL(url)]) {
      const model = await BiMamba.load(source, { inline })
      assert.equal(model.info.fileBytes, bytes.length)
      await model.close()
    }
    const changed = await openAsBlob(small)
    await truncate(small, bytes.length - (inline ? 1 : 2))
    await assert.rejects(BiMamba.load(changed, { inline }), {
      code: 'io',
      message: /the Blob cannot be read/,
    })
  }
  URL.revokeObjectURL(url)
})

test("Node's open files, inline and in a worker; they stay open", async () => {
  const file = await open(path)
  for (const inline of [true, false]) {
    const model = await BiMamba.load(file, { inline })
    assert.equal(model.info.fileBytes, bytes.length)
    assert.equal(model.info.cache, null)
    await model.close()
  }
  assert.equal((await file.stat()).size, bytes.length)
  await file.close()
  for (const inline of [true, false]) {
    await assert.rejects(BiMamba.load(file, { inline }), { name: 'BmError' })
  }
})

test('sources of a wrong type are refused', () => {
  for (const source of ['', null, undefined, 5, {}, [1], 'ftp://127.0.0.1/x']) {
    assert.throws(() => describeSource(source), { code: 'argument' })
  }
  for (const source of ['file://host/x', 'file:///a%2Fb', 'blob:nodedata:gone', 'http://']) {
    assert.throws(() => describeSource(source), { name: 'BmError', code: 'argument' }, source)
  }
})

test('answers that are no model', async () => {
  await fails(server.url('status', 404), 'network', /127\.0\.0\.1.*404 Not Found/)
  await fails(server.url('status', 503), 'network', /503/)
  await fails(server.url('html'), 'format', /127\.0\.0\.1.*(web page|HTML)/i)
  await fails(server.url('lfs'), 'format', /git-lfs/)
  await fails(server.url('empty'), 'format', /empty/)
  await fails(
    'http://127.0.0.1:1/model',
    'network',
    /127\.0\.0\.1:1.*(ECONNREFUSED|fetch failed|bad port)/,
  )
  await fails(join(temporaryFolder(), 'nothing'), 'io', /nothing: no such file/)
  await fails(temporaryFolder(), 'io', /directory/)
})

test('every early end is found and placed', async () => {
  const second = 8 + readHeaderLength(bytes) + 4194304
  await fails(server.url('shortLength', 300), 'network', /after 300 bytes, in the header/)
  for (const mode of ['shortLength', 'shortClose']) {
    await fails(
      server.url(mode, second + 1000),
      'network',
      /truncated/,
      /chunk 1 of 2/,
      RegExp(`bytes ${second} to`),
    )
  }
  await fails(server.url('shortGzip', 1 << 20), 'network', /chunk 0 of 2/)
  await fails(server.url('drop', second - 5), 'network', /127\.0\.0\.1/, /chunk [01] of 2/)
  await fails(bytes.subarray(0, second), 'format', /truncated/, /chunk 1/)
  await fails(bytes.subarray(0, 5), 'format')
  await fails(new Uint8Array(0), 'format', /empty/)
  const copy = join(temporaryFolder(), 'cut.safetensors')
  await writeFile(copy, bytes)
  await truncate(copy, bytes.length - 1)
  await fails(copy, 'format', /cut\.safetensors.*truncated, 1 more bytes/)
})

test('every flipped bit of the data is found, before it is written', async () => {
  const start = 8 + readHeaderLength(bytes)
  for (const at of [start, start + 4194303, start + 4194304, bytes.length - 1]) {
    const chunk = Math.floor((at - start) / 4194304)
    await fails(
      server.url('flip', at),
      'integrity',
      RegExp(`SHA-256 of chunk ${chunk} `),
      /127\.0\.0\.1/,
    )
  }
})

test('a flipped bit of the header never gives another model', async () => {
  const { header, model } = await load(bytes)
  model.close()
  const copy = Uint8Array.from(bytes)
  for (let at = 0; at < header.dataOffset; at += 13) {
    copy[at] = Number(copy[at]) ^ 1
    try {
      const changed = await load(copy)
      assert.notEqual(changed.header.identity, header.identity)
      changed.model.close()
    } catch (error) {
      assert.ok(error instanceof BmError, `byte ${at}: ${error}`)
      assert.ok(['format', 'integrity', 'config', 'network'].includes(error.code), error.code)
    }
    copy[at] = Number(copy[at]) ^ 1
  }
})

test('bytes after the end are refused', async () => {
  await fails(server.url('trailing'), 'format', /after the end/)
})

test('a length in the header that no file has allocates nothing', async () => {
  const evil = Uint8Array.from(bytes.subarray(0, 4096))
  new DataView(evil.buffer).setBigUint64(0, 0x7fffffffffffffffn, true)
  await fails(evil, 'format', /header length/)
})

test('progress goes up to the end, and not too often', async () => {
  /** @type {import('../../js/load-meter.js').Progress[]} */
  const reports = []
  const began = performance.now()
  const onProgress = (/** @type {import('../../js/load-meter.js').Progress} */ report) =>
    void reports.push(report)
  const { model } = await loadDescribed(describeSource(server.url('ok')), onProgress)
  model.close()
  const tenths = (performance.now() - began) / 100
  assert.ok(
    reports.length <= tenths + 2,
    `${reports.length} reports in ${tenths} tenths of a second`,
  )
  const { bytesPerSecond, etaMs, ...last } = reports.at(-1) ?? assert.fail('no report')
  assert.deepEqual(last, {
    phase: 'ready',
    loadedBytes: bytes.length,
    totalBytes: bytes.length,
    cachedBytes: 0,
  })
  assert.ok(bytesPerSecond === null || bytesPerSecond > 0)
  assert.ok(!etaMs)
  for (const [i, { loadedBytes, totalBytes }] of reports.entries()) {
    assert.equal(totalBytes, bytes.length)
    assert.ok(loadedBytes >= Number(reports[i - 1]?.loadedBytes ?? 0))
  }
})

test('an abort ends a stalled download, closes its socket and gives the reason', async () => {
  const reason = new Error('enough')
  for (const inline of [true, false]) {
    const controller = new AbortController()
    const began = performance.now()
    setTimeout(() => controller.abort(reason), 50)
    const loading = BiMamba.load(server.url('stall', 100000), {
      inline,
      cache: 'off',
      signal: controller.signal,
    })
    await assert.rejects(loading, (error) => error === reason)
    assert.ok(performance.now() - began < 5000)
  }
  await assert.rejects(BiMamba.load(path, { signal: AbortSignal.abort(reason) }), reason)
  // Node's fetch takes a few seconds to drop an aborted connection.
  for (let wait = 0; server.sockets() > 0 && wait < 100; wait++) {
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
  assert.equal(server.sockets(), 0)
})

test('memory that cannot be had is an error of its own, and the engine lives on', async () => {
  const header = await import('../../js/format.js').then(({ parseHeader }) =>
    parseHeader(bytes, core),
  )
  const config = { ...header.config, n_layer: 256, d_model: 16384 }
  assert.throws(() => core.createModel(config), { code: 'memory' })
  const { model } = await load(path)
  model.close()
})
