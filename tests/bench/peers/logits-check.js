/**
 * llama.cpp against us: the logits of an exported model, token by token.
 *
 * Owns the text and the judgement. The model is exported twice. With its signs as F32 llama.cpp computes in float32 throughout, so only
 * the order of sums differs; as Q1_0 and Q4_0 it rounds every input of a product to int8, as much as `fast` does here.
 */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { exportGgufFile } from '../../../js/convert/index.js'
import { Core } from '../../../js/core.js'
import { logitError } from '../../js/support/divergence.js'
import { MODEL_FILE } from '../../js/support/model-file.js'
import { logitsOfParts, openPacked } from '../../js/support/packed-engine.js'
import { TOLERANCES } from '../../js/support/tolerances.js'
import { writtenText } from '../../js/support/trained-model.js'
import { openLlama } from './llama-model.js'

/**
 * @typedef {object} CheckRow
 * @property {'q1_0' | 'f32'} signs
 * @property {number} positions
 * @property {number} worst      largest |difference| of two logits
 * @property {number} largest    largest |logit|
 * @property {number} sameArgmax positions where both find the same token likeliest
 * @property {boolean} passed    within the tolerance, and another argmax only where our own gap is at most twice that
 */

const MOST_POSITIONS = 128
const LEAST_POSITIONS = 64
const LIMITS = { f32: TOLERANCES.llamaFloats, q1_0: TOLERANCES.llamaIntegers }

/**
 * @param {string} folder for the exported files, made if need be
 * @param {string} modules that has node-llama-cpp
 * @returns {Promise<{ rows: CheckRow[], release: string }>} `release` of llama.cpp
 */
export async function checkLogits(folder, modules) {
  mkdirSync(folder, { recursive: true })
  const core = await Core.create()
  const { model, header } = await openPacked(core, MODEL_FILE)
  const ids = longText(model, header)
  const session = model.createSession({ precision: 'exact', maxChunk: ids.length })
  const ours = logitsOfParts(session, ids, [ids.length])
  /** @type {CheckRow[]} */
  const rows = []
  let llamaRelease = ''
  for (const signs of /** @type {const} */ (['f32', 'q1_0'])) {
    const out = join(folder, `check-${signs}.gguf`)
    const { adapter } = await exportGgufFile(core, MODEL_FILE, out, { signs })
    const { theirs, release } = await llamaLogits(out, adapter, ids, modules)
    rows.push(compare(signs, ours, theirs))
    llamaRelease = release
  }
  model.close()
  return { rows, release: llamaRelease }
}

/**
 * @param {import('../../../js/core-model.js').CoreModel} model
 * @param {import('../../../js/format.js').PackedHeader} header
 * @returns {number[]}
 */
function longText(model, header) {
  for (let seed = 5; ; seed++) {
    const ids = writtenText(model, header, { seed, maxTokens: MOST_POSITIONS })
    if (ids.length >= LEAST_POSITIONS) return ids
  }
}

/**
 * @param {string} file
 * @param {string | null} adapter
 * @param {number[]} ids
 * @param {string} modules
 */
async function llamaLogits(file, adapter, ids, modules) {
  const { model, release } = await openLlama(modules, file, 1)
  const lora = adapter === null ? {} : { lora: adapter }
  const context = await model.createContext({ contextSize: 512, threads: 1, ...lora })
  const asked = ids.map((id) => /** @type {const} */ ([id, { generateNext: { logits: true } }]))
  const results = await context
    .getSequence()
    .controlledEvaluate(/** @type {import('./llama-model.js').AskedToken[]} */ (asked))
  await context.dispose()
  await model.dispose()
  const theirs = results.map((result) => {
    const logits = result?.next.logits
    if (!logits) throw new Error('llama.cpp gave no logits')
    return Float32Array.from({ length: logits.size }, (_, id) => Number(logits.get(id)))
  })
  return { theirs, release }
}

/**
 * @param {'q1_0' | 'f32'} signs
 * @param {Float32Array[]} ours
 * @param {Float32Array[]} theirs
 * @returns {CheckRow}
 */
function compare(signs, ours, theirs) {
  const largest = Math.max(...ours.map((row) => row.reduce((a, b) => Math.max(a, Math.abs(b)), 0)))
  const errors = ours.map((row, i) => logitError(theirs[i] ?? [], row, 0))
  const worst = Math.max(...errors)
  const tolerance = LIMITS[signs].limit * (1 + largest)
  let sameArgmax = 0
  let excused = 0
  for (const [i, row] of ours.entries()) {
    const [mine, other] = [argmax(row), argmax(theirs[i] ?? row)]
    if (mine === other) sameArgmax++
    else if (Number(row[mine]) - Number(row[other]) <= 2 * tolerance) excused++
  }
  const passed = worst <= tolerance && sameArgmax + excused === ours.length
  return { signs, positions: ours.length, worst, largest, sameArgmax, passed }
}

/** @param {Float32Array} row */
function argmax(row) {
  return row.reduce((best, value, i) => (value > Number(row[best]) ? i : best), 0)
}
