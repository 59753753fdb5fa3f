/**
 * Writing with the web app in real Chromium: from the first visit to the first token, and all that can be done to a text.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import {
  APP_MODEL,
  act,
  assertQuiet,
  newAppPage,
  openApp,
  ready,
  setSampling,
  textOf,
  type,
  useApp,
} from './app-site.js'

const app = useApp()

/**
 * A visitor who presses Continue as soon as that can be pressed.
 * @param {import('playwright-core').Page} page
 * @returns {Promise<{ ready: number, token: number }>} ms from the beginning of the visit to the model, and to the first token
 */
async function visit(page) {
  await page.addInitScript(async () => {
    const wait = () => new Promise((resolve) => setTimeout(resolve, 1))
    while (!document.querySelector('#continue:not([aria-disabled])')) await wait()
    const ready = performance.now()
    const text = /** @type {HTMLElement} */ (document.querySelector('#text'))
    const before = text.textContent
    document.getElementById('continue')?.click()
    while (text.textContent === before) await wait()
    Object.assign(globalThis, { visited: { ready, token: performance.now() } })
  })
  await page.goto(app.url)
  await page.waitForFunction(() => 'visited' in globalThis)
  return page.evaluate(() => Reflect.get(globalThis, 'visited'))
}

test('a first visit has its first token within two seconds, the next one within one', async (t) => {
  /** @type {{ cold: number[], warm: number[] }} */
  const ms = { cold: [], warm: [] }
  for (let round = 0; round < 3; round++) {
    const context = await app.newContext(t)
    for (const kind of /** @type {const} */ (['cold', 'warm'])) {
      const page = await newAppPage(context)
      const { ready: loaded, token } = await visit(page)
      ms[kind].push(token)
      t.diagnostic(
        `${kind}: model after ${Math.round(loaded)} ms, first token after ${Math.round(token)} ms`,
      )
      await ready(page)
      await page.evaluate(() => navigator.serviceWorker.ready)
      assertQuiet(page)
      await page.close()
    }
    await context.close()
  }
  assert.ok(Math.min(...ms.cold) <= 2000, `cold: ${ms.cold} ms`)
  assert.ok(Math.min(...ms.warm) <= 1000, `warm: ${ms.warm} ms`)
})

test('a given seed writes what Node writes; the status says tokens, speed and the first token', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 50, seed: 5, temperature: 0.8, topP: 0.9 })
  await act(page)
  const model = await BiMamba.load(APP_MODEL)
  const session = await model.createSession()
  await session.append('Once upon a time')
  for await (const _ of session.generate({ maxTokens: 50, seed: 5, temperature: 0.8, topP: 0.9 }));
  assert.equal(await textOf(page), await session.text())
  await model.close()
  assert.match(
    String(await page.textContent('#status')),
    /^50 tokens, [\d,.]+ a second, the first after [\d.]+ ms\. The length was reached\. Seed 5, given\.$/,
  )
  assert.match(String(await page.textContent('#device')), /^WebAssembly, 1 thread$/)
  assertQuiet(page)
})

test('Esc stops, and the text is the model\u2019s to the last piece; what goes on is the same text', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 5000, pace: 60 })
  await page.locator('#continue').click()
  await page.waitForFunction(
    () => Number(document.querySelector('#text')?.textContent?.length) > 60,
  )
  assert.equal(await page.getAttribute('#text', 'aria-readonly'), 'true')
  await page.keyboard.press('Escape')
  await ready(page)
  assert.match(String(await page.textContent('#status')), /^\d+ tokens\. Stopped\.$/)
  const stopped = await textOf(page)
  await setSampling(page, { maxTokens: 10, pace: 0 })
  await act(page)
  const more = await textOf(page)
  assert.ok(
    more.startsWith(stopped) && more.length > stopped.length,
    `${stopped}\n|${more} ${await page.textContent('#status')}`,
  )
  assertQuiet(page)
})

