/**
 * Installs packages that a single command needs, pinned, where git does not look.
 *
 * Owns npm's arguments, and doing it once. The versions are in package.json and package-lock.json of the folder that wants them. Install scripts do not
 * run.
 */

import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './command.js'

const FILES = ['package.json', 'package-lock.json']

/**
 * @param {string} source  the folder that has the two files
 * @param {string} folder  gets node_modules
 * @param {{ flags?: string[], env?: Record<string, string> }} [options] more for npm
 * @returns {Record<string, string>} version by package
 */
export function installPinned(source, folder, { flags = [], env = {} } = {}) {
  const wanted = FILES.map((name) => readFileSync(join(source, name), 'utf8')).join('')
  const stamp = join(folder, 'node_modules', '.installed')
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    mkdirSync(folder, { recursive: true })
    for (const name of FILES) copyFileSync(join(source, name), join(folder, name))
    // Not `npm ci`: it insists on the packages of other platforms, which not every registry has.
    const all = ['--no-save', '--ignore-scripts', '--no-audit', '--no-fund', ...flags]
    run('npm', ['--prefix', folder, 'install', ...all], { env })
    writeFileSync(stamp, wanted)
  }
  return JSON.parse(readFileSync(join(source, 'package.json'), 'utf8')).dependencies
}
