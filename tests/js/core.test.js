/**
 * The boundary of the engine: numbers that would change on their way to C, handles used after their end, modules that
 * are none, and the constants that JavaScript and C must agree on.
 */

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Core } from '../../js/core.js'
import { openPacked } from './support/packed-engine.js'
import { tinyModel } from './support/tiny-model.js'

/** @typedef {import('../../js/core-model.js').CoreModel} CoreModel */

const DIST = fileURLToPath(new URL('../../dist/', import.meta.url))
const MODULES = /** @type {const} */ ({ 'bimamba.wasm': [], 'bimamba-threads.wasm': ['memory'] })

const folder = mkdtempSync(join(tmpdir(), 'bimamba-core-'))
after(() => rmSync(folder, { recursive: true, force: true }))

/** @type {Core} */
let core
/** @type {string} */
let path

before(async () => {
  path = await tinyModel()
  core = await Core.create()
})

const open = async () => (await openPacked(core, path)).model

/**
 * @param {() => unknown} act
 * @param {string} code
 * @param {RegExp} message
 */
const refuses = (act, code, message) => assert.throws(act, { name: 'BmError', code, message })

test('each module is small and imports what it must', () => {
  for (const [name, memory] of Object.entries(MODULES)) {
    const bytes = readFileSync(join(DIST, name))
    assert(bytes.length < 150_000, `${name}: ${bytes.length} bytes`)
    const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes))
    assert.deepEqual(
      imports.map((entry) => `${entry.module}.${entry.name}`).sort(),
      ['emscripten_notify_memory_growth', ...memory].map((entry) => `env.${entry}`).sort(),
    )
  }
})

test('JavaScript and C number their types alike', () => {
  const header = readFileSync(new URL('../../src/bm.h', import.meta.url), 'utf8')
  const boundary = ['core', 'core-model']
    .map((name) => readFileSync(new URL(`../../js/${name}.js`, import.meta.url), 'utf8'))
    .join('\n')
  /** @param {RegExp} body of an enum @returns {string[]} its names */
  const enumOf = (body) => {
    const names = body.exec(header)?.[1]?.replace(/\/\*.*?\*\//gs, '')
    return [...(names ?? '').matchAll(/BM_(\w+)/g)].map(([, name]) => String(name))
  }
  /** @param {string} name of a list in js/core.js @returns {string[]} */
  const listOf = (name) =>
    [...(RegExp(`${name} = .*?\\[(.*?)\\]`).exec(boundary)?.[1] ?? '').matchAll(/'(\w+)'/g)].map(
      ([, entry]) => String(entry),
    )
  const dtypes = enumOf(/typedef enum \{([^}]*)\} bm_dtype;/)
  assert.deepEqual(listOf('DTYPES'), dtypes)
  const [, ...states] = /STATE_DTYPES = \{ i8: (\d), f32: (\d), i16: (\d) \}/.exec(boundary) ?? []
  assert.deepEqual(
    states.map((number) => dtypes[Number(number)]),
    ['I8', 'F32', 'I16'],
  )
  assert.deepEqual(
    [...listOf('PRECISIONS'), 'precision_count'],
    enumOf(/typedef enum \{([^}]*)\} bm_precision;/).map((name) => name.toLowerCase()),
  )
  assert.deepEqual(
    [...listOf('HEADS'), 'count'],
    enumOf(/typedef enum \{([^}]*)\} bm_head;/).map((name) => name.toLowerCase().slice(5)),
  )
  const meaning = {
    OK: 'internal',
    E_ARGUMENT: 'argument',
    E_CONFIG: 'config',
    E_MEMORY: 'memory',
    E_ORDER: 'internal',
    E_NONFINITE: 'format',
    E_NUMERIC: 'numeric',
  }
  const statuses = enumOf(/typedef enum \{([^}]*)\} bm_status;/)
  assert.deepEqual(statuses, Object.keys(meaning))
  assert.deepEqual(listOf('STATUS_CODES'), Object.values(meaning))
  assert.match(boundary, /MAX_THREADS = 64\n/)
  assert.match(header, /BM_MAX_THREADS = 64 /)
})