test('a word in the middle is changed, and the text goes on from what is there', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await type(page, 'Once upon a time there was a fox. His name was Ben.\n\nOne day')
  await setSampling(page, { maxTokens: 20, temperature: 0 })
  await act(page)
  const first = await textOf(page)
  assert.ok(
    first.startsWith('Once upon a time there was a fox. His name was Ben.\n\nOne day '),
    first,
  )
  await page.locator('#text').evaluate((element) => {
    const line = /** @type {Text} */ (element.firstElementChild?.firstChild)
    getSelection()?.setBaseAndExtent(
      line,
      line.data.indexOf('fox'),
      line,
      line.data.indexOf('fox') + 3,
    )
  })
  await page.keyboard.insertText('girl')
  const edited = first.replace('a fox', 'a girl')
  await act(page)
  const second = await textOf(page)
  assert.ok(second.startsWith(edited), `${second}\n${edited}`)
  const model = await BiMamba.load(APP_MODEL)
  const session = await model.createSession()
  await session.append(edited)
  for await (const _ of session.generate({ maxTokens: 20, temperature: 0 }));
  assert.equal(second, await session.text())
  await model.close()
  // Enter makes a line, and the line is read.
  await page.keyboard.press('Control+End')
  await page.locator('#text').focus()
  await page.keyboard.press('Control+End')
  await page.keyboard.press('Enter')
  await page.keyboard.type('Then')
  await act(page)
  assert.ok((await textOf(page)).startsWith(`${second}\nThen`), await textOf(page))
  assertQuiet(page)
})

test('regenerate, undo, redo, new text', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 30, temperature: 1 })
  await act(page)
  const first = await textOf(page)
  await act(page, 'again')
  const second = await textOf(page)
  assert.notEqual(second, first)
  assert.ok(second.startsWith('Once upon a time'))
  await act(page, 'again')
  const third = await textOf(page)
  for (const expected of [second, first, 'Once upon a time']) {
    await act(page, 'undo')
    assert.equal(await textOf(page), expected)
  }
  assert.equal(await page.isDisabled('#undo'), true)
  for (const expected of [first, second, third]) {
    await act(page, 'redo')
    assert.equal(await textOf(page), expected)
  }
  assert.equal(await page.isDisabled('#redo'), true)
  await type(page, `Twice ${third.slice(5)}`)
  await page.locator('#again[aria-disabled]').waitFor() // its beginning is another
  await act(page, 'fresh')
  assert.equal(await textOf(page), 'Once upon a time')
  assertQuiet(page)
})

test('a text that the model has ended is followed by another one', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 1000, seed: 3 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /The model ended the text here/)
  const ended = await textOf(page)
  await setSampling(page, { maxTokens: 30 })
  await act(page)
  const more = await textOf(page)
  assert.ok(more.startsWith(`${ended}\n\n`) && more.length > ended.length + 40, more)
  await page.locator('#set-endless').check()
  await setSampling(page, { maxTokens: 1500 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /^1,500 tokens, .*The length was reached/)
  assertQuiet(page)
})

test('a value that cannot be is refused in words, and Reset brings the presets back', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { temperature: 500 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /temperature is 500, want a number from/)
  assert.equal(await textOf(page), 'Once upon a time')
  assert.match(String(await page.textContent('#told')), /temperature is 500/)
  assert.equal(await page.isDisabled('#undo'), true) // there is nothing to undo
  await setSampling(page, { maxTokens: 10, temperature: 0.6 })
  await act(page)
  const written = await textOf(page)
  await setSampling(page, { temperature: 500 })
  await act(page, 'again') // what was there stays
  assert.equal(await textOf(page), written)
  await act(page, 'undo')
  assert.equal(await textOf(page), 'Once upon a time')
  assert.equal(await page.isDisabled('#undo'), true)
  await setSampling(page, { maxTokens: 0, temperature: 0.6 })
  await act(page)
  assert.match(String(await page.textContent('#status')), /maxTokens is 0, want an integer from 1/)
  await page.getByRole('button', { name: 'Reset' }).click()
  assert.equal(await page.inputValue('#set-temperature'), '0.6')
  await page.reload()
  assert.equal(await page.inputValue('#set-temperature'), '0.6')
  assertQuiet(page)
})

