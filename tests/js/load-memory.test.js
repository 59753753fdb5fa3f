/**
 * The most memory that a load takes: the weights and less than 64 MB, never a second whole copy; from a file, a server, and the cache.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { syntheticConfig } from '../../js/bench/synthetic-model.js'
import { writeRandomPacked } from '../bench/random-packed.js'
import { startFaultServer } from './support/fault-server.js'
import { tempFolder } from './support/temp-folder.js'

const INDEX = new URL('../../js/index.js', import.meta.url).href
const LIMIT_BYTES = 64e6

/** Loads what it is given and prints its peak; `tiny` is the same program before it loads. */
const PROGRAM = `
const { BiMamba } = await import(${JSON.stringify(INDEX)})
const [source, cacheFolder] = process.argv.slice(1)
const model = await BiMamba.load(source, { cacheFolder, inline: true, threads: 1 })
for await (const _ of model.generateIds([1, 2, 3], { maxTokens: 4 }));
await model.close()
console.log(process.resourceUsage().maxRSS * 1024)
`

/** @param {string} source @param {string} cacheFolder @returns {Promise<number>} bytes */
async function peakOf(source, cacheFolder) {
  const args = ['--input-type=module', '-e', PROGRAM, source, cacheFolder]
  return Number((await promisify(execFile)(process.execPath, args)).stdout)
}

test('a load takes the weights, the state and less than 64 MB', async (t) => {
  const folder = await tempFolder(t)
  const [large, tiny] = [join(folder, 'large'), join(folder, 'tiny')]
  // 70 MB of weights; a state of 16 MB.
  const config = { ...syntheticConfig('780M'), n_layer: 16 }
  await writeRandomPacked(config, large)
  await writeRandomPacked(
    { ...config, n_layer: 1, d_model: 64, vocab_size: 64, padded_vocab_size: 64, headdim: 16 },
    tiny,
  )
  const bytes = await readFile(large)
  const stateBytes = config.n_layer * config.expand * config.d_model * config.d_state * 4
  const server = await startFaultServer(bytes)
  try {
    const cacheFolder = join(folder, 'cache')
    const baseline = await peakOf(tiny, cacheFolder)
    const url = server.url('ok')
    const sources = { file: large, server: url, cache: url, stream: server.url('norange') }
    for (const [name, source] of Object.entries(sources)) {
      const grown = (await peakOf(source, cacheFolder)) - baseline - stateBytes
      assert.ok(grown < bytes.length + LIMIT_BYTES, `${name}: ${grown} bytes for ${bytes.length}`)
      assert.ok(grown > bytes.length / 2, `${name}: ${grown} bytes, which cannot be`)
    }
  } finally {
    await server.close()
  }
})
