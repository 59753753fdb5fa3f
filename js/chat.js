/**
 * A chat on a timeline: which tokens its messages are, and what was said.
 *
 * Owns the way from messages to what the timeline has to read. The template's text is js/chat-template.js's. Knows neither who asks nor how
 * a reply is sampled.
 * The idea: the whole chat is rendered anew for every message, and only what differs from the tokens that were read is read. So it does not
 * matter what a template does to earlier messages, and a reply whose tokens are not those that its text would have is put right.
 */

import { ChatTemplate, encodeParts } from './chat-template.js'
import { BmError } from './errors.js'
import { needTokenizer, promptIds } from './prompt-ids.js'

/** @typedef {import('./chat-template.js').ChatMessage} ChatMessage */
/** @typedef {import('./timeline.js').Timeline} Timeline */
/** @typedef {import('./timeline.js').Turn} Turn */

export class Chat {
  #header
  #tokenizer
  /** @type {Promise<ChatTemplate> | null} */
  #template = null

  /** @param {import('./format.js').PackedHeader} header @param {import('./tokenizer.js').Tokenizer | null} tokenizer */
  constructor(header, tokenizer) {
    this.#header = header
    this.#tokenizer = tokenizer
  }

  /** @returns {Promise<readonly string[]>} texts that end a reply, beside EOS */
  async stops() {
    return (await this.#open()).stops
  }

  /**
   * Lets a timeline read messages that follow what was said. When that fails or is aborted nothing has changed.
   *
   * @param {Timeline} timeline
   * @param {readonly ChatMessage[]} messages
   * @param {boolean} isAnswered by the model: then what comes before a reply is read too
   * @param {AbortSignal} [signal]
   */
  async read(timeline, messages, isAnswered, signal) {
    const { turns, position: start } = timeline
    if (turns.length === 0 && start > 0) {
      throw new BmError(
        'argument',
        `the session has ${start} tokens that are no chat: chat in a session that is empty`,
      )
    }
    const ids = await this.#ids([...turns, ...messages], isAnswered, signal)
    if (isAnswered && ids.length === 0) {
      throw new BmError('argument', 'the chat template makes no text of these messages')
    }
    let same = 0
    while (same < start && same < ids.length && timeline.ids.at(same) === ids[same]) same++
    await timeline.replace(same, start, ids.subarray(same), signal)
    const { position: end } = timeline
    timeline.turns = [...turns, ...messages.map((message) => ({ ...message, start, end }))]
  }

  /** The model has said something. @param {Timeline} timeline @param {string} text */
  add(timeline, text) {
    const { turns, position: end } = timeline
    const start = turns.at(-1)?.end ?? 0
    timeline.turns = [...turns, { role: 'assistant', content: text.trim(), start, end }]
  }

  /**
   * Takes back the last message of the user and all that followed.
   * @param {Timeline} timeline @param {AbortSignal} [signal]
   * @returns {Promise<string | null>} the message; null: there is none
   */
  async undo(timeline, signal) {
    const at = timeline.turns.findLastIndex(({ role }) => role === 'user')
    const turn = timeline.turns[at]
    if (!turn) return null
    const turns = timeline.turns.slice(0, at)
    const { position } = timeline
    await timeline.replace(Math.min(turn.start, position), position, [], signal)
    timeline.turns = turns
    return turn.content
  }

  /** @param {readonly ChatMessage[]} messages @param {boolean} isAnswered @param {AbortSignal} [signal] */
  async #ids(messages, isAnswered, signal) {
    const template = await this.#open()
    const said = messages.map(({ role, content }) => ({ role, content }))
    const parts = template.render(said, isAnswered)
    const tokenizer = needTokenizer({ tokenizer: this.#tokenizer })
    const ids = Uint32Array.from(await encodeParts(parts, tokenizer, signal))
    if (!template.isPlain) return ids
    const { bosId, addBos } = this.#header
    const bos = addBos && bosId !== null
    return promptIds({ bosId, addBos, tokenizer }, ids, bos, signal)
  }

  /** @returns {Promise<ChatTemplate>} */
  async #open() {
    const { chatTemplate, bosId, eosIds } = this.#header
    const { specials } = needTokenizer({ tokenizer: this.#tokenizer }).file
    const nameOf = (/** @type {number | null | undefined} */ id) =>
      specials.find((special) => special.id === id)?.text ?? ''
    const names = { bosToken: nameOf(bosId), eosToken: nameOf(eosIds[0]) }
    this.#template ??= ChatTemplate.create(chatTemplate, specials, names)
    return this.#template
  }
}
