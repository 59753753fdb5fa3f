/**
 * From the messages of a chat to the text that a model was trained on.
 *
 * Owns the two forms, a model's own Jinja template and plain text, and the rule that special tokens come from the template alone. Knows no
 * session. The template language is a library's, js/chat.js says what is done with the text.
 * The idea of the rule: before rendering, a mark that no text can hold is put into every special token's name that occurs in a message, and
 * where a message's edge could be a part of one. What is found in the rendered text then is the template's; the marks are taken out again.
 */

import { BmError, reasonOf } from './errors.js'

/** @typedef {import('./tokenizer-file.js').SpecialToken} SpecialToken */

/** @typedef {'system' | 'user' | 'assistant'} Role */
/** @typedef {{ role: Role, content: string }} ChatMessage */
/** A special token, or text in which all is text. @typedef {{ id: number } | { text: string }} Part */
/** @typedef {{ render: (values: Record<string, unknown>) => string }} Renderer */

/** @type {readonly string[]} */
const ROLES = ['system', 'user', 'assistant']
const MOST_MESSAGES = 10000
const MOST_TEMPLATE = 65536
const MOST_TEXT = 2 ** 26
/** Noncharacters: no text that is meant for people has them. */
const MARKS = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i))

/**
 * @param {unknown} value
 * @param {string} where for the message
 * @returns {ChatMessage[]} a copy
 * @throws {BmError} `argument`
 */
export function checkMessages(value, where) {
  if (!Array.isArray(value) || value.length > MOST_MESSAGES) {
    throw new BmError('argument', `${where}: want an array of up to ${MOST_MESSAGES} messages`)
  }
  return value.map((message, i) => {
    const { role, content, ...others } = Object(message)
    if (!ROLES.includes(role)) {
      throw new BmError(
        'argument',
        `${where}[${i}].role is ${JSON.stringify(role)}, want ${ROLES.join(', ')}`,
      )
    }
    if (typeof content !== 'string') {
      throw new BmError('argument', `${where}[${i}].content is ${typeof content}, want a string`)
    }
    const [unknown] = Object.keys(others)
    if (unknown !== undefined) {
      throw new BmError('argument', `${where}[${i}]: unknown key '${unknown}'`)
    }
    return { role, content }
  })
}

export class ChatTemplate {
  #renderer
  #specials
  #names

  /**
   * @param {Renderer} renderer
   * @param {readonly SpecialToken[]} specials
   * @param {{ bosToken: string, eosToken: string }} names
   */
  constructor(renderer, specials, names) {
    this.#renderer = renderer
    // A mark can be put into no name of one character: such tokens are not looked for. Of two names the longer one counts.
    this.#specials = specials
      .filter(({ text }) => text.length > 1)
      .sort((a, b) => b.text.length - a.text.length)
    this.#names = names
    /** Texts that end a reply. @type {readonly string[]} */
    this.stops = renderer === PLAIN ? ['\nUser:'] : []
    /** Whether the text has to begin with BOS, as all texts of the model do. */
    this.isPlain = renderer === PLAIN
  }

  /**
   * @param {string | null} source the model's template, in Jinja; null: plain text
   * @param {readonly SpecialToken[]} specials of the tokenizer
   * @param {{ bosToken?: string, eosToken?: string }} [names] as the template wants them
   * @returns {Promise<ChatTemplate>}
   * @throws {BmError} `tokenizer`: the template cannot be read
   */
  static async create(source, specials, { bosToken = '', eosToken = '' } = {}) {
    const renderer = source === null ? PLAIN : await compile(source)
    return new ChatTemplate(renderer, specials, { bosToken, eosToken })
  }

  /**
   * @param {readonly ChatMessage[]} messages
   * @param {boolean} addGenerationPrompt ends with what comes before a reply
   * @returns {Part[]} no text in it is empty
   * @throws {BmError} `argument`: what the template itself refuses; `tokenizer`: it fails
   */
  render(messages, addGenerationPrompt) {
    const mark = MARKS.find((one) => !messages.some(({ content }) => content.includes(one)))
    if (mark === undefined) {
      throw new BmError('argument', 'the messages have all of the noncharacters U+FDD0 to U+FDEF')
    }
    const marked = messages.map(({ role, content }) => ({
      role,
      content: this.#withMarks(content, mark),
    }))
    const { bosToken, eosToken } = this.#names
    const text = run(this.#renderer, {
      messages: marked,
      add_generation_prompt: addGenerationPrompt,
      bos_token: bosToken,
      eos_token: eosToken,
    })
    return this.#split(text, mark)
  }

  /** @param {string} content @param {string} mark @returns {string} in which no special token's name is, nor at its edges a part of one */
  #withMarks(content, mark) {
    let marked = ''
    for (let i = 0; i < content.length; i++) {
      marked += content[i]
      if (this.#specials.some(({ text }) => content.startsWith(text, i))) marked += mark
    }
    // A template may take white space off the edges.
    const core = marked.trim()
    if (core === '') return marked
    const start = marked.indexOf(core)
    const end = start + core.length
    const before = this.#specials.some(({ text }) => beginsAsEndOf(core, text)) ? mark : ''
    const after = this.#specials.some(({ text }) => endsAsBeginningOf(core, text)) ? mark : ''
    return marked.slice(0, start) + before + core + after + marked.slice(end)
  }

  /** @param {string} text @param {string} mark @returns {Part[]} */
  #split(text, mark) {
    /** @type {Part[]} */
    const parts = []
    let start = 0
    const push = (/** @type {number} */ end) => {
      const piece = text.slice(start, end).replaceAll(mark, '')
      if (piece !== '') parts.push({ text: piece })
    }
    for (let at = 0; at < text.length; ) {
      const special = this.#specials.find((one) => text.startsWith(one.text, at))
      if (!special) {
        at++
        continue
      }
      push(at)
      parts.push({ id: special.id })
      at += special.text.length
      start = at
    }
    push(text.length)
    return parts
  }
}

