/**
 * States along a text, from which any earlier place is reached by reading at most `spacing` tokens again.
 *
 * Owns which positions are kept, within an amount of memory. Knows nothing about what is in a state.
 * The idea: one every 64 tokens (128, where few have room), until they take more memory than they may; then every second one goes, and the spacing doubles. So the
 * spacing grows with the length of the text, as it must when the memory does not. A state is never changed, so that forks share them.
 */

/** @typedef {{ position: number, state: Uint8Array }} Checkpoint */

/** @param {number} capacity @returns {number} tokens between the first ones: a large state takes long to copy */
const firstSpacing = (capacity) => (capacity < 16 ? 128 : 64)

export class Checkpoints {
  #capacity
  /** @type {Checkpoint[]} by rising position, all multiples of the spacing */
  #list = []
  #spacing
  /** @type {Checkpoint | null} kept beside the others, at any position */
  #pinned = null

  /** @param {number} capacity how many states may be kept at the same time */
  constructor(capacity) {
    this.#capacity = capacity
    this.#spacing = firstSpacing(capacity)
  }

  /** @returns {Checkpoints} the same states; what is added to one is not in the other */
  copy() {
    const copy = new Checkpoints(this.#capacity)
    copy.#list = [...this.#list]
    copy.#spacing = this.#spacing
    copy.#pinned = this.#pinned
    return copy
  }

  /** @returns {number} most tokens between a position and the state before it; Infinity: none are kept */
  get spacing() {
    return this.#capacity === 0 ? Number.POSITIVE_INFINITY : this.#spacing
  }

  /** @returns {Uint8Array[]} all that are kept */
  get states() {
    return [...this.#list, ...(this.#pinned ? [this.#pinned] : [])].map(({ state }) => state)
  }

  /** @param {number} position @returns {number} the next one after it at which a state is wanted */
  nextAfter(position) {
    if (this.#capacity === 0) return Number.POSITIVE_INFINITY
    const { position: last = 0 } = this.#list.at(-1) ?? {}
    return (Math.floor(Math.max(position, last) / this.#spacing) + 1) * this.#spacing
  }

  /** @param {Checkpoint} checkpoint behind all others */
  add(checkpoint) {
    this.#list.push(checkpoint)
    while (this.#list.length > this.#capacity) {
      this.#spacing *= 2
      this.#list = this.#list.filter(({ position }) => position % this.#spacing === 0)
    }
  }

  /** Keeps a state where a text was taken up, so that nobody has to read what is before it. @param {Checkpoint} checkpoint */
  pin(checkpoint) {
    this.#pinned = checkpoint
  }

  /** @param {number} position @returns {Checkpoint | null} the last one that is not behind it */
  before(position) {
    const last = this.#list.findLast((checkpoint) => checkpoint.position <= position) ?? null
    const pinned = this.#pinned
    if (!pinned || pinned.position > position) return last
    return last && last.position > pinned.position ? last : pinned
  }

  /** Forgets what is behind a position. @param {number} position */
  truncate(position) {
    this.#list = this.#list.filter((checkpoint) => checkpoint.position <= position)
    if (this.#list.length === 0) this.#spacing = firstSpacing(this.#capacity)
    if (this.#pinned && this.#pinned.position > position) this.#pinned = null
  }
}
