/**
 * `bimamba chat`: a conversation at the terminal, or line by line from a pipe.
 *
 * Owns the commands that begin with a slash, and what Ctrl-C does: it stops a reply, and at the prompt it ends the chat. Replies go to stdout;
 * prompts and all else go to stderr.
 */

import { createInterface } from 'node:readline'
import { BmError, SessionStore } from '../index.js'
import { suggest } from '../settings.js'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  FORMAT_OPTIONS,
  MODEL_OPTIONS,
  readModelOptions,
  readTextSettings,
  settingOptions,
  UsageError,
} from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('../index.js').Session} Session */
/** @typedef {import('../settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba chat [options]

Says each line of the input to the model and prints what it says. Lines that begin with / are commands: /help shows them.
Ctrl-C stops a reply; at the prompt it ends the chat.`

export const OPTIONS = {
  ...MODEL_OPTIONS,
  ...settingOptions(),
  ...FORMAT_OPTIONS,
  system: { value: 'TEXT', help: 'what the model is told before the chat begins' },
  load: { value: 'NAME', help: 'go on with a chat that was saved' },
  sessions: { value: 'FOLDER', help: "where chats are saved (default: the user's data folder)" },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const value = (/** @type {string} */ name) => parsed.values.get(name)?.[0]
  const { source, load } = readModelOptions(parsed)
  const { seed, ...settings } = await readTextSettings(parsed)
  const folder = value('sessions')
  const store = new SessionStore(folder === undefined ? {} : { folder })
  const system = value('system')
  const saved = value('load')
  if (system !== undefined && saved !== undefined) {
    throw new UsageError('--system and --load: a saved chat has its own beginning')
  }
  const model = await openModel(source, load, io)
  try {
    const start = async () => {
      const session = await model.createSession(seed === undefined ? {} : { seed })
      if (system !== undefined)
        await session.say([{ role: 'system', content: system }], { signal: io.signal })
      return session
    }
    const first = saved === undefined ? await start() : await store.load(saved, model)
    await new Conversation({ model, store, settings, start, io }, first).run()
    return 0
  } finally {
    await model.close()
  }
}

/**
 * @typedef {object} ConversationParts
 * @property {BiMamba} model
 * @property {SessionStore} store
 * @property {GenerateOptions} settings
 * @property {() => Promise<Session>} start  a new chat
 * @property {Io} io
 */

/** @type {Record<string, { usage: string, about: string, run: (chat: Conversation, name: string) => Promise<void> }>} */
const COMMANDS = {
  help: { usage: '/help', about: 'show this', run: (chat) => chat.help() },
  save: { usage: '/save NAME', about: 'save the chat', run: (chat, name) => chat.save(name) },
  load: {
    usage: '/load NAME',
    about: 'go on with a saved chat',
    run: (chat, name) => chat.load(name),
  },
  list: { usage: '/list', about: 'show the saved chats', run: (chat) => chat.list() },
  undo: {
    usage: '/undo',
    about: 'take back your last message and the reply',
    run: (chat) => chat.undo(),
  },
  again: {
    usage: '/again',
    about: 'another reply to your last message',
    run: (chat) => chat.again(),
  },
  fork: {
    usage: '/fork',
    about: 'try something; /back returns to here',
    run: (chat) => chat.fork(),
  },
  back: { usage: '/back', about: 'return to where /fork was', run: (chat) => chat.back() },
  reset: { usage: '/reset', about: 'begin a new chat', run: (chat) => chat.reset() },
  quit: { usage: '/quit', about: 'end (also Ctrl-D)', run: (chat) => chat.quit() },
}

class Conversation {
  #parts
  /** The chats that forks were taken from, and the one that goes on, last. @type {Session[]} */
  #sessions
  /** @type {AbortController | null} of the reply that is being made */
  #reply = null
  #isOver = false

  /** @param {ConversationParts} parts @param {Session} session */
  constructor(parts, session) {
    this.#parts = parts
    this.#sessions = [session]
  }

  /** @returns {Session} */
  get #session() {
    return /** @type {Session} */ (this.#sessions.at(-1))
  }

