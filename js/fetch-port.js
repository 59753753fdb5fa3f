/**
 * A caller's own `fetch`, used from another thread: functions do not cross, so requests and pieces of bodies do.
 *
 * Owns the messages between the two ends. Knows nothing about what is fetched or why.
 * The idea: one exchange at a time for each request: it is opened, then each piece of its body is asked for. So the reader's
 * pace is the server's pace, here as everywhere, and a piece is transferred, not copied.
 */

import { reasonOf } from './errors.js'

/** @typedef {import('./http-file.js').Fetch} Fetch */
/** @typedef {import('./http-file.js').FetchAnswer} FetchAnswer */
/** @typedef {import('./http-file.js').FetchInit} FetchInit */
/** @typedef {import('./http-file.js').FetchReader} FetchReader */

/**
 * @typedef {{ id: number, open?: { url: string, init: Omit<FetchInit, 'signal'> }, cancel?: boolean }} Call  neither: the next piece is wanted
 * @typedef {{ status: number, statusText: string, type: string, url: string, headers: [string, string][], hasBody: boolean }} Head
 * @typedef {{ id: number, head?: Head, piece?: Uint8Array, done?: boolean, reason?: string }} Reply
 */

/**
 * The end that has the function.
 *
 * @param {Fetch} fetch
 * @returns {{ port: MessagePort, close: () => void }} the port for the other end; `close` ends what is under way
 */
export function serveFetch(fetch) {
  const { port1, port2 } = new MessageChannel()
  /** @type {Map<number, { controller: AbortController, reader: FetchReader | null }>} */
  const open = new Map()
  port1.onmessage = async ({ data }) => {
    const call = /** @type {Call} */ (data)
    const { id } = call
    try {
      if (call.open) {
        const controller = new AbortController()
        const entry = { controller, reader: /** @type {FetchReader | null} */ (null) }
        open.set(id, entry)
        const { url, init } = call.open
        const answer = await fetch(url, { ...init, signal: controller.signal })
        if (controller.signal.aborted) return void (await answer.body?.cancel())
        entry.reader = answer.body?.getReader() ?? null
        port1.postMessage({ id, head: headOf(answer) })
      } else if (call.cancel) {
        const entry = open.get(id)
        open.delete(id)
        entry?.controller.abort()
        await entry?.reader?.cancel()
      } else {
        const { done = true, value } = (await open.get(id)?.reader?.read()) ?? {}
        if (done) open.delete(id)
        // A copy: what a caller's fetch yields need not be its own to give away.
        const piece = Uint8Array.from(value ?? [])
        port1.postMessage({ id, done, piece }, [piece.buffer])
      }
    } catch (error) {
      open.delete(id)
      port1.postMessage({ id, reason: reasonOf(error) })
    }
  }
  const close = () => {
    port1.close()
    for (const { controller } of open.values()) controller.abort()
  }
  return { port: port2, close }
}

/** @param {FetchAnswer & { headers: { get: (name: string) => string | null, forEach?: (fn: (value: string, name: string) => void) => void } }} answer @returns {Head} */
function headOf({ status, statusText, type, url, headers, body }) {
  /** @type {[string, string][]} */
  const list = []
  headers.forEach?.((value, name) => {
    list.push([name.toLowerCase(), value])
  })
  return { status, statusText, type, url, headers: list, hasBody: body !== null }
}

/**
 * The end that wants to fetch.
 *
 * @param {MessagePort} port
 * @returns {Fetch}
 */
export function fetchThrough(port) {
  /** @type {Map<number, (reply: Reply) => void>} */
  const waiting = new Map()
  let lastId = 0
  port.onmessage = ({ data }) => waiting.get(data.id)?.(data)

  /** @param {Call} call @param {AbortSignal} signal @returns {Promise<Reply>} */
  const ask = async (call, signal) => {
    signal.throwIfAborted()
    const { id } = call
    let onAbort = () => {}
    try {
      /** @type {Reply} */
      const reply = await new Promise((resolve, reject) => {
        onAbort = () => {
          port.postMessage({ id, cancel: true })
          reject(signal.reason)
        }
        signal.addEventListener('abort', onAbort)
        waiting.set(id, resolve)
        port.postMessage(call)
      })
      if (reply.reason !== undefined) throw new Error(reply.reason)
      return reply
    } finally {
      signal.removeEventListener('abort', onAbort)
      waiting.delete(id)
    }
  }

  return async (url, { signal, ...init }) => {
    const id = ++lastId
    const { head } = await ask({ id, open: { url, init } }, signal)
    const { headers, hasBody, ...rest } = /** @type {Head} */ (head)
    const cancel = async () => port.postMessage({ id, cancel: true })
    const read = async () => {
      const { done = false, piece } = await ask({ id }, signal)
      return { done, value: piece }
    }
    const byName = new Map(headers)
    return {
      ...rest,
      headers: { get: (name) => byName.get(name.toLowerCase()) ?? null },
      body: hasBody ? { getReader: () => ({ read, cancel }), cancel } : null,
    }
  }
}
