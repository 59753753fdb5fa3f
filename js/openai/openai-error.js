/**
 * Errors in the form that clients of OpenAI's API know.
 *
 * Owns which status and type an error of ours becomes. Knows nothing of HTTP but the numbers.
 */

import { BmError } from '../index.js'

/** What is answered to a request that failed. @typedef {{ error: { message: string, type: string, param: string | null, code: string | null } }} ErrorBody */

/** The caller's own mistakes; all other codes of BmError are ours. */
const OF_THE_REQUEST = ['argument', 'tokenizer', 'unsupported']

export class OpenAIError extends Error {
  /**
   * @param {string} message
   * @param {{ status?: number, type?: string, param?: string | null, code?: string | null, cause?: unknown }} [about]  status: of HTTP; default 400.
   *   type: default `invalid_request_error`. param: the field of the request that is wrong
   */
  constructor(message, about = {}) {
    const { status = 400, type = 'invalid_request_error', param = null, code = null } = about
    super(message, { cause: about.cause })
    this.name = 'OpenAIError'
    this.status = status
    this.type = type
    this.param = param
    this.code = code
  }

  /** @returns {ErrorBody} */
  toJSON() {
    const { message, type, param, code } = this
    return { error: { message, type, param, code } }
  }
}

/** @param {unknown} error @returns {OpenAIError} the same in this form */
export function asOpenAIError(error) {
  if (error instanceof OpenAIError) return error
  if (error instanceof BmError && OF_THE_REQUEST.includes(error.code)) {
    return new OpenAIError(error.message, { code: error.code, cause: error })
  }
  const [message, code] =
    error instanceof BmError ? [error.message, error.code] : ['The server failed.', 'internal']
  return new OpenAIError(message, { status: 500, type: 'server_error', code, cause: error })
}
