/**
 * Token ids to text, piece by piece.
 *
 * Owns the table from ids to bytes, the streaming decoder (a character split across tokens is held until it is whole), the one leading
 * space that LLaMA's tokenizer puts before a text, and stop strings across token borders. Knows no model and no library.
 * The idea: everything is bytes until the last step. Tokens give bytes, a TextDecoder gives whole characters, and the pieces
 * joined are exactly the decoding of all ids at once.
 */

import { byteCharacters, byteOfToken } from './tokenizer-file.js'

/** @typedef {import('./tokenizer-file.js').TokenizerFile} TokenizerFile */
/** @typedef {import('./tokenizer-file.js').Piece} Piece */

const NOTHING = new Uint8Array(0)
const SPACE = 0x20

/** The bytes of every token, in one block. Special tokens and holes have none. */
export class TokenBytes {
  #bytes
  /** Where token i begins; one more than there are ids. */
  #starts
  /** Whether a text begins with a space that its tokenizer put there. */
  leadingSpace

  /** @param {TokenizerFile} file */
  constructor({ shape, prefix, pieces }) {
    this.leadingSpace = prefix !== 'never'
    const bytesOf = shape === 'sentencepiece' ? sentencePieceBytes : byteLevelBytes()
    const count = greatest(pieces.keys()) + 1
    const parts = Array.from({ length: count }, (_, id) => {
      const piece = pieces.get(id)
      return piece ? bytesOf(piece) : NOTHING
    })
    this.#starts = new Uint32Array(count + 1)
    for (const [id, part] of parts.entries())
      this.#starts[id + 1] = Number(this.#starts[id]) + part.length
    this.#bytes = new Uint8Array(Number(this.#starts[count]))
    for (const [id, part] of parts.entries()) this.#bytes.set(part, this.#starts[id])
  }

  /** @param {number} id @returns {Uint8Array} valid for ever; not to be changed */
  of(id) {
    if (id + 1 >= this.#starts.length) return NOTHING
    return this.#bytes.subarray(this.#starts[id], this.#starts[id + 1])
  }
}

/** @param {Iterable<number>} numbers @returns {number} -1 when there are none */
function greatest(numbers) {
  let max = -1
  for (const number of numbers) max = Math.max(max, number)
  return max
}

/** @param {Piece} piece @returns {Uint8Array} */
function sentencePieceBytes({ text, literal }) {
  const byte = literal ? null : byteOfToken(text)
  return byte === null ? new TextEncoder().encode(text.replaceAll('▁', ' ')) : Uint8Array.of(byte)
}

/** @returns {(piece: Piece) => Uint8Array} */
function byteLevelBytes() {
  const bytes = byteCharacters()
  return ({ text, literal }) => {
    const known = [...text].map((character) => bytes.get(character))
    if (literal || known.includes(undefined)) return new TextEncoder().encode(text)
    return Uint8Array.from(known, Number)
  }
}

/** A character that is not whole has at most this many bytes. */
const MOST_PENDING = 3

/** Decodes one text, or the rest of one. */
export class Detokenizer {
  #table
  // A byte order mark is a character like any other here.
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  #atStart

  /**
   * @param {TokenBytes} table
   * @param {{ length: number, at: (index: number) => number | undefined }} [before] the ids before: what they leave open is completed
   */
  constructor(table, before = []) {
    this.#table = table
    this.#atStart = table.leadingSpace
    // Only the last bytes can leave a character open.
    let start = before.length
    for (let bytes = 0; start > 0 && bytes <= MOST_PENDING; start--) {
      bytes += table.of(Number(before.at(start - 1))).length
    }
    for (let i = start; i < before.length; i++) this.push(Number(before.at(i)))
  }

  /**
   * @param {number} id
   * @returns {string} the characters that this token completes; often, but not always, those of the token alone
   */
  push(id) {
    let bytes = this.#table.of(id)
    if (bytes.length === 0) return ''
    if (this.#atStart && bytes[0] === SPACE) bytes = bytes.subarray(1)
    this.#atStart = false
    return this.#decoder.decode(bytes, { stream: true })
  }

  /** @returns {boolean} whether a space that comes now is the tokenizer's own, and not printed */
  get atStart() {
    return this.#atStart
  }

  /** @returns {string} U+FFFD for a character that was never completed, else nothing */
  flush() {
    return this.#decoder.decode()
  }
}

/**
 * @param {TokenBytes} table
 * @param {ArrayLike<number>} ids
 * @param {Uint32Array} [before] the ids before: a character that they leave open belongs to the text
 * @returns {string}
 */
export function detokenize(table, ids, before) {
  const detokenizer = new Detokenizer(table, before)
  let text = ''
  for (let i = 0; i < ids.length; i++) text += detokenizer.push(Number(ids[i]))
  return text + detokenizer.flush()
}

/** Ends a text before the stop string that is complete first, wherever the pieces are cut. */
export class StopMatcher {
  #stops
  #held
  /** So much of what is held was given out before; a stop string that begins there has not ended yet. */
  #given
  /** True once a stop string was found; nothing is given out after that. */
  stopped = false

  /**
   * @param {readonly string[]} stops none of them empty
   * @param {{ text: string, given: number }} [before] the end of the text that is continued
   */
  constructor(stops, { text, given } = { text: '', given: 0 }) {
    this.#stops = stops
    this.#held = text
    this.#given = given
  }

  /**
   * @param {string} text
   * @returns {string} what can be given out: no stop string begins in it
   */
  push(text) {
    if (this.stopped) return ''
    this.#held += text
    const found = this.#firstStop()
    this.stopped = found >= 0
    const end = this.stopped ? found : this.#held.length - this.#possibleStart()
    const out = this.#held.slice(this.#given, end)
    this.#given = Math.max(0, this.#given - end)
    this.#held = this.stopped ? '' : this.#held.slice(end)
    return out
  }

  /** @returns {number} where the stop string begins that is complete first (of two, the longer); -1: none is */
  #firstStop() {
    let start = -1
    let end = Number.POSITIVE_INFINITY
    for (const stop of this.#stops) {
      const at = this.#held.indexOf(stop, Math.max(0, this.#given - stop.length + 1))
      if (at < 0 || at + stop.length > end) continue
      start = at + stop.length === end ? Math.min(start, at) : at
      end = at + stop.length
    }
    return start
  }

  /** @returns {number} UTF-16 units that are held back */
  get heldLength() {
    return Math.max(0, this.#held.length - this.#given)
  }

  /** @returns {string} what was held back in case a stop string followed */
  flush() {
    const out = this.#held.slice(this.#given)
    this.#given = this.#held.length
    return out
  }

  /** @returns {number} length of the longest end of the held text that begins a stop string */
  #possibleStart() {
    let longest = 0
    for (const stop of this.#stops) {
      for (let n = Math.min(stop.length - 1, this.#held.length); n > longest; n--) {
        if (this.#held.endsWith(stop.slice(0, n))) longest = n
      }
    }
    return longest
  }
}
