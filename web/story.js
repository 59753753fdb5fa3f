/**
 * A text with its branches: everything that can be done to it, and taken back.
 *
 * Owns the branches, each a session of the package, and the moments of each: snapshots, to which it can go back. Before anything changes a text, a
 * moment is kept, so that everything can be undone. Knows no page: it tells by the event `change`.
 * The idea: a state is a copy of constant size, so undo, branches and comparison need no text to be read again. A moment has its text, too, and is read
 * from that where the state is of no use: with another model, and after a reload.
 */

import { continueBranch, continueBranches } from './branch-run.js'
import { syncText } from './text-sync.js'

/** @typedef {import('../js/index.js').BiMamba} BiMamba */
/** @typedef {import('../js/index.js').Session} Session */
/** @typedef {import('../js/index.js').Snapshot} Snapshot */
/** isEndless: a text that the model ends is followed by another. @typedef {import('../js/index.js').SessionGenerateOptions & { maxTokens: number, seed: number, isEndless?: boolean }} Options */

/**
 * What can be gone back to.
 *
 * @typedef {object} Moment
 * @property {number} id
 * @property {Snapshot | null} snapshot  null: the text is read when somebody goes back to it
 * @property {string} text
 * @property {number} position  in tokens of the model that read it last
 * @property {string} label     for people
 * @property {boolean} isKept   the user wanted it, so it stays
 * @property {boolean} isStart  a generation began there
 */

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

/** A moment that the user kept, without its state. @typedef {Pick<Moment, 'label' | 'text' | 'position'>} KeptMoment */

/**
 * A story without its states: `parent` is an index.
 *
 * @typedef {{ branches: { name: string, text: string, parent: number | null, forkedAt: number, moments?: KeptMoment[] }[], current: number }} Outline
 */

