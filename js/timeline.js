/**
 * One text and the state that has read it: what a session is, beside the engine.
 *
 * Owns the token ids, the core's session and which of the ids that has read, the checkpoints, and what the next generation continues: the
 * random state and the end of the text. Does not know where ids come from or who samples.
 * The idea: the ids are the truth. The core's state is made to follow them (`settle`): it reads what is new, and where ids were taken
 * away it goes back to the checkpoint before. So an abort, a rewind or an edit only changes the list.
 */

import { Checkpoints } from './checkpoints.js'
import { IdList } from './id-list.js'
import { Pace, turn } from './pace.js'
import { NO_TAIL } from './text-stream.js'

/** @typedef {import('./core-model.js').CoreModel} CoreModel */
/** What computes, in WebAssembly or on the GPU. @typedef {import('./core-session.js').CoreSession | import('./gpu/gpu-session.js').GpuSession} AnySession */
/** @typedef {import('./text-stream.js').Tail} Tail */

/** @typedef {{ precision: import('./core.js').Precision, state: import('./core.js').StateType }} StateOptions */

/**
 * What was said in a chat.
 *
 * @typedef {object} Turn
 * @property {'system' | 'user' | 'assistant'} role
 * @property {string} content
 * @property {number} start  position before it
 * @property {number} end    position after it
 */

/**
 * All that a timeline consists of, the engine's memory apart. Nothing in it is ever changed.
 *
 * @typedef {object} Snapshot
 * @property {Uint8Array} state   of the core, after all ids
 * @property {Uint32Array} ids
 * @property {Checkpoints} checkpoints
 * @property {number} seed
 * @property {Uint8Array | null} random  the sampler's state; null: nothing was drawn since the seed
 * @property {Tail} tail
 * @property {readonly Turn[]} turns
 */

export class Timeline {
  #session
  #ids = new IdList()
  #checkpoints
  /** A state that is on its way here from a GPU, while tokens go on. */
  #arriving = Promise.resolve()
  /** Where that is in the text; null: none, or it is of another text now. @type {number | null} */
  #awaited = null
  /** The core's state is not that of the first ids. */
  #isStale = false
  /** @type {Readonly<Tail>} of the text that was generated since ids were last given */
  tail = NO_TAIL
  /** @type {readonly Turn[]} */
  turns = []
  /** @type {Uint8Array | null} of the sampler, after what was drawn */
  random = null

  /**
   * @param {AnySession} session at position 0
   * @param {{ seed: number, checkpointBytes: number }} options checkpointBytes: most memory for checkpoints
   */
  constructor(session, { seed, checkpointBytes }) {
    this.#session = session
    this.#checkpoints = new Checkpoints(Math.floor(checkpointBytes / session.stateBytes))
    this.#checkpoints.backupSpacing = session.backupTokens
    /** Where the random numbers begin. */
    this.seed = seed
  }

  /** What computes. Only what has been settled is in it. */
  get session() {
    return this.#session
  }

  /** What computed is gone: another one, of the same model, reads what it must. @param {AnySession} session at position 0 */
  moveTo(session) {
    this.#session = session
    this.#checkpoints.backupSpacing = session.backupTokens
    this.#isStale = true
  }

  /** @returns {boolean} whether the core's state is of another text, so that it must read again */
  get isStale() {
    return this.#isStale
  }

  /** @returns {number} tokens of the text */
  get position() {
    return this.#ids.length
  }

  get ids() {
    return this.#ids
  }

  /** @returns {number} most tokens that a rewind reads again */
  get spacing() {
    return this.#checkpoints.spacing
  }

  /** @returns {number} tokens that the core can read before a checkpoint is due */
  get room() {
    const { position } = this.#session
    return this.#checkpoints.nextAfter(position) - position
  }

  /** @returns {Uint8Array[]} its checkpoints; forks share them */
  get states() {
    return this.#checkpoints.states
  }

  /** @returns {boolean} whether the core has read all but the last token, which was generated */
  get isBehindByOne() {
    return !this.#isStale && this.#session.position === this.#ids.length - 1
  }

  /**
   * Another text from the beginning.
   * @param {ArrayLike<number>} ids
   * @param {number} [read] how many of them the core has read; nothing was done with it since
   */
  restart(ids, read = 0) {
    this.truncate(0)
    this.#ids.push(ids)
    if (read > 0) this.#isStale = false
    else this.#recover()
  }

  /** One more token, which the core will read when it is settled. @param {number} id */
  push(id) {
    this.#ids.push([id])
  }

