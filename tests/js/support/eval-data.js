/**
 * Items of seven multiple-choice tasks, made up from a few words and a seed, in the forms of the data sets.
 *
 * Owns the forms, with what is awkward in the real ones: labels as numbers and as strings, brackets, runs of spaces, space at the end of a
 * prompt, several underscores, three to five choices, accents. They mean nothing; what tests look at is that everyone scores them alike.
 */

import { seeded } from './seeded.js'

/** @typedef {import('./seeded.js').Seeded} Seeded */

const WORDS = [
  ...['the', 'a', 'little', 'fox', 'bear', 'girl', 'boy', 'lived', 'in', 'wood', 'house', 'saw'],
  ...[
    'happy',
    'red',
    'river',
    'and',
    'was',
    'said',
    'Milo',
    'Jade',
    'friend',
    'café',
    'Éva',
    'big',
  ],
]

/** @param {Seeded} random @param {number} least @param {number} most @returns {string} so many words */
function phrase(random, least, most) {
  const count = least + random.below(most - least + 1)
  return Array.from({ length: count }, () => WORDS[random.below(WORDS.length)]).join(' ')
}

/** @template T @param {Seeded} random @param {readonly T[]} list @returns {T} */
function pick(random, list) {
  return /** @type {T} */ (list[random.below(list.length)])
}

/** @param {Seeded} random @returns {{ text: string[], label: string[], key: string }} */
function labelled(random) {
  const names = pick(random, [
    ['A', 'B', 'C', 'D', 'E'],
    ['1', '2', '3', '4', '5'],
  ])
  const label = names.slice(0, 3 + random.below(3))
  return { text: label.map(() => phrase(random, 1, 4)), label, key: pick(random, label) }
}

/** @param {{ text: string[], label: string[] }} lists as the authors have it */
const nested = ({ text, label }) => text.map((one, i) => ({ text: one, label: label[i] }))

/** @param {Seeded} random @returns {object} */
function hellaswag(random) {
  const marks = ['', '', ' [title]', ' [step]', '[substeps] ', '  ']
  const bracketed = () => phrase(random, 1, 3) + pick(random, marks) + phrase(random, 1, 3)
  const label = random.below(4)
  return {
    activity_label: pick(random, ['Making a house', 'Family Life', 'Écrire']),
    ctx_a: `${pick(random, ['', '[header] ', ' '])}${bracketed()}.`,
    ctx_b: pick(random, ['', 'the FOX', 'éva said Hello', 'jade']),
    endings: Array.from({ length: 4 }, () => `${bracketed()}.`),
    label: pick(random, [label, String(label)]),
  }
}

/** @param {Seeded} random @returns {object} */
function winogrande(random) {
  const before = pick(random, ['', `${phrase(random, 1, 5)} `, `${phrase(random, 2, 4)}. `])
  const after = pick(random, ['.', ` ${phrase(random, 1, 6)}.`, ` ${phrase(random, 1, 2)} _ end. `])
  return {
    sentence: `${before}_${after}`,
    option1: phrase(random, 1, 1),
    option2: phrase(random, 1, 2),
    answer: pick(random, ['1', '2']),
  }
}

/** @param {Seeded} random @returns {object} */
function arc(random) {
  const { text, label, key } = labelled(random)
  const stem = `${phrase(random, 3, 10)}?${pick(random, ['', '', ' '])}`
  return random.below(3) > 0
    ? { id: 'x', question: stem, choices: { text, label }, answerKey: key }
    : { id: 'x', question: { stem, choices: nested({ text, label }) }, answerKey: key }
}

/** @type {Record<string, (random: Seeded) => object>} */
const FORMS = {
  boolq: (random) => ({
    question: phrase(random, 3, 8),
    passage: `${phrase(random, 5, 20)}.${pick(random, ['', '\n', ' '])}`,
    ...pick(random, [{ answer: true }, { answer: false }, { label: 0 }, { label: 1 }]),
  }),
  piqa: (random) => ({
    goal: phrase(random, 2, 8),
    sol1: phrase(random, 1, 6),
    sol2: phrase(random, 1, 6),
    label: random.below(2),
  }),
  hellaswag,
  winogrande,
  arc_easy: arc,
  arc_challenge: arc,
  openbookqa: (random) => {
    const { text, label, key } = labelled(random)
    const stem = `${phrase(random, 3, 8)}${pick(random, ['', ' ', '\u00a0 ', '\n'])}`
    const answerKey = pick(random, [key, ` ${key}`])
    return random.below(3) > 0
      ? { id: 'x', question_stem: stem, choices: { text, label }, answerKey }
      : { id: 'x', question: { stem, choices: nested({ text, label }) }, answerKey }
  },
}

export const TASKS = Object.keys(FORMS)

/** @param {string} task @param {number} count @param {number} seed @returns {object[]} */
export function evalItems(task, count, seed) {
  const random = seeded(seed)
  const make = FORMS[task] ?? (() => ({}))
  return Array.from({ length: count }, () => make(random))
}

/** @param {readonly object[]} items @returns {string} JSONL */
export const asLines = (items) => items.map((item) => `${JSON.stringify(item)}\n`).join('')
