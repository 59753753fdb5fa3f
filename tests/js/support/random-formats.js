/**
 * Random formats, each with a check of texts that knows nothing of js/grammar/.
 *
 * Owns three families: JSON schemas (checked by JSON.parse and schema-check.js), regular expressions (by RegExp), grammars (by the regular
 * expression that says the same, or by a few lines that parse). All are finite, so that a text ends however its tokens are drawn.
 */

import { fits } from './schema-check.js'

/** @typedef {import('./seeded.js').Seeded} Seeded */
/** @typedef {import('../../../js/text-format.js').TextFormat} TextFormat */
/** @typedef {{ format: TextFormat, check: (text: string) => boolean }} Case */

/** @template T @param {Seeded} r @param {readonly T[]} list @returns {T} */
const pick = (r, list) => /** @type {T} */ (list[r.below(list.length)])

/** @param {Seeded} r @param {number} low @param {number} high @returns {number} integer, both included */
const between = (r, low, high) => low + r.below(high - low + 1)

const NAMES = [
  'a',
  'name',
  'kéy',
  '日本',
  'with "quotes"',
  'back\\slash',
  'a b',
  '',
  '😀',
  'ab',
  'line\nend',
  '__x',
]

/** @param {Seeded} r @returns {object} */
function randomNumber(r) {
  const low = between(r, -1000, 1000)
  if (r.below(2)) return { type: 'integer', minimum: low, maximum: low + between(r, 0, 3000) }
  if (r.below(3) === 0) return { type: pick(r, ['integer', 'number']) }
  const [from, to] = [
    low / pick(r, [1, 10, 8, 1000]),
    (low + between(r, 1, 5000)) / pick(r, [1, 4]),
  ]
  const [a, b] = from < to ? [from, to] : [to, from + 1]
  if (r.below(2)) return { type: 'number', minimum: a, maximum: b }
  return { type: 'number', exclusiveMinimum: a, exclusiveMaximum: b + 0.01 }
}

/** @param {Seeded} r @returns {object} */
function randomString(r) {
  const minLength = between(r, 0, 4)
  if (r.below(3) === 0) return { type: 'string', pattern: `^${randomRegex(r, 2)}$` }
  return { type: 'string', minLength, maxLength: minLength + between(r, 0, 10) }
}

/** @param {Seeded} r @param {number} depth @returns {object} */
function randomObject(r, depth) {
  const names = NAMES.filter(() => r.below(4) === 0)
  const properties = Object.fromEntries(names.map((name) => [name, randomSchema(r, depth - 1)]))
  return {
    type: 'object',
    properties,
    required: names.filter(() => r.below(2)),
    ...(r.below(3) ? {} : { additionalProperties: false }),
  }
}

/** @param {Seeded} r @param {number} depth @returns {object} */
function randomArray(r, depth) {
  const minItems = between(r, 0, 2)
  const sizes = { minItems, maxItems: minItems + between(r, 0, 3) }
  if (r.below(3)) return { type: 'array', items: randomSchema(r, depth - 1), ...sizes }
  const prefixItems = Array.from({ length: between(r, 2, 3) }, () => randomSchema(r, depth - 1))
  return {
    type: 'array',
    prefixItems,
    items: r.below(2) ? false : randomSchema(r, 0),
    minItems,
    maxItems: 5,
  }
}

/** @param {Seeded} r @param {number} depth @returns {object} */
function randomMixture(r, depth) {
  const kind = r.below(4)
  if (kind === 0) return { anyOf: [randomSchema(r, depth - 1), randomSchema(r, depth - 1)] }
  if (kind === 1) {
    const tagged = ['cat', 'dog'].map((tag) => ({
      type: 'object',
      properties: { tag: { const: tag }, inner: randomSchema(r, depth - 1) },
      required: ['tag'],
    }))
    return { oneOf: tagged }
  }
  if (kind === 2)
    return {
      allOf: [{ properties: { a: randomSchema(r, 0) } }, { required: ['a'], type: 'object' }],
    }
  return { $ref: `#/$defs/${pick(r, ['one', 'two'])}` }
}

/** @param {Seeded} r @param {number} depth @returns {object} */
function randomSchema(r, depth) {
  const kind = r.below(depth > 0 ? 10 : 6)
  if (kind === 0) return { type: pick(r, ['null', 'boolean']) }
  if (kind === 1)
    return {
      enum: ['x', 'é"\\', 1, null, [1, { a: 'b' }], -0.5].filter((_, i) => i === 0 || r.below(2)),
    }
  if (kind < 4) return randomNumber(r)
  if (kind < 6) return randomString(r)
  if (kind === 6) return randomArray(r, depth)
  if (kind === 7) return randomMixture(r, depth)
  return randomObject(r, depth)
}

/** @param {Seeded} r @returns {Case} */
function schemaCase(r) {
  const $defs = { one: randomSchema(r, 0), two: randomSchema(r, 0) }
  const jsonSchema = { ...randomSchema(r, 3), $defs }
  return { format: { jsonSchema }, check: (text) => fits(JSON.parse(text), jsonSchema, jsonSchema) }
}

