/**
 * The web app as something that is installed, in real Chromium: offline, updates, hosts without headers, and what Chromium itself asks of an app.
 */

import assert from 'node:assert/strict'
import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { writeShell } from '../../scripts/web-site.js'
import {
  act,
  assertQuiet,
  newAppPage,
  openApp,
  ready,
  setSampling,
  startApp,
  textOf,
  type,
} from './app-site.js'
import { launchChromium, launchPersistent } from './chromium.js'

/** @typedef {import('playwright-core').Page} Page */

/** @type {import('playwright-core').Browser} */
let browser

before(async () => {
  browser = await launchChromium()
})

after(async () => {
  await browser?.close()
})

/** @param {import('node:test').TestContext} t @param {Parameters<typeof startApp>[0]} [options] */
async function start(t, options) {
  const app = await startApp(options)
  const context = await browser.newContext()
  t.after(async () => {
    await context.close()
    await app.close()
  })
  return { app, context }
}

/** Until a service worker answers for the page. @param {Page} page */
async function controlled(page) {
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null)
}

/** Puts another version of the app on the host: a changed style sheet, and a list that knows of it. @param {string} site @param {string} text to be seen in it */
async function deploy(site, text) {
  await appendFile(join(site, 'page.css'), `/* ${text} */\n`)
  writeShell(site)
}

test('offline: a reload, and a text; the model is no affair of the service worker', async (t) => {
  const { app, context } = await start(t)
  const page = await openApp(context, app.url)
  await controlled(page)
  await setSampling(page, { maxTokens: 15 })
  await act(page)
  const text = await textOf(page)
  app.requests.length = 0
  await app.stop()
  await context.setOffline(true)
  await page.reload()
  await ready(page)
  assert.equal(await textOf(page), text)
  await act(page)
  assert.ok((await textOf(page)).length > text.length)
  assert.equal(await page.evaluate(() => crossOriginIsolated), true)
  assert.deepEqual(app.requests, [])
  for (const view of ['state', 'models', 'benchmark']) {
    await page.locator(`a[href="#${view}"]`).click()
    await page.locator(`#${view}`).waitFor()
  }
  await page.getByRole('button', { name: 'Measure' }).click()
  await page.getByText('Done. Nothing was sent anywhere.').waitFor()
  const kept = await page.evaluate(async () => {
    const names = await caches.keys()
    const lists = await Promise.all(
      names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)),
    )
    return lists.flat()
  })
  assert.ok(kept.length > 15)
  assert.deepEqual(
    kept.filter((url) => url.endsWith('.safetensors')),
    [],
  )
})

for (const folder of ['', '/some/folder']) {
  test(`a host without headers, at ${folder || '/'}: loaded anew once, then isolated, with threads, and offline`, async (t) => {
    const { app, context } = await start(t, { isolated: false, folder })
    const page = await newAppPage(context)
    let loads = 0
    page.on('load', () => loads++)
    await page.goto(app.url)
    await page.waitForFunction(() => crossOriginIsolated)
    await ready(page)
    assert.equal(loads, 2)
    await page.locator('a[href="#models"]').click()
    await page.locator('#model-threads').selectOption('2')
    await page.getByRole('button', { name: 'Load again like this' }).click()
    await page.waitForFunction(
      () => document.querySelector('#device')?.textContent === 'WebAssembly, 2 threads',
    )
    await page.locator('a[href="#write"]').click()
    await app.stop()
    await page.reload()
    await ready(page)
    await setSampling(page, { maxTokens: 5 })
    await act(page)
    assert.match(String(await page.textContent('#status')), /^5 tokens/)
  })
}

test('a host without headers: who writes already is not interrupted, and the device says why one thread', async (t) => {
  const { app, context } = await start(t, { isolated: false })
  const page = await newAppPage(context)
  // The service worker comes late, as from a slow host.
  await page.addInitScript(() => {
    const { register } = ServiceWorkerContainer.prototype
    ServiceWorkerContainer.prototype.register = async function (...args) {
      while (!Reflect.get(globalThis, 'mayRegister'))
        await new Promise((resolve) => setTimeout(resolve, 10))
      return register.apply(this, args)
    }
  })
  await page.goto(app.url)
  await ready(page)
  assert.match(String(await page.getAttribute('#device', 'title')), /not cross-origin isolated/)
  await type(page, 'I write already')
  await page.evaluate(() => Object.assign(globalThis, { mayRegister: true, sameDocument: true }))
  await controlled(page)
  await page.waitForTimeout(300)
  assert.equal(await page.evaluate(() => Reflect.get(globalThis, 'sameDocument')), true)
  assert.equal(await textOf(page), 'I write already')
  await page.getByRole('button', { name: 'Load it anew' }).click()
  await page.waitForFunction(() => crossOriginIsolated)
  await ready(page)
  assert.equal(await textOf(page), 'I write already')
})

