/**
 * JSON as text: any value, strings, numbers, and what can be said about a string.
 *
 * Owns how a value is written here: on one line, a space behind `,` and `:` as in Python's json.dumps, and nothing else between. Knows no schema.
 * Numbers have at most 15 digits on either side of the point and two in the exponent, so that every program reads the same one.
 */

import {
  characters,
  choice,
  complement,
  literal,
  oneOf,
  optional,
  repeat,
  rule,
  sequence,
  without,
} from './expression.js'

/** @typedef {import('./expression.js').Expression} Expression */
/** @typedef {import('./expression.js').Range} Range */

/** What a string does not have in plain form. @type {readonly Range[]} */
const SPECIAL = [
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
]
const HEX = characters('09afAF')
/** Not the halves of a pair: what they make is another number of characters. */
const ESCAPE = sequence(
  literal('\\'),
  choice([
    oneOf([...'"\\/bfnrt'].map((one) => [Number(one.codePointAt(0)), Number(one.codePointAt(0))])),
    sequence(
      literal('u'),
      choice([
        sequence(characters('09acefACEF'), repeat(HEX, 3, 3)),
        sequence(characters('ddDD'), characters('07'), repeat(HEX, 2, 2)),
      ]),
    ),
  ]),
)
const PLAIN = oneOf(complement(SPECIAL))
const QUOTE = literal('"')
const DIGITS = repeat(characters('09'), 0, 14)

/** Rules that every schema can use. @returns {Map<string, Expression>} */
export function jsonRules() {
  const whole = choice([literal('0'), sequence(characters('19'), DIGITS)])
  const fraction = sequence(literal('.'), characters('09'), DIGITS)
  const sign = optional(
    oneOf([
      [0x2b, 0x2b],
      [0x2d, 0x2d],
    ]),
  )
  const exponent = sequence(characters('eeEE'), sign, repeat(characters('09'), 1, 2))
  const minus = optional(literal('-'))
  const entry = sequence(rule('json string'), literal(': '), rule('json value'))
  return new Map([
    ['json character', choice([PLAIN, ESCAPE])],
    ['json string', stringOf(repeat(rule('json character'), 0, Infinity))],
    ['json integer', choice([literal('0'), sequence(minus, characters('19'), DIGITS)])],
    ['json number', sequence(minus, whole, optional(fraction), optional(exponent))],
    ['json array', listOf('[', rule('json value'), 0, Infinity, ']')],
    ['json object', listOf('{', entry, 0, Infinity, '}')],
    [
      'json value',
      choice([
        ...['string', 'number', 'array', 'object'].map((name) => rule(`json ${name}`)),
        ...['true', 'false', 'null'].map(literal),
      ]),
    ],
  ])
}

/** @param {Expression} inner @returns {Expression} between quotes */
export const stringOf = (inner) => sequence(QUOTE, inner, QUOTE)

/**
 * @param {string} open @param {Expression} item @param {number} min @param {number} max @param {string} close
 * @returns {Expression}
 */
export function listOf(open, item, min, max, close) {
  if (max === 0) return literal(open + close)
  const more = sequence(literal(', '), item)
  const items = sequence(item, repeat(more, Math.max(0, min - 1), max - 1))
  return sequence(literal(open), min > 0 ? items : optional(items), literal(close))
}

/** @param {unknown} value JSON @returns {string} */
export function jsonText(value) {
  if (Array.isArray(value)) return `[${value.map(jsonText).join(', ')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).map(
    ([name, one]) => `${JSON.stringify(name)}: ${jsonText(one)}`,
  )
  return `{${entries.join(', ')}}`
}

/** Characters that are written with a backslash in one way. @type {Record<number, string>} */
const SHORT = { 8: '\\b', 9: '\\t', 10: '\\n', 12: '\\f', 13: '\\r', 34: '\\"', 92: '\\\\' }

/** @param {Expression} expression of a string's characters @returns {Expression} of how they are written in JSON */
export function asJsonString(expression) {
  switch (expression.kind) {
    case 'set': {
      const parts = [oneOf(without(expression.ranges, SPECIAL))]
      for (const [low, high] of SPECIAL) {
        for (let code = low; code <= high; code++) {
          if (!expression.ranges.some(([first, last]) => code >= first && code <= last)) continue
          parts.push(literal(SHORT[code] ?? `\\u${code.toString(16).padStart(4, '0')}`))
        }
      }
      return choice(parts)
    }
    case 'repeat':
      return { ...expression, part: asJsonString(expression.part) }
    case 'rule':
      return expression
    default:
      return { ...expression, parts: expression.parts.map(asJsonString) }
  }
}

/** @param {string} character */
function isSpecial(character) {
  const code = Number(character.codePointAt(0))
  return SPECIAL.some(([first, last]) => code >= first && code <= last)
}

/**
 * A name that is none of some others, written without a backslash: so it is none of them in another spelling either.
 *
 * @param {readonly string[]} names
 * @returns {Expression} with its quotes
 */
export function otherName(names) {
  /** @param {readonly string[]} rests what is left of the names that begin as this one does @returns {Expression} up to the closing quote */
  const rest = (rests) => {
    if (rests.length === 0) return sequence(repeat(PLAIN, 0, Infinity), QUOTE)
    /** @type {Map<string, string[]>} */
    const byFirst = new Map()
    for (const one of rests) {
      const [first] = one
      if (first !== undefined)
        byFirst.set(first, [...(byFirst.get(first) ?? []), one.slice(first.length)])
    }
    const codes = [...byFirst.keys()].map((first) => Number(first.codePointAt(0)))
    const others = oneOf(
      complement([...SPECIAL, ...codes.map((code) => /** @type {Range} */ ([code, code]))]),
    )
    const parts = [sequence(others, repeat(PLAIN, 0, Infinity), QUOTE)]
    // One that needs a backslash is written in no other way.
    for (const [first, inner] of byFirst)
      if (!isSpecial(first)) parts.push(sequence(literal(first), rest(inner)))
    if (!rests.includes('')) parts.push(QUOTE)
    return choice(parts)
  }
  return sequence(QUOTE, rest(names))
}
