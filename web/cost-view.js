/**
 * What a token costs along a text: time, and memory beside that of a transformer.
 *
 * Owns the samples and what they are compared with. The comparison is with a transformer of the same width whose keys and values are kept in 16 bits,
 * and which has half as many layers, since one of its layers is attention and a feed-forward part.
 */

import { el } from './element.js'
import { drawLines } from './line-chart.js'
import { formatBytes, formatCount, formatTime } from './number-text.js'

/** @typedef {import('../js/index.js').BiMamba} BiMamba */
/** @typedef {import('./writer.js').Cost} Cost */

/** More samples than this are joined in pairs. */
const MOST_SAMPLES = 300
/** The time axis ends above this share of the samples; the rest are moments in which the machine did something else. */
const SHOWN_SHARE = 0.98
const KEY_AND_VALUE = 2
const HALF_BYTES = 2

export class CostView {
  #root
  /** @type {{ position: number, tokens: number, ms: number }[]} */
  #samples = []
  #figures = el('dl', { class: 'figures' })
  #charts = el('div', { class: 'charts' })

  /** @param {HTMLElement} root empty */
  constructor(root) {
    this.#root = root
    this.#root.replaceChildren(
      this.#figures,
      this.#charts,
      el(
        'p',
        { class: 'hint' },
        'The transformer that it is compared with has the same width, half as many layers (each is attention and a feed-forward part), and keeps its keys and values in 16 bits: 2 × layers × width × 2 bytes for every token.',
      ),
    )
  }

  /** @param {Cost} cost */
  add({ position, tokens, ms }) {
    if (tokens === 0) return
    const last = this.#samples.at(-1)
    // Another branch, or the text went back.
    if (last && position <= last.position)
      this.#samples = this.#samples.filter((one) => one.position < position)
    this.#samples.push({ position, tokens, ms })
    if (this.#samples.length > MOST_SAMPLES) this.#samples = joinPairs(this.#samples)
  }

  /** Another model: nothing is known of it. */
  clear() {
    this.#samples = []
  }

  /** @param {BiMamba} model @param {number} position of the text */
  async show(model, position) {
    const { n_layer, d_model } = model.config
    const perToken = KEY_AND_VALUE * (n_layer / 2) * d_model * HALF_BYTES
    const { stateBytes } = model.info
    const { engineBytes, keptBytes } = await model.memory()
    this.#figures.replaceChildren(
      ...figure('State of this text', formatBytes(stateBytes), 'the same at every length'),
      ...figure(
        'A transformer\u2019s cache here',
        formatBytes(perToken * position),
        `${formatBytes(perToken)} a token`,
      ),
      ...figure(
        'Both are equal at',
        `${formatCount(stateBytes / perToken)} tokens`,
        `this text: ${formatCount(position)}`,
      ),
      ...figure('Memory of the engine', formatBytes(engineBytes), 'weights, states, work space'),
      ...figure('Kept to go back', formatBytes(keptBytes), 'moments and checkpoints, bounded'),
    )
    const mostX = Math.max(256, position, (1.25 * stateBytes) / perToken)
    this.#charts.replaceChildren(this.#timeChart(mostX), memoryChart(stateBytes, perToken, mostX))
  }

  /** @param {number} mostX */
  #timeChart(mostX) {
    const points = this.#samples.map(
      ({ position, tokens, ms }) => /** @type {const} */ ([position, ms / tokens]),
    )
    const times = points.map(([, ms]) => ms).sort((a, b) => a - b)
    const shown = times[Math.ceil(SHOWN_SHARE * times.length) - 1] ?? 1
    const middle = times[times.length >> 1]
    return framed(
      'Time a token',
      [['time', 'this model']],
      drawLines({
        title: 'Time a token against the position in the text',
        says:
          middle === undefined
            ? 'Nothing was written yet.'
            : `The median is ${formatTime(middle)}.`,
        lines: [{ name: 'this model', className: 'time', points }],
        xName: 'position, tokens',
        formatY: (ms) => formatTime(ms),
        mostX,
        mostY: 1.6 * shown,
      }),
    )
  }
}

/** @param {number} stateBytes @param {number} perToken @param {number} mostX */
function memoryChart(stateBytes, perToken, mostX) {
  const lines = [
    {
      name: 'this model',
      className: 'state',
      points: /** @type {const} */ ([
        [0, stateBytes],
        [mostX, stateBytes],
      ]),
    },
    {
      name: 'a transformer',
      className: 'cache',
      points: /** @type {const} */ ([
        [0, 0],
        [mostX, perToken * mostX],
      ]),
    },
  ]
  const keys = lines.map(
    ({ name, className }) => /** @type {[string, string]} */ ([className, name]),
  )
  return framed(
    'Memory of the context',
    keys,
    drawLines({
      title: 'Memory of the context against the position in the text',
      says: `This model: ${formatBytes(stateBytes)} at every position. A transformer: ${formatBytes(perToken)} more for each token.`,
      lines,
      xName: 'position, tokens',
      formatY: (bytes) => formatBytes(bytes),
      mostX,
      mostY: 1.1 * Math.max(stateBytes, perToken * mostX),
    }),
  )
}

/** @param {string} title @param {[string, string][]} keys class and name of each line @param {SVGElement} chart */
function framed(title, keys, chart) {
  const legend = keys.map(([className, name]) => el('span', { class: `key ${className}` }, name))
  return el('figure', { class: 'chart' }, el('figcaption', {}, title, ...legend), chart)
}

/** @param {string} name @param {string} value @param {string} more */
function figure(name, value, more) {
  return [
    el('div', {}, el('dt', {}, name), el('dd', {}, el('b', {}, value), el('small', {}, more))),
  ]
}

/** @param {{ position: number, tokens: number, ms: number }[]} samples */
function joinPairs(samples) {
  return samples.flatMap((one, i) => {
    const next = samples[i + 1]
    if (i % 2) return []
    return next
      ? [{ position: next.position, tokens: one.tokens + next.tokens, ms: one.ms + next.ms }]
      : [one]
  })
}
