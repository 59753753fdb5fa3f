/**
 * The entry of this folder: a format, ready to be walked over.
 *
 * Owns which notation is read by which file, and the space before a text. Knows no session.
 */

import { BmError } from '../errors.js'
import { buildAutomaton } from './automaton.js'
import { readGrammar } from './ebnf.js'
import { literal, rule, sequence } from './expression.js'
import { readJsonSchema } from './json-schema.js'
import { readRegex } from './regex.js'
import { Walker } from './walker.js'

/** @typedef {import('./expression.js').Expression} Expression */
/** What js/text-format.js has checked. @typedef {{ jsonSchema: unknown } | { regex: string } | { grammar: string }} PlainFormat */

export { TokenTrie } from './token-trie.js'

export class FormatReader {
  #rules
  #trie
  #name
  /** @type {Walker | null} */
  #spaced = null

  /**
   * @param {PlainFormat} format
   * @param {import('./token-trie.js').TokenTrie} trie
   * @throws {BmError} `argument`
   */
  constructor(format, trie) {
    this.#trie = trie
    this.#name = `format.${Object.keys(format)[0]}`
    this.#rules = rulesOf(format)
    /** For texts that follow other text. */
    this.plain = this.#walker('root')
  }

  /** @returns {Walker} for texts behind a space that is not printed: LLaMA's tokenizer puts one before all text */
  spaced() {
    this.#rules.set('(spaced)', sequence(literal(' '), rule('root')))
    this.#spaced ??= this.#walker('(spaced)')
    return this.#spaced
  }

  /** @param {string} root */
  #walker(root) {
    const hasByte = (/** @type {number} */ byte) => this.#trie.hasByte(byte)
    const automaton = buildAutomaton(this.#rules, root, hasByte, this.#name)
    if (automaton) return new Walker(automaton)
    throw new BmError('argument', `${this.#name} allows no text that this model can write`)
  }
}

/** @param {PlainFormat} format @returns {Map<string, Expression>} */
function rulesOf(format) {
  if ('jsonSchema' in format) return readJsonSchema(format.jsonSchema)
  if ('grammar' in format) return readGrammar(format.grammar)
  return new Map([['root', readRegex(format.regex, 'format.regex')]])
}
