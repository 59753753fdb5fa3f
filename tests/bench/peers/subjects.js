/**
 * What is compared, each in a process of its own that lives through all rounds and works only when it is asked.
 *
 * Owns the list of subjects and the two ways to ask one: a child of Node over its channel, a page of Chromium by evaluate. Knows no
 * engine from inside. All pages share one browser and one server.
 */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { launchChromium } from '../../browser/chromium.js'
import { startPageServer } from '../../browser/page-server.js'
import { randomGguf } from './random-gguf.js'

/** @typedef {import('./random-gguf.js').PeerType} PeerType */

/**
 * @typedef {object} SubjectName
 * @property {'bimamba' | 'wllama' | 'llama.cpp'} engine
 * @property {'Node' | 'Chromium' | 'native'} host
 * @property {string} type of the projections: 1 bit, or GGML's name
 * @property {number} threads
 */

/**
 * @typedef {SubjectName & { prefill: (tokens: number) => Promise<number>, decode: (tokens: number) => Promise<number>,
 *   close: () => Promise<void> }} Subject both measurements give ms
 */

const HERE = dirname(fileURLToPath(import.meta.url))
const ROOT = join(HERE, '../../..')

/** Engine, host and type, in the order of the table. @type {Omit<SubjectName, 'threads'>[]} */
const KINDS = [
  { engine: 'bimamba', host: 'Node', type: '1 bit' },
  { engine: 'bimamba', host: 'Chromium', type: '1 bit' },
  { engine: 'wllama', host: 'Chromium', type: 'Q1_0' },
  { engine: 'wllama', host: 'Chromium', type: 'Q4_K' },
  { engine: 'llama.cpp', host: 'native', type: 'Q1_0' },
  { engine: 'llama.cpp', host: 'native', type: 'TQ2_0' },
  { engine: 'llama.cpp', host: 'native', type: 'Q4_K' },
]
const THREADS = [1, 2]

/** A page that is not looked at would get less of the processor. */
const AWAKE = ['--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows']

/**
 * Starts every subject of a shape, one after another.
 *
 * @param {string} shape
 * @param {{ folder: string, modules: string, onStart: (name: SubjectName) => void }} options `folder` of the random files, `modules` of the peers
 * @returns {Promise<{ subjects: Subject[], browserVersion: string, close: () => Promise<void> }>}
 */
export async function startSubjects(shape, { folder, modules, onStart }) {
  const server = await startPageServer({
    folders: { package: ROOT, models: folder, wllama: join(modules, '@wllama/wllama') },
    isolated: true,
    policy: null,
  })
  const browser = await launchChromium(AWAKE)
  /** @type {Subject[]} */
  const subjects = []
  const close = async () => {
    for (const subject of subjects) await subject.close()
    await browser.close()
    await server.close()
  }
  try {
    for (const kind of KINDS) {
      const isOurs = kind.engine === 'bimamba'
      const path = isOurs
        ? ''
        : await randomGguf(folder, shape, /** @type {PeerType} */ (kind.type))
      for (const threads of THREADS) {
        const name = { ...kind, threads }
        onStart(name)
        const inPage = { shape, threads, file: `/models/${basename(path)}` }
        const asked =
          kind.host === 'Chromium'
            ? await askPage(await browser.newPage(), server.url, kind.engine, inPage)
            : await askChild(isOurs ? 'bimamba-child.js' : 'llama-child.js', {
                shape,
                threads,
                file: path,
                modules,
              })
        subjects.push({ ...name, ...asked })
      }
    }
    return { subjects, browserVersion: browser.version(), close }
  } catch (error) {
    await close()
    throw error
  }
}

/**
 * @param {string} script
 * @param {import('./answer-parent.js').SubjectOptions} options
 */
async function askChild(script, options) {
  const child = fork(join(HERE, script))
  const exited = once(child, 'exit')
  const ask = async (/** @type {string} */ verb, /** @type {unknown} */ value) => {
    const answer = Promise.race([
      once(child, 'message'),
      exited.then(([code, signal]) => [{ error: `it ended with ${signal ?? `code ${code}`}` }]),
    ])
    child.send({ verb, value })
    const [message] = await answer
    if (message.error !== undefined) throw new Error(`${script}: ${message.error}`)
    return Number(message.value)
  }
  await ask('start', options)
  return {
    prefill: (/** @type {number} */ tokens) => ask('prefill', tokens),
    decode: (/** @type {number} */ tokens) => ask('decode', tokens),
    close: async () => {
      if (child.connected) child.disconnect()
      await exited
    },
  }
}

/**
 * @param {import('playwright-core').Page} page
 * @param {string} url of the server
 * @param {string} engine
 * @param {{ shape: string, threads: number, file: string }} options
 */
async function askPage(page, url, engine, options) {
  page.setDefaultTimeout(0)
  await page.goto(`${url}/package/tests/bench/peers/peer-page.html`)
  await page.waitForFunction(() => 'startBench' in globalThis)
  const call = (/** @type {string} */ code) =>
    /** @type {Promise<number>} */ (page.evaluate(`${code}`))
  await call(`startBench(${JSON.stringify(engine)}, ${JSON.stringify(options)})`)
  return {
    prefill: (/** @type {number} */ tokens) => call(`bench.prefill(${tokens})`),
    decode: (/** @type {number} */ tokens) => call(`bench.decode(${tokens})`),
    close: () => page.close(),
  }
}
