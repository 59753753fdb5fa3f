/**
 * A page that writes on the GPU while it is behind another one, slowed down, and frozen: its text is the same.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { BiMamba as NodeBiMamba } from '../../js/index.js'
import { MODEL_FILE } from '../js/support/model-file.js'
import { launchTabs } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** @typedef {{ BiMamba: typeof import('../../js/index.js').BiMamba }} PageNames */
/**
 * What the page holds while it writes.
 * @typedef {{ ids: number[], seen: { what: string, count: number }[], written: Promise<string> }} Held
 */

const PROMPT = 'Once upon a time'
const OPTIONS = { maxTokens: 150, stopTokens: [], temperature: 0, noRepeatNgram: 3 }

/** @type {Awaited<ReturnType<typeof installSite>>} */
let installed
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let server
/** @type {Awaited<ReturnType<typeof launchTabs>>} */
let browser
/** @type {number[]} */
const wanted = []

before(async () => {
  installed = await installSite()
  const { folders } = installed
  server = await startPageServer({ folders })
  browser = await launchTabs()
  const model = await NodeBiMamba.load(MODEL_FILE, { precision: 'exact' })
  for await (const id of model.generateIds(await model.tokenize(PROMPT, { bos: true }), OPTIONS)) {
    wanted.push(id)
  }
  await model.close()
})

after(async () => {
  await browser?.close()
  await server?.close()
  await installed?.remove()
})

/** Begins to write, and notes how far it is when the page is hidden, frozen and woken. @param {{ inline: boolean, prompt: string, options: typeof OPTIONS }} job */
async function write({ inline, prompt, options }) {
  const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
  const how = /** @type {const} */ ({ inline, device: 'webgpu', precision: 'exact' })
  const model = await BiMamba.load('../models/good.safetensors', how)
  /** @type {number[]} */
  const ids = []
  /** @type {Held['seen']} */
  const seen = []
  for (const name of ['visibilitychange', 'freeze', 'resume']) {
    document.addEventListener(name, () => {
      const what = name === 'visibilitychange' ? document.visibilityState : name
      seen.push({ what, count: ids.length })
    })
  }
  const run = async () => {
    for await (const id of model.generateIds(
      await model.tokenize(prompt, { bos: true }),
      options,
    )) {
      ids.push(id)
    }
    const { device } = model.info
    await model.close()
    return device
  }
  Object.assign(globalThis, { ids, seen, written: run() })
}

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'in a worker'}: hidden, frozen and woken it tells the same text`, async () => {
    const page = await browser.newPage()
    await page.goto(`${server.url}/page/plain-page.html`)
    await page.waitForFunction(() => 'BiMamba' in globalThis)
    await page.evaluate(write, { inline, prompt: PROMPT, options: OPTIONS })
    const devtools = await page.createCDPSession()
    const other = await browser.newPage()
    await other.bringToFront()
    await setTimeout(1500)
    await devtools.send('Page.setWebLifecycleState', { state: 'frozen' })
    await setTimeout(1500)
    await devtools.send('Page.setWebLifecycleState', { state: 'active' })
    const { ids, seen, device } = await page.evaluate(async () => {
      const { ids, seen, written } = /** @type {Held} */ (/** @type {unknown} */ (globalThis))
      return { device: await written, ids, seen }
    })
    assert.deepEqual(
      seen.map(({ what }) => what),
      ['hidden', 'freeze', 'resume'],
    )
    const [hidden, frozen, woken] = seen.map(({ count }) => count)
    // It writes on while it is hidden; a frozen page takes nothing, whatever its worker does.
    assert.ok(Number(frozen) > Number(hidden), `${hidden} tokens, then ${frozen}`)
    assert.ok(Number(woken) < OPTIONS.maxTokens)
    assert.equal(device, 'webgpu')
    assert.deepEqual(ids, wanted)
    await other.close()
    await page.close()
  })
}
