/**
 * Writes: pulls a text out of the model, piece by piece, onto the page.
 *
 * Owns one run from its beginning to its end, however it ends: what is shown, what is measured, and the rests on the way. Knows no buttons; it tells by
 * the events `run` (begun, ended), `status`, and `news`: a status that whoever only listens must hear, too.
 * The idea: the loop pulls, so whatever is awaited in it (a hidden page, the wanted pace, somebody who looks at the state) holds the engine, and nothing
 * queues up.
 */

import { messageOf } from './model-desk.js'
import { formatCount, formatDigits, formatTime, plural } from './number-text.js'

/** @typedef {import('./story.js').Story} Story */
/** @typedef {import('./story.js').Step} Step */
/** @typedef {NonNullable<Step['cost']>} Cost */

/** @typedef {{ pane: import('./text-pane.js').TextPane, voice: import('./sentence-voice.js').SentenceVoice, pauses: import('./pauses.js').Pauses, form: import('./sampling-form.js').SamplingForm }} Tools */

/** Between two changes of the status, ms. */
const STATUS_MS = 250
/** When nothing came for so long, it says why, ms. */
const SILENT_MS = 500

/** @type {Record<NonNullable<Step['end']>, string>} */
const ENDS = {
  eos: 'The model ended the text here; Continue begins another one.',
  stop: 'It was to stop here.',
  length: 'The length was reached.',
  abort: 'Stopped.',
  error: 'It failed.',
}

export class Writer extends EventTarget {
  #tools
  /** Who looks at the state between two chunks of tokens; they are awaited. @type {((cost: Cost) => Promise<void> | void)[]} */
  watchers = []
  status = ''
  /** @type {AbortController | null} */
  #running = null

  /** @param {Tools} tools */
  constructor(tools) {
    super()
    this.#tools = tools
  }

  get isRunning() {
    return this.#running !== null
  }

  stop() {
    this.#running?.abort()
  }

  /** Continues the current branch, or tries its last text again. @param {Story} story @param {'continue' | 'regenerate'} how */
  run(story, how) {
    const { form } = this.#tools
    const { options, pace, isSeedGiven } = form.read()
    const seedText = isSeedGiven ? `Seed ${options.seed}, given.` : `Seed ${options.seed}.`
    const length = story.current.text.length
    return this.#guard({ pace, length }, async (run, signal) => {
      const work = story[how](options, signal)
      for await (const step of work) {
        await this.#take(story, step, run, signal)
        if (step.end) this.#say(`${run.summary()} ${ENDS[step.end]} ${seedText}`, 'news')
      }
    })
  }

  /**
   * Continues branches together, each in its own pane.
   * @param {Story} story
   * @param {import('./story.js').Branch[]} branches
   * @param {(branch: import('./story.js').Branch, text: string) => void} show
   */
  runTogether(story, branches, show) {
    const { options, pace } = this.#tools.form.read()
    const length = branches.reduce((sum, { text }) => sum + text.length, 0)
    return this.#guard({ pace, length }, async (run, signal) => {
      const pieces = story.continueTogether(branches, options, signal)
      try {
        for (;;) {
          const { done, value } = await pieces.next()
          if (done) {
            const parts = value.map(
              (tokens, i) => `${branches[i]?.name}: ${plural(tokens, 'token')}`,
            )
            this.#say(`Written together. ${parts.join(', ')}.`, 'news')
            return
          }
          run.begin()
          show(value.branch, value.text)
          await this.#rest(run, signal)
        }
      } finally {
        await pieces.return([])
      }
    })
  }

  /** @param {Story} story @param {Step} step @param {Run} run @param {AbortSignal} signal */
  async #take(story, { text, cost }, run, signal) {
    const { pane, voice } = this.#tools
    if (text === '' && !cost) pane.show(story.current.text) // it went back first
    if (text !== '') {
      run.piece(story.current.session.position)
      pane.append(text)
      voice.add(text)
      await this.#rest(run, signal)
    }
    if (!cost) return
    run.add(cost)
    for (const watch of this.watchers) await watch(cost)
    if (run.isStatusDue()) this.#say(run.summary())
  }

  /** @param {Run} run @param {AbortSignal} signal */
  async #rest(run, signal) {
    await run.pause(signal)
    const { pauses } = this.#tools
    await pauses.passage(signal)
  }

  /** @param {{ pace: number, length: number }} what  length: of all text that may have to be read, characters @param {(run: Run, signal: AbortSignal) => Promise<void>} work */
  async #guard({ pace, length }, work) {
    if (this.#running) return
    const run = new Run(pace)
    const running = new AbortController()
    this.#running = running
    this.dispatchEvent(new Event('run'))
    const silent = setTimeout(() => {
      if (!run.hasBegun) this.#say(`Reading: ${plural(length, 'character')}.`, 'news')
    }, SILENT_MS)
    try {
      await work(run, running.signal)
    } catch (error) {
      this.#say(running.signal.aborted ? `${run.count()}${ENDS.abort}` : messageOf(error), 'news')
    } finally {
      clearTimeout(silent)
      this.#running = null
      this.#tools.pane.flush()
      this.#tools.voice.end()
      this.#tools.pauses.end()
      this.dispatchEvent(new Event('run'))
    }
  }

  /** @param {string} status @param {'status' | 'news'} [kind] */
  #say(status, kind = 'status') {
    this.status = status
    this.dispatchEvent(new Event(kind))
  }
}

/** What one run has done so far. */
class Run {
  #pace
  #began = performance.now()
  /** @type {number | null} */
  #msToFirst = null
  /** Where it began. @type {number | null} */
  #from = null
  #position = 0
  #tokens = 0
  #ms = 0
  #said = performance.now()
  /** When the next piece may come, by the wanted pace. */
  #next = performance.now()

  /** @param {number} pace pieces a second; 0: no limit */
  constructor(pace) {
    this.#pace = pace
  }

  get hasBegun() {
    return this.#msToFirst !== null
  }

  /** Something came. */
  begin() {
    this.#msToFirst ??= performance.now() - this.#began
  }

  /** @param {number} position behind a piece of text */
  piece(position) {
    this.begin()
    this.#from ??= position - 1
    this.#position = position
  }

  /** @returns {string} tokens that came until it was stopped */
  count() {
    return this.#from === null ? '' : `${formatCount(this.#position - this.#from)} tokens. `
  }

  /** @param {Cost} cost */
  add({ tokens, ms }) {
    this.#tokens += tokens
    this.#ms += ms
  }

  isStatusDue() {
    const now = performance.now()
    if (now - this.#said < STATUS_MS) return false
    this.#said = now
    return true
  }

  /** Keeps to the pace. @param {AbortSignal} signal */
  async pause(signal) {
    if (!(this.#pace > 0)) return
    this.#next = Math.max(this.#next, performance.now() - 1000) + 1000 / this.#pace
    const ms = this.#next - performance.now()
    if (ms < 4 || signal.aborted) return
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      signal.addEventListener('abort', () => {
        clearTimeout(timer)
        resolve(undefined)
      })
    })
  }

  summary() {
    const speed = this.#ms > 0 ? formatDigits((1000 * this.#tokens) / this.#ms) : '0'
    const first = formatTime(this.#msToFirst ?? 0)
    return `${formatCount(this.#tokens)} tokens, ${speed} a second, the first after ${first}.`
  }
}
