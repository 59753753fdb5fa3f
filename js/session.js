/**
 * What a program holds of a session: one text, and the state that has read it.
 *
 * Owns the checks of every argument, and where the session is. Does no computation and knows no message: js/session-host.js, beside the
 * engine, does what is asked for.
 * The idea: a recurrent state has a constant size, so it can be copied, kept and gone back to for the price of a copy. Every method leaves the
 * session as it was when it fails or is aborted, and exactly at the tokens that were given out when a generation ends, however it ends.
 */

import { checkMessages } from './chat-template.js'
import { BmError } from './errors.js'
import {
  checkCount,
  checkPlace,
  checkSessionGenerate,
  checkStored,
  checkText,
} from './session-settings.js'
import { checkFlag, checkNames, checkSignal, drawSeed, seedAfter } from './settings.js'

/** @typedef {import('./engine.js').Engine | import('./remote.js').RemoteEngine} AnyEngine */
/** @typedef {import('./chat-template.js').ChatMessage} ChatMessage */
/** @typedef {import('./generate.js').GeneratedPiece} GeneratedPiece */
/** @typedef {import('./generate.js').Stats} Stats */
/** @typedef {import('./session-settings.js').SessionGenerateOptions} SessionGenerateOptions */

/** BM_MAX_TOGETHER of src/bm.h. */
const MOST_TOGETHER = 64

/** What a session needs of its model. @typedef {{ engine: AnyEngine, vocabSize: number }} Owner */

/**
 * A token that was generated, or read.
 *
 * @typedef {object} Token
 * @property {number | null} id      null: no token, but text that was held back until the text ended
 * @property {string} text            that it completes; '' while a character or a possible stop string is held back
 * @property {number | null} logprob  natural logarithm of its probability, before temperature, penalties and filters
 * @property {import('./generate.js').Alternative[]} top  the likeliest ids in its place, as many as `logprobs` asks for
 */

// What the classes below let the rest of this file do with them.
/** @type {(snapshot: Snapshot, engine: AnyEngine) => number} its number there */
let snapshotIn
/** @type {(session: Session, engine: AnyEngine) => number} its number there */
let sessionIn
/** @type {(session: Session, position: number) => void} a generation has brought it there */
let moveTo
/** @type {(session: Session, stats: Stats) => void} a generation has ended */
let endWith

/** The state of a session at some moment, in the engine's memory. Any session of the same model can be restored to it, any number of times. */
export class Snapshot {
  #engine
  #id

  /** @param {AnyEngine} engine @param {number} id @param {number} position */
  constructor(engine, id, position) {
    this.#engine = engine
    this.#id = id
    /** Of the session then, in tokens. */
    this.position = position
  }

  static {
    snapshotIn = (snapshot, engine) => {
      if (engine === snapshot.#engine) return snapshot.#id
      throw new BmError('argument', 'the snapshot is of another model')
    }
  }

  /** Frees its memory. Idempotent; closing the model frees it, too. */
  async close() {
    await this.#engine.closeSnapshot(this.#id)
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }
}

/**
 * One text and its state. A session does one thing at a time (`busy` otherwise); different sessions of one model work side by side.
 * `model.createSession()` makes one.
 */
export class Session {
  #owner
  #id
  #position
  /** @type {Stats | null} */
  #stats = null
  #closed = false

  /** Use `model.createSession`. @param {Owner} owner @param {number} id @param {number} position */
  constructor(owner, id, position) {
    this.#owner = owner
    this.#id = id
    this.#position = position
  }

  /** @returns {number} tokens of the text so far, BOS included */
  get position() {
    return this.#position
  }

  /** @returns {Stats | null} of its last generation that has ended */
  get lastStats() {
    return this.#stats
  }

