/**
 * The builds with relaxed SIMD: taken where they run, and the same bits in every compiler of the JavaScript engine.
 *
 * V8 of Node 20 has relaxed SIMD behind a flag, so the engine runs in child processes; newer Nodes need no flag.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Core } from '../../js/core.js'
import { BiMamba } from '../../js/index.js'
import { tinyModel } from './support/tiny-model.js'

const PROGRAM = fileURLToPath(new URL('./support/relaxed-run.js', import.meta.url))
/** @param {string} name */
const built = (name) => fileURLToPath(new URL(`../../dist/${name}.wasm`, import.meta.url))
const PLAIN = ['bimamba', 'bimamba-threads'].map(built)
const RELAXED = ['bimamba-relaxed', 'bimamba-threads-relaxed'].map(built)
const MODULES = [...PLAIN, ...RELAXED]

/** Rows, columns and heads that leave ends everywhere: columns of one group and a part, rows of four blocks and a part. */
const SHAPE = { n_layer: 2, d_model: 288, d_state: 24, headdim: 32, ngroups: 2, vocab_size: 777 }

const hasRelaxed = RELAXED.every((file) => WebAssembly.validate(readFileSync(file)))
const RELAXED_FLAG = hasRelaxed ? [] : ['--experimental-wasm-relaxed-simd']
/** First calls run in the baseline compiler, later ones in the optimising one. */
const COMPILERS = { both: [], baseline: ['--liftoff-only'], optimising: ['--no-liftoff'] }

/** @type {string} */
let path
before(async () => {
  path = await tinyModel({ tokenizer: null, config: SHAPE })
})

/**
 * @param {string[]} flags
 * @param {string[]} modules
 * @returns {Promise<{ chosen: string[], override: string, hashes: Record<string, string>[] }>}
 */
async function runIn(flags, modules) {
  const { stdout } = await promisify(execFile)(process.execPath, [
    ...flags,
    PROGRAM,
    path,
    ...modules,
  ])
  return JSON.parse(stdout)
}

describe('with relaxed SIMD', () => {
  /** @type {Record<string, string> | undefined} */
  let want
  for (const [name, flags] of Object.entries(COMPILERS)) {
    test(`every module gives the same bits, compiled by: ${name}`, async () => {
      const { chosen, override, hashes } = await runIn([...RELAXED_FLAG, ...flags], MODULES)
      assert.deepEqual(chosen, Array(4).fill('relaxed'))
      assert.equal(override, 'plain')
      want ??= hashes[0]
      assert.equal(Object.keys(want ?? {}).length, 6)
      for (const [i, found] of hashes.entries()) assert.deepEqual(found, want, MODULES[i])
    })
  }
})

test('without relaxed SIMD the plain modules run, and a relaxed one is refused', async (t) => {
  if (hasRelaxed) return t.skip('this Node has relaxed SIMD')
  const { chosen } = await runIn([], PLAIN)
  assert.deepEqual(chosen, Array(4).fill('plain'))
  const [wasm = ''] = RELAXED
  await assert.rejects(Core.create({ wasm }), {
    code: 'unsupported',
    message: /relaxed\.wasm: no WebAssembly module that runs here/,
  })
})

test('a model says which SIMD its module has', async () => {
  const model = await BiMamba.load(path)
  assert.equal(model.info.simd, hasRelaxed ? 'relaxed' : 'plain')
  await model.close()
})
