/**
 * The web app in Firefox and in WebKitGTK: the same page, as far as their drivers reach.
 *
 * A test for which there is no browser on this machine is skipped, and says so. What a browser lacks (WebKitGTK has no private file system here) is told as a
 * diagnostic.
 */

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { APP_MODEL, startApp } from './app-site.js'
import { launchFirefox, launchWebKit } from './other-browsers.js'

/** @typedef {import('./other-browsers.js').OtherBrowser} OtherBrowser */

const PICTURES = fileURLToPath(new URL('../../build/screenshots', import.meta.url))
const LIMIT_MS = 30000

const TEXT = `Array.from(document.querySelector('#text').children, (line) => line.textContent).join('\\n')`
const STATUS = `document.querySelector('#status').textContent`
const READY = `document.querySelector('#text').getAttribute('aria-busy') === 'false' && document.querySelector('#continue').ariaDisabled !== 'true' && !document.querySelector('#continue').hidden`

/** @param {OtherBrowser} browser @param {string} condition an expression */
async function until(browser, condition) {
  const began = Date.now()
  for (;;) {
    // While a page is loaded anew there is none to be asked.
    const isTrue = await browser.run(condition).catch(() => false)
    if (isTrue) return
    if (Date.now() - began > LIMIT_MS) {
      assert.fail(`not so after ${LIMIT_MS} ms: ${condition}; ${await browser.run(STATUS)}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** @param {OtherBrowser} browser @param {Record<string, number>} settings */
async function setSampling(browser, settings) {
  for (const [name, value] of Object.entries(settings)) {
    await browser.run(`(() => {
      const input = document.querySelector('#set-${name}')
      input.value = '${value}'
      input.dispatchEvent(new Event('change', { bubbles: true }))
    })()`)
  }
}

/** @param {OtherBrowser} browser @param {string} [id] of a button */
async function act(browser, id = 'continue') {
  await browser.run(`document.querySelector('#${id}').click()`)
  await until(browser, READY)
}

/** @param {string} text @param {object} options @returns {Promise<string>} as Node writes it */
async function writtenInNode(text, options) {
  const model = await BiMamba.load(APP_MODEL)
  const session = await model.createSession()
  await session.append(text)
  for await (const _ of session.generate(options));
  const written = await session.text()
  await model.close()
  return written
}

/** @typedef {(browser: OtherBrowser, t: import('node:test').TestContext, app: App) => Promise<void>} Check */
/** @typedef {Awaited<ReturnType<typeof startApp>>} App */

/** One after another in one page. @type {Record<string, Check>} */
const CHECKS = {
  'the text of a seed is that of Node, to the letter': async (browser, t) => {
    await until(browser, READY)
    await setSampling(browser, { maxTokens: 120, seed: 5, temperature: 0.9 })
    await act(browser)
    const facts = await browser.run(`({
      isolated: crossOriginIsolated,
      serviceWorker: 'serviceWorker' in navigator,
      privateFiles: typeof navigator.storage?.getDirectory === 'function',
      device: document.querySelector('#device').title,
    })`)
    t.diagnostic(`${browser.name}: ${await browser.run(STATUS)} ${JSON.stringify(facts)}`)
    const options = { maxTokens: 120, seed: 5, temperature: 0.9 }
    assert.equal(await browser.run(TEXT), await writtenInNode('Once upon a time', options))
    await browser.picture(join(PICTURES, `${browser.engine}-write.png`))
  },

  'Esc stops': async (browser) => {
    await setSampling(browser, { maxTokens: 4000, pace: 60 })
    await browser.run(`document.querySelector('#set-endless').click()`)
    const shown = await browser.run(TEXT)
    await browser.run(`document.querySelector('#continue').click()`)
    // The status may still tell of the text before: only a longer text shows that tokens come.
    await until(browser, `${TEXT}.length > ${shown.length} && /a second/.test(${STATUS})`)
    await browser.press('Escape')
    await until(browser, READY)
    assert.match(await browser.run(STATUS), / Stopped\.$/)
  },

  'a person writes, with a new line, and the text goes on from there': async (browser) => {
    await act(browser, 'fresh')
    await setSampling(browser, { maxTokens: 20, seed: 9, temperature: 0.9, pace: 0 })
    await browser.run(`(() => {
      const text = document.querySelector('#text')
      const line = text.lastElementChild.firstChild
      text.focus()
      getSelection().collapse(line, line.data.length)
    })()`)
    await browser.press(...' there was', 'Enter', ...'a fox')
    const written = 'Once upon a time there was\na fox'
    assert.equal(await browser.run(`document.querySelector('#text').innerText.trimEnd()`), written)
    await act(browser)
    const options = { maxTokens: 20, seed: 9, temperature: 0.9 }
    assert.equal(await browser.run(TEXT), await writtenInNode(written, options))
  },

  'a branch, the state in pictures, and the cost': async (browser) => {
    await browser.run(`void (location.hash = '#state')`)
    await until(browser, `document.querySelectorAll('canvas').length === 6`)
    await browser.run(`document.querySelector('#fork').click()`)
    await until(browser, `document.querySelectorAll('.branch').length === 3`)
    await act(browser)
    const [left = '', right = ''] = await browser.run(
      `Array.from(document.querySelectorAll('.compared'), (pane) => pane.textContent)`,
    )
    assert.ok(right.startsWith(left) && right.length > left.length)
    const figures = await browser.run(`document.querySelector('.figures').textContent`)
    assert.match(figures, /State of this text2\.03 MB/)
    await browser.picture(join(PICTURES, `${browser.engine}-state.png`))
    await browser.run(`void (location.hash = '#write')`)
  },

  'the text is there after a reload without its host': async (browser, _t, app) => {
    const text = await browser.run(TEXT)
    await until(browser, `navigator.serviceWorker.controller !== null`)
    await browser.run(`new Promise((resolve) => setTimeout(resolve, 1500))`) // the draft is kept soon
    await app.stop()
    await browser.open(app.url)
    await until(browser, READY)
    assert.equal(await browser.run(TEXT), text)
    await act(browser)
    assert.match(await browser.run(STATUS), /^20 tokens/)
  },
}

for (const [name, launch] of /** @type {const} */ ([
  ['Firefox', launchFirefox],
  ['WebKitGTK', launchWebKit],
])) {
  describe(name, () => {
    /** @type {OtherBrowser | null} */
    let browser = null
    /** @type {App} */
    let app

    before(async () => {
      mkdirSync(PICTURES, { recursive: true })
      app = await startApp()
      browser = await launch()
      await browser?.open(app.url)
    })

    after(async () => {
      await browser?.close()
      await app?.close()
    })

    for (const [title, check] of Object.entries(CHECKS)) {
      test(title, async (t) => {
        if (browser) await check(browser, t, app)
        else t.skip(`no ${name} on this machine`)
      })
    }
  })
}
