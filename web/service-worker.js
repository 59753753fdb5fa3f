/**
 * Keeps the app itself on the device: the page, its scripts and the engine, never a model.
 *
 * Owns the shell: one version of all its files, checked by their SHA-256, taken over as a whole or not at all. Files that did not change are taken from the
 * version before. Weights are the package's affair, which keeps and heals them by itself: a request for anything that is not in the shell is not touched.
 * On hosts that send no headers of their own, the answers from here carry those of web/headers.json, so that a page becomes cross-origin isolated and
 * can have threads.
 */

/**
 * Of the service worker's global scope, what is used here.
 *
 * @typedef {object} Scope
 * @property {{ version: string, headers: Record<string, string>, files: Record<string, string> }} SHELL  of shell-files.js: files by their address, with `sha256-...`
 * @property {(url: string) => void} importScripts
 * @property {ServiceWorkerRegistration} registration
 * @property {() => Promise<void>} skipWaiting
 * @property {{ claim: () => Promise<void> }} clients
 * @property {(type: string, listener: (event: WorkerEvent) => void) => void} addEventListener
 */

/** @typedef {Event & { request: Request, data: unknown, waitUntil: (work: Promise<unknown>) => void, respondWith: (answer: Promise<Response>) => void }} WorkerEvent */

const scope = /** @type {Scope} */ (/** @type {unknown} */ (globalThis))
scope.importScripts('shell-files.js')
const { SHELL } = scope
const PREFIX = 'bimamba-shell-'
const CACHE = PREFIX + SHELL.version
/** Says which bytes an answer in a cache has. */
const HASH_HEADER = 'X-Shell-Hash'
const BASE = new URL('./', scope.registration.scope).href

scope.addEventListener('install', (event) => event.waitUntil(install()))
scope.addEventListener('activate', (event) => event.waitUntil(activate()))
scope.addEventListener('message', ({ data }) => {
  // Only when the user has said so: a page may be writing.
  if (data === 'take over') void scope.skipWaiting()
})
scope.addEventListener('fetch', (event) => {
  const name = nameOf(event.request)
  // Cleared caches, and another version on the host: that one answers by itself.
  if (name !== null) event.respondWith(answer(name).catch(() => fetch(event.request)))
})

/** @param {Request} request @returns {string | null} of the shell's file that it asks for */
function nameOf({ method, mode, url }) {
  if (method !== 'GET' || !url.startsWith(BASE)) return null
  const [path = ''] = url.slice(BASE.length).split(/[?#]/)
  const name = path === '' && mode === 'navigate' ? 'index.html' : path
  return Object.hasOwn(SHELL.files, name) ? name : null
}

/** @param {string} name */
async function answer(name) {
  const cache = await caches.open(CACHE)
  const kept = await cache.match(BASE + name)
  if (kept) return kept
  // Somebody has cleared the caches: it heals.
  return fetchInto(cache, name, String(SHELL.files[name]))
}

async function install() {
  const cache = await caches.open(CACHE)
  const older = (await caches.keys()).filter((key) => key.startsWith(PREFIX) && key !== CACHE)
  const stores = await Promise.all(older.map((key) => caches.open(key)))
  await Promise.all(
    Object.entries(SHELL.files).map(async ([name, hash]) => {
      for (const store of stores) {
        const kept = await store.match(BASE + name)
        if (kept?.headers.get(HASH_HEADER) !== hash) continue
        await cache.put(BASE + name, withHeaders(kept, hash))
        return
      }
      await fetchInto(cache, name, hash)
    }),
  )
}

/** @param {Cache} cache @param {string} name @param {string} hash @returns {Promise<Response>} */
async function fetchInto(cache, name, hash) {
  // A host that is half way through an update gives other bytes: then this fails, and the old version stays.
  const response = await fetch(BASE + name, { cache: 'no-cache', integrity: hash })
  if (!response.ok) throw new Error(`${name}: HTTP status ${response.status}`)
  const kept = withHeaders(response, hash)
  await cache.put(BASE + name, kept.clone())
  return kept
}

/** @param {Response} response @param {string} hash */
function withHeaders(response, hash) {
  const headers = new Headers({ ...SHELL.headers, [HASH_HEADER]: hash })
  headers.set('Content-Type', response.headers.get('Content-Type') ?? 'application/octet-stream')
  return new Response(response.body, { status: 200, headers })
}

async function activate() {
  const keys = await caches.keys()
  await Promise.all(
    keys.filter((key) => key.startsWith(PREFIX) && key !== CACHE).map((key) => caches.delete(key)),
  )
  await scope.clients.claim()
}
