/**
 * OpenAI's API over HTTP, on this machine only.
 *
 * Owns the routes, and the way of a request: who asks, what, in which order, and what becomes of it when the client goes away. The answers are those of
 * `bimamba/openai`.
 */

import { once } from 'node:events'
import { createServer } from 'node:http'
import { asOpenAIError, OpenAIError } from '../openai/openai-error.js'
import { Service } from '../openai/service.js'
import { Access } from './access.js'
import { EventStream } from './event-stream.js'
import { BodyReader } from './request-body.js'
import { WorkQueue } from './work-queue.js'

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */

/**
 * @typedef {object} ServerOptions
 * @property {number} [port]             default 0: one that is free
 * @property {readonly string[]} [hosts]    names that requests may be for, besides those of this machine
 * @property {readonly string[]} [origins]  of pages that may ask
 * @property {string | null} [key]       that requests must have
 * @property {number} [mostBytes]        of a body; default 16 MiB
 * @property {number} [mostWaiting]      requests that wait; default 64
 * @property {(line: string) => void} [onRequest]  a line about each request when it has ended
 * @property {(error: unknown) => void} [onError]  a mistake of ours, of which the client learns nothing but that
 */

const LOOPBACK = '127.0.0.1'
const DEFAULT_BYTES = 2 ** 24
const DEFAULT_WAITING = 64
const MOST_CONNECTIONS = 512
/** For the head of a request, and for all of it, ms. */
const HEAD_MS = 10000
const REQUEST_MS = 120000
/** So long what is left of a refused body may come, ms. */
const LINGER_MS = 1000
/** Before a client asks again, when too many wait, s. */
const RETRY_S = '1'

/**
 * @param {Record<string, import('../index.js').BiMamba>} models by the names that requests have for them; they stay the caller's
 * @param {ServerOptions} [options]
 * @returns {Promise<{ url: string, close: () => Promise<void> }>} url: without a path; close: what is under way is broken off
 */
export async function serveModels(models, options = {}) {
  const site = new Site(models, options)
  const server = createServer((request, response) => void site.answer(request, response))
  Object.assign(server, {
    ...{ maxConnections: MOST_CONNECTIONS, headersTimeout: HEAD_MS },
    ...{ requestTimeout: REQUEST_MS, connectionsCheckingInterval: HEAD_MS },
  })
  server.listen(options.port ?? 0, LOOPBACK)
  await once(server, 'listening')
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://${LOOPBACK}:${port}`,
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
      await site.close()
    },
  }
}

/** @typedef {{ request: IncomingMessage, response: ServerResponse, headers: Record<string, string>, signal: AbortSignal }} Exchange */

class Site {
  #service
  #access
  #queue
  #bodies
  #onRequest
  #onError
  /** What is under way. @type {Set<Promise<unknown>>} */
  #running = new Set()

  /** @param {Record<string, import('../index.js').BiMamba>} models @param {ServerOptions} options */
  constructor(models, options) {
    this.#service = new Service(models)
    this.#access = new Access(options)
    this.#queue = new WorkQueue(options.mostWaiting ?? DEFAULT_WAITING)
    this.#bodies = new BodyReader(options.mostBytes ?? DEFAULT_BYTES)
    this.#onRequest = options.onRequest
    this.#onError = options.onError
  }

