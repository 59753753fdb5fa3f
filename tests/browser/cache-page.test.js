/**
 * Downloads in real Chromium: every fault, where files are kept, two tabs, tabs that die, quotas, storage that is cleared.
 *
 * Owns what a page must see. Pages and files come from different origins, as they mostly do; the file server answers no preflight.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BiMamba as NodeBiMamba } from '../../js/index.js'
import { CHUNK_BYTES, chunkedModel } from '../js/support/chunked-model.js'
import { LASTING, PASSING } from '../js/support/fault-cases.js'
import { startFaultServer } from '../js/support/fault-server.js'
import { launchChromium, launchPersistent } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** @typedef {typeof import('../../js/index.js')} Package */
/** @typedef {{ BiMamba: Package['BiMamba'], BmError: Package['BmError'] }} PageNames */
/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('playwright-core').BrowserContext} BrowserContext */

const QUICK = { retries: 3, retryDelayMs: 5, stallTimeoutMs: 1000 }
const IDS = [1, 5, 900, 67000, 3]

/** @type {Awaited<ReturnType<typeof installSite>>} */
let installed
/** @type {Awaited<ReturnType<typeof chunkedModel>>} */
let model
/** @type {Awaited<ReturnType<typeof startFaultServer>>} */
let server
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let pages
/** @type {import('playwright-core').Browser} */
let browser
/** @type {(number | null)[]} */
let scores = []

before(async () => {
  installed = await installSite()
  model = await chunkedModel()
  server = await startFaultServer(model.bytes)
  const { folders } = installed
  pages = await startPageServer({ folders, connect: '*' })
  browser = await launchChromium()
  const loaded = await NodeBiMamba.load(model.path)
  scores = await loaded.score(IDS)
  await loaded.close()
})

after(async () => {
  await browser?.close()
  await pages?.close()
  await server?.close()
  await installed?.remove()
})

/**
 * A page with the package; the test fails on anything it complains about that is not a failed request.
 * @param {BrowserContext} context
 */
async function openPage(context) {
  const page = await context.newPage()
  page.on('pageerror', (error) => assert.fail(`the page complains: ${error.message}`))
  await page.goto(`${pages.url}/page/plain-page.html`)
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  return page
}

/** A page of its own with nothing kept. @param {import('node:test').TestContext} t */
async function freshPage(t) {
  const context = await browser.newContext()
  t.after(() => context.close())
  return { page: await openPage(context), context }
}

/** What can cross to a page. @typedef {Omit<import('../../js/settings.js').LoadOptions, 'fetch' | 'onProgress' | 'signal' | 'draftModel'>} PageOptions */
/** @typedef {{ error: null, scores: (number | null)[], cache: import('../../js/download.js').CacheReport | null }} Loaded */
/** @typedef {{ error: string, code: string }} Failed */

/**
 * Loads in a page.
 * @param {Page} page @param {string} url @param {PageOptions} [options]
 * @returns {Promise<Loaded | Failed>}
 */
function load(page, url, options = {}) {
  return page.evaluate(
    async ({ url, options, ids }) => {
      const { BiMamba, BmError } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      try {
        const loaded = await BiMamba.load(url, options)
        const found = await loaded.score(ids)
        const { cache } = loaded.info
        await loaded.close()
        return { error: null, scores: found, cache }
      } catch (error) {
        const code = error instanceof BmError ? error.code : 'not ours'
        return { error: String(error), code }
      }
    },
    { url, options: { ...QUICK, ...options }, ids: IDS },
  )
}

/** @param {Page} page @param {string} url @param {PageOptions} [options] */
async function loads(page, url, options) {
  const found = await load(page, url, options)
  if (found.error !== null) assert.fail(`${url}: ${found.error}`)
  assert.deepEqual(found.scores, scores, url)
  return /** @type {import('../../js/download.js').CacheReport} */ (found.cache)
}

/** @param {Page} page */
const list = (page) =>
  page.evaluate(() =>
    /** @type {PageNames} */ (/** @type {unknown} */ (globalThis)).BiMamba.cache.list(),
  )

test('every fault that passes: the same model, in a worker and inline', async (t) => {
  for (const [i, [mode, params]] of PASSING.entries()) {
    const { page, context } = await freshPage(t)
    server.reset()
    const inline = i % 3 === 2
    const cache = await loads(page, server.url(mode, params), { inline })
    assert.equal(cache.store, inline ? 'cache' : 'opfs', mode)
    assert.equal(cache.note, null)
    assert.ok(
      server.requests.every(({ method }) => method === 'GET'),
      'no preflight',
    )
    const [kept] = await list(page)
    assert.equal(kept?.complete, true, mode)
    await context.close()
  }
})