  /**
   * Reads text, or token ids as they are. At the beginning of a session text begins with BOS, where the model's file says so.
   * Special tokens in the text are text. An abort or error leaves the session as it was.
   *
   * @param {string | ArrayLike<number>} text
   * @param {{ bos?: boolean, signal?: AbortSignal }} [options] bos: begin with BOS; default: at position 0 as the file says
   * @returns {Promise<number>} the position behind it
   * @throws {BmError} `argument`, `busy`, `closed`, `tokenizer`, `numeric`; or `signal.reason`
   */
  async append(text, options = {}) {
    checkNames(options, ['bos', 'signal'], 'append')
    checkFlag('bos', options.bos)
    const checked = checkText(text, this.#owner.vocabSize, 'text')
    await this.#act('append', [checked, options.bos ?? null], options)
    return this.#position
  }

  /**
   * Like `append`, and tells what the model thought of each token.
   *
   * @param {string | ArrayLike<number>} text
   * @param {{ logprobs?: number, bos?: boolean, signal?: AbortSignal }} [options] logprobs: how many others in its place, 0 to 64; default 0
   * @returns {Promise<Token[]>} the first token of a session has no log-probability: null
   */
  async read(text, options = {}) {
    checkNames(options, ['logprobs', 'bos', 'signal'], 'read')
    const { logprobs = 0, bos } = options
    checkCount('logprobs', logprobs, 0, 64)
    checkFlag('bos', bos)
    const checked = checkText(text, this.#owner.vocabSize, 'text')
    const { value } = await this.#act('read', [checked, bos ?? null, logprobs], options)
    return /** @type {Token[]} */ (value)
  }

  /**
   * Continues the text. Nothing is computed before the first piece is asked for; leaving the loop stops the work. The next generation goes on
   * where this one stopped: with its random numbers (unless a `seed` is given), its unfinished characters and its stop strings.
   *
   * @param {SessionGenerateOptions} [options]
   * @returns {AsyncGenerator<string, Stats, void>} pieces of text, whole characters all of them
   * @throws {BmError} `argument`, `busy`, `closed`, `tokenizer`, `numeric`; or `signal.reason`
   */
  async *generate(options = {}) {
    const pieces = this.#continue(options)
    return yield* mapped(pieces, ({ text }) => text || null)
  }

  /**
   * Like `generate`, but gives token ids. Works without a tokenizer, too, when nothing is to stop it.
   *
   * @param {SessionGenerateOptions} [options]
   * @returns {AsyncGenerator<number, Stats, void>}
   */
  async *generateIds(options = {}) {
    return yield* mapped(this.#continue(options), ({ id }) => id)
  }

  /**
   * Like `generate`, but gives each token with its log-probability, and with the likeliest ones in its place.
   *
   * @param {SessionGenerateOptions & { logprobs?: number }} [options] logprobs: how many others, 0 to 64; default 0
   * @returns {AsyncGenerator<Token, Stats, void>}
   */
  async *generateTokens(options = {}) {
    const { logprobs = 0, ...rest } = options
    checkCount('logprobs', logprobs, 0, 64)
    return yield* mapped(this.#continue(rest, logprobs), tokenOf)
  }

  /**
   * Continues the text in several ways at once; the weights are read once for all. The session stays where it is.
   *
   * @param {number} n how many, 1 to 64
   * @param {SessionGenerateOptions} [options] way i takes the seed + i
   * @returns {AsyncGenerator<{ index: number, text: string }, Stats[], void>} pieces of the way `index`
   */
  async *generateMany(n, options = {}) {
    checkCount('n', n, 1, MOST_TOGETHER)
    const settings = checkSessionGenerate(options, this.#owner.vocabSize)
    const { seed = drawSeed() } = options
    /** @type {Session[]} */
    const forks = []
    try {
      while (forks.length < n) forks.push(await this.#fork(options.signal))
      const all = forks.map((_, i) => ({ ...settings, seed: seedAfter(seed, i) }))
      const pieces = continueSessions(this.#owner.engine, forks, all, options.signal)
      return yield* mapped(pieces, ({ lane, text }) => (text ? { index: lane, text } : null))
    } finally {
      await Promise.all(forks.map((fork) => fork.close()))
    }
  }

  /**
   * Says something to the model, and gives what it says to that, without white space before it. The text is made by the model's chat template, or, where it has none, is plain:
   * lines that begin with User: and Assistant:. Special tokens in the content are text. When the loop is left or aborted, what was given out is the
   * model's reply.
   *
   * @param {string | readonly ChatMessage[]} said  a text of the user; or the messages that follow what was said so far
   * @param {SessionGenerateOptions} [options]
   * @returns {AsyncGenerator<string, Stats, void>} pieces of the reply
   * @throws {BmError} as `generate`; also `argument` where the session has text that is no chat, or the template refuses the messages
   */
  async *chat(said, options = {}) {
    return yield* mapped(this.#reply(said, options), ({ text }) => text || null)
  }

  /**
   * Like `chat`, but gives the reply's tokens as `generateTokens` does. What was held back comes with a token that is not sampled, whose id is null.
   *
   * @param {string | readonly ChatMessage[]} said
   * @param {SessionGenerateOptions & { logprobs?: number }} [options]
   * @returns {AsyncGenerator<Token, Stats, void>}
   */
  async *chatTokens(said, options = {}) {
    const { logprobs = 0, ...rest } = options
    checkCount('logprobs', logprobs, 0, 64)
    return yield* mapped(this.#reply(said, rest, logprobs), tokenOf)
  }

  /**
   * Reads messages of a chat without an answer: what the system says, or examples of a conversation.
   *
   * @param {readonly ChatMessage[]} messages
   * @param {{ signal?: AbortSignal }} [options]
   */
  async say(messages, options = {}) {
    checkNames(options, ['signal'], 'say')
    await this.#act('say', [checkMessages(messages, 'messages')], options)
  }

  /** @returns {Promise<ChatMessage[]>} what was said so far */
  async messages() {
    return /** @type {ChatMessage[]} */ ((await this.#act('messages', [])).value)
  }

  /** Takes back the last message of the user, and what was answered. @returns {Promise<string | null>} that message; null: there was none */
  async undo() {
    return /** @type {string | null} */ ((await this.#act('undo', [])).value)
  }

  /** @returns {Promise<Session>} another session that is the same; what happens to one does not to the other */
  async fork() {
    return this.#fork()
  }

  /** @returns {Promise<Snapshot>} of this moment, for the price of a copy of the state */
  async snapshot() {
    const { value } = await this.#act('snapshot', [])
    return new Snapshot(this.#owner.engine, Number(value), this.#position)
  }

  /** Goes to the moment of a snapshot, its own or that of another session of the model. @param {Snapshot} snapshot */
  async restore(snapshot) {
    if (!(snapshot instanceof Snapshot)) {
      throw new BmError('argument', 'restore: want a Snapshot; saved bytes go to model.loadSession')
    }
    await this.#act('restore', [snapshotIn(snapshot, this.#owner.engine)])
  }

  /**
   * Forgets what is behind a position. The state is copied from a checkpoint before it, and the tokens between are read again.
   *
   * @param {number} position 0 to this.position; a negative one counts from the end
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<number>} how many tokens were read again
   */
  async rewind(position, options = {}) {
    checkNames(options, ['signal'], 'rewind')
    checkPlace('position', position)
    return Number((await this.#act('rewind', [position], options)).value)
  }

  /**
   * Puts something in the place of the tokens `start` to `end`. Only what follows is read again, from a checkpoint before `start` on.
   *
   * @param {number} start @param {number} end positions; negative ones count from the end
   * @param {string | ArrayLike<number>} text or ids; text is tokenized by itself. Empty: nothing takes their place
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<number>} how many tokens were read
   */
  async edit(start, end, text, options = {}) {
    checkNames(options, ['signal'], 'edit')
    const checked = checkText(text, this.#owner.vocabSize, 'text')
    checkPlace('start', start)
    checkPlace('end', end)
    return Number((await this.#act('edit', [start, end, checked], options)).value)
  }

  /**
   * The whole session as bytes, for `model.loadSession` here or elsewhere: models/SESSION.md has the format.
   *
   * @param {{ state?: 'own' | 'f32' | 'i16' | 'i8' }} [options] how the state is kept. 'own' (default): as the session has it, and what goes on
   *   from it is the same to the bit; 'i16' and 'i8' take a half and a quarter of f32, and change what follows a little
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async save(options = {}) {
    checkNames(options, ['state'], 'save')
    const { state = 'own' } = options
    checkStored(state)
    const { value } = await this.#act('save', [state === 'own' ? null : state])
    return /** @type {Uint8Array<ArrayBuffer>} */ (value)
  }

  /** @param {number} [start] @param {number} [end] positions; negative ones count from the end @returns {Promise<Uint32Array>} token ids of the text */
  async ids(start, end) {
    for (const [name, place] of Object.entries({ start, end })) checkPlace(name, place ?? 0)
    return /** @type {Uint32Array} */ ((await this.#act('ids', [start, end])).value)
  }

  /** @param {number} [start] @param {number} [end] positions; negative ones count from the end @returns {Promise<string>} special tokens print nothing */
  async text(start, end) {
    for (const [name, place] of Object.entries({ start, end })) checkPlace(name, place ?? 0)
    return String((await this.#act('text', [start, end])).value)
  }

  /** @returns {Promise<Float32Array>} [vocab_size] of what comes next */
  async logits() {
    return /** @type {Float32Array} */ ((await this.#act('logits', [])).value)
  }

  /** @param {number} [count] 1 to 64; default 10 @returns {Promise<import('./generate.js').Alternative[]>} the likeliest next ids, falling */
  async top(count = 10) {
    checkCount('count', count, 1, 64)
    const { value } = await this.#act('top', [count])
    return /** @type {import('./generate.js').Alternative[]} */ (value)
  }

  /**
   * How likely a text is to come next. The session stays as it is.
   *
   * @param {string | ArrayLike<number>} text
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<{ id: number, logprob: number | null }[]>} for each of its tokens the natural log of its probability after those before;
   *   null where nothing is before
   */
  async score(text, options = {}) {
    checkNames(options, ['signal'], 'score')
    const checked = checkText(text, this.#owner.vocabSize, 'text')
    const { value } = await this.#act('score', [checked], options)
    return /** @type {{ id: number, logprob: number | null }[]} */ (value)
  }

  /** Frees its memory; what is under way throws `closed`. May be called again. */
  async close() {
    this.#closed = true
    await this.#owner.engine.closeSession(this.#id)
  }

  async [Symbol.asyncDispose]() {
    await this.close()
  }

  static {
    sessionIn = (session, engine) => {
      if (session.#closed) throw new BmError('closed', 'the session was closed')
      if (engine === session.#owner.engine) return session.#id
      throw new BmError('argument', 'the session is of another model')
    }
    moveTo = (session, position) => {
      session.#position = position
    }
    endWith = (session, stats) => {
      session.#stats = stats
    }
  }

  /** @param {AbortSignal} [signal] @returns {Promise<Session>} */
  async #fork(signal) {
    const { value } = await this.#act('fork', [], { signal })
    return new Session(this.#owner, Number(value), this.#position)
  }

  /** @param {SessionGenerateOptions} options @param {number | null} [logprobs] */
  async *#continue(options, logprobs = null) {
    const settings = checkSessionGenerate(options, this.#owner.vocabSize)
    const { engine } = this.#owner
    const all = [{ ...settings, logprobs }]
    const stats = yield* continueSessions(engine, [this], all, options.signal)
    return /** @type {Stats} */ (stats[0])
  }

  /** @param {string | readonly ChatMessage[]} said @param {SessionGenerateOptions} options @param {number | null} [logprobs] */
  async *#reply(said, options, logprobs = null) {
    /** @type {unknown} */
    const messages = typeof said === 'string' ? [{ role: 'user', content: said }] : said
    const checked = checkMessages(messages, 'said')
    const settings = { ...checkSessionGenerate(options, this.#owner.vocabSize), logprobs }
    options.signal?.throwIfAborted()
    const { engine } = this.#owner
    const id = sessionIn(this, engine)
    const start = (/** @type {Stats[]} */ stats) =>
      engine.replyInSession(id, checked, settings, options.signal, stats)
    const all = yield* following([this], start)
    return /** @type {Stats} */ (all[0])
  }

  /**
   * @param {import('./session-host.js').SessionAction} action
   * @param {unknown[]} args
   * @param {{ signal?: AbortSignal | undefined }} [options]
   */
  async #act(action, args, { signal } = {}) {
    checkSignal(signal)
    signal?.throwIfAborted()
    if (this.#closed) throw new BmError('closed', 'the session was closed')
    const outcome = await this.#owner.engine.act(this.#id, action, args, signal)
    this.#position = outcome.position
    return outcome
  }
}

/** @param {GeneratedPiece} piece @returns {Token} */
function tokenOf({ id, text, logprob, top }) {
  return { id, text, logprob: logprob ?? null, top: top ?? [] }
}

/**
 * Continues sessions together; js/model.js and the sessions themselves use it.
 *
 * @param {AnyEngine} engine
 * @param {readonly Session[]} sessions of it, all different
 * @param {import('./settings.js').Settings[]} settings one for each
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<GeneratedPiece, Stats[], void>}
 */
export async function* continueSessions(engine, sessions, settings, signal) {
  signal?.throwIfAborted()
  const ids = sessions.map((session) => sessionIn(session, engine))
  return yield* following(sessions, (stats) =>
    engine.continueSessions(ids, settings, signal, stats),
  )
}

/**
 * Tells sessions how far they have come.
 *
 * @param {readonly Session[]} sessions by the lanes of the pieces
 * @param {(stats: Stats[]) => AsyncGenerator<GeneratedPiece, Stats[], void>} start  stats: gets one for each session, unless the work is refused
 * @returns {AsyncGenerator<GeneratedPiece, Stats[], void>}
 */
async function* following(sessions, start) {
  /** @type {Stats[]} */
  const all = []
  const pieces = start(all)
  try {
    for (;;) {
      const { done, value } = await pieces.next()
      if (done) return value
      moveTo(/** @type {Session} */ (sessions[value.lane]), value.position)
      yield value
    }
  } finally {
    await pieces.return(/** @type {never} */ (undefined))
    for (const [i, session] of sessions.entries()) {
      const stats = all[i]
      if (!stats) continue
      endWith(session, stats)
      if (stats.promptTokens > 0) moveTo(session, stats.promptTokens + stats.tokens)
    }
  }
}

/**
 * @template T, U, R
 * @param {AsyncGenerator<T, R, void>} items
 * @param {(item: T) => U | null} map null: left out
 * @returns {AsyncGenerator<U, R, void>}
 */
export async function* mapped(items, map) {
  try {
    for (;;) {
      const { done, value } = await items.next()
      if (done) return value
      const mappedTo = map(value)
      if (mappedTo !== null) yield mappedTo
    }
  } finally {
    await items.return(/** @type {never} */ (undefined))
  }
}
