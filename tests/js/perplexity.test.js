/**
 * `bimamba perplexity` against the protocol done by hand from single log-probabilities.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { temporaryFolder, tinyModel } from './support/tiny-model.js'

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))
const WINDOW = 32

const path = join(temporaryFolder(), 'corpus.txt')
const text = 'Once upon a time thére was a little cat.\n\n'.repeat(20)

let model = ''
before(async () => {
  writeFileSync(path, text)
  model = await tinyModel()
})

/** @param {...string} args */
function perplexity(...args) {
  const line = [MAIN, 'perplexity', '--model', model, ...args]
  const { stdout, stderr, status } = spawnSync(process.execPath, line, { encoding: 'utf8' })
  return { stdout, stderr, status }
}

test('is exp of the mean of the windows, each from an empty state', async () => {
  const { stdout, status } = perplexity('--file', path, '--window', `${WINDOW}`, '--json')
  assert.equal(status, 0)
  const found = JSON.parse(stdout)
  assert.deepEqual(
    found.results.map((/** @type {{ precision: string }} */ { precision }) => precision),
    ['fast', 'high', 'exact'],
  )
  for (const { precision, nats, perplexity, bitsPerByte } of found.results) {
    const loaded = await BiMamba.load(model, { precision, inline: true })
    const ids = await loaded.tokenize(text, { bos: true })
    const windows = Math.floor(ids.length / WINDOW)
    assert.equal(ids[0], 1, 'BOS, once')
    assert.deepEqual(
      [found.tokens, found.windows, found.window, found.bytes],
      [ids.length, windows, WINDOW, Buffer.byteLength(text)],
    )
    assert(windows > 3 && ids.length % WINDOW > 0, 'several windows and a rest')
    let sum = 0
    for (let i = 0; i < windows; i++) {
      const logprobs = await loaded.score(ids.slice(i * WINDOW, (i + 1) * WINDOW))
      assert.equal(logprobs[0], null)
      const known = logprobs.slice(1).map(Number)
      sum -= known.reduce((total, logprob) => total + logprob, 0) / known.length
    }
    const want = sum / windows
    assert(Math.abs(nats - want) < 1e-9, `${precision}: ${nats}, want ${want}`)
    assert(Math.abs(perplexity - Math.exp(want)) < 1e-6)
    const bits = ((want / Math.LN2) * ids.length) / Buffer.byteLength(text)
    assert(Math.abs(bitsPerByte - bits) < 1e-9)
    await loaded.close()
  }
})

test('prints a line for each precision, or for the one asked for', () => {
  const all = perplexity('--file', path, '--window', `${WINDOW}`)
  assert.match(all.stdout, /corpus\.txt: \d+ bytes, \d+ tokens, \d+ windows of 32\n/)
  assert.match(
    all.stdout,
    /fast .*\n.*high .*\n.*exact .*perplexity \d+\.\d+ .*bits\/byte \d+\.\d+/,
  )
  const one = perplexity('--file', path, '--window', `${WINDOW}`, '--precision', 'exact')
  assert.match(one.stdout, /exact/)
  assert.doesNotMatch(one.stdout, /fast|high/)
})

test('says what is wrong', () => {
  const binary = join(temporaryFolder(), 'binary.txt')
  writeFileSync(binary, Uint8Array.of(0x41, 0xff, 0xfe))
  /** @type {[string[], number, RegExp][]} */
  const cases = [
    [[], 2, /--file is missing/],
    [['--file', join(temporaryFolder(), 'absent.txt')], 1, /cannot read .*absent\.txt: ENOENT/],
    [['--file', temporaryFolder()], 1, /cannot read .*EISDIR/],
    [['--file', binary], 2, /binary\.txt is not UTF-8/],
    [['--file', path, '--window', '1'], 2, /--window is 1, want an integer from 2/],
    [['--file', path, '--window', '9999'], 2, /has \d+ tokens, want at least a window of 9999/],
    [['--file', path, 'more'], 2, /unexpected argument 'more'/],
  ]
  for (const [args, status, pattern] of cases) {
    const result = perplexity(...args)
    assert.match(result.stderr, pattern)
    assert.equal(result.status, status, String(pattern))
    assert.equal(result.stdout, '')
  }
})
