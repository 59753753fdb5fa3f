/**
 * `bimamba inspect`: what it shows of a good file, and what it says of a bad one.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFile, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import test from 'node:test'
import { main } from '../../js/cli/main.js'
import { convertCheckpoint } from '../../js/convert/index.js'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { tempFolder } from './support/temp-folder.js'

const core = await Core.create()

/** @param {string[]} args */
async function inspect(...args) {
  const texts = ['', '']
  const [stdout, stderr] = [0, 1].map(
    (i) =>
      new Writable({
        write(chunk, _encoding, done) {
          texts[i] += chunk
          done()
        },
      }),
  )
  assert(stdout && stderr)
  const signal = new AbortController().signal
  const code = await main(['inspect', ...args], { stdin: process.stdin, stdout, stderr, signal })
  return { code, stdout: String(texts[0]), stderr: String(texts[1]) }
}

/** @param {{ after: (fn: () => Promise<void>) => void }} t */
async function packed(t) {
  const dir = await tempFolder(t)
  const config = { n_layer: 1, d_model: 64, vocab_size: 20000 }
  await writeCheckpoint(join(dir, 'in'), { config, keep: false })
  const path = join(dir, 'm.safetensors')
  const options = /** @type {const} */ ({
    embedding: 'f32',
    source: 'evil \u001b[31m \u009b31m',
    licence: 'MIT',
  })
  await convertCheckpoint(core, join(dir, 'in'), path, options)
  return path
}

test('text: sizes, identity, config and every tensor, and no control characters', async (t) => {
  const path = await packed(t)
  const { code, stdout, stderr } = await inspect(path)
  assert.equal(code, 0, stderr)
  assert.match(stdout, /5\.\d+ MB \(\d+ bytes\)/)
  assert.match(stdout, /identity {3}[0-9a-f]{64}\n/)
  assert.match(stdout, /chunks {5}2 of 4194304 bytes, SHA-256 not verified/)
  assert.match(stdout, /d_model {12}64\n/)
  assert.match(stdout, /embedding\.weight +F32 +\[20000, 64\] +5120000 bytes at \d+\n/)
  assert.equal(stdout.match(/^ {2}layers\.0\./gm)?.length, 13)
  assert(!/(?!\n)\p{Cc}/u.test(stdout))
})

test('--json: the same, for programs', async (t) => {
  const path = await packed(t)
  const { code, stdout } = await inspect(path, '--json', '--verify')
  assert.equal(code, 0)
  const shown = JSON.parse(stdout)
  const bytes = await readFile(path)
  const head = bytes.subarray(0, shown.dataOffset)
  assert.equal(shown.identity, createHash('sha256').update(head).digest('hex'))
  assert.equal(shown.fileBytes, bytes.length)
  assert.deepEqual([shown.verified, shown.badChunks, shown.chunkSha256.length], [true, [], 2])
  assert.equal(shown.tensors[0].name, 'embedding.weight')
  assert.deepEqual([shown.licence, shown.bosId, shown.hasTokenizer], ['MIT', null, false])
})

test('--verify finds the damaged chunk that nothing else can see', async (t) => {
  const path = await packed(t)
  const bytes = await readFile(path)
  const at = bytes.length - 1000
  bytes[at] = Number(bytes[at]) ^ 1
  await writeFile(path, bytes)
  assert.equal((await inspect(path)).code, 0)
  const { code, stdout, stderr } = await inspect(path, '--verify')
  assert.equal(code, 1)
  assert.match(stdout, /SHA-256 1 damaged/)
  assert.match(
    stderr,
    /^bimamba: .*1 of 2 chunks are damaged, the first is chunk 1 \(from byte \d+\)\n$/,
  )
})

test('bad files and arguments: one line and an exit code', async (t) => {
  const path = await packed(t)
  const whole = await readFile(path)
  const rows = /** @type {[string, Uint8Array, RegExp][]} */ ([
    ['empty', new Uint8Array(0), /an empty file/],
    ['page', Buffer.from('<!DOCTYPE html><html><body>'), /web page/],
    ['long', Buffer.concat([whole, new Uint8Array(1)]), /followed by other bytes/],
    ['checkpoint', await readFile(join(path, '..', 'in', 'model.safetensors')), /convert it first/],
  ])
  for (const [name, bytes, message] of rows) {
    const file = join(path, '..', name)
    await writeFile(file, bytes)
    const { code, stdout, stderr } = await inspect(file)
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, message)
    assert.match(stderr, /^bimamba: [^\n]*\n$/)
  }
  for (const size of [whole.length - 1, 2000, 100, 8, 7]) {
    await truncate(path, size)
    const { code, stderr } = await inspect(path, '--verify')
    assert.equal(code, 1)
    assert.match(stderr, /truncated|ends inside|want at least 8/)
  }
  assert.equal((await inspect(join(path, '..', 'nothing'))).code, 1)
  assert.equal((await inspect(join(path, '..'))).code, 1)
  assert.equal((await inspect()).code, 2)
  assert.equal((await inspect('a', 'b')).code, 2)
  assert.match(
    (await inspect('a', '--verfy')).stderr,
    /unknown option --verfy, did you mean --verify/,
  )
})
