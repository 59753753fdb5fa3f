/**
 * Guesses how a text goes on from what it has said before.
 *
 * Owns the search for where the end of the text was before, and how long the two have been the same. Costs some ten steps a token, whether or not anybody asks:
 * so it is known how well it would have guessed before anything is staked on it. Knows no model.
 * The idea: prompt lookup (A. Saxena, 2023; J. Yang et al., arXiv 2304.04487): texts that repeat go on as they did.
 */

/** So many tokens must be the same for a place to be found. */
const GRAM = 4
/** Farther back than this nobody looks. */
const MOST_RUN = 64

export class TextDrafter {
  #ids
  /** The place behind each GRAM tokens, the last one. @type {Map<number, number>} */
  #places = new Map()
  /** Ids that were looked at. */
  #known = 0
  /** Where the text was before as it is now, and goes on; 0: nowhere. */
  #at = 0
  /** Tokens before both places that are the same; what the last ones would have been guessed. */
  run = 0

  /** @param {import('./id-list.js').IdList} ids of the text, which grows */
  constructor(ids) {
    this.#ids = ids
    this.follow()
  }

  /** Looks at what has come since. */
  follow() {
    const ids = this.#ids
    while (this.#known < ids.length) {
      const id = ids.at(this.#known)
      if (this.#at > 0 && ids.at(this.#at) === id) {
        this.#at++
        this.run++
      } else {
        this.#at = 0
        this.run = 0
      }
      this.#known++
      this.#note()
    }
  }

  /** Remembers the end of what is known, and looks for it where nothing is followed. */
  #note() {
    const end = this.#known
    if (end < GRAM) return
    const key = this.#keyAt(end)
    const before = this.#places.get(key)
    this.#places.set(key, end)
    if (this.#at > 0 || before === undefined) return
    const run = this.#same(before, end)
    if (run < GRAM) return // another four tokens with the same key
    this.#at = before
    this.run = run
  }

  /** @param {number} end @returns {number} of the GRAM ids before it */
  #keyAt(end) {
    let key = 0
    for (let i = end - GRAM; i < end; i++) key = (Math.imul(key, 0x9e3779b1) ^ this.#ids.at(i)) | 0
    return key
  }

  /** @param {number} a @param {number} b places @returns {number} tokens before both that are the same */
  #same(a, b) {
    let run = 0
    while (run < MOST_RUN && run < a && this.#ids.at(a - 1 - run) === this.#ids.at(b - 1 - run))
      run++
    return run
  }

  /** All is known at once. */
  async read() {}

  lost() {}

  close() {}

  /** @param {number} count at most @returns {number[]} what may come next; a text that goes round goes on going round */
  propose(count) {
    if (this.#at === 0) return []
    const ids = this.#ids
    /** @type {number[]} */
    const drafted = []
    for (let i = this.#at; drafted.length < count; i++)
      drafted.push(i < ids.length ? ids.at(i) : Number(drafted[i - ids.length]))
    return drafted
  }
}