test('text and settings are there after a reload, and two tabs have a text each', async (t) => {
  const context = await app.newContext(t)
  const one = await openApp(context, app.url)
  await setSampling(one, { maxTokens: 12 })
  await type(one, 'Long ago, in the first tab,')
  await act(one)
  const two = await openApp(context, app.url)
  assert.equal(await textOf(two), 'Once upon a time')
  await type(two, 'A second tab had')
  await act(two)
  const texts = [await textOf(one), await textOf(two)]
  for (const [i, page] of [one, two].entries()) {
    await page.reload()
    await ready(page)
    assert.equal(await textOf(page), texts[i])
    assert.equal(await page.inputValue('#set-maxTokens'), '12')
    await act(page)
    assert.ok((await textOf(page)).startsWith(String(texts[i])))
    assertQuiet(page)
  }
})

test('a reload before the draft was read loses nothing, and a tab keeps its own text', async (t) => {
  const context = await app.newContext(t)
  const one = await openApp(context, app.url)
  await type(one, 'In the first tab')
  const two = await openApp(context, app.url)
  await type(two, 'In the second tab')
  await two.waitForTimeout(1000)
  await one.close()
  await two.addInitScript(() => {
    const { request } = LockManager.prototype
    Object.assign(LockManager.prototype, {
      /** @param {unknown[]} args */
      async request(...args) {
        await new Promise((resolve) => setTimeout(resolve, 600))
        return Reflect.apply(request, this, args)
      },
    })
  })
  await two.reload()
  await two.waitForTimeout(200)
  await two.reload()
  await ready(two)
  assert.equal(await textOf(two), 'In the second tab')
  assertQuiet(two)
})

test('an ending that falls between two chunks is an ending', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 600, seed: 19 })
  await act(page)
  assert.match(
    String(await page.textContent('#status')),
    /^256 tokens, .*The model ended the text here/,
  )
  // What is written after an undo is not thrown away by a redo.
  await act(page, 'undo')
  await type(page, 'My own sentence')
  await act(page, 'redo')
  assert.equal(await textOf(page), 'My own sentence')
  assertQuiet(page)
})

test('a new text leaves the others, and all branches are there after a reload', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 15, seed: 2 })
  await act(page)
  const first = await textOf(page)
  await act(page, 'fresh')
  assert.equal(await textOf(page), 'Once upon a time')
  await type(page, 'Another one began')
  await act(page)
  const second = await textOf(page)
  await page.locator('a[href="#state"]').click()
  await page.locator('#fork').click()
  await page.locator('.branch').nth(2).waitFor()
  await page.reload()
  await ready(page)
  const names = () => page.locator('.branch .name').allTextContents()
  assert.deepEqual(await names(), ['Text 1', 'Text 2', 'Branch 1'])
  await page.locator('#fork').click()
  await page.locator('.branch').nth(3).waitFor()
  assert.deepEqual(await names(), ['Text 1', 'Text 2', 'Branch 1', 'Branch 2'])
  await page.locator('.branch .name').first().click()
  await page.locator('a[href="#write"]').click()
  assert.equal(await textOf(page), first)
  await act(page)
  assert.ok((await textOf(page)).startsWith(first) && (await textOf(page)) !== first)
  await page.locator('a[href="#state"]').click()
  await page.locator('.branch .name').nth(1).click()
  await page.locator('a[href="#write"]').click()
  assert.equal(await textOf(page), second)
  assertQuiet(page)
})

