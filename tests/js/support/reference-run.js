/**
 * Runs tests/golden/reference.py.
 *
 * Owns where Python is and the exchange through files. Knows no equation and no engine. The idea: one start
 * of Python for a whole batch of jobs, because importing numpy costs more than a small model.
 */

import { execFile, execFileSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

export const REFERENCE_SCRIPT = fileURLToPath(new URL('../../golden/reference.py', import.meta.url))
/** Debian's interpreter first: python3-numpy is installed for it, and another python3 may come first in PATH. */
const INTERPRETERS = ['/usr/bin/python3', 'python3']

/** @returns {string | null} a Python that has numpy */
export function findPython() {
  for (const python of INTERPRETERS) {
    try {
      execFileSync(python, ['-c', 'import numpy'], { stdio: 'ignore' })
      return python
    } catch {
      // The next one may have it.
    }
  }
  return null
}

/**
 * @typedef {object} ReferenceJob
 * @property {string} model checkpoint folder or packed file
 * @property {ArrayLike<number>} tokens
 * @property {boolean} [traps] also measure how visible the known mistakes are
 */

/**
 * @typedef {object} ReferenceResult
 * @property {Float64Array} logits [positions, vocabSize]
 * @property {Float64Array} residuals [n_layer + 1, positions, d_model]
 * @property {number} vocabSize
 * @property {number} maxLogit largest absolute value
 * @property {Record<string, number>} traps mistake -> max |logit difference| / (1 + max |logit|)
 */

/**
 * @param {string} python
 * @param {string} dir for the files exchanged
 * @param {ReferenceJob[]} jobs
 * @returns {Promise<ReferenceResult[]>} in the order of the jobs
 */
export async function runReference(python, dir, jobs) {
  const written = jobs.map(({ tokens, ...job }, i) => ({
    ...job,
    tokens: Array.from(tokens),
    logits: join(dir, `reference-${i}.logits`),
    residuals: join(dir, `reference-${i}.residuals`),
  }))
  const batch = join(dir, 'reference-jobs.json')
  await writeFile(batch, JSON.stringify(written))
  const { stdout } = await promisify(execFile)(python, ['-B', REFERENCE_SCRIPT, '--batch', batch], {
    // On a shared machine a second BLAS thread costs more than it brings.
    env: { ...process.env, OPENBLAS_NUM_THREADS: '1' },
    maxBuffer: 1 << 24,
  })
  const lines = stdout.trim().split('\n')
  return Promise.all(
    written.map(async ({ logits, residuals }, i) => {
      const line = JSON.parse(String(lines[i]))
      return {
        logits: await readFloats(logits),
        residuals: await readFloats(residuals),
        vocabSize: line.vocab_size,
        maxLogit: line.max_logit,
        traps: line.traps ?? {},
      }
    }),
  )
}

/** @param {string} path */
async function readFloats(path) {
  const bytes = await readFile(path)
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
}
