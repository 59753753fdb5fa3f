/**
 * `node [flags] relaxed-run.js MODEL MODULE...`: what a JavaScript engine started with other flags makes of a packed model.
 *
 * Owns the program of a child process; the flags and what is compared are the test's. Prints one JSON line: `chosen`, the SIMD
 * of the module that the package takes by itself, in a worker and inline, with one thread and two; `override`, the SIMD when
 * the plain module is asked for; `hashes`, for each module and each precision and state, the SHA-256 of the logits.
 */

import { createHash } from 'node:crypto'
import { Core } from '../../../js/core.js'
import { BiMamba } from '../../../js/index.js'
import { logitsOfParts, openPacked } from './packed-engine.js'

const TOKENS = Array.from({ length: 60 }, (_, i) => (i * 37) % 777)
/** A chunk that is long enough for the product of many tokens, then steps and a short chunk. */
const PARTS = [37, 1, 1, 1, 5, ...Array(15).fill(1)]

const [path = '', ...modules] = process.argv.slice(2)

/** @param {string} file @returns {Promise<Record<string, string>>} */
async function hashesOf(file) {
  const core = await Core.create({ wasm: file })
  if (core.isShared) await core.startTeam(2)
  const { model } = await openPacked(core, path)
  /** @type {Record<string, string>} */
  const hashes = {}
  for (const precision of /** @type {const} */ (['fast', 'high', 'exact'])) {
    for (const state of /** @type {const} */ (['f32', 'i16'])) {
      const session = model.createSession({ precision, state, maxChunk: 64 })
      const hash = createHash('sha256')
      for (const row of logitsOfParts(session, TOKENS, PARTS)) hash.update(row)
      hashes[`${precision} ${state}`] = hash.digest('hex')
      session.close()
    }
  }
  model.close()
  core.close()
  return hashes
}

/** @param {import('../../../js/settings.js').LoadOptions} options */
async function simdOf(options) {
  const model = await BiMamba.load(path, options)
  await model.close()
  return model.info.simd
}

const chosen = []
for (const inline of [false, true]) {
  for (const threads of [1, 2]) chosen.push(await simdOf({ inline, threads }))
}
const wasmUrl = new URL('../../../dist/bimamba.wasm', import.meta.url)
const hashes = []
for (const file of modules) hashes.push(await hashesOf(file))
console.log(JSON.stringify({ chosen, override: await simdOf({ wasmUrl }), hashes }))