test('another model in the middle of a text: it stops, and the other one goes on', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 5000, pace: 100 })
  await page.locator('#set-endless').check()
  await page.locator('#continue').click()
  await page.waitForFunction(
    () => Number(document.querySelector('#text')?.textContent?.length) > 60,
  )
  await page.locator('a[href="#state"]').click()
  assert.equal(await page.locator('#timeline').evaluate((list) => list.hasAttribute('inert')), true)
  await page.locator('a[href="#models"]').click()
  await page.locator('#model-precision').selectOption('high')
  await page.getByRole('button', { name: 'Load again like this' }).click()
  await ready(page)
  const text = await textOf(page)
  assert.ok(text.length > 60)
  await page.locator('a[href="#write"]').click()
  await setSampling(page, { maxTokens: 10, pace: 0 })
  await act(page)
  assert.ok((await textOf(page)).startsWith(text) && (await textOf(page)) !== text)
  assert.match(String(await page.getAttribute('#device', 'title')), /precision high/)
  assertQuiet(page)
})

test('a hidden page rests, and goes on when it is seen again', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await setSampling(page, { maxTokens: 3000, pace: 100 })
  await page.locator('#set-endless').check()
  await page.locator('#continue').click()
  await page.waitForFunction(
    () => Number(document.querySelector('#text')?.textContent?.length) > 40,
  )
  const hide = (/** @type {boolean} */ hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => value })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
  await hide(true)
  await page.waitForFunction(() => document.title.startsWith('Paused'))
  assert.match(String(await page.textContent('#status')), /Paused while this page is hidden/)
  await page.waitForTimeout(100)
  const resting = await textOf(page)
  await page.waitForTimeout(400)
  assert.equal(await textOf(page), resting)
  await hide(false)
  await page.waitForFunction(
    (length) => Number(document.querySelector('#text')?.textContent?.length) > length,
    resting.length,
  )
  await page.keyboard.press('Escape')
  await ready(page)
  assertQuiet(page)
})

test('when memory is short it rests, says so, and can be told to go on', async (t) => {
  const page = await newAppPage(await app.newContext(t))
  await page.addInitScript(() => {
    const memory = { usedJSHeapSize: 10, jsHeapSizeLimit: 1000 }
    Object.assign(globalThis, { testMemory: memory })
    Object.defineProperty(performance, 'memory', { get: () => memory })
  })
  await page.goto(app.url)
  await ready(page)
  await setSampling(page, { maxTokens: 60 })
  await page.evaluate(() => {
    Object.assign(Reflect.get(globalThis, 'testMemory'), { usedJSHeapSize: 950 })
  })
  await page.locator('#continue').click()
  await page.getByText('Paused: the memory of this page is nearly full.').first().waitFor()
  await page.getByRole('button', { name: 'Go on', exact: true }).click()
  await ready(page)
  assert.match(String(await page.textContent('#status')), /tokens/)
  assertQuiet(page)
})

test('what a model or a person writes stays text', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  const hostile =
    '<img src=x onerror=alert(1)><script>alert(2)</script>&lt;b&gt; <a href="javascript:alert(3)">x</a>'
  await type(page, hostile)
  await setSampling(page, { maxTokens: 5 })
  await act(page)
  assert.ok((await textOf(page)).startsWith(hostile))
  const foreign = () =>
    page
      .locator('#text :not(div):not(br), #spoken :not(span), #timeline script, #compare img')
      .count()
  assert.equal(await foreign(), 0)
  await page.locator('a[href="#state"]').click()
  await page.locator('#fork').click()
  await page.locator('.compared').first().getByText(hostile).waitFor()
  assert.equal(await foreign(), 0)
  assertQuiet(page)
})