const ATOMS = [
  'a',
  'b',
  '[a-f]',
  '[^a-z"\\\\]',
  '\\d',
  '\\w',
  '.',
  'é',
  '日',
  '[😀-😎]',
  '\\n',
  '\\u00e9',
  '[\\s,]',
  '\\x41',
  '\\.',
  '\\S',
  '\\u{1F600}',
]

/** @param {Seeded} r @param {number} depth @returns {string} of texts of bounded length */
function randomRegex(r, depth) {
  const parts = Array.from({ length: between(r, 1, 3) }, () => {
    const isGroup = depth > 0 && r.below(3) === 0
    const group = () =>
      `(${pick(r, ['', '?:'])}${randomRegex(r, depth - 1)}|${randomRegex(r, depth - 1)})`
    const part = isGroup ? group() : pick(r, ATOMS)
    return part + pick(r, ['', '', '?', '{2}', '{0,3}', '{1,2}?'])
  })
  return parts.join('')
}

/** @param {Seeded} r @returns {Case} */
function regexCase(r) {
  const regex = randomRegex(r, 3)
  const whole = new RegExp(`^(?:${regex})$`, 'u')
  return { format: { regex }, check: (text) => whole.test(text) }
}

/** The same twice: in a grammar's notation and as a regular expression. @typedef {{ grammar: string, regex: string }} Twin */

/** @type {Twin[]} */
const TWINS = [
  { grammar: '"ab"', regex: 'ab' },
  { grammar: '[a-z0-9]', regex: '[a-z0-9]' },
  { grammar: '[^a-z\\n]', regex: '[^a-z\\n]' },
  { grammar: "'é\\n'", regex: 'é\\n' },
  { grammar: '"\\u65e5"', regex: '日' },
  { grammar: '.', regex: '[^]' },
  { grammar: '"\\x41" # a comment\n', regex: 'A' },
]

/** @param {Seeded} r @param {number} depth @param {string[]} rules that it adds to @returns {Twin} */
function randomTwin(r, depth, rules) {
  const parts = Array.from({ length: between(r, 1, 3) }, () => {
    const inner = depth > 0 && r.below(3) === 0 ? choiceTwin(r, depth - 1, rules) : pick(r, TWINS)
    const count = pick(r, ['', '', '?', '{2}', '{0,3}', '{1,2}'])
    return { grammar: `${inner.grammar}${count}`, regex: `(?:${inner.regex})${count}` }
  })
  return {
    grammar: parts.map(({ grammar }) => grammar).join(' '),
    regex: parts.map(({ regex }) => regex).join(''),
  }
}

/** @param {Seeded} r @param {number} depth @param {string[]} rules @returns {Twin} */
function choiceTwin(r, depth, rules) {
  const both = [randomTwin(r, depth, rules), randomTwin(r, depth, rules)]
  const regex = both.map((one) => one.regex).join('|')
  const grammar = both.map((one) => one.grammar).join(' |\n  ')
  if (r.below(2)) return { grammar: `(${grammar})`, regex }
  const name = `rule-${rules.length}`
  rules.push(`${name} ::= ${grammar}`)
  return { grammar: name, regex }
}

/** Brackets of two kinds, each in the other, no deeper than some. @param {Seeded} r @returns {Case} */
function bracketCase(r) {
  const depth = between(r, 1, 6)
  const rules = Array.from({ length: depth }, (_, i) => {
    const inner = i + 1 < depth ? `level${i + 1}{0,2}` : '""'
    return `level${i} ::= "(" ${inner} ")" | "[" ${inner} "]" | "(" ${inner} ">"`
  })
  const grammar = `root ::= level0\n${rules.join('\n')}`
  const check = (/** @type {string} */ text) => {
    let left = text
    for (let i = 0; i < depth; i++) left = left.replaceAll(/\(_*[)>]|\[_*\]/g, '_')
    return left === '_'
  }
  return { format: { grammar }, check }
}

/** As many of one as of the other. @param {Seeded} r @returns {Case} */
function balancedCase(r) {
  const depth = between(r, 1, 9)
  const rules = Array.from({ length: depth }, (_, i) => `n${i} ::= "é" n${i + 1}? "b" | "x"`)
  const grammar = `root ::= n0\n${rules.join('\n')}\nn${depth} ::= ""`
  const check = (/** @type {string} */ text) => {
    const [, left = '', , right = ''] = /^(é*)(x?)(b*)$/.exec(text) ?? []
    return text !== '' && left.length === right.length && left.length <= depth
  }
  return { format: { grammar }, check }
}

/** @param {Seeded} r @returns {Case} */
function grammarCase(r) {
  const kind = r.below(4)
  if (kind === 0) return bracketCase(r)
  if (kind === 1) return balancedCase(r)
  /** @type {string[]} */
  const rules = []
  const { grammar, regex } = randomTwin(r, 3, rules)
  const whole = new RegExp(`^(?:${regex})$`, 'u')
  const all = [`root ::= ${grammar}`, ...rules]
  return { format: { grammar: all.join('\n') }, check: (text) => whole.test(text) }
}

/** @param {Seeded} r @param {number} index which family @returns {Case} */
export function randomFormat(r, index) {
  return [schemaCase, regexCase, grammarCase, schemaCase][index % 4]?.(r) ?? schemaCase(r)
}
