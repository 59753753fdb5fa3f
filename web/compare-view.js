/**
 * Two branches side by side.
 *
 * Owns which two are shown, and where they part: what both have is dimmed. They can go on together, which reads the weights once for both.
 */

import { allow, button, el } from './element.js'

/** @typedef {import('./story.js').Story} Story */
/** @typedef {import('./story.js').Branch} Branch */
/** @typedef {import('./writer.js').Writer} Writer */

/** Of what both have, only the end is shown, so many characters. */
const SHARED_TAIL = 300

export class CompareView {
  #root
  #writer
  #selects
  #panes
  #both
  /** @type {Story | null} */
  #story = null
  /** @type {Map<number, Text>} what a branch goes on with now, by its id */
  #growing = new Map()
  /** Branches that were there when it was last drawn, by their ids. @type {Set<number>} */
  #known = new Set()

  /** @param {HTMLElement} root empty @param {Writer} writer */
  constructor(root, writer) {
    this.#root = root
    this.#writer = writer
    this.#selects = ['Left', 'Right'].map((side) =>
      el('select', { 'aria-label': `${side} branch`, change: () => this.#fill() }),
    )
    this.#panes = this.#selects.map(() =>
      el('div', { class: 'compared', tabindex: 0, role: 'region' }),
    )
    this.#both = button('Continue both', () => this.#continueBoth())
  }

  /** @param {Story} story */
  show(story) {
    this.#story = story
    if (story.branches.length < 2) {
      this.#root.replaceChildren(
        el(
          'p',
          { class: 'hint' },
          'There is one branch so far. Branch off, let it go on, and compare.',
        ),
      )
      return
    }
    const chosen = this.#choose(story)
    for (const [side, select] of this.#selects.entries()) {
      const options = story.branches.map(({ id, name }) => el('option', { value: id }, name))
      select.replaceChildren(...options)
      select.value = String(chosen[side]?.id)
    }
    if (!this.#both.isConnected) {
      const columns = this.#selects.map((select, i) =>
        el('div', { class: 'column' }, select, /** @type {HTMLElement} */ (this.#panes[i])),
      )
      this.#root.replaceChildren(el('div', { class: 'columns' }, ...columns), this.#both)
    }
    allow(this.#both, !story.isWriting)
    if (!this.#writer.isRunning) this.#fill()
  }

  /**
   * A branch that is new beside the one that it left; else those that were chosen, or the last two.
   * @param {Story} story
   */
  #choose({ branches }) {
    const fresh = branches.find(({ id, parent }) => parent && !this.#known.has(id))
    this.#known = new Set(branches.map(({ id }) => id))
    if (fresh) return [fresh.parent, fresh]
    return this.#selects.map(
      ({ value }, side) => branches.find(({ id }) => String(id) === value) ?? branches.at(side - 2),
    )
  }

  /** @returns {Branch[]} left and right */
  #chosen() {
    const { branches = [] } = this.#story ?? {}
    return this.#selects.flatMap(
      ({ value }) => branches.find(({ id }) => String(id) === value) ?? [],
    )
  }

  #fill() {
    const chosen = this.#chosen()
    const [left = '', right = ''] = chosen.map(({ text }) => text)
    const shared = sharedLength(left, right)
    this.#growing.clear()
    for (const [i, branch] of chosen.entries()) {
      const before = branch.text.slice(0, shared)
      const end = before.slice(-SHARED_TAIL)
      const tail = end === before ? before : `…${end.replace(/^\S*/, '')}`
      const own = document.createTextNode(branch.text.slice(shared))
      this.#growing.set(branch.id, own)
      const pane = this.#panes[i]
      pane?.replaceChildren(el('span', { class: 'shared' }, tail), own)
      pane?.setAttribute('aria-label', branch.name)
    }
  }

  #continueBoth() {
    const [left, right] = this.#chosen()
    const story = this.#story
    if (!story || !left || !right || left === right) return
    this.#fill()
    void this.#writer.runTogether(story, [left, right], (branch, text) => {
      this.#growing.get(branch.id)?.appendData(text)
    })
  }
}

/** @param {string} a @param {string} b @returns {number} characters, whole ones, that both begin with */
function sharedLength(a, b) {
  let length = 0
  while (length < a.length && length < b.length && a[length] === b[length]) length++
  // Not between the two halves of a character.
  return /[\ud800-\udbff]$/.test(a.slice(0, length)) ? length - 1 : length
}
