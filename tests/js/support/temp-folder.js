/** A folder that a test may fill and that is gone after it. */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/**
 * @param {{ after: (fn: () => Promise<void>) => void }} t the test's context
 * @returns {Promise<string>} path
 */
export async function tempFolder(t) {
  const folder = await mkdtemp(join(tmpdir(), 'bimamba-test-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return folder
}