test('every fault that stays: one error with its code, and nothing kept as whole', async (t) => {
  // A page of another origin cannot see a wrong total, and the bytes are right.
  const visible = LASTING.filter(([mode]) => mode !== 'wrongTotal')
  for (const [i, [mode, params, code, patterns]] of visible.entries()) {
    // Fresh, for what is right of a file is kept, whichever URL it came from.
    const { page, context } = await freshPage(t)
    const url = server.url(mode, params)
    const found = await load(page, url, { inline: i % 2 === 1 })
    assert.ok(found.error !== null, `${url}: it loaded`)
    assert.equal(found.code, code, found.error)
    // Totals, redirects and Retry-After are hidden from a page, so what is wrong is found later.
    const isHidden =
      ['wrongTotal', 'truncated', 'loop'].includes(mode) || params.retryAfter !== undefined
    for (const pattern of isHidden ? [/127\.0\.0\.1/] : patterns) assert.match(found.error, pattern)
    assert.ok((await list(page)).every(({ complete }) => !complete))
    await context.close()
  }
})

test('a server that allows no page of another origin: said within a second', async (t) => {
  const closed = await startFaultServer(model.bytes, { cors: false })
  t.after(() => closed.close())
  const { page } = await freshPage(t)
  const began = performance.now()
  const found = await load(page, closed.url('ok'), { retryDelayMs: 100 })
  assert.ok(found.error !== null && found.code === 'network')
  assert.match(found.error, /does not allow this page: CORS/)
  assert.ok(performance.now() - began < 1500)
})

test('a file that changes while it comes: one or the other, whole', async (t) => {
  const other = await chunkedModel(8)
  const changing = await startFaultServer(model.bytes, { other: other.bytes })
  t.after(() => changing.close())
  const loaded = await NodeBiMamba.load(other.path)
  const otherScores = await loaded.score(IDS)
  await loaded.close()
  for (const [i, n] of [1, 2, 4].entries()) {
    const { page, context } = await freshPage(t)
    const url = changing.url('swap', { n })
    const found = await load(page, url, { inline: i === 1, streams: 1 })
    assert.ok(found.error === null, String(found.error))
    assert.deepEqual(found.scores, otherScores)
    await context.close()
  }
})

test('a browser is asked to keep what a page has downloaded', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'bimamba-profile-'))
  const persistent = await launchPersistent(folder)
  t.after(async () => {
    await persistent.close()
    await rm(folder, { recursive: true, force: true })
  })
  const page = await openPage(persistent)
  const session = await persistent.newCDPSession(page)
  const isKept = () =>
    page.evaluate(async () => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      return (await BiMamba.cache.room()).persisted
    })
  assert.equal(await isKept(), false)
  const permission = { name: 'persistent-storage' }
  await session.send('Browser.setPermission', {
    origin: pages.url,
    permission,
    setting: 'granted',
  })
  await loads(page, server.url('ok'))
  for (let i = 0; i < 50 && !(await isKept()); i++) await page.waitForTimeout(50)
  assert.equal(await isKept(), true)
})

test('headers: Authorization follows no redirect, others refuse one', async (t) => {
  const permissive = await startFaultServer(model.bytes, { preflight: true })
  t.after(() => permissive.close())
  const { page } = await freshPage(t)
  const url = permissive.url('redirect', { hops: 2, to: 'localhost' })
  await loads(page, url, { headers: { Authorization: 'Bearer x' } })
  const foreign = permissive.requests.filter(({ host }) => host.startsWith('localhost'))
  assert.ok(foreign.length > 0)
  assert.ok(foreign.every(({ headers }) => headers.authorization === undefined))
  const found = await load(page, permissive.url('redirect', { to: 'localhost' }), {
    headers: { 'X-Key': 'secret' },
  })
  assert.ok(
    found.error !== null && /it redirects.*give the final URL/.test(found.error),
    String(found.error),
  )
  assert.ok(
    permissive.requests.every(({ host, headers }) => host.startsWith('127') || !headers['x-key']),
  )
})

test("the caller's own fetch runs in the page, for an engine in a worker", async (t) => {
  const { page } = await freshPage(t)
  const found = await page.evaluate(
    async ({ url, ids }) => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      let calls = 0
      /** @type {typeof globalThis.fetch} */
      const own = (input, init) => {
        calls++
        return fetch(input, init)
      }
      const loaded = await BiMamba.load(url, { fetch: own, cache: 'off' })
      const scores = await loaded.score(ids)
      await loaded.close()
      return { calls, scores }
    },
    { url: server.url('ok'), ids: IDS },
  )
  assert.ok(found.calls > 1)
  assert.deepEqual(found.scores, scores)
})

