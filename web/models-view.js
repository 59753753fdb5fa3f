/**
 * Opening models: those of this site, of any address, of a file; and what is kept of them on this device.
 *
 * Owns what is asked before something large, or something from elsewhere, is fetched. Does not load itself: web/model-desk.js does.
 */

import { BiMamba } from './bimamba.js'
import { ConsentCard } from './consent-card.js'
import { deviceWords } from './device-line.js'
import { button, el, field, find } from './element.js'
import { LoadingCard } from './loading-card.js'
import { isKept, messageOf } from './model-desk.js'
import { formatBytes } from './number-text.js'

/** @typedef {import('./model-desk.js').ModelDesk} ModelDesk */
/** @typedef {import('./model-desk.js').Wanted} Wanted */

/** The model that comes with the site. @type {Wanted & { address: string }} */
export const OWN_MODEL = {
  source: 'models/tales.safetensors',
  name: 'Tales (5.2 million weights)',
  address: 'models/tales.safetensors',
}

/** Files above this are asked about first, bytes. */
const LARGE_BYTES = 16e6

export class ModelsView {
  #desk
  #consent
  #onFile
  #address = el('input', {
    ...{
      id: 'model-address',
      type: 'text',
      inputmode: 'url',
      autocomplete: 'off',
      spellcheck: 'false',
    },
    placeholder: 'https://… or hf:owner/repo',
  })
  #device = choice('model-device', [
    ['wasm', 'WebAssembly'],
    ['webgpu', 'WebGPU'],
    ['auto', 'whichever is quicker'],
  ])
  #precision = choice('model-precision', [
    ['fast', 'fast'],
    ['high', 'high'],
    ['exact', 'exact'],
  ])
  #threads = choice('model-threads', [
    ['auto', 'as many as are useful'],
    ...Array.from(
      { length: navigator.hardwareConcurrency || 1 },
      (_, i) => /** @type {[string, string]} */ ([`${i + 1}`, `${i + 1}`]),
    ),
  ])
  #says = el('p', { class: 'hint', role: 'status' })
  /** What is open, and what computes it. */
  #facts = el('p', { class: 'hint' })
  #cached

  /**
   * @param {{ loading: HTMLElement, consent: HTMLElement, open: HTMLElement, cached: HTMLElement }} roots all empty
   * @param {ModelDesk} desk
   * @param {(file: File | undefined) => void} onFile  the visitor has chosen one, whatever it is
   */
  constructor({ loading, consent, open, cached }, desk, onFile) {
    this.#desk = desk
    this.#onFile = onFile
    this.#consent = new ConsentCard(consent, find('main'))
    this.#cached = cached
    new LoadingCard(loading, desk)
    const file = el('input', {
      id: 'model-file',
      type: 'file',
      accept: '.safetensors',
      change: () => this.#onFile(file.files?.[0]),
    })
    const form = el(
      'form',
      { class: 'row fields', submit: (event) => this.#submit(event) },
      field('Address or Hugging Face name', this.#address),
      el('button', { type: 'submit' }, 'Look'),
    )
    const engine = el(
      'div',
      { class: 'row fields' },
      field('Computed by', this.#device),
      field('Precision', this.#precision),
      field('Threads', this.#threads),
      button('Load again like this', () => this.#reload()),
    )
    open.append(
      el(
        'div',
        { class: 'row' },
        el(
          'span',
          { class: 'grow' },
          el('b', {}, OWN_MODEL.name),
          el('small', {}, ' comes with this page: children\u2019s stories'),
        ),
        button('Open', () => this.#open(OWN_MODEL), { 'aria-label': `Open ${OWN_MODEL.name}` }),
      ),
      form,
      field('Or a file of this device (it can be dropped anywhere here)', file),
      el('h3', {}, 'How it is computed'),
      engine,
      this.#facts,
      this.#says,
    )
    desk.addEventListener('model', () => void this.show())
  }

  /** Shows what is kept on this device. */
  async show() {
    const [models, room] = await Promise.all([BiMamba.cache.list().catch(() => []), roomHere()])
    const { model: current, opened } = this.#desk
    const identity = current?.info.identity
    if (current && opened) {
      const { info } = current
      this.#facts.textContent = `${opened.name}: ${formatBytes(info.fileBytes)}, weights in ${info.projections}, from ${info.source}, licence ${info.licence}. ${deviceWords(info).long}`
    }
    const rows = models.map((model) => {
      const [url = ''] = model.urls
      const name = url === '' ? model.identity.slice(0, 12) : url
      const size =
        model.complete || model.fileBytes === null
          ? formatBytes(model.storedBytes)
          : `${formatBytes(model.storedBytes)} of ${formatBytes(model.fileBytes)}`
      return el(
        'li',
        { class: 'row' },
        el(
          'span',
          { class: 'grow address' },
          name,
          el('small', {}, ` ${size}${model.identity === identity ? ', in use' : ''}`),
        ),
        url !== '' &&
          button('Open', () => this.#openKept(model.complete, url), {
            'aria-label': `Open ${name}`,
          }),
        button('Delete', () => this.#delete(model.identity), { 'aria-label': `Delete ${name}` }),
      )
    })
    const free =
      room.quotaBytes === null
        ? ''
        : ` The browser gives this site up to ${formatBytes(room.quotaBytes)}; ${formatBytes(room.usedBytes ?? 0)} are used.`
    const lasting = room.persisted
      ? ' It keeps them until you delete them.'
      : ' It may delete them when the disk is full.'
    this.#cached.replaceChildren(
      rows.length > 0
        ? el('ul', { class: 'list' }, ...rows)
        : el('p', { class: 'hint' }, 'Nothing yet.'),
      el('p', { class: 'hint' }, `${free}${lasting}`),
    )
  }

  /** @param {string} address @returns {Promise<boolean>} of this site, or kept on this device: nobody has to be asked */
  async isAtHand(address) {
    const url = URL.canParse(address, document.baseURI) ? urlOf(address) : null
    return url?.origin === location.origin || isKept(address)
  }

  /**
   * A model by an address that the visitor was led to: one at hand at once, another only after a question.
   * @param {string} address
   * @returns {Promise<boolean>} false: something about it is to be seen in this view
   */
  async openLinked(address) {
    try {
      const host = urlOf(address)?.host ?? 'huggingface.co'
      const mayAsk =
        (await this.isAtHand(address)) || (await this.#consent.askOrigin(address, host))
      return !mayAsk || (await this.#look(address))
    } catch (error) {
      this.#say(messageOf(error), true)
      return false
    }
  }

  /** @param {File} file of this device */
  open(file) {
    return this.#open({ source: file, name: file.name, address: null })
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault()
    const address = this.#address.value.trim()
    if (address !== '') this.#look(address).catch((error) => this.#say(messageOf(error), true))
  }

  /** Reads what it is, asks if it is large, and opens it. @param {string} address @returns {Promise<boolean>} false: it has failed, or was paused */
  async #look(address) {
    this.#say(`Looking at ${address}`)
    const found = await BiMamba.inspect(address)
    this.#say('')
    const kept = (await BiMamba.cache.list().catch(() => [])).find(
      ({ identity }) => identity === found.identity,
    )
    const missing = found.fileBytes - (kept?.storedBytes ?? 0)
    if (missing > LARGE_BYTES) {
      const room = await roomHere()
      if (!(await this.#consent.askSize(address, found, missing, room))) return true
    }
    return this.#open({ source: address, name: address, address })
  }

  /** @param {Wanted} wanted */
  async #open(wanted) {
    this.#say('')
    return this.#desk.open(wanted)
  }

  /** What is here already is opened; of what is missing it is told first. @param {boolean} isComplete @param {string} url */
  #openKept(isComplete, url) {
    if (isComplete) void this.#open({ source: url, name: url, address: url })
    else this.#look(url).catch((error) => this.#say(messageOf(error), true))
  }

  #reload() {
    this.#desk.engine = {
      device: /** @type {'wasm' | 'webgpu' | 'auto'} */ (this.#device.value),
      precision: /** @type {'fast' | 'high' | 'exact'} */ (this.#precision.value),
      threads: this.#threads.value === 'auto' ? 'auto' : Number(this.#threads.value),
    }
    const { opened } = this.#desk
    if (opened) void this.#desk.open(opened)
  }

  /** @param {string} identity */
  async #delete(identity) {
    try {
      const freed = await BiMamba.cache.delete(identity)
      await this.show()
      this.#say(`${formatBytes(freed)} are free again.`)
    } catch (error) {
      this.#say(messageOf(error), true)
    }
  }

  /** @param {string} text @param {boolean} [isWrong] */
  #say(text, isWrong = false) {
    this.#says.textContent = text
    this.#says.className = isWrong ? 'wrong' : 'hint'
  }
}

/** @param {string} address @returns {URL | null} null: a name at Hugging Face */
function urlOf(address) {
  return address.startsWith('hf:') ? null : new URL(address, document.baseURI)
}

/** A browser that does not say is no reason to show nothing. */
function roomHere() {
  return BiMamba.cache.room().catch(() => ({ usedBytes: null, quotaBytes: null, persisted: null }))
}

/** @param {string} id @param {[string, string][]} options value and words */
function choice(id, options) {
  return el('select', { id }, ...options.map(([value, words]) => el('option', { value }, words)))
}