  async close() {
    await Promise.allSettled(this.#running)
    await this.#service.close()
  }

  /** @param {IncomingMessage} request @param {ServerResponse} response */
  async answer(request, response) {
    const began = performance.now()
    const gone = new AbortController()
    response.on('close', () => {
      gone.abort(new Error('the client is gone'))
      const { method, url } = request
      const ms = Math.round(performance.now() - began)
      const end = response.writableFinished ? String(response.statusCode) : 'client gone'
      this.#onRequest?.(`${method} ${url} ${end} ${ms} ms`)
    })
    response.on('error', () => {}) // 'close' follows
    /** @type {Exchange} */
    const exchange = { request, response, headers: {}, signal: gone.signal }
    const work = this.#route(exchange).catch((error) => this.#fail(exchange, error))
    this.#running.add(work)
    await work
    this.#running.delete(work)
  }

  /** @param {Exchange} exchange */
  async #route(exchange) {
    const { request, response } = exchange
    this.#access.checkPlace(request)
    exchange.headers = this.#access.pageHeaders(request)
    if (request.method === 'OPTIONS') {
      response.writeHead(204, exchange.headers).end()
      return
    }
    const [path = ''] = String(request.url).split('?')
    if (path === '/health') {
      only(request, 'GET')
      sendJson(exchange, 200, { status: 'ok', waiting: this.#queue.length })
      return
    }
    this.#access.checkKey(request)
    if (path === '/v1/completions') return this.#create(exchange, 'text')
    if (path === '/v1/chat/completions') return this.#create(exchange, 'chat')
    const [, model] = /^\/v1\/models(?:\/(.+))?$/.exec(path) ?? []
    if (model === undefined && path !== '/v1/models')
      throw new OpenAIError(`there is no ${path} here`, { status: 404, code: 'not_found' })
    only(request, 'GET')
    sendJson(exchange, 200, model ? this.#service.retrieve(decoded(model)) : this.#service.list())
  }

  /** @param {Exchange} exchange @param {'text' | 'chat'} kind */
  async #create(exchange, kind) {
    const { request, response, headers, signal } = exchange
    only(request, 'POST')
    // What is wrong with it is said before it waits for its turn.
    const body = await this.#bodies.read(request, signal)
    const { isStream, chunks, whole } = this.#service.create(kind, body, signal)
    const events = isStream ? new EventStream(response, headers) : null
    try {
      await this.#queue.run(async () => {
        if (!events) return sendJson(exchange, 200, await whole())
        for await (const chunk of chunks()) await events.send(chunk)
        events.end(true)
      }, signal)
    } catch (error) {
      if (!events?.hasBegun) throw error
      if (!signal.aborted) await events.send(this.#tell(error).toJSON())
    } finally {
      events?.end(false)
    }
  }

  /** @param {Exchange} exchange @param {unknown} error */
  async #fail(exchange, error) {
    const { request, response, signal } = exchange
    if (signal.aborted || response.headersSent) return
    const told = this.#tell(error)
    /** @type {Record<string, string>} */
    const more = told.status === 429 ? { 'retry-after': RETRY_S } : {}
    if (request.complete) {
      sendJson(exchange, told.status, told.toJSON(), more)
      return
    }
    sendOpen(exchange, told.status, told.toJSON(), { ...more, connection: 'close' })
    await bodyEnds(request)
    response.end()
  }

  /** @param {unknown} error @returns {OpenAIError} */
  #tell(error) {
    const told = asOpenAIError(error)
    if (told.status >= 500) this.#onError?.(told.cause)
    return told
  }
}

/** @param {string} text of a path */
function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** @param {IncomingMessage} request @param {'GET' | 'POST'} method */
function only(request, method) {
  if (request.method === method || (method === 'GET' && request.method === 'HEAD')) return
  throw new OpenAIError(`${request.method} is not possible here, want ${method}`, {
    status: 405,
    code: 'method_not_allowed',
  })
}

/**
 * What is left of a body is thrown away for a moment: a connection that is closed on a client that still sends is reset, and what it was told may be lost with it.
 * @param {IncomingMessage} request @returns {Promise<void>}
 */
function bodyEnds(request) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, LINGER_MS)
    const done = () => {
      clearTimeout(timer)
      resolve()
    }
    for (const event of ['end', 'error', 'close']) request.once(event, done)
    request.resume()
  })
}

/** @param {Exchange} exchange @param {number} status @param {unknown} data @param {Record<string, string>} [more] headers */
function sendJson(exchange, status, data, more) {
  sendOpen(exchange, status, data, more)
  exchange.response.end()
}

/** All of an answer, but its end. @param {Exchange} exchange @param {number} status @param {unknown} data @param {Record<string, string>} [more] headers */
function sendOpen({ response, headers }, status, data, more = {}) {
  const text = JSON.stringify(data)
  const own = {
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(text)),
    'x-content-type-options': 'nosniff',
  }
  response.writeHead(status, { ...headers, ...own, ...more })
  response.write(text)
}