test('what is pasted becomes text, can be undone with the keys, and does not come in while the model writes', async (t) => {
  const permissions = ['clipboard-read', 'clipboard-write']
  const page = await openApp(await app.newContext(t, { permissions }), app.url)
  await page.evaluate(async () => {
    const rich = new Blob(['<b>bold</b><img src=x>'], { type: 'text/html' })
    const plain = new Blob(['plain <b>\r\nsecond'], { type: 'text/plain' })
    await navigator.clipboard.write([new ClipboardItem({ 'text/html': rich, 'text/plain': plain })])
  })
  await page.locator('#text').click()
  await page.keyboard.press('Control+End')
  await page.keyboard.press('Control+v')
  assert.equal(await page.locator('#text b, #text img').count(), 0)
  await page.keyboard.press('Control+z')
  assert.equal(await textOf(page), 'Once upon a time')
  await page.keyboard.press('Control+Shift+z')
  await setSampling(page, { maxTokens: 4000, pace: 50 })
  await page.keyboard.press('Control+Enter')
  await page.locator('#stop:not([hidden])').waitFor()
  await page.keyboard.press('Control+v')
  await page.keyboard.type('typed')
  await page.keyboard.press('Escape')
  await ready(page)
  const text = await textOf(page)
  assert.ok(text.startsWith('Once upon a timeplain <b>\nsecond'), text)
  assert.equal(text.split('plain <b>').length, 2)
  assert.ok(!text.includes('typed'))
  // Whoever wrote before the run writes on behind it.
  await page.keyboard.type(' And I')
  assert.equal(await textOf(page), `${text} And I`)
  assertQuiet(page)
})

test('the keyboard stays where it was, whatever a button does', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  const focused = () => page.evaluate(() => document.activeElement?.id)
  await setSampling(page, { maxTokens: 10 })
  await act(page)
  for (const id of ['again', 'undo', 'redo', 'fresh', 'undo']) {
    await page.locator(`#${id}`).focus()
    await page.keyboard.press('Enter')
    await ready(page)
    assert.equal(await focused(), id)
  }
  await page.locator('a[href="#state"]').click()
  await page.locator('#mark').click()
  await page.locator('#fork').click()
  await page.locator('.branch').nth(2).waitFor()
  await page.locator('.dot').first().focus()
  await page.keyboard.press('Enter')
  for (const name of ['later', 'later', 'earlier', 'go']) {
    await page.locator(`#timeline-moment-${name}`).focus()
    await page.keyboard.press('Enter')
    await ready(page)
    assert.equal(await focused(), `timeline-moment-${name}`)
  }
  const count = await page.locator('.branch').count()
  await page.getByRole('button', { name: 'Delete Branch 1' }).focus()
  await page.keyboard.press('Enter')
  await page.waitForFunction((most) => document.querySelectorAll('.branch').length < most, count)
  assert.match(String(await focused()), /^timeline-branch-/)
  await page.locator('#timeline-back').focus()
  await page.keyboard.press('Enter')
  await page.waitForFunction((most) => document.querySelectorAll('.branch').length === most, count)
  assert.match(String(await focused()), /^timeline-branch-/)
  assert.match(String(await page.locator('.branch.current').textContent()), /^Branch 1/)
  await page.locator('a[href="#benchmark"]').click()
  await page.getByRole('button', { name: 'Measure' }).focus()
  await page.keyboard.press('Enter')
  await page.locator('#bench').getByRole('button', { name: 'Stop' }).focus()
  await page.keyboard.press('Enter')
  await page.locator('#bench').getByText('Stopped.').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Measure')
  assertQuiet(page)
})

