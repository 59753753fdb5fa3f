/**
 * One file on a web server, read from any position on.
 *
 * Owns the requests: their range, which headers go where, redirects, what a status means, and the watch for servers that
 * fall silent. Knows nothing about models, chunks or caches, and tries nothing twice: js/retry.js does.
 * The idea: an answer says where its bytes begin, and the caller looks; a server that ignores ranges answers with the whole
 * file, and one that lies is found by the hashes. Only a plain `Range` is sent: with it, unlike with `If-Range`, a page asks no permission
 * of a foreign server first. A redirect is followed once and its target kept, until the target fails: signed addresses expire,
 * mirrors go down.
 */

import { reasonOf } from './errors.js'
import { RequestFailure } from './retry.js'

/** Statuses that say nothing about the next try. */
const PASSING_STATUSES = [408, 425, 429, 500, 502, 503, 504]
/** It says something about the range, and nothing about the address. */
const RANGE_MISSING = 416
const MOST_HOPS = 20

/**
 * What this file needs of `fetch` and its answer; js/fetch-port.js has another one.
 *
 * @typedef {(url: string, init: FetchInit) => Promise<FetchAnswer>} Fetch
 * @typedef {{ headers: Record<string, string>, redirect: 'follow' | 'manual', cache: RequestCache, signal: AbortSignal }} FetchInit
 * @typedef {{ status: number, statusText: string, type: string, url: string, headers: { get: (name: string) => string | null },
 *   body: { getReader: () => FetchReader, cancel: () => Promise<void> } | null }} FetchAnswer
 * @typedef {{ read: () => Promise<{ done: boolean, value?: Uint8Array | undefined }>, cancel: () => Promise<void> }} FetchReader
 */

/**
 * @typedef {object} HttpOptions
 * @property {Fetch} fetch
 * @property {Record<string, string>} headers  for the origin of the URL, and no other
 * @property {number} stallTimeoutMs           without a byte
 * @property {RequestCache} cache              of the browser
 */

/** The server has no such range: 416. */
export class RangeMissing extends RequestFailure {
  /** @param {string} message @param {number | null} total what the server says the file's length is */
  constructor(message, total) {
    super(message)
    this.total = total
  }
}

export class HttpFile {
  #url
  #options
  /** @type {string | null} where the URL led to */
  #resolved = null
  /** Whether the server has answered at all: before, a failure may be an address that never will. */
  reached = false

  /** @param {string} url @param {HttpOptions} options */
  constructor(url, options) {
    this.#url = url
    this.#options = options
  }

  /** For messages. */
  get name() {
    return this.#url
  }

