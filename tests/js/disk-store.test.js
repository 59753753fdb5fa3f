/**
 * Files that are kept on the disk: damage of every kind is found and mended, writers wait for one another, and a disk that is full or may
 * not be written to costs the copy and not the model.
 */

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import fs, {
  appendFile,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { promisify } from 'node:util'
import { lockFile } from '../../js/cache/disk-lock.js'
import { openDiskStore } from '../../js/cache/disk-store.js'
import { BiMamba } from '../../js/index.js'
import { CHUNK_BYTES, chunkedModel } from './support/chunked-model.js'
import { startFaultServer } from './support/fault-server.js'
import { seeded } from './support/seeded.js'
import { tempFolder } from './support/temp-folder.js'

/** @type {Awaited<ReturnType<typeof chunkedModel>>} */
let model
/** @type {Awaited<ReturnType<typeof startFaultServer>>} */
let server
let identity = ''

const QUICK = { retries: 2, retryDelayMs: 5, stallTimeoutMs: 1000 }
const INDEX = new URL('../../js/index.js', import.meta.url).href

before(async () => {
  model = await chunkedModel()
  server = await startFaultServer(model.bytes)
  const loaded = await BiMamba.load(model.path)
  identity = loaded.info.identity
  await loaded.close()
})
after(() => server.close())

/** @param {string} url @param {string} cacheFolder @param {import('../../js/settings.js').FetchSettings} [options] */
const add = (url, cacheFolder, options = {}) =>
  BiMamba.cache.add(url, { ...QUICK, inline: true, cacheFolder, ...options })

/** @param {string} cacheFolder */
const fileIn = (cacheFolder) => join(cacheFolder, 'models', identity, 'model.safetensors')

/** @param {string} cacheFolder */
async function isWhole(cacheFolder) {
  return (await readFile(fileIn(cacheFolder))).equals(model.bytes)
}

/** @param {string} cacheFolder @param {string} url that led to the model */
async function writeRecord(cacheFolder, url) {
  await (await openDiskStore(cacheFolder)).remember(url, identity)
}

/** @param {number} position in the file @returns {number} the chunk; -1: the header */
const chunkOf = (position) =>
  position < model.dataOffset ? -1 : Math.floor((position - model.dataOffset) / CHUNK_BYTES)

/** @param {number} chunk */
const lengthOf = (chunk) =>
  Math.min(CHUNK_BYTES, model.bytes.length - model.dataOffset - chunk * CHUNK_BYTES)

test('1000 flipped bits: each is found, and only its chunk is fetched again', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('ok')
  await add(url, cacheFolder)
  const random = seeded(11)
  const ROUNDS = 125
  for (let round = 0; round < ROUNDS; round++) {
    const file = await open(fileIn(cacheFolder), 'r+')
    /** @type {Set<number>} */
    const chunks = new Set()
    for (let i = 0; i < 8; i++) {
      // One in four in the header, which is small.
      const isHeader = random.uniform() < 0.25
      const at = random.below(isHeader ? model.dataOffset : model.bytes.length)
      // A bit that is turned twice would be right again.
      if (chunks.has(chunkOf(at))) continue
      chunks.add(chunkOf(at))
      const bit = 1 << random.below(8)
      await file.write(Uint8Array.of(Number(model.bytes[at]) ^ bit), 0, 1, at)
    }
    await file.close()
    server.reset()
    const { cache } = await add(url, cacheFolder)
    const wanted = [...chunks].filter((chunk) => chunk >= 0)
    assert.equal(cache?.repairedChunks, wanted.length, `round ${round}`)
    const asked = server.requests.flatMap(({ range }) => (range ? range[1] + 1 - range[0] : 0))
    const wantedBytes = wanted.map(lengthOf).reduce((sum, bytes) => sum + bytes, 0)
    const total = asked.reduce((sum, bytes) => sum + bytes, 0)
    // The header is asked for with some bytes behind it; the last chunk with one.
    assert.ok(total <= wantedBytes + 65536 + 1, `round ${round}: ${total} for ${wantedBytes}`)
    assert.ok(round % 20 || (await isWhole(cacheFolder)), `round ${round}`)
  }
  assert.ok(await isWhole(cacheFolder))
})