/**
 * What happens while a text goes on: a piece of text, or what a number of tokens took.
 *
 * @typedef {object} Step
 * @property {string} text
 * @property {{ position: number, tokens: number, ms: number } | null} cost  ms: waited for the model, all tokens together
 * @property {'eos' | 'stop' | 'length' | 'abort' | 'error' | null} end       why it ends, with the last step
 */

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
  /** The branch that was deleted last, and what it takes to bring it back. @type {{ branch: Branch, index: number, children: Branch[] } | null} */
  dropped = null
  /** A text goes on, which takes long. */
  isWriting = false
  #lastId = 0
  /** Of what was asked for, so much is not done yet. */
  #pending = 0
  /** The end of what was asked for last. @type {Promise<unknown>} */
  #queue = Promise.resolve()

  /** Use `Story.begin`. @param {BiMamba} model @param {Branch[]} branches at least one @param {number} lastId that they and their moments have */
  constructor(model, branches, lastId) {
    super()
    this.#model = model
    this.branches = branches
    this.current = /** @type {Branch} */ (branches[0])
    this.#lastId = lastId
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
    let id = 0
    for (const [i, { name, text, forkedAt, moments = [] }] of branches.entries()) {
      const session =
        (i === current && (await kept?.(options))) || (await model.createSession(options))
      const branch = { ...newBranch(++id, name, session, text), forkedAt }
      for (const { label, text, position } of moments)
        branch.moments.push({ ...newMoment(++id, label, text, position), isKept: true })
      made.push(branch)
    }
    for (const [i, { parent }] of branches.entries()) {
      if (parent !== null && made[parent]) made[i].parent = made[parent]
    }
    const story = new Story(model, made, id)
    story.current = made[current] ?? story.current
    return story
  }

  /** @returns {Outline} what can be kept as plain text */
  outline() {
    const branches = this.branches.map(({ name, text, parent, forkedAt, moments }) => ({
      name,
      text,
      parent: parent && this.branches.indexOf(parent),
      forkedAt,
      moments: moments
        .filter(({ isKept }) => isKept)
        .map(({ label, text, position }) => ({ label, text, position })),
    }))
    return { branches, current: this.branches.indexOf(this.current) }
  }

  /**
   * The same branches and moments for another model, which reads their texts when they are written on, or gone back to. The states are the old model's, and go with it.
   * @param {BiMamba} model
   */
  async moveTo(model) {
    await this.#once(async () => {
      const options = sessionOptions(model)
      for (const branch of [...this.branches, ...(this.dropped ? [this.dropped.branch] : [])]) {
        branch.session = await model.createSession(options)
        branch.forkedAt = 0
        for (const moment of [...branch.moments, ...branch.undone]) moment.snapshot = null
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
    return moments.findLast((moment) => moment.isStart && text.startsWith(moment.text))
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
      const start = await story.#startMoment(branch, options)
      const work = continueBranch(story.#model, branch, options, signal)
      yield* story.#undoable(branch, start, start.text, work)
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
      if (!story.repeatable) return
      const start = story.repeatable
      await story.#read(branch, signal)
      const before = await story.#newMoment(branch, 'before another try')
      async function* again() {
        await story.#restore(branch, start)
        yield { text: '', cost: null, end: null }
        yield* continueBranch(story.#model, branch, options, signal)
      }
      yield* story.#undoable(branch, before, start.text, again())
    })
  }

  /**
   * Continues branches together: the weights are read once for all.
   *
   * @param {Branch[]} branches all different
   * @param {Options} options  branch i takes the seed + i
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<{ branch: Branch, text: string }, number[], void>} pieces; then the tokens of each
   */
  async *continueTogether(branches, options, signal) {
    return yield* this.#writing(async function* (story) {
      const starts = new Map()
      for (const branch of branches) {
        await story.#read(branch, signal)
        starts.set(branch, await story.#startMoment(branch, options))
      }
      try {
        return yield* continueBranches(story.#model, branches, options, signal)
      } finally {
        for (const [branch, start] of starts) {
          if (branch.text !== start.text) await story.#keep(branch, start)
          else await start.snapshot.close()
        }
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
      await moment.snapshot?.close()
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
      await moment.snapshot?.close()
      branch.moments.push(now)
    })
  }

  /** Keeps this moment until the user lets go of it. */
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
      await this.#keep(
        branch,
        await this.#newMoment(branch, `before going back to ${moment.label}`),
      )
      await this.#restore(branch, moment)
      moment.snapshot ??= await branch.session.snapshot() // the next time nothing is read
    })
  }

  /** Lets go of a moment. @param {Branch} branch @param {Moment} moment */
  forget(branch, moment) {
    return this.#once(async () => {
      if (!branch.moments.includes(moment)) return
      branch.moments.splice(branch.moments.indexOf(moment), 1)
      await moment.snapshot?.close()
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
      if (moment?.snapshot) await session.restore(moment.snapshot)
      else if (moment) await syncText(session, moment.text)
      const branch = this.#add(this.#freeName('Branch'), session, await session.text())
      Object.assign(branch, { parent: from, forkedAt: session.position })
    })
  }

  /** @param {Branch} branch to be written on */
  choose(branch) {
    this.current = branch
    this.#tell()
  }

  /** Gives up a branch; those that left it hang on its parent then. It can be brought back until the next one is given up. @param {Branch} branch not the only one */
  drop(branch) {
    return this.#once(async () => {
      const index = this.branches.indexOf(branch)
      if (this.branches.length < 2 || index < 0) return
      const gone = this.dropped
      const children = this.branches.filter(({ parent }) => parent === branch)
      this.branches.splice(index, 1)
      for (const child of children) child.parent = branch.parent
      if (this.current === branch)
        this.current = branch.parent ?? /** @type {Branch} */ (this.branches[0])
      this.dropped = { branch, index, children }
      if (gone) await free(gone.branch)
    })
  }

  /** The branch that was given up last is there again, and the current one. */
  bringBack() {
    return this.#once(async () => {
      if (!this.dropped) return
      const { branch, index, children } = this.dropped
      this.dropped = null
      if (branch.parent && !this.branches.includes(branch.parent)) branch.parent = null
      this.branches.splice(index, 0, branch)
      for (const child of children) if (this.branches.includes(child)) child.parent = branch
      this.current = branch
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

  /** The session reads what a person has written. @param {Branch} branch @param {AbortSignal} [signal] */
  async #read(branch, signal) {
    const { session } = branch
    const read = await session.text()
    if (read === branch.text) return
    if (session.position > 0)
      await this.#keep(branch, await this.#newMoment(branch, 'before a change', read))
    else for (const { snapshot } of branch.undone.splice(0)) await snapshot?.close()
    await syncText(session, branch.text, signal)
  }

  /** @param {Branch} branch @param {string} label @param {string} [text] that it has read @returns {Promise<Moment>} of now */
  async #newMoment({ session, text: whole }, label, text = whole) {
    const snapshot = await session.snapshot()
    return { ...newMoment(++this.#lastId, label, text, session.position), snapshot }
  }

  /** @param {Branch} branch @param {Options} options @returns {Promise<Moment>} of now, where a generation begins */
  async #startMoment(branch, { maxTokens }) {
    return { ...(await this.#newMoment(branch, `before ${maxTokens} tokens`)), isStart: true }
  }

  /**
   * What changes a text, and can be undone from its first piece on. Where nothing comes, refused or stopped, all is as it was at that moment.
   *
   * @param {Branch} branch
   * @param {Moment} moment of before
   * @param {string} text that something is to come after
   * @param {AsyncGenerator<Step, void, void>} work
   * @returns {AsyncGenerator<Step, void, void>}
   */
  async *#undoable(branch, moment, text, work) {
    let isKept = false
    try {
      for await (const step of work) {
        if (!isKept && branch.text !== text) {
          isKept = true
          await this.#keep(branch, moment)
        }
        yield step
      }
    } finally {
      if (!isKept) {
        if (branch.text !== moment.text) await this.#restore(branch, moment)
        await moment.snapshot?.close()
      }
    }
  }

  /** Keeps a moment for undo; the oldest ones go, and what could be done again. @param {Branch} branch @param {Moment} moment */
  async #keep(branch, moment) {
    branch.moments.push(moment)
    const most = Math.max(LEAST_UNDO, Math.floor(UNDO_BYTES / this.#model.info.stateBytes))
    const forUndo = branch.moments.filter(({ isKept }) => !isKept)
    const gone = [
      ...forUndo.slice(0, Math.max(0, forUndo.length - most)),
      ...branch.undone.splice(0),
    ]
    branch.moments = branch.moments.filter((one) => !gone.includes(one))
    for (const { snapshot } of gone) await snapshot?.close()
  }

  /** @param {Branch} branch @param {Moment} moment */
  async #restore(branch, { snapshot, text }) {
    if (snapshot) await branch.session.restore(snapshot)
    else await syncText(branch.session, text)
    branch.text = await branch.session.text()
  }

  /** @param {string} word @returns {string} with the first number that no branch has */
  #freeName(word) {
    const names = new Set(
      [...this.branches, this.dropped?.branch].map((branch) => branch?.name ?? ''),
    )
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
   * @template T, R
   * @param {(story: Story) => AsyncGenerator<T, R, void>} work
   * @returns {AsyncGenerator<T, R, void>}
   */
  async *#writing(work) {
    this.isWriting = true
    const leave = await this.#enter()
    try {
      return yield* work(this)
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

/** @param {number} id @param {string} label @param {string} text @param {number} position @returns {Moment} without a state */
function newMoment(id, label, text, position) {
  return { id, snapshot: null, text, position, label, isKept: false, isStart: false }
}

/** @param {Branch} branch that nobody wants any more */
async function free({ moments, undone, session }) {
  for (const { snapshot } of [...moments, ...undone]) await snapshot?.close()
  await session.close()
}

/** @param {BiMamba} model */
function sessionOptions({ info }) {
  return { checkpointBytes: Math.max(CHECKPOINT_BYTES, LEAST_CHECKPOINTS * info.stateBytes) }
}