test('numbers that are not what C would make of them are refused, and nothing changes', async () => {
  const model = await open()
  for (const maxChunk of [0, -1, 1.5, 1025, Number.NaN, 2 ** 32 + 4]) {
    refuses(() => model.createSession({ maxChunk }), 'argument', /maxChunk is .*from 1 to 1024/)
  }
  const session = model.createSession({ maxChunk: 8 })
  session.append([5, 6])
  const logits = session.logits()
  const { vocabSize } = session
  for (const id of [
    -1,
    1.5,
    Number.NaN,
    vocabSize,
    2 ** 32,
    2 ** 32 + 5,
    Number.POSITIVE_INFINITY,
  ]) {
    refuses(() => session.append([7, id]), 'argument', /token id 1 is .*from 0 to \d+/)
    refuses(() => session.logprob(-1, id), 'argument', /token id is .*from 0 to \d+/)
  }
  for (const id of ['5', null, true]) {
    refuses(() => session.append(/** @type {never} */ ([id])), 'argument', /token id 0 is /)
  }
  const byte = new Uint8Array(1)
  for (const wrong of [-1, 0.5, Number.NaN, 2 ** 53]) {
    refuses(() => model.seal(wrong), 'argument', /part is .*from 0 to 3/)
    refuses(() => model.write(wrong, 0, byte), 'argument', /tensor index is /)
    refuses(() => model.write(0, wrong, byte), 'argument', /offset is /)
  }
  for (const index of [2, -3, 0.5, Number.NaN]) {
    refuses(() => session.logits(index), 'argument', /the last append had 2/)
  }
  refuses(() => session.append([]), 'argument', /0 tokens in one append, want 1 to 8/)
  refuses(() => session.append(Array(9).fill(1)), 'argument', /9 tokens in one append, want 1 to 8/)
  assert.equal(session.position, 2)
  assert.deepEqual(session.logits(), logits)
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 }
  const penalty = { repetitionPenalty: 1, repetitionWindow: 8 }
  for (const [name, value] of /** @type {[string, number][]} */ ([
    ['topK', 1.5],
    ['topK', 2 ** 32],
    ['repetitionWindow', -1],
    ['seed', -1],
    ['seed', 0.5],
  ])) {
    const wrong = { ...sampling, ...penalty, [name]: value }
    refuses(() => session.createSampler(wrong), 'argument', RegExp(`${name} is ${value}, want`))
  }
  const sampler = session.createSampler({ ...sampling, ...penalty })
  for (const id of [-1, 0.5, 2 ** 32 + 5, vocabSize]) {
    refuses(() => sampler.accept(id), 'argument', /token id is .*from 0 to/)
  }
  sampler.close()
  refuses(() => core.stageBytes(new Uint8Array(core.stagingBytes + 1)), 'argument', /at most/)
  refuses(() => core.stageIds(Array(core.stagingBytes / 4 + 1).fill(0)), 'argument', /at most/)
  model.close()
})

test('what was closed is refused, in any order', async () => {
  const model = await open()
  const session = model.createSession()
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 }
  const sampler = session.createSampler({
    ...sampling,
    repetitionPenalty: 1,
    repetitionWindow: 0,
  })
  session.append([1])
  model.close()
  model.close()
  for (const act of [
    () => session.append([1]),
    () => session.logits(),
    () => session.reset(),
    () => session.position,
    () => sampler.sample(),
    () => model.createSession(),
    () => model.seal(0),
    () => model.write(0, 0, new Uint8Array(1)),
  ]) {
    refuses(act, 'closed', /was closed/)
  }
  session.close()
  sampler.close()
  sampler.close()
  refuses(() => sampler.accept(1), 'closed', /sampler was closed/)
})

test('closing a session frees it, and only it', async () => {
  const model = await open()
  const [first, second] = [model.createSession(), model.createSession()]
  first.append([3])
  second.append([3])
  const logits = second.logits()
  first.close()
  first.close()
  assert.deepEqual(second.logits(), logits)
  model.close()
})

