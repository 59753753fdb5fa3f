/**
 * A text with its branches: everything that can be done to it, and taken back.
 *
 * Owns the branches, each a session of the package, and the moments of each: snapshots, to which it can go back. Before anything changes a text, a
 * moment is kept, so that everything can be undone. Knows no page: it tells by the event `change`.
 * The idea: a state is a copy of constant size, so undo, branches and comparison need no text to be read again.
 */

import { syncText } from './text-sync.js'

/** @typedef {import('../js/index.js').BiMamba} BiMamba */
/** @typedef {import('../js/index.js').Session} Session */
/** @typedef {import('../js/index.js').Snapshot} Snapshot */
/** isEndless: a text that the model ends is followed by another. @typedef {import('../js/index.js').SessionGenerateOptions & { maxTokens: number, seed: number, isEndless?: boolean }} Options */

/** What can be gone back to. label: for people; isKept: the user wanted it, so it stays; begins: the text, where a generation began there. @typedef {{ id: number, snapshot: Snapshot, label: string, isKept: boolean, begins: string | null }} Moment */

/**
 * @typedef {object} Branch
 * @property {number} id
 * @property {string} name
 * @property {Session} session
 * @property {string} text        that people see and write; the session reads it before it is continued
 * @property {Branch | null} parent
 * @property {number} forkedAt    the position where it left its parent
 * @property {Moment[]} moments   in the order in which they were kept
 * @property {Moment[]} undone    to be done again, the last one first
 */

/**
 * A story without its states: `parent` is an index.
 *
 * @typedef {{ branches: { name: string, text: string, parent: number | null, forkedAt: number }[], current: number }} Outline
 */

/**
 * What happens while a text goes on: a piece of text, or what a number of tokens took.
 *
 * @typedef {object} Step
 * @property {string} text
 * @property {{ position: number, tokens: number, ms: number } | null} cost  ms: waited for the model, all tokens together
 * @property {'eos' | 'stop' | 'length' | 'abort' | 'error' | null} end       why it ends, with the last step
 */

/** Tokens between two looks around: what they took is told, and the state can be read. */
const CHUNK_TOKENS = 32
/** Between a text that the model has ended and the next one. */
const BETWEEN_TEXTS = '\n\n'
/** Moments that undo needs may take so much memory, or that of so many states. */
const UNDO_BYTES = 64e6
const LEAST_UNDO = 3
/** Checkpoints of a session, from which it goes back, may take so much, or that of so many states. */
const CHECKPOINT_BYTES = 32e6
const LEAST_CHECKPOINTS = 3

export class Story extends EventTarget {
  /** @type {BiMamba} */
  #model
  /** @type {Branch[]} */
  branches = []
  /** @type {Branch} that is written on */
  current
  /** A text goes on, which takes long. */
  isWriting = false
  #lastId = 0
  /** Of what was asked for, so much is not done yet. */
  #pending = 0
  /** The end of what was asked for last. @type {Promise<unknown>} */
  #queue = Promise.resolve()

  /** Use `Story.begin`. @param {BiMamba} model @param {Branch[]} branches at least one */
  constructor(model, branches) {
    super()
    this.#model = model
    this.branches = branches
    this.current = /** @type {Branch} */ (branches[0])
    this.#lastId = branches.length
  }

  /**
   * @param {BiMamba} model
   * @param {Outline} outline  the branches and the current one, as `outline` gave them
   * @param {(options: { checkpointBytes: number }) => Promise<Session | null>} [kept] gives a session that has read some of the current one's text
   * @returns {Promise<Story>}
   */
  static async begin(model, { branches, current }, kept) {
    const options = sessionOptions(model)
    const made = []
    for (const [i, { name, text, forkedAt }] of branches.entries()) {
      const session =
        (i === current && (await kept?.(options))) || (await model.createSession(options))
      made.push({ ...newBranch(i + 1, name, session, text), forkedAt })
    }
    for (const [i, { parent }] of branches.entries()) {
      if (parent !== null && made[parent]) made[i].parent = made[parent]
    }
    const story = new Story(model, made)
    story.current = made[current] ?? story.current
    return story
  }

  /** @returns {Outline} what can be kept as plain text */
  outline() {
    const branches = this.branches.map(({ name, text, parent, forkedAt }) => ({
      name,
      text,
      parent: parent && this.branches.indexOf(parent),
      forkedAt,
    }))
    return { branches, current: this.branches.indexOf(this.current) }
  }

