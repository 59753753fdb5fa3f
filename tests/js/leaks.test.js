/**
 * Memory that is not given back, measured on a process of its own: what is resident after a forced collection.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { tinyModel } from './support/tiny-model.js'

const RUN = fileURLToPath(new URL('./support/memory-run.js', import.meta.url))
/** What one load may leave behind. */
const LIMIT_BYTES = 10e6
/** What forty may: bare worker threads of Node leave 5 MB, and the JavaScript heap breathes by 8. */
const SUM_LIMIT_BYTES = 25e6

let path = ''
before(async () => {
  // About 10 MB in the engine, 330 KB a sampler: a model kept at every tenth load, or a tenth of the samplers, would be seen.
  path = await tinyModel({
    tokenizer: null,
    config: { vocab_size: 16384, d_model: 512, n_layer: 4 },
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

/**
 * What a run leaves between two marks, in order: the last column is the most it may be.
 * @typedef {[from: number, to: number, limitBytes: number]} Rule
 */

/**
 * Fails when every one of three processes grows by more than a rule allows: what is resident also depends on when the
 * allocator returns pages, so one process may be unlucky, and a leak is in all of them.
 *
 * @param {'loads' | 'generations'} task
 * @param {'inline' | 'worker'} where
 * @param {Rule[]} rules
 */
function growsLittle(task, where, rules) {
  const broken = []
  for (let attempt = 0; attempt < 3; attempt++) {
    const bytes = run(task, where)
    const grown = rules.map(([from, to]) => Number(bytes[to]) - Number(bytes[from]))
    if (rules.every(([, , limit], i) => Number(grown[i]) < limit)) return
    broken.push({ bytes, grown })
  }
  assert.fail(`grows by more than ${rules.map(([, , limit]) => limit)}: ${JSON.stringify(broken)}`)
}

for (const where of /** @type {const} */ (['worker', 'inline'])) {
  test(`${where}: after close the memory is as before, for the 2nd and the 50th load`, () => {
    growsLittle('loads', where, [
      [1, 2, LIMIT_BYTES],
      [49, 50, LIMIT_BYTES],
      // The first loads also bring in code and grow the JavaScript heap; after them nothing must add up.
      [10, 50, SUM_LIMIT_BYTES],
    ])
  })

  test(`${where}: fifteen hundred generations take no more memory than five hundred`, () => {
    // The first hundreds grow the JavaScript heap and the code; a tenth of a thousand samplers would be 33 MB.
    growsLittle('generations', where, [[500, 1500, LIMIT_BYTES]])
  })
}