/**
 * @param {readonly Part[]} parts
 * @param {import('./tokenizer.js').Tokenizer} tokenizer
 * @param {AbortSignal} [signal]
 * @returns {Promise<number[]>}
 */
export async function encodeParts(parts, tokenizer, signal) {
  const ids = []
  for (const part of parts) {
    if ('id' in part) ids.push(part.id)
    else for (const id of await tokenizer.encode(part.text, signal)) ids.push(id)
  }
  return ids
}

/** @param {string} text @param {string} special @returns {boolean} whether something before the text could make a special token of its beginning */
function beginsAsEndOf(text, special) {
  if (special.includes(text)) return true
  for (let i = 1; i < special.length; i++) if (text.startsWith(special.slice(i))) return true
  return false
}

/** @param {string} text @param {string} special @returns {boolean} whether something behind the text could make a special token of its end */
function endsAsBeginningOf(text, special) {
  if (special.includes(text)) return true
  for (let i = 1; i < special.length; i++) if (text.endsWith(special.slice(0, i))) return true
  return false
}

/** What a model without a template is given. @type {Renderer} */
const PLAIN = {
  render({ messages, add_generation_prompt: addGenerationPrompt }) {
    const lines = /** @type {ChatMessage[]} */ (messages).map(({ role, content }) => {
      if (role === 'system') return `${content.trim()}\n\n`
      return `${role === 'user' ? 'User' : 'Assistant'}: ${content.trim()}\n`
    })
    return lines.join('') + (addGenerationPrompt ? 'Assistant:' : '')
  },
}

/** @param {string} source @returns {Promise<Renderer>} */
async function compile(source) {
  if (source.length > MOST_TEMPLATE) {
    throw new BmError(
      'tokenizer',
      `the chat template has ${source.length} characters, want at most ${MOST_TEMPLATE}`,
    )
  }
  // Late, as most programs never chat; from dist/, because a page cannot resolve a package's name.
  const { Environment, Interpreter, parse, tokenize } = await import('../dist/jinja.mjs')
  try {
    const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }))
    return {
      render(values) {
        const scope = new Environment()
        for (const [name, value] of Object.entries(values)) scope.set(name, value)
        const { value } = /** @type {{ value: string }} */ (new Interpreter(scope).run(program))
        return value
      },
    }
  } catch (cause) {
    throw new BmError('tokenizer', `the chat template: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {Renderer} renderer @param {Record<string, unknown>} values @returns {string} */
function run(renderer, values) {
  /** @type {BmError | null} what the template itself has thrown */
  let refusal = null
  const raise = (/** @type {unknown} */ reason) => {
    refusal = new BmError('argument', `the chat template refuses the messages: ${reason}`)
    throw refusal
  }
  let text = ''
  try {
    text = renderer.render({ ...CONSTANTS, ...values, raise_exception: raise, range: boundedRange })
  } catch (cause) {
    throw refusal ?? new BmError('tokenizer', `the chat template: ${reasonOf(cause)}`, { cause })
  }
  if (text.length <= MOST_TEXT) return text
  throw new BmError('argument', `the chat has ${text.length} characters, want at most ${MOST_TEXT}`)
}

/** What the language has, the functions apart. */
const CONSTANTS = { true: true, false: false, none: null, True: true, False: false, None: null }

/** A list longer than this has nothing to do with messages, and would take all memory. */
const MOST_RANGE = 100000

/** As Python's. @param {number} start @param {number} [stop] @param {number} [step] @returns {number[]} */
function boundedRange(start, stop, step = 1) {
  const [from, to] = stop === undefined ? [0, start] : [start, stop]
  const count = Math.max(0, Math.ceil((to - from) / step))
  if (!(count <= MOST_RANGE))
    throw new Error(`range of ${count} numbers, want at most ${MOST_RANGE}`)
  return Array.from({ length: count }, (_, i) => from + i * step)
}