test('an update waits until it is wanted, then loses no text; a second tab is told', async (t) => {
  const { app, context } = await start(t)
  const page = await openApp(context, app.url)
  await controlled(page)
  const other = await openApp(context, app.url)
  await setSampling(page, { maxTokens: 4000, pace: 60 })
  await page.locator('#set-endless').check()
  await page.locator('#continue').click()
  await deploy(app.site, 'the second version')
  app.requests.length = 0
  await page.evaluate(async () => (await navigator.serviceWorker.ready).update())
  await page.getByText('A new version of this app is here.').waitFor()
  // It fetched what changed, and nothing else.
  const fetched = app.requests.filter((path) => !/service-worker|shell-files/.test(path))
  assert.deepEqual(fetched.sort(), ['/page.css'])
  assert.equal(await page.locator('#stop').isVisible(), true)
  assert.doesNotMatch(await styleOf(other), /the second version/)
  await page.keyboard.press('Escape')
  await ready(page)
  const text = await textOf(page)
  const loaded = page.waitForEvent('load')
  await page.getByRole('button', { name: 'Update now' }).first().click()
  await loaded
  await ready(page)
  assert.match(await styleOf(page), /the second version/)
  assert.equal(await textOf(page), text)
  await other.getByText('The app was updated in another tab.').waitFor()
  const reloaded = other.waitForEvent('load')
  await other.getByRole('button', { name: 'Reload this one' }).click()
  await reloaded
  await ready(other)
  const caches = await page.evaluate(() => globalThis.caches.keys())
  assert.equal(caches.filter((name) => name.startsWith('bimamba-shell-')).length, 1)
  assertQuiet(page)
})

/** @param {Page} page @returns {Promise<string>} the style sheet that the page gets now */
function styleOf(page) {
  return page.evaluate(async () => (await fetch('page.css')).text())
}

test('a host that is half way through an update: the old version stays whole', async (t) => {
  const { app, context } = await start(t)
  const page = await openApp(context, app.url)
  await controlled(page)
  await deploy(app.site, 'the second version')
  await appendFile(join(app.site, 'views.css'), '/* not what the list says */\n')
  await appendFile(join(app.site, 'page.css'), '/* nor this */\n')
  await page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready
    await registration.update().catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 500))
  })
  assert.equal(await page.locator('.update').count(), 0)
  await page.reload()
  await ready(page)
  assert.doesNotMatch(await styleOf(page), /second version|nor this/)
})

test('caches that were cleared come back with the next visit', async (t) => {
  const { app, context } = await start(t)
  const page = await openApp(context, app.url)
  await controlled(page)
  await page.evaluate(async () => {
    for (const name of await caches.keys()) await caches.delete(name)
  })
  await page.reload()
  await ready(page)
  await app.stop()
  await page.reload()
  await ready(page)
})

test('Chromium finds nothing that keeps the app from being installed', async (t) => {
  const app = await startApp()
  const folder = await mkdtemp(join(tmpdir(), 'bimamba-profile-'))
  const context = await launchPersistent(folder)
  t.after(async () => {
    await context.close()
    await app.close()
    await rm(folder, { recursive: true, force: true })
  })
  const page = await openApp(context, app.url)
  await controlled(page)
  const client = await context.newCDPSession(page)
  const { installabilityErrors } = await client.send('Page.getInstallabilityErrors')
  assert.deepEqual(installabilityErrors, [])
  const { errors, data } = await client.send('Page.getAppManifest')
  assert.deepEqual(errors, [])
  const { icons } = JSON.parse(String(data))
  for (const { src, sizes } of icons) {
    const size = await page.evaluate(async (url) => {
      const image = new Image()
      image.src = url
      await image.decode()
      return image.naturalWidth
    }, src)
    if (sizes !== 'any') assert.equal(`${size}x${size}`, sizes)
  }
  assertQuiet(page)
})
