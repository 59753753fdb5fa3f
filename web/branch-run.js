/**
 * How branches go on: chunk by chunk, past an ending if that is wanted, one alone or several together.
 *
 * Owns the loop over the package's generations and what an ending means. Knows nothing of moments and of the order in which things are done:
 * web/story.js does.
 */

/** @typedef {import('../js/index.js').BiMamba} BiMamba */
/** @typedef {import('./story.js').Branch} Branch */
/** @typedef {import('./story.js').Options} Options */
/** @typedef {import('./story.js').Step} Step */

/** Tokens between two looks around: what they took is told, and the state can be read. */
const CHUNK_TOKENS = 32
/** Between a text that the model has ended and the next one. */
const BETWEEN_TEXTS = '\n\n'

/** How far a branch is in what was asked for. */
class Course {
  #maxTokens
  #isEndless
  /** @type {number} tokens that may still come */
  left
  /** Another text has begun, and nothing of it came yet. */
  #hasBegun = false

  /** @param {Options} options */
  constructor({ maxTokens, isEndless }) {
    this.#maxTokens = maxTokens
    this.#isEndless = isEndless === true
    this.left = maxTokens
  }

  get isFirst() {
    return this.left === this.#maxTokens
  }

  /**
   * @param {number} tokens that came
   * @param {NonNullable<Step['end']>} reason why no more did
   * @returns {'goes on' | 'begins another' | 'ends'}
   */
  took(tokens, reason) {
    this.left -= tokens
    // A text that had ended already gives nothing: then another one is wanted. But not one after another that are empty.
    const isWanted = this.#isEndless || this.isFirst
    const isEmpty = this.#hasBegun && tokens === 0
    this.#hasBegun = reason === 'eos' && this.left > 0 && isWanted && !isEmpty
    if (this.#hasBegun) return 'begins another'
    return reason === 'length' && this.left > 0 ? 'goes on' : 'ends'
  }
}

/**
 * @param {BiMamba} model
 * @param {Branch} branch that has read its text
 * @param {Options} options
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Step, void, void>}
 */
export async function* continueBranch(model, branch, options, signal) {
  const { seed, maxTokens, isEndless, ...rest } = options
  const { session } = branch
  const course = new Course(options)
  for (;;) {
    const first = course.isFirst ? { seed } : {}
    const most = Math.min(course.left, CHUNK_TOKENS)
    const ms = yield* writeChunk(branch, { ...rest, ...first, maxTokens: most, signal })
    const { tokens, finishReason } = session.lastStats ?? { tokens: 0, finishReason: 'error' }
    const next = course.took(tokens, finishReason)
    const cost = { position: session.position, tokens, ms }
    yield { text: '', cost, end: next === 'ends' ? finishReason : null }
    if (next === 'ends') return
    if (next === 'begins another')
      yield { text: await beginNext(model, branch), cost: null, end: null }
  }
}

/**
 * Several at once: the weights are read once for all. One that ends leaves the others to go on.
 *
 * @param {BiMamba} model
 * @param {Branch[]} branches that have read their texts
 * @param {Options} options  branch i takes the seed + i
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ branch: Branch, text: string }, number[], void>} pieces; then the tokens of each
 */
export async function* continueBranches(model, branches, options, signal) {
  const { seed, maxTokens, isEndless, ...rest } = options
  const courses = branches.map((branch, i) => ({
    ...{ branch, course: new Course(options) },
    seed: seed + i,
  }))
  for (let going = courses; going.length > 0; ) {
    const each = going.map(({ course, seed }) => ({
      ...{ ...rest, ...(course.isFirst ? { seed } : {}) },
      ...{ maxTokens: course.left, signal },
    }))
    const sessions = going.map(({ branch }) => branch.session)
    for await (const { index, text } of model.generateTogether(sessions, each)) {
      const { branch } = /** @type {{ branch: Branch }} */ (going[index])
      branch.text += text
      yield { branch, text }
    }
    const left = []
    for (const one of going) {
      const { tokens = 0, finishReason = 'error' } = one.branch.session.lastStats ?? {}
      const next = one.course.took(tokens, finishReason)
      if (next === 'begins another')
        yield { branch: one.branch, text: await beginNext(model, one.branch) }
      if (next !== 'ends') left.push(one)
    }
    going = left
  }
  return courses.map(({ course }) => maxTokens - course.left)
}

/** The model has ended the text: it reads that it did, and a new one begins on a line of its own. @param {BiMamba} model @param {Branch} branch */
async function beginNext({ info }, branch) {
  const [end] = info.eosIds
  await branch.session.append(BETWEEN_TEXTS)
  if (end !== undefined) await branch.session.append([end])
  branch.text += BETWEEN_TEXTS
  return BETWEEN_TEXTS
}

/**
 * One chunk of tokens.
 *
 * @param {Branch} branch
 * @param {import('../js/index.js').SessionGenerateOptions} options
 * @returns {AsyncGenerator<Step, number, void>} pieces of text; then how long the model was awaited, ms
 */
async function* writeChunk(branch, options) {
  const pieces = branch.session.generate(options)
  let ms = 0
  try {
    for (;;) {
      const asked = performance.now()
      const { done, value } = await pieces.next()
      ms += performance.now() - asked
      if (done) return ms
      branch.text += value
      yield { text: value, cost: null, end: null }
    }
  } finally {
    await pieces.return(/** @type {never} */ (undefined))
  }
}
