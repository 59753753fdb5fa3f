/**
 * `npm run fuzz [-- SECONDS]`: drives the C core with libFuzzer, natively under sanitizers; default 600 seconds.
 *
 * What it finds reaching new code stays in build/fuzz/corpus for the next run; input that fails is named and kept.
 */

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, ROOT, run, runScript } from './command.js'
import { setUpTools } from './setup.js'

runScript(() => {
  const seconds = Number(process.argv[2] ?? 600)
  if (!(Number.isInteger(seconds) && seconds > 0)) {
    throw new CommandError(`'${process.argv[2]}' seconds, want a whole number above 0`)
  }
  setUpTools('test')
  run('cmake', ['--preset', 'fuzz'])
  run('cmake', ['--build', '--preset', 'fuzz'])
  const folder = join(ROOT, 'build/fuzz')
  const corpus = join(folder, 'corpus')
  mkdirSync(corpus, { recursive: true })
  const options = [`-max_total_time=${seconds}`, '-max_len=600', `-artifact_prefix=${folder}/`]
  run(join(folder, 'tests/c/fuzz_model'), [...options, corpus], {
    timeoutMs: (seconds + 60) * 1000,
  })
})
