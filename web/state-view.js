/**
 * The view of the state: branches, comparison, cost, pictures, and what is kept.
 *
 * Owns when each of its parts is drawn: only while it can be seen, and what changes with every token not more often than anybody can read.
 */

import { CompareView } from './compare-view.js'
import { CostView } from './cost-view.js'
import { find } from './element.js'
import { HeatMap } from './heat-map.js'
import { KeptView } from './kept-view.js'
import { messageOf } from './model-desk.js'
import { TimelineView } from './timeline-view.js'

/** @typedef {import('./story.js').Story} Story */
/** @typedef {import('./writer.js').Writer} Writer */

/** After a change so long nothing else must change before the state is looked at, ms. */
const LOOK_MS = 100
/** Between two drawings of the charts while a text goes on, ms. */
const REDRAW_MS = 400

export class StateView {
  #section = find('state')
  #timeline = new TimelineView(find('timeline'), find('moment'))
  #cost = new CostView(find('cost'))
  #picture = new HeatMap(find('picture'))
  #compare
  #kept
  /** @type {Story | null} */
  #story = null
  #drawnAt = 0
  #timer = 0
  /** The branch, where it is, that the pictures show. */
  #pictured = ''

  /** @param {Writer} writer @param {(work: Promise<unknown>) => void} guard shows what fails */
  constructor(writer, guard) {
    this.#compare = new CompareView(find('compare'), writer)
    this.#kept = new KeptView(find('kept'), () => this.#story)
    find('mark').addEventListener('click', () => this.#story && guard(this.#story.mark()))
    find('fork').addEventListener(
      'click',
      () => this.#story && guard(this.#story.fork(this.#story.current, null)),
    )
    writer.watchers.push(async (cost) => {
      this.#cost.add(cost)
      if (this.#section.hidden) return
      if (this.#picture.isDue) await this.#look()
      if (performance.now() - this.#drawnAt < REDRAW_MS) return
      this.#drawnAt = performance.now()
      await this.#showCost()
    })
    writer.addEventListener('run', () => {
      this.#changed()
      if (!this.#section.hidden) guard(this.#showCost())
    })
  }

  /** @param {Story} story another model's, or the first one */
  take(story) {
    if (this.#story !== story) story.addEventListener('change', () => this.#changed())
    this.#story = story
    this.#cost.clear()
    void this.show()
  }

  /** A text that was saved. @param {File} file */
  openFile(file) {
    return this.#kept.openFile(file)
  }

  /** The view has come into sight, or what it shows is another. */
  async show() {
    if (this.#section.hidden || !this.#story) return
    this.#pictured = ''
    this.#changed()
    await Promise.all([this.#showCost(), this.#kept.show()])
  }

  #changed() {
    const story = this.#story
    if (this.#section.hidden || !story) return
    for (const id of ['mark', 'fork']) find(id).toggleAttribute('disabled', story.isWriting)
    // What would change the branch that is written on.
    for (const id of ['timeline', 'moment', 'kept']) find(id).inert = story.isWriting
    this.#compare.show(story)
    if (story.isWriting) return
    this.#timeline.show(story)
    this.#lookSoon(story)
  }

  /** When nothing changes any more. @param {Story} story */
  #lookSoon(story) {
    clearTimeout(this.#timer)
    const { id, session } = story.current
    const place = `${id} ${session.position} ${story.model.info.identity}`
    if (place === this.#pictured) return
    this.#timer = window.setTimeout(() => {
      if (this.#section.hidden || story.isWriting) return
      this.#pictured = place
      void this.#look()
      void this.#showCost()
    }, LOOK_MS)
  }

  async #showCost() {
    const story = this.#story
    if (story) await this.#cost.show(story.model, story.current.session.position)
  }

  /** Pictures of the state as it is now. */
  async #look() {
    const story = this.#story
    if (!story) return
    try {
      await this.#picture.update(() => story.look(), story.model.config)
    } catch (error) {
      this.#picture.fail(messageOf(error))
    }
  }
}
