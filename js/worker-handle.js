/**
 * Starting a thread: a worker of a page, or a thread of Node.
 *
 * Owns what the two have in common (`WorkerHandle`), and starting from another origin. Which script runs is said by js/remote.js and js/team.js: a
 * bundler follows what names a worker's script, so that must not stand in a file that this script imports itself.
 */

import { BmError, reasonOf } from './errors.js'
import { workerThreads } from './platform.js'

/** @typedef {import('./platform.js').WorkerThreads} WorkerThreads */

/**
 * A thread that runs js/worker.js or js/thread.js.
 *
 * @typedef {object} WorkerHandle
 * @property {(message: unknown, transfer?: Transferable[]) => void} post
 * @property {() => void} hold      keep the process alive: an answer is awaited
 * @property {() => void} release   let the process end: nothing is awaited
 * @property {() => Promise<void>} terminate
 */

/**
 * @typedef {object} WorkerEvents
 * @property {(message: unknown) => void} onMessage
 * @property {(reason: string, cause?: unknown) => void} onDeath  at most once; not after `terminate`
 */

/** Of this file, for what bundlers must not take for something to copy. */
const HERE = import.meta.url

/**
 * A script of the package in this folder. own: makes its worker in a page, by the expression that bundlers look for; option: gives another script.
 * @typedef {{ option: string, file: string, own: () => Worker }} ThreadScript
 */

/**
 * @param {ThreadScript} script
 * @param {string | URL | undefined} url  of what is to run in its place
 * @param {WorkerEvents} events
 * @returns {WorkerHandle}
 * @throws {BmError} `argument` for a URL that no worker can have; `unsupported` when that is the package's own
 */
export function startThread({ option, file, own }, url, events) {
  const threads = workerThreads()
  try {
    if (threads) return nodeWorker(threads, url ?? file, events)
    const relay = relayTo(url ?? new URL(file, HERE))
    const place = relay ?? url
    const worker = place ? new Worker(place, { type: 'module' }) : own()
    const name = String(url ?? new URL(file, HERE))
    const advice = `: it is of another origin, which must allow this page to use it, and this page's policy workers from blob:; or give ${option} or inline`
    return webWorker(worker, { name: name + (relay ? advice : ''), relay }, events)
  } catch (cause) {
    const reason = reasonOf(cause)
    const [code, from] = url
      ? [/** @type {const} */ ('argument'), `${option}: no worker starts from ${url}`]
      : [
          /** @type {const} */ ('unsupported'),
          `no worker starts from the package's own place (give ${option} or inline)`,
        ]
    throw new BmError(code, `${from}: ${reason}`, { cause })
  }
}

/**
 * Browsers start no worker from another origin, where the package is when a page imports it from a server of packages. But a worker of the page's own
 * may import from there, if that server allows it, as those do.
 *
 * @param {string | URL} url
 * @returns {string | null} of a script that imports this one; null: it is of this origin
 */
function relayTo(url) {
  const { origin, protocol, href } = new URL(url)
  if (!protocol.startsWith('http') || origin === globalThis.origin) return null
  const type = 'text/javascript'
  return URL.createObjectURL(new Blob([`import ${JSON.stringify(href)}`], { type }))
}

/**
 * @param {Worker} worker
 * @param {{ name: string, relay: string | null }} script  name: for messages; relay: a URL to be given up at the end
 * @param {WorkerEvents} events
 * @returns {WorkerHandle}
 */
function webWorker(worker, { name, relay }, events) {
  let alive = true
  const end = () => {
    alive = false
    worker.terminate()
    if (relay) URL.revokeObjectURL(relay)
  }
  /** @param {string} reason @param {unknown} [cause] */
  const died = (reason, cause) => {
    if (!alive) return
    end()
    events.onDeath(reason, cause)
  }
  worker.onmessage = (event) => events.onMessage(event.data)
  worker.onmessageerror = () => died('a message from it could not be read')
  worker.onerror = (event) => {
    event.preventDefault() // or the page would report it as an error that nobody caught
    died(event.message || `no worker starts from ${name}`, event.error)
  }
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    hold: () => {},
    release: () => {},
    terminate: async () => end(),
  }
}

/**
 * @param {WorkerThreads} threads
 * @param {string | URL} url absolute, or relative to this file
 * @param {WorkerEvents} events
 * @returns {WorkerHandle}
 */
function nodeWorker(threads, url, events) {
  // Flags of the program (`node --input-type=module -e ...`) are not for the worker.
  const worker = new threads.Worker(new URL(url, HERE), { execArgv: [] })
  let alive = true
  /** @param {string} reason @param {unknown} [cause] */
  const died = (reason, cause) => {
    if (!alive) return
    alive = false
    events.onDeath(reason, cause)
  }
  worker.on('message', events.onMessage)
  worker.on('messageerror', () => died('a message from it could not be read'))
  worker.on('error', (error) => died(error.message, error))
  worker.on('exit', (code) => died(`it exited with code ${code}`))
  return {
    post: (message, transfer = []) =>
      worker.postMessage(
        message,
        /** @type {import('node:worker_threads').Transferable[]} */ (transfer),
      ),
    hold: () => worker.ref(),
    release: () => worker.unref(),
    terminate: async () => {
      alive = false
      await worker.terminate()
    },
  }
}
