/**
 * The engine against the golden files: no Python needed.
 *
 * Owns the comparison of `exact` with tests/golden/*.json. How the files are made: tests/golden/regenerate.js.
 */

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Core } from '../../js/core.js'
import { checkpointSha256, GOLDEN_NAMES, readGolden } from '../golden/regenerate.js'
import { logitError } from './support/divergence.js'
import { openPacked, pack } from './support/packed-engine.js'
import { writeCase } from './support/reference-cases.js'
import { TOLERANCES } from './support/tolerances.js'

/** @type {string} */
let dir
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'bimamba-golden-'))
})
after(() => rm(dir, { recursive: true }))

for (const name of GOLDEN_NAMES) {
  test(`${name}: exact equals the golden logits`, async (t) => {
    const golden = await readGolden(name)
    const folder = join(dir, name)
    await writeCase(folder, golden.case)
    assert.equal(
      await checkpointSha256(folder),
      golden.checkpointSha256,
      'the checkpoint is not the one the file was made from: if test checkpoints were changed on purpose, run node tests/golden/regenerate.js',
    )
    const core = await Core.create()
    const projections = golden.case.dense ? 'f16' : 'auto'
    const { model } = await openPacked(
      core,
      await pack(core, folder, { embedding: 'f32', projections }),
    )
    const session = model.createSession({ precision: 'exact', state: 'f32', maxChunk: 512 })
    session.append(golden.tokens)
    const max = Math.max(...golden.logits.flat().map(Math.abs))
    const errors = golden.positions.map((position, i) =>
      logitError(session.logits(position), golden.logits[i] ?? [], max),
    )
    session.close()
    model.close()
    const worst = Math.max(...errors)
    t.diagnostic(`worst error ${worst.toExponential(2)}`)
    assert.ok(
      worst <= TOLERANCES.exact.limit,
      `${worst} at position ${golden.positions[errors.indexOf(worst)]}`,
    )
  })
}
