/**
 * The installed package in a real page: no bundler, relative URLs, a strict Content-Security-Policy.
 *
 * Owns what a page must see: the text that Node generates from the same seed, errors with their codes,
 * streams that stop. The lines given to `evaluate` run in the page, where plain-page.js has left the
 * package's names.
 */

import assert from 'node:assert/strict'
import { copyFile, open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { MODEL_FILE } from '../js/support/model-file.js'
import { tinyModel } from '../js/support/tiny-model.js'
import { launchChromium } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** @typedef {typeof import('../../js/index.js')} Package */
/** @typedef {{ BiMamba: Package['BiMamba'], BmError: Package['BmError'] }} PageNames */
/** @typedef {Awaited<ReturnType<typeof startPageServer>>} PageServer */

const PROMPT = 'Once upon a time'
const OPTIONS = { maxTokens: 40, temperature: 0.9, topK: 40, topP: 0.95, seed: 11 }

/** @type {{ name: string, inline: boolean, isolated: boolean }[]} */
const MODES = [
  { name: 'in a worker', inline: false, isolated: false },
  { name: 'in a worker of a cross-origin isolated page', inline: false, isolated: true },
  { name: 'inline', inline: true, isolated: false },
  { name: 'inline in a cross-origin isolated page', inline: true, isolated: true },
]

/** @type {Awaited<ReturnType<typeof installSite>>} */
let installed
/** @type {import('playwright-core').Browser} */
let browser
/** @type {PageServer} */
let plain
/** @type {PageServer} */
let isolatedServer

before(async () => {
  installed = await installSite()
  const { folders } = installed
  await writeDamagedModels(folders.models)
  plain = await startPageServer({ folders })
  isolatedServer = await startPageServer({ folders, isolated: true })
  browser = await launchChromium()
})

after(async () => {
  await browser?.close()
  await plain?.close()
  await isolatedServer?.close()
  await installed?.remove()
})

/**
 * One file that ends early, and one with a single bit of its last weights turned.
 * @param {string} folder that has good.safetensors
 */
async function writeDamagedModels(folder) {
  const bytes = await readFile(join(folder, 'good.safetensors'))
  await writeFile(join(folder, 'short.safetensors'), bytes.subarray(0, bytes.length - 1))
  await writeFile(join(folder, 'flipped.safetensors'), bytes)
  const file = await open(join(folder, 'flipped.safetensors'), 'r+')
  await file.write(Uint8Array.of((bytes.at(-9) ?? 0) ^ 1), 0, 1, bytes.length - 9)
  await file.close()
}

/**
 * Opens the plain page; the test fails on anything the page complains about.
 * @param {PageServer} server
 * @param {import('playwright-core').Browser} [from]
 */
async function openPage(server, from = browser) {
  const page = await from.newPage()
  /** @type {string[]} */
  const complaints = []
  page.on('pageerror', (error) => complaints.push(error.message))
  page.on('console', (message) => {
    // Chromium itself reports every 404 as an error; one test asks for such a file.
    if (message.type() === 'error' && !message.text().includes('404'))
      complaints.push(message.text())
  })
  // Errors of workers that nobody caught arrive here alone.
  await page.addInitScript(() => {
    addEventListener('error', ({ message }) => console.error(`not caught: ${message}`))
  })
  await page.goto(`${server.url}/page/plain-page.html`)
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  return { page, complaints }
}

/** What Node generates, with the same installed package. */
async function generateInNode() {
  const entry = pathToFileURL(join(installed.project, 'node_modules/bimamba/js/index.js'))
  const { BiMamba } = /** @type {Package} */ (await import(entry.href))
  const model = await BiMamba.load(MODEL_FILE)
  let text = ''
  for await (const piece of model.generate(PROMPT, OPTIONS)) text += piece
  await model.close()
  return text
}

/**
 * Workers of a page, once they have had some seconds to end: a browser ends a worker's own workers after it.
 * @param {import('playwright-core').Page} page
 */
async function workersLeft(page) {
  for (let i = 0; i < 100 && page.workers().length > 0; i++) await page.waitForTimeout(50)
  return page.workers().length
}

test('a page generates texts of a format, under its strict policy', async () => {
  const { page, complaints } = await openPage(plain)
  const texts = await page.evaluate(async () => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const model = await BiMamba.load('../models/good.safetensors')
    const jsonSchema = { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 4 }
    const found = []
    for (const format of [
      { jsonSchema },
      { regex: '[é日]{4}' },
      { grammar: 'root ::= "a" "b"+' },
    ]) {
      let text = ''
      for await (const piece of model.generate('x', { format, maxTokens: 300 })) text += piece
      found.push(text)
    }
    await model.close()
    return found
  })
  assert.ok(JSON.parse(texts[0] ?? '').length >= 2)
  assert.match(texts[1] ?? '', /^[é日]{4}$/)
  assert.match(texts[2] ?? '', /^ab+$/)
  assert.deepEqual(complaints, [])
  await page.close()
})

