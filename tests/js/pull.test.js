/**
 * Downloads from the command line: `bimamba pull`, `bimamba cache`, and every `--model` that is a URL.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { PassThrough } from 'node:stream'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createLoadProgress, loadLine } from '../../js/cli/progress.js'
import { describeSource } from '../../js/source.js'
import { startFaultServer } from './support/fault-server.js'
import { MODEL_FILE } from './support/model-file.js'
import { tempFolder } from './support/temp-folder.js'

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))

/** @type {Awaited<ReturnType<typeof startFaultServer>>} */
let server
let sizeBytes = 0

before(async () => {
  const bytes = await readFile(MODEL_FILE)
  sizeBytes = bytes.length
  server = await startFaultServer(bytes)
})
after(() => server.close())

/** @param {string} folder of the cache @param {string[]} args */
function bimamba(folder, ...args) {
  return new Promise((resolve) => {
    const env = { ...process.env, BIMAMBA_CACHE: folder }
    const child = execFile(process.execPath, [MAIN, ...args], { env }, (_, stdout, stderr) =>
      resolve({ stdout, stderr, status: child.exitCode }),
    )
    child.stdin?.end()
  })
}

test('pull, list, use without a request, delete', async (t) => {
  const folder = await tempFolder(t)
  const url = server.url('redirect', { hops: 2 })
  const pulled = await bimamba(folder, 'pull', url)
  assert.match(pulled.stdout, /: 883 kB, 883 kB fetched, identity [0-9a-f]{64}\n$/)
  assert.deepEqual([pulled.stderr, pulled.status], ['', 0])
  server.reset()
  const again = JSON.parse((await bimamba(folder, 'pull', url, '--json')).stdout)
  assert.equal(again.cache.cachedBytes, sizeBytes)
  const listed = await bimamba(folder, 'cache')
  assert.match(listed.stdout, /^[0-9a-f]{12} {2}883 kB .*127\.0\.0\.1.*\n883 kB in all\n$/)
  const args = ['--max-tokens', '5', '--seed', '1', 'Once upon a time']
  const text = await bimamba(folder, 'generate', '--model', url, '--cache', 'only', ...args)
  assert.equal(text.status, 0, text.stderr)
  assert.ok(text.stdout.length > 5)
  assert.equal(server.requests.length, 0)
  const freed = await bimamba(folder, 'cache', '--delete', url)
  assert.equal(freed.stdout, '883 kB freed\n')
  assert.equal((await bimamba(folder, 'cache')).stdout, 'the cache is empty\n')
  assert.equal((await bimamba(folder, 'cache', '--clear', '--json')).stdout, '{"freedBytes":0}\n')
  const gone = await bimamba(folder, 'generate', '--model', url, '--cache', 'only', 'a')
  assert.match(gone.stderr, /^bimamba: .*not in the cache.*\n$/)
  assert.equal(gone.status, 1)
})

test('a pull that fails says why in one line, and goes on the next time', async (t) => {
  const folder = await tempFolder(t)
  const missing = await bimamba(folder, 'pull', server.url('status', { code: 404 }))
  assert.match(missing.stderr, /^bimamba: GET .*HTTP status 404 Not Found\n$/)
  assert.equal(missing.status, 1)
  const secret = server.url('auth', { token: 'Bearer x' })
  assert.equal((await bimamba(folder, 'pull', secret)).status, 1)
  const header = 'Authorization: Bearer x'
  assert.equal((await bimamba(folder, 'pull', secret, '--header', header)).status, 0)
  const pinned = await bimamba(folder, 'pull', server.url('ok'), '--identity', '0'.repeat(64))
  assert.match(pinned.stderr, /want 0000/)
  for (const [args, pattern] of /** @type {[string[], RegExp][]} */ ([
    [['pull'], /pull needs URL/],
    [['pull', 'a', 'b'], /unexpected argument 'b'/],
    [['pull', MODEL_FILE], /not on a server/],
    [['pull', 'hf:nothing'], /hf:OWNER\/REPO/],
    [['pull', 'http://x/', '--cache', 'off'], /nothing to pull into/],
    [['pull', 'http://x/', '--header', 'x'], /want NAME:TEXT/],
    [['pull', 'http://x/', '--identity', 'x'], /identity is "x", want 64/],
    [['cache', 'x'], /unexpected argument 'x'/],
    [['cache', '--delete', 'http://x/'], /not in the cache/],
    [['cache', '--delete', 'http://x/', '--clear'], /want one/],
  ])) {
    const { stderr, status } = await bimamba(folder, ...args)
    assert.match(stderr, pattern)
    assert.equal(status, 2, args.join(' '))
  }
})

test('the line about a load', () => {
  const progress = {
    loadedBytes: 50e6,
    totalBytes: 200e6,
    cachedBytes: 20e6,
    bytesPerSecond: 12.5e6,
    etaMs: 12000,
  }
  const line = loadLine({ ...progress, phase: 'load' })
  assert.equal(
    line,
    '[######..................]  25 %  50.0 MB of 200 MB  12.5 MB/s  0:12 left  10 % from the cache',
  )
  assert.match(loadLine({ ...progress, phase: 'wait' }), /another process/)
  assert.equal(loadLine({ ...progress, phase: 'connect', totalBytes: null }), 'connecting')
  const pipe = new PassThrough()
  createLoadProgress(pipe).update({ ...progress, phase: 'load' })
  assert.equal(pipe.read(), null, 'nothing where there is no terminal')
})

test('hf: names are addresses of the hub', () => {
  const urls = {
    'hf:owner/repo': 'https://huggingface.co/owner/repo/resolve/main/model.safetensors',
    'hf:owner/re.po-1@abc123':
      'https://huggingface.co/owner/re.po-1/resolve/abc123/model.safetensors',
    'hf:o/r@refs%2Fpr%2F1/sub folder/x.safetensors':
      'https://huggingface.co/o/r/resolve/refs%2Fpr%2F1/sub%20folder/x.safetensors',
    'http://h/x#part': 'http://h/x',
  }
  for (const [name, url] of Object.entries(urls)) {
    assert.deepEqual(describeSource(name), { kind: 'http', url, fetch: null })
  }
  const wrong = ['hf:', 'hf:owner', 'hf:a/b@', 'hf:a/b/', 'hf:../b', 'hf:a/b@%']
  // These would be another repository's file, or none: an address has no such parts.
  const parts = [
    'hf:a/b/../../c/d',
    'hf:a/b/./x',
    'hf:a/b//x',
    'hf:a/b/x/',
    'hf:a/b@..',
    'hf:a/b@%2E%2e',
  ]
  for (const name of [...wrong, ...parts, 'hf:a/b/\ud800', 'hf:a/b@\ud800']) {
    assert.throws(() => describeSource(name), { name: 'BmError', code: 'argument' }, name)
  }
})
