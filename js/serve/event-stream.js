/**
 * Answers as server-sent events.
 *
 * Owns their form, and what happens with a reader that is slower than the model: what it has not read is kept up to a limit, so that it holds up nobody
 * else; beyond that it is waited for, and given up when it does not read at all.
 */

/** @typedef {import('node:http').ServerResponse} ServerResponse */

const KEPT_BYTES = 1e6
/** So long a reader may read nothing, ms. */
const STALLED_MS = 30000
/** Without a word for so long, a proxy may think that nobody is there, ms. */
const ALIVE_MS = 10000

export class EventStream {
  #response
  #headers
  #signal
  #alive

  /** @param {ServerResponse} response @param {Record<string, string>} headers  besides its own @param {AbortSignal} signal  the reader is gone */
  constructor(response, headers, signal) {
    this.#response = response
    this.#headers = headers
    this.#signal = signal
    this.#alive = setInterval(() => this.#write(': still at work\n\n'), ALIVE_MS)
  }

  /** The answer has begun: it can only be a stream from now on. */
  get hasBegun() {
    return this.#response.headersSent
  }

  /** @param {unknown} data plain @returns {Promise<void>} when more may be sent */
  async send(data) {
    this.#write(`data: ${JSON.stringify(data)}\n\n`)
    if (this.#response.writableLength > KEPT_BYTES) await this.#drained()
  }

  /** @param {boolean} isWhole all was sent */
  end(isWhole) {
    clearInterval(this.#alive)
    if (isWhole) this.#write('data: [DONE]\n\n')
    if (this.hasBegun) this.#response.end()
  }

  /** @param {string} text */
  #write(text) {
    if (this.#response.destroyed) return
    if (!this.hasBegun) {
      this.#response.writeHead(200, {
        ...this.#headers,
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      })
    }
    this.#response.write(text)
  }

  async #drained() {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#response.destroy(), STALLED_MS)
      const done = () => {
        clearTimeout(timer)
        this.#response.off('drain', done)
        this.#signal.removeEventListener('abort', done)
        if (this.#signal.aborted) reject(this.#signal.reason)
        else resolve(undefined)
      }
      this.#response.on('drain', done)
      this.#signal.addEventListener('abort', done)
    })
  }
}