for (const { name, inline, isolated } of MODES) {
  test(`${name}, a page generates the text that Node generates`, async () => {
    const { page, complaints } = await openPage(isolated ? isolatedServer : plain)
    const found = await page.evaluate(
      async ({ prompt, options, inline }) => {
        const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
        const model = await BiMamba.load('../models/good.safetensors', { inline, threads: 3 })
        let text = ''
        for await (const piece of model.generate(prompt, options)) text += piece
        const { threads } = model.info
        const ids = await model.tokenize(prompt)
        const again = await model.detokenize(ids)
        await model.close()
        return { text, again, threads, isolated: crossOriginIsolated }
      },
      { prompt: PROMPT, options: OPTIONS, inline },
    )
    assert.equal(found.isolated, isolated)
    assert.equal(found.threads, isolated && !inline ? 3 : 1)
    assert.ok(found.text.length > 0)
    assert.equal(found.text, await generateInNode())
    assert.equal(found.again, PROMPT)
    assert.equal(await workersLeft(page), 0, 'close() ends the worker and its threads')
    assert.deepEqual(complaints, [])
    await page.close()
  })
}

/** What a page asks for, the code of the error it must get, and what the message must name. */
const FAULTS = [
  { file: 'missing.safetensors', options: {}, code: 'network', names: /404/ },
  { file: '../page/plain-page.html', options: {}, code: 'format', names: /HTML/i },
  { file: 'short.safetensors', options: { retryDelayMs: 5 }, code: 'network', names: /truncated/ },
  { file: 'flipped.safetensors', options: {}, code: 'integrity', names: /chunk/i },
  { file: 'good.safetensors', options: { precision: 'low' }, code: 'argument', names: /precision/ },
]

for (const { file, options, code, names } of FAULTS) {
  for (const inline of [false, true]) {
    const where = inline ? 'inline' : 'through the worker'
    test(`loading ${file} ${JSON.stringify(options)} fails with ${code}, ${where}`, async () => {
      const { page, complaints } = await openPage(plain)
      const found = await page.evaluate(findLoadError, { file, options: { ...options, inline } })
      assert.ok(found.isBmError, `${found.name}: ${found.message}`)
      assert.equal(found.code, code, found.message)
      assert.match(found.message, names)
      assert.deepEqual(complaints, [])
      await page.close()
    })
  }
}

/**
 * Runs in the page: what `load` throws.
 * @param {{ file: string, options: object }} request
 */
async function findLoadError({ file, options }) {
  const { BiMamba, BmError } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
  try {
    await BiMamba.load(`../models/${file}`, options)
    return { isBmError: false, code: '', name: 'nothing', message: 'it loaded' }
  } catch (error) {
    const { name, message } = /** @type {Error} */ (error)
    const code = error instanceof BmError ? error.code : ''
    return { isBmError: error instanceof BmError, code, name, message }
  }
}

for (const [entry, isolated] of /** @type {const} */ ([
  ['js/index.js', true],
  ['dist/bimamba.js', true],
  ['dist/bimamba.js', false],
])) {
  test(`a page that imports ${entry} from another origin, ${isolated ? 'isolated, with threads' : 'as it is'}`, async (t) => {
    const { folders } = installed
    const packages = await startPageServer({ folders, forOthers: true, policy: null })
    const own = await startPageServer({ folders, isolated, policy: null })
    t.after(() => Promise.all([packages.close(), own.close()]))
    const { page, complaints } = await openPage(own)
    const found = await page.evaluate(
      async ({ entry, prompt, options }) => {
        const { BiMamba } = /** @type {Package} */ (await import(entry))
        let text = ''
        const model = await BiMamba.load('../models/good.safetensors', { threads: 2 })
        for await (const piece of model.generate(prompt, options)) text += piece
        const { info } = model
        await model.close()
        return { text, threads: info.threads, store: info.cache?.store }
      },
      { entry: `${packages.url}/package/${entry}`, prompt: PROMPT, options: OPTIONS },
    )
    assert.equal(found.text, await generateInNode())
    assert.deepEqual([found.threads, found.store], [isolated ? 2 : 1, 'opfs'])
    assert.equal(await workersLeft(page), 0)
    assert.deepEqual(complaints, [])
    await page.close()
  })
}