  /**
   * The same branches for another model, which reads their texts when they are written on. The moments are the old model's, and go with it.
   * @param {BiMamba} model
   */
  async moveTo(model) {
    await this.#once(async () => {
      const options = sessionOptions(model)
      for (const branch of this.branches) {
        const session = await model.createSession(options)
        Object.assign(branch, { session, moments: [], undone: [], forkedAt: 0 })
      }
      this.#model = model
    })
  }

  /** Something is being done, or waits to be. */
  get isBusy() {
    return this.#pending > 0
  }

  get model() {
    return this.#model
  }

  /** @returns {Moment | undefined} where the last generation began, unless its beginning was changed or gone back behind */
  get repeatable() {
    const { moments, text } = this.current
    return moments.findLast(({ begins }) => begins !== null && text.startsWith(begins))
  }

  /** @returns {Moment[]} of the current branch that undo can go back to, the last one last */
  get undoable() {
    return this.current.moments.filter(({ isKept }) => !isKept)
  }

  /**
   * Continues the current branch. The work stops when the loop is left.
   *
   * @param {Options} options
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *continue(options, signal) {
    yield* this.#writing(async function* (story) {
      const branch = story.current
      // What was done just before may have changed the text.
      yield { text: '', cost: null, end: null }
      await story.#read(branch, signal)
      await story.#keep(branch, `before ${options.maxTokens} tokens`, { begins: branch.text })
      yield* story.#continue(branch, options, signal)
    })
  }

  /**
   * Another text in place of the last one that was generated.
   * @param {Options} options
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *regenerate(options, signal) {
    yield* this.#writing(async function* (story) {
      const branch = story.current
      const start = story.repeatable
      if (!start) return
      await story.#read(branch, signal)
      await story.#keep(branch, 'before another try')
      await story.#restore(branch, start)
      yield { text: '', cost: null, end: null }
      yield* story.#continue(branch, options, signal)
    })
  }

  /**
   * Continues branches together: the weights are read once for all.
   *
   * @param {Branch[]} branches all different
   * @param {Options} options  branch i takes the seed + i
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<{ branch: Branch, text: string }, void, void>}
   */
  async *continueTogether(branches, options, signal) {
    yield* this.#writing(async function* (story) {
      for (const branch of branches) {
        await story.#read(branch, signal)
        await story.#keep(branch, `before ${options.maxTokens} tokens`, { begins: branch.text })
      }
      const sessions = branches.map(({ session }) => session)
      const { isEndless, ...rest } = options
      const each = branches.map((_, i) => ({ ...rest, seed: options.seed + i, signal }))
      for await (const { index, text } of story.#model.generateTogether(sessions, each)) {
        const branch = /** @type {Branch} */ (branches[index])
        branch.text += text
        yield { branch, text }
      }
    })
  }

  /** Takes back what was done last. */
  undo() {
    return this.#once(async (branch) => {
      await this.#read(branch)
      const moment = this.undoable.at(-1)
      if (!moment) return
      const now = await this.#newMoment(branch, moment.label)
      await this.#restore(branch, moment)
      branch.moments.splice(branch.moments.indexOf(moment), 1)
      await moment.snapshot.close()
      branch.undone.push(now)
    })
  }

  /** Does again what was taken back last. */
  redo() {
    return this.#once(async (branch) => {
      await this.#read(branch) // what was written since then ends what could be done again
      const moment = branch.undone.pop()
      if (!moment) return
      const now = await this.#newMoment(branch, moment.label)
      await this.#restore(branch, moment)
      await moment.snapshot.close()
      branch.moments.push(now)
    })
  }

  /** Keeps this moment until the user lets go of it, or the page or the model is another. */
  mark() {
    return this.#once(async (branch) => {
      await this.#read(branch)
      const count = branch.moments.filter(({ isKept }) => isKept).length + 1
      const moment = await this.#newMoment(branch, `Moment ${count}`)
      branch.moments.push({ ...moment, isKept: true })
    })
  }

  /** Goes back to a moment of a branch, which becomes the current one. @param {Branch} branch @param {Moment} moment */
  goBack(branch, moment) {
    return this.#once(async () => {
      if (!branch.moments.includes(moment)) return
      this.current = branch
      await this.#read(branch)
      await this.#keep(branch, `before going back to ${moment.label}`)
      await this.#restore(branch, moment)
    })
  }

  /** Lets go of a moment. @param {Branch} branch @param {Moment} moment */
  forget(branch, moment) {
    return this.#once(async () => {
      if (!branch.moments.includes(moment)) return
      branch.moments.splice(branch.moments.indexOf(moment), 1)
      await moment.snapshot.close()
    })
  }

  /**
   * A new branch, from now or from a moment. It becomes the current one.
   * @param {Branch} from
   * @param {Moment | null} moment
   */
  fork(from, moment) {
    return this.#once(async () => {
      if (moment && !from.moments.includes(moment)) return
      await this.#read(from)
      const session = await from.session.fork()
      if (moment) await session.restore(moment.snapshot)
      const branch = this.#add(this.#freeName('Branch'), session, await session.text())
      Object.assign(branch, { parent: from, forkedAt: session.position })
    })
  }

  /** @param {Branch} branch to be written on */
  choose(branch) {
    this.current = branch
    this.#tell()
  }

  /** Gives up a branch; those that left it hang on its parent then. @param {Branch} branch not the only one */
  drop(branch) {
    return this.#once(async () => {
      if (this.branches.length < 2 || !this.branches.includes(branch)) return
      this.branches.splice(this.branches.indexOf(branch), 1)
      for (const other of this.branches) if (other.parent === branch) other.parent = branch.parent
      if (this.current === branch)
        this.current = branch.parent ?? /** @type {Branch} */ (this.branches[0])
      for (const { snapshot } of [...branch.moments, ...branch.undone]) await snapshot.close()
      await branch.session.close()
    })
  }

  /** A new text beside the others, which becomes the current one. @param {string} text */
  beginText(text) {
    return this.#once(async () => {
      const session = await this.#model.createSession(sessionOptions(this.#model))
      this.#add(this.#freeName('Text'), session, text)
    })
  }

  /** @param {'own' | 'i16' | 'i8'} state how it is kept @returns {Promise<Uint8Array<ArrayBuffer> | null>} the current branch as a file */
  async save(state) {
    /** @type {Uint8Array<ArrayBuffer> | null} */
    let bytes = null
    await this.#once(async (branch) => {
      await this.#read(branch)
      bytes = await branch.session.save({ state })
    })
    return bytes
  }

  /**
   * The state of the current branch, to be looked at: also between two steps of `continue`.
   * @returns {Promise<Uint8Array<ArrayBuffer>>} a saved session with the state in 8 bits
   */
  async look() {
    if (this.isWriting) return this.current.session.save({ state: 'i8' })
    const leave = await this.#enter()
    try {
      return await this.current.session.save({ state: 'i8' })
    } finally {
      leave()
      this.#tell()
    }
  }

  /**
   * A session that was kept becomes a branch, and the current one.
   * @param {(model: BiMamba, options: { checkpointBytes: number }) => Promise<Session>} load
   * @param {string} name
   */
  open(load, name) {
    return this.#once(async () => {
      const session = await load(this.#model, sessionOptions(this.#model))
      this.#add(name, session, await session.text())
    })
  }

  /** Frees what undo needs; also while a text goes on. */
  async forgetUndo() {
    for (const branch of this.branches) {
      const gone = [...branch.moments.filter(({ isKept }) => !isKept), ...branch.undone]
      branch.moments = branch.moments.filter(({ isKept }) => isKept)
      branch.undone = []
      for (const { snapshot } of gone) await snapshot.close()
    }
    this.#tell()
  }

  /**
   * @param {Branch} branch that has read its text
   * @param {Options} options
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *#continue(branch, { seed, maxTokens, isEndless, ...rest }, signal) {
    const { session } = branch
    let left = maxTokens
    /** @type {boolean} */
    let hasBegun = false // another text, and nothing of it came yet
    do {
      const first = left === maxTokens ? { seed } : {}
      const options = { ...rest, ...first, maxTokens: Math.min(left, CHUNK_TOKENS), signal }
      const ms = yield* writeChunk(branch, options)
      const { tokens, finishReason } = session.lastStats ?? { tokens: 0, finishReason: 'error' }
      left -= tokens
      const cost = { position: session.position, tokens, ms }
      // A text that had ended already gives nothing more: then another one is wanted. But not one after another that are empty.
      const isWanted = isEndless === true || left === maxTokens
      /** @type {boolean} */
      const isEmpty = hasBegun && tokens === 0
      /** @type {boolean} */
      const another = finishReason === 'eos' && left > 0 && isWanted && !isEmpty
      hasBegun = another
      const goesOn = left > 0 && (finishReason === 'length' || another)
      yield { text: '', cost, end: goesOn ? null : finishReason }
      if (!goesOn) return
      if (another) yield await this.#beginNext(branch)
    } while (left > 0)
  }

  /** The model has ended the text: it reads that it did, and a new one begins on a line of its own. @param {Branch} branch @returns {Promise<Step>} */
  async #beginNext(branch) {
    const [end] = this.#model.info.eosIds
    await branch.session.append(BETWEEN_TEXTS)
    if (end !== undefined) await branch.session.append([end])
    branch.text += BETWEEN_TEXTS
    return { text: BETWEEN_TEXTS, cost: null, end: null }
  }

  /** The session reads what a person has written. @param {Branch} branch @param {AbortSignal} [signal] */
  async #read(branch, signal) {
    if ((await branch.session.text()) === branch.text) return
    if (branch.session.position > 0) await this.#keep(branch, 'before a change')
    else for (const { snapshot } of branch.undone.splice(0)) await snapshot.close()
    await syncText(branch.session, branch.text, signal)
  }

  /** @param {Branch} branch @param {string} label @returns {Promise<Moment>} of now */
  async #newMoment(branch, label) {
    const snapshot = await branch.session.snapshot()
    return { id: ++this.#lastId, snapshot, label, isKept: false, begins: null }
  }

  /** Keeps a moment for undo; the oldest ones go. @param {Branch} branch @param {string} label @param {Partial<Moment>} [more] */
  async #keep(branch, label, more = {}) {
    branch.moments.push({ ...(await this.#newMoment(branch, label)), ...more })
    const most = Math.max(LEAST_UNDO, Math.floor(UNDO_BYTES / this.#model.info.stateBytes))
    const forUndo = branch.moments.filter(({ isKept }) => !isKept)
    const gone = [
      ...forUndo.slice(0, Math.max(0, forUndo.length - most)),
      ...branch.undone.splice(0),
    ]
    branch.moments = branch.moments.filter((moment) => !gone.includes(moment))
    for (const { snapshot } of gone) await snapshot.close()
  }

  /** @param {Branch} branch @param {Moment} moment */
  async #restore(branch, moment) {
    await branch.session.restore(moment.snapshot)
    branch.text = await branch.session.text()
  }

  /** @param {string} word @returns {string} with the first number that no branch has */
  #freeName(word) {
    const names = new Set(this.branches.map(({ name }) => name))
    let number = 1
    while (names.has(`${word} ${number}`)) number++
    return `${word} ${number}`
  }

  /** A branch that is the current one from now on. @param {string} name @param {Session} session @param {string} text */
  #add(name, session, text) {
    const branch = newBranch(++this.#lastId, name, session, text)
    this.branches.push(branch)
    this.current = branch
    return branch
  }

  /** One thing after another: what is asked for meanwhile waits. @param {(branch: Branch) => Promise<void>} work */
  async #once(work) {
    const leave = await this.#enter()
    try {
      await work(this.current)
    } finally {
      leave()
      this.#tell()
    }
  }

  /**
   * The same for what takes long, and is pulled.
   * @template T
   * @param {(story: Story) => AsyncGenerator<T, void, void>} work
   * @returns {AsyncGenerator<T, void, void>}
   */
  async *#writing(work) {
    this.isWriting = true
    const leave = await this.#enter()
    try {
      yield* work(this)
    } finally {
      this.isWriting = false
      leave()
      this.#tell()
    }
  }

  /** @returns {Promise<() => void>} when all that was asked for before is done; to be called at the end */
  async #enter() {
    this.#pending++
    this.#tell()
    const before = this.#queue
    let leave = () => {}
    this.#queue = new Promise((resolve) => {
      leave = () => {
        this.#pending--
        resolve(undefined)
      }
    })
    await before
    return leave
  }

  #tell() {
    this.dispatchEvent(new Event('change'))
  }
}

/** @param {number} id @param {string} name @param {Session} session @param {string} text @returns {Branch} */
function newBranch(id, name, session, text) {
  return { id, name, session, text, parent: null, forkedAt: 0, moments: [], undone: [] }
}

/** @param {BiMamba} model */
function sessionOptions({ info }) {
  return { checkpointBytes: Math.max(CHECKPOINT_BYTES, LEAST_CHECKPOINTS * info.stateBytes) }
}

/**
 * One chunk of tokens.
 *
 * @param {Branch} branch
 * @param {import('../js/index.js').SessionGenerateOptions} options
 * @returns {AsyncGenerator<Step, number, void>} pieces of text; then how long the model was awaited, ms
 */
async function* writeChunk(branch, options) {
  const pieces = branch.session.generate(options)
  let ms = 0
  try {
    for (;;) {
      const asked = performance.now()
      const { done, value } = await pieces.next()
      ms += performance.now() - asked
      if (done) return ms
      branch.text += value
      yield { text: value, cost: null, end: null }
    }
  } finally {
    await pieces.return(/** @type {never} */ (undefined))
  }
}
