/**
 * The model that is open, and the one that is on its way.
 *
 * Owns loading: one at a time, which can be paused and taken up again, since what has arrived is kept on the device. The old model stays until the new
 * one is there. Knows nothing of pages: it tells what changed by events, `model` and `loading`.
 */

import { BiMamba } from './bimamba.js'

/** @typedef {import('../js/index.js').ModelSource} ModelSource */
/** @typedef {import('../js/index.js').Progress} Progress */

/**
 * @typedef {object} Wanted
 * @property {ModelSource} source
 * @property {string} name      for people
 * @property {string | null} address  that a later visit can open again; null: a file of the user's
 */

/** How a model is computed. @typedef {{ device: 'wasm' | 'webgpu' | 'auto', precision: 'fast' | 'high' | 'exact', threads: number | 'auto' }} Engine */

/**
 * @typedef {object} Loading
 * @property {Wanted} wanted
 * @property {Progress | null} progress  null: nothing is known yet
 * @property {'runs' | 'paused' | 'failed'} state
 * @property {string} message   why it failed
 */

export class ModelDesk extends EventTarget {
  /** @type {BiMamba | null} */
  model = null
  /** @type {Wanted | null} of the model */
  opened = null
  /** @type {Loading | null} */
  loading = null
  /** @type {Engine} for the next load */
  engine = { device: 'wasm', precision: 'fast', threads: 'auto' }
  /** @type {AbortController | null} */
  #running = null

  /**
   * Loads a model; what is loading is given up.
   * @param {Wanted} wanted
   * @param {string} [prompt] read while it loads
   * @returns {Promise<boolean>} whether it is there now
   */
  async open(wanted, prompt = '') {
    this.#running?.abort()
    const running = new AbortController()
    this.#running = running
    this.loading = { wanted, progress: null, state: 'runs', message: '' }
    this.#tell('loading')
    try {
      const model = await this.#load(wanted, prompt, running.signal)
      const old = this.model
      this.model = model
      this.opened = wanted
      this.loading = null
      this.#tell('loading')
      this.#tell('model')
      await old?.close()
      return true
    } catch (error) {
      // Paused, cancelled, or another one is loading now.
      if (running.signal.aborted) return false
      const { progress = null } = this.loading ?? {}
      this.loading = { wanted, progress, state: 'failed', message: messageOf(error) }
      this.#tell('loading')
      return false
    } finally {
      if (this.#running === running) this.#running = null
    }
  }

  /** @param {Wanted} wanted @param {string} prompt @param {AbortSignal} signal */
  #load({ source }, prompt, signal) {
    const { device, precision, threads } = this.engine
    /** @param {Progress} progress */
    const onProgress = (progress) => {
      if (signal.aborted || !this.loading) return
      this.loading = { ...this.loading, progress }
      this.#tell('loading')
    }
    const early = device === 'wasm' && prompt !== '' ? { prompt } : {}
    return BiMamba.load(source, { device, precision, threads, onProgress, signal, ...early })
  }

  /** Stops the download; what has arrived stays. */
  pause() {
    if (this.loading?.state !== 'runs') return
    this.#running?.abort()
    this.loading = { ...this.loading, state: 'paused' }
    this.#tell('loading')
  }

  /** Goes on where it was paused, or failed. @returns {Promise<boolean>} */
  async resume() {
    if (!this.loading || this.loading.state === 'runs') return false
    return this.open(this.loading.wanted)
  }

  /** Gives it up. What has arrived stays on the device until it is deleted. */
  cancel() {
    this.#running?.abort()
    this.loading = null
    this.#tell('loading')
  }

  /** @param {'model' | 'loading'} what */
  #tell(what) {
    this.dispatchEvent(new Event(what))
  }
}

/** @param {unknown} error @returns {string} for people */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error)
}

/** @param {string} address of a model @returns {Promise<boolean>} all of it is on this device: it opens without a request */
export async function isKept(address) {
  try {
    const { identity } = await BiMamba.inspect(address, { cache: 'only' })
    const models = await BiMamba.cache.list()
    return models.some((model) => model.identity === identity && model.complete)
  } catch {
    return false
  }
}