test('above 2 GiB, where addresses are negative to WebAssembly, a state is copied as anywhere', async () => {
  const high = await Core.create()
  const low = (await openPacked(high, path)).model.createSession()
  low.append([3, 1])
  // Blocks that nobody touches; smaller ones fill what is left below.
  for (let bytes = 2 ** 28; bytes >= 64; bytes /= 2) {
    while (high.pointer('block_create', bytes) < 2 ** 31);
  }
  const { model } = await openPacked(high, path)
  const [first, second] = [model.createSession(), model.createSession()]
  assert.ok(first.handle >= 2 ** 31)
  first.append([3, 1])
  assert.deepEqual(first.state(), low.state())
  second.adopt(first, 2)
  assert.deepEqual(second.logits(), low.logits())
  second.reset()
  second.adopt(first.state(), 2)
  second.append([2])
  low.append([2])
  assert.deepEqual(second.logits(), low.logits())
})

test('a module may be given as bytes, compiled, by path or URL', async () => {
  const file = join(DIST, 'bimamba.wasm')
  const bytes = readFileSync(file)
  const compiled = await WebAssembly.compile(bytes)
  const here = relative(process.cwd(), file)
  for (const wasm of [bytes, compiled, file, here, new URL(`file://${file}`), `file://${file}`]) {
    assert.deepEqual((await Core.create({ wasm })).variants, core.variants)
  }
})

test('what is no module, or is not there, is named', async (t) => {
  const html = join(folder, 'page.wasm')
  writeFileSync(html, '<!doctype html><title>404</title>')
  const truncated = join(folder, 'truncated.wasm')
  writeFileSync(truncated, readFileSync(join(DIST, 'bimamba.wasm')).subarray(0, 40000))
  const foreign = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 97, 1, 98, 0, 0,
  ])
  // Imports `env.surprise`, exports a function `_initialize`.
  const ownNeedsMore = new Uint8Array([
    ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0],
    ...[2, 16, 1, 3, ...Buffer.from('env'), 8, ...Buffer.from('surprise'), 0, 0],
    ...[7, 15, 1, 11, ...Buffer.from('_initialize'), 0, 0],
  ])
  const server = createServer((request, response) => {
    if (request.url === '/gone.wasm') response.writeHead(404)
    response.end('<!doctype html>')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(null)))
  t.after(() => server.close())
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  /** @type {[import('../../js/wasm-module.js').WasmSource, string, RegExp][]} */
  const cases = [
    [html, 'unsupported', /page\.wasm: no WebAssembly module/],
    [truncated, 'unsupported', /truncated\.wasm: no WebAssembly module/],
    [new Uint8Array(0), 'unsupported', /^0 bytes: no WebAssembly module/],
    [foreign, 'unsupported', /^23 bytes: a WebAssembly module of something else/],
    [await WebAssembly.compile(foreign), 'unsupported', /^the module: .* something else/],
    [ownNeedsMore, 'unsupported', /^\d+ bytes: does not start: .*surprise/],
    [join(folder, 'absent.wasm'), 'io', /absent\.wasm: ENOENT/],
    ['http://', 'argument', /'http:\/\/' is not a URL/],
    ['C:\\absent.wasm', 'io', /absent\.wasm: ENOENT/],
    [`http://127.0.0.1:${port}/gone.wasm`, 'network', /gone\.wasm: 404/],
    [`http://127.0.0.1:${port}/page`, 'unsupported', /page: no WebAssembly module/],
    [
      'http://127.0.0.1:1/x.wasm',
      'network',
      /GET http:\/\/127\.0\.0\.1:1\/x\.wasm: .*(bad port|ECONNREFUSED)/,
    ],
    ['ftp://127.0.0.1/x.wasm', 'network', /GET ftp:/],
  ]
  for (const [wasm, code, message] of cases) {
    await assert.rejects(Core.create({ wasm }), { name: 'BmError', code, message }, String(message))
  }
})