  /** The core was given the last token together with those of other timelines. */
  async passed() {
    const session = this.#session
    const { position } = session
    if (position !== this.#checkpoints.nextAfter(position - 1)) return
    await this.#arriving
    // It may have moved meanwhile, and the other one has read nothing yet.
    if (session !== this.#session) return
    const state = session.state()
    if (state instanceof Uint8Array) this.#checkpoints.add({ position, state })
    else this.#arriving = this.#keep(position, state)
  }

  /** @param {number} position @param {Promise<Uint8Array>} coming */
  async #keep(position, coming) {
    this.#awaited = position
    try {
      const state = await coming
      if (this.#awaited === position) this.#checkpoints.add({ position, state })
    } catch {
      // Without it more is read again; whatever it failed of, the next token hears of it, too.
    }
    this.#awaited = null
  }

  /** Takes tokens away from the end. The core follows when it is settled. @param {number} length of what stays */
  truncate(length) {
    if (length < this.#session.position) this.#isStale = true
    if (length < Number(this.#awaited)) this.#awaited = null
    this.#ids.truncate(length)
    this.#checkpoints.truncate(length)
    this.tail = NO_TAIL
    this.turns = this.turns.filter(({ end }) => end <= length)
  }

  /**
   * Lets the core read what it has not read.
   *
   * @param {AbortSignal} [signal]
   * @param {Pace} [pace]
   * @returns {AsyncGenerator<Uint32Array, void, void>} each chunk when it has been read
   */
  async *read(signal, pace = new Pace(this.#session.maxChunk)) {
    await this.#arriving
    const session = this.#session
    if (this.#isStale) this.#recover()
    while (session.position < this.#ids.length) {
      await turn(signal)
      const start = session.position
      const end = Math.min(start + pace.chunk, this.#checkpoints.nextAfter(start))
      const chunk = this.#ids.slice(start, end)
      try {
        await pace.append(session, chunk, signal)
      } catch (error) {
        this.#isStale = true
        throw error
      }
      await this.passed()
      yield chunk
    }
  }

  /**
   * @param {AbortSignal} [signal]
   * @param {Pace} [pace]
   * @returns {Promise<number>} how many tokens had to be read
   */
  async settle(signal, pace) {
    let count = 0
    for await (const chunk of this.read(signal, pace)) count += chunk.length
    return count
  }

  /**
   * Puts ids in the place of others and reads what follows. When that fails or is aborted nothing has changed.
   *
   * @param {number} start @param {number} end
   * @param {ArrayLike<number>} ids
   * @param {AbortSignal} [signal]
   * @returns {Promise<number>} how many tokens had to be read
   */
  async replace(start, end, ids, signal) {
    // Nothing for nothing: what was held back, and said, stays.
    if (start === end && ids.length === 0) return this.settle(signal)
    const before = { ids: this.#ids.slice(start), tail: this.tail, turns: this.turns }
    this.truncate(start)
    this.#ids.push(ids)
    this.#ids.push(before.ids.subarray(end - start))
    try {
      return await this.settle(signal)
    } catch (error) {
      this.truncate(start)
      this.#ids.push(before.ids)
      Object.assign(this, { tail: before.tail, turns: before.turns })
      throw error
    }
  }

  /**
   * Until all has been read and all checkpoints are there. What computes may become another one while that is awaited, which has read nothing.
   * @param {AbortSignal} [signal]
   */
  async settleAll(signal) {
    do {
      await this.settle(signal)
      await this.#arriving
    } while (this.#isStale)
  }

  /** @returns {Promise<Snapshot>} */
  async snapshot() {
    await this.settleAll()
    const { seed, random, tail, turns } = this
    const [state, ids] = [await this.#session.state(), this.#ids.slice()]
    return { state, ids, checkpoints: this.#checkpoints.copy(), seed, random, tail, turns }
  }

  /** @param {Snapshot} snapshot of a timeline of the same model and state type */
  restore(snapshot) {
    this.#session.adopt(snapshot.state, snapshot.ids.length)
    // Of another timeline, perhaps: how much memory this one may take stays as it is.
    this.#take({
      ...snapshot,
      checkpoints: snapshot.checkpoints.copy(this.#checkpoints.capacity),
    })
  }

  /** As restore, of what comes from outside: from here one can go back to here. @param {Omit<Snapshot, 'checkpoints'>} saved */
  begin(saved) {
    const checkpoints = this.#checkpoints.copy()
    checkpoints.pin({ position: saved.ids.length, state: saved.state })
    this.restore({ ...saved, checkpoints })
  }

  /** Becomes what another, settled, timeline is. @param {Timeline} other of the same model and state type */
  copyOf(other) {
    adopt(this.#session, other.#session, other.position)
    const { seed, random, tail, turns } = other
    const [ids, checkpoints] = [other.#ids.slice(), other.#checkpoints]
    this.#take({ ids, checkpoints, seed, random, tail, turns })
  }

  /** @param {Omit<Snapshot, 'state'>} snapshot whose state the core has adopted */
  #take({ ids, checkpoints, seed, random, tail, turns }) {
    this.#ids = new IdList(ids)
    this.#checkpoints = checkpoints.copy()
    this.#checkpoints.backupSpacing = this.#session.backupTokens
    this.#awaited = null
    this.#isStale = false
    Object.assign(this, { seed, random, tail, turns })
  }

  /** Brings the core to the last checkpoint of the ids. */
  #recover() {
    const checkpoint = this.#checkpoints.before(this.#ids.length)
    if (checkpoint) this.#session.adopt(checkpoint.state, checkpoint.position)
    else this.#session.reset()
    this.#isStale = false
  }

  close() {
    this.#session.close()
  }
}

/** @param {AnySession} session @param {AnySession} other of the same model @param {number} position */
function adopt(session, other, position) {
  const one = /** @type {{ adopt: (state: AnySession, position: number) => void }} */ (session)
  one.adopt(other, position)
}
