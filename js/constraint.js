/**
 * Which tokens may come next when the text has a format.
 *
 * Owns the way from a format to masks over a model's vocabulary, what is kept of it between generations, and the place of one generation in its format. js/grammar/
 * does the work; it is loaded when a format is first used. Knows neither sampler nor session.
 * The idea: masks belong to states of the format, not to generations: a second text in the same format finds them made.
 */

import { BmError } from './errors.js'

/** @typedef {import('./text-format.js').TextFormat} TextFormat */
/** @typedef {import('./detokenizer.js').TokenBytes} TokenBytes */
/** @typedef {import('./grammar/token-trie.js').TokenTrie} TokenTrie */
/** @typedef {import('./grammar/walker.js').Walker} Walker */

/** The formats that were used last are kept. */
const MOST_FORMATS = 8

/** The formats of one model. */
export class Formats {
  #table
  #vocabSize
  /** @type {TokenTrie | null} */
  #trie = null
  /** @type {Map<string, PreparedFormat>} */
  #prepared = new Map()

  /** @param {TokenBytes | null} table @param {number} vocabSize */
  constructor(table, vocabSize) {
    this.#table = table
    this.#vocabSize = vocabSize
  }

  /**
   * @param {TextFormat | null} format
   * @returns {Promise<PreparedFormat | null>} null: of null
   * @throws {BmError} `argument`: what is wrong with it; `tokenizer`: the model has none
   */
  async prepare(format) {
    if (!format) return null
    const table = this.#table
    if (!table) {
      throw new BmError('tokenizer', 'the model file has no tokenizer: format needs one')
    }
    const key = JSON.stringify(format)
    const known = this.#prepared.get(key)
    this.#prepared.delete(key)
    const made = known ?? (await this.#make(format, table))
    this.#prepared.set(key, made)
    const [oldest = ''] = this.#prepared.keys()
    if (this.#prepared.size > MOST_FORMATS) this.#prepared.delete(oldest)
    return made
  }

  /** @param {TextFormat} format @param {TokenBytes} table */
  async #make(format, table) {
    // Late, as most programs use no format.
    const { FormatReader, TokenTrie } = await import('./grammar/format-reader.js')
    this.#trie ??= new TokenTrie(Array.from({ length: this.#vocabSize }, (_, id) => table.of(id)))
    return new PreparedFormat(new FormatReader(format, this.#trie), this.#trie, this.#vocabSize)
  }
}

/** A format that was read, for any number of generations. */
export class PreparedFormat {
  #reader
  #trie
  #vocabSize

  /** @param {import('./grammar/format-reader.js').FormatReader} reader @param {TokenTrie} trie @param {number} vocabSize */
  constructor(reader, trie, vocabSize) {
    this.#reader = reader
    this.#trie = trie
    this.#vocabSize = vocabSize
  }

  /**
   * @param {readonly number[]} ends  tokens that end the text
   * @param {boolean} atStart         of all text, where the tokenizer puts a space that is not printed
   * @returns {Constraint}
   */
  begin(ends, atStart) {
    const walker = atStart ? this.#reader.spaced() : this.#reader.plain
    return new Constraint(walker, this.#trie, { ends, vocabSize: this.#vocabSize })
  }
}

/** One generation's place in its format. */
class Constraint {
  #walker
  #trie
  #ends
  #mask
  #state

  /** @param {Walker} walker @param {TokenTrie} trie @param {{ ends: readonly number[], vocabSize: number }} options */
  constructor(walker, trie, { ends, vocabSize }) {
    this.#walker = walker
    this.#trie = trie
    this.#ends = ends.filter((id) => id < vocabSize)
    this.#mask = new Uint32Array(Math.ceil(vocabSize / 32))
    this.#state = walker.start()
  }

  /** @returns {boolean} whether the text is whole and nothing can follow */
  get isComplete() {
    return this.#state.items.length === 0
  }

  /** @returns {Uint32Array} bit id % 32 of word id / 32: whether the token may come next; valid until the next call */
  mask() {
    const mask = this.#mask
    mask.set(this.#trie.maskOf(this.#walker, this.#state))
    for (const id of this.#ends) {
      const bit = 1 << (id & 31)
      const word = Number(mask[id >>> 5])
      mask[id >>> 5] = this.#state.mayEnd ? word | bit : word & ~bit
    }
    return mask
  }

  /** @param {Uint8Array} bytes of a token that the mask has and that ends nothing */
  accept(bytes) {
    for (const byte of bytes) {
      const next = this.#walker.next(this.#state, byte)
      if (!next) throw new BmError('internal', 'a token that the format does not allow')
      this.#state = next
    }
  }
}
