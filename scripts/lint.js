/**
 * `npm run lint`: Biome for JavaScript and JSON, clang-format for C. `npm run format` mends what it can.
 *
 * Owns which files are looked at by which program; the rules are in biome.json and .clang-format.
 */

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run, runScript } from './command.js'

const write = process.argv.includes('--write')

/** All C files, relative to the root. */
function listCFiles() {
  const folders = ['src', 'wasm', 'tests/c'].filter((folder) => existsSync(join(ROOT, folder)))
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.[ch]$/.test(name))
      .map((name) => join(folder, name)),
  )
}

runScript(() => {
  run('node_modules/.bin/biome', [
    'check',
    '--error-on-warnings',
    ...(write ? ['--write'] : []),
    '.',
  ])
  const files = listCFiles()
  if (files.length > 0)
    run('clang-format', [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...files])
})
