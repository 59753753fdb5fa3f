/**
 * What differs between a browser and Node: builtin modules, the port to the parent thread, one turn of the event loop.
 *
 * Owns the question "where am I?"; no other file asks it. Knows nothing about models or messages.
 * The idea: Node's modules come from `process.getBuiltinModule`, which is synchronous and invisible to bundlers, so that
 * the same files run in a page without a `node:` import ever being resolved there.
 */

import { BmError, reasonOf } from './errors.js'

/** @typedef {typeof import('node:worker_threads')} WorkerThreads */
/** @typedef {typeof import('node:fs/promises')} FileSystem */
/** @typedef {typeof import('node:path')} Path */
/** @typedef {typeof import('node:url')} NodeUrl */
/** @typedef {typeof import('node:buffer')} NodeBuffer */

/** @param {string} id @returns {unknown} the builtin module, or null outside Node */
function builtin(id) {
  const host = globalThis.process
  if (!host?.versions?.node) return null
  if (!host.getBuiltinModule) {
    throw new BmError('unsupported', `Node ${host.versions.node} is too old, want 20.16 or newer`)
  }
  return host.getBuiltinModule(id)
}

/** @returns {WorkerThreads | null} */
export const workerThreads = () =>
  /** @type {WorkerThreads | null} */ (builtin('node:worker_threads'))

/** @returns {FileSystem | null} */
export const fileSystem = () => /** @type {FileSystem | null} */ (builtin('node:fs/promises'))

/** @param {string} path @returns {string} absolute */
export function resolvePath(path) {
  return /** @type {Path} */ (builtin('node:path')).resolve(path)
}

/** @param {...string} parts @returns {string} */
export const joinPath = (...parts) => /** @type {Path} */ (builtin('node:path')).join(...parts)

/**
 * @returns {string} where this user's programs keep what they can fetch again; BIMAMBA_CACHE says otherwise
 */
export function cacheFolder() {
  const { env, platform } = globalThis.process
  const home = /** @type {typeof import('node:os')} */ (builtin('node:os')).homedir()
  if (env.BIMAMBA_CACHE) return resolvePath(env.BIMAMBA_CACHE)
  if (platform === 'darwin') return joinPath(home, 'Library', 'Caches', 'bimamba')
  if (platform === 'win32') {
    return joinPath(env.LOCALAPPDATA ?? joinPath(home, 'AppData', 'Local'), 'bimamba', 'Cache')
  }
  return joinPath(env.XDG_CACHE_HOME || joinPath(home, '.cache'), 'bimamba')
}

/**
 * @returns {Promise<GPU | null>} WebGPU: the browser's, or in Node that of the package `webgpu`, where its user has installed it
 * @throws {BmError} `unsupported`: the package is there and does not start
 */
export async function findGpu() {
  const { gpu } = /** @type {{ gpu?: GPU }} */ (globalThis.navigator ?? {})
  if (gpu || !builtin('node:fs')) return gpu ?? null
  const name = 'webgpu' // no name that a bundler would look for
  try {
    const { create } = await import(/* @vite-ignore */ /* webpackIgnore: true */ name)
    return create([])
  } catch (cause) {
    if (/** @type {{ code?: string }} */ (cause).code === 'ERR_MODULE_NOT_FOUND') return null
    throw new BmError('unsupported', `the package webgpu does not start: ${reasonOf(cause)}`, {
      cause,
    })
  }
}

/** @returns {string} where this user's programs keep what nobody can fetch again; BIMAMBA_DATA says otherwise */
export function dataFolder() {
  const { env, platform } = globalThis.process
  const home = /** @type {typeof import('node:os')} */ (builtin('node:os')).homedir()
  if (env.BIMAMBA_DATA) return resolvePath(env.BIMAMBA_DATA)
  if (platform === 'darwin') return joinPath(home, 'Library', 'Application Support', 'bimamba')
  if (platform === 'win32') {
    return joinPath(env.LOCALAPPDATA ?? joinPath(home, 'AppData', 'Local'), 'bimamba', 'Data')
  }
  return joinPath(env.XDG_DATA_HOME || joinPath(home, '.local', 'share'), 'bimamba')
}

