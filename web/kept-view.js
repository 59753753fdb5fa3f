/**
 * Texts with their states as files: on this device, and to carry elsewhere.
 *
 * Owns the list of what is kept here, and both ways of a file. Knows of a story only saving and opening.
 */

import { SessionStore } from './bimamba.js'
import { button, el, field } from './element.js'
import { messageOf } from './model-desk.js'
import { formatBytes } from './number-text.js'

/** @typedef {import('./story.js').Story} Story */

/** What drafts are kept under; they are no affair of this list. */
const DRAFT = /^bimamba\.draft-/
const EXTENSION = '.session.safetensors'
/** Revoked at once, the address would be gone before the download begins. */
const REVOKE_MS = 60000

/** How the state is kept: value, words. @type {readonly (readonly ['own' | 'i16' | 'i8', string])[]} */
const FORMS = [
  ['own', 'as it is: goes on to the bit'],
  ['i16', '16 bits: half the size'],
  ['i8', '8 bits: a quarter'],
]

export class KeptView {
  #story
  #store = new SessionStore()
  #name = el('input', {
    id: 'kept-name',
    type: 'text',
    value: 'My story',
    maxlength: 100,
    autocomplete: 'off',
  })
  #form = el(
    'select',
    { id: 'kept-form' },
    ...FORMS.map(([value, words]) => el('option', { value }, words)),
  )
  #list = el('ul', { class: 'list' })
  #says = el('p', { class: 'hint', role: 'status' })

  /** @param {HTMLElement} root empty @param {() => Story | null} story the one that is open */
  constructor(root, story) {
    this.#story = story
    const file = el('input', {
      id: 'kept-file',
      type: 'file',
      accept: '.safetensors',
      change: () => {
        const chosen = file.files?.[0]
        if (chosen) void this.openFile(chosen)
        file.value = ''
      },
    })
    root.append(
      el('div', { class: 'row fields' }, field('Name', this.#name), field('State', this.#form)),
      el(
        'div',
        { class: 'row' },
        button('Save as a file', () => this.#do(() => this.#download())),
        button('Keep on this device', () => this.#do(() => this.#keep())),
      ),
      field('Open a file', file),
      this.#says,
      this.#list,
    )
  }

  /** Shows what is kept. */
  async show() {
    const kept = (await this.#store.list().catch(() => [])).filter(({ name }) => !DRAFT.test(name))
    this.#list.replaceChildren(
      ...kept.map(({ name, bytes, savedAt }) =>
        el(
          'li',
          { class: 'row' },
          el(
            'span',
            { class: 'grow' },
            el('b', {}, name),
            el('small', {}, ` ${formatBytes(bytes)}, ${savedAt.toLocaleString()}`),
          ),
          button(
            'Open',
            () =>
              this.#do(() =>
                this.#open((model, options) => this.#store.load(name, model, options), name),
              ),
            {
              'aria-label': `Open ${name}`,
            },
          ),
          button('Delete', () => this.#do(() => this.#delete(name)), {
            'aria-label': `Delete ${name}`,
          }),
        ),
      ),
    )
  }

  async #bytes() {
    const bytes = await this.#story()?.save(/** @type {'own' | 'i16' | 'i8'} */ (this.#form.value))
    if (!bytes) throw new Error('There is no text yet: the model is still loading.')
    return bytes
  }

  async #download() {
    const bytes = await this.#bytes()
    const href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }))
    el('a', { href, download: `${this.#name.value || 'story'}${EXTENSION}` }).click()
    setTimeout(() => URL.revokeObjectURL(href), REVOKE_MS)
    return `${formatBytes(bytes.length)}: the text and its state. Any copy of this app with the same model goes on from it.`
  }

  async #keep() {
    const bytes = await this.#bytes()
    const names = new Set((await this.#store.list()).map(({ name }) => name))
    const wanted = this.#name.value || 'My story'
    let name = wanted
    for (let number = 2; names.has(name); number++) name = `${wanted} ${number}`
    await this.#store.save(name, bytes)
    await this.show()
    return `Kept as ${name}: ${formatBytes(bytes.length)}.`
  }

  /** @param {File} file that a text was saved as */
  openFile(file) {
    const name = file.name.replace(EXTENSION, '')
    return this.#do(() => this.#open((model, options) => model.loadSession(file, options), name))
  }

  /** @param {Parameters<Story['open']>[0]} load @param {string} name */
  async #open(load, name) {
    const story = this.#story()
    if (!story) throw new Error('The model is still loading.')
    await story.open(load, name)
    return `${name} is open, as a branch of its own.`
  }

  /** @param {string} name */
  async #delete(name) {
    await this.#store.delete(name)
    await this.show()
    return `${name} is deleted.`
  }

  /** @param {() => Promise<string>} work gives what to say */
  #do(work) {
    return work().then(
      (text) => this.#say(text, 'hint'),
      (error) => this.#say(messageOf(error), 'wrong'),
    )
  }

  /** @param {string} text @param {string} className */
  #say(text, className) {
    this.#says.textContent = text
    this.#says.className = className
  }
}
