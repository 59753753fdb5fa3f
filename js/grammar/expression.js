/**
 * What a text may be, as a tree: characters, sequences, choices, repetitions, and rules by name.
 *
 * Owns the kinds of nodes and the ways to make them. Three notations are read into it (js/grammar/ebnf.js, regex.js, json-schema.js), and
 * js/grammar/automaton.js makes an automaton of it. Knows neither notation nor automaton.
 */

/** Code points from the first to the second, both included. @typedef {readonly [number, number]} Range */

/**
 * @typedef {{ kind: 'set', ranges: readonly Range[] }
 *   | { kind: 'sequence', parts: readonly Expression[] }
 *   | { kind: 'choice', parts: readonly Expression[] }
 *   | { kind: 'repeat', part: Expression, min: number, max: number }
 *   | { kind: 'rule', name: string }} Expression  max may be Infinity; a choice of nothing is no text at all
 */

/** @typedef {{ rules: Map<string, Expression>, root: string }} Grammar */

export const LAST_CODE_POINT = 0x10ffff

/** The empty text. @type {Expression} */
export const NOTHING = { kind: 'sequence', parts: [] }

/** No text at all. @type {Expression} */
export const NEVER = { kind: 'choice', parts: [] }

/** @param {readonly Range[]} ranges @returns {Expression} one character */
export const oneOf = (ranges) => ({ kind: 'set', ranges })

/** @param {...Expression} parts @returns {Expression} */
export const sequence = (...parts) => ({ kind: 'sequence', parts })

/** @param {readonly Expression[]} parts @returns {Expression} */
export const choice = (parts) =>
  parts.length === 1 ? /** @type {Expression} */ (parts[0]) : { kind: 'choice', parts }

/** @param {Expression} part @param {number} min @param {number} max @returns {Expression} */
export const repeat = (part, min, max) => ({ kind: 'repeat', part, min, max })

/** @param {Expression} part @returns {Expression} */
export const optional = (part) => repeat(part, 0, 1)

/** @param {string} name @returns {Expression} */
export const rule = (name) => ({ kind: 'rule', name })

/** @param {string} text well-formed @returns {Expression} exactly this text */
export function literal(text) {
  const parts = [...text].map((character) => {
    const code = Number(character.codePointAt(0))
    return oneOf([[code, code]])
  })
  return { kind: 'sequence', parts }
}

/** @param {string} characters pairs of the first and the last of a range: '09' is the digits @returns {Expression} */
export function characters(characters) {
  const codes = [...characters].map((character) => Number(character.codePointAt(0)))
  /** @type {Range[]} */
  const ranges = []
  for (let i = 0; i < codes.length; i += 2) ranges.push([Number(codes[i]), Number(codes[i + 1])])
  return oneOf(ranges)
}

/** @param {readonly Range[]} ranges @returns {Range[]} all other code points */
export function complement(ranges) {
  /** @type {Range[]} */
  const others = []
  let next = 0
  for (const [first, last] of ranges.toSorted(([a], [b]) => a - b)) {
    if (first > next) others.push([next, first - 1])
    next = Math.max(next, last + 1)
  }
  if (next <= LAST_CODE_POINT) others.push([next, LAST_CODE_POINT])
  return others
}

/** @param {readonly Range[]} ranges @param {readonly Range[]} excluded @returns {Range[]} the first without the second */
export function without(ranges, excluded) {
  return complement([...complement(ranges), ...excluded])
}
