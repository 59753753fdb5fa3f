/**
 * States along a text, from which any earlier place is reached by reading at most `spacing` tokens again.
 *
 * Owns which positions are kept, within an amount of memory. Knows nothing about what is in a state.
 * The idea: one every 64 tokens (128, where few have room), until they take more memory than they may; then every second one goes, and the spacing doubles. So the
 * spacing grows with the length of the text, as it must when the memory does not. A state is never changed, so that forks share them.
 * What can be lost (a GPU) has backups, too: of these only the last one is kept, and none where the others are as close.
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
  /** @type {Checkpoint | null} the last one, at a multiple of `backupSpacing` */
  #backup = null
  /** Tokens between backups; Infinity: nothing can be lost. */
  backupSpacing = Number.POSITIVE_INFINITY

  /** @param {number} capacity how many states may be kept at the same time */
  constructor(capacity) {
    this.#capacity = capacity
    this.#spacing = firstSpacing(capacity)
  }

  /** @returns {number} how many states may be kept */
  get capacity() {
    return this.#capacity
  }

  /** @param {number} [capacity] @returns {Checkpoints} the same states, as far as they may be kept; what is added to one is not in the other */
  copy(capacity = this.#capacity) {
    const copy = new Checkpoints(capacity)
    copy.#spacing = Math.max(copy.#spacing, this.#spacing)
    copy.#list = this.#list.filter(({ position }) => position % copy.#spacing === 0)
    copy.#thin()
    copy.#pinned = this.#pinned
    copy.#backup = this.#backup
    copy.backupSpacing = this.backupSpacing
    return copy
  }

  /** @returns {number} most tokens between a position and the state before it; Infinity: none are kept */
  get spacing() {
    return this.#capacity === 0 ? Number.POSITIVE_INFINITY : this.#spacing
  }

  /** @returns {Uint8Array[]} all that are kept */
  get states() {
    const single = [this.#pinned, this.#backup].filter((one) => one !== null)
    return [...this.#list, ...single].map(({ state }) => state)
  }

  /** @param {number} position @returns {number} the next one after it at which a state is wanted */
  nextAfter(position) {
    return Math.min(this.#nextListed(position), this.#nextBackup(position))
  }

  /** @param {number} position */
  #nextListed(position) {
    if (this.#capacity === 0) return Number.POSITIVE_INFINITY
    const { position: last = 0 } = this.#list.at(-1) ?? {}
    return (Math.floor(Math.max(position, last) / this.#spacing) + 1) * this.#spacing
  }

  /** @param {number} position */
  #nextBackup(position) {
    const { backupSpacing } = this
    if (this.spacing <= backupSpacing) return Number.POSITIVE_INFINITY
    return (Math.floor(position / backupSpacing) + 1) * backupSpacing
  }

  /** @param {Checkpoint} checkpoint behind all others */
  add(checkpoint) {
    if (checkpoint.position !== this.#nextListed(checkpoint.position - 1)) {
      this.#backup = checkpoint
      return
    }
    this.#list.push(checkpoint)
    this.#thin()
  }

  #thin() {
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
    return [this.#pinned, this.#backup].reduce(
      (best, one) =>
        one && one.position <= position && one.position > (best?.position ?? 0) ? one : best,
      last,
    )
  }

  /** Forgets what is behind a position. @param {number} position */
  truncate(position) {
    this.#list = this.#list.filter((checkpoint) => checkpoint.position <= position)
    if (this.#list.length === 0) this.#spacing = firstSpacing(this.#capacity)
    if (this.#pinned && this.#pinned.position > position) this.#pinned = null
    if (this.#backup && this.#backup.position > position) this.#backup = null
  }
}
