/**
 * The benchmark page: what a token costs here, beside the time in which its bytes could be read.
 *
 * Owns what can be chosen, and drawing the report of `BiMamba.benchmark`. Measures nothing itself.
 */

import { BiMamba } from './bimamba.js'
import { allow, button, el, field } from './element.js'
import { messageOf } from './model-desk.js'
import { formatDigits, formatTime } from './number-text.js'

/** @typedef {import('../js/index.js').Benchmark} Benchmark */
/** @typedef {import('../js/index.js').BenchmarkOptions} BenchmarkOptions */
/** @typedef {import('./model-desk.js').ModelDesk} ModelDesk */

/** @type {[string, string][]} */
const SUBJECTS = [
  ['own', 'the model that is open'],
  ['780M', 'random weights, 780M shape (takes 230 MB for each line)'],
  ['1.3B', 'random weights, 1.3B shape (takes 350 MB for each line)'],
  ['2.7B', 'random weights, 2.7B shape (takes 600 MB for each line)'],
]
const FAMILIES = ['table', 'popcount']
const MOST_THREADS = 8

/** What is in a step, in the words of the papers. @type {Record<string, string>} */
const STEPS = {
  embed: 'embedding',
  prepare_in: 'norm and tables, in_proj',
  project_in: 'in_proj product',
  scan: 'convolution, state, gate',
  prepare_out: 'norm and tables, out_proj',
  project_out: 'out_proj product',
  finish: 'last norm',
  head: 'logits',
}

export class BenchView {
  #desk
  #subject = el(
    'select',
    { id: 'bench-subject' },
    ...SUBJECTS.map(([value, words]) => el('option', { value }, words)),
  )
  #run = button('Measure', () => void this.#measure(), { class: 'main-button' })
  #stop = button('Stop', () => this.#running?.abort())
  #says = el('p', { class: 'hint', role: 'status' })
  #results = el('div', {})
  /** @type {AbortController | null} */
  #running = null

  /** @param {HTMLElement} root empty @param {ModelDesk} desk */
  constructor(root, desk) {
    this.#desk = desk
    this.#stop.hidden = true
    root.append(
      el('div', { class: 'row fields' }, field('Measure', this.#subject), this.#run, this.#stop),
      this.#says,
      this.#results,
    )
  }

  async #measure() {
    const running = new AbortController()
    this.#running = running
    this.#show(true)
    try {
      const report = await BiMamba.benchmark({
        ...this.#chosen(),
        settings: settingsOf(this.#subject.value),
        rounds: 3,
        promptTokens: 128,
        onProgress: (what) => this.#say(`${what} …`),
        signal: running.signal,
      })
      this.#say('Done. Nothing was sent anywhere.')
      this.#results.replaceChildren(...drawReport(report, (text) => this.#copy(text)))
    } catch (error) {
      this.#say(running.signal.aborted ? 'Stopped.' : messageOf(error), !running.signal.aborted)
    } finally {
      this.#running = null
      this.#show(false)
    }
  }

  /** @returns {BenchmarkOptions} */
  #chosen() {
    const { value } = this.#subject
    if (value !== 'own') return { shape: /** @type {'780M' | '1.3B' | '2.7B'} */ (value) }
    const source = this.#desk.opened?.source
    if (typeof source === 'string' || source instanceof URL || source instanceof Blob)
      return { source }
    throw new Error('No model is open.')
  }

  /** @param {string} text */
  async #copy(text) {
    try {
      await navigator.clipboard.writeText(text)
      this.#say('The report is in the clipboard.')
    } catch (error) {
      this.#say(
        `It could not be copied: ${messageOf(error)}. The text below can be selected.`,
        true,
      )
    }
  }

  /** @param {boolean} isRunning */
  #show(isRunning) {
    allow(this.#run, !isRunning)
    if (!isRunning && document.activeElement === this.#stop) this.#run.focus()
    this.#stop.hidden = !isRunning
  }

  /** @param {string} text @param {boolean} [isWrong] */
  #say(text, isWrong = false) {
    this.#says.textContent = text
    this.#says.className = isWrong ? 'wrong' : 'hint'
  }
}

/**
 * What is compared: each kernel family with one thread and, where memory can be shared, with all. Each has a model of its own in memory, so of the larger ones one
 * family is enough.
 * @param {string} subject
 */
function settingsOf(subject) {
  const cores = navigator.hardwareConcurrency || 1
  const counts = crossOriginIsolated && cores > 1 ? [1, Math.min(cores, MOST_THREADS)] : [1]
  const families = subject === 'own' || subject === '780M' ? FAMILIES : FAMILIES.slice(0, 1)
  return counts.flatMap((threads) => families.map((variant) => ({ threads, variant })))
}

/** @param {Benchmark} report @param {(text: string) => void} copy @returns {Node[]} */
function drawReport(report, copy) {
  const most = Math.max(...report.settings.map(({ decode }) => Math.max(decode.ms, decode.boundMs)))
  const rows = report.settings.map(({ threads, variant, decode }) => {
    const bar = el('span', { class: 'bar' })
    bar.style.setProperty('--share', String(decode.ms / most))
    const bound = el('span', { class: 'bound' })
    bound.style.setProperty('--share', String(decode.boundMs / most))
    const name = `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${variant}`
    const words = `${formatDigits(decode.tokensPerS)} tokens/s: ${formatTime(decode.ms)} a token; reading its bytes takes ${formatTime(decode.boundMs)}`
    return el(
      'li',
      {},
      el('b', {}, name),
      el('span', { class: 'bars', 'aria-hidden': 'true' }, bar, bound),
      el('small', {}, words),
    )
  })
  const streams = report.streams.map(
    ({ threads, gbPerS }) => `${formatDigits(gbPerS)} GB/s with ${threads}`,
  )
  return [
    el(
      'p',
      {},
      `Memory is read at ${streams.join(', ')}. The line in each bar is the streaming bound: the bytes that a token moves, read at that speed. A model that fits into the caches can be faster than that.`,
    ),
    el('ul', { class: 'results' }, ...rows),
    stepTable(report),
    button('Copy the report', () => copy(report.text)),
    el(
      'pre',
      { class: 'report', tabindex: 0, role: 'region', 'aria-label': 'The report as text' },
      report.text,
    ),
  ]
}

/** @param {Benchmark} report of its first setting */
function stepTable({ settings: [first] }) {
  const rows = (first?.steps?.decode ?? []).map(({ step, ms, share, gbPerS }) =>
    el(
      'tr',
      {},
      el('th', { scope: 'row' }, STEPS[step] ?? step),
      el('td', {}, formatTime(ms)),
      el('td', {}, `${(100 * share).toFixed(1)} %`),
      el('td', {}, formatDigits(gbPerS)),
    ),
  )
  const heads = ['Step', 'Time a token', 'Share', 'GB/s'].map((name) =>
    el('th', { scope: 'col' }, name),
  )
  return el(
    'table',
    {},
    el('caption', {}, `The steps of a token, ${first?.variant} with one thread`),
    el('thead', {}, el('tr', {}, ...heads)),
    el('tbody', {}, ...rows),
  )
}
