/**
 * The engine against itself, bit for bit.
 *
 * Owns the claim that nothing but the tokens decides the bits of the logits: not the kernel variant, not how a
 * prompt is cut into appends, not maxChunk, not other sessions of the same model, not what a session did
 * before a reset. Whether the bits are right is the business of reference.test.js. Random shapes come from a
 * seed that is printed with a failure: BIMAMBA_SEED=n repeats it.
 */

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Core } from '../../js/core.js'
import { sameBits } from './support/divergence.js'
import { logitsOfParts, openPacked, pack } from './support/packed-engine.js'
import { CASES, LONG_SILENCE, randomCases, tokensOf, writeCase } from './support/reference-cases.js'

/** @typedef {import('../../js/core-model.js').CoreModel} CoreModel */
/** @typedef {import('./support/reference-cases.js').ReferenceCase} ReferenceCase */

const SEED = Number(process.env.BIMAMBA_SEED ?? Date.now() % 1000000)
/** The large shapes are left out: bits go wrong at borders, and small shapes have the same ones. */
const CHOSEN = [
  ...CASES.filter(({ config }) => (config.n_layer ?? 2) * (config.d_model ?? 64) <= 320),
  LONG_SILENCE,
  ...randomCases(SEED, 3),
]
const TOKENS = 262
const STEPS = Array(TOKENS).fill(1)
/** Appends, and the session's maxChunk, which must not matter either. */
const SPLITS = [
  { parts: [TOKENS], maxChunk: TOKENS },
  { parts: STEPS, maxChunk: 1 },
  { parts: [1, 2, 3, 256], maxChunk: 256 },
  { parts: [17, 238, 1, 6], maxChunk: 300 },
  { parts: [63, 64, 64, 64, 7], maxChunk: 64 },
  { parts: [256, 6], maxChunk: 1024 },
]
const PRECISIONS = /** @type {const} */ (['exact', 'high', 'fast'])
const STATES = /** @type {const} */ (['f32', 'i16'])

/** @type {string} */
let dir
/** @type {Core} */
let core
/** @type {Map<ReferenceCase, string>} */
const packed = new Map()

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bimamba-identity-'))
  core = await Core.create()
  for (const [i, chosen] of CHOSEN.entries()) {
    const folder = join(dir, `case${i}`)
    await writeCase(folder, chosen)
    // Every type of table takes its turn.
    const embedding = /** @type {const} */ (['f32', 'int8', 'f16'])[i % 3] ?? 'f32'
    packed.set(chosen, await pack(core, folder, { embedding }))
  }
})
after(() => rm(dir, { recursive: true }))

/** @param {ReferenceCase} chosen @param {string} variant */
async function open(chosen, variant) {
  const { model } = await openPacked(core, String(packed.get(chosen)), { variant })
  return model
}

/**
 * @param {Float32Array[]} rows
 * @param {Float32Array[]} wanted
 * @param {string} what
 */
function assertSameRows(rows, wanted, what) {
  assert.equal(rows.length, wanted.length)
  for (const [at, row] of rows.entries()) {
    const same = sameBits(row, /** @type {Float32Array} */ (wanted[at]))
    assert.ok(same, `${what}: the logits of token ${at} differ; seed ${SEED}`)
  }
}

describe('any variant, split and chunk size gives the same bits', () => {
  for (const precision of PRECISIONS) {
    for (const state of STATES) {
      test(`${precision}, ${state} state`, async () => {
        assert.ok(core.variants.length >= 2, `only ${core.variants}`)
        for (const chosen of CHOSEN) {
          const tokens = tokensOf(chosen, TOKENS)
          /** @type {Float32Array[] | null} */
          let first = null
          // The default variant tries every split, the others one pass and steps.
          for (const [i, variant] of [...core.variants].reverse().entries()) {
            const model = await open(chosen, variant)
            for (const { parts, maxChunk } of i === 0 ? SPLITS : SPLITS.slice(0, 2)) {
              const session = model.createSession({ precision, state, maxChunk })
              const rows = logitsOfParts(session, tokens, parts)
              session.close()
              first ??= rows
              const how = parts === STEPS ? 'steps' : parts.join(' + ')
              assertSameRows(rows, first, `${chosen.name}, ${variant}, ${how}`)
            }
            model.close()
          }
        }
      })
    }
  }
})

test('sessions of one model do not disturb each other, and a reset forgets everything', async () => {
  for (const chosen of CHOSEN.slice(0, 4)) {
    const tokens = tokensOf(chosen, 40)
    const others = tokensOf({ ...chosen, seed: chosen.seed + 1 }, 40)
    const model = await open(chosen, core.variants.at(-1) ?? '')
    const options = /** @type {const} */ ({ precision: 'fast', state: 'i16', maxChunk: 40 })
    const a = model.createSession(options)
    const wanted = logitsOfParts(a, tokens, [40])
    const b = model.createSession({ precision: 'high', state: 'f32', maxChunk: 3 })
    a.reset()
    /** @type {Float32Array[]} */
    const rows = []
    for (const [i, id] of tokens.entries()) {
      a.append([id])
      b.append(others.slice(i, i + 1 + (i % 2)))
      rows.push(a.logits())
      assert.equal(a.position, i + 1)
    }
    assertSameRows(rows, wanted, `${chosen.name}, beside another session`)
    a.close()
    b.close()
    model.close()
  }
})
