/**
 * A page without a bundler that is used offline, with dist/ alone and under another name.
 *
 * Owns what its author is promised: what dist/files.json names is all that the package comes to load, whatever is used for the first time
 * when the server is gone; the model is kept by the package.
 */

import assert from 'node:assert/strict'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { tinyModel } from '../js/support/tiny-model.js'
import { launchChromium } from './chromium.js'
import { installSite } from './package-site.js'
import { startPageServer } from './page-server.js'

/** Runs in the page. */
async function getReady() {
  const { serviceWorker } = navigator
  const controlled = new Promise((resolve) =>
    serviceWorker.addEventListener('controllerchange', resolve, { once: true }),
  )
  await serviceWorker.register('/offline-worker.js')
  await controlled
  const entry = '/vendor/bimamba.js'
  const { BiMamba } = /** @type {typeof import('../../js/index.js')} */ (await import(entry))
  for (const name of ['good', 'chat'])
    await BiMamba.cache.add(new URL(`/models/${name}.safetensors`, location.href))
}

/** Runs in the page. @param {{ inline: boolean }} options */
async function useAll(options) {
  const entries = ['/vendor/bimamba.js', '/vendor/openai.js', '/vendor/prompt-api.js']
  const [main, openai, promptApi] = await Promise.all(entries.map((entry) => import(entry)))
  const { BiMamba, SessionStore } = /** @type {typeof import('../../js/index.js')} */ (main)
  const { createOpenAI } = /** @type {typeof import('../../js/openai/index.js')} */ (openai)
  const { createLanguageModel } = /** @type {typeof import('../../js/prompt-api/index.js')} */ (
    promptApi
  )
  /** @param {AsyncIterable<string>} pieces */
  const join = async (pieces) => {
    let text = ''
    for await (const piece of pieces) text += piece
    return text
  }
  const source = new URL('/models/good.safetensors', location.href)
  const model = await BiMamba.load(source, options)
  const format = { jsonSchema: { const: 'fox' } }
  const formed = await join(model.generate('Once', { format }))
  const session = await model.createSession()
  await session.append('Once')
  await new SessionStore().save('one', session)
  const client = createOpenAI({ model })
  const completed = await client.completions.create({ prompt: 'x', max_tokens: 2 })
  const talk = await createLanguageModel(model).create()
  const answer = await talk.prompt('Hi', { responseConstraint: { const: 'cat' } })
  await model.close()

  const chatty = await BiMamba.load(new URL('/models/chat.safetensors', location.href), options)
  const chat = await chatty.createSession()
  await join(chat.chat('a', { maxTokens: 2 }))
  const said = (await chat.text()).slice(0, 6)
  await chatty.close()
  const { settings } = await BiMamba.benchmark({ source, rounds: 1, promptTokens: 8 })
  return [formed, answer, said, Object.hasOwn(completed, 'choices'), settings.length > 0]
}

/** Runs in the page. */
async function useGpu() {
  const entry = '/vendor/bimamba.js'
  const { BiMamba } = /** @type {typeof import('../../js/index.js')} */ (await import(entry))
  const source = new URL('/models/chat.safetensors', location.href)
  const model = await BiMamba.load(source, { device: 'webgpu' })
  const { device } = model.info
  await model.close()
  return device
}

test('dist/files.json names all that a page needs offline', async (t) => {
  const { folders, remove } = await installSite()
  t.after(remove)
  const template = '{% for message in messages %}<{{ message.role }}>{% endfor %}'
  const chat = await tinyModel({ template })
  await copyFile(chat, join(folders.models, 'chat.safetensors'))
  const worker = fileURLToPath(new URL('offline-worker.js', import.meta.url))
  const { page: pages, models, package: installed } = folders
  const site = { page: pages, models, vendor: join(installed, 'dist'), 'offline-worker.js': worker }
  const browser = await launchChromium([], { gpu: true })
  t.after(() => browser.close())
  for (const inline of [false, true]) {
    const server = await startPageServer({ folders: site })
    const context = await browser.newContext()
    const page = await context.newPage()
    await page.goto(`${server.url}/page/offline-page.html`)
    await page.evaluate(getReady)
    await server.close()
    await page.reload()
    if (!inline) assert.equal(await page.evaluate(useGpu), 'webgpu')
    const found = await page.evaluate(useAll, { inline })
    assert.deepEqual(found, ['"fox"', '"cat"', '<user>', true, true])
    await context.close()
  }
})
