/**
 * The errors of stores.
 *
 * Owns telling "it is full" from everything else: only then what was written is taken away again.
 */

import { BmError, reasonOf } from '../errors.js'

/** The quota of the origin, or the disk, is used up. */
export class StorageFullError extends BmError {
  /** @param {string} message @param {unknown} [cause] */
  constructor(message, cause) {
    super('storage', message, cause === undefined ? {} : { cause })
  }
}

const FULL = ['QuotaExceededError', 'ENOSPC', 'EDQUOT']

/** @param {string} what was tried @param {unknown} cause @returns {BmError} */
export function storageError(what, cause) {
  if (cause instanceof BmError) return cause
  const { name, code } = /** @type {{ name?: unknown, code?: unknown }} */ (Object(cause))
  const message = `${what}: ${reasonOf(cause)}`
  if (FULL.includes(String(name)) || FULL.includes(String(code))) {
    return new StorageFullError(message, cause)
  }
  return new BmError('storage', message, { cause })
}