test('kept: no request at all, also offline; listed, sized and deleted', async (t) => {
  for (const inline of [false, true]) {
    const { page, context } = await freshPage(t)
    const url = server.url('ok')
    await loads(page, url, { inline })
    server.reset()
    const ofServer = (/** @type {URL} */ address) => address.port === String(server.port)
    await context.route(ofServer, (route) => route.abort('internetdisconnected'))
    const cache = await loads(page, url, { inline })
    assert.equal(cache.fetchedBytes, 0)
    const kept = await list(page)
    assert.deepEqual(
      kept.map(({ urls, store, complete }) => ({ urls, store, complete })),
      [{ urls: [url], store: inline ? 'cache' : 'opfs', complete: true }],
    )
    const freed = await page.evaluate(async (target) => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      const size = await BiMamba.cache.size()
      const { usedBytes, quotaBytes } = await BiMamba.cache.room()
      return { size, freed: await BiMamba.cache.delete(target), usedBytes, quotaBytes }
    }, url)
    assert.equal(freed.size, model.bytes.length)
    assert.equal(freed.freed, model.bytes.length)
    assert.ok(Number(freed.usedBytes) >= model.bytes.length && Number(freed.quotaBytes) > 0)
    assert.deepEqual(await list(page), [])
    assert.equal(server.requests.length, 0)
    const found = await load(page, url, { inline })
    assert.ok(found.error !== null && found.code === 'network')
    await context.close()
  }
})

test('a file handle is a source, in a worker and inline', async (t) => {
  const { page } = await freshPage(t)
  const found = await page.evaluate(
    async ({ url, ids }) => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      const handle = await (await navigator.storage.getDirectory()).getFileHandle('own', {
        create: true,
      })
      const writer = await handle.createWritable()
      await (await fetch(url)).body?.pipeTo(writer)
      const all = []
      for (const inline of [false, true]) {
        const loaded = await BiMamba.load(handle, { inline })
        all.push(await loaded.score(ids))
        await loaded.close()
      }
      return all
    },
    { url: server.url('ok'), ids: IDS },
  )
  assert.deepEqual(found, [scores, scores])
})

test('a page reads inline what a worker has kept', async (t) => {
  const { page } = await freshPage(t)
  const url = server.url('ok')
  await loads(page, url)
  server.reset()
  const cache = await loads(page, url, { inline: true })
  assert.equal(cache.store, 'opfs')
  assert.equal(server.requests.length, 0)
})

test('100 flipped bits in the origin private file system: only their chunks come again', async (t) => {
  const { page } = await freshPage(t)
  const url = server.url('ok')
  await loads(page, url)
  for (let round = 0; round < 25; round++) {
    const positions = [
      (round * 131) % model.dataOffset,
      model.dataOffset + round * 1000,
      model.dataOffset + CHUNK_BYTES * 2 + round * 77777,
      model.bytes.length - 1 - round * 999,
    ]
    await page.evaluate(flipBits, positions)
    server.reset()
    const cache = await loads(page, url)
    assert.equal(cache.repairedChunks, 3, `round ${round}`)
    assert.ok(
      cache.fetchedBytes < 2.2 * CHUNK_BYTES + 70000,
      `round ${round}: ${cache.fetchedBytes}`,
    )
  }
})

/** Runs in the page. @param {number[]} positions in the kept file */
async function flipBits(positions) {
  const root = await navigator.storage.getDirectory()
  const models = await (await root.getDirectoryHandle('bimamba')).getDirectoryHandle('models')
  for await (const folder of models.values()) {
    const handle = await /** @type {FileSystemDirectoryHandle} */ (folder).getFileHandle(
      'model.safetensors',
    )
    const file = await handle.getFile()
    const writer = await handle.createWritable({ keepExistingData: true })
    for (const position of positions) {
      const byte = new Uint8Array(await file.slice(position, position + 1).arrayBuffer())
      const data = Uint8Array.of(Number(byte[0]) ^ 4)
      await writer.write({ type: 'write', position, data })
    }
    await writer.close()
  }
}

test('a damaged journal, record or piece is mended', async (t) => {
  const { page } = await freshPage(t)
  const url = server.url('ok')
  await loads(page, url)
  for (const text of ['', 'rubbish', `${'0'.repeat(64)} 5\n0`]) {
    await page.evaluate(writeJournal, text)
    server.reset()
    const cache = await loads(page, url)
    assert.equal(cache.repairedChunks, 0, text)
    assert.equal(server.bytesServed(), 0, 'chunks that are right are not fetched')
    assert.equal((await list(page))[0]?.complete, true)
  }
  await loads(page, server.url('ok'), { inline: true, identity: '0'.repeat(64) }).catch(() => {})
})

/** Runs in the page. @param {string} text */
async function writeJournal(text) {
  const root = await navigator.storage.getDirectory()
  const models = await (await root.getDirectoryHandle('bimamba')).getDirectoryHandle('models')
  for await (const folder of models.values()) {
    const directory = /** @type {FileSystemDirectoryHandle} */ (folder)
    const writer = await (await directory.getFileHandle('journal')).createWritable()
    await writer.write(text)
    await writer.close()
  }
}

