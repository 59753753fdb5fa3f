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
  await act(page)
  const tasks = /** @type {number[]} */ (
    await page.evaluate(() => Reflect.get(globalThis, 'tasks'))
  )
  const [late, [, engineLate, keptLate]] = [await heap(), await figures()]
  const status = String(await page.textContent('#status'))
  t.diagnostic(
    `heap ${early} and ${late} bytes, engine ${engineEarly} and ${engineLate}, long tasks: ${tasks.map(Math.round)} ms; ${status}`,
  )
  assert.match(status, /^10,000 tokens/)
  assert.equal(engineLate, engineEarly)
  assert.ok(Number(keptLate) < 120, `${keptLate} MB are kept`)
  assert.ok(late - early < 3e6, `the heap grew by ${late - early} bytes`)
  // On a busy machine one can be torn by others; what the page did itself would be there again and again.
  assert.ok(tasks.length <= 1, `long tasks: ${tasks} ms`)
  assertQuiet(page)
})
