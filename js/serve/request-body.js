/**
 * Reads the JSON of a request.
 *
 * Owns the limit of its size: nothing beyond it is kept, whatever a client announces or sends.
 */

import { OpenAIError } from '../openai/index.js'

/**
 * @param {import('node:http').IncomingMessage} request
 * @param {number} most bytes
 * @returns {Promise<unknown>}
 * @throws {OpenAIError} 400: no JSON; 413: too large; 415: of another type, or compressed
 */
export async function readBody(request, most) {
  const { 'content-type': type = '', 'content-encoding': encoding = 'identity' } = request.headers
  if (!/^application\/json\b/i.test(type))
    throw unsupported(`the body is of type ${JSON.stringify(type)}, want application/json`)
  if (encoding !== 'identity') throw unsupported(`the body is encoded as ${encoding}`)
  if (Number(request.headers['content-length'] ?? 0) > most) throw tooLarge(most)
  const bytes = await readUpTo(request, most)
  try {
    return JSON.parse(bytes.toString())
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new OpenAIError(`the body is no JSON: ${why}`, { code: 'invalid_json' })
  }
}

/**
 * Not by `for await`, which would break the connection off before an answer could be sent.
 * @param {import('node:http').IncomingMessage} request @param {number} most @returns {Promise<Buffer>}
 */
function readUpTo(request, most) {
  return new Promise((resolve, reject) => {
    /** @type {Buffer[]} */
    let parts = []
    let length = 0
    request.on('data', (part) => {
      length += part.length
      if (length <= most) parts.push(part)
      else {
        parts = []
        reject(tooLarge(most))
      }
    })
    request.on('end', () => resolve(Buffer.concat(parts)))
    request.on('error', reject)
    request.on('close', () => reject(new Error('the client is gone')))
  })
}

/** @param {number} most */
function tooLarge(most) {
  return new OpenAIError(`the body is larger than ${most} bytes`, {
    status: 413,
    code: 'body_too_large',
  })
}

/** @param {string} message */
function unsupported(message) {
  return new OpenAIError(message, { status: 415, code: 'unsupported_media_type' })
}
