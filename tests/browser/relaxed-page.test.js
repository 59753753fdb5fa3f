/**
 * Relaxed SIMD in a real page, which has it without a flag: the package takes it, and gives the bits of Node's plain module.
 *
 * Owns the comparison in each of the browser's compilers; tests/js/relaxed.test.js is the same for Node.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { dirname } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { MODEL_FILE } from '../js/support/model-file.js'
import { launchChromium } from './chromium.js'
import { startPageServer } from './page-server.js'

/** @typedef {{ BiMamba: typeof BiMamba }} PageNames */

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Two products of 16 tokens at once, and 13 single ones. */
const IDS = Array.from({ length: 45 }, (_, i) => 3 + ((i * 37) % 500))
const PRECISIONS = /** @type {const} */ (['fast', 'high', 'exact'])
const COMPILERS = { both: [], baseline: ['--liftoff-only'], optimising: ['--no-liftoff'] }

/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let server
/** @type {string[]} of each precision, by the plain module in Node */
const wanted = []

before(async () => {
  const folders = { page: `${ROOT}tests/browser`, package: ROOT, models: dirname(MODEL_FILE) }
  server = await startPageServer({ folders, isolated: true })
  const wasmUrl = new URL('../../dist/bimamba.wasm', import.meta.url)
  for (const precision of PRECISIONS) {
    const model = await BiMamba.load(MODEL_FILE, { precision, wasmUrl })
    const hash = createHash('sha256')
    for await (const { logits } of model.evaluate(IDS, { logits: true })) {
      hash.update(logits ?? assert.fail('no logits'))
    }
    wanted.push(hash.digest('hex'))
    await model.close()
  }
})
after(() => server?.close())

/** @param {import('playwright-core').Browser} browser */
async function openPage(browser) {
  const page = await browser.newPage()
  await page.goto(`${server.url}/page/plain-page.html`)
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  return page
}

/**
 * Runs in the page: the SHA-256 of all logits, and what computed them.
 * @param {{ ids: number[], options: import('../../js/index.js').LoadOptions }} job
 */
async function hashLogits({ ids, options }) {
  const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
  const model = await BiMamba.load('../models/tales-nano.safetensors', options)
  const rows = []
  for await (const { logits } of model.evaluate(ids, { logits: true })) {
    rows.push(new Uint8Array(/** @type {Float32Array} */ (logits).slice().buffer))
  }
  const { simd, threads } = model.info
  await model.close()
  const digest = await crypto.subtle.digest('SHA-256', await new Blob(rows).arrayBuffer())
  const hash = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0'))
  return { hash: hash.join(''), simd, threads }
}

for (const [name, flags] of Object.entries(COMPILERS)) {
  test(`plain and relaxed modules give the same bits, compiled by: ${name}`, async () => {
    const browser = await launchChromium(flags.map((flag) => `--js-flags=${flag}`))
    try {
      const page = await openPage(browser)
      for (const [i, precision] of PRECISIONS.entries()) {
        for (const [threads, plain] of /** @type {const} */ ([
          [1, 'bimamba.wasm'],
          [2, 'bimamba-threads.wasm'],
        ])) {
          for (const wasmUrl of [undefined, `../package/dist/${plain}`]) {
            const options = { precision, threads, ...(wasmUrl ? { wasmUrl } : {}) }
            const found = await page.evaluate(hashLogits, { ids: IDS, options })
            const want = { hash: wanted[i], simd: wasmUrl ? 'plain' : 'relaxed', threads }
            assert.deepEqual(found, want, `${precision}, ${threads} threads`)
          }
        }
      }
    } finally {
      await browser.close()
    }
  })
}

test('a relaxed module that does not come is an error, not the plain one instead', async () => {
  const browser = await launchChromium()
  try {
    const page = await openPage(browser)
    await page.route('**/bimamba-relaxed.wasm', (route) => route.fulfill({ status: 404 }))
    const code = await page.evaluate(async () => {
      const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
      const options = { inline: true, threads: 1 }
      return BiMamba.load('../models/tales-nano.safetensors', options).then(
        (model) => model.info.simd,
        (error) => `${error.code}: ${error.message}`,
      )
    })
    assert.match(code, /^network: GET .*bimamba-relaxed\.wasm: 404$/)
  } finally {
    await browser.close()
  }
})
