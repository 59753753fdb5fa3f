/**
 * Large checkpoints: memory does not grow with them, and positions beyond 4 GiB work.
 *
 * The 3 GB measurement is tests/bench/convert-memory.js.
 */

import assert from 'node:assert/strict'
import { readFile, stat, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { openFile } from '../../js/convert/node-files.js'
import { openZipMember, readZipDirectory } from '../../js/convert/zip.js'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { packFolder } from './support/memory-output.js'
import { measureConversion } from './support/peak-memory.js'
import { writeStoredZip } from './support/stored-zip.js'
import { tempFolder } from './support/temp-folder.js'

const core = await Core.create()
const MB = 1e6

/** The widest rows and the largest single tensors come from a big vocabulary. */
const CONFIG = { n_layer: 4, d_model: 1024, vocab_size: 48000, d_state: 128, headdim: 64 }

for (const container of /** @type {const} */ (['bin', 'safetensors'])) {
  test(`a checkpoint of 300 MB and more takes less than 200 MB, ${container}`, async (t) => {
    const dir = await tempFolder(t)
    const { bavail, bsize } = await statfs(tmpdir())
    if (bavail * bsize < 1.5e9) {
      console.log('skipped: less than 1.5 GB free for a large checkpoint')
      return t.skip('disk space')
    }
    const result = await measureConversion(dir, { config: CONFIG, container })
    const { checkpointBytes, peakBytes, baselineBytes } = result
    t.diagnostic(JSON.stringify({ container, ...result }))
    assert(checkpointBytes > 300 * MB)
    assert(
      peakBytes - baselineBytes < 200 * MB,
      `${(peakBytes - baselineBytes) / MB} MB above the baseline`,
    )
  })
}

test('a checkpoint whose storages lie beyond 4 GiB converts (zip64, sparse file)', async (t) => {
  const dir = await tempFolder(t)
  const small = await writeCheckpoint(join(dir, 'small'), { container: 'bin' })
  const entries = await readEntries(join(dir, 'small', 'pytorch_model.bin'))
  const path = join(dir, 'big', 'pytorch_model.bin')
  await writeCheckpoint(join(dir, 'big'), { container: 'bin' })
  const holeBytes = 2 ** 32 + 4096
  await writeStoredZip(path, [{ name: 'pytorch_model/.data/hole', holeBytes }, ...entries])
  const { size, blocks } = await stat(path)
  assert(size > 2 ** 32 && blocks * 512 < 50 * MB, `${size} bytes in ${blocks} blocks`)
  const big = await packFolder(core, join(dir, 'big'), { source: 's' })
  const plain = await packFolder(core, join(dir, 'small'), { source: 's' })
  assert.deepEqual(big.bytes, plain.bytes)
  assert.equal(small.seed, 1)
})

/** @param {string} path */
async function readEntries(path) {
  const file = await openFile(path)
  try {
    const members = await readZipDirectory(file)
    const contents = members.map(async (member) => {
      const part = await openZipMember(file, member)
      return { name: member.name, bytes: await part.read(0, part.size) }
    })
    return await Promise.all(contents)
  } finally {
    await file.close()
  }
}

test('a file that ends beyond 4 GiB but is cut is refused', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { container: 'bin' })
  const path = join(dir, 'pytorch_model.bin')
  const { truncate } = await import('node:fs/promises')
  const { length } = await readFile(path)
  await truncate(path, 2 ** 32 + length)
  await assert.rejects(packFolder(core, dir), { code: 'checkpoint', message: /no end record/ })
})
