/**
 * `npm test`: every check of the project, one after another, from a fresh clone.
 * `node scripts/test.js js browser` runs some parts only; `npm run build` must have run before.
 *
 * Owns the list of parts, their order and the closing summary. Knows no test from inside. The idea:
 * a failed part does not hide the others, except that nothing can follow a failed build.
 */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, ROOT, run, runScript } from './command.js'
import { lavapipeDriver } from './lavapipe-driver.js'
import { pythonWith, setUpNodePackages, setUpTools, softwareDriver } from './setup.js'

/** No part takes a quarter of this on two cores: a part that does has hung. */
const LIMIT_MS = 20 * 60000

/** @param {string} folder of test files for Node's runner @param {Record<string, string>} driver of WebGPU */
function nodeTests(folder, driver) {
  const files = readdirSync(join(ROOT, folder))
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => join(folder, name))
  // What tests download is not for the user's own cache.
  const env = { BIMAMBA_CACHE: join(ROOT, 'build/test-cache'), ...driver }
  const args = ['--test', '--test-reporter=spec', ...files]
  run(process.execPath, args, { env, timeoutMs: LIMIT_MS })
}

/** The driver that comes with Chromium. @returns {Record<string, string>} */
function ownDriver() {
  const driver = softwareDriver()
  return driver === undefined ? {} : { VK_DRIVER_FILES: driver }
}

/** One that was named, or the quickest there is. @returns {Record<string, string>} */
function nodeDriver() {
  if (process.env.VK_DRIVER_FILES !== undefined) return {}
  return lavapipeDriver() ?? ownDriver()
}

/**
 * Builds and runs the C tests of one preset of CMakePresets.json.
 * @param {'native' | 'wasm-test'} preset
 */
function cTests(preset) {
  run('cmake', ['--preset', preset])
  run('cmake', ['--build', '--preset', preset], { timeoutMs: LIMIT_MS })
  run('ctest', ['--preset', preset, '--no-tests=error'], { timeoutMs: LIMIT_MS })
}

/** The tests of the training recipe, as its README runs them. */
function recipeTests() {
  const python = pythonWith('torch')
  if (!python) throw new CommandError('No Python with PyTorch; the part "tools" installs it')
  const args = ['-m', 'unittest', 'discover', '-s', 'models/training']
  run(python, args, { env: { OMP_NUM_THREADS: '1' }, timeoutMs: LIMIT_MS })
}

/** @type {Record<string, () => void>} */
const PARTS = {
  tools: () => setUpTools('test'),
  packages: setUpNodePackages,
  build: () => run(process.execPath, ['scripts/build.js']),
  lint: () => run(process.execPath, ['scripts/lint.js']),
  types: () => run('node_modules/.bin/tsc', ['-p', 'tsconfig.json']),
  native: () => cTests('native'),
  wasm: () => cTests('wasm-test'),
  js: () => nodeTests('tests/js', nodeDriver()),
  browser: () => nodeTests('tests/browser', ownDriver()),
  recipe: recipeTests,
}

/** Nothing can be tested without these. */
const FIRST = ['tools', 'packages', 'build']

/**
 * Runs one part; true when it passed.
 * @param {string} name
 */
function runPart(name) {
  const part = PARTS[name]
  if (!part) throw new CommandError(`No part "${name}"; there are ${Object.keys(PARTS).join(', ')}`)
  const start = Date.now()
  console.log(`\n== ${name}`)
  let outcome = 'passed'
  try {
    part()
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    console.error(error.message)
    outcome = 'FAILED'
  }
  const seconds = ((Date.now() - start) / 1000).toFixed(1)
  summary.push(`${name.padEnd(10)} ${outcome}  ${seconds.padStart(7)} s`)
  return outcome === 'passed'
}

/** @type {string[]} */
const summary = []

runScript(() => {
  const named = process.argv.slice(2)
  const parts = named.length > 0 ? named : Object.keys(PARTS)
  let failed = 0
  for (const name of parts) {
    if (runPart(name)) continue
    failed++
    if (FIRST.includes(name)) break
  }
  console.log(`\n== summary\n${summary.join('\n')}`)
  console.log(`parts: ${summary.length - failed} passed, ${failed} failed`)
  if (failed > 0) process.exitCode = 1
})
