/**
 * Packed files of random weights in the shapes of the published models, on the disk.
 *
 * Owns where they are kept: build/random, a file for each shape, made once. What the weights look like is js/bench/synthetic-model.js's.
 */

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { randomWeights, syntheticConfig } from '../../js/bench/synthetic-model.js'
import { DataWriter } from '../../js/convert/data-writer.js'
import { createOutput } from '../../js/convert/node-files.js'
import { Core } from '../../js/core.js'
import { encodeHeader, headerSize } from '../../js/format.js'

const FOLDER = fileURLToPath(new URL('../../build/random', import.meta.url))

/**
 * @param {import('../../js/bench/synthetic-model.js').ShapeName} shape
 * @returns {Promise<string>} path
 */
export async function randomPacked(shape) {
  const path = join(FOLDER, `${shape}.safetensors`)
  if (existsSync(path)) return path
  mkdirSync(FOLDER, { recursive: true })
  await writeRandomPacked(syntheticConfig(shape), path)
  return path
}

/** @param {import('../../js/format.js').ModelConfig} config @param {string} path */
export async function writeRandomPacked(config, path) {
  const core = await Core.create()
  const fields = {
    config,
    tensors: core.tensors(config),
    bosId: 1,
    eosIds: [2],
    addBos: true,
    source: 'random',
    licence: 'none',
  }
  const output = await createOutput(path)
  try {
    const writer = new DataWriter(output, headerSize(fields))
    for (const { bytes } of randomWeights(core, config)) await writer.write(bytes)
    const { chunkSha256 } = await writer.finish()
    await output.write(0, encodeHeader({ ...fields, chunkSha256 }))
    await output.commit()
  } finally {
    await output.abort()
  }
}