  /** Until the input ends. */
  async run() {
    const { stdin, stderr, signal } = this.#parts.io
    const terminal =
      stderr.isTTY === true && /** @type {{ isTTY?: boolean }} */ (stdin).isTTY === true
    const lines = createInterface({ input: stdin, output: stderr, terminal, prompt: '> ' })
    const end = () => lines.close()
    signal.addEventListener('abort', end)
    lines.on('SIGINT', () => {
      if (this.#reply) this.#reply.abort()
      else end()
    })
    if (terminal) await this.#tell('Ctrl-C stops a reply, /help shows the commands.')
    if (terminal) lines.prompt()
    try {
      for await (const line of lines) {
        signal.throwIfAborted()
        await this.#take(line.trim())
        if (this.#isOver) break
        if (terminal) lines.prompt()
      }
      signal.throwIfAborted()
    } finally {
      signal.removeEventListener('abort', end)
      lines.close()
    }
  }

  /** What goes wrong is told, and the chat goes on. @param {string} line */
  async #take(line) {
    try {
      if (line.startsWith('/')) await this.#command(line)
      else if (line !== '') await this.#say(line)
    } catch (error) {
      if (this.#parts.io.signal.aborted || !(error instanceof BmError)) throw error
      await this.#tell(error.message)
    }
  }

  /** @param {string} line */
  async #command(line) {
    const [, name = '', argument = ''] = /^\/(\S*)\s*(.*)$/.exec(line) ?? []
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (!command) {
      const meant = suggest(name, Object.keys(COMMANDS))
      await this.#tell(
        `no command /${name}${meant ? `, did you mean /${meant}?` : ''}; /help shows all`,
      )
    } else if (command.usage.includes(' ') !== (argument !== '')) {
      await this.#tell(`want ${command.usage}`)
    } else {
      await command.run(this, argument)
    }
  }

  /** @param {string} content */
  async #say(content) {
    const { settings, io } = this.#parts
    const { stdout, signal } = io
    const reply = new AbortController()
    this.#reply = reply
    const options = { ...settings, signal: AbortSignal.any([signal, reply.signal]) }
    try {
      let isFirst = true
      for await (const piece of this.#session.chat(content, options)) {
        /** @type {string} */
        const text = isFirst ? piece.trimStart() : piece
        isFirst &&= text === ''
        await write(stdout, stdout.isTTY ? withoutControls(text) : text, signal)
      }
    } catch (error) {
      if (!reply.signal.aborted) throw error
    } finally {
      this.#reply = null
    }
    await write(stdout, '\n', signal)
  }

  async help() {
    const rows = Object.values(COMMANDS).map(({ usage, about }) => `  ${usage.padEnd(12)}${about}`)
    await this.#tell(rows.join('\n'))
  }

  /** @param {string} name */
  async save(name) {
    await this.#parts.store.save(name, this.#session)
    await this.#tell(`saved as ${name}: ${this.#session.position} tokens`)
  }

  /** @param {string} name */
  async load(name) {
    const { store, model } = this.#parts
    await this.#replace(await store.load(name, model))
    for (const { role, content } of (await this.#session.messages()).slice(-2)) {
      await this.#tell(`${role}: ${content}`)
    }
  }

  async list() {
    const kept = await this.#parts.store.list()
    const rows = kept.map(({ name, bytes, savedAt }) => {
      const megabytes = `${(bytes / 1e6).toFixed(1)} MB`
      return `  ${savedAt.toISOString().slice(0, 16).replace('T', ' ')}  ${megabytes.padStart(9)}  ${name}`
    })
    await this.#tell(rows.join('\n') || 'no chat is saved')
  }

  async undo() {
    const content = await this.#session.undo()
    await this.#tell(content === null ? 'there is nothing to take back' : `taken back: ${content}`)
  }

  async again() {
    const content = await this.#session.undo()
    if (content === null) await this.#tell('nothing was said yet')
    else await this.#say(content)
  }

  async fork() {
    this.#sessions.push(await this.#session.fork())
    await this.#tell(`in fork ${this.#sessions.length - 1}; /back returns`)
  }

  async back() {
    if (this.#sessions.length === 1) return this.#tell('in no fork')
    await this.#sessions.pop()?.close()
    await this.#tell('back where the fork was')
  }

  async reset() {
    await this.#replace(await this.#parts.start())
    await this.#tell('a new chat')
  }

  async quit() {
    this.#isOver = true
  }

  /** @param {Session} session in place of the one that goes on */
  async #replace(session) {
    await this.#sessions.pop()?.close()
    this.#sessions.push(session)
  }

  /** @param {string} text */
  async #tell(text) {
    const { stderr } = this.#parts.io
    await write(stderr, `${withoutControls(text)}\n`)
  }
}