  /**
   * @param {{ start: number, end: number } | null} range of bytes, `end` exclusive; null: the whole file, no range asked for
   * @param {{ signal?: AbortSignal | undefined, fresh?: boolean }} [options] fresh: past the browser's own cache
   * @returns {Promise<HttpBody>} look at its `position`
   * @throws {RequestFailure} or the signal's reason
   */
  async open(range, { signal, fresh = false } = {}) {
    signal?.throwIfAborted()
    const controller = new AbortController()
    const onAbort = () => controller.abort(signal?.reason)
    signal?.addEventListener('abort', onAbort)
    const release = () => signal?.removeEventListener('abort', onAbort)
    const watch = new StallWatch(this.#options.stallTimeoutMs, controller)
    const headers = range ? { Range: `bytes=${range.start}-${range.end - 1}` } : {}
    const cache = fresh ? 'reload' : this.#options.cache
    const request = this.#request({ headers, cache, signal: controller.signal })
    try {
      const answer = await watch.over(request, `GET ${this.name}`)
      return new HttpBody({ answer, range, name: this.name, watch, controller, signal, release })
    } catch (error) {
      release()
      // A caller's fetch may be deaf to its signal, and answer yet.
      request.then(discard, () => {})
      signal?.throwIfAborted()
      controller.abort()
      throw error
    }
  }

  /**
   * @param {Omit<FetchInit, 'redirect'>} init
   * @returns {Promise<FetchAnswer>} of status 200 or 206
   */
  async #request(init) {
    if (this.#resolved !== null) {
      const answer = await this.#send(this.#resolved, init).catch((error) => {
        this.#resolved = null
        throw error
      })
      if (isGood(answer)) return answer
      await discard(answer)
      if (answer.status === RANGE_MISSING) throw this.#failureOf(answer)
      this.#resolved = null
      if (PASSING_STATUSES.includes(answer.status)) throw this.#failureOf(answer)
    }
    const { answer, url } = await this.#follow(init)
    this.reached = true
    if (url !== this.#url) this.#resolved = url
    if (isGood(answer)) return answer
    this.#resolved = null
    await discard(answer)
    throw this.#failureOf(answer)
  }

  /**
   * From the original address to the answer. `fetch` follows redirects by itself and may take the caller's headers along: so it does
   * only when there are none, or none but Authorization, which it drops when it comes to another origin.
   *
   * @param {Omit<FetchInit, 'redirect'>} init
   * @returns {Promise<{ answer: FetchAnswer, url: string }>}
   */
  async #follow(init) {
    let url = this.#url
    for (let hops = 0; hops < MOST_HOPS; hops++) {
      const answer = await this.#send(url, init)
      if (answer.type === 'opaqueredirect') {
        const own = Object.keys(this.#options.headers).map((name) => name.toLowerCase())
        if (own.some((name) => name !== 'authorization')) {
          throw new RequestFailure(
            `GET ${this.name}: it redirects, and a page cannot see where to: with headers other than Authorization give the final URL`,
          )
        }
        const followed = await this.#send(url, init, 'follow')
        return { answer: followed, url: followed.url || url }
      }
      const location = answer.status >= 300 && answer.status < 400 && answer.headers.get('location')
      if (!location) return { answer, url: answer.url || url }
      await discard(answer)
      url = this.#targetOf(location, url)
    }
    throw new RequestFailure(`GET ${this.name}: more than ${MOST_HOPS} redirects`)
  }

  /** @param {string} location @param {string} base */
  #targetOf(location, base) {
    try {
      return new URL(location, base).href
    } catch (cause) {
      const message = `GET ${this.name}: it redirects to '${location.slice(0, 100)}', which is no URL`
      throw new RequestFailure(message, { cause })
    }
  }

  /**
   * @param {string} url
   * @param {Omit<FetchInit, 'redirect'>} init
   * @param {'follow' | 'manual'} [redirect]
   */
  async #send(url, init, redirect) {
    const { fetch, headers } = this.#options
    const own = new URL(url).origin === new URL(this.#url).origin ? headers : {}
    const plain = Object.keys(headers).length === 0
    try {
      return await fetch(url, {
        ...init,
        headers: { ...own, ...init.headers },
        redirect: redirect ?? (plain ? 'follow' : 'manual'),
      })
    } catch (cause) {
      const offline = globalThis.navigator?.onLine === false
      // A page is told nothing more; once the server has answered, it is neither of the two.
      const unreached =
        globalThis.location && !this.reached
          ? ' (not reachable, or the server does not allow this page: CORS)'
          : ''
      const hint = offline ? ' (this device is offline)' : unreached
      const message = `GET ${this.name}: ${reasonOf(cause)}${hint}`
      throw new RequestFailure(message, { retryable: true, cause })
    }
  }

  /** @param {FetchAnswer} answer */
  #failureOf({ status, statusText, headers }) {
    const message = `GET ${this.name}: HTTP status ${status} ${statusText}`.trimEnd()
    if (status === RANGE_MISSING) {
      const total = /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1]
      return new RangeMissing(message, total === undefined ? null : Number(total))
    }
    return new RequestFailure(message, {
      retryable: PASSING_STATUSES.includes(status),
      retryAfterMs: parseRetryAfter(headers.get('retry-after')),
    })
  }
}

/** @param {FetchAnswer} answer */
function isGood({ status, body }) {
  return (status === 200 || status === 206) && body !== null
}

/** Its body is not wanted; if the line broke in it, that says nothing more. @param {FetchAnswer} answer */
async function discard({ body }) {
  await body?.cancel().catch(() => {})
}

/** @param {string | null} value seconds or a date @returns {number | null} ms from now */
function parseRetryAfter(value) {
  if (value === null) return null
  const ms = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now()
  return Number.isFinite(ms) ? Math.max(0, ms) : null
}

/** Ends a request whose server has fallen silent. */
class StallWatch {
  #ms
  #controller

  /** @param {number} ms @param {AbortController} controller of the request */
  constructor(ms, controller) {
    this.#ms = ms
    this.#controller = controller
  }

