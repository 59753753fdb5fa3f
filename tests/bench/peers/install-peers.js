/**
 * Installs the programs we compare with.
 *
 * Owns the folder. Install scripts do not run: they would fetch or compile llama.cpp, and the package for this platform brings it ready.
 */

import { join } from 'node:path'
import { ROOT } from '../../../scripts/command.js'
import { installPinned } from '../../../scripts/pinned-packages.js'

export const PEERS = join(ROOT, 'build/peers')
/** The folder that holds the packages. */
export const MODULES = join(PEERS, 'node_modules')

/** @returns {Record<string, string>} version by package */
export function installPeers() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    const found = `${process.platform} ${process.arch}`
    throw new Error(`this is ${found}, want linux x64: the native llama.cpp of this comparison is`)
  }
  return installPinned(join(ROOT, 'tests/bench/peers'), PEERS, {
    flags: ['--omit=optional'],
    env: { NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true' },
  })
}
