/**
 * Loads and closes, or generates, many times in one process and prints its memory in between. Started by leaks.test.js
 * with --expose-gc: `node --expose-gc memory-run.js loads|generations inline|worker MODEL`.
 */

import { BiMamba } from '../../../js/index.js'

const [task, where, path = ''] = process.argv.slice(2)
const options = { inline: where === 'inline' }

/** @returns {Promise<number>} resident bytes once everything that can go has gone: the least of some looks */
async function settledBytes() {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < 8; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 25))
    least = Math.min(least, process.memoryUsage().rss)
  }
  return least
}

/** @param {BiMamba} model @param {number} seed */
async function generateOnce(model, seed) {
  for await (const _ of model.generateIds([1, 2, 3], { maxTokens: 4, seed }));
}

/** @param {number} count @param {number[]} marks @param {(i: number) => Promise<void>} body */
async function measure(count, marks, body) {
  /** @type {Record<number, number>} */
  const bytes = {}
  for (let i = 1; i <= count; i++) {
    await body(i)
    if (marks.includes(i)) bytes[i] = await settledBytes()
  }
  console.log(JSON.stringify(bytes))
}

if (task === 'loads') {
  await measure(50, [1, 2, 10, 49, 50], async (i) => {
    const model = await BiMamba.load(path, options)
    await generateOnce(model, i)
    await model.close()
  })
} else {
  const model = await BiMamba.load(path, options)
  await measure(1500, [500, 1500], (i) => generateOnce(model, i))
  await model.close()
}
