/**
 * How the web app looks and can be used, in real Chromium: narrow and wide, light and dark, with a screen reader's rules, without jumps.
 *
 * A picture of each view in each form is left in build/screenshots, to be looked at.
 */

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { act, assertQuiet, newAppPage, openApp, ready, setSampling, useApp } from './app-site.js'

/** @typedef {import('playwright-core').Page} Page */

const AXE = fileURLToPath(import.meta.resolve('axe-core/axe.min.js'))
const PICTURES = fileURLToPath(new URL('../../build/screenshots', import.meta.url))
const VIEWS = ['write', 'state', 'models', 'benchmark']

/** @type {Record<string, import('playwright-core').BrowserContextOptions>} */
const FORMS = {
  narrow: { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true },
  phone: {
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
    colorScheme: 'dark',
  },
  desk: { viewport: { width: 1280, height: 800 } },
  'desk-dark': {
    viewport: { width: 1280, height: 800 },
    colorScheme: 'dark',
    reducedMotion: 'reduce',
  },
  wide: { viewport: { width: 2200, height: 1100 } },
}

const app = useApp()

before(() => mkdirSync(PICTURES, { recursive: true }))

/** A visit in which something is written, branched off and kept, so that every view has something to show. @param {Page} page */
async function useIt(page) {
  await setSampling(page, { maxTokens: 60, seed: 3 })
  await act(page)
  await page.locator('a[href="#state"]').click()
  await page.locator('#mark').click()
  await page.locator('#fork').click()
  await setSampling(page, { maxTokens: 40, seed: 4 })
  await act(page)
  await page.getByRole('button', { name: 'Keep on this device' }).click()
  await page.locator('#kept li').waitFor()
  await page.locator('a[href="#benchmark"]').click()
  await page.getByRole('button', { name: 'Measure' }).click()
  await page.getByText('Done. Nothing was sent anywhere.').waitFor()
}

/** @param {Page} page @returns {Promise<string[]>} rules that are broken, and where */
async function violationsOf(page) {
  await page.addScriptTag({ path: AXE })
  const found = await page.evaluate(async () => {
    const axe = /** @type {typeof import('axe-core')} */ (Reflect.get(globalThis, 'axe'))
    const { violations } = await axe.run({
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    })
    return violations.flatMap(({ id, nodes }) =>
      nodes.map(({ target, failureSummary }) => `${id}: ${target} ${failureSummary}`),
    )
  })
  return found
}

for (const [form, options] of Object.entries(FORMS)) {
  test(`${form}: nothing is wider than the page, axe finds nothing, in every view`, async (t) => {
    // The policy would let no script of a test in.
    const context = await app.newContext(t, { ...options, bypassCSP: true })
    const page = await openApp(context, app.url)
    await useIt(page)
    for (const view of VIEWS) {
      await page.locator(`a[href="#${view}"]`).click()
      await page.locator(`#${view}`).waitFor()
      await page.waitForTimeout(200)
      await page.screenshot({ path: join(PICTURES, `${form}-${view}.png`) })
      const { wider, width } = await page.evaluate(() => {
        const { clientWidth } = document.documentElement
        const all = Array.from(document.querySelectorAll('body *')).filter((element) => {
          if (element.closest('.spoken, .quiet-title, .skip, .report, .compared, svg')) return false
          const { right, width } = element.getBoundingClientRect()
          return width > 0 && right > clientWidth + 0.5
        })
        return {
          wider: all.map((element) => `${element.tagName} ${element.id} ${element.className}`),
          width: document.documentElement.scrollWidth - clientWidth,
        }
      })
      assert.deepEqual([wider, width], [[], 0], view)
      assert.deepEqual(await violationsOf(page), [], view)
    }
    assertQuiet(page)
  })
}

test('nothing jumps while it loads and while it writes', async (t) => {
  const context = await app.newContext(t, { viewport: { width: 1280, height: 800 } })
  const page = await newAppPage(context)
  await page.addInitScript(() => {
    /** @type {unknown[]} */
    const shifts = []
    Object.assign(globalThis, { shifts })
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { value, sources } =
          /** @type {{ value: number, sources: { node: Element | null }[] }} */ (
            /** @type {unknown} */ (entry)
          )
        shifts.push({
          value,
          nodes: sources.map(({ node }) => node?.id || node?.className || node?.nodeName),
        })
      }
    }).observe({ type: 'layout-shift', buffered: true })
  })
  await page.goto(app.url)
  await ready(page)
  await setSampling(page, { maxTokens: 300, pace: 100 })
  await page.locator('#set-endless').check()
  await act(page)
  const shifts = /** @type {{ value: number }[]} */ (
    await page.evaluate(() => Reflect.get(globalThis, 'shifts'))
  )
  const sum = shifts.reduce((total, { value }) => total + value, 0)
  assert.ok(sum < 0.01, JSON.stringify(shifts))
  assertQuiet(page)
})

test('with reduced motion nothing moves by itself', async (t) => {
  const context = await app.newContext(t, { reducedMotion: 'reduce' })
  const page = await openApp(context, app.url)
  const moving = await page.evaluate(
    () =>
      Array.from(document.querySelectorAll('*')).filter((element) => {
        const { transitionDuration, animationName } = getComputedStyle(element)
        return transitionDuration !== '0s' || animationName !== 'none'
      }).length,
  )
  assert.equal(moving, 0)
})

test('the policy allows scripts of this site and WebAssembly, and nothing else', async (t) => {
  const context = await app.newContext(t)
  const page = await openApp(context, app.url)
  const policy = String(
    await page.locator('meta[http-equiv="Content-Security-Policy"]').getAttribute('content'),
  )
  const response = await page.request.get(app.url)
  assert.equal(response.headers()['content-security-policy'], policy)
  assert.match(policy, /default-src 'none'; script-src 'self' 'wasm-unsafe-eval';/)
  assert.doesNotMatch(policy, /unsafe-inline|'unsafe-eval'| \*[ ;]/)
  const outcome = await page.evaluate(async () => {
    const script = document.createElement('script')
    script.textContent = 'globalThis.wasRun = true'
    document.body.append(script)
    // What a test asks for may evaluate; what runs later may not.
    await new Promise((resolve) => setTimeout(resolve, 10))
    let evaluated = 'refused'
    try {
      evaluated = String(new Function('return 1')())
    } catch {}
    return [Reflect.get(globalThis, 'wasRun') ?? 'refused', evaluated]
  })
  assert.deepEqual(outcome, ['refused', 'refused'])
})
