/**
 * The measurement: which subject does what, in which order, how many times.
 *
 * Owns interleaving and the numbers of tokens. The idea: a shared machine drifts, so every subject is asked in every round, one after
 * another, and medians over rounds are compared. Subjects differ in speed a hundredfold; each gets as many tokens as it makes in a
 * few seconds, at most what the fastest gets.
 */

import { startSubjects } from './subjects.js'

/** @typedef {import('./subjects.js').Subject} Subject */
/** @typedef {import('./subjects.js').SubjectName} SubjectName */

/**
 * @typedef {SubjectName & { shape: string, promptTokens: number, prompt: number[], decodeTokens: number, decode: number[] }} SpeedRow
 *   `prompt`, `decode`: tokens per second, one number a round
 */

const MOST_PROMPT = 512
const MOST_DECODE = 64
/** Seconds that one measurement should take, at most. */
const PROMPT_SECONDS = { bimamba: 16, 'llama.cpp': 10, wllama: 4 }
const DECODE_SECONDS = 1.5
/** Tokens that say how fast a long prompt would be. */
const CHUNK = 64
/** A prompt of wllama has two tokens of its own. */
const LEAST_PROMPT = 4
const LEAST_DECODE = 2

/**
 * @param {string} shape
 * @param {object} options
 * @param {number} options.rounds decoding is measured in each, prompts in every second one
 * @param {boolean} options.quick one round of a few tokens: only to see that everything works
 * @param {string} options.folder of the random files
 * @param {string} options.modules of the peers
 * @param {(text: string) => void} options.say
 * @returns {Promise<{ rows: SpeedRow[], browserVersion: string }>}
 */
export async function measureShape(shape, { rounds, quick, folder, modules, say }) {
  const onStart = (/** @type {SubjectName} */ name) => say(`${shape}: starting ${nameOf(name)}`)
  const { subjects, browserVersion, close } = await startSubjects(shape, {
    folder,
    modules,
    onStart,
  })
  try {
    /** @type {{ subject: Subject, row: SpeedRow }[]} */
    const runs = []
    for (const subject of subjects) {
      const row = await rowOf(shape, subject, quick)
      say(`${shape}: ${nameOf(row)} gets ${row.promptTokens} and ${row.decodeTokens} tokens`)
      runs.push({ subject, row })
    }
    for (let round = 0; round < (quick ? 1 : rounds); round++) {
      for (const run of runs) await measureOnce(run, round % 2 === 0)
      say(`${shape}: round ${round + 1} of ${quick ? 1 : rounds}`)
    }
    return { rows: runs.map(({ row }) => row), browserVersion }
  } finally {
    await close()
  }
}

/** @param {SubjectName} name */
export function nameOf({ engine, host, type, threads }) {
  return `${engine} ${host} ${type}, ${threads} thread${threads > 1 ? 's' : ''}`
}

/**
 * A row without results, with numbers of tokens that suit the subject.
 *
 * @param {string} shape
 * @param {Subject} subject
 * @param {boolean} quick
 * @returns {Promise<SpeedRow>}
 */
async function rowOf(shape, subject, quick) {
  const { engine, host, type, threads } = subject
  const row = { shape, engine, host, type, threads, prompt: [], decode: [] }
  if (quick) return { ...row, promptTokens: 2 * LEAST_PROMPT, decodeTokens: LEAST_DECODE }
  const tried = engine === 'wllama' ? 2 * LEAST_PROMPT : CHUNK
  const promptMs = (await subject.prefill(tried)) / tried
  const decodeMs = (await subject.decode(LEAST_DECODE)) / LEAST_DECODE
  const promptTokens = powerBelow((PROMPT_SECONDS[engine] * 1000) / promptMs)
  const decodeTokens = powerBelow((DECODE_SECONDS * 1000) / decodeMs)
  return {
    ...row,
    promptTokens: Math.max(LEAST_PROMPT, Math.min(MOST_PROMPT, promptTokens)),
    decodeTokens: Math.max(LEAST_DECODE, Math.min(MOST_DECODE, decodeTokens)),
  }
}

/** @param {number} count @returns {number} the next smaller power of two */
function powerBelow(count) {
  return 2 ** Math.floor(Math.log2(Math.max(1, count)))
}

/** @param {{ subject: Subject, row: SpeedRow }} run @param {boolean} withPrompt */
async function measureOnce({ subject, row }, withPrompt) {
  if (withPrompt) {
    row.prompt.push((1000 * row.promptTokens) / (await subject.prefill(row.promptTokens)))
  }
  row.decode.push((1000 * row.decodeTokens) / (await subject.decode(row.decodeTokens)))
}
