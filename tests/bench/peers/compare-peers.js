/**
 * `npm run bench:peers [-- --shapes 780M,2.7B --rounds N] [--check] [--quick]`: our engine beside llama.cpp, native and as
 * WebAssembly, in one interleaved run; before it, that both compute the same.
 *
 * Owns the command line and where results go: docs/peers.json, docs/PEERS.md and docs/peers.svg. `--check` compares logits only.
 * `--quick` is one round of a few tokens, by default of the smallest shape, to see that everything works; it writes into build/peers.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { syntheticConfig } from '../../../js/bench/synthetic-model.js'
import { VERSION } from '../../../js/index.js'
import { ROOT } from '../../../scripts/command.js'
import { installPeers, MODULES, PEERS } from './install-peers.js'
import { checkLogits } from './logits-check.js'
import { peerChart } from './peer-chart.js'
import { peerReport } from './peer-report.js'
import { measureShape } from './peer-rounds.js'

/** @typedef {import('./peer-report.js').PeerResults} PeerResults */

const { values } = parseArgs({
  options: {
    shapes: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    check: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
  },
})

const rounds = Number(values.rounds)
if (!(Number.isInteger(rounds) && rounds >= 1)) {
  throw new Error(`--rounds is '${values.rounds}', want an integer from 1`)
}
const shapes = (values.shapes ?? (values.quick ? '780M' : '780M,2.7B')).split(',')
for (const shape of shapes) syntheticConfig(shape) // throws for what is none

const began = performance.now()
const say = (/** @type {string} */ text) => {
  const seconds = Math.round((performance.now() - began) / 1000)
  console.log(`[${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}] ${text}`)
}

const target = join(ROOT, 'docs/peers.json')
/** @type {PeerResults} */
const results = existsSync(target)
  ? JSON.parse(readFileSync(target, 'utf8'))
  : { check: null, speed: null }

const peers = installPeers()
const machine = `${cpus().length} cores of ${cpus()[0]?.model}, ${(totalmem() / 1e9).toFixed(0)} GB`
const command = ['npm run bench:peers', ...process.argv.slice(2)].join(' ').replace(' -', ' -- -')
const circumstances = { date: new Date().toISOString().slice(0, 10), command, machine }

const folder = join(PEERS, 'models')
const { rows, release } = await checkLogits(folder, MODULES)
const versions = {
  bimamba: VERSION,
  Node: process.version,
  'node-llama-cpp': `${peers['node-llama-cpp']} (llama.cpp ${release})`,
}
results.check = { ...circumstances, versions, rows }
for (const row of rows) say(`logits, signs as ${row.signs}: ${JSON.stringify(row)}`)
if (rows.some(({ passed }) => !passed)) throw new Error('llama.cpp does not compute the same')

if (!values.check) {
  const [before = 0] = loadavg()
  if (before > 0.5)
    say(`the machine is not idle (load ${before.toFixed(1)}): two threads will suffer`)
  const wllama = String(peers['@wllama/wllama'])
  /** @type {import('./peer-rounds.js').SpeedRow[]} */
  const speed = []
  for (const shape of shapes) {
    const measured = await measureShape(shape, {
      rounds,
      quick: values.quick,
      folder,
      modules: MODULES,
      say,
    })
    speed.push(...measured.rows)
    const [after = 0] = loadavg()
    results.speed = {
      ...circumstances,
      versions: { ...versions, Chromium: measured.browserVersion, wllama },
      load: [before, after],
      rows: speed,
    }
    write()
  }
} else {
  write()
}

/** What has been measured so far, so that a later failure loses nothing. */
function write() {
  const out = values.quick ? PEERS : join(ROOT, 'docs')
  writeFileSync(join(out, 'peers.json'), `${JSON.stringify(results, null, 2)}\n`)
  writeFileSync(join(out, 'PEERS.md'), peerReport(results))
  if (results.speed) writeFileSync(join(out, 'peers.svg'), peerChart(results.speed.rows))
  say(`written: ${out}`)
}
