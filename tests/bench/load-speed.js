/**
 * `npm run bench:load -- [--shape 780M] [--rounds 5] [--prompt 200] [--rate 10]`: how long a model takes to arrive.
 *
 * Owns two measurements, in Node and in Chromium, all with random weights in a published shape and a server of its own on 127.0.0.1:
 *   warm    from the kept file (disk, or the origin private file system) to the first token, beside reading and hashing that file
 *           alone, in turn; the ratio is what loading costs beyond looking at the bytes
 *   cold    from the server, which sends at `--rate` MB/s: from its last byte to the first token, with the prompt read while the model
 *           arrives (`load({ prompt })`) and without
 * Prints one JSON line for each.
 */

import { createReadStream, statSync } from 'node:fs'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { SHAPE_NAMES } from '../../js/bench/synthetic-model.js'
import { BiMamba } from '../../js/index.js'
import { launchChromium } from '../browser/chromium.js'
import { startPageServer } from '../browser/page-server.js'
import { randomPacked } from './random-packed.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const CHUNK_BYTES = 4194304

/** @typedef {{ url: string, folder?: string, ids: number[], rounds: number }} Job */
/** @typedef {{ loadMs: number[], readMs: number[] }} Warm */

/**
 * A server of one file, with ranges, at a limited rate; it knows when it sent its last byte.
 *
 * @param {string} path
 * @param {number} bytesPerMs
 */
async function startSlowServer(path, bytesPerMs) {
  const { size } = statSync(path)
  const state = { lastByteAt: 0, sent: 0, began: 0 }
  const server = createServer(async (request, response) => {
    response.setHeader('Access-Control-Allow-Origin', '*')
    response.setHeader('Cross-Origin-Resource-Policy', 'cross-origin')
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    const start = range ? Number(range[1]) : 0
    const end = range ? Math.min(Number(range[2]) + 1, size) : size
    response.writeHead(range ? 206 : 200, {
      'Content-Length': end - start,
      ...(range ? { 'Content-Range': `bytes ${start}-${end - 1}/${size}` } : {}),
    })
    state.began ||= performance.now()
    for await (const piece of createReadStream(path, { start, end: end - 1 })) {
      state.sent += piece.length
      const due = state.began + state.sent / bytesPerMs
      const wait = due - performance.now()
      if (wait > 1) await new Promise((resolve) => setTimeout(resolve, wait))
      if (!response.write(piece)) await new Promise((resolve) => response.once('drain', resolve))
      if (response.destroyed) return
    }
    state.lastByteAt = performance.timeOrigin + performance.now()
    response.end()
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://127.0.0.1:${port}/${basename(path)}`,
    state,
    /** Forgets what was sent. */
    reset: () => Object.assign(state, { lastByteAt: 0, sent: 0, began: 0 }),
    close: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    },
  }
}

/**
 * From a load to its first token, in whole ms of the clock that all processes share. Runs in Node and, sent as source text, in the page: it uses
 * nothing from outside.
 *
 * @param {typeof BiMamba} Model
 * @param {{ url: string, folder?: string, ids: number[], early: boolean, cache: 'auto' | 'off' }} job
 */
async function timeFirstToken(Model, { url, folder, ids, early, cache }) {
  const began = performance.timeOrigin + performance.now()
  const options = {
    cache,
    ...(folder === undefined ? {} : { cacheFolder: folder }),
    ...(early ? { prompt: ids } : {}),
  }
  const model = await Model.load(url, options)
  for await (const _ of model.generateIds(ids, { maxTokens: 1, temperature: 0 })) break
  const ended = performance.timeOrigin + performance.now()
  const { info } = model
  await model.close()
  return { began, ended, cache: info.cache, threads: info.threads }
}

/** @param {string} path @returns {Promise<number>} ms to read and hash a file, piece after piece */
async function timeReading(path) {
  const began = performance.now()
  const file = await open(path)
  const buffer = new Uint8Array(CHUNK_BYTES)
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length)
    if (bytesRead === 0) break
    await crypto.subtle.digest('SHA-256', buffer.subarray(0, bytesRead))
  }
  await file.close()
  return performance.now() - began
}

/** Runs in a page: the same for the file that is kept there. */
async function timeReadingOpfs() {
  const root = await navigator.storage.getDirectory()
  const models = await (await root.getDirectoryHandle('bimamba')).getDirectoryHandle('models')
  for await (const folder of models.values()) {
    const handle = /** @type {FileSystemDirectoryHandle} */ (folder)
    const began = performance.now()
    const file = await (await handle.getFileHandle('model.safetensors')).getFile()
    for (let at = 0; at < file.size; at += 4194304) {
      const bytes = await file.slice(at, at + 4194304).arrayBuffer()
      await crypto.subtle.digest('SHA-256', bytes)
    }
    return performance.now() - began
  }
  throw new Error('nothing is kept')
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return Number(sorted[Math.floor(sorted.length / 2)])
}

