/**
 * Memory that is not given back, measured on a process of its own: what is resident after a forced collection.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { tinyModel } from './support/tiny-model.js'

const RUN = fileURLToPath(new URL('./support/memory-run.js', import.meta.url))
const LIMIT_BYTES = 10e6

let path = ''
before(async () => {
  // About 3 MB in the engine, 80 KB a sampler: a model kept at every tenth load, or a tenth of the samplers, would be seen.
  path = await tinyModel({
    tokenizer: null,
    config: { vocab_size: 4096, d_model: 512, n_layer: 4 },
  })
})

/** @param {'loads' | 'generations'} task @param {'inline' | 'worker'} where @returns {Record<number, number>} */
function run(task, where) {
  const args = ['--expose-gc', RUN, task, where, path]
  // glibc keeps what each of its arenas has freed: 10 to 25 MB that come and go, and are nobody's leak.
  const env = { ...process.env, MALLOC_ARENA_MAX: '1' }
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8', env })
  assert.equal(stderr, '')
  assert.equal(status, 0)
  return JSON.parse(stdout)
}

/** @param {Record<number, number>} bytes @param {number} from @param {number} to */
function growsLittle(bytes, from, to) {
  const grown = Number(bytes[to]) - Number(bytes[from])
  const message = `from ${from} to ${to}: ${(grown / 1e6).toFixed(1)} MB more (${JSON.stringify(bytes)})`
  assert.ok(grown < LIMIT_BYTES, message)
}

for (const where of /** @type {const} */ (['worker', 'inline'])) {
  test(`${where}: after close the memory is as before, for the 2nd and the 50th load`, () => {
    const bytes = run('loads', where)
    growsLittle(bytes, 1, 2)
    growsLittle(bytes, 49, 50)
    // The first loads also bring in code and grow the JavaScript heap; after them nothing must add up.
    growsLittle(bytes, 10, 50)
  })

  test(`${where}: a thousand generations take no more memory than a hundred`, () => {
    growsLittle(run('generations', where), 100, 1000)
  })
}
