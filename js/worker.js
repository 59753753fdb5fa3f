/**
 * The engine's thread: answers the messages of js/wire.js with an Engine.
 *
 * Owns the requests and streams that are open on this side. Knows nothing about models. This file is an entry point, like
 * js/thread.js: it acts when it is loaded.
 */

import { connectToParent } from './platform.js'
import { inspectModel, pullModel, startEngine } from './startup.js'
import { checkVersion, packError } from './wire.js'

/** @typedef {import('./wire.js').Request} Request */
/** @typedef {import('./wire.js').Answer} Answer */

/** @type {import('./engine.js').Engine | null} */
let engine = null
/** @type {import('./engine.js').Description | null} what the other side knows of it */
let told = null
/** @type {Map<number, AbortController>} requests and streams that can be aborted, by id */
const controllers = new Map()
/** @typedef {{ pieces: AsyncGenerator<unknown, unknown, void>, laneStats: import('./generate.js').Stats[] }} Stream laneStats: of its sessions, when it has ended */

/** @type {Map<number, Stream>} */
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
  post(answer, buffersOf(answer.value))
}

/** What need not be copied on its way: nobody here looks at a result again. @param {unknown} value @returns {Transferable[]} */
function buffersOf(value) {
  const inner = /** @type {{ value?: unknown }} */ (Object(value)).value
  return [value, inner].flatMap((one) =>
    ArrayBuffer.isView(one) && one.buffer instanceof ArrayBuffer ? [one.buffer] : [],
  )
}

/**
 * @param {Exclude<Request, { kind: 'abort' }>} request
 * @param {AbortSignal} signal
 * @returns {Promise<Omit<Answer, 'id'>>}
 */
async function perform(request, signal) {
  /** @param {Answer['progress']} progress */
  const onProgress = (progress) => post({ id: request.id, progress })
  if ('source' in request) checkVersion(request.version)
  switch (request.kind) {
    case 'load':
      engine = await startEngine(request.source, request.options, { onProgress, signal })
      told = engine.describe()
      return { value: told }
    case 'pull':
      return { value: await pullModel(request.source, request.options, { onProgress, signal }) }
    case 'inspect':
      return { value: await inspectModel(request.source, request.options, { signal }) }
    case 'bench': {
      // Most who load a model never measure it.
      const { benchmark } = await import('./bench/benchmark.js')
      const plan = {
        ...request.options,
        model: { ...request.options.model, source: request.source },
      }
      return { value: await benchmark(plan, { onProgress, signal }) }
    }
    case 'call':
      return { value: await call(loaded(), request, signal) }
    case 'next': {
      if (request.open) streams.set(request.stream, open(loaded(), request.open, signal))
      const result = await streams.get(request.stream)?.pieces.next()
      if (result && !result.done) return { value: result.value }
      return { done: true, value: result?.value, ...end(request.stream) }
    }
    case 'return':
      await streams.get(request.stream)?.pieces.return(undefined)
      controllers.delete(request.stream)
      return end(request.stream)
  }
}

/** @param {number} stream @returns {Pick<Answer, 'stats' | 'laneStats' | 'description'>} */
function end(stream) {
  const { laneStats = [] } = streams.get(stream) ?? {}
  streams.delete(stream)
  const { stats = null } = engine ?? {}
  const description = engine?.describe() ?? told
  if (!description || description === told) return { stats, laneStats }
  told = description
  return { stats, laneStats, description }
}

/** @returns {import('./engine.js').Engine} */
function loaded() {
  if (!engine) throw new Error('no model is loaded')
  return engine
}

/**
 * The caller's side has checked the arguments, and js/remote.js has the types.
 *
 * @param {import('./engine.js').Engine} engine
 * @param {{ method: import('./wire.js').CallMethod, args: unknown[] }} request
 * @param {AbortSignal} signal
 * @returns {Promise<unknown>}
 */
function call(engine, { method, args }, signal) {
  const run = /** @type {(...args: unknown[]) => Promise<unknown>} */ (engine[method])
  return run.call(engine, ...args, signal)
}

/**
 * @param {import('./engine.js').Engine} engine
 * @param {{ method: import('./wire.js').StreamMethod, args: unknown[] }} stream
 * @param {AbortSignal} signal
 * @returns {Stream}
 */
function open(engine, { method, args }, signal) {
  const run = /** @type {(...args: unknown[]) => AsyncGenerator<unknown, unknown, void>} */ (
    engine[method]
  )
  /** @type {Stream['laneStats']} */
  const laneStats = []
  return { pieces: run.call(engine, ...args, signal, laneStats), laneStats }
}
