/**
 * Remakes the golden files: `node tests/golden/regenerate.js` (needs Python 3 with numpy).
 *
 * Owns which cases are golden, which positions are kept and the layout of the files. Knows no engine. The
 * idea: a golden file is small and readable, names the seed and the command that made it, and holds the hash
 * of its checkpoint, so that a change in how test checkpoints are made is not taken for a wrong engine.
 * Changing a golden file needs a commit of its own and a reason.
 */

import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CASES, DENSE, tokensOf, writeCase } from '../js/support/reference-cases.js'
import { findPython, runReference } from '../js/support/reference-run.js'

/** @typedef {import('../js/support/reference-cases.js').ReferenceCase} ReferenceCase */

/** Golden file -> the case it holds. */
const GOLDEN = {
  'state16-head32': 'state 16, head 32',
  'state64-groups2-untied': 'state 64, 2 groups, untied',
  'state128-head32-groups3': 'state 128, head 32, 3 groups of one head, 2 taps, expand 1',
  'groups4-dt-limit': '4 groups, finite dt_limit',
  'dense-groups2': DENSE.name,
}
/** The first tokens, where the conv still sees its start, and both sides of a border at 256. */
const POSITIONS = [0, 1, 2, 16, 254, 255, 256, 299]
/** More than f32 has, far fewer than f64. */
const DIGITS = 9

/**
 * @typedef {object} Golden
 * @property {string} made the command that makes the file
 * @property {ReferenceCase} case
 * @property {string} checkpointSha256 of model.safetensors
 * @property {number[]} tokens
 * @property {number[]} positions
 * @property {number[][]} logits after each of the positions
 * @property {number[][]} residualRms of the residual stream there: the embedding, then after each layer
 */

/** @param {string} dir a case's checkpoint folder */
export async function checkpointSha256(dir) {
  return createHash('sha256')
    .update(await readFile(join(dir, 'model.safetensors')))
    .digest('hex')
}

/** @param {string} name */
export async function readGolden(name) {
  const text = await readFile(new URL(`./${name}.json`, import.meta.url), 'utf8')
  return /** @type {Golden} */ (JSON.parse(text))
}

export const GOLDEN_NAMES = Object.keys(GOLDEN)

/** @param {Golden} golden JSON with one array a line */
function format(golden) {
  const { logits, residualRms, ...rest } = golden
  const rows = (/** @type {number[][]} */ list) =>
    `[\n${list.map((row) => `    [${row.map((v) => Number(v.toPrecision(DIGITS))).join(', ')}]`).join(',\n')}\n  ]`
  const fields = Object.entries(rest).map(([key, value]) => `  "${key}": ${JSON.stringify(value)}`)
  fields.push(`  "logits": ${rows(logits)}`, `  "residualRms": ${rows(residualRms)}`)
  return `{\n${fields.join(',\n')}\n}\n`
}

/** @param {import('../js/support/reference-run.js').ReferenceResult} result @param {number} length */
function keep({ logits, residuals, vocabSize }, length) {
  const layers = residuals.length
  return {
    logits: POSITIONS.map((p) => Array.from(logits.slice(p * vocabSize, (p + 1) * vocabSize))),
    residualRms: (/** @type {number} */ dModel) =>
      POSITIONS.map((p) =>
        Array.from({ length: layers / length / dModel }, (_, n) => {
          const at = (n * length + p) * dModel
          const row = residuals.slice(at, at + dModel)
          return Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / dModel)
        }),
      ),
  }
}

/** Writes every golden file beside this one. */
async function regenerate() {
  const python = findPython()
  if (!python) throw new Error('Python 3 with numpy is needed: apt-get install python3-numpy')
  const dir = await mkdtemp(join(tmpdir(), 'bimamba-golden-'))
  try {
    for (const [file, name] of Object.entries(GOLDEN)) {
      const chosen = [...CASES, DENSE].find((c) => c.name === name)
      if (!chosen) throw new Error(`no case "${name}"`)
      const folder = join(dir, file)
      const { config } = await writeCase(folder, chosen)
      const tokens = tokensOf(chosen, Number(POSITIONS.at(-1)) + 1)
      const [result] = await runReference(python, dir, [{ model: folder, tokens }])
      if (!result) throw new Error(`${name}: no result`)
      const kept = keep(result, tokens.length)
      const text = format({
        made: 'node tests/golden/regenerate.js',
        case: chosen,
        checkpointSha256: await checkpointSha256(folder),
        tokens,
        positions: POSITIONS,
        logits: kept.logits,
        residualRms: kept.residualRms(config.d_model),
      })
      await writeFile(new URL(`./${file}.json`, import.meta.url), text)
      console.log(`${file}.json: ${text.length} bytes`)
    }
  } finally {
    await rm(dir, { recursive: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await regenerate()
