/**
 * The engine against the independent reference, live, on many shapes.
 *
 * Owns the lengths and splits that are tried, and the claim that `exact` is the mathematics within one
 * tolerance. The reference (tests/golden/reference.py) reads the checkpoint itself, so the converter and the
 * packed format stand between the two sides. Without Python and numpy it says that it was skipped;
 * golden.test.js needs neither. Random shapes come from a seed that a failure prints: BIMAMBA_SEED=n repeats it.
 */

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Core } from '../../js/core.js'
import { GOLDEN_NAMES, readGolden } from '../golden/regenerate.js'
import { logitError } from './support/divergence.js'
import { logitsOfParts, openPacked, pack } from './support/packed-engine.js'
import {
  CASES,
  FULL_WIDTH,
  LONG_MEMORY,
  LONG_SILENCE,
  randomCases,
  tokensOf,
  writeCase,
} from './support/reference-cases.js'
import { findPython, REFERENCE_SCRIPT, runReference } from './support/reference-run.js'
import { TOLERANCES } from './support/tolerances.js'
import { missingTrained, TRAINED, writtenText } from './support/trained-model.js'

/** @typedef {import('../../js/core-model.js').CoreModel} CoreModel */
/** @typedef {import('../../js/core-session.js').CoreSession} CoreSession */
/** @typedef {import('./support/reference-cases.js').ReferenceCase} ReferenceCase */
/** @typedef {import('./support/reference-run.js').ReferenceResult} ReferenceResult */

const SEED = Number(process.env.BIMAMBA_SEED ?? Date.now() % 1000000)
const ALL = [...CASES, ...randomCases(SEED, 6)]
const TOKENS = 300
/** @type {ReferenceCase[]} */
const LONG = [LONG_MEMORY, LONG_SILENCE]
const LONG_TOKENS = 1500
/** Longest append tried at once, beyond the usual chunk of 256. */
const MAX_CHUNK = 300
const LENGTHS = [1, 3, 17, 255, 256, 257, 300]
/** Prompts continued at odd borders: within the conv's taps, around 256, token by token. */
const SPLITS = [
  [1, 1, 1, 297],
  [2, 15, 283],
  [17, 238, 1, 1, 43],
  [255, 2, 43],
  [256, 44],
  [257, 43],
]
/** Cases whose packed files are also read by the reference, and packed with int8 and f16 tables. */
const REPACKED = [
  'state 64, 2 groups, untied',
  '4 groups, finite dt_limit',
  '5 heads: 677 rows, untied',
]
/** Cases that between them make every known mistake visible. */
const REVEALING = ['state 64, 2 groups, untied', '4 groups, finite dt_limit', 'small activations']

const python = findPython()
const skip = python ? false : 'needs python3 with numpy'
if (skip) console.log(`skipped: comparison with the reference (${skip})`)

/** @type {string} */
let dir
/** @type {Core} */
let core
/** @type {Map<string, ReferenceResult>} by case name, or case name and embedding */
const reference = new Map()
/** @type {Map<string, string>} packed files by case name and embedding */
const packed = new Map()

/** @param {string} name */
function caseOf(name) {
  const found = CASES.find((c) => c.name === name)
  if (!found) throw new Error(`no case "${name}"`)
  return found
}

/** @param {ReferenceCase} chosen */
function tokensFor(chosen) {
  if (chosen === FULL_WIDTH) return tokensOf(chosen, 20)
  return tokensOf(chosen, LONG.includes(chosen) ? LONG_TOKENS : TOKENS)
}

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bimamba-reference-'))
  if (!python) return
  core = await Core.create()
  /** @type {Map<string, import('./support/reference-run.js').ReferenceJob>} */
  const jobs = new Map()
  for (const [i, chosen] of [...ALL, ...LONG, FULL_WIDTH].entries()) {
    const folder = join(dir, `case${i}`)
    await writeCase(folder, chosen)
    const tokens = tokensFor(chosen)
    const traps = REVEALING.includes(chosen.name)
    jobs.set(chosen.name, { model: folder, tokens, traps })
    /** @type {('f32' | 'f16' | 'int8')[]} */
    const kinds = REPACKED.includes(chosen.name) ? ['f32', 'f16', 'int8'] : ['f32']
    for (const embedding of kinds) {
      const key = `${chosen.name} ${embedding}`
      packed.set(key, await pack(core, folder, { embedding }))
      if (kinds.length > 1) jobs.set(key, { model: String(packed.get(key)), tokens })
    }
  }
  for (const name of GOLDEN_NAMES) {
    const golden = await readGolden(name)
    const folder = join(dir, name)
    await writeCase(folder, golden.case)
    jobs.set(name, { model: folder, tokens: golden.tokens })
  }
  const results = await runReference(python, dir, [...jobs.values()])
  for (const [i, key] of [...jobs.keys()].entries()) {
    reference.set(key, /** @type {ReferenceResult} */ (results[i]))
  }
})
after(() => rm(dir, { recursive: true }))