/** @param {URL} url with the scheme file: @returns {string} */
export function pathOfUrl(url) {
  try {
    return /** @type {NodeUrl} */ (builtin('node:url')).fileURLToPath(url)
  } catch (cause) {
    throw new BmError('argument', `${url} is no path: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {string} url with the scheme blob: @returns {Blob | null} what it stands for; null where `fetch` finds it */
export function blobOfUrl(url) {
  const buffer = /** @type {NodeBuffer | null} */ (builtin('node:buffer'))
  if (!buffer) return null
  // To the types a Blob of Node is not quite a Blob.
  const blob = /** @type {Blob | undefined} */ (
    /** @type {unknown} */ (buffer.resolveObjectURL(url))
  )
  if (blob) return blob
  throw new BmError('argument', `${url}: there is no such Blob, or its URL was revoked`)
}

/** Whether every Blob can cross to a worker. Node's cannot when it stands for a file. */
export const blobsCross = () => builtin('node:buffer') === null

/** @param {string | URL} url @returns {string} absolute; a worker's own base differs from the page's */
export function absoluteUrl(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href
  try {
    return new URL(url, base).href
  } catch (cause) {
    throw new BmError('argument', `'${url}' is not a URL`, { cause })
  }
}

/** Whether this thread can share memory with others, and may wait for them: a page's own thread may not. */
export function mayHaveThreads() {
  return canShareMemory() && (builtin('node:os') !== null || 'WorkerGlobalScope' in globalThis)
}

/** Whether an engine's thread, which may wait, can share memory with others. */
export function canShareMemory() {
  return builtin('node:os') !== null || globalThis.crossOriginIsolated === true
}

/** @returns {number} threads that the machine can run at once */
export function coreCount() {
  const os = /** @type {typeof import('node:os') | null} */ (builtin('node:os'))
  return os ? os.availableParallelism() : (globalThis.navigator?.hardwareConcurrency ?? 1)
}

/** @returns {{ cpu: string | null, cores: number, runtime: string }} where this runs, for reports; cpu: null in browsers, which do not say */
export function describeMachine() {
  const os = /** @type {typeof import('node:os') | null} */ (builtin('node:os'))
  const cpu = os?.cpus()[0]?.model ?? null
  const runtime = os ? `Node ${globalThis.process.version}` : globalThis.navigator.userAgent
  return { cpu, cores: coreCount(), runtime }
}

/**
 * The other end: what js/worker.js and js/thread.js talk through.
 *
 * @param {(message: unknown) => void} onMessage
 * @returns {(message: unknown, transfer?: Transferable[]) => void} posts to the starting thread
 */
export function connectToParent(onMessage) {
  const port = workerThreads()?.parentPort
  if (port) {
    port.on('message', onMessage)
    return (message, transfer = []) =>
      port.postMessage(
        message,
        /** @type {import('node:worker_threads').Transferable[]} */ (transfer),
      )
  }
  globalThis.onmessage = (event) => onMessage(event.data)
  return (message, transfer = []) => globalThis.postMessage(message, { transfer })
}

/**
 * One turn of the event loop, so that a message (an abort) can arrive between two long computations.
 * Not setTimeout: browsers clamp that to 4 ms.
 *
 * @returns {Promise<void>}
 */
export function breathe() {
  return new Promise((resolve) => {
    if (typeof setImmediate === 'function') {
      setImmediate(resolve)
      return
    }
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve()
    }
    port2.postMessage(null)
  })
}

/**
 * Asks a browser not to throw away what this page keeps when the disk is short. Some ask the user: nobody waits for the answer.
 */
export function askToPersist() {
  const host = builtin('node:fs') ? null : globalThis.navigator?.storage
  host?.persist?.().catch(() => {})
}
