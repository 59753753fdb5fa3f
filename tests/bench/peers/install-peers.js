/**
 * Installs the programs we compare with, pinned, where git does not look.
 *
 * Owns the folder and npm's arguments; the versions are in package.json and package-lock.json beside this file. Install scripts do
 * not run: they would fetch or compile llama.cpp, and the package for this platform brings it ready.
 */

import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run } from '../../../scripts/command.js'

const SOURCE = join(ROOT, 'tests/bench/peers')
export const PEERS = join(ROOT, 'build/peers')
/** The folder that holds the packages. */
export const MODULES = join(PEERS, 'node_modules')
const FILES = ['package.json', 'package-lock.json']

/** @returns {Record<string, string>} version by package */
export function installPeers() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    const found = `${process.platform} ${process.arch}`
    throw new Error(`this is ${found}, want linux x64: the native llama.cpp of this comparison is`)
  }
  const wanted = FILES.map((name) => readFileSync(join(SOURCE, name), 'utf8')).join('')
  const stamp = join(MODULES, '.installed')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    mkdirSync(PEERS, { recursive: true })
    for (const name of FILES) copyFileSync(join(SOURCE, name), join(PEERS, name))
    // Not `npm ci`: it insists on the packages of other platforms, which not every registry has.
    const flags = ['--no-save', '--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund']
    run('npm', ['--prefix', PEERS, 'install', ...flags], {
      env: { NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true' },
    })
    writeFileSync(stamp, wanted)
  }
  return JSON.parse(readFileSync(join(SOURCE, 'package.json'), 'utf8')).dependencies
}
