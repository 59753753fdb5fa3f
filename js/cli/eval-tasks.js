/**
 * Seven multiple-choice tasks: what of a line of each data set a model is asked, and which answer is right.
 *
 * Owns the prompts, which are those of lm-evaluation-harness 0.4.2 without examples, and the fields, which are those of the data sets on Hugging Face;
 * the authors' own JSONL of BoolQ, HellaSwag, ARC and OpenBookQA is understood, too. Knows no model.
 * The idea: an item is contexts with continuations. All tasks but one have one context and a continuation for each choice; in WinoGrande
 * the choices are in the contexts, and what follows the gap is the continuation of each.
 */

/** @typedef {import('./json-fields.js').JsonFields} JsonFields */

/**
 * @typedef {object} EvalItem
 * @property {{ context: string, continuations: string[] }[]} groups  flattened, the continuations are in the order of the choices
 * @property {number[]} lengths  characters (code points) of each choice
 * @property {number} gold       which choice is right
 */

/**
 * @typedef {object} EvalTask
 * @property {'acc' | 'acc_norm'} metric  of the Bi-Mamba paper's table; the harness gives acc_norm for just those tasks that have it here
 * @property {(fields: JsonFields) => EvalItem} read
 */

/** @type {Record<string, EvalTask>} */
export const EVAL_TASKS = {
  boolq: { metric: 'acc', read: readBoolq },
  piqa: { metric: 'acc_norm', read: readPiqa },
  hellaswag: { metric: 'acc_norm', read: readHellaswag },
  winogrande: { metric: 'acc', read: readWinogrande },
  arc_easy: { metric: 'acc_norm', read: readArc },
  arc_challenge: { metric: 'acc_norm', read: readArc },
  openbookqa: { metric: 'acc_norm', read: readOpenbookqa },
}

/** @param {string} text @returns {number} */
const lengthOf = (text) => [...text].length

/** @param {string} context @param {string[]} choices @param {number} gold @returns {EvalItem} */
function choose(context, choices, gold) {
  const continuations = choices.map((choice) => ` ${choice}`)
  return { groups: [{ context, continuations }], lengths: choices.map(lengthOf), gold }
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readBoolq(fields) {
  const context = `${fields.text('passage')}\nQuestion: ${fields.text('question')}?\nAnswer:`
  const gold = fields.has('label')
    ? fields.integer('label', 0, 1)
    : Number(fields.boolean('answer'))
  return choose(context, ['no', 'yes'], gold)
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readPiqa(fields) {
  const choices = [fields.string('sol1'), fields.string('sol2')]
  const context = `Question: ${fields.text('goal')}\nAnswer:`
  return choose(context, choices, fields.integer('label', 0, 1))
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readHellaswag(fields) {
  const second = capitalize(fields.string('ctx_b'))
  const context = `${fields.text('activity_label')}: ${fields.string('ctx_a')} ${second}`
  const choices = fields.strings('endings', 2).map(withoutBrackets)
  return choose(withoutBrackets(context), choices, fields.integer('label', 0, choices.length - 1))
}

/** What is in brackets is left over from the WikiHow pages of HellaSwag. @param {string} text */
function withoutBrackets(text) {
  return trim(text)
    .replaceAll(' [title]', '. ')
    .replace(/\[[^\n]*?\]/g, '')
    .replaceAll('  ', ' ')
}

/** As Python's: what follows the first character becomes small, a sigma by what is before it. @param {string} text */
function capitalize(text) {
  const [first = ''] = text
  const large = first.toUpperCase()
  const rest = text.toLowerCase().slice(first.toLowerCase().length)
  return large.slice(0, 1) + large.slice(1).toLowerCase() + rest
}

/** Unlike JavaScript's own, leaves U+FEFF and takes U+0085, as Python's strip does. @param {string} text */
function trim(text) {
  return text.replace(/^\p{White_Space}+|\p{White_Space}+$/gu, '')
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readWinogrande(fields) {
  const sentence = fields.text('sentence')
  const gap = sentence.indexOf('_')
  if (gap < 0) throw fields.wrong('sentence', 'a string with a _ in the place of the option')
  const continuations = [` ${trim(sentence.slice(gap + 1))}`]
  const contexts = ['option1', 'option2'].map((name) => sentence.slice(0, gap) + fields.text(name))
  return {
    groups: contexts.map((context) => ({ context, continuations })),
    lengths: contexts.map(lengthOf),
    gold: fields.integer('answer', 1, 2) - 1,
  }
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readArc(fields) {
  const isNested = typeof fields.get('question') === 'object'
  const stem = isNested ? fields.object('question').text('stem') : fields.text('question')
  const { choices, gold } = readLabelled(fields, isNested)
  return choose(`Question: ${stem}\nAnswer:`, choices, gold)
}

/** @param {JsonFields} fields @returns {EvalItem} */
function readOpenbookqa(fields) {
  const isNested = typeof fields.get('question') === 'object'
  const stem = isNested ? fields.object('question').text('stem') : fields.text('question_stem')
  const { choices, gold } = readLabelled(fields, isNested)
  return choose(stem, choices, gold)
}

/**
 * @param {JsonFields} fields
 * @param {boolean} isNested the choices are objects within the question, as in the authors' files
 * @returns {{ choices: string[], gold: number }}
 */
function readLabelled(fields, isNested) {
  const { choices, labels } = isNested
    ? readNested(fields.object('question'))
    : readLists(fields.object('choices'))
  const key = fields.get('answerKey')
  const gold = typeof key === 'string' ? labels.indexOf(key.trimStart()) : -1
  if (gold < 0) throw fields.wrong('answerKey', `one of the labels ${labels.join(', ')}`)
  return { choices, gold }
}

/** @param {JsonFields} lists */
function readLists(lists) {
  const choices = lists.strings('text', 2)
  const labels = lists.strings('label', 2)
  if (labels.length === choices.length) return { choices, labels }
  throw lists.wrong('label', `as many labels as texts, ${choices.length}`)
}

/** @param {JsonFields} question */
function readNested(question) {
  const list = question.get('choices')
  const pairs = (Array.isArray(list) ? list : []).map((one) => Object(one))
  const fits = pairs.every(
    ({ text, label }) => typeof text === 'string' && typeof label === 'string',
  )
  if (pairs.length < 2 || !fits) {
    throw question.wrong('choices', 'an array of 2 or more objects with text and label')
  }
  return { choices: pairs.map(({ text }) => text), labels: pairs.map(({ label }) => label) }
}
