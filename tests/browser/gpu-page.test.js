/**
 * WebGPU in real Chromium, on its software adapter: a page's text is Node's, states cross, and a GPU process that dies does not end a text.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BiMamba as NodeBiMamba } from '../../js/index.js'
import { MODEL_FILE } from '../js/support/model-file.js'
import { launchChromium } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** @typedef {typeof import('../../js/index.js')} Package */
/** @typedef {{ BiMamba: Package['BiMamba'] }} PageNames */

const PROMPT = 'Once upon a time'
const OPTIONS = { maxTokens: 8, temperature: 0 }

/** @type {Awaited<ReturnType<typeof installSite>>} */
let installed
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let server
/** @type {import('playwright-core').Browser} */
let browser
let text = ''

before(async () => {
  installed = await installSite()
  const { folders } = installed
  server = await startPageServer({ folders })
  browser = await launchChromium([], { gpu: true })
  const model = await NodeBiMamba.load(MODEL_FILE, { precision: 'exact' })
  for await (const piece of model.generate(PROMPT, OPTIONS)) text += piece
  await model.close()
})

after(async () => {
  await browser?.close()
  await server?.close()
  await installed?.remove()
})

/** @param {import('playwright-core').Browser} [from] */
async function openPage(from = browser) {
  const page = await from.newPage()
  page.on('pageerror', (error) => assert.fail(`the page complains: ${error.message}`))
  await page.goto(`${server.url}/page/plain-page.html`)
  await page.waitForFunction(() => 'BiMamba' in globalThis)
  return page
}

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'in a worker'}: the text of Node, and a session that goes on there`, async () => {
    const page = await openPage()
    const found = await page.evaluate(
      async ({ inline, prompt, options }) => {
        const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
        const url = '../models/good.safetensors'
        const model = await BiMamba.load(url, { inline, device: 'webgpu', precision: 'exact' })
        let made = ''
        for await (const piece of model.generate(prompt, options)) made += piece
        const session = await model.createSession({ checkpointBytes: 0 })
        await session.append(prompt)
        const bytes = Array.from(await session.save())
        const { device, variant } = model.info
        await model.close()
        const fast = await BiMamba.load(url, { inline, device: 'webgpu', state: 'i16' })
        let other = ''
        for await (const piece of fast.generate(prompt, options)) other += piece
        const { precision, state } = fast.info
        await fast.close()
        return { made, bytes, device, variant, other, precision, state }
      },
      { inline, prompt: PROMPT, options: OPTIONS },
    )
    assert.deepEqual([found.device, found.variant], ['webgpu', 'webgpu'])
    assert.equal(found.made, text)
    assert.deepEqual([found.precision, found.state], ['fast', 'i16'])
    assert.equal(found.other, text)
    const model = await NodeBiMamba.load(MODEL_FILE, { precision: 'exact' })
    const loaded = await model.loadSession(Uint8Array.from(found.bytes))
    let there = ''
    for await (const piece of loaded.generate(OPTIONS)) there += piece
    assert.equal(there, text)
    await model.close()
    await page.close()
  })
}

/** Far more than the software adapter makes until it dies. */
const LONG = { maxTokens: 300, stopTokens: [], temperature: 0, noRepeatNgram: 3 }

/** @typedef {{ session: import('../../js/index.js').Session, model: NodeBiMamba }} Held  by the page */

/** Continues the session that the page holds, and kills the GPU process meanwhile. @param {import('playwright-core').Page} page */
async function writeThroughCrash(page) {
  const devtools = await browser.newBrowserCDPSession()
  const made = page.evaluate(async (options) => {
    const { session, model } = /** @type {Held} */ (/** @type {unknown} */ (globalThis))
    const ids = []
    for await (const id of session.generateIds(options)) ids.push(id)
    const { device, deviceNote } = model.info
    return { ids, device, deviceNote: String(deviceNote) }
  }, LONG)
  await page.waitForTimeout(1500)
  await devtools.send(/** @type {never} */ ('Browser.crashGpuProcess')).catch(() => {})
  return made
}

test('the GPU process dies in the middle of a text, twice: a new one goes on with it, then WebAssembly', async () => {
  const page = await openPage()
  await page.evaluate(async () => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const model = await BiMamba.load('../models/good.safetensors', {
      device: 'webgpu',
      precision: 'exact',
    })
    const session = await model.createSession({ seed: 6 })
    await session.append('Once upon a time')
    Object.assign(globalThis, { model, session })
  })
  const first = await writeThroughCrash(page)
  assert.equal(first.device, 'webgpu')
  assert.match(first.deviceNote, /^the GPU .*; it was opened again$/)
  const second = await writeThroughCrash(page)
  assert.equal(second.device, 'wasm')
  assert.match(second.deviceNote, /^the GPU .*; the processor goes on$/)
  const model = await NodeBiMamba.load(MODEL_FILE, { precision: 'exact' })
  const session = await model.createSession()
  await session.append(PROMPT)
  for (const { ids } of [first, second]) {
    const wanted = []
    for await (const id of session.generateIds(LONG)) wanted.push(id)
    assert.deepEqual(ids, wanted)
  }
  await model.close()
  await page.close()
})

test('a browser without an adapter: "webgpu" says why, "auto" says why and computes', async () => {
  const plain = await launchChromium()
  const page = await openPage(plain)
  const found = await page.evaluate(async () => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const url = '../models/good.safetensors'
    const refused = await BiMamba.load(url, { device: 'webgpu' }).catch((error) => error.code)
    const model = await BiMamba.load(url, { device: 'auto' })
    const { device, deviceNote } = model.info
    await model.close()
    return { refused, device, deviceNote }
  })
  assert.deepEqual([found.refused, found.device], ['unsupported', 'wasm'])
  assert.match(String(found.deviceNote), /WebGPU/)
  await plain.close()
})
