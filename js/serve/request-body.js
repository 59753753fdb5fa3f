/**
 * Reads the JSON of requests.
 *
 * Owns the limits of their sizes, of one and of all together: nothing beyond them is kept, whatever clients announce or send.
 */

import { OpenAIError } from '../openai/index.js'

/** Bytes of all bodies that are here at a time; one that alone is larger, if it may be, is none too many. */
const MOST_TOGETHER = 2 ** 27

export class BodyReader {
  #most
  #together = 0

  /** @param {number} most bytes of one */
  constructor(most) {
    this.#most = most
  }

  /**
   * @param {import('node:http').IncomingMessage} request
   * @param {AbortSignal} signal  the client is gone; from then on the body does not count any more
   * @returns {Promise<unknown>}
   * @throws {OpenAIError} 400: no JSON; 413: too large; 415: of another type, or compressed; 429: there are too many
   */
  async read(request, signal) {
    const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers
    if (!/^application\/json\b/i.test(type))
      throw unsupported(`the body is of type ${JSON.stringify(type)}, want application/json`)
    if (encoding !== 'identity') throw unsupported(`the body is encoded as ${encoding}`)
    if (Number(request.headers['content-length'] ?? 0) > this.#most) throw tooLarge(this.#most)
    const bytes = await this.#bytes(request, signal)
    try {
      return JSON.parse(bytes.toString())
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      throw new OpenAIError(`the body is no JSON: ${why}`, { code: 'invalid_json' })
    }
  }

  /**
   * Not by `for await`, which would break the connection off before an answer could be sent.
   * @param {import('node:http').IncomingMessage} request @param {AbortSignal} signal @returns {Promise<Buffer>}
   */
  #bytes(request, signal) {
    return new Promise((resolve, reject) => {
      /** @type {Buffer[]} */
      let parts = []
      let length = 0
      let isRefused = false
      const refuse = (/** @type {unknown} */ reason) => {
        if (!isRefused) this.#together -= length
        isRefused = true
        parts = []
        reject(reason)
      }
      signal.addEventListener('abort', () => refuse(signal.reason))
      request.on('data', (part) => {
        if (isRefused) return
        length += part.length
        this.#together += part.length
        parts.push(part)
        if (length > this.#most) refuse(tooLarge(this.#most))
        else if (this.#together > MOST_TOGETHER && this.#together > length) refuse(tooMany())
      })
      request.on('end', () => resolve(Buffer.concat(parts)))
      request.on('error', refuse)
    })
  }
}

/** @param {number} most */
function tooLarge(most) {
  return new OpenAIError(`the body is larger than ${most} bytes`, {
    status: 413,
    code: 'body_too_large',
  })
}

function tooMany() {
  return new OpenAIError('too much is being sent at the same time', {
    status: 429,
    type: 'server_overloaded',
    code: 'bodies_too_many',
  })
}

/** @param {string} message */
function unsupported(message) {
  return new OpenAIError(message, { status: 415, code: 'unsupported_media_type' })
}
