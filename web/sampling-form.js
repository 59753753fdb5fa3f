/**
 * The settings of sampling, as a form.
 *
 * Owns their defaults for this app, keeping them on the device, and going back to them. The package checks the values and says what is wrong.
 */

import { button, el } from './element.js'

/** @typedef {import('./story.js').Options} Options */

/**
 * @typedef {object} Setting
 * @property {string} name      of the package's option; `pace` is of this app
 * @property {string} label
 * @property {number | null} preset  null: empty
 * @property {number} step
 * @property {string} help
 */

/** Tokens; what an empty field stands for, too. */
const PRESET_LENGTH = 256

/** A small model tells a better story when it takes fewer risks than the package's defaults. @type {readonly Setting[]} */
const SETTINGS = [
  { name: 'maxTokens', label: 'Length', preset: PRESET_LENGTH, step: 1, help: 'tokens at most' },
  {
    name: 'temperature',
    label: 'Temperature',
    preset: 0.6,
    step: 0.05,
    help: '0: always the likeliest',
  },
  {
    name: 'topP',
    label: 'Top-p',
    preset: 0.95,
    step: 0.01,
    help: 'likeliest, up to this probability',
  },
  {
    name: 'topK',
    label: 'Top-k',
    preset: 40,
    step: 1,
    help: 'so many of the likeliest; 0: all',
  },
  {
    name: 'minP',
    label: 'Min-p',
    preset: 0,
    step: 0.01,
    help: 'no less than this share of the best',
  },
  {
    name: 'repetitionPenalty',
    label: 'Repetition',
    preset: 1,
    step: 0.05,
    help: 'above 1: fewer repetitions',
  },
  { name: 'seed', label: 'Seed', preset: null, step: 1, help: 'empty: another text each time' },
  {
    name: 'pace',
    label: 'Pace',
    preset: 0,
    step: 1,
    help: 'tokens a second at most; 0: any',
  },
]

/** Whether another text follows one that the model has ended. */
const ENDLESS = 'isEndless'
const KEY = 'bimamba.sampling'
/** From here on the settings are open from the beginning, px. */
const WIDE = '(min-width: 60rem)'

export class SamplingForm {
  /** @type {Map<string, HTMLInputElement>} */
  #inputs = new Map()
  #endless = el('input', { id: 'set-endless', type: 'checkbox' })

  /** @param {HTMLFormElement} form empty */
  constructor(form) {
    const kept = readKept()
    this.#endless.checked = kept[ENDLESS] === true
    const rows = SETTINGS.map((setting) => this.#row(setting, kept[setting.name]))
    const endless = el('label', { class: 'check' }, this.#endless, 'Go on after an ending')
    const reset = button('Reset', () => this.reset())
    const details = el('details', {}, el('summary', {}, 'Settings'), ...rows, endless, reset)
    details.open = matchMedia(WIDE).matches
    form.append(details)
    form.addEventListener('submit', (event) => event.preventDefault())
    form.addEventListener('change', () => this.#keep())
  }

  /** @param {Setting} setting @param {unknown} kept */
  #row({ name, label, preset, step, help }, kept) {
    const value = typeof kept === 'string' ? kept : (preset ?? '')
    const id = `set-${name}`
    const input = el('input', {
      ...{ id, type: 'number', inputmode: 'decimal', step: 'any', value },
      ...{ 'aria-describedby': `${id}-help`, autocomplete: 'off', 'data-step': step },
    })
    input.addEventListener('keydown', (event) => stepBy(event, input, step))
    this.#inputs.set(name, input)
    return el(
      'div',
      { class: 'setting' },
      el('label', { for: id }, label),
      input,
      el('small', { id: `${id}-help` }, help),
    )
  }

  /** @returns {{ options: Options, pace: number, isSeedGiven: boolean }} the seed is drawn where none is given */
  read() {
    /** @type {Record<string, number>} */
    const values = {}
    for (const [name, { value, valueAsNumber }] of this.#inputs) {
      if (value !== '') values[name] = valueAsNumber
    }
    const { pace = 0, seed, maxTokens = PRESET_LENGTH, ...rest } = values
    const drawn = Number(crypto.getRandomValues(new Uint32Array(1))[0])
    const options = { ...rest, maxTokens, seed: seed ?? drawn, isEndless: this.#endless.checked }
    return { options, pace, isSeedGiven: seed !== undefined }
  }

  reset() {
    for (const { name, preset } of SETTINGS) {
      const input = this.#inputs.get(name)
      if (input) input.value = String(preset ?? '')
    }
    this.#endless.checked = false
    this.#keep()
  }

  #keep() {
    const values = Object.fromEntries(
      Array.from(this.#inputs, ([name, { value }]) => [name, value]),
    )
    keep({ ...values, [ENDLESS]: this.#endless.checked })
  }
}

/** Arrow keys go by the setting's own step, from wherever the value is. @param {KeyboardEvent} event @param {HTMLInputElement} input @param {number} step */
function stepBy(event, input, step) {
  const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key]
  if (!direction) return
  event.preventDefault()
  const value = (Number.isNaN(input.valueAsNumber) ? 0 : input.valueAsNumber) + direction * step
  input.value = String(Number(Math.max(0, value).toPrecision(10)))
  input.dispatchEvent(new Event('change', { bubbles: true }))
}

/** @returns {Record<string, unknown>} */
function readKept() {
  try {
    return Object(JSON.parse(localStorage.getItem(KEY) ?? '{}'))
  } catch {
    return {} // no storage here, or something else is kept under that name
  }
}

/** @param {Record<string, string | boolean>} values */
function keep(values) {
  try {
    localStorage.setItem(KEY, JSON.stringify(values))
  } catch {
    // No storage here: the settings last as long as the page.
  }
}
