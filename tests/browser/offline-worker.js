/**
 * A page's service worker as an author would write it who has no bundler: it keeps what dist/files.json names, beside the page itself.
 *
 * Owns nothing of the package: models pass it by.
 */

/**
 * Of the service worker's global scope, what is used here.
 *
 * @typedef {object} Scope
 * @property {{ claim: () => Promise<void> }} clients
 * @property {(type: string, listener: (event: WorkerEvent) => void) => void} addEventListener
 */

/** @typedef {Event & { request: Request, waitUntil: (work: Promise<unknown>) => void, respondWith: (answer: Promise<Response>) => void }} WorkerEvent */

const scope = /** @type {Scope} */ (/** @type {unknown} */ (globalThis))

async function keep() {
  /** @type {string[]} */
  const names = await (await fetch('/vendor/files.json')).json()
  const cache = await caches.open('offline-page')
  await cache.addAll([...names.map((name) => `/vendor/${name}`), '/page/offline-page.html'])
}

scope.addEventListener('install', (event) => event.waitUntil(keep()))
scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()))
scope.addEventListener('fetch', (event) => {
  const answer = async () => (await caches.match(event.request)) ?? fetch(event.request)
  if (!event.request.url.endsWith('.safetensors')) event.respondWith(answer())
})
