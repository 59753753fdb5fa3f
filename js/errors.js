/**
 * The one error class of the package, with stable codes.
 *
 * Owns the list of codes, and reading the reason out of an error that is not ours. Knows nothing about what failed.
 * The idea: a caller branches on `code`, a person reads `message`, a debugger follows `cause`.
 */

/**
 * - `argument`     an option or argument has the wrong type, name or range
 * - `busy`         the object is already generating
 * - `checkpoint`   a checkpoint to convert is incomplete, of another kind, or unsafe to read
 * - `closed`       the model was closed
 * - `config`       a model configuration is outside the stated limits
 * - `format`       the bytes are not a packed model, or break a rule of models/FORMAT.md
 * - `gpu`          the GPU was lost, or refused what was asked of it
 * - `integrity`    bytes arrived, but their SHA-256 is not the one the header names
 * - `internal`     a mistake of ours: an engine trap, a lost worker
 * - `io`           a local file cannot be read or written
 * - `memory`       the engine could not get the memory the model needs
 * - `mismatch`     a saved session is of another model, an unfinished run of the command line is another one, or a worker is of another version
 * - `network`      a request failed or ended early
 * - `numeric`      a computation gave NaN or infinity
 * - `storage`      the cache cannot be read or written
 * - `tokenizer`    the tokenizer is missing, invalid or of an unsupported kind
 * - `unsupported`  this JavaScript engine, or the format to write, lacks something needed (the message names it)
 *
 * @typedef {'argument'|'busy'|'checkpoint'|'closed'|'config'|'format'|'gpu'|'integrity'|'internal'|'io'
 *   |'memory'|'mismatch'|'network'|'numeric'|'storage'|'tokenizer'|'unsupported'} BmErrorCode
 */

/** An error of this package. Aborts are not wrapped: they reject with the signal's own reason. */
export class BmError extends Error {
  /**
   * @param {BmErrorCode} code stable, for programs
   * @param {string} message names the thing, what was found and what was wanted
   * @param {{ cause?: unknown }} [options]
   */
  constructor(code, message, options) {
    super(message, options)
    this.name = 'BmError'
    /** @type {BmErrorCode} */
    this.code = code
  }
}

/** @param {unknown} error not ours @returns {string} why; Node hides the reason of a failed fetch in the cause */
export function reasonOf(error) {
  const { message, cause } = /** @type {{ message?: unknown, cause?: unknown }} */ (Object(error))
  const inner = cause ? reasonOf(cause) : ''
  return inner ? `${message}: ${inner}` : String(message ?? error)
}
