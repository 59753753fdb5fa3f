/**
 * What the web app shows of the state, in real Chromium: branches, comparison, cost, pictures, files; and that neither time nor memory grows.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import {
  APP_MODEL,
  act,
  assertQuiet,
  openApp,
  ready,
  setSampling,
  textOf,
  type,
  useApp,
} from './app-site.js'

/** @typedef {import('playwright-core').Page} Page */

const app = useApp()

/** @param {import('node:test').TestContext} t */
async function openFresh(t) {
  return openApp(await app.newContext(t), app.url)
}

/** @param {Page} page @param {string} name of a view */
const go = (page, name) => page.locator(`a[href="#${name}"]`).click()

/** @param {Page} page @returns {Promise<[string, string]>} what the two panes show */
async function compared(page) {
  const [left = '', right = ''] = await page.locator('.compared').allTextContents()
  return [left, right]
}

test('a text is branched off, both are compared, go on together, and one goes back', async (t) => {
  const page = await openFresh(t)
  await setSampling(page, { maxTokens: 30, seed: 11 })
  await act(page)
  const trunk = await textOf(page)
  await go(page, 'state')
  await page.locator('#mark').click()
  await page.locator('#fork').click()
  await page.locator('.branch').nth(1).waitFor()
  await setSampling(page, { maxTokens: 20, seed: 12 })
  await act(page)
  const [left, right] = await compared(page)
  assert.equal(left, trunk)
  assert.ok(right.startsWith(trunk) && right.length > trunk.length, right)
  await go(page, 'write')
  assert.equal(await textOf(page), right)
  await go(page, 'state')
  await page.getByRole('button', { name: 'Continue both' }).click()
  await ready(page)
  const [leftMore, rightMore] = await compared(page)
  assert.ok(leftMore.startsWith(trunk) && leftMore.length > trunk.length)
  assert.ok(rightMore.startsWith(right) && rightMore.length > right.length)
  // Back to the moment that was kept on the first branch.
  await page.getByRole('button', { name: /^Moment 1, token 3\d/ }).click()
  await page.getByRole('button', { name: 'Go back to it' }).click()
  await page.locator('.branch.current').filter({ hasText: 'Text 1' }).waitFor()
  await ready(page)
  await go(page, 'write')
  assert.equal(await textOf(page), trunk)
  await act(page, 'undo')
  assert.equal(await textOf(page), leftMore)
  await go(page, 'state')
  await page.getByRole('button', { name: 'Branch off there' }).click()
  await page.locator('.branch').nth(2).waitFor()
  await page.getByRole('button', { name: 'Delete Branch' }).first().click()
  await page.waitForFunction(() => document.querySelectorAll('.branch').length === 2)
  assertQuiet(page)
})

test('a moment that was kept is there after a reload, and with another model', async (t) => {
  const page = await openFresh(t)
  await setSampling(page, { maxTokens: 30, seed: 11 })
  await act(page)
  const kept = await textOf(page)
  await go(page, 'state')
  await page.locator('#mark').click()
  await page.locator('.dot.kept').waitFor()
  await act(page)
  await page.reload()
  await ready(page)
  const back = async () => {
    await go(page, 'state')
    const dot = page.getByRole('button', { name: /^Moment 1, token 3\d/ })
    if ((await dot.getAttribute('aria-pressed')) === 'false') await dot.click()
    await page.getByRole('button', { name: 'Go back to it' }).click()
    await page.waitForFunction(
      (text) =>
        Array.from(document.querySelectorAll('#text > div'), (line) => line.textContent).join(
          '\n',
        ) === text,
      kept,
    )
    await ready(page)
  }
  await back()
  await act(page) // the same seed: what was there before
  await go(page, 'models')
  await page.locator('#model-precision').selectOption('high')
  await page.getByRole('button', { name: 'Load again like this' }).click()
  await page.waitForFunction(() =>
    /precision high/.test(document.querySelector('#device')?.getAttribute('title') ?? ''),
  )
  await ready(page)
  await back()
  await act(page, 'undo')
  assert.ok((await textOf(page)).length > kept.length)
  assertQuiet(page)
})