test('holes, cut ends, lost and damaged journals and records: mended', async (t) => {
  const cacheFolder = await tempFolder(t)
  const folder = join(cacheFolder, 'models', identity)
  const url = server.url('drop', { at: 9000000, times: 3 })
  const partial = async () => {
    await rm(cacheFolder, { recursive: true, force: true })
    const broken = server.url('drop', { at: 13000000 })
    await assert.rejects(add(broken, cacheFolder, { retries: 0, streams: 1 }), { code: 'network' })
    return join(folder, 'journal')
  }
  /** @type {[string, () => Promise<void>][]} */
  const damages = [
    [
      'zeros',
      async () =>
        truncate(await part(), 6000000).then(async () =>
          truncate(await part(), model.bytes.length),
        ),
    ],
    ['cut', async () => truncate(await part(), 5000000)],
    ['longer', async () => appendFile(await part(), 'more')],
    ['no journal', async () => rm(await partial())],
    ['empty journal', async () => writeFile(await partial(), '')],
    ['journal of another file', async () => writeFile(await partial(), `${'0'.repeat(64)} 5\n1`)],
    [
      'journal that lies',
      async () => writeFile(await partial(), `${identity} ${model.bytes.length}\n11111`),
    ],
    ['journal of rubbish', async () => writeFile(await partial(), Buffer.alloc(5000, 7))],
  ]
  const part = async () => {
    await partial()
    return join(folder, 'model.safetensors.part')
  }
  for (const [name, damage] of damages) {
    await damage()
    const { cache } = await add(url, cacheFolder)
    assert.equal(cache?.note, null, name)
    assert.ok(await isWhole(cacheFolder), name)
    assert.deepEqual((await readdir(folder)).sort(), ['model.safetensors'], name)
  }
  for (const [record] of await filesOf(join(cacheFolder, 'urls'))) {
    await writeFile(record, '{"url":')
  }
  server.reset()
  const { cache } = await add(url, cacheFolder)
  assert.ok(Number(cache?.fetchedBytes) < 100000, 'the header tells which file it is')
})

/** @param {string} folder @returns {Promise<[string][]>} */
async function filesOf(folder) {
  return (await readdir(folder)).map((name) => [join(folder, name)])
}

test('a part of the file is listed as such, and goes with its URLs', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('drop', { at: 9000000 })
  await assert.rejects(add(url, cacheFolder, { retries: 0, streams: 1 }))
  await mkdir(join(cacheFolder, 'models', 'not ours'))
  await writeFile(join(cacheFolder, 'urls', 'foreign.json'), '[]')
  const [kept, ...rest] = await BiMamba.cache.list({ cacheFolder })
  assert.equal(rest.length, 0)
  assert.equal(kept?.complete, false)
  assert.equal(kept?.fileBytes, model.bytes.length)
  assert.ok(Number(kept?.storedBytes) >= 2 * CHUNK_BYTES)
  assert.deepEqual(kept?.urls, [url])
  assert.ok(Math.abs(Number(kept?.usedAt) - Date.now()) < 60000)
  assert.ok((await BiMamba.cache.clear({ cacheFolder })) > 0)
  assert.deepEqual(await readdir(join(cacheFolder, 'models')), ['not ours'])
  assert.deepEqual(await readdir(join(cacheFolder, 'urls')), ['foreign.json'])
})

test('two loads at once, in threads and in processes, download once', async (t) => {
  const cacheFolder = await tempFolder(t)
  // Long enough that the slowest to start finds the others at it.
  const url = server.url('slow', { rate: 8e6 })
  server.reset()
  /** @type {string[]} */
  const phases = []
  const onProgress = (/** @type {import('../../js/load-meter.js').Progress} */ { phase }) =>
    void phases.push(phase)
  const program = `import { BiMamba } from ${JSON.stringify(INDEX)}
    await BiMamba.cache.add(${JSON.stringify(url)}, { cacheFolder: ${JSON.stringify(cacheFolder)} })`
  await Promise.all([
    BiMamba.cache.add(url, { cacheFolder, onProgress }),
    BiMamba.cache.add(url, { cacheFolder, onProgress }),
    add(url, cacheFolder),
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]),
  ])
  assert.ok(await isWhole(cacheFolder))
  // Each asks for the header, and what was on its way when it began to wait.
  const twice = server.bytesServed() - model.bytes.length
  assert.ok(twice < 3 * (CHUNK_BYTES + 1), `${twice} bytes came twice`)
  assert.ok(phases.includes('wait'))
})

