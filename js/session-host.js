/**
 * The sessions of a loaded model, on the engine's side.
 *
 * Owns their numbers, the snapshots, the rule that a session does one thing at a time, and what each action means. js/session.js is what
 * callers hold; it has checked the arguments. Knows nothing of messages; js/timeline.js does the work.
 */

import { Chat } from './chat.js'
import { Detokenizer, detokenize } from './detokenizer.js'
import { BmError } from './errors.js'
import { evaluate, generate, likeliest, newStats } from './generate.js'
import { promptIds } from './prompt-ids.js'
import { persist } from './recovery.js'
import { readSessionFile, writeSessionFile } from './session-file.js'
import { Timeline } from './timeline.js'

/** @typedef {import('./generate.js').GeneratedPiece} GeneratedPiece */
/** @typedef {import('./generate.js').Stats} Stats */
/** @typedef {import('./settings.js').Settings} Settings */

/**
 * @typedef {object} SessionHostParts
 * @property {import('./core.js').Core} core
 * @property {import('./generate.js').AnyModel} model
 * @property {import('./format.js').PackedHeader} header
 * @property {import('./tokenizer.js').Tokenizer | null} tokenizer
 * @property {import('./detokenizer.js').TokenBytes | null} table
 * @property {import('./constraint.js').Formats} formats
 * @property {import('./timeline.js').StateOptions} options
 * @property {(() => import('./core-session.js').CoreSession) | undefined} drafts  a session of a smaller model, which guesses
 */

/** @typedef {import('./recovery.js').Recover} Recover */
/** @typedef {{ seed: number, checkpointBytes: number }} SessionOptions */

/** What a session's owner is told after every action. @typedef {{ value: unknown, position: number }} Outcome */

/** @typedef {keyof typeof ACTIONS} SessionAction */

export class SessionHost {
  /** @type {SessionHostParts} */
  #parts
  /** @type {Map<number, Timeline>} */
  #timelines = new Map()
  /** @type {Map<number, import('./timeline.js').Snapshot>} */
  #snapshots = new Map()
  /** @type {Set<Timeline>} that do something */
  #busy = new Set()
  #lastId = 0
  #recover

  /** @param {SessionHostParts} parts @param {Recover} recover  it calls `moveTo` */
  constructor(parts, recover) {
    this.#parts = parts
    this.#recover = recover
    this.chat = new Chat(parts.header, parts.tokenizer)
  }

  get parts() {
    return this.#parts
  }