test('branches that have ended begin another text when they go on together', async (t) => {
  const page = await openFresh(t)
  await setSampling(page, { maxTokens: 1000, seed: 3 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /The model ended the text here/)
  const ended = await textOf(page)
  await go(page, 'state')
  await page.locator('#fork').click()
  await page.locator('.branch').nth(1).waitFor()
  await setSampling(page, { maxTokens: 20 })
  await page.getByRole('button', { name: 'Continue both' }).click()
  await ready(page)
  assert.equal(
    await page.textContent('#status'),
    'Written together. Text 1: 20 tokens, Branch 1: 20 tokens.',
  )
  await go(page, 'write')
  const more = await textOf(page)
  assert.ok(more.startsWith(`${ended}\n\n`) && more.length > ended.length + 20, more)
  await act(page, 'undo')
  assert.equal(await textOf(page), ended)
  assertQuiet(page)
})

test('a saved text that is dropped on the page is opened as one, and no model', async (t) => {
  const page = await openFresh(t)
  const model = await BiMamba.load(APP_MODEL)
  const session = await model.createSession()
  await session.append('A saved text')
  const bytes = Buffer.from(await session.save()).toString('base64')
  await model.close()
  await go(page, 'benchmark')
  /** @param {string} base64 @param {string} name */
  const drop = (base64, name) =>
    page.evaluate(
      ([base64, name]) => {
        const data = new DataTransfer()
        const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
        data.items.add(new File([bytes], name))
        document
          .querySelector('main')
          ?.dispatchEvent(
            new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }),
          )
      },
      /** @type {[string, string]} */ ([base64, name]),
    )
  await drop(btoa('no model at all'), 'x.safetensors')
  await page
    .locator('#status')
    .filter({ hasText: /^x\.safetensors: / })
    .waitFor()
  assert.equal(await page.locator('#benchmark').isVisible(), true)
  await drop(bytes, 'Mine.session.safetensors')
  await page.getByText('Mine is open, as a branch of its own.').waitFor()
  await go(page, 'write')
  assert.equal(await textOf(page), 'A saved text')
  assertQuiet(page)
})

test('a text goes on in every view, and can be stopped there', async (t) => {
  const page = await openFresh(t)
  await page.locator('#set-endless').check()
  await setSampling(page, { maxTokens: 5000, pace: 60 })
  await page.locator('#continue').click()
  for (const view of ['models', 'benchmark']) {
    await go(page, view)
    await page
      .locator('#status')
      .filter({ hasText: /a second/ })
      .waitFor()
    assert.deepEqual(await page.locator('#actions button:visible').allTextContents(), ['Stop Esc'])
  }
  await page.locator('#stop').click()
  await page
    .locator('#told')
    .filter({ hasText: /tokens\. Stopped\.$/ })
    .waitFor()
  assertQuiet(page)
})

test('the pictures are those of the state, and change while a text goes on', async (t) => {
  const page = await openFresh(t)
  await go(page, 'state')
  await setSampling(page, { maxTokens: 400, pace: 150 })
  await page
    .locator('#set-endless')
    .evaluate((box) => /** @type {HTMLInputElement} */ (box).click())
  const pixels = () =>
    page.evaluate(() => {
      const canvases = Array.from(document.querySelectorAll('canvas'))
      return canvases.map((canvas) => {
        const { data } = /** @type {CanvasRenderingContext2D} */ (
          canvas.getContext('2d')
        ).getImageData(0, 0, canvas.width, canvas.height)
        return data.reduce((sum, value, i) => (sum * 31 + value + i) % 1000003, 7)
      })
    })
  await page.locator('#continue').click()
  const seen = new Set()
  for (let i = 0; i < 12; i++) {
    await page.waitForTimeout(120)
    seen.add(String(await pixels()))
  }
  assert.ok(seen.size >= 4, `${seen.size} different pictures`)
  await page.keyboard.press('Escape')
  await ready(page)
  await page.waitForTimeout(300)
  const [whole, count] = [String(await pixels()), (await pixels()).length]
  assert.equal(count, 6)
  // Another place of the text, another picture; the same place, the same.
  await page.locator('#undo').click()
  await ready(page)
  await page.waitForTimeout(400)
  assert.notEqual(String(await pixels()), whole)
  await page.locator('#redo').click()
  await ready(page)
  await page.waitForTimeout(400)
  assert.equal(String(await pixels()), whole)
  assert.match(
    String(await page.locator('canvas').nth(2).getAttribute('aria-label')),
    /^Layer 3: 128 values .* root mean square [\d.]+$/,
  )
  assertQuiet(page)
})

test('the cost is told and drawn: the state stays, a cache would grow', async (t) => {
  const page = await openFresh(t)
  await setSampling(page, { maxTokens: 700 })
  await page.locator('#set-endless').check()
  await act(page)
  await go(page, 'state')
  /** @param {string} pattern */
  const figures = (pattern) =>
    page.waitForFunction(
      (text) => RegExp(text).test(document.querySelector('.figures')?.textContent ?? ''),
      pattern,
    )
  await figures(
    'State of this text2\\.03 MB.*cache here2\\.\\d+ MB3\\.84 kB a token.*equal at529 tokens',
  )
  assert.equal(await page.locator('.chart svg').count(), 2)
  const points = String(await page.locator('.curve.time').getAttribute('points')).split(' ')
  assert.ok(points.length >= 20, `${points.length} points`)
  assert.match(
    String(await page.locator('.chart svg').nth(1).getAttribute('aria-label')),
    /This model: 2\.03 MB at every position/,
  )
  await act(page)
  await figures('State of this text2\\.03 MB.*cache here5\\.\\d+ MB')
  assertQuiet(page)
})

