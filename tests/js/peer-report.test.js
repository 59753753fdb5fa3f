/**
 * The comparison with llama.cpp, as far as it can be tested without llama.cpp: what its report and its picture say, and that what it
 * installs is pinned.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { peerChart } from '../bench/peers/peer-chart.js'
import { peerReport } from '../bench/peers/peer-report.js'

/** @typedef {import('../bench/peers/peer-rounds.js').SpeedRow} SpeedRow */

/**
 * @param {Pick<SpeedRow, 'engine' | 'host' | 'type' | 'threads'>} name
 * @param {number[]} decode
 * @param {number[]} prompt
 * @param {number} [promptTokens]
 * @returns {SpeedRow}
 */
function row(name, decode, prompt, promptTokens = 512) {
  return { shape: '780M', ...name, decode, prompt, decodeTokens: 8, promptTokens }
}

const ours = /** @type {const} */ ({ engine: 'bimamba', host: 'Node', type: '1 bit' })
const native = /** @type {const} */ ({ engine: 'llama.cpp', host: 'native' })
const wllama = /** @type {const} */ ({ engine: 'wllama', host: 'Chromium' })
const ROWS = [
  row({ ...ours, threads: 1 }, [1, 60, 90], [100]),
  row({ ...ours, threads: 2 }, [80], [160]),
  row({ ...wllama, type: 'Q4_K', threads: 1 }, [6], [5], 32),
  row({ ...wllama, type: 'Q4_K', threads: 2 }, [2], [4], 16),
  row({ ...native, type: 'Q1_0', threads: 1 }, [24], [20]),
  row({ ...native, type: 'Q1_0', threads: 2 }, [30], [50]),
  row({ ...native, type: 'TQ2_0', threads: 1 }, [33], [30]),
  row({ ...native, type: 'TQ2_0', threads: 2 }, [20], [40]),
]

/** @type {import('../bench/peers/peer-report.js').PeerResults} */
const RESULTS = {
  check: null,
  speed: {
    date: '2026-01-02',
    command: 'npm run bench:peers',
    machine: 'a machine',
    versions: { Node: 'v20' },
    load: [0.25, 1],
    rows: ROWS,
  },
}

test('medians, tokens of short prompts, and ratios to the best type with as many threads or fewer', () => {
  const text = peerReport(RESULTS)
  for (const line of [
    '| bimamba, Node, 1 bit | 60.0 | 80.0 | 100 | 160 |',
    '| wllama, Chromium, Q4_K | 6.0 | 2.0 | 5.0 (32) | 4.0 (16) |',
    '| llama.cpp, native, TQ2_0 | 33.0 | 20.0 | 30.0 | 40.0 |',
    '| bimamba in Node / best of native llama.cpp | 1.8 (TQ2_0) | 2.4 (TQ2_0, 1 thread) | 3.3 (TQ2_0) | 3.2 (Q1_0) |',
    '| bimamba in Node / best of wllama | 10.0 (Q4_K) | 13.3 (Q4_K, 1 thread) | 20.0 (Q4_K) | 32.0 (Q4_K, 1 thread) |',
  ]) {
    assert.ok(text.includes(`${line}\n`), `${line}\nis not in\n${text}`)
  }
  assert.match(
    text,
    /`npm run bench:peers`, 2026-01-02, a machine; Node v20\. Rounds: 3, .* Load .*0\.3, 1\.0\./,
  )
  assert.match(peerReport({ check: null, speed: null }), /Speed\n\nNot measured yet/)
})

test('what is in docs is what the results say', () => {
  const read = (/** @type {string} */ name) =>
    readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
  const results = JSON.parse(read('peers.json'))
  assert.equal(read('PEERS.md'), peerReport(results))
  if (results.speed) assert.equal(read('peers.svg'), peerChart(results.speed.rows))
})

test('the picture has a bar for each number and names every engine', () => {
  const svg = peerChart(ROWS)
  assert.equal(svg.match(/<rect /g)?.length, 2 * ROWS.length)
  assert.equal(svg.match(/>llama.cpp, native, TQ2_0</g)?.length, 2)
  assert.equal(svg.match(/<(\w+)/g)?.length, Number(svg.match(/<\/\w+>|\/>/g)?.length))
  assert.match(svg, /prefers-color-scheme: dark/)
})

test('what is installed is pinned and names no host', () => {
  const read = (/** @type {string} */ name) =>
    readFileSync(new URL(`../bench/peers/${name}`, import.meta.url), 'utf8')
  const { dependencies } = JSON.parse(read('package.json'))
  assert.deepEqual(
    Object.values(dependencies).filter((version) => !/^\d+\.\d+\.\d+$/.test(version)),
    [],
  )
  assert.doesNotMatch(read('package-lock.json'), /"resolved"/)
})
