/**
 * The branches of a text and the moments along them, as a picture that can be worked with.
 *
 * Owns drawing: a row for each branch, from where it left its parent to its end, with a button for each moment. Knows of the story only what it shows
 * and calls.
 */

import { button, el } from './element.js'
import { messageOf } from './model-desk.js'
import { plural } from './number-text.js'

/** @typedef {import('./story.js').Story} Story */
/** @typedef {import('./story.js').Branch} Branch */
/** @typedef {import('./story.js').Moment} Moment */

export class TimelineView {
  #list
  #card
  /** @type {Story | null} */
  #story = null
  /** @type {{ branch: Branch, moment: Moment } | null} that is looked at */
  #chosen = null

  /** @param {HTMLElement} list @param {HTMLElement} card for the moment that is looked at */
  constructor(list, card) {
    this.#list = list
    this.#card = card
  }

  /** @param {Story} story */
  show(story) {
    this.#story = story
    const most = Math.max(1, ...story.branches.map(endOf))
    const focus = document.activeElement?.id ?? ''
    this.#list.replaceChildren(...story.branches.map((branch) => this.#row(branch, most)))
    if (story.dropped) this.#list.append(this.#droppedRow(story.dropped.branch))
    this.#showMoment()
    if (focus.startsWith('timeline-')) this.#focus(focus)
  }

  /** The keyboard goes on where it was; where that is gone, with the branch that is written on. @param {string} id */
  #focus(id) {
    const element = document.getElementById(id)
    const current = `timeline-branch-${this.#story?.current.id}`
    if (element) element.focus()
    else document.getElementById(current)?.focus()
  }

  /** @param {Branch} branch @param {number} most positions that the whole width stands for */
  #row(branch, most) {
    const story = /** @type {Story} */ (this.#story)
    const isCurrent = branch === story.current
    const { position } = branch.session
    const line = el('span', { class: 'line' })
    line.style.setProperty('--from', String(branch.forkedAt / most))
    line.style.setProperty('--to', String(endOf(branch) / most))
    const moments = distinct(branch.moments).map((moment) => {
      const chosen = this.#chosen?.moment === moment
      const dot = el('button', {
        type: 'button',
        id: `timeline-${moment.id}`,
        class: moment.isKept ? 'dot kept' : 'dot',
        'aria-label': `${moment.label}, token ${moment.position}`,
        'aria-pressed': String(chosen),
        click: () => this.#choose(branch, moment),
      })
      dot.style.setProperty('--at', String(moment.position / most))
      return dot
    })
    const isUnread = position === 0 && branch.text !== ''
    const length = isUnread ? 'read when it is written on' : plural(position, 'token')
    const parent = branch.parent ? `, left ${branch.parent.name} at token ${branch.forkedAt}` : ''
    return el(
      'li',
      { class: isCurrent ? 'branch current' : 'branch' },
      el(
        'div',
        { class: 'row' },
        el(
          'button',
          {
            type: 'button',
            id: `timeline-branch-${branch.id}`,
            class: 'name',
            'aria-pressed': String(isCurrent),
            click: () => story.choose(branch),
          },
          branch.name,
        ),
        el('span', { class: 'hint' }, `${length}${parent}`),
        story.branches.length > 1 &&
          button('Delete', () => this.#do(story.drop(branch)), {
            id: `timeline-delete-${branch.id}`,
            class: 'small',
            'aria-label': `Delete ${branch.name}`,
          }),
      ),
      el('div', { class: 'track' }, line, ...moments),
    )
  }

  /** @param {Branch} branch */
  #droppedRow({ name }) {
    return el(
      'li',
      { class: 'dropped row' },
      el('span', { class: 'hint' }, `${name} was deleted.`),
      button('Bring it back', () => this.#story && this.#do(this.#story.bringBack()), {
        id: 'timeline-back',
        class: 'small',
      }),
    )
  }

  /** @param {Branch} branch @param {Moment} moment */
  #choose(branch, moment) {
    const isSame = this.#chosen?.moment === moment
    this.#chosen = isSame ? null : { branch, moment }
    if (this.#story) this.show(this.#story)
  }

  #showMoment() {
    const chosen = this.#chosen
    const story = this.#story
    if (!chosen || !story || !chosen.branch.moments.includes(chosen.moment)) {
      this.#chosen = null
      this.#card.replaceChildren(
        el(
          'p',
          { class: 'hint' },
          'Every dot is a state that was kept. Choose one to go back to it, or to branch off there.',
        ),
      )
      return
    }
    const { branch, moment } = chosen
    this.#card.replaceChildren(
      el('p', {}, `${branch.name}, token ${moment.position}: ${moment.label}`),
      el(
        'div',
        { class: 'row' },
        button('Go back to it', () => this.#do(story.goBack(branch, moment)), named('go')),
        button('Branch off there', () => this.#do(story.fork(branch, moment)), named('fork')),
        button('Earlier', () => this.#step(-1), named('earlier', branch.moments[0] !== moment)),
        button('Later', () => this.#step(1), named('later', branch.moments.at(-1) !== moment)),
        button('Forget it', () => this.#do(story.forget(branch, moment)), named('forget')),
      ),
    )
  }

  /** To the next moment of the same branch. @param {1 | -1} direction */
  #step(direction) {
    const { branch, moment } = /** @type {{ branch: Branch, moment: Moment }} */ (this.#chosen)
    const next = branch.moments[branch.moments.indexOf(moment) + direction]
    if (next) this.#choose(branch, next)
  }

  /** @param {Promise<unknown>} work */
  #do(work) {
    work.catch((error) => this.#card.append(el('p', { class: 'wrong' }, messageOf(error))))
  }
}

/** Of moments of one kind at one place the last one: the others would lie below it. @param {Moment[]} moments */
function distinct(moments) {
  const places = new Map(moments.map((moment) => [`${moment.position} ${moment.isKept}`, moment]))
  return [...places.values()]
}

/** @param {Branch} branch @returns {number} the last position that it has anything at */
function endOf({ session, forkedAt, moments }) {
  return Math.max(session.position, forkedAt, ...moments.map(({ position }) => position))
}

/** @param {string} name of a button, by which the keyboard finds it again @param {boolean} [isAllowed] */
function named(name, isAllowed = true) {
  return { id: `timeline-moment-${name}`, 'aria-disabled': isAllowed ? null : 'true' }
}
