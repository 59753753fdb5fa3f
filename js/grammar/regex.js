/**
 * Regular expressions, as JavaScript writes them with the flag `u`, for a whole text.
 *
 * Owns which parts of that language describe a text without looking around: all but back references, assertions inside, and word boundaries. JavaScript's own
 * parser says what is wrong with an expression; this one reads only what that has accepted.
 */

import { BmError } from '../errors.js'
import { choice, complement, LAST_CODE_POINT, oneOf, repeat, sequence } from './expression.js'
import { readCount } from './repeat-count.js'

/** @typedef {import('./expression.js').Expression} Expression */
/** @typedef {import('./expression.js').Range} Range */

/** @type {Record<string, readonly Range[]>} */
const CLASSES = {
  d: [[0x30, 0x39]],
  w: [
    [0x30, 0x39],
    [0x41, 0x5a],
    [0x5f, 0x5f],
    [0x61, 0x7a],
  ],
  s: [
    [0x09, 0x0d],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ],
}
const LINE_ENDS = /** @type {const} */ ([
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
])
/** @type {Record<string, number>} */
const CONTROLS = { n: 0x0a, r: 0x0d, t: 0x09, v: 0x0b, f: 0x0c, 0: 0 }

/** @param {RegExp} pattern of one character @returns {Range[]} those that match */
function codePointsOf(pattern) {
  /** @type {[number, number][]} */
  const ranges = []
  for (let code = 0; code <= LAST_CODE_POINT; code++) {
    if (!pattern.test(String.fromCodePoint(code))) continue
    const range = ranges.at(-1)
    if (range && range[1] === code - 1) range[1] = code
    else ranges.push([code, code])
  }
  return ranges
}

class Reader {
  #text
  #where
  #at = 0

  /** @param {string} text @param {string} where for messages */
  constructor(text, where) {
    this.#text = text
    this.#where = where
  }

