/**
 * The package as a user gets it: packed by npm, then installed in an empty folder, without a network.
 *
 * Owns the temporary folder. Does not build: dist/ is there since `npm run build`.
 */

import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const execute = promisify(execFile)

/**
 * @typedef {object} Packed what `npm pack --json` says of a tarball
 * @property {string} filename
 * @property {number} size bytes of the tarball
 * @property {number} unpackedSize bytes
 * @property {{ path: string, size: number, mode: number }[]} files
 */

/**
 * Packs the package into a folder.
 * @param {string} folder
 * @returns {Promise<Packed>}
 */
export async function packPackage(folder) {
  const args = [
    'pack',
    '--json',
    '--ignore-scripts',
    '--loglevel=error',
    '--pack-destination',
    folder,
  ]
  const { stdout } = await execute('npm', args, { cwd: ROOT })
  return /** @type {Packed} */ (Object.values(JSON.parse(stdout))[0])
}

/**
 * Packs the package and installs it in an empty folder.
 * @returns {Promise<{ project: string, packed: Packed, remove: () => Promise<void> }>} project: the folder
 *   that has node_modules/bimamba
 */
export async function installPackage() {
  const project = await mkdtemp(join(tmpdir(), 'bimamba-installed-'))
  const packed = await packPackage(project)
  await writeFile(join(project, 'package.json'), '{ "private": true, "type": "module" }\n')
  const args = ['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error']
  await execute('npm', [...args, join(project, packed.filename)], { cwd: project })
  return { project, packed, remove: () => rm(project, { recursive: true }) }
}
