/**
 * Text in several scripts from a seed: to train a small SentencePiece model, and strings to compare encoders on.
 *
 * Owns the word lists. All text is our own.
 */

import { seeded } from '../seeded.js'

const WHO = [
  'the fox',
  'a small robot',
  'grandmother',
  'Anna',
  'the old sailor',
  'Тигр',
  'le garçon',
  'das Mädchen',
  '小さな猫',
  'ο δάσκαλος',
]
const DID = [
  'found',
  'carried',
  'painted',
  'forgot',
  'built',
  'sang about',
  'repaired',
  'hid',
  'weighed',
  'counted',
]
const WHAT = [
  'a lantern',
  'three apples',
  'the broken clock',
  'an empty boat',
  '14 letters',
  'some café chairs',
  'naïve ideas',
  '"quotes" & (brackets)',
  'x = y + 27',
  'a red-blue kite',
  'über Straßen',
  'a banana banana',
]
const WHERE = [
  'near the river',
  'in 1987',
  'under the bridge',
  'before sunrise',
  'on Tuesday',
  'at home',
  'in München',
  'beyond the hills',
  'by the sea',
]
const END = ['.', '!', '?', ', and then slept.', '; nobody knew.']

/** Strings that tokenizers are known to get wrong. None has a line feed: spm_encode reads lines. */
const TRAPS = [
  '',
  ' ',
  '  ',
  '   a',
  'a ',
  'a  b',
  '▁',
  ' ▁ ',
  'aaa',
  'aaaaaaaaaaaa',
  'bananananana',
  'abababababa',
  '\t',
  '\u00a0x',
  'e\u0301',
  'é',
  '👩‍👩‍👧',
  '𝒳',
  'ﬁ',
  '１２３',
  '123456789',
  '2024-01-01',
  "don't",
  '<0x41>',
  'zzz\u0000x',
  '日本語テキスト',
  'مرحبا',
  'x\ry',
  '<unk',
  's>',
]

/** @param {number} seed @param {number} lines */
export function generatedLines(seed, lines) {
  const r = seeded(seed)
  const pick = (/** @type {string[]} */ list) => String(list[r.below(list.length)])
  return Array.from(
    { length: lines },
    () =>
      `${pick(WHO)} ${pick(DID)} ${pick(WHAT)} ${pick(WHERE)}${pick(END)}${r.below(5) === 0 ? '  ' : ''}`,
  )
}

/** @param {number} seed @param {number} count @returns {string[]} without line feeds */
export function trickyStrings(seed, count) {
  const r = seeded(seed)
  const lines = generatedLines(seed + 1, 200)
  const characters = Array.from(lines.join(' '))
  const bits = ['an', 'na', 'ban', 'a', 'n', ' ', '  ', 'the', 'e', 'th', 'o', 'un']
  const pick = (/** @type {string[]} */ list) => String(list[r.below(list.length)])
  const many = (/** @type {number} */ most, /** @type {() => string} */ draw) =>
    Array.from({ length: 1 + r.below(most) }, draw).join('')
  const kinds = [
    () => pick(lines),
    () =>
      Array.from(pick(lines))
        .slice(r.below(20), 20 + r.below(20))
        .join(''),
    () => many(30, () => pick(characters)),
    () => many(12, () => pick(bits)),
    () => many(8, () => String.fromCodePoint(0x20 + r.below(0x2fff))),
    () => pick(lines).split(' ').reverse().join(' '),
  ]
  return [...TRAPS, ...Array.from({ length: count }, () => kinds[r.below(kinds.length)]?.() ?? '')]
}
