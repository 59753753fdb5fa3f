/**
 * Who may ask.
 *
 * Owns the checks of Host, Origin and key. The server listens on loopback only; but a page in a browser on the same machine can send requests there, too.
 * So a request must name a host that is this machine (a foreign name that was pointed here is DNS rebinding), and one from a page must come from an
 * origin that was allowed.
 */

import { timingSafeEqual } from 'node:crypto'
import { OpenAIError } from '../openai/index.js'

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */

/** Names of this machine, without a port. */
const LOCAL_HOSTS = ['localhost', '127.0.0.1', '[::1]']

export class Access {
  #hosts
  #origins
  #key

  /** @param {{ hosts?: readonly string[], origins?: readonly string[], key?: string | null }} options  hosts: besides those of this machine; origins: of pages; key: that a request must have */
  constructor({ hosts = [], origins = [], key = null }) {
    this.#hosts = new Set([...LOCAL_HOSTS, ...hosts.map((host) => host.toLowerCase())])
    this.#origins = new Set(origins)
    this.#key = key
  }

  /** @param {IncomingMessage} request @throws {OpenAIError} 403 */
  checkPlace({ headers: { host = '', origin } }) {
    const name = host.toLowerCase().replace(/:\d+$/, '')
    if (!this.#hosts.has(name))
      throw forbidden(`the request is for the host ${JSON.stringify(host)}, which this is not`)
    if (origin !== undefined && !this.#origins.has(origin))
      throw forbidden(
        `pages of ${JSON.stringify(origin)} may not ask: allow it with --allow-origin`,
      )
  }

  /** @param {IncomingMessage} request @throws {OpenAIError} 401 */
  checkKey({ headers: { authorization = '' } }) {
    if (this.#key === null) return
    const given = Buffer.from(authorization.replace(/^Bearer +/i, ''))
    const wanted = Buffer.from(this.#key)
    if (given.length === wanted.length && timingSafeEqual(given, wanted)) return
    throw new OpenAIError('the API key is missing or wrong', {
      status: 401,
      code: 'invalid_api_key',
    })
  }

  /** What lets a page read the answer. @param {IncomingMessage} request that was allowed @returns {Record<string, string>} headers */
  pageHeaders({ headers }) {
    const { origin } = headers
    if (origin === undefined) return {}
    return {
      'access-control-allow-origin': origin,
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': String(headers['access-control-request-headers'] ?? ''),
      'access-control-max-age': '600',
      vary: 'origin',
    }
  }
}

/** @param {string} message */
function forbidden(message) {
  return new OpenAIError(message, { status: 403, code: 'forbidden' })
}
