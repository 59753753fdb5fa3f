/**
 * Answers as server-sent events.
 *
 * Owns their form, and what happens with a reader that is slower than the model: what it has not read is kept up to a limit, so that it holds up nobody
 * else; beyond that it is waited for, and given up when it does not read at all. What is kept goes to the connection in small pieces: that each of them
 * was taken is how a slow reader differs from one that has stopped.
 */

/** @typedef {import('node:http').ServerResponse} ServerResponse */

const KEPT_CHARACTERS = 1e6
/** So long a reader may take nothing, ms. */
const STALLED_MS = 10000
/** Without a word for so long, a proxy may think that nobody is there, ms. */
const ALIVE_MS = 10000
const LOOK_MS = 1000

export class EventStream {
  #response
  #headers
  #look
  /** Not yet given to the connection. @type {string[]} */
  #kept = []
  #keptCharacters = 0
  #isEnding = false
  /** When the connection took something, or there was nothing to take; and when something was said, ms. */
  #taken = performance.now()
  #said = performance.now()
  /** Those who wait until more may be sent. @type {Set<() => void>} */
  #waiting = new Set()

  /** @param {ServerResponse} response @param {Record<string, string>} headers  besides its own */
  constructor(response, headers) {
    this.#response = response
    this.#headers = headers
    this.#look = setInterval(() => this.#check(), LOOK_MS)
    response.on('drain', () => {
      this.#taken = performance.now()
      this.#give()
    })
    response.on('close', () => {
      clearInterval(this.#look)
      this.#kept = []
      this.#keptCharacters = 0
      this.#wake()
    })
  }

  /** The answer has begun: it can only be a stream from now on. */
  get hasBegun() {
    return this.#response.headersSent
  }

  /** @param {unknown} data plain @returns {Promise<void>} when more may be sent, or the reader is gone */
  async send(data) {
    this.#write(`data: ${JSON.stringify(data)}\n\n`)
    if (this.#keptCharacters < KEPT_CHARACTERS) return
    await new Promise((resolve) => this.#waiting.add(() => resolve(undefined)))
  }

  /** @param {boolean} isWhole all was sent */
  end(isWhole) {
    if (isWhole) this.#write('data: [DONE]\n\n')
    this.#isEnding = true
    if (this.hasBegun) this.#give()
    else clearInterval(this.#look) // another answer follows
  }

  #check() {
    const now = performance.now()
    if (this.#kept.length === 0) this.#taken = now
    if (now - this.#taken > STALLED_MS) this.#response.destroy()
    else if (now - this.#said >= ALIVE_MS && !this.#isEnding) this.#write(': still at work\n\n')
  }

  /** @param {string} text */
  #write(text) {
    const response = this.#response
    if (response.destroyed || this.#isEnding) return
    this.#said = performance.now()
    if (!this.hasBegun) {
      response.writeHead(200, {
        ...this.#headers,
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      })
    }
    this.#kept.push(text)
    this.#keptCharacters += text.length
    this.#give()
  }

  /** As much of what is kept as the connection takes now. */
  #give() {
    const response = this.#response
    let given = 0
    while (given < this.#kept.length && !response.writableNeedDrain && !response.destroyed) {
      const text = String(this.#kept[given++])
      this.#keptCharacters -= text.length
      response.write(text)
    }
    this.#kept.splice(0, given)
    if (this.#keptCharacters < KEPT_CHARACTERS / 2) this.#wake()
    if (this.#isEnding && this.#kept.length === 0) response.end()
  }

  #wake() {
    for (const go of this.#waiting) go()
    this.#waiting.clear()
  }
}
