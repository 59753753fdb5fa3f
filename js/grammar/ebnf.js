/**
 * Grammars as text, in the notation that llama.cpp calls GBNF: `name ::= "text" [a-z]+ (a | b)? other{2,5}`.
 *
 * Owns the notation. A rule ends where the next one's `name ::=` begins, so lines may be broken anywhere; `#` begins a comment.
 */

import { BmError } from '../errors.js'
import {
  choice,
  complement,
  LAST_CODE_POINT,
  literal,
  oneOf,
  repeat,
  rule,
  sequence,
} from './expression.js'
import { readCount } from './repeat-count.js'

/** @typedef {import('./expression.js').Expression} Expression */

const NAME = /[A-Za-z_][\w-]*/y
const RULE_START = /[A-Za-z_][\w-]*(?:\s|#[^\n]*)*::=/y
const BLANK = /(?:\s|#[^\n]*)*/y
/** @type {Record<string, string>} */
const ESCAPES = { n: '\n', r: '\r', t: '\t' }
/** Deeper parentheses than these are a mistake. */
const MOST_DEPTH = 200

class Reader {
  #text
  #at = 0
  #depth = 0
  /** @type {Map<string, Expression>} */
  rules = new Map()
  /** @type {Map<string, number>} names that are used, and where first */
  #used = new Map()

  /** @param {string} text */
  constructor(text) {
    this.#text = text
  }

  /** @returns {Map<string, Expression>} */
  read() {
    this.#match(BLANK)
    while (this.#at < this.#text.length) {
      const start = this.#at
      const name = this.#match(NAME)
      this.#match(BLANK)
      if (name === '' || !this.#takes('::=')) this.#fail('want NAME ::= and what it is', start)
      if (this.rules.has(name)) this.#fail(`rule '${name}' is there twice`, start)
      this.rules.set(name, this.#choice())
      if (this.#at < this.#text.length && !this.#isRuleStart()) this.#fail('this is unexpected')
    }
    for (const [name, at] of this.#used)
      if (!this.rules.has(name)) this.#fail(`rule '${name}' is not defined`, at)
    if (!this.rules.has('root')) this.#fail("there is no rule 'root', with which a text begins")
    return this.rules
  }

  /** @returns {Expression} */
  #choice() {
    const parts = []
    do parts.push(this.#sequence())
    while (this.#takes('|'))
    return choice(parts)
  }

  /** @returns {Expression} */
  #sequence() {
    /** @type {Expression[]} */
    const parts = []
    for (;;) {
      this.#match(BLANK)
      const next = this.#text[this.#at]
      if (next === undefined || next === '|' || next === ')' || this.#isRuleStart()) break
      parts.push(this.#repeated(this.#part()))
    }
    return parts.length === 1 ? /** @type {Expression} */ (parts[0]) : sequence(...parts)
  }

  /** @returns {Expression} */
  #part() {
    const start = this.#at
    if (this.#takes('"')) return literal(this.#quoted('"', start))
    if (this.#takes("'")) return literal(this.#quoted("'", start))
    if (this.#takes('[')) return this.#set(start)
    if (this.#takes('.')) return oneOf([[0, LAST_CODE_POINT]])
    if (this.#takes('(')) {
      if (++this.#depth > MOST_DEPTH)
        this.#fail(`more than ${MOST_DEPTH} parentheses in each other`)
      const inner = this.#choice()
      if (!this.#takes(')')) this.#fail('this parenthesis is not closed', start)
      this.#depth--
      return inner
    }
    const name = this.#match(NAME)
    if (name === '') this.#fail('want a rule, "text", [characters], . or (')
    if (!this.#used.has(name)) this.#used.set(name, start)
    return rule(name)
  }

  /** @param {Expression} part @returns {Expression} */
  #repeated(part) {
    let all = part
    for (;;) {
      this.#match(BLANK)
      const start = this.#at
      const count = readCount(this.#text, start)
      if (!count) return all
      if (count.problem) this.#fail(count.problem, start)
      this.#at = count.end
      all = repeat(all, count.min, count.max)
    }
  }

  /** @param {string} quote @param {number} start @returns {string} */
  #quoted(quote, start) {
    let text = ''
    while (!this.#takes(quote)) {
      if (this.#at >= this.#text.length) this.#fail('this text is not closed', start)
      text += String.fromCodePoint(this.#character())
    }
    return text
  }

  /** @param {number} start @returns {Expression} */
  #set(start) {
    const isOther = this.#takes('^')
    /** @type {[number, number][]} */
    const ranges = []
    while (!this.#takes(']')) {
      if (this.#at >= this.#text.length) this.#fail('these characters are not closed by ]', start)
      const from = this.#at
      const first = this.#character()
      const isRange = this.#text[this.#at] === '-' && this.#text[this.#at + 1] !== ']'
      if (isRange) this.#at++
      const last = isRange ? this.#character() : first
      if (last < first) this.#fail('this range ends before it begins', from)
      ranges.push([first, last])
    }
    return oneOf(isOther ? complement(ranges) : ranges)
  }

  /** @returns {number} one character, which may be written with a backslash */
  #character() {
    const start = this.#at
    const code = Number(this.#text.codePointAt(start))
    this.#at += code > 0xffff ? 2 : 1
    if (code !== 0x5c) return code
    const name = this.#text[this.#at++] ?? ''
    const digits = { x: 2, u: 4, U: 8 }[name]
    if (digits === undefined)
      return Number((ESCAPES[name] ?? name).codePointAt(0) ?? this.#fail('\\ at the end', start))
    const hex = this.#text.slice(this.#at, this.#at + digits)
    const value =
      /^[0-9a-fA-F]+$/.test(hex) && hex.length === digits ? Number.parseInt(hex, 16) : -1
    const isCharacter =
      value >= 0 && value <= LAST_CODE_POINT && !(value >= 0xd800 && value < 0xe000)
    if (!isCharacter) this.#fail(`\\${name} wants ${digits} hex digits of a character`, start)
    this.#at += digits
    return value
  }

  #isRuleStart() {
    RULE_START.lastIndex = this.#at
    return RULE_START.test(this.#text)
  }

  /** @param {RegExp} pattern sticky @returns {string} what of it is here */
  #match(pattern) {
    pattern.lastIndex = this.#at
    const text = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += text.length
    return text
  }

  /** @param {string} text @returns {boolean} */
  #takes(text) {
    if (!this.#text.startsWith(text, this.#at)) return false
    this.#at += text.length
    return true
  }

  /** @param {string} problem @param {number} [at] @returns {never} */
  #fail(problem, at = this.#at) {
    const before = this.#text.slice(0, at).split('\n')
    const place = `line ${before.length}, column ${String(before.at(-1)).length + 1}`
    throw new BmError('argument', `format.grammar, ${place}: ${problem}`)
  }
}

/**
 * @param {string} text
 * @returns {Map<string, Expression>} the rules; every one that is named is there, and `root`
 * @throws {BmError} `argument`, with the line and the column
 */
export function readGrammar(text) {
  return new Reader(text).read()
}
