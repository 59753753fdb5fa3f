/**
 * Models of the web app in real Chromium: by address, link, file and drop; what is asked first, how far they are, what is kept. The models lie on another
 * origin, as they mostly do.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { startFaultServer } from '../js/support/fault-server.js'
import { sentencePieceTokenizer } from '../js/support/small-tokenizer.js'
import { tinyModel } from '../js/support/tiny-model.js'
import {
  APP_MODEL,
  act,
  assertQuiet,
  newAppPage,
  openApp,
  ready,
  setSampling,
  textOf,
  useApp,
} from './app-site.js'

/** @typedef {import('playwright-core').Page} Page */

const NANO = new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url)

const app = useApp()
/** Has a model of 41 MB, without a tokenizer. @type {Awaited<ReturnType<typeof startFaultServer>>} */
let large
/** Has a small one. @type {Awaited<ReturnType<typeof startFaultServer>>} */
let small

before(async () => {
  // An embedding of 160,000 rows of 64 numbers: ten chunks.
  const path = await tinyModel({
    tokenizer: null,
    config: { vocab_size: 160000 },
    embedding: 'f32',
  })
  large = await startFaultServer(await readFile(path))
  small = await startFaultServer(await readFile(NANO))
})

after(async () => {
  await large?.close()
  await small?.close()
})

/** @param {import('node:test').TestContext} t @returns {Promise<Page>} at the view of models */
async function openModels(t) {
  const page = await openApp(await app.newContext(t), app.url)
  await page.locator('a[href="#models"]').click()
  return page
}

/** @param {Page} page @param {string} address */
async function look(page, address) {
  await page.locator('#model-address').fill(address)
  await page.getByRole('button', { name: 'Look' }).click()
}

/** Until another model is in use. @param {Page} page @param {string} name */
async function inUse(page, name) {
  await page.locator('a[href="#models"]').click()
  await page.locator('#cached li').filter({ hasText: name }).filter({ hasText: 'in use' }).waitFor()
  await ready(page)
}

test('a small model of another site opens by its address, and writes on the same text', async (t) => {
  const page = await openModels(t)
  await setSampling(page, { maxTokens: 10 })
  await page.locator('a[href="#write"]').click()
  await act(page)
  const text = await textOf(page)
  await page.locator('a[href="#models"]').click()
  const url = small.url('ok')
  await look(page, url)
  await inUse(page, url)
  assert.equal(await page.locator('.consent').count(), 0)
  await page.locator('a[href="#write"]').click()
  await act(page)
  assert.ok((await textOf(page)).startsWith(text) && (await textOf(page)).length > text.length)
  // The next visit opens it again, without a request.
  small.reset()
  await page.waitForTimeout(1000)
  await page.reload()
  await ready(page)
  assert.equal(small.requests.length, 0)
  assert.ok((await textOf(page)).startsWith(text))
  assertQuiet(page)
})

test('before a large download it says how much, from where, under which licence and where it is kept', async (t) => {
  const page = await openModels(t)
  large.reset()
  const url = large.url('ok')
  await look(page, url)
  const card = page.locator('.consent')
  await card.waitFor()
  const words = String(await card.textContent())
  for (const part of [
    url,
    /To fetch41 MB/,
    /Licence./,
    /Kept inthe private files of this site/,
    /Free thereabout [\d.]+ GB/,
  ]) {
    assert.match(words, part instanceof RegExp ? part : RegExp(part.replace(/[.?*+]/g, '\\$&')))
  }
  assert.ok(large.bytesServed() < 200e3, `${large.bytesServed()} bytes were sent before the answer`)
  await card.getByRole('button', { name: 'No' }).click()
  assert.equal(await card.count(), 0)
  await look(page, url)
  await card.getByRole('button', { name: /^Download/ }).click()
  await inUse(page, url)
  assertQuiet(page)
})

test('a download is paused, goes on where it was, and says phase, bytes, speed and the time left', async (t) => {
  const page = await openModels(t)
  const url = large.url('slow', { rate: 3e6 })
  await look(page, url)
  await page.getByRole('button', { name: /^Download/ }).click()
  const words = page.locator('#loading p')
  await page.waitForFunction(() =>
    /, 2\d[\d.]* MB of 41 MB, .*MB\/s, .* left/.test(
      document.querySelector('#loading p')?.textContent ?? '',
    ),
  )
  await page.getByRole('button', { name: 'Pause' }).click()
  assert.match(String(await words.textContent()), /^paused; what has arrived is kept, [\d.]+ MB of/)
  await page.waitForTimeout(300)
  large.reset()
  await page.waitForTimeout(400)
  assert.equal(large.requests.length, 0)
  // The old model writes all the while.
  await page.locator('a[href="#write"]').click()
  await setSampling(page, { maxTokens: 5 })
  await act(page)
  await page.locator('a[href="#models"]').click()
  await page.getByRole('button', { name: 'Go on' }).click()
  await page.waitForFunction(() =>
    /from this device/.test(document.querySelector('#loading p')?.textContent ?? ''),
  )
  await inUse(page, url)
  assert.ok(large.bytesServed() < 30e6, `${large.bytesServed()} bytes came after the pause`)
  assertQuiet(page)
})

