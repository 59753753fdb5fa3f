/**
 * `npm run test:gpu [-- FILES]`: the tests of WebGPU in Node on a second software driver, the one of Chromium, SwiftShader, whose subgroups have other sizes.
 *
 * Owns which driver that is. Takes some ten minutes; `npm test` runs the same tests on Mesa's lavapipe, where that can be had.
 */

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, ROOT, run, runScript } from './command.js'
import { setUpTools, softwareDriver } from './setup.js'

const LIMIT_MS = 60 * 60000

runScript(() => {
  setUpTools('test')
  const driver = softwareDriver()
  if (!driver)
    throw new CommandError('the driver that comes with Debian\u2019s Chromium is not here')
  const named = process.argv.slice(2)
  const all = readdirSync(join(ROOT, 'tests/js')).filter((name) => /^gpu.*\.test\.js$/.test(name))
  const files = named.length > 0 ? named : all.map((name) => join('tests/js', name))
  const env = {
    VK_DRIVER_FILES: driver,
    BIMAMBA_TEST_GPU: 'swiftshader',
    BIMAMBA_CACHE: join(ROOT, 'build/test-cache'),
  }
  const order = ['--test', '--test-concurrency=1', '--test-reporter=spec']
  run(process.execPath, [...order, ...files], { env, timeoutMs: LIMIT_MS })
})
