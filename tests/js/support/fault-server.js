/**
 * A file server on 127.0.0.1 that misbehaves on request: `/MODE/model.safetensors?at=...` answers as MODE says.
 *
 * Owns the server, its log and what it counts; fault-answers.js owns the faults. The same port answers as `localhost`, which is another origin.
 */

import { createServer } from 'node:http'
import { ANSWERS } from './fault-answers.js'

/**
 * A request as it was answered.
 *
 * @typedef {object} LoggedRequest
 * @property {string} method
 * @property {string} mode
 * @property {string} host
 * @property {[number, number] | null} range  as asked for: first and last byte
 * @property {import('node:http').IncomingHttpHeaders} headers
 * @property {number} status
 * @property {number} bytes  of the body
 */

/**
 * @typedef {object} FaultOptions
 * @property {Buffer} [other]  another file, for `swap`
 * @property {boolean} [cors]  false: no page of another origin may read answers
 * @property {boolean} [preflight]  true: pages may send any header
 * @property {boolean} [expose]  pages may see ranges and the like
 */

export class FaultServer {
  #bytes
  #options
  #server
  /** @type {Set<import('node:net').Socket>} */
  #sockets = new Set()
  /** @type {Map<string, number>} requests by URL */
  #counts = new Map()
  #lastId = 0
  /** @type {LoggedRequest[]} */
  requests = []
  port = 0

  /** @param {Buffer} bytes @param {FaultOptions} options */
  constructor(bytes, options) {
    this.#bytes = bytes
    this.#options = options
    this.#server = createServer((request, response) => void this.#answer(request, response))
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.#sockets.delete(socket))
    })
  }

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', () => resolve(undefined)))
    this.port = /** @type {import('node:net').AddressInfo} */ (this.#server.address()).port
  }

  /**
   * A URL that no other test has: what it counts begins at 0.
   *
   * @param {string} mode
   * @param {number | Record<string, number | string>} [params]  a number: `at`
   */
  url(mode, params = {}) {
    const query = typeof params === 'number' ? { at: params } : params
    const search = new URLSearchParams({ id: String(++this.#lastId) })
    for (const [name, value] of Object.entries(query)) search.set(name, String(value))
    return `http://127.0.0.1:${this.port}/${mode}/model.safetensors?${search}`
  }

  /** Bytes of bodies since the last `reset`. */
  bytesServed() {
    return this.requests.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Forgets the requests; what URLs count goes on. */
  reset() {
    this.requests = []
  }

  sockets() {
    return this.#sockets.size
  }

  async close() {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /**
   * @param {import('node:http').IncomingMessage} request
   * @param {import('node:http').ServerResponse} response
   */
  async #answer(request, response) {
    const logged = logOf(request)
    this.requests.push(logged)
    const { cors = true, expose = false, other = this.#bytes } = this.#options
    if (cors) response.setHeader('Access-Control-Allow-Origin', '*')
    response.setHeader('Cross-Origin-Resource-Policy', 'cross-origin')
    if (expose) response.setHeader('Access-Control-Expose-Headers', 'Content-Range, Retry-After')
    response.on('error', () => {})
    countBytes(response, logged)
    const key = String(request.url)
    const nth = (this.#counts.get(key) ?? 0) + 1
    this.#counts.set(key, nth)
    const url = new URL(key, 'http://127.0.0.1')
    const { searchParams: params } = url
    const answer = ANSWERS[logged.mode]
    // A preflight is not allowed unless a test says so: a loader that needs one fails.
    if (request.method === 'OPTIONS') {
      const { preflight = false } = this.#options
      if (preflight)
        response.setHeader('Access-Control-Allow-Headers', 'Authorization, X-Key, Range')
      response.writeHead(preflight ? 204 : 403).end()
    } else if (!answer) response.writeHead(404).end()
    else {
      const { headers } = request
      const number = (/** @type {string} */ name, preset = 0) => Number(params.get(name) ?? preset)
      const { range } = logged
      await answer({
        response,
        bytes: this.#bytes,
        other,
        range,
        nth,
        params,
        number,
        url,
        headers,
      })
    }
    logged.status = response.statusCode
  }
}

/** @param {import('node:http').IncomingMessage} request @returns {LoggedRequest} */
function logOf({ method, url, headers }) {
  const range = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '')
  return {
    method: String(method),
    mode: String(url?.split('/')[1]),
    host: String(headers.host),
    range: range ? [Number(range[1]), Number(range[2])] : null,
    headers,
    status: 0,
    bytes: 0,
  }
}

/** @param {import('node:http').ServerResponse} response @param {LoggedRequest} logged */
function countBytes(response, logged) {
  const write = response.write.bind(response)
  response.write = /** @type {typeof response.write} */ (
    (/** @type {Buffer} */ piece, /** @type {() => void} */ done) => {
      logged.bytes += piece.length
      return write(piece, done)
    }
  )
}

/** @param {Buffer} bytes the file @param {FaultOptions} [options] @returns {Promise<FaultServer>} */
export async function startFaultServer(bytes, options = {}) {
  const server = new FaultServer(bytes, options)
  await server.listen()
  return server
}