test('a link to a model of another site asks before anything is fetched', async (t) => {
  const page = await newAppPage(await app.newContext(t))
  const url = small.url('ok')
  small.reset()
  await page.goto(`${app.url}?model=${encodeURIComponent(url)}`)
  const card = page.locator('.consent')
  await card.waitFor()
  assert.match(
    String(await card.textContent()),
    /A link wants to open a model from 127\.0\.0\.1:\d+/,
  )
  // Meanwhile the app's own model is there, and the app is installed.
  await ready(page)
  await page.evaluate(() => navigator.serviceWorker.ready)
  assert.equal(small.requests.length, 0)
  await card.getByRole('button', { name: /^Ask 127/ }).click()
  await page.locator('#write').waitFor()
  await inUse(page, url)
  // Once it is here, nobody needs to be asked.
  small.reset()
  await page.reload()
  await ready(page)
  await page.locator('#write').waitFor()
  assert.equal(small.requests.length, 0)
  assertQuiet(page)
  // Refused: the app's own model opens.
  const other = await newAppPage(await app.newContext(t))
  await other.goto(`${app.url}?model=${encodeURIComponent(url)}`)
  await other.locator('.consent').getByRole('button', { name: 'No' }).click()
  await inUse(other, 'models/tales.safetensors')
  assertQuiet(other)
  // A large one that is refused when its size is known: so, too.
  const third = await newAppPage(await app.newContext(t))
  await third.goto(`${app.url}?model=${encodeURIComponent(large.url('ok'))}`)
  await third.locator('.consent').getByRole('button', { name: /^Ask/ }).click()
  await third.locator('.consent').getByText('A large download').waitFor()
  await third.locator('.consent').getByRole('button', { name: 'No' }).click()
  await inUse(third, 'models/tales.safetensors')
})

test('a link to a model of this site opens it, and hostile addresses stay text', async (t) => {
  const page = await newAppPage(await app.newContext(t))
  await page.goto(`${app.url}?model=models/tales.safetensors`)
  await ready(page)
  await page.locator('#write').waitFor()
  await inUse(page, 'models/tales.safetensors')
  assert.equal(await page.locator('.consent').count(), 0)
  const hostile = '<img src=x onerror=alert(1)>'
  await look(page, `https://127.0.0.1:1/${hostile}`)
  await page.locator('#open .wrong').waitFor()
  await look(page, 'javascript:alert(1)')
  await page
    .getByText(/javascript:alert\(1\)/)
    .first()
    .waitFor()
  await look(page, `hf:a/${hostile}`)
  await page.getByText(/is not of the form hf:OWNER\/REPO/).waitFor()
  assert.equal(await page.locator('#main img').count(), 0)
  // An address that is none: it says so, and the app's own model is there.
  const broken = await newAppPage(await app.newContext(t))
  await broken.goto(`${app.url}?model=${encodeURIComponent('http://[')}`)
  await broken.locator('#open .wrong').waitFor()
  await ready(broken)
  assertQuiet(broken)
  const other = await newAppPage(await app.newContext(t))
  await other.goto(`${app.url}?model=${encodeURIComponent(`https://evil.example/${hostile}`)}`)
  await other.locator('.consent').getByText(hostile).waitFor()
  assert.equal(await other.locator('#main img').count(), 0)
  assertQuiet(other)
})

test('a file of the device opens, by choice or by drop; one that is no model is refused in words', async (t) => {
  const page = await openModels(t)
  await page
    .locator('#model-file')
    .setInputFiles({ name: '<b>x</b>.safetensors', mimeType: '', buffer: Buffer.alloc(2000, 1) })
  await page.locator('#loading .wrong').waitFor()
  assert.equal(await page.locator('#loading b').count(), 0)
  await page.getByRole('button', { name: 'Give up' }).click()
  await page.locator('#model-file').setInputFiles(APP_MODEL)
  await page
    .locator('#open')
    .getByText(/^tales\.safetensors: /)
    .waitFor()
  await ready(page)
  const bytes = (await readFile(APP_MODEL)).toString('base64')
  // While a text is written: that stops, and stays.
  await setSampling(page, { maxTokens: 5000, pace: 60 })
  await page.locator('#set-endless').evaluate((box) => Object.assign(box, { checked: true }))
  await page.keyboard.press('Control+Enter')
  await page.waitForFunction(
    () => Number(document.querySelector('#text')?.textContent?.length) > 40,
  )
  const loads = page.waitForFunction(
    () => document.querySelector('#loading h2')?.textContent === 'dropped.safetensors',
  )
  await page.evaluate(async (base64) => {
    const data = new DataTransfer()
    const file = await (
      await fetch(`data:application/octet-stream;base64,${base64}`).catch(
        () => new Response(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))),
      )
    ).blob()
    data.items.add(new File([file], 'dropped.safetensors'))
    document
      .querySelector('#models')
      ?.dispatchEvent(
        new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }),
      )
  }, bytes)
  await loads
  await page.locator('#loading section').waitFor({ state: 'detached' })
  await ready(page)
  await page.locator('a[href="#write"]').click()
  const written = await textOf(page)
  assert.ok(written.length > 40)
  await setSampling(page, { maxTokens: 5, pace: 0 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /^5 tokens/)
  assert.ok((await textOf(page)).startsWith(written))
})