test('a page without a bundler gets the package in a few files', async () => {
  const page = await browser.newPage()
  /** @type {string[]} */
  const scripts = []
  page.context().on('request', (request) => {
    const { pathname } = new URL(request.url())
    if (/\.m?js$/.test(pathname)) scripts.push(pathname)
  })
  await page.goto(`${isolatedServer.url}/page/plain-page.html`)
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  const text = await page.evaluate(async (prompt) => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const model = await BiMamba.load('../models/good.safetensors', { threads: 2 })
    let text = ''
    for await (const piece of model.generate(prompt, { maxTokens: 8 })) text += piece
    await model.close()
    return text
  }, PROMPT)
  assert.notEqual(text, '')
  assert.ok(scripts.includes('/package/dist/worker.js'), scripts.join(' '))
  assert.ok(scripts.includes('/package/dist/thread.js'), scripts.join(' '))
  assert.deepEqual(
    scripts.filter((path) => path.startsWith('/package/js/')),
    [],
  )
  assert.ok(scripts.length <= 14, scripts.join(' '))
  await page.close()
})

test('a worker of another origin that the page, or that origin, does not allow: a reason', async () => {
  for (const [server, workerUrl] of [
    [plain, `${isolatedServer.url}/package/dist/worker.js`],
    [isolatedServer, `${plain.url}/package/dist/worker.js`],
  ]) {
    const { page } = await openPage(/** @type {PageServer} */ (server))
    const request = { file: 'good.safetensors', options: { workerUrl } }
    const { code, message } = await page.evaluate(findLoadError, request)
    assert.equal(code, 'internal', message)
    assert.ok(
      message.includes(`no worker starts from ${workerUrl}: it is of another origin`),
      message,
    )
    await page.close()
  }
})

test('a script that is not there, or throws, is one error with its name, and no other', async () => {
  for (const [options, names] of /** @type {const} */ ([
    [{ workerUrl: '../page/missing.js' }, /worker died: no worker starts from http:.*missing\.js$/],
    [
      { threadUrl: '../page/missing.js', threads: 2 },
      /thread .*died: no worker starts from .*missing\.js$/,
    ],
    [{ workerUrl: '../package/dist/thread.js' }, /worker died: .*TypeError/],
  ])) {
    const { page, complaints } = await openPage(isolatedServer)
    const found = await page.evaluate(findLoadError, { file: 'good.safetensors', options })
    assert.equal(found.code, 'internal', `${found.name}: ${found.message}`)
    assert.match(found.message, names)
    // What nobody caught is reported after the one error.
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve)))
    assert.deepEqual(complaints, [])
    await page.close()
  }
})

test('inline, an abort arrives from a page that pulls without a pause', async () => {
  const { page, complaints } = await openPage(plain)
  const found = await page.evaluate(async (prompt) => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const model = await BiMamba.load('../models/good.safetensors', { inline: true })
    let frames = 0
    const count = () => {
      frames++
      requestAnimationFrame(count)
    }
    count()
    const signal = AbortSignal.timeout(700)
    // So hot that every token is as likely as the one that ends a text; when one ends, the next begins.
    const options = { signal, temperature: 100, maxTokens: 20000, topK: 0, topP: 1 }
    let name = ''
    try {
      for (let seed = 1; ; seed++)
        for await (const _ of model.generate(prompt, { ...options, seed }));
    } catch (error) {
      name = /** @type {Error} */ (error).name
    }
    await model.close()
    return { name, frames }
  }, PROMPT)
  assert.equal(found.name, 'TimeoutError')
  assert.ok(found.frames > 3, `${found.frames} frames`)
  assert.deepEqual(complaints, [])
  await page.close()
})