  /** @returns {Expression} */
  read() {
    const all = this.#choice(true)
    if (this.#at < this.#text.length) this.#refuse('this')
    return all
  }

  /** @param {boolean} isWhole anchors say nothing here @returns {Expression} */
  #choice(isWhole) {
    const parts = []
    do {
      if (isWhole) this.#takes('^')
      parts.push(this.#sequence(isWhole))
    } while (this.#takes('|'))
    return choice(parts)
  }

  /** @param {boolean} isWhole @returns {Expression} */
  #sequence(isWhole) {
    /** @type {Expression[]} */
    const parts = []
    for (;;) {
      const next = this.#text[this.#at]
      if (next === undefined || next === '|' || next === ')') break
      const isLast = next === '$' && [undefined, '|'].includes(this.#text[this.#at + 1])
      if (isWhole && isLast) {
        this.#at++
        break
      }
      const part = this.#part(isWhole && parts.length === 0)
      const count = readCount(this.#text, this.#at)
      if (count?.problem) this.#refuse(count.problem)
      if (count) {
        this.#at = count.end
        this.#takes('?') // how much it takes first does not matter for the whole
      }
      parts.push(count ? repeat(part, count.min, count.max) : part)
    }
    return parts.length === 1 ? /** @type {Expression} */ (parts[0]) : sequence(...parts)
  }

  /** @param {boolean} isFirst of the whole @returns {Expression} */
  #part(isFirst) {
    const next = this.#text[this.#at]
    if (next === '^' || next === '$') this.#refuse(`${next} inside`)
    if (this.#takes('.')) return oneOf(complement(LINE_ENDS))
    if (this.#takes('[')) return oneOf(this.#class())
    if (this.#takes('(')) return this.#group(isFirst)
    if (next === '\\') return oneOf(this.#escape())
    return oneOf([this.#plain()])
  }

  /** @param {boolean} isFirst @returns {Expression} */
  #group(isFirst) {
    if (this.#text[this.#at] === '?') {
      const name = /\?(?::|<[^=!>][^>]*>)/uy
      name.lastIndex = this.#at
      const found = name.exec(this.#text)
      if (!found) this.#refuse(`(${this.#text.slice(this.#at, this.#at + 3)}`, this.#at - 1)
      this.#at += found[0].length
    }
    // A group that is the whole may have the anchors.
    const close = this.#text.length - 1
    const isWhole = isFirst && this.#isClosedAt(close)
    const inner = this.#choice(isWhole)
    this.#takes(')')
    return inner
  }

  /** @param {number} place @returns {boolean} whether the group that is open here is closed there */
  #isClosedAt(place) {
    let depth = 1
    let inClass = false
    for (let i = this.#at; i < this.#text.length; i++) {
      const next = this.#text[i]
      if (next === '\\') i++
      else if (inClass) inClass = next !== ']'
      else if (next === '[') inClass = true
      else if (next === '(') depth++
      else if (next === ')' && --depth === 0) return i === place
    }
    return false
  }

  /** @returns {Range[]} */
  #class() {
    const isOther = this.#takes('^')
    /** @type {Range[]} */
    const ranges = []
    while (!this.#takes(']')) {
      const first = this.#classPart()
      const [single] = first
      const isRange = this.#text[this.#at] === '-' && this.#text[this.#at + 1] !== ']'
      if (!isRange || !single) {
        ranges.push(...first)
        continue
      }
      this.#at++
      const [last] = this.#classPart()
      ranges.push([single[0], Number(last?.[1])])
    }
    return isOther ? complement(ranges) : ranges
  }

  /** @returns {Range[]} */
  #classPart() {
    return this.#text[this.#at] === '\\' ? this.#escape() : [this.#plain()]
  }

  /** @returns {Range} */
  #plain() {
    const code = Number(this.#text.codePointAt(this.#at))
    this.#at += code > 0xffff ? 2 : 1
    return [code, code]
  }

  /** @returns {Range[]} */
  #escape() {
    const start = this.#at
    const name = this.#text[start + 1] ?? ''
    const pattern =
      /\\(?:x[0-9a-fA-F]{2}|u\{[0-9a-fA-F]+\}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|c[A-Za-z]|[pP]\{[^}]*\}|.)/suy
    pattern.lastIndex = start
    const all = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += all.length
    if (name === 'p' || name === 'P') return codePointsOf(new RegExp(all, 'u'))
    const known = CLASSES[name.toLowerCase()]
    if (known && name.toLowerCase() !== name) return complement(known)
    if (known) return [...known]
    if (/[1-9kbB]/.test(name)) this.#refuse(all, start)
    const code = CONTROLS[name] ?? codeOf(all)
    return [[code, code]]
  }

  /** @param {string} text */
  #takes(text) {
    if (!this.#text.startsWith(text, this.#at)) return false
    this.#at += text.length
    return true
  }

  /** @param {string} what @param {number} [at] @returns {never} */
  #refuse(what, at = this.#at) {
    const why = 'a text is not made by what looks around or back'
    throw new BmError(
      'argument',
      `${this.#where}, character ${at + 1}: ${what} is not supported: ${why}`,
    )
  }
}

/** @param {string} written of one character @returns {number} */
function codeOf(written) {
  const hex = /^\\(?:x|u\{?)([0-9a-fA-F]+)\}?$/.exec(written)
  if (hex) return Number.parseInt(String(hex[1]), 16)
  const pair = /^\\u(....)\\u(....)$/.exec(written)
  if (pair) {
    const units = [pair[1], pair[2]].map((digits) => Number.parseInt(String(digits), 16))
    return Number(String.fromCharCode(...units).codePointAt(0))
  }
  const code = Number(written.codePointAt(written.length > 1 ? 1 : 0))
  return /^\\c/.test(written) ? Number(written.codePointAt(2)) % 32 : code
}

/**
 * @param {string} source between the slashes
 * @param {string} where for messages
 * @returns {Expression} the texts that it matches from their beginning to their end
 * @throws {BmError} `argument`
 */
export function readRegex(source, where) {
  try {
    new RegExp(source, 'u')
  } catch (cause) {
    throw new BmError('argument', `${where}: ${/** @type {Error} */ (cause).message}`, { cause })
  }
  return new Reader(source, where).read()
}