test('two tabs at once download once; the second takes over when the first is closed or crashes', async (t) => {
  for (const end of ['none', 'close', 'crash']) {
    const context = await browser.newContext()
    t.after(() => context.close())
    const [first, second] = [await openPage(context), await openPage(context)]
    const url = server.url('slow', { rate: 8e6 })
    server.reset()
    const one = load(first, url).catch(() => null)
    await first.waitForTimeout(600)
    const other = loads(second, url)
    await first.waitForTimeout(400)
    if (end === 'close') await first.close()
    if (end === 'crash') await crash(first)
    await other
    if (end === 'none') {
      const found = await one
      assert.ok(found && found.error === null, String(found?.error))
    }
    const twice = server.bytesServed() - model.bytes.length
    const allowed = end === 'none' ? 1.1 * CHUNK_BYTES : 5 * CHUNK_BYTES
    assert.ok(twice < allowed, `${end}: ${twice} bytes came twice`)
    assert.equal((await list(second))[0]?.complete, true)
    await context.close()
  }
})

/** @param {Page} page */
async function crash(page) {
  const session = await page.context().newCDPSession(page)
  page.on('crash', () => {})
  void session.send('Page.crash').catch(() => {})
  await new Promise((resolve) => page.once('crash', resolve))
}

test('a tab that was killed in the middle of it: the next one goes on', async (t) => {
  const context = await browser.newContext()
  t.after(() => context.close())
  const page = await openPage(context)
  const url = server.url('slow', { rate: 8e6 })
  void load(page, url, { streams: 1 }).catch(() => {})
  await page.waitForTimeout(1500)
  await crash(page)
  const next = await openPage(context)
  const cache = await loads(next, url)
  assert.ok(cache.cachedBytes >= CHUNK_BYTES, `${cache.cachedBytes} bytes were kept`)
})

test('a quota of 8 MB, in a private window and in a profile: from memory, and it is said once', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'bimamba-profile-'))
  const persistent = await launchPersistent(folder)
  const off = await browser.newContext()
  t.after(async () => {
    await persistent.close()
    await off.close()
    await rm(folder, { recursive: true, force: true })
  })
  for (const context of [off, persistent]) {
    for (const inline of [false, true]) {
      const page = await openPage(context)
      const session = await context.newCDPSession(page)
      await session.send('Storage.overrideQuotaForOrigin', { origin: pages.url, quotaSize: 8e6 })
      server.reset()
      const cache = await loads(page, server.url('ok'), { inline })
      assert.match(String(cache.note), /not kept, and the model runs from memory/)
      assert.equal(cache.store, null)
      assert.deepEqual(await list(page), [], 'what filled it is gone')
      const twice = server.bytesServed() - model.bytes.length
      assert.ok(twice < CHUNK_BYTES, `${twice} bytes came twice`)
      await page.close()
    }
  }
})

test('storage that is cleared in the middle of a download, and under a running model', async (t) => {
  const { page, context } = await freshPage(t)
  const session = await context.newCDPSession(page)
  const clear = () =>
    session.send('Storage.clearDataForOrigin', { origin: pages.url, storageTypes: 'all' })
  const url = server.url('slow', { rate: 10e6 })
  const loading = loads(page, url)
  await page.waitForTimeout(900)
  await clear()
  await loading
  await loads(page, server.url('ok'))
  const running = page.evaluate(async (target) => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const loaded = await BiMamba.load(target)
    let tokens = 0
    for await (const _ of loaded.generateIds([1], { maxTokens: 300, seed: 3 })) tokens++
    await loaded.close()
    return tokens
  }, url)
  await clear()
  assert.ok((await running) > 0)
  await clear()
  assert.deepEqual(await list(page), [])
  await loads(page, url)
})

test('a load takes the weights and less than 64 MB more of the memory of its process', async (t) => {
  const { page } = await freshPage(t)
  const session = await browser.newBrowserCDPSession()
  const peak = async () => {
    const { processInfo } = await session.send('SystemInfo.getProcessInfo')
    const renderers = processInfo
      .filter(({ type }) => type === 'renderer')
      .map(({ id }) => peakOf(id))
    return Math.max(...renderers)
  }
  const large = await startFaultServer(model.bytes)
  t.after(() => large.close())
  await loads(page, server.url('norange'), { cache: 'off' })
  await page.reload()
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  const before = await peak()
  await loads(page, large.url('ok'))
  const grown = (await peak()) - before
  assert.ok(grown <= model.bytes.length + 64e6, `${grown} bytes for ${model.bytes.length}`)
})

/** @param {number} pid @returns {number} most resident bytes so far */
function peakOf(pid) {
  const [, kilobytes] =
    /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kilobytes) * 1024
}
