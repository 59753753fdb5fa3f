/** The choice of how many threads: it must find the best, follow a change, and not wander in noise. */

import assert from 'node:assert/strict'
import test from 'node:test'
import { TeamSize } from '../../js/team-size.js'
import { seeded } from './support/seeded.js'

/**
 * Reports `tokens` tokens that cost what `msOf` says, with noise that only adds.
 * @param {TeamSize} size
 * @param {(threads: number) => number} msOf
 * @param {number} tokens
 * @param {import('./support/seeded.js').Seeded} random
 * @returns {number[]} the threads that each token had
 */
function play(size, msOf, tokens, random) {
  return Array.from({ length: tokens }, () => {
    const threads = size.next
    const noise = random.uniform() < 0.1 ? random.between(0, 1) : random.between(0, 0.02)
    size.report(msOf(threads) * (1 + noise))
    return threads
  })
}

/** @type {Record<string, [most: number, best: number, ms: (threads: number) => number]>} */
const MACHINES = {
  'two idle cores': [2, 2, (n) => 10 / n],
  'one of two cores is busy': [2, 1, (n) => (n === 1 ? 10 : 14)],
  'bandwidth ends at four of eight': [8, 4, (n) => 10 / Math.min(n, 4) + 0.3 * n],
  'four fast cores, four slow ones': [8, 4, (n) => (n <= 4 ? 10 / n : 4)],
  'one core': [1, 1, () => 10],
  'threads are useless': [64, 1, (n) => 10 + n],
}

for (const [name, [most, best, msOf]] of Object.entries(MACHINES)) {
  test(`finds the best number: ${name}`, () => {
    for (let seed = 0; seed < 50; seed++) {
      const size = new TeamSize(most)
      const used = play(size, msOf, 400, seeded(seed))
      assert.equal(size.best, best, `seed ${seed}`)
      assert(used.every((threads) => threads >= 1 && threads <= most))
      const late = used.slice(100)
      const share = late.filter((threads) => threads === best).length / late.length
      assert(share > 0.75, `seed ${seed}: the best number had ${share} of the tokens`)
    }
  })
}

test('follows a machine that becomes busy, and idle again, within some tokens', () => {
  for (let seed = 0; seed < 50; seed++) {
    const random = seeded(seed)
    const size = new TeamSize(2)
    const idle = (/** @type {number} */ n) => 10 / n
    const busy = (/** @type {number} */ n) => (n === 1 ? 10 : 16)
    play(size, idle, 100, random)
    assert.equal(size.best, 2, `seed ${seed}`)
    play(size, busy, 20, random)
    assert.equal(size.best, 1, `seed ${seed}: 20 tokens after another program came`)
    play(size, idle, 140, random)
    assert.equal(size.best, 2, `seed ${seed}: 140 tokens after it went`)
  }
})
