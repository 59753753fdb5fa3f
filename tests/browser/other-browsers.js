/**
 * Firefox and WebKitGTK of the system, driven alike.
 *
 * Owns how each is started and spoken to: Firefox by WebDriver BiDi with puppeteer-core; WebKit by the HTTP of the W3C's WebDriver, of which a handful of
 * commands is used, on a screen of its own that nobody sees (Xvfb). Knows nothing of what is tested.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import puppeteer from 'puppeteer-core'
import { findProgram } from '../../scripts/command.js'

/**
 * A browser with one page.
 *
 * @typedef {object} OtherBrowser
 * @property {string} name    and version
 * @property {string} engine  for the names of files
 * @property {(url: string) => Promise<void>} open
 * @property {<T>(code: string) => Promise<T>} run  evaluates an expression in the page; a promise is awaited
 * @property {(...keys: string[]) => Promise<void>} press  on what has the focus: characters, or `Enter`, `Escape`, `End`; `Control+` before one
 * @property {(file: string) => Promise<void>} picture  writes a PNG
 * @property {() => Promise<void>} close
 */

const FIREFOX = ['firefox-esr', 'firefox']
/** Where Debian has the small browser that the driver of WebKitGTK starts. */
const MINI_BROWSERS = ['x86_64', 'aarch64'].map(
  (machine) => `/usr/lib/${machine}-linux-gnu/webkit2gtk-4.1/MiniBrowser`,
)
const START_MS = 20000
const LIMIT_MS = 60000
/** Keys of WebDriver. @type {Record<string, string>} */
const KEYS = { Enter: '\ue007', Escape: '\ue00c', End: '\ue010', Control: '\ue009' }

/** @returns {Promise<OtherBrowser | null>} null: there is none on this machine */
export async function launchFirefox() {
  const executablePath = FIREFOX.map(findProgram).find((path) => path !== null)
  if (!executablePath) return null
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath, headless: true })
  const page = await browser.newPage()
  page.setDefaultTimeout(LIMIT_MS)
  return {
    name: await browser.version(),
    engine: 'firefox',
    open: async (url) => {
      await page.goto(url)
    },
    run: (code) =>
      page.evaluate(`Promise.resolve(${code})`).then((value) => /** @type {never} */ (value)),
    press: async (...keys) => {
      for (const key of keys) {
        const [last = '', held] = key.split('+').reverse()
        if (held === 'Control') await page.keyboard.down('Control')
        await page.keyboard.press(/** @type {import('puppeteer-core').KeyInput} */ (last))
        if (held === 'Control') await page.keyboard.up('Control')
      }
    },
    picture: async (file) => {
      await page.screenshot({ path: /** @type {`${string}.png`} */ (file) })
    },
    close: () => browser.close(),
  }
}

/** @returns {Promise<OtherBrowser | null>} null: there is none on this machine */
export async function launchWebKit() {
  const binary = MINI_BROWSERS.find((path) => existsSync(path))
  if (!binary || !findProgram('WebKitWebDriver') || !findProgram('Xvfb')) return null
  const screen = spawn(
    'Xvfb',
    ['-displayfd', '3', '-screen', '0', '1280x900x24', '-nolisten', 'tcp'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] },
  )
  const numbers = /** @type {import('node:stream').Readable} */ (screen.stdio[3])
  const [display] = await once(numbers, 'data')
  const port = await freePort()
  const env = {
    ...process.env,
    DISPLAY: `:${String(display).trim()}`,
    // As root, in a container, there is nothing to make a sandbox of; the pages are our own.
    WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1',
    WEBKIT_DISABLE_COMPOSITING_MODE: '1',
  }
  const driver = spawn('WebKitWebDriver', [`--port=${port}`], { env, stdio: 'ignore' })
  const stop = () => {
    driver.kill()
    screen.kill()
  }
  try {
    const session = await WebDriverSession.begin(`http://127.0.0.1:${port}`, binary)
    return webKitOf(session, stop)
  } catch (error) {
    stop()
    throw error
  }
}

/** @param {WebDriverSession} session @param {() => void} stop @returns {OtherBrowser} */
function webKitOf(session, stop) {
  return {
    name: `WebKitGTK ${session.version}`,
    engine: 'webkit',
    open: async (url) => {
      await session.post('url', { url })
    },
    run: async (code) => {
      const script = `const done = arguments[0]
        Promise.resolve().then(() => (${code})).then((value) => done({ value }), (error) => done({ error: String(error) }))`
      const answer = /** @type {{ value?: never, error?: string }} */ (
        await session.post('execute/async', { script, args: [] })
      )
      if (answer.error !== undefined) throw new Error(answer.error)
      return /** @type {never} */ (answer.value ?? null)
    },
    press: async (...keys) => {
      for (const key of keys) {
        const names = key === '+' ? ['+'] : key.split('+')
        const values = names.map((name) => KEYS[name] ?? name)
        const down = values.map((value) => ({ type: 'keyDown', value }))
        const up = values.toReversed().map((value) => ({ type: 'keyUp', value }))
        await session.post('actions', {
          actions: [{ type: 'key', id: 'keyboard', actions: [...down, ...up] }],
        })
      }
    },
    picture: async (file) => {
      await writeFile(file, Buffer.from(String(await session.get('screenshot')), 'base64'))
    },
    close: async () => {
      await session.end().catch(() => {})
      stop()
    },
  }
}

/** The commands of https://www.w3.org/TR/webdriver2/ that are used here. */
class WebDriverSession {
  #base
  version

  /** @param {string} base address of the session @param {string} version of the browser */
  constructor(base, version) {
    this.#base = base
    this.version = version
  }

  /** @param {string} server @param {string} binary of the browser */
  static async begin(server, binary) {
    const options = { binary, args: ['--automation'] }
    const body = { capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': options } } }
    const began = Date.now()
    for (;;) {
      try {
        const answer = await call('POST', `${server}/session`, body)
        const { sessionId, capabilities } =
          /** @type {{ sessionId: string, capabilities: { browserVersion: string } }} */ (answer)
        const session = new WebDriverSession(
          `${server}/session/${sessionId}`,
          capabilities.browserVersion,
        )
        await session.post('timeouts', { script: LIMIT_MS })
        return session
      } catch (error) {
        // The driver has to open its port first.
        if (!(error instanceof TypeError) || Date.now() - began > START_MS) throw error
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
  }

  /** @param {string} command @param {object} body */
  post(command, body) {
    return call('POST', `${this.#base}/${command}`, body)
  }

  /** @param {string} command */
  get(command) {
    return call('GET', `${this.#base}/${command}`)
  }

  end() {
    return call('DELETE', this.#base)
  }
}

/** @param {string} method @param {string} url @param {object} [body] @returns {Promise<unknown>} the answer's value */
async function call(method, url, body) {
  const response = await fetch(url, { method, ...(body ? { body: JSON.stringify(body) } : {}) })
  const { value } = /** @type {{ value: unknown }} */ (await response.json())
  const { error, message } = /** @type {{ error?: string, message?: string }} */ (Object(value))
  if (error) throw new Error(`${new URL(url).pathname}: ${error}: ${message}`)
  return value
}

/** @returns {Promise<number>} */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  server.close()
  await once(server, 'close')
  return port
}