/** @param {string} key */
function result(key) {
  const found = reference.get(key)
  if (!found) throw new Error(`no reference for ${key}`)
  return found
}

/**
 * @template T
 * @param {string} key case name and embedding
 * @param {{ precision: 'exact' | 'high' | 'fast', state?: 'f32' | 'i16', variant?: string, maxChunk?: number }} options
 * @param {(session: CoreSession) => T} use
 * @returns {Promise<T>}
 */
async function withSession(key, { precision, state = 'f32', variant, maxChunk = MAX_CHUNK }, use) {
  const { model } = await openPacked(core, String(packed.get(key)), variant ? { variant } : {})
  const session = model.createSession({ precision, state, maxChunk })
  try {
    return use(session)
  } finally {
    session.close()
    model.close()
  }
}

/**
 * Worst error of a session against the reference: every length's last logits, every row of every split.
 *
 * @param {CoreSession} session
 * @param {number[]} tokens
 * @param {ReferenceResult} wanted
 */
function worstError(session, tokens, { logits, vocabSize, maxLogit }) {
  let worst = { error: 0, where: 'nowhere' }
  const look = (
    /** @type {Float32Array} */ row,
    /** @type {number} */ at,
    /** @type {string} */ how,
  ) => {
    const error = logitError(row, logits.subarray(at * vocabSize, (at + 1) * vocabSize), maxLogit)
    if (!(error <= worst.error)) worst = { error, where: `token ${at} of ${how}` }
  }
  for (const length of LENGTHS) {
    session.reset()
    session.append(tokens.slice(0, length))
    assert.equal(session.position, length)
    look(session.logits(), length - 1, `a prompt of ${length}`)
  }
  for (const split of SPLITS) {
    const rows = logitsOfParts(session, tokens, split)
    for (const [at, row] of rows.entries()) look(row, at, `parts ${split.join(' + ')}`)
  }
  return worst
}

/**
 * @param {import('node:test').TestContext} t
 * @param {{ error: number, where: string }} worst
 * @param {import('./support/tolerances.js').Tolerance} tolerance
 */
function judge(t, { error, where }, { limit }) {
  t.diagnostic(`worst error ${error.toExponential(2)} at ${where}`)
  assert.ok(error <= limit, `${error} at ${where}, want <= ${limit}; seed ${SEED}`)
}

describe('exact against the reference', { skip }, () => {
  for (const chosen of ALL) {
    test(chosen.name, async (t) => {
      const worst = await withSession(`${chosen.name} f32`, { precision: 'exact' }, (session) =>
        worstError(session, tokensFor(chosen), result(chosen.name)),
      )
      judge(t, worst, TOLERANCES.exact)
    })
  }
})

describe('exact with a 16-bit state against the reference', { skip }, () => {
  for (const chosen of ALL) {
    test(chosen.name, async (t) => {
      const worst = await withSession(
        `${chosen.name} f32`,
        { precision: 'exact', state: 'i16' },
        (session) => worstError(session, tokensFor(chosen), result(chosen.name)),
      )
      judge(t, worst, TOLERANCES.i16State)
    })
  }
})

describe('a long time', { skip }, () => {
  for (const [chosen, state, tolerance] of /** @type {const} */ ([
    [LONG_MEMORY, 'f32', TOLERANCES.exact],
    [LONG_SILENCE, 'f32', TOLERANCES.exact],
    [LONG_MEMORY, 'i16', TOLERANCES.i16StateMemory],
    [LONG_SILENCE, 'i16', TOLERANCES.i16StateSilence],
  ])) {
    test(`${chosen.name} of ${LONG_TOKENS} tokens, ${state} state`, async (t) => {
      const { logits, vocabSize, maxLogit } = result(chosen.name)
      const parts = Array(LONG_TOKENS / 250).fill(250)
      const errors = await withSession(
        `${chosen.name} f32`,
        { precision: 'exact', state, maxChunk: 250 },
        (session) =>
          logitsOfParts(session, tokensFor(chosen), parts).map((row, at) =>
            logitError(row, logits.subarray(at * vocabSize, (at + 1) * vocabSize), maxLogit),
          ),
      )
      const third = LONG_TOKENS / 3
      const worst = [0, third, 2 * third].map((at) => Math.max(...errors.slice(at, at + third)))
      t.diagnostic(`worst error by thirds ${worst.map((v) => v.toExponential(2)).join(' ')}`)
      judge(t, { error: Math.max(...worst), where: 'any token' }, tolerance)
    })
  }
})

