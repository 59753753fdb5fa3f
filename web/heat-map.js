/**
 * Pictures of the state, one for each layer.
 *
 * Owns colours and when a picture is due: never so often that looking takes more than a tenth of the time. Knows no session: it is given what to read.
 */

import { el } from './element.js'
import { formatDigits } from './number-text.js'
import { readLayers } from './saved-state.js'

/** @typedef {import('./saved-state.js').LayerState} LayerState */
/** @typedef {import('../js/index.js').ModelConfig} ModelConfig */

const LEAST_PAUSE_MS = 120
/** A look may take this share of the time. */
const SHARE = 0.1
/** Values are shown up to so many times the RMS of the layer. */
const RANGE = 4
/** Red, green, blue of the two ends; the middle is transparent. */
const BELOW = [38, 112, 200]
const ABOVE = [214, 96, 20]

export class HeatMap {
  #root
  /** @type {HTMLCanvasElement[]} */
  #canvases = []
  #nextAt = 0

  /** @param {HTMLElement} root empty */
  constructor(root) {
    this.#root = root
  }

  /** Whether it has been long enough. */
  get isDue() {
    return performance.now() >= this.#nextAt
  }

  /** @param {() => Promise<Uint8Array<ArrayBuffer>>} look gives a saved session with the state in 8 bits @param {ModelConfig} config */
  async update(look, config) {
    const began = performance.now()
    this.#draw(readLayers(await look(), config))
    const ms = performance.now() - began
    this.#nextAt = performance.now() + Math.max(LEAST_PAUSE_MS, ms / SHARE - ms)
  }

  /** Says why there is none. @param {string} reason */
  fail(reason) {
    this.#canvases = []
    this.#root.replaceChildren(el('p', { class: 'wrong' }, reason))
  }

  /** @param {LayerState[]} layers */
  #draw(layers) {
    if (this.#canvases.length !== layers.length) this.#build(layers)
    for (const [i, layer] of layers.entries()) {
      const canvas = this.#canvases[i]
      if (!canvas) continue
      // Made of numbers of the processor, so it is kept there.
      canvas.getContext('2d', { willReadFrequently: true })?.putImageData(imageOf(layer), 0, 0)
      const words = `Layer ${i + 1}: ${layer.columns} values in each of its channels, root mean square ${formatDigits(layer.rms)}`
      canvas.setAttribute('aria-label', words)
      canvas.title = words
    }
  }

  /** @param {LayerState[]} layers */
  #build(layers) {
    this.#canvases = layers.map(({ rows, columns }) =>
      el('canvas', { width: columns, height: rows, role: 'img' }),
    )
    this.#root.replaceChildren(
      ...this.#canvases.map((canvas, i) =>
        el('figure', {}, canvas, el('figcaption', {}, `Layer ${i + 1}`)),
      ),
    )
  }
}

/** @param {LayerState} layer */
function imageOf({ values, rows, columns, rms }) {
  const image = new ImageData(columns, rows)
  const most = RANGE * rms || 1
  for (let i = 0; i < values.length; i++) {
    const share = values[i] / most
    const [red, green, blue] = share < 0 ? BELOW : ABOVE
    image.data[4 * i] = red
    image.data[4 * i + 1] = green
    image.data[4 * i + 2] = blue
    image.data[4 * i + 3] = 255 * Math.min(1, Math.sqrt(Math.abs(share)))
  }
  return image
}
