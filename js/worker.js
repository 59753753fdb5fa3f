/**
 * The engine's thread: answers the messages of js/wire.js with an Engine.
 *
 * Owns the requests and streams that are open on this side. Knows nothing about models. This file is an entry point, like
 * js/thread.js: it acts when it is loaded.
 */

import { connectToParent } from './platform.js'
import { pullModel, startEngine } from './startup.js'
import { packError } from './wire.js'

/** @typedef {import('./wire.js').Request} Request */
/** @typedef {import('./wire.js').Answer} Answer */

/** @type {import('./engine.js').Engine | null} */
let engine = null
/** @type {Map<number, AbortController>} requests and streams that can be aborted, by id */
const controllers = new Map()
/** @type {Map<number, AsyncGenerator<unknown, unknown, void>>} */
const streams = new Map()

const post = connectToParent((message) => void handle(/** @type {Request} */ (message)))

/** @param {Request} request */
async function handle(request) {
  const { id } = request
  if (request.kind === 'abort') {
    controllers.get(id)?.abort()
    return
  }
  const owner = request.kind === 'next' ? request.stream : id
  const controller = controllers.get(owner) ?? new AbortController()
  controllers.set(owner, controller)
  /** @type {Answer} */
  let answer
  try {
    answer = { id, ...(await perform(request, controller.signal)) }
  } catch (error) {
    const aborted = controller.signal.aborted && error === controller.signal.reason
    answer = aborted ? { id, aborted } : { id, error: packError(error) }
    if (request.kind === 'next') answer = { ...answer, ...end(request.stream) }
  }
  if (!streams.has(owner)) controllers.delete(owner)
  post(answer)
}

/**
 * @param {Exclude<Request, { kind: 'abort' }>} request
 * @param {AbortSignal} signal
 * @returns {Promise<Omit<Answer, 'id'>>}
 */
async function perform(request, signal) {
  switch (request.kind) {
    case 'load':
    case 'pull': {
      /** @param {import('./load-meter.js').Progress} progress */
      const onProgress = (progress) => post({ id: request.id, progress })
      const control = { onProgress, signal }
      if (request.kind === 'pull') {
        return { value: await pullModel(request.source, request.options, control) }
      }
      engine = await startEngine(request.source, request.options, control)
      return { value: engine.describe() }
    }
    case 'call':
      return { value: await call(loaded(), request, signal) }
    case 'next': {
      if (request.open) streams.set(request.stream, open(loaded(), request.open, signal))
      const result = await streams.get(request.stream)?.next()
      if (result && !result.done) return { value: result.value }
      return { done: true, value: result?.value, ...end(request.stream) }
    }
    case 'return':
      await streams.get(request.stream)?.return(undefined)
      controllers.delete(request.stream)
      return end(request.stream)
  }
}

/** @param {number} stream @returns {{ stats: import('./generate.js').Stats | null }} */
function end(stream) {
  streams.delete(stream)
  return { stats: engine?.stats ?? null }
}

/** @returns {import('./engine.js').Engine} */
function loaded() {
  if (!engine) throw new Error('no model is loaded')
  return engine
}

/**
 * @param {import('./engine.js').Engine} engine
 * @param {{ method: 'tokenize' | 'detokenize', args: unknown[] }} request
 * @param {AbortSignal} signal
 * @returns {Promise<unknown>}
 */
function call(engine, { method, args }, signal) {
  if (method === 'tokenize') return engine.tokenize(String(args[0]), args[1] === true, signal)
  return engine.detokenize(/** @type {Uint32Array} */ (args[0]))
}

/**
 * @param {import('./engine.js').Engine} engine
 * @param {{ method: import('./wire.js').StreamMethod, args: unknown[] }} stream
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<unknown, unknown, void>}
 */
function open(engine, { method, args }, signal) {
  if (method === 'evaluate') {
    return engine.evaluate(/** @type {Uint32Array} */ (args[0]), args[1] === true, signal)
  }
  const prompt = /** @type {string | Uint32Array} */ (args[0])
  return engine[method](prompt, /** @type {import('./settings.js').Settings} */ (args[1]), signal)
}