test('a process that is killed in the middle of it: the next one goes on', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('slow', { rate: 8e6 })
  const program = `import { BiMamba } from ${JSON.stringify(INDEX)}
    const onProgress = ({ loadedBytes }) => { if (loadedBytes > 9e6) console.log('there') }
    await BiMamba.cache.add(${JSON.stringify(url)}, { cacheFolder: ${JSON.stringify(cacheFolder)}, streams: 1, onProgress })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program])
  await new Promise((resolve) => child.stdout.once('data', resolve))
  child.kill('SIGKILL')
  await new Promise((resolve) => child.once('exit', resolve))
  const { cache } = await add(url, cacheFolder)
  assert.ok(Number(cache?.cachedBytes) >= CHUNK_BYTES)
  assert.ok(await isWhole(cacheFolder))
})

test('what is being written to is not deleted; a lock that was left behind does not last', async (t) => {
  const cacheFolder = await tempFolder(t)
  const store = await openDiskStore(cacheFolder)
  const release = await store.lock(identity)
  await assert.rejects(store.remove(identity), { code: 'busy' })
  const stop = new AbortController()
  let waits = 0
  const waiting = store.lock(identity, { signal: stop.signal, onWait: () => waits++ })
  setTimeout(() => stop.abort(new Error('enough')), 300)
  await assert.rejects(waiting, /enough/)
  assert.equal(waits, 1)
  await release()
  await release()
  const path = join(cacheFolder, 'left')
  await writeFile(path, 'somebody')
  assert.equal(await lockFile(path, { wait: false }), null)
  const old = new Date(Date.now() - 60000)
  await utimes(path, old, old)
  const taken = await lockFile(path, { wait: false })
  await taken?.()
  await assert.rejects(stat(path), { code: 'ENOENT' })
})

test('a lock of a clock that was set back does not last; nor does that of a deletion that failed', async (t) => {
  const cacheFolder = await tempFolder(t)
  const path = join(cacheFolder, 'left')
  await writeFile(path, 'somebody')
  const later = new Date(Date.now() + 3600000)
  await utimes(path, later, later)
  await (await lockFile(path, { wait: false }))?.()
  await assert.rejects(stat(path), { code: 'ENOENT' })

  await add(server.url('ok'), cacheFolder)
  const folder = join(cacheFolder, 'models', identity)
  const store = await openDiskStore(cacheFolder)
  t.mock.method(fs, 'rm', async (/** @type {string} */ name, /** @type {object} */ options) => {
    if (name === folder) throw Object.assign(new Error('EBUSY: in use'), { code: 'EBUSY' })
    await rm(name, options)
  })
  await assert.rejects(store.remove(identity), { code: 'storage', message: /EBUSY/ })
  assert.deepEqual(await readdir(folder), ['model.safetensors'])
})

test('a folder that is deleted while its lock is awaited is made again', async (t) => {
  const cacheFolder = await tempFolder(t)
  const store = await openDiskStore(cacheFolder)
  const release = await store.lock(identity)
  const waiting = store.lock(identity)
  waiting.catch(() => {})
  await rm(join(cacheFolder, 'models', identity), { recursive: true })
  await (await waiting)()
  await release()
})

test('ended between the last chunk and the last step: whole for all cache settings, and then finished', async (t) => {
  const url = server.url('ok')
  for (const lost of [false, true]) {
    const cacheFolder = await tempFolder(t)
    await add(url, cacheFolder)
    const part = `${fileIn(cacheFolder)}.part`
    await rename(fileIn(cacheFolder), part)
    const line = `${identity} ${model.bytes.length}\n`
    const chunks = Math.ceil((model.bytes.length - model.dataOffset) / CHUNK_BYTES)
    if (!lost) await writeFile(join(part, '..', 'journal'), line + '1'.repeat(chunks))
    server.reset()
    const only = await add(url, cacheFolder, { cache: 'only' })
    assert.equal(only.cache?.cachedBytes, model.bytes.length)
    const gone = server.url('status', { code: 500 })
    await writeRecord(cacheFolder, gone)
    const check = await add(gone, cacheFolder, { cache: 'check', retries: 0 })
    assert.match(String(check.cache?.note), /could not be asked/)
    await rename(fileIn(cacheFolder), part).catch(() => {})
    await add(url, cacheFolder)
    assert.equal(server.bytesServed(), 0)
    assert.ok(await isWhole(cacheFolder))
    assert.equal((await BiMamba.cache.list({ cacheFolder }))[0]?.complete, true)
  }
})

test('two writers, as the first one slept and lost its lock: both have kept the file', async (t) => {
  const cacheFolder = await tempFolder(t)
  const sizes = { fileBytes: 300, chunkCount: 2 }
  const writers = []
  for (let i = 0; i < 2; i++) {
    const store = await openDiskStore(cacheFolder)
    const release = await store.lock(identity)
    const entry = await store.create(identity)
    await entry.writeHeader(new Uint8Array(100), sizes)
    writers.push({ entry, release })
    const old = new Date(Date.now() - 60000)
    await utimes(join(fileIn(cacheFolder), '..', 'lock'), old, old)
  }
  for (const { entry, release } of writers) {
    for (const chunk of [0, 1]) {
      await entry.writeChunk(chunk, 100 + 100 * chunk, new Uint8Array(100).fill(chunk + 1))
    }
    await entry.finish()
    assert.ok(entry.complete)
    await entry.close()
    await release()
  }
  assert.equal((await readFile(fileIn(cacheFolder))).length, 300)
  assert.deepEqual(await readdir(join(cacheFolder, 'models', identity)), ['model.safetensors'])
})

test('clear: what is in use stays, and all else goes', async (t) => {
  const cacheFolder = await tempFolder(t)
  const store = await openDiskStore(cacheFolder)
  const names = ['a', 'b', 'c'].map((letter) => letter.repeat(64))
  for (const name of names) {
    await mkdir(join(cacheFolder, 'models', name))
    await writeFile(join(cacheFolder, 'models', name, 'model.safetensors'), 'bytes')
  }
  const release = await store.lock(String(names[1]))
  for (const name of names) {
    const used = new Date(name === names[1] ? Date.now() + 1000 : Date.now() - 1000)
    await utimes(join(cacheFolder, 'models', name), used, used)
  }
  await assert.rejects(BiMamba.cache.clear({ cacheFolder }), { code: 'busy' })
  assert.deepEqual(await readdir(join(cacheFolder, 'models')), [names[1]])
  await release()
  assert.equal(await BiMamba.cache.clear({ cacheFolder }), 5)
})

test('what a URL led to cannot be written: no draft of it stays', async (t) => {
  const cacheFolder = await tempFolder(t)
  const url = server.url('ok')
  await writeRecord(cacheFolder, url)
  const [record = ''] = await readdir(join(cacheFolder, 'urls'))
  await rm(join(cacheFolder, 'urls', record))
  await mkdir(join(cacheFolder, 'urls', record))
  await assert.rejects(writeRecord(cacheFolder, url), { code: 'storage' })
  assert.deepEqual(await readdir(join(cacheFolder, 'urls')), [record])
})

test('where nothing can be written the model runs from memory, and says so', async (t) => {
  const base = await tempFolder(t)
  const blocked = join(base, 'a file')
  await writeFile(blocked, '')
  const loaded = await BiMamba.load(server.url('ok'), { ...QUICK, cacheFolder: join(blocked, 'x') })
  assert.match(String(loaded.info.cache?.note), /nothing can be kept here.*a file/)
  assert.equal(loaded.info.cache?.store, null)
  await loaded.close()
  assert.deepEqual(await BiMamba.cache.list({ cacheFolder: join(blocked, 'x') }), [])
})

test('a full disk costs the copy and not the model', async (t) => {
  const small = await tempFolder(t)
  try {
    await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', small])
  } catch (error) {
    t.skip(`skipped: a small file system to fill (${error})`)
    return
  }
  try {
    for (const inline of [true, false]) {
      server.reset()
      const cacheFolder = join(small, 'cache')
      const loaded = await BiMamba.load(server.url('ok'), { ...QUICK, cacheFolder, inline })
      assert.match(String(loaded.info.cache?.note), /not kept.*runs from memory.*ENOSPC/)
      assert.equal((await loaded.score([1, 2, 3])).length, 3)
      await loaded.close()
      const twice = server.bytesServed() - model.bytes.length
      assert.ok(twice < 100, `${twice} bytes came twice`)
      assert.deepEqual(await BiMamba.cache.list({ cacheFolder }), [], 'what filled it is gone')
    }
    await assert.rejects(writeFile(join(small, 'all'), new Uint8Array(9e6)), { code: 'ENOSPC' })
    await assert.rejects(lockFile(join(small, 'lock')), { code: 'ENOSPC' })
    await assert.rejects(stat(join(small, 'lock')), { code: 'ENOENT' }, 'nobody has it')
  } finally {
    await promisify(execFile)('umount', [small])
  }
})
