/**
 * Sessions in real Chromium: kept over a reload, carried between a page and Node, chats, and many at once.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BiMamba as NodeBiMamba } from '../../js/index.js'
import { MODEL_FILE } from '../js/support/model-file.js'
import { launchChromium } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** @typedef {typeof import('../../js/index.js')} Package */
/** @typedef {{ BiMamba: Package['BiMamba'], SessionStore: Package['SessionStore'] }} PageNames */

const PROMPT = 'Once upon a time there was'
const OPTIONS = { maxTokens: 25, temperature: 0.9 }

/** @type {Awaited<ReturnType<typeof installSite>>} */
let installed
/** @type {import('playwright-core').Browser} */
let browser
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let plain
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let isolated
/** @type {NodeBiMamba} */
let model

before(async () => {
  installed = await installSite()
  const { folders } = installed
  plain = await startPageServer({ folders })
  isolated = await startPageServer({ folders, isolated: true })
  browser = await launchChromium()
  model = await NodeBiMamba.load(MODEL_FILE)
})

after(async () => {
  await model?.close()
  await browser?.close()
  await plain?.close()
  await isolated?.close()
  await installed?.remove()
})

/** @param {import('playwright-core').Page} page @param {string} url */
async function openPage(page, url) {
  page.on('pageerror', (error) => assert.fail(`the page complains: ${error.message}`))
  await page.goto(`${url}/page/plain-page.html`)
  await page.waitForFunction(() => 'SessionStore' in globalThis)
}

for (const [name, inline] of /** @type {const} */ ([
  ['in a worker', false],
  ['in a worker with threads', false],
  ['inline', true],
])) {
  test(`${name}: begun, kept, reloaded, and continued as in Node`, async () => {
    const page = await browser.newPage()
    await openPage(page, name.includes('threads') ? isolated.url : plain.url)
    const input = { inline, prompt: PROMPT, options: OPTIONS }
    const begun = await page.evaluate(async ({ inline, prompt, options }) => {
      const { BiMamba, SessionStore } = /** @type {PageNames} */ (
        /** @type {unknown} */ (globalThis)
      )
      const loaded = await BiMamba.load('../models/good.safetensors', { inline, threads: 2 })
      const session = await loaded.createSession({ seed: 12 })
      await session.append(prompt)
      let text = ''
      for await (const piece of session.generate(options)) text += piece
      await new SessionStore().save('the first', session)
      const bytes = Array.from(await session.save())
      // What follows is not in what was saved.
      for await (const piece of session.generate(options)) text += piece
      return { text, bytes, kept: await new SessionStore().list() }
    }, input)
    assert.deepEqual(
      begun.kept.map(({ name, bytes }) => ({ name, bytes })),
      [{ name: 'the first', bytes: begun.bytes.length }],
    )
    await page.reload()
    await page.waitForFunction(() => 'SessionStore' in globalThis)
    const continued = await page.evaluate(async ({ inline, options }) => {
      const { BiMamba, SessionStore } = /** @type {PageNames} */ (
        /** @type {unknown} */ (globalThis)
      )
      const loaded = await BiMamba.load('../models/good.safetensors', { inline })
      const store = new SessionStore()
      const session = await store.load('the first', loaded)
      let text = ''
      for await (const piece of session.generate(options)) text += piece
      const wasThere = await store.delete('the first')
      const missing = await store.load('the first', loaded).catch((error) => error.code)
      await loaded.close()
      return { text, wasThere, missing, left: (await store.list()).length }
    }, input)
    assert.deepEqual(
      { ...continued, text: '' },
      { text: '', wasThere: true, missing: 'storage', left: 0 },
    )
    // Node, from the page's bytes and from the beginning.
    const loaded = await model.loadSession(Uint8Array.from(begun.bytes))
    let there = ''
    for await (const piece of loaded.generate(OPTIONS)) there += piece
    assert.equal(there, continued.text)
    const whole = await model.createSession({ seed: 12 })
    await whole.append(PROMPT)
    let text = ''
    for (let i = 0; i < 2; i++) for await (const piece of whole.generate(OPTIONS)) text += piece
    assert.equal(text, begun.text)
    assert.ok(begun.text.endsWith(continued.text))
    await page.close()
  })
}

test('a chat, several at once, and what a page may ask of a session', async () => {
  const page = await browser.newPage()
  await openPage(page, plain.url)
  const found = await page.evaluate(async (options) => {
    const { BiMamba } = /** @type {PageNames} */ (/** @type {unknown} */ (globalThis))
    const loaded = await BiMamba.load('../models/good.safetensors')
    const session = await loaded.createSession({ seed: 1 })
    await session.say([{ role: 'system', content: 'Stories.' }])
    let reply = ''
    for await (const piece of session.chat('Tell me one.', options)) reply += piece
    const forks = [await session.fork(), await session.fork()]
    const texts = ['', '']
    for await (const { index, text } of loaded.generateTogether(forks, options))
      texts[index] += text
    const controller = new AbortController()
    const aborted = session
      .append('word '.repeat(100000), { signal: controller.signal })
      .catch((error) => error.name)
    setTimeout(() => controller.abort(), 20)
    const name = await aborted
    const after = { position: session.position, messages: await session.messages() }
    const undone = await session.undo()
    await loaded.close()
    return { reply, texts, name, after, undone }
  }, OPTIONS)
  assert.ok(found.reply.length > 0 && found.texts[0] === found.texts[1])
  assert.equal(found.name, 'AbortError')
  assert.equal(found.undone, 'Tell me one.')
  assert.deepEqual(
    found.after.messages.map(({ role }) => role),
    ['system', 'user', 'assistant'],
  )
  await page.close()
})
