/**
 * Text to token ids, by a tokenizer.json of one of two known shapes.
 *
 * Owns using @huggingface/tokenizers safely: what reaches it was checked by js/tokenizer-file.js, carries no regex of the
 * file's, and comes in short segments. Does not know the way back (js/detokenizer.js).
 * The idea that keeps long texts linear: a merge can only happen inside a piece of the vocabulary, so between two
 * characters that stand side by side in no piece nothing ever merges. Cutting there changes no token, and the library, whose
 * own cost grows with the length of what it is given, sees a few dozen characters at a time.
 */

import { BmError } from './errors.js'
import { breathe } from './platform.js'
import { wellFormed } from './settings.js'
import { readTokenizerFile } from './tokenizer-file.js'

/** @typedef {import('./tokenizer-file.js').TokenizerFile} TokenizerFile */
/** @typedef {{ encode: (text: string, options: { add_special_tokens: boolean }) => { ids: number[] } }} LibraryTokenizer */

/** Shorter segments cost a call each, longer ones miss the library's cache of words; 64 was the fastest measured. */
const MIN_SEGMENT = 64
/**
 * A run this long without a place to cut (a hundred pages of one letter) is cut anyway: the library needs about 100 bytes and
 * 5 us a character, and cannot be interrupted. Only there can the tokens differ from an uncut text's, at one place in 32 Ki.
 */
const MAX_SEGMENT = 1 << 15
/** UTF-16 units encoded before the event loop gets a turn. */
const BREATH_UNITS = 1 << 16

/**
 * @param {string} json the tokenizer.json
 * @param {{ paddedVocabSize: number, reservedIds: Iterable<number> }} model reservedIds: BOS and EOS, never made from text
 * @returns {Promise<Tokenizer>}
 * @throws {BmError} `tokenizer`
 */
export async function createTokenizer(json, model) {
  const file = readTokenizerFile(json, model)
  // Late, so that a model without a tokenizer needs no library; from dist/, because a page cannot resolve a package's name.
  const library = await import('../dist/tokenizers.mjs')
  return new Tokenizer(file, new library.Tokenizer(file.library, {}))
}

export class Tokenizer {
  #file
  #library
  #joined

  /** @param {TokenizerFile} file @param {LibraryTokenizer} library */
  constructor(file, library) {
    this.#file = file
    this.#library = library
    this.#joined = file.shape === 'sentencepiece' ? adjacentPairs(file) : null
  }

  /** What the way back needs. */
  get file() {
    return this.#file
  }

  /**
   * Special tokens in the text stay text. Lone surrogates become U+FFFD first.
   *
   * @param {string} text
   * @param {AbortSignal} [signal] checked every 64 Ki characters
   * @param {boolean} [isStart] of a text: then LLaMA's tokenizer puts a space before it; default true
   * @returns {Promise<number[]>}
   */
  async encode(text, signal, isStart = true) {
    /** @type {number[]} */
    const ids = []
    let units = 0
    for (const segment of this.#segments(this.#normalize(wellFormed(text), isStart))) {
      if (units >= BREATH_UNITS) {
        await breathe()
        units = 0
      }
      signal?.throwIfAborted()
      for (const id of this.#library.encode(segment, { add_special_tokens: false }).ids) {
        if (id === undefined)
          throw new BmError('internal', `no token for ${JSON.stringify(segment)}`)
        ids.push(id)
      }
      units += segment.length
    }
    return ids
  }

  /** @param {string} text @param {boolean} isStart @returns {string} what the merges work on */
  #normalize(text, isStart) {
    const { shape, prefix } = this.#file
    if (shape === 'bytelevel') return this.#file.nfc ? text.normalize('NFC') : text
    const marked = text.replaceAll(' ', '▁')
    if (marked === '' || prefix === 'never' || !isStart) return marked
    return prefix === 'missing' && marked.startsWith('▁') ? marked : `▁${marked}`
  }

  /** @param {string} text @returns {Iterable<string>} pieces between which nothing merges; together they are the text */
  #segments(text) {
    const segments = this.#joined
      ? cutBetweenPairs(text, this.#joined)
      : this.#file.cutAtSpace
        ? cutBeforeSpace(text)
        : [text]
    return cutLong(segments)
  }
}

/** @param {number} a @param {number} b @returns {number} one number for two code points */
const pairOf = (a, b) => a * 0x110000 + b

/** @param {TokenizerFile} file @returns {Set<number>} the pairs of characters that stand side by side in some token */
function adjacentPairs({ pieces }) {
  const pairs = new Set()
  for (const { text } of pieces.values()) {
    let before = -1
    for (const character of text) {
      const code = Number(character.codePointAt(0))
      if (before >= 0) pairs.add(pairOf(before, code))
      before = code
    }
  }
  return pairs
}

/** @param {string} text @param {Set<number>} joined @returns {Generator<string, void, void>} */
function* cutBetweenPairs(text, joined) {
  let start = 0
  let before = -1
  for (let i = 0; i < text.length; ) {
    const code = Number(text.codePointAt(i))
    if (i - start >= MIN_SEGMENT && !joined.has(pairOf(before, code))) {
      yield text.slice(start, i)
      start = i
    }
    before = code
    i += code > 0xffff ? 2 : 1
  }
  if (start < text.length) yield text.slice(start)
}

/**
 * In the byte-level pattern white space stands at the start of a word only, so a word always ends before it.
 *
 * @param {string} text
 * @returns {Generator<string, void, void>}
 */
function* cutBeforeSpace(text) {
  let start = 0
  for (const { index } of text.matchAll(/(?<=\S)\s/g)) {
    if (index - start < MIN_SEGMENT) continue
    yield text.slice(start, index)
    start = index
  }
  if (start < text.length) yield text.slice(start)
}

/** @param {Iterable<string>} segments @returns {Generator<string, void, void>} */
function* cutLong(segments) {
  for (const segment of segments) {
    let start = 0
    while (segment.length - start > MAX_SEGMENT) {
      // Not between the halves of a surrogate pair.
      const isPair = Number(segment.codePointAt(start + MAX_SEGMENT - 1)) > 0xffff
      const end = start + MAX_SEGMENT - (isPair ? 1 : 0)
      yield segment.slice(start, end)
      start = end
    }
    yield segment.slice(start)
  }
}
