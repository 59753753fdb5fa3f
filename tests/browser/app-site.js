/**
 * The web app, built and served for tests, and a page of it that may complain of nothing.
 *
 * Owns the site's folder and server, and what every test does first. The site is the one that `npm run web:build` writes.
 */

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { fileURLToPath } from 'node:url'
import { serveSite } from '../../scripts/site-server.js'
import { buildSite } from '../../scripts/web-site.js'
import { launchChromium } from './chromium.js'

/** The model that the app comes with. */
export const APP_MODEL = fileURLToPath(
  new URL('../../models/tales/tales.safetensors', import.meta.url),
)

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {import('playwright-core').BrowserContext} BrowserContext */

/**
 * @param {{ isolated?: boolean, folder?: string }} [options]  isolated: the host sends the headers; default true. folder: below which the site lies, as `/name`
 * @returns {Promise<{ url: string, site: string, requests: string[], stop: () => Promise<void>, close: () => Promise<void> }>} url: of the app,
 *   with a slash at its end; requests: paths, as they came; stop: the host is gone
 */
export async function startApp({ isolated = true, folder = '' } = {}) {
  const root = await mkdtemp(join(tmpdir(), 'bimamba-app-'))
  const site = join(root, folder)
  const { headers } = await buildSite(site)
  /** @type {string[]} */
  const requests = []
  const server = await serveSite(root, {
    headers: isolated ? headers : {},
    onRequest: (path) => requests.push(path),
  })
  return {
    url: `${server.url}${folder}/`,
    site,
    requests,
    stop: server.close,
    close: async () => {
      await server.close()
      await rm(root, { recursive: true })
    },
  }
}

/**
 * For all tests of a file: the app on a host with the headers, and Chromium.
 * @returns {{ url: string, newContext: (t: import('node:test').TestContext, options?: import('playwright-core').BrowserContextOptions) => Promise<BrowserContext> }} url: once
 *   the tests run; newContext: another visitor, who leaves with the test
 */
export function useApp() {
  /** @type {Awaited<ReturnType<typeof startApp>>} */
  let app
  /** @type {import('playwright-core').Browser} */
  let browser
  before(async () => {
    app = await startApp()
    browser = await launchChromium()
  })
  after(async () => {
    await browser?.close()
    await app?.close()
  })
  return {
    get url() {
      return app.url
    },
    newContext: async (t, options) => {
      const context = await browser.newContext(options)
      t.after(() => context.close())
      return context
    },
  }
}

/** What a page has complained of, beyond what a test expects. @type {WeakMap<Page, string[]>} */
const complaints = new WeakMap()

/**
 * A page of the app, not yet loaded. Errors, failures of the policy and warnings are remembered for `assertQuiet`.
 * @param {BrowserContext} context
 */
export async function newAppPage(context) {
  const page = await context.newPage()
  /** @type {string[]} */
  const found = []
  complaints.set(page, found)
  page.on('pageerror', (error) => found.push(`error: ${error.message}`))
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()))
      found.push(`${message.type()}: ${message.text()}`)
  })
  page.on('dialog', (dialog) => {
    found.push(`dialog: ${dialog.message()}`)
    void dialog.dismiss()
  })
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
      console.error(`policy: ${violatedDirective} ${blockedURI}`),
    )
  })
  return page
}

/** @param {Page} page */
export function assertQuiet(page) {
  assert.deepEqual(complaints.get(page), [])
}

/** @param {BrowserContext} context @param {string} url @returns {Promise<Page>} with a model that is ready */
export async function openApp(context, url) {
  const page = await newAppPage(context)
  await page.goto(url)
  await ready(page)
  return page
}

/** Until the model is there, and all that was asked for is done. @param {Page} page */
export async function ready(page) {
  await page.waitForFunction(() => {
    const button = /** @type {HTMLButtonElement} */ (document.querySelector('#continue'))
    const isBusy = document.querySelector('#text')?.getAttribute('aria-busy')
    return isBusy === 'false' && button.ariaDisabled !== 'true' && !button.hidden
  })
}

/** In whatever view. @param {Page} page @param {Record<string, number | ''>} settings by the names of the package's options */
export async function setSampling(page, settings) {
  for (const [name, value] of Object.entries(settings)) {
    await page.locator(`#set-${name}`).evaluate((input, text) => {
      Object.assign(input, { value: text })
      input.dispatchEvent(new Event('change', { bubbles: true }))
    }, String(value))
  }
}

/** @param {Page} page @returns {Promise<string>} the text as people see it */
export function textOf(page) {
  return page
    .locator('#text')
    .evaluate((element) => Array.from(element.children, (line) => line.textContent).join('\n'))
}

/** Presses a button and waits until what it begins has ended. @param {Page} page @param {string} [id] */
export async function act(page, id = 'continue') {
  await page.locator(`#${id}`).click()
  await ready(page)
}

/** Puts a text in place of the one on the page, as a person would. @param {Page} page @param {string} text */
export async function type(page, text) {
  await page.locator('#text').click()
  await page.keyboard.press('Control+a')
  await page.keyboard.insertText(text)
}
