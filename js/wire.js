/**
 * What crosses between the calling thread and the engine's thread.
 *
 * Owns the shape of the messages, how an error is packed for the way, and that both ends are of one version. Knows neither end.
 * The idea: every request has an id and gets exactly one answer with that id. A stream is a request that opens, then one
 * request a piece: the consumer's pace is the engine's pace, and nothing queues up on the way.
 */

import { BmError } from './errors.js'
import { VERSION } from './version.js'

/**
 * To the engine, once, as the first request. `load` opens the engine, `pull` only fills the cache, `inspect` only reads the header, `bench` measures.
 *
 * @typedef {{ kind: 'load', id: number, source: import('./source.js').SourceDescriptor, options: EngineOptions }
 *   | { kind: 'pull' | 'inspect', id: number, source: import('./source.js').SourceDescriptor, options: { download: import('./source.js').FetchOptions, wasmUrl?: string } }
 *   | { kind: 'bench', id: number, source: import('./source.js').SourceDescriptor | null, options: import('./benchmark-settings.js').BenchmarkSettings }} FirstRequest
 */

/**
 * To the engine. `version` is that of the package on the other side; `call` runs a method, `next` pulls one piece of a stream (the first `next` opens it), `return` ends
 * a stream early, `abort` (no answer) aborts the load, call or stream of that id.
 *
 * @typedef {(FirstRequest & { version: string })
 *   | { kind: 'call', id: number, method: CallMethod, args: unknown[] }
 *   | { kind: 'next', id: number, stream: number, open?: { method: StreamMethod, args: unknown[] } }
 *   | { kind: 'return', id: number, stream: number }
 *   | { kind: 'abort', id: number }} Request
 */

/** Of js/engine.js; a call's last argument there is the signal; a stream's is behind it, where its sessions' stats go. @typedef {'tokenize' | 'detokenize' | 'tokenBytes' | 'memory' | 'createSession' | 'loadSession' | 'act' | 'closeSession' | 'closeSnapshot'} CallMethod */
/** @typedef {'generate' | 'generateIds' | 'evaluate' | 'continueSessions' | 'replyInSession'} StreamMethod */
/** @typedef {import('./engine.js').EngineOptions} EngineOptions */

/**
 * From the engine. `stats`, `laneStats` (of the stream's sessions) and `description` come with the end of a stream, however it ended. `progress` is no answer.
 *
 * @typedef {{ id: number, value?: unknown, done?: boolean, error?: PackedError, aborted?: boolean,
 *   stats?: import('./generate.js').Stats | null, laneStats?: import('./generate.js').Stats[], description?: import('./engine.js').Description, progress?: import('./load-meter.js').Progress | string }} Answer
 */

/** @typedef {{ code: import('./errors.js').BmErrorCode, message: string, stack?: string, cause?: string }} PackedError */

/**
 * A cache may have kept one script of an older package, or somebody has copied the worker's and forgotten it.
 *
 * @param {string | undefined} version  of the package that started this thread
 * @throws {BmError} `mismatch`
 */
export function checkVersion(version) {
  if (version === VERSION) return
  const other = version === undefined ? 'an older one' : version
  const advice = 'serve both from one package, at an address that changes with its version'
  throw new BmError(
    'mismatch',
    `this is the worker of bimamba ${VERSION}, and what started it is ${other}: ${advice}`,
  )
}

/** @param {unknown} error @returns {PackedError} an error that is not ours is a mistake of ours: `internal` */
export function packError(error) {
  const own = asBmError(error)
  /** @type {PackedError} */
  const packed = { code: own.code, message: own.message }
  if (own.stack) packed.stack = own.stack
  if (own.cause !== undefined) packed.cause = String(own.cause)
  return packed
}

/** @param {PackedError} packed @returns {BmError} with the stack of the thread it was thrown in */
export function unpackError({ code, message, stack, cause }) {
  const error = new BmError(code, message, cause === undefined ? {} : { cause })
  if (stack) error.stack = stack
  return error
}

/** @param {unknown} error @returns {BmError} */
function asBmError(error) {
  if (error instanceof BmError) return error
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return new BmError('internal', `unexpected: ${text}`, { cause: error })
}