test('a long text: it says that it reads, and what was looked at is found again', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  const story = 'One day a girl went to the park and saw a big red ball. '.repeat(1800)
  await page.evaluate(() => {
    /** @type {number[]} */
    const tasks = []
    Object.assign(globalThis, { tasks })
  })
  await type(page, story)
  await setSampling(page, { maxTokens: 5 })
  await page.locator('#continue').click()
  await page.getByText('Reading: 100,800 characters.').first().waitFor()
  await ready(page)
  const top = () => page.locator('#main').evaluate((main) => main.scrollTop)
  await page.locator('#main').evaluate((main) => main.scrollTo(0, 500))
  await page.locator('a[href="#state"]').click()
  await page.locator('a[href="#write"]').click()
  await page.waitForFunction(() => document.querySelector('#main')?.scrollTop === 500)
  assert.equal(await top(), 500)
  await page.locator('#text').focus()
  await page.evaluate(() => {
    const { tasks } = /** @type {{ tasks: number[] }} */ (/** @type {unknown} */ (globalThis))
    new PerformanceObserver((list) =>
      tasks.push(...list.getEntries().map(({ duration }) => duration)),
    ).observe({ type: 'longtask' })
  })
  await page.keyboard.type('abcdefgh', { delay: 60 })
  await page.waitForTimeout(1500)
  t.diagnostic(`long tasks: ${await page.evaluate(() => String(Reflect.get(globalThis, 'tasks')))}`)
  assertQuiet(page)
})

test('where nothing can be kept it says so, once', async (t) => {
  const page = await newAppPage(await app.newContext(t))
  await page.addInitScript(() => {
    Storage.prototype.setItem = () => {
      throw new DOMException('full', 'QuotaExceededError')
    }
  })
  await page.goto(app.url)
  await ready(page)
  await setSampling(page, { maxTokens: 5 })
  await act(page)
  await page.getByText('This browser keeps nothing for this page').waitFor()
  await page.getByRole('button', { name: 'I see' }).click()
  await act(page)
  assert.equal(await page.getByText('This browser keeps nothing for this page').count(), 1)
  assert.equal(await page.locator('.storage').isVisible(), false)
  assertQuiet(page)
})

test('by the keyboard alone: tabs, settings, text, writing, stopping', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  const focused = () =>
    page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent)
  /** @param {string} wanted */
  const tabTo = async (wanted) => {
    for (let i = 0; i < 40; i++) {
      if ((await focused()) === wanted) return
      await page.keyboard.press('Tab')
    }
    assert.fail(`${wanted} is not reached`)
  }
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'Skip to the content')
  await page.keyboard.press('Enter')
  await tabTo('text')
  await page.keyboard.press('Control+End')
  await page.keyboard.type(' there was')
  await tabTo('set-maxTokens')
  await page.keyboard.press('Control+a')
  await page.keyboard.type('4000')
  await tabTo('set-pace')
  await page.keyboard.press('Control+a')
  await page.keyboard.type('50')
  await tabTo('continue')
  await page.keyboard.press('Enter')
  await page.locator('#stop:not([hidden])').waitFor()
  assert.equal(await focused(), 'stop')
  await page.keyboard.press('Escape')
  await ready(page)
  await page.waitForFunction(() => document.activeElement?.id === 'continue')
  assert.ok((await textOf(page)).startsWith('Once upon a time there was'))
  await page.keyboard.press('Control+Enter')
  await page.locator('#stop:not([hidden])').waitFor()
  await page.keyboard.press('Escape')
  await ready(page)
  assertQuiet(page)
})

test('a screen reader hears sentences', async (t) => {
  const page = await openApp(await app.newContext(t), app.url)
  await page.evaluate(() => {
    /** @type {string[]} */
    const heard = []
    Object.assign(globalThis, { heard })
    new MutationObserver(() =>
      heard.push(document.querySelector('#spoken')?.textContent ?? ''),
    ).observe(/** @type {Node} */ (document.querySelector('#spoken')), {
      childList: true,
      subtree: true,
    })
  })
  await setSampling(page, { maxTokens: 150, pace: 60, seed: 4 })
  await act(page)
  const heard = /** @type {string[]} */ (
    await page.evaluate(() => Reflect.get(globalThis, 'heard'))
  )
  assert.ok(heard.length >= 1 && heard.length <= 8, `${heard.length} times`)
  for (const said of heard.slice(0, -1)) assert.match(said.trim(), /[.!?]["']?$/)
  assertQuiet(page)
})