test('a page loads from an address, a URL, bytes, a Blob and a File, in a worker and inline', async () => {
  const { page, complaints } = await openPage(plain)
  const found = await page.evaluate(async () => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const file = '../models/good.safetensors'
    const buffer = await (await fetch(file)).arrayBuffer()
    const bytes = new Uint8Array(buffer)
    // An address means what it means everywhere else in a page.
    const base = document.createElement('base')
    base.href = '/models/deep/'
    document.head.append(base)
    const places = ['../good.safetensors', '/models/good.safetensors', new URL(file, location.href)]
    const sources = [...places, buffer, bytes, new Blob([bytes]), new File([bytes], 'model')]
    const identities = []
    for (const inline of [false, true]) {
      for (const source of sources) {
        const model = await BiMamba.load(source, { inline })
        identities.push(model.info.identity)
        await model.close()
      }
    }
    return { identities, left: bytes.length }
  })
  assert.equal(found.identities.length, 14)
  assert.equal(new Set(found.identities).size, 1)
  assert.equal(found.left, (await readFile(MODEL_FILE)).length)
  assert.deepEqual(complaints, [])
  await page.close()
})

test('an abort is seen in the middle of a long prompt', async () => {
  const { page, complaints } = await openPage(plain)
  const found = await page.evaluate(async () => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const times = []
    for (const inline of [false, true]) {
      const model = await BiMamba.load('../models/good.safetensors', { inline })
      const began = performance.now()
      const text = model.generate(Array(10000000).fill(5), { signal: AbortSignal.timeout(1000) })
      const name = await text.next().catch((error) => error.name)
      times.push({ name, ms: performance.now() - began })
      await model.close()
    }
    return times
  })
  for (const { name, ms } of found) {
    assert.equal(name, 'TimeoutError')
    assert.ok(ms < 3000, `${ms} ms`)
  }
  assert.deepEqual(complaints, [])
  await page.close()
})

test('a page stops a stream by break and by abort, and generates again', async () => {
  const { page, complaints } = await openPage(plain)
  const found = await page.evaluate(
    async ({ prompt, options }) => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      const model = await BiMamba.load('../models/good.safetensors')
      const whole = async () => {
        let text = ''
        for await (const piece of model.generate(prompt, options)) text += piece
        return text
      }
      const first = await whole()
      for await (const _ of model.generate(prompt, options)) break
      const afterBreak = await whole()
      const stop = new AbortController()
      let reason = ''
      try {
        const request = { ...options, signal: stop.signal }
        for await (const _ of model.generate(prompt, request)) stop.abort(new Error('enough'))
      } catch (error) {
        reason = /** @type {Error} */ (error).message
      }
      const afterAbort = await whole()
      await model.close()
      await model.close()
      const code = await whole().catch((error) => error.code)
      return { first, afterBreak, afterAbort, reason, code }
    },
    { prompt: PROMPT, options: OPTIONS },
  )
  assert.equal(found.afterBreak, found.first)
  assert.equal(found.afterAbort, found.first)
  assert.equal(found.reason, 'enough')
  assert.equal(found.code, 'closed')
  assert.deepEqual(complaints, [])
  await page.close()
})

test('a page that has too little memory for a model is told so', async () => {
  const large = await tinyModel({ config: { n_layer: 8, d_model: 512, d_state: 64 } })
  await copyFile(large, join(installed.project, 'models/large.safetensors'))
  // 33 pages of 64 KiB: enough for the module itself, not for 4 MB of weights and state.
  const small = await launchChromium(['--js-flags=--wasm-max-mem-pages=33'])
  try {
    const { page } = await openPage(plain, small)
    const found = await page.evaluate(findLoadError, { file: 'large.safetensors', options: {} })
    assert.equal(found.code, 'memory', `${found.name}: ${found.message}`)
  } finally {
    await small.close()
  }
})

test('without WebAssembly SIMD there is one clear error', async () => {
  // V8 has no SIMD in WebAssembly on a processor without SSE4.1: this flag makes it such a one.
  const old = await launchChromium(['--js-flags=--no-enable-sse4-1'])
  try {
    for (const inline of [false, true]) {
      const { page } = await openPage(plain, old)
      const found = await page.evaluate(findLoadError, {
        file: 'good.safetensors',
        options: { inline },
      })
      assert.equal(found.code, 'unsupported', `${found.name}: ${found.message}`)
      assert.match(found.message, /SIMD/)
    }
  } finally {
    await old.close()
  }
})
