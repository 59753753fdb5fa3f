/**
 * The rules of lm-evaluation-harness 0.4.2 a second time, as plainly as can be: every choice is a text of its own, read token by token.
 *
 * Owns nothing of the package but its sessions: the prompts, the split into tokens and the softmax are done here, from the harness's definitions.
 */

/** @typedef {{ pairs: [context: string, continuation: string][], choices: string[], gold: number }} Question */
/** @typedef {Record<string, never> & { [name: string]: unknown }} Doc */

/** What Python's str.strip takes, of what the tests have. */
const BLANKS = [' ', '\n', '\t', '\u00a0']

/** @param {string} text */
function rstrip(text) {
  let end = text.length
  while (end > 0 && BLANKS.includes(text.charAt(end - 1))) end--
  return text.slice(0, end)
}

/** @param {string} text */
function strip(text) {
  let start = 0
  while (start < text.length && BLANKS.includes(text.charAt(start))) start++
  return rstrip(text.slice(start))
}

/** @param {string} text HellaSwag's */
function preprocess(text) {
  let kept = ''
  let rest = strip(text).split(' [title]').join('. ')
  for (;;) {
    const open = rest.indexOf('[')
    const close = rest.indexOf(']', open)
    if (open < 0 || close < 0) break
    kept += rest.slice(0, open)
    rest = rest.slice(close + 1)
  }
  return (kept + rest).split('  ').join(' ')
}

/** @param {Record<string, any>} doc with ARC's or OpenBookQA's choices */
function choicesOf(doc) {
  /** @type {{ text: string, label: string }[]} */
  const list =
    doc.question?.choices ??
    doc.choices.text.map((/** @type {string} */ text, /** @type {number} */ i) => ({
      text,
      label: doc.choices.label[i],
    }))
  const key = doc.answerKey.replace(/^ +/, '')
  const gold = list.findIndex(({ label }) => label === key)
  return { choices: list.map(({ text }) => text), gold }
}

/** @param {string} context @param {{ choices: string[], gold: number }} answers @returns {Question} */
function ask(context, { choices, gold }) {
  return { pairs: choices.map((choice) => [context, ` ${choice}`]), choices, gold }
}

/** @param {string} task @param {Record<string, any>} doc @returns {Question} */
export function questionOf(task, doc) {
  if (task === 'boolq') {
    const gold = 'label' in doc ? doc.label : doc.answer ? 1 : 0
    const context = `${doc.passage}\nQuestion: ${doc.question}?\nAnswer:`
    return ask(context, { choices: ['no', 'yes'], gold })
  }
  if (task === 'piqa') {
    const answers = { choices: [doc.sol1, doc.sol2], gold: doc.label }
    return ask(`Question: ${doc.goal}\nAnswer:`, answers)
  }
  if (task === 'hellaswag') {
    const second = doc.ctx_b.charAt(0).toUpperCase() + doc.ctx_b.slice(1).toLowerCase()
    const context = preprocess(`${doc.activity_label}: ${doc.ctx_a} ${second}`)
    return ask(context, { choices: doc.endings.map(preprocess), gold: Number(doc.label) })
  }
  if (task === 'winogrande') {
    const [before, ...after] = doc.sentence.split('_')
    const choices = [before + doc.option1, before + doc.option2]
    const target = ` ${strip(after.join('_'))}`
    return {
      pairs: choices.map((choice) => [choice, target]),
      choices,
      gold: ['1', '2'].indexOf(doc.answer),
    }
  }
  const stem = doc.question?.stem ?? doc.question_stem ?? doc.question
  const context = task === 'openbookqa' ? stem : `Question: ${stem}\nAnswer:`
  return ask(context, choicesOf(doc))
}

/** @param {Float32Array} logits @param {number} id @returns {number} */
function logSoftmax(logits, id) {
  let largest = Number.NEGATIVE_INFINITY
  for (const logit of logits) largest = Math.max(largest, logit)
  let sum = 0
  for (const logit of logits) sum += Math.exp(logit - largest)
  return Number(logits[id]) - largest - Math.log(sum)
}

/**
 * @param {import('../../../js/model.js').BiMamba} model
 * @param {string} context
 * @param {string} continuation
 * @returns {Promise<number>} natural logarithm of its probability
 */
export async function steppedLoglikelihood(model, context, continuation) {
  const before = await model.tokenize(rstrip(context))
  const whole = await model.tokenize(context + continuation)
  const session = await model.createSession({ checkpointBytes: 0 })
  let sum = 0
  for (const id of before) await session.append([id])
  for (const id of whole.slice(before.length)) {
    sum += logSoftmax(await session.logits(), id)
    await session.append([id])
  }
  await session.close()
  return sum
}

/** @param {readonly number[]} values @returns {number} */
export function argmax(values) {
  let best = 0
  for (const [i, value] of values.entries()) if (value > Number(values[best])) best = i
  return best
}

/** @param {readonly boolean[]} hits @returns {{ mean: number, stderr: number }} of a sample, as the harness has it */
export function meanAndError(hits) {
  const values = hits.map(Number)
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { mean, stderr: Math.sqrt(squares / (values.length - 1)) / Math.sqrt(values.length) }
}