/** @param {number} value */
const round = (value) => Math.round(value * 100) / 100

/**
 * @param {string} host
 * @param {(job: { early: boolean, cache: 'auto' | 'off', ids: number[] }) => ReturnType<typeof timeFirstToken>} load
 * @param {() => Promise<number>} read
 * @param {Awaited<ReturnType<typeof startSlowServer>>} server
 * @param {{ rounds: number, prompt: number }} plan
 */
async function measureHost(host, load, read, server, { rounds, prompt }) {
  const ids = Array.from({ length: prompt }, (_, i) => 1 + ((i * 7919) % 30000))
  await load({ early: false, cache: 'auto', ids: [1] })
  const warm = { loadMs: /** @type {number[]} */ ([]), readMs: /** @type {number[]} */ ([]) }
  for (let i = 0; i < rounds; i++) {
    warm.readMs.push(await read())
    const { began, ended, cache } = await load({ early: true, cache: 'auto', ids: [1] })
    if (cache?.fetchedBytes !== 0) throw new Error(`${cache?.fetchedBytes} bytes were fetched`)
    warm.loadMs.push(ended - began)
  }
  const ratios = warm.loadMs.map((ms, i) => ms / Number(warm.readMs[i]))
  print({
    what: 'warm',
    host,
    readAndHashMs: round(median(warm.readMs)),
    toFirstTokenMs: round(median(warm.loadMs)),
    ratio: round(median(ratios)),
  })
  for (const early of [true, false]) {
    server.reset()
    const { began, ended, threads } = await load({ early, cache: 'off', ids })
    const { lastByteAt } = server.state
    print({
      what: 'cold',
      host,
      promptTokens: prompt,
      whileLoading: early,
      threads,
      downloadMs: round(lastByteAt - began),
      lastByteToFirstTokenMs: round(ended - lastByteAt),
    })
  }
}

/** @param {object} row */
function print(row) {
  console.log(JSON.stringify(row))
}

/** @param {string} path @param {Awaited<ReturnType<typeof startSlowServer>>} server @param {{ rounds: number, prompt: number }} plan */
async function measureNode(path, server, plan) {
  const folder = await mkdtemp(join(tmpdir(), 'bimamba-bench-'))
  try {
    const load = (/** @type {{ early: boolean, cache: 'auto' | 'off', ids: number[] }} */ job) =>
      timeFirstToken(BiMamba, { url: server.url, folder, ...job })
    await measureHost(`Node ${process.versions.node}`, load, () => timeReading(path), server, plan)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** @param {Awaited<ReturnType<typeof startSlowServer>>} server @param {{ rounds: number, prompt: number }} plan */
async function measureChromium(server, plan) {
  const folders = { package: ROOT, page: join(ROOT, 'tests/browser') }
  const policy = null
  const pages = await startPageServer({ folders, isolated: true, policy })
  const browser = await launchChromium()
  try {
    const page = await browser.newPage()
    await page.goto(`${pages.url}/page/plain-page.html`)
    await page.waitForFunction(() => 'BiMamba' in globalThis)
    await page.addScriptTag({ content: `window.timeFirstToken = ${timeFirstToken}` })
    const load = (/** @type {{ early: boolean, cache: 'auto' | 'off', ids: number[] }} */ job) =>
      page.evaluate(
        (args) => {
          const host =
            /** @type {{ BiMamba: typeof BiMamba, timeFirstToken: typeof timeFirstToken }} */ (
              /** @type {unknown} */ (globalThis)
            )
          return host.timeFirstToken(host.BiMamba, args)
        },
        { url: server.url, ...job },
      )
    const read = () => page.evaluate(timeReadingOpfs)
    await measureHost(`Chromium ${browser.version()}`, load, read, server, plan)
  } finally {
    await browser.close()
    await pages.close()
  }
}

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: '780M' },
    rounds: { type: 'string', default: '5' },
    prompt: { type: 'string', default: '200' },
    rate: { type: 'string', default: '10' },
  },
})
const shape = SHAPE_NAMES.find((name) => name === values.shape)
if (!shape) throw new Error(`--shape ${values.shape}, want ${SHAPE_NAMES.join(', ')}`)
const path = await randomPacked(shape)
const server = await startSlowServer(path, Number(values.rate) * 1000)
const plan = { rounds: Number(values.rounds), prompt: Number(values.prompt) }
try {
  print({ what: 'file', shape, bytes: statSync(path).size, folder: dirname(path), ...plan })
  await measureNode(path, server, plan)
  await measureChromium(server, plan)
} finally {
  await server.close()
}