  /**
   * @template T
   * @param {Promise<T>} work
   * @param {string} what for the message
   * @returns {Promise<T>}
   */
  async over(work, what) {
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer
    const silence = new Promise((_, reject) => {
      timer = setTimeout(() => {
        const message = `${what}: no byte for ${this.#ms / 1000} s`
        const failure = new RequestFailure(message, { retryable: true })
        this.#controller.abort(failure)
        reject(failure)
      }, this.#ms)
    })
    try {
      return await /** @type {Promise<T>} */ (Promise.race([work, silence]))
    } finally {
      clearTimeout(timer)
    }
  }
}

/** The bytes of an answer, in order. */
export class HttpBody {
  #reader
  #name
  #watch
  #controller
  #signal
  #release
  /** @type {Uint8Array} read, not yet taken */
  #rest = new Uint8Array(0)
  /** Where in the file the next byte to be taken is. */
  position
  /** Where the part ends that was asked for, or that the server says it gives; null: with the file. */
  end
  /** The file's length as the answer says it; null: it does not, or it cannot be seen. */
  total

  /**
   * @param {object} parts
   * @param {FetchAnswer} parts.answer
   * @param {{ start: number, end: number } | null} parts.range that was asked for
   * @param {string} parts.name
   * @param {StallWatch} parts.watch
   * @param {AbortController} parts.controller of the request
   * @param {AbortSignal | undefined} parts.signal of the caller
   * @param {() => void} parts.release
   */
  constructor({ answer, range, name, watch, controller, signal, release }) {
    this.#reader = /** @type {NonNullable<FetchAnswer['body']>} */ (answer.body).getReader()
    this.#name = name
    this.#watch = watch
    this.#controller = controller
    this.#signal = signal
    this.#release = release
    const isPart = answer.status === 206 && range !== null
    // A foreign server must allow a page to see this header, and few do.
    const header = isPart ? (answer.headers.get('content-range') ?? '') : ''
    const said = /^bytes (\d+)-(\d+)\/(\d+)?/.exec(header)
    this.position = isPart ? (said ? Number(said[1]) : range.start) : 0
    // A server may give less than was asked for, if it says so.
    this.end = isPart ? Math.min(range.end, said ? Number(said[2]) + 1 : range.end) : null
    this.total = said?.[3] === undefined ? null : Number(said[3])
  }

  /**
   * @param {Uint8Array} target
   * @returns {Promise<number>} bytes taken, at least one; 0 at the end
   * @throws {RequestFailure} or the signal's reason
   */
  async take(target) {
    if (this.#rest.length === 0) this.#rest = await this.#pull()
    const piece = this.#rest.subarray(0, target.length)
    target.set(piece)
    this.#rest = this.#rest.subarray(piece.length)
    this.position += piece.length
    return piece.length
  }

  /** Passes over bytes. @param {number} position to be at @returns {Promise<boolean>} false when the bytes end before */
  async skipTo(position) {
    while (this.position < position) {
      if (this.#rest.length === 0) this.#rest = await this.#pull()
      if (this.#rest.length === 0) return false
      const count = Math.min(this.#rest.length, position - this.position)
      this.#rest = this.#rest.subarray(count)
      this.position += count
    }
    return true
  }

  /** @param {Uint8Array} bytes the last ones that were taken, to be taken again */
  untake(bytes) {
    const rest = new Uint8Array(bytes.length + this.#rest.length)
    rest.set(bytes)
    rest.set(this.#rest, bytes.length)
    this.#rest = rest
    this.position -= bytes.length
  }

  /** @returns {Promise<Uint8Array>} empty at the end */
  async #pull() {
    try {
      for (;;) {
        const what = `GET ${this.#name}`
        const { done, value } = await this.#watch.over(this.#reader.read(), what)
        this.#signal?.throwIfAborted()
        if (done) return new Uint8Array(0)
        if (value?.length) return value
      }
    } catch (cause) {
      this.#signal?.throwIfAborted()
      if (cause instanceof RequestFailure) throw cause
      const message = `GET ${this.#name}: the connection broke (${reasonOf(cause)})`
      throw new RequestFailure(message, { retryable: true, cause })
    }
  }

  /** Closes the connection; not left to the collector. Idempotent. */
  async close() {
    this.#release()
    await this.#reader.cancel().catch(() => {})
    this.#controller.abort()
  }
}