  /** What computed is gone. @param {import('./generate.js').AnyModel} model the same one, elsewhere; when it fails nothing has moved */
  async moveTo(model) {
    /** @type {Map<Timeline, import('./timeline.js').AnySession>} */
    const sessions = new Map()
    for (;;) {
      const next = [...this.#timelines.values()].find((timeline) => !sessions.has(timeline))
      if (!next) break
      sessions.set(next, await model.createSession(this.#parts.options))
    }
    this.#parts = { ...this.#parts, model }
    const open = new Set(this.#timelines.values())
    for (const [timeline, session] of sessions) {
      if (open.has(timeline)) timeline.moveTo(session)
      else session.close()
    }
  }

  /** @param {SessionOptions} options @returns {Promise<number>} a new session, at position 0 */
  async create(options) {
    return this.#add(await this.newTimeline(options))
  }

  /** @param {SessionOptions} options @returns {Promise<Timeline>} that is nobody's yet */
  async newTimeline(options) {
    /** @returns {Promise<import('./timeline.js').AnySession>} */
    const create = async () => {
      const { model, options } = this.#parts
      const session = await model.createSession(options)
      if (model === this.#parts.model) return session
      session.close() // it would be left behind
      return create()
    }
    const session = await this.#recovering(create)
    return new Timeline(session, options)
  }

  /**
   * What leaves everything as it was when it fails is done again where what computed is gone and another one takes over.
   *
   * @template T
   * @param {() => T | Promise<T>} work
   * @returns {Promise<T>}
   */
  #recovering(work) {
    return persist(this.#recover, work)
  }

  /**
   * @param {number} id
   * @param {SessionAction} action
   * @param {unknown[]} args
   * @param {AbortSignal} [signal]
   * @returns {Promise<Outcome>}
   */
  async act(id, action, args, signal) {
    const timeline = this.#open(id)
    // Each action knows its arguments; js/session.js gave them.
    const perform = /** @type {(...args: unknown[]) => unknown} */ (ACTIONS[action])
    const value = await this.#whileBusy([timeline], () =>
      this.#recovering(() => perform({ host: this, timeline, signal }, ...args)),
    )
    return { value, position: timeline.position }
  }

  /**
   * Continues several sessions together.
   *
   * @param {number[]} ids all different
   * @param {Settings[]} settings one for each
   * @param {Stats[]} stats gets one for each when the work begins: what is refused has none
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<GeneratedPiece, void, void>}
   */
  async *generate(ids, settings, stats, signal) {
    yield* this.#exclusive(ids, { settings, stats, signal }, async function* (host, timelines) {
      const formats = await host.#prepare(settings)
      for (const timeline of timelines) {
        // A text from nothing begins with BOS.
        if (timeline.position > 0) continue
        await host.#recovering(() => host.append(timeline, '', null, signal))
      }
      yield* host.#continue(timelines, { settings, formats, stats }, signal)
    })
  }

  /**
   * Says something, and continues with what the model says to it.
   *
   * @param {number} id
   * @param {readonly import('./chat-template.js').ChatMessage[]} messages
   * @param {Settings} settings
   * @param {Stats[]} stats as for `generate`
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<GeneratedPiece, void, void>}
   */
  async *reply(id, messages, settings, stats, signal) {
    const job = { settings: [settings], stats, signal }
    yield* this.#exclusive([id], job, async function* (host, [timeline]) {
      if (!timeline) return
      const formats = await host.#prepare([settings])
      await host.#recovering(() => host.chat.read(timeline, messages, true, signal))
      // A format says itself where its text ends.
      const stop = settings.format ? [] : [...settings.stop, ...(await host.chat.stops())]
      const one = { settings: [{ ...settings, stop }], formats, stats }
      let text = ''
      try {
        for await (const piece of host.#continue([timeline], one, signal)) {
          // A template may leave the space before the first word to the model.
          const isSpaced = text === '' && !settings.format
          const told = isSpaced ? piece.text.trimStart() : piece.text
          text += told
          yield { ...piece, text: told }
        }
      } finally {
        host.chat.add(timeline, text)
      }
    })
  }

  /** Formats are read before anything else is done, so that a bad one changes nothing. @param {Settings[]} settings */
  async #prepare(settings) {
    const formats = []
    for (const { format } of settings) formats.push(await this.#parts.formats.prepare(format))
    return formats
  }

