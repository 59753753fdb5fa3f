/**
 * `npm run test:bundlers`: the package in apps that Vite and webpack have built, and in Vite's development server.
 *
 * Owns what the README says about them: an app in Chromium writes the text that Node writes, in a worker with its threads, inline, and with what is loaded
 * on use. Installs the bundlers first, which `npm test` does not.
 */

import assert from 'node:assert/strict'
import { cp, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { ROOT, run } from '../../scripts/command.js'
import { installPinned } from '../../scripts/pinned-packages.js'
import { launchChromium } from '../browser/chromium.js'
import { startPageServer } from '../browser/page-server.js'
import { packPackage } from '../js/support/installed-package.js'
import { MODEL_FILE } from '../js/support/model-file.js'

const HERE = join(ROOT, 'tests/bundlers')
const FOLDER = join(ROOT, 'build/bundlers')
const APP = join(FOLDER, 'app')
const OUT = join(FOLDER, 'out')
/** For versions of Vite before 8. */
const OLDER_VITE = { worker: { format: 'es' }, optimizeDeps: { exclude: ['bimamba'] } }
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
}

/** @type {import('playwright-core').Browser} */
let browser
/** @type {Awaited<ReturnType<typeof startPageServer>>} */
let server
/** @type {string} */
let wanted

before(async () => {
  installPinned(HERE, FOLDER)
  const { filename } = await packPackage(FOLDER)
  const flags = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', '--offline']
  run('npm', ['--prefix', FOLDER, 'install', ...flags, join(FOLDER, filename)])
  await rm(OUT, { recursive: true, force: true })
  await rm(APP, { recursive: true, force: true })
  await cp(join(HERE, 'app'), APP, { recursive: true })
  await mkdir(join(APP, 'public'))
  await cp(MODEL_FILE, join(APP, 'public/model.safetensors'))
  const model = await BiMamba.load(MODEL_FILE)
  wanted = ''
  for await (const text of model.generate('Once upon a time', { maxTokens: 20, seed: 1 }))
    wanted += text
  await model.close()
  browser = await launchChromium()
  server = await startPageServer({ folders: { out: OUT }, isolated: true })
})

after(async () => {
  await browser?.close()
  await server?.close()
})

/** @param {string} entry below node_modules @returns {Promise<unknown>} */
const load = (entry) => import(pathToFileURL(join(FOLDER, 'node_modules', entry)).href)

/**
 * @typedef {object} Vite
 * @property {(config: object) => Promise<unknown>} build
 * @property {(config: object) => Promise<{ listen: () => Promise<unknown>, close: () => Promise<void>, resolvedUrls: { local: string[] } }>} createServer
 */

/** @typedef {(config: object) => { run: (done: (error: Error | null, stats: { hasErrors: () => boolean, toString: () => string }) => void) => void }} Webpack */

/** @param {string} url of the app's page */
async function checkApp(url) {
  const page = await browser.newPage()
  try {
    await page.goto(url)
    await page.waitForFunction(() => 'write' in globalThis)
    for (const inline of [false, true]) {
      const options = { url: new URL('model.safetensors', url).href, inline }
      const found = await page.evaluate(
        (options) => Reflect.get(globalThis, 'write')(options),
        options,
      )
      assert.equal(found.plain, wanted)
      assert.match(found.formed, /^(yes|no)$/)
      assert.equal(found.threads, inline ? 1 : 2)
    }
  } finally {
    await page.close()
  }
}

/** @type {{ name: string, folder: string, config: object }[]} */
const VITES = [
  { name: 'Vite 8, as it is', folder: 'vite', config: {} },
  { name: 'Vite 6, with two settings', folder: 'vite6', config: OLDER_VITE },
]

for (const { name, folder, config } of VITES) {
  const common = { ...config, root: APP, configFile: false, logLevel: 'error' }

  test(`${name}: a built app`, async () => {
    const vite = /** @type {Vite} */ (await load(`${folder}/dist/node/index.js`))
    await vite.build({ ...common, base: './', build: { outDir: join(OUT, folder) } })
    await checkApp(`${server.url}/out/${folder}/index.html`)
  })

  test(`${name}: its development server`, async (t) => {
    const vite = /** @type {Vite} */ (await load(`${folder}/dist/node/index.js`))
    const own = { host: '127.0.0.1', port: 0, headers: ISOLATION, fs: { allow: [FOLDER] } }
    const cacheDir = join(OUT, `${folder}-cache`)
    const development = await vite.createServer({ ...common, cacheDir, server: own })
    t.after(() => development.close())
    await development.listen()
    const [url = ''] = development.resolvedUrls.local
    await checkApp(url)
  })
}

test('webpack, as it is: a built app', async () => {
  const webpack = /** @type {{ default: Webpack }} */ (await load('webpack/lib/index.js')).default
  const path = join(OUT, 'webpack')
  const compiler = webpack({
    ...{ mode: 'production', context: APP, entry: './app-main.js', performance: false },
    output: { path, filename: 'app-main.js' },
  })
  await new Promise((resolve, reject) => {
    compiler.run((error, stats) => {
      if (error || stats.hasErrors()) reject(error ?? new Error(stats.toString()))
      else resolve(undefined)
    })
  })
  await cp(MODEL_FILE, join(path, 'model.safetensors'))
  await cp(join(APP, 'index.html'), join(path, 'index.html'))
  await checkApp(`${server.url}/out/webpack/index.html`)
})