test('what is kept is listed with its size, deleted, and fetched again', async (t) => {
  const page = await openModels(t)
  const row = page.locator('#cached li').filter({ hasText: 'models/tales.safetensors' })
  assert.match(String(await row.textContent()), /1\.79 MB, in use/)
  await row.getByRole('button', { name: /^Delete/ }).click()
  await page.getByText('1.79 MB are free again.').waitFor()
  assert.equal(await row.count(), 0)
  await page.locator('a[href="#write"]').click()
  await setSampling(page, { maxTokens: 5 })
  await act(page) // what is loaded goes on
  await page.locator('a[href="#models"]').click()
  await page.getByRole('button', { name: /^Open Tales/ }).click()
  await inUse(page, 'models/tales.safetensors')
  assertQuiet(page)
})

test('the device and its threads can be chosen, and it says why it is another', async (t) => {
  const page = await openModels(t)
  await page.locator('#model-threads').selectOption('2')
  await page.getByRole('button', { name: 'Load again like this' }).click()
  await page.waitForFunction(
    () => document.querySelector('#device')?.textContent === 'WebAssembly, 2 threads',
  )
  await page.locator('#model-device').selectOption('webgpu')
  await page.getByRole('button', { name: 'Load again like this' }).click()
  await page.locator('#loading .wrong').waitFor()
  await page.locator('#model-device').selectOption('auto')
  await page.getByRole('button', { name: 'Load again like this' }).click()
  await page.waitForFunction(() =>
    /Not the GPU: /.test(document.querySelector('#device')?.getAttribute('title') ?? ''),
  )
  await page.locator('a[href="#write"]').click()
  await setSampling(page, { maxTokens: 5 })
  await act(page)
  assertQuiet(page)
})

test('a hostile model: what it writes, and what its file says, stays text', async (t) => {
  const markup = '<img src=x onerror=alert(1)>'
  const path = await tinyModel({
    tokenizer: sentencePieceTokenizer([markup, '<script>', '</script>', 'javascript:']),
    words: { source: `<b onclick=alert(2)>${markup}`, licence: '<script>alert(3)</script>' },
  })
  const page = await openModels(t)
  await page.locator('#model-file').setInputFiles(path)
  await page.getByText('licence <script>alert(3)</script>').waitFor()
  await page.locator('a[href="#write"]').click()
  await setSampling(page, { maxTokens: 4000, temperature: 2, topK: 0, topP: 1, seed: 1 })
  await page.locator('#set-endless').check()
  await act(page)
  const text = await textOf(page)
  assert.ok(text.includes(markup) && text.includes('<script>'), text.slice(0, 500))
  await page.locator('a[href="#state"]').click()
  await page.locator('#fork').click()
  await page.locator('.compared').first().waitFor()
  const foreign =
    '#text :not(div):not(br), main img, main script, main b[onclick], #spoken :not(span)'
  assert.equal(await page.locator(foreign).count(), 0)
  assertQuiet(page)
})

test('the benchmark draws, is copied as text, and stops', async (t) => {
  const context = await app.newContext(t, { permissions: ['clipboard-read', 'clipboard-write'] })
  const page = await openApp(context, app.url)
  await page.locator('a[href="#benchmark"]').click()
  await page.getByRole('button', { name: 'Measure' }).click()
  await page.getByText('Done. Nothing was sent anywhere.').waitFor()
  const rows = await page.locator('.results li').allTextContents()
  assert.equal(rows.length, 4)
  for (const row of rows)
    assert.match(
      row,
      /^[12] threads?, (table|popcount)[\d,]+ tokens\/s: .* a token; reading its bytes takes /,
    )
  assert.equal(await page.locator('tbody tr').count(), 8)
  await page.getByRole('button', { name: 'Copy the report' }).click()
  await page.getByText('The report is in the clipboard.').waitFor()
  const copied = await page.evaluate(() => navigator.clipboard.readText())
  assert.equal(copied, await page.locator('.report').textContent())
  assert.match(copied, /^machine .*HeadlessChrome.*\nmodel {4}models\/tales\.safetensors: 6 layers/)
  await page.locator('#bench-subject').selectOption('780M')
  await page.getByRole('button', { name: 'Measure' }).click()
  await page.getByText(/^loading, setting 1/).waitFor()
  await page.locator('#bench').getByRole('button', { name: 'Stop' }).click()
  await page.locator('#bench').getByText('Stopped.').waitFor()
  assert.equal(await page.locator('.results li').count(), 4)
  assertQuiet(page)
})