  /**
   * @param {Timeline[]} timelines
   * @param {{ settings: Settings[], formats: (import('./constraint.js').PreparedFormat | null)[], stats: Stats[] }} each one for each
   * @param {AbortSignal} [signal]
   */
  async *#continue(timelines, { settings, formats, stats }, signal) {
    const { model, header, table, drafts } = this.#parts
    const lanes = timelines.map((timeline, i) => ({
      timeline,
      settings: /** @type {Settings} */ (settings[i]),
      format: formats[i] ?? null,
      stats: /** @type {Stats} */ (stats[i]),
    }))
    const recover = this.#recover
    const job = { model, lanes, eosIds: header.eosIds, table, isLast: false, recover, drafts }
    yield* generate(signal ? { ...job, signal } : job)
  }

  /**
   * Work on sessions that do nothing else meanwhile; it fails with `closed` when one of them is closed.
   *
   * @param {number[]} ids
   * @param {{ settings: Settings[], stats: Stats[], signal: AbortSignal | undefined }} job stats: empty
   * @param {(host: SessionHost, timelines: Timeline[]) => AsyncGenerator<GeneratedPiece, void, void>} start
   * @returns {AsyncGenerator<GeneratedPiece, void, void>}
   */
  async *#exclusive(ids, { settings, stats, signal }, start) {
    const timelines = ids.map((id) => this.#open(id))
    const release = this.#take(timelines)
    stats.push(...settings.map(({ seed }) => newStats(seed ?? 0)))
    const pieces = start(this, timelines)
    const check = () => {
      for (const id of ids) this.#open(id)
    }
    try {
      for await (const piece of pieces) {
        yield piece
        check()
      }
    } catch (error) {
      if (!signal?.aborted) for (const one of stats) one.finishReason = 'error'
      check()
      throw error
    } finally {
      release()
    }
  }

  /**
   * @param {Timeline} timeline
   * @param {string | Uint32Array} text or ids
   * @param {boolean | null} bos null: at the beginning, as the file says
   * @param {AbortSignal} [signal]
   * @returns {Promise<number>} tokens that were read
   */
  async append(timeline, text, bos, signal) {
    const ids = await this.encode(text, bos, this.before(timeline), signal)
    return timeline.replace(timeline.position, timeline.position, ids, signal)
  }

  /**
   * @param {string | Uint32Array} text
   * @param {boolean | null} bos null: where nothing is before, as the file says
   * @param {{ count: number, hasText: boolean }} before tokens
   * @param {AbortSignal} [signal]
   */
  async encode(text, bos, { count, hasText }, signal) {
    const wantsBos = count > 0 ? (bos ?? false) : bos
    if (text.length === 0 && wantsBos === false) return new Uint32Array(0)
    const { header, tokenizer } = this.#parts
    const { bosId, addBos } = header
    return promptIds({ bosId, addBos, tokenizer }, text, wantsBos, signal, !hasText)
  }

  /** @param {Timeline} timeline @param {number} [count] @returns {{ count: number, hasText: boolean }} what is before a place in it */
  before({ ids }, count = ids.length) {
    const { table } = this.#parts
    let hasText = false
    for (let i = 0; i < count && !hasText; i++) hasText = (table?.of(ids.at(i)).length ?? 1) > 0
    return { count, hasText }
  }

  /** @param {Timeline} timeline @param {AbortSignal} [signal] @returns {Promise<number>} a session that is the same; what happens to one does not to the other */
  async fork(timeline, signal) {
    return this.#add(await this.copy(timeline, signal))
  }

  /** @param {Timeline} timeline @param {AbortSignal} [signal] @returns {Promise<Timeline>} the same, settled, and nobody's yet */
  async copy(timeline, signal) {
    for (;;) {
      await timeline.settleAll(signal)
      const copy = await this.newTimeline({ seed: timeline.seed, checkpointBytes: 0 })
      try {
        // With its session what computes may have become another one, which has not read the text.
        if (!timeline.isStale) {
          copy.copyOf(timeline)
          return copy
        }
      } catch (error) {
        copy.close()
        throw error
      }
      copy.close()
    }
  }

  /** @param {Timeline} timeline settled @returns {Promise<number>} */
  async snapshot(timeline) {
    const id = ++this.#lastId
    this.#snapshots.set(id, await timeline.snapshot())
    return id
  }

  /** @param {Timeline} timeline @param {number} id */
  restore(timeline, id) {
    const snapshot = this.#snapshots.get(id)
    if (!snapshot) throw new BmError('closed', 'the snapshot was closed')
    timeline.restore(snapshot)
  }

  /** @param {number} id */
  closeSnapshot(id) {
    this.#snapshots.delete(id)
  }

  /**
   * @param {Uint8Array} bytes of a saved session
   * @param {{ checkpointBytes: number }} options
   * @returns {Promise<{ id: number, position: number }>}
   */
  async load(bytes, { checkpointBytes }) {
    const { core, header, options } = this.#parts
    const saved = await readSessionFile(bytes, { core, header, state: options.state })
    const timeline = await this.newTimeline({ seed: saved.seed, checkpointBytes })
    try {
      timeline.begin(saved)
    } catch (error) {
      timeline.close()
      throw error
    }
    return { id: this.#add(timeline), position: timeline.position }
  }

  /** @returns {{ sessions: number, snapshots: number, keptBytes: number }} keptBytes: of the states of snapshots and checkpoints */
  memory() {
    const states = new Set()
    for (const timeline of this.#timelines.values())
      for (const one of timeline.states) states.add(one)
    for (const { state, checkpoints } of this.#snapshots.values()) {
      for (const one of [state, ...checkpoints.states]) states.add(one)
    }
    const keptBytes = [...states].reduce((sum, { length }) => sum + length, 0)
    return { sessions: this.#timelines.size, snapshots: this.#snapshots.size, keptBytes }
  }

  /** What is under way fails with `closed`. @param {number} id */
  close(id) {
    this.#timelines.get(id)?.close()
    this.#timelines.delete(id)
  }

  /** All of them. */
  closeAll() {
    for (const id of [...this.#timelines.keys()]) this.close(id)
    this.#snapshots.clear()
  }

  /** @param {Timeline} timeline */
  #add(timeline) {
    const id = ++this.#lastId
    this.#timelines.set(id, timeline)
    return id
  }

  /** @param {number} id */
  #open(id) {
    const timeline = this.#timelines.get(id)
    if (!timeline) throw new BmError('closed', 'the session was closed')
    return timeline
  }

  /**
   * @template T
   * @param {Timeline[]} timelines
   * @param {() => T | Promise<T>} work
   */
  async #whileBusy(timelines, work) {
    const release = this.#take(timelines)
    try {
      return await work()
    } finally {
      release()
    }
  }

  /** @param {Timeline[]} timelines @returns {() => void} */
  #take(timelines) {
    if (timelines.some((timeline) => this.#busy.has(timeline))) {
      throw new BmError('busy', 'the session is already at work: one thing at a time')
    }
    for (const timeline of timelines) this.#busy.add(timeline)
    return () => {
      for (const timeline of timelines) this.#busy.delete(timeline)
    }
  }
}

/** @typedef {{ host: SessionHost, timeline: Timeline, signal: AbortSignal | undefined }} Context */

/** What can be done with a session, by name. */
const ACTIONS = {
  /** @param {Context} context @param {string | Uint32Array} text @param {boolean | null} bos */
  append({ host, timeline, signal }, text, bos) {
    return host.append(timeline, text, bos, signal)
  },

  /** @param {Context} context @param {number} position */
  async rewind({ timeline, signal }, position) {
    const at = placeIn(timeline, 'position', position)
    return timeline.replace(at, timeline.position, [], signal)
  },

  /** @param {Context} context @param {number} start @param {number} end @param {string | Uint32Array} text */
  async edit({ host, timeline, signal }, start, end, text) {
    const from = placeIn(timeline, 'start', start)
    const to = placeIn(timeline, 'end', end)
    if (from > to) throw new BmError('argument', `start is ${start}, which is behind end, ${end}`)
    const ids = await host.encode(text, false, host.before(timeline, from), signal)
    return timeline.replace(from, to, ids, signal)
  },

  /** @param {Context} context */
  fork({ host, timeline, signal }) {
    return host.fork(timeline, signal)
  },

  /** @param {Context} context */
  async snapshot({ host, timeline, signal }) {
    await timeline.settle(signal)
    return host.snapshot(timeline)
  },

  /** @param {Context} context @param {number} id of the snapshot */
  restore({ host, timeline }, id) {
    host.restore(timeline, id)
  },

  /** @param {Context} context @param {import('./core.js').StoredType | null} type null: as the session has it */
  async save({ host, timeline, signal }, type) {
    await timeline.settle(signal)
    const { core, header, options } = host.parts
    return writeSessionFile(await timeline.snapshot(), { core, header, ...options }, type)
  },

  /** @param {Context} context @param {number} [start] @param {number} [end] */
  ids({ timeline }, start = 0, end = timeline.position) {
    return timeline.ids.slice(placeIn(timeline, 'start', start), placeIn(timeline, 'end', end))
  },

  /** @param {Context} context @param {number} [start] @param {number} [end] */
  text({ host, timeline }, start = 0, end = timeline.position) {
    const { table } = host.parts
    if (!table) throw new BmError('tokenizer', 'the model file has no tokenizer: it has ids only')
    const from = placeIn(timeline, 'start', start)
    const ids = timeline.ids.slice(from, placeIn(timeline, 'end', end))
    return detokenize(table, ids, timeline.ids.slice(0, from))
  },

  /** @param {Context} context */
  async logits({ timeline, signal }) {
    needTokens(timeline)
    await timeline.settle(signal)
    await timeline.session.prepareLogits()
    return timeline.session.logits()
  },

  /** @param {Context} context @param {number} count */
  async top({ host, timeline, signal }, count) {
    needTokens(timeline)
    await timeline.settle(signal)
    await timeline.session.prepareLogits()
    return likeliest(timeline.session, count, host.parts.table)
  },

  /** @param {Context} context @param {import('./chat-template.js').ChatMessage[]} messages */
  async say({ host, timeline, signal }, messages) {
    await host.chat.read(timeline, messages, false, signal)
  },

  /** @param {Context} context */
  messages({ timeline }) {
    return timeline.turns.map(({ role, content }) => ({ role, content }))
  },

  /** @param {Context} context */
  undo({ host, timeline, signal }) {
    return host.chat.undo(timeline, signal)
  },

  /** @param {Context} context @param {string | Uint32Array} text @param {boolean | null} bos @param {number} count of alternatives */
  async read({ host, timeline, signal }, text, bos, count) {
    const ids = await host.encode(text, bos, host.before(timeline), signal)
    await timeline.settle(signal)
    const before = timeline.position > 0 ? await timeline.snapshot() : null
    try {
      // What was held back is followed by something else.
      if (ids.length > 0) timeline.truncate(timeline.position)
      for (const id of ids) timeline.push(id)
      return await readAll({ host, timeline, signal }, count)
    } catch (error) {
      if (before) timeline.restore(before)
      else timeline.truncate(0)
      throw error
    }
  },

  /** @param {Context} context @param {string | Uint32Array} text */
  async score({ host, timeline, signal }, text) {
    const ids = await host.encode(text, null, host.before(timeline), signal)
    const copy = await host.copy(timeline, signal)
    try {
      for (const id of ids) copy.push(id)
      const tokens = await readAll({ host, timeline: copy, signal }, 0)
      return tokens.map(({ id, logprob }) => ({ id, logprob }))
    } finally {
      copy.close()
    }
  },
}

/**
 * Reads what a timeline has not read, and tells what the model thought of it.
 *
 * @param {Context} context
 * @param {number} count of alternatives to each token
 * @returns {Promise<import('./session.js').Token[]>}
 */
async function readAll({ host, timeline, signal }, count) {
  const { table, header } = host.parts
  const { vocab_size: vocabSize } = header.config
  const top = count > 0 ? { top: { count, table } } : {}
  const job = { timeline, vocabSize, logits: false, ...top, ...(signal ? { signal } : {}) }
  const decoder = table && new Detokenizer(table, timeline.ids.slice(0, timeline.session.position))
  const tokens = []
  for await (const batch of evaluate(job)) {
    for (const { id, logprob, top = [] } of batch)
      tokens.push({ id, text: decoder?.push(id) ?? '', logprob, top })
  }
  return tokens
}

/** @param {Timeline} timeline */
function needTokens(timeline) {
  if (timeline.position > 0) return
  throw new BmError('argument', 'the session is empty: nothing comes next')
}

/** @param {Timeline} timeline @param {string} name @param {number} place a negative one counts from the end @returns {number} */
function placeIn({ position }, name, place) {
  if (place >= -position && place <= position) return place < 0 ? position + place : place
  throw new BmError(
    'argument',
    `${name} is ${place}, want an integer from ${-position} to ${position}`,
  )
}
