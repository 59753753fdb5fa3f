/**
 * `npm run bench:text -- [--model FILE] [--rounds 5] [--tokens 256]`: the speed of text as a user of the
 * package sees it, in Node and in Chromium.
 *
 * Owns only the measurement: a model is loaded into a worker, then one prompt is continued round after
 * round. Prints one JSON line for each host: medians of tokens per second and of ms until the first piece,
 * ms of loading, and the sizes.
 */

import { readFileSync, statSync } from 'node:fs'
import { cpus } from 'node:os'
import { basename, dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { DEFAULT_MODEL } from '../../js/cli/options.js'
import { BiMamba } from '../../js/index.js'
import { launchChromium } from '../browser/chromium.js'
import { startPageServer } from '../browser/page-server.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** @typedef {{ loadMs: number, firstMs: number[], tokensPerSecond: number[], memoryBytes: number }} Measured */

/**
 * Runs in Node and, sent as source text, in the page: it uses nothing from outside.
 *
 * @param {typeof BiMamba} Model
 * @param {{ source: string, rounds: number, tokens: number }} job
 * @returns {Promise<Measured>}
 */
async function measure(Model, { source, rounds, tokens }) {
  const began = performance.now()
  const model = await Model.load(source)
  /** @type {Measured} */
  const measured = {
    loadMs: performance.now() - began,
    firstMs: [],
    tokensPerSecond: [],
    memoryBytes: model.info.memoryBytes,
  }
  // The first round warms the WebAssembly compiler up and is not counted.
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now()
    let firstMs = 0
    const options = { maxTokens: tokens, seed: 100 + round }
    for await (const _ of model.generate('Once upon a time', options)) {
      firstMs ||= performance.now() - start
    }
    if (round === 0) continue
    const made = model.lastStats?.tokens ?? 0
    measured.firstMs.push(firstMs)
    measured.tokensPerSecond.push((made * 1000) / (performance.now() - start))
  }
  await model.close()
  return measured
}

/** @param {{ source: string, rounds: number, tokens: number }} job */
async function measureInChromium(job) {
  const folders = { page: `${ROOT}tests/browser`, package: ROOT, models: dirname(job.source) }
  const server = await startPageServer({ folders })
  const browser = await launchChromium()
  try {
    const page = await browser.newPage()
    await page.goto(`${server.url}/page/plain-page.html`)
    await page.waitForFunction(() => 'BiMamba' in globalThis)
    const inPage = { ...job, source: `../models/${basename(job.source)}` }
    /** @type {Measured} */
    const measured = await page.evaluate(`(${measure})(BiMamba, ${JSON.stringify(inPage)})`)
    return { host: `Chromium ${browser.version()}`, ...measured }
  } finally {
    await browser.close()
    await server.close()
  }
}

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: DEFAULT_MODEL },
    rounds: { type: 'string', default: '5' },
    tokens: { type: 'string', default: '256' },
  },
})
const source = resolve(values.model)
const job = { source, rounds: Number(values.rounds), tokens: Number(values.tokens) }
const wasm = readFileSync(`${ROOT}dist/bimamba.wasm`)
for (const { host, ...measured } of [
  { host: `Node ${process.version}`, ...(await measure(BiMamba, job)) },
  await measureInChromium(job),
]) {
  console.log(
    JSON.stringify({
      host,
      model: basename(source),
      tokens_per_s: +median(measured.tokensPerSecond).toFixed(0),
      first_text_ms: +median(measured.firstMs).toFixed(1),
      load_ms: +measured.loadMs.toFixed(0),
      model_bytes: statSync(source).size,
      engine_memory_bytes: measured.memoryBytes,
      wasm_bytes: wasm.length,
      wasm_gzip_bytes: gzipSync(wasm).length,
      machine: cpus()[0]?.model,
      date: new Date().toISOString().slice(0, 10),
    }),
  )
}