test(FULL_WIDTH.name, { skip }, async (t) => {
  const { logits, vocabSize, maxLogit } = result(FULL_WIDTH.name)
  const rows = await withSession(`${FULL_WIDTH.name} f32`, { precision: 'exact' }, (session) =>
    logitsOfParts(session, tokensFor(FULL_WIDTH), [1, 2, 17]),
  )
  const error = logitError(
    rows.flatMap((row) => Array.from(row)),
    logits.subarray(0, rows.length * vocabSize),
    maxLogit,
  )
  judge(t, { error, where: 'any token' }, TOLERANCES.exact)
})

test('log-probabilities leave the padded rows out', { skip }, async (t) => {
  const name = 'state 64, 2 groups, untied'
  const { logits, vocabSize } = result(name)
  const row = Array.from(logits.subarray(16 * vocabSize, 17 * vocabSize))
  const sum = Math.log(row.reduce((total, v) => total + Math.exp(v), 0))
  const errors = await withSession(`${name} f32`, { precision: 'exact' }, (session) => {
    session.append(tokensFor(caseOf(name)).slice(0, 20))
    return row.map((v, id) => Math.abs(session.logprob(16, id) - (v - sum)))
  })
  const error = Math.max(...errors)
  judge(t, { error, where: `id ${errors.indexOf(error)}` }, TOLERANCES.logprob)
})

describe('packed files', { skip }, () => {
  for (const name of REPACKED) {
    test(`${name}: f32 packs without loss`, (t) => {
      const wanted = result(name)
      const error = logitError(result(`${name} f32`).logits, wanted.logits, wanted.maxLogit)
      judge(t, { error, where: 'any token' }, TOLERANCES.repacked)
    })
    for (const embedding of ['int8', 'f16']) {
      test(`${name}: exact on ${embedding} equals the reference on the dequantised table`, async (t) => {
        const key = `${name} ${embedding}`
        const worst = await withSession(key, { precision: 'exact' }, (session) =>
          worstError(session, tokensFor(caseOf(name)), result(key)),
        )
        judge(t, worst, TOLERANCES.exact)
        const other = result(name)
        const moved = logitError(result(key).logits, other.logits, other.maxLogit)
        assert.ok(moved > 0, `${embedding} changed nothing: was it used?`)
      })
    }
  }
})

test('the trained model', { skip: skip || missingTrained() }, async (t) => {
  const { model, header } = await openPacked(core, TRAINED)
  const tokens = writtenText(model, header, { seed: 1, maxTokens: TOKENS })
  const [wanted] = await runReference(String(python), dir, [{ model: TRAINED, tokens }])
  const { logits, vocabSize, maxLogit } = /** @type {ReferenceResult} */ (wanted)
  const session = model.createSession({ precision: 'exact', state: 'f32', maxChunk: TOKENS })
  const rows = logitsOfParts(session, tokens, [tokens.length])
  session.close()
  model.close()
  const errors = rows.map((row, at) =>
    logitError(row, logits.subarray(at * vocabSize, (at + 1) * vocabSize), maxLogit),
  )
  const error = Math.max(...errors)
  judge(t, { error, where: `token ${errors.indexOf(error)} of ${tokens.length}` }, TOLERANCES.exact)
})

describe('the reference', { skip }, () => {
  test('agrees with itself', () => {
    execFileSync(String(python), ['-B', REFERENCE_SCRIPT, '--self-test'], { stdio: 'inherit' })
  })

  test('sees every known mistake on these models', (t) => {
    /** @type {Map<string, number>} */
    const best = new Map()
    for (const name of REVEALING) {
      for (const [mistake, moved] of Object.entries(result(name).traps)) {
        best.set(mistake, Math.max(moved, best.get(mistake) ?? 0))
      }
    }
    const faint = [...best].sort((a, b) => a[1] - b[1])
    t.diagnostic(`${best.size} mistakes, the faintest: ${faint[0]?.join(' ')}`)
    assert.ok(best.size >= 20)
    for (const [mistake, moved] of faint) {
      assert.ok(
        moved >= TOLERANCES.visibleMistake.limit,
        `${mistake} moves logits by ${moved} only`,
      )
    }
  })

  for (const name of GOLDEN_NAMES) {
    test(`still gives ${name}.json`, async (t) => {
      const golden = await readGolden(name)
      const { logits, vocabSize, maxLogit } = result(name)
      const errors = golden.positions.map((p, i) =>
        logitError(
          logits.subarray(p * vocabSize, (p + 1) * vocabSize),
          golden.logits[i] ?? [],
          maxLogit,
        ),
      )
      judge(t, { error: Math.max(...errors), where: 'a kept position' }, TOLERANCES.golden)
    })
  }
})