test('a text is saved as a file, and goes on in Node and in another tab', async (t) => {
  const page = await openFresh(t)
  await type(page, 'Once upon a time there was a fox')
  await setSampling(page, { maxTokens: 20, seed: 7 })
  await act(page)
  const saved = await textOf(page)
  await go(page, 'state')
  await page.locator('#kept-name').fill('The fox')
  const waiting = page.waitForEvent('download')
  await page.getByRole('button', { name: 'Save as a file' }).click()
  const download = await waiting
  assert.equal(download.suggestedFilename(), 'The fox.session.safetensors')
  const bytes = await readFile(await download.path())
  await setSampling(page, { seed: 8 })
  await act(page)
  await go(page, 'write')
  const more = await textOf(page)
  const model = await BiMamba.load(APP_MODEL)
  const session = await model.loadSession(bytes)
  assert.equal(await session.text(), saved)
  for await (const _ of session.generate({ maxTokens: 20, seed: 8, temperature: 0.6 }));
  assert.equal(await session.text(), more)
  await model.close()
  const other = await openFresh(t)
  await go(other, 'state')
  await other
    .locator('#kept-file')
    .setInputFiles({ name: 'The fox.session.safetensors', mimeType: '', buffer: bytes })
  await other.getByText('The fox is open, as a branch of its own.').waitFor()
  await setSampling(other, { maxTokens: 20, seed: 8 })
  await act(other)
  await go(other, 'write')
  assert.equal(await textOf(other), more)
  // What is no such file is refused in words, and nothing is lost.
  await go(other, 'state')
  await other
    .locator('#kept-file')
    .setInputFiles({ name: 'x.safetensors', mimeType: '', buffer: Buffer.from('nonsense') })
  await other.locator('#kept .wrong').waitFor()
  await go(other, 'write')
  assert.equal(await textOf(other), more)
  assertQuiet(page)
  assertQuiet(other)
})

test('a text is kept on the device under any name, opened again, and deleted', async (t) => {
  const page = await openFresh(t)
  const name = '<b>../"a name"</b>'
  await setSampling(page, { maxTokens: 10 })
  await act(page)
  const kept = await textOf(page)
  await go(page, 'state')
  await page.locator('#kept-name').fill(name)
  await page.getByRole('button', { name: 'Keep on this device' }).click()
  await page
    .locator('#kept')
    .getByRole('button', { name: `Open ${name}` })
    .waitFor()
  await act(page)
  await page
    .locator('#kept')
    .getByRole('button', { name: `Open ${name}` })
    .click()
  await page.getByText('is open, as a branch of its own').waitFor()
  await go(page, 'write')
  assert.equal(await textOf(page), kept)
  await go(page, 'state')
  await page
    .locator('#kept')
    .getByRole('button', { name: `Delete ${name}` })
    .click()
  await page.getByText('is deleted').waitFor()
  assert.equal(await page.locator('#kept li').count(), 0)
  assert.equal(await page.locator('#kept li b b, #timeline b').count(), 0)
  assertQuiet(page)
})

test('ten thousand tokens: memory stays, time stays, and the page answers all the while', async (t) => {
  const page = await openFresh(t)
  const client = await page.context().newCDPSession(page)
  const heap = async () => {
    await client.send('HeapProfiler.collectGarbage')
    const { usedSize } = await client.send('Runtime.getHeapUsage')
    return usedSize
  }
  await page.locator('#set-endless').check()
  await setSampling(page, { maxTokens: 2000 })
  await act(page)
  const figures = async () => {
    await go(page, 'state')
    await page.waitForTimeout(700) // until all of it was drawn anew
    const text = String(await page.locator('.figures').textContent())
    await go(page, 'write')
    return text.match(/Memory of the engine([\d.]+ MB).*Kept to go back([\d.]+) MB/) ?? []
  }
  // A look at the state takes memory, once.
  await go(page, 'state')
  await page.locator('canvas').nth(5).waitFor()
  await go(page, 'write')
  const [early, [, engineEarly]] = [await heap(), await figures()]
  await page.evaluate(() => {
    /** @type {number[]} */
    const tasks = []
    Object.assign(globalThis, { tasks })
    new PerformanceObserver((list) =>
      tasks.push(...list.getEntries().map(({ duration }) => duration)),
    ).observe({ type: 'longtask' })
  })
  await setSampling(page, { maxTokens: 10000 })
  /** @type {number[]} */
  let tasks = []
  // On a busy machine some can be torn by others; what the page did itself would be there again and again.
  for (let tries = 0; tries === 0 || (tries < 3 && tasks.length > 1); tries++) {
    await act(page)
    tasks = await page.evaluate(() => Reflect.get(globalThis, 'tasks').splice(0))
  }
  const [late, [, engineLate, keptLate]] = [await heap(), await figures()]
  const status = String(await page.textContent('#status'))
  t.diagnostic(
    `heap ${early} and ${late} bytes, engine ${engineEarly} and ${engineLate}, long tasks: ${tasks.map(Math.round)} ms; ${status}`,
  )
  assert.match(status, /^10,000 tokens/)
  assert.equal(engineLate, engineEarly)
  assert.ok(Number(keptLate) < 120, `${keptLate} MB are kept`)
  assert.ok(late - early < 3e6, `the heap grew by ${late - early} bytes`)
  assert.ok(tasks.length <= 1, `long tasks: ${tasks} ms`)
  assertQuiet(page)
})
