/**
 * `npm run test:gpu`: the tests of WebGPU in Node on a second software driver, Mesa's lavapipe, whose subgroups are wider than those of Chromium's.
 *
 * Owns the building of what makes Dawn take that driver (tests/c/lavapipe_icd.c). Slower to set up than `npm test`, which runs the same tests on the
 * driver that comes with Chromium; on Linux only. `npm run test:gpu -- FILES` runs some.
 */

import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run, runScript } from './command.js'
import { setUpTools } from './setup.js'

const FOLDER = join(ROOT, 'build/gpu')
const LIMIT_MS = 20 * 60000

/** @returns {string} the file that tells the Vulkan loader where the driver is */
function buildDriver() {
  mkdirSync(FOLDER, { recursive: true })
  const library = join(FOLDER, 'liblavapipe_icd.so')
  const flags = ['-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-fvisibility=hidden']
  run('clang', [...flags, 'tests/c/lavapipe_icd.c', '-ldl', '-o', library])
  const manifest = {
    file_format_version: '1.0.0',
    ICD: { library_path: library, api_version: '1.1.0' },
  }
  const file = join(FOLDER, 'lavapipe_icd.json')
  writeFileSync(file, `${JSON.stringify(manifest)}\n`)
  return file
}

runScript(() => {
  setUpTools('gpu')
  const named = process.argv.slice(2)
  const all = readdirSync(join(ROOT, 'tests/js')).filter((name) => /^gpu.*\.test\.js$/.test(name))
  const files = named.length > 0 ? named : all.map((name) => join('tests/js', name))
  const env = {
    VK_DRIVER_FILES: buildDriver(),
    // A driver that is not the one meant fails the tests, rather than having them run on another one.
    BIMAMBA_TEST_GPU: 'llvmpipe',
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? FOLDER, // Mesa complains without
    BIMAMBA_CACHE: join(ROOT, 'build/test-cache'),
  }
  const order = ['--test', '--test-concurrency=1', '--test-reporter=spec']
  run(process.execPath, [...order, ...files], { env, timeoutMs: LIMIT_MS })
})
