/**
 * How far a model is on its way.
 *
 * Owns the bar, its words, and the buttons to pause, go on and give up. Knows of the desk only its loading.
 */

import { button, el, swap } from './element.js'
import { formatBytes, formatTime } from './number-text.js'

/** @typedef {import('./model-desk.js').ModelDesk} ModelDesk */
/** @typedef {import('./model-desk.js').Loading} Loading */

/** @type {Record<import('../js/index.js').Progress['phase'], string>} */
const PHASES = {
  connect: 'asking the server',
  wait: 'waiting for another tab that is downloading it',
  load: 'loading and checking',
  start: 'starting',
  ready: 'ready',
}

export class LoadingCard {
  #root
  #desk
  #title = el('h2', { id: 'loading-title' })
  #bar = el('progress', { 'aria-labelledby': 'loading-title', max: 1, value: 0 })
  #words = el('p', { class: 'hint' })
  #pause = button('Pause', () => this.#desk.pause())
  #resume = button('Go on', () => void this.#desk.resume())
  #card = el(
    'section',
    { class: 'panel', 'aria-labelledby': 'loading-title' },
    this.#title,
    this.#bar,
    this.#words,
    el(
      'div',
      { class: 'row' },
      this.#pause,
      this.#resume,
      button('Give up', () => this.#desk.cancel()),
    ),
  )

  /** @param {HTMLElement} root empty @param {ModelDesk} desk */
  constructor(root, desk) {
    this.#root = root
    this.#desk = desk
    desk.addEventListener('loading', () => this.#show())
  }

  #show() {
    const { loading } = this.#desk
    if (!loading) {
      this.#card.remove()
      return
    }
    const { wanted, progress, state, message } = loading
    const total = progress?.totalBytes
    this.#title.textContent = wanted.name
    if (total) this.#bar.value = progress.loadedBytes / total
    else this.#bar.removeAttribute('value')
    this.#words.textContent = state === 'failed' ? message : loadingWords(loading)
    this.#words.className = state === 'failed' ? 'wrong' : 'hint'
    if (state === 'runs') swap(this.#pause, this.#resume)
    else swap(this.#resume, this.#pause)
    if (!this.#card.isConnected) this.#root.append(this.#card)
  }
}

/** @param {Loading} loading @returns {string} phase, bytes, speed, time left */
export function loadingWords({ progress, state }) {
  if (!progress) return state === 'paused' ? 'Paused' : 'Beginning'
  const { phase, loadedBytes, totalBytes, cachedBytes, bytesPerSecond, etaMs } = progress
  const parts = [state === 'paused' ? 'paused; what has arrived is kept' : PHASES[phase]]
  if (totalBytes !== null) parts.push(`${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`)
  if (cachedBytes > 0) parts.push(`${formatBytes(cachedBytes)} from this device`)
  const isFetching = state === 'runs' && phase === 'load' && cachedBytes < loadedBytes
  if (isFetching && bytesPerSecond) parts.push(`${formatBytes(bytesPerSecond)}/s`)
  if (isFetching && etaMs) parts.push(`${formatTime(etaMs)} left`)
  return parts.join(', ')
}
