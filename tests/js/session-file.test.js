/**
 * Saved sessions that are not what they should be, and the places where they are kept.
 *
 * Whatever is done to the bytes, the answer is an error that says what is wrong, and no session has changed.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BiMamba, SessionStore } from '../../js/index.js'
import { collect } from './support/collect.js'
import { seeded } from './support/seeded.js'
import { tinyModel } from './support/tiny-model.js'

/** @type {BiMamba} */
let model
/** @type {import('../../js/index.js').Session} */
let session
/** @type {Uint8Array<ArrayBuffer>} */
let saved
let folder = ''

before(async () => {
  model = await BiMamba.load(await tinyModel(), { inline: true })
  session = await model.createSession({ seed: 4 })
  await session.append('once upon a time')
  await collect(session.generateIds({ maxTokens: 9, stopTokens: [] }))
  saved = await session.save()
  folder = await mkdtemp(join(tmpdir(), 'bimamba-sessions-'))
})
after(async () => {
  await model.close()
  await rm(folder, { recursive: true })
})

/** @param {Uint8Array} bytes @param {string} code @param {RegExp} message */
async function refused(bytes, code, message) {
  await assert.rejects(model.loadSession(bytes), { name: 'BmError', code, message })
}

/** @param {(header: any) => void} change @param {Uint8Array} [bytes] @returns {Uint8Array} with another header, and right in itself */
function withHeader(change, bytes = saved) {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))
  change(header)
  const head = new TextEncoder().encode(JSON.stringify(header))
  const data = bytes.subarray(8 + length)
  const made = new Uint8Array(8 + head.length + data.length)
  new DataView(made.buffer).setBigUint64(0, BigInt(head.length), true)
  made.set(head, 8)
  made.set(data, 8 + head.length)
  return withDigest(made)
}

/** @param {number} start @param {number} end */
const turn = (start, end) => JSON.stringify([{ role: 'user', content: 'a', start, end }])

/** @param {Uint8Array} bytes @returns {Uint8Array} the same array */
function withDigest(bytes) {
  const end = bytes.length - 32
  bytes.set(createHash('sha256').update(bytes.subarray(0, end)).digest(), end)
  return bytes
}

test('any flipped bit is found', async () => {
  const random = seeded(5)
  for (let i = 0; i < 400; i++) {
    const bytes = saved.slice()
    const at = i < 200 ? random.below(2000) : random.below(bytes.length)
    bytes[at] = Number(bytes[at]) ^ (1 << random.below(8))
    await assert.rejects(model.loadSession(bytes), (error) => {
      const { code, message } = /** @type {import('../../js/index.js').BmError} */ (error)
      assert.ok(['integrity', 'format'].includes(code), `byte ${at}: ${code}, ${message}`)
      return true
    })
  }
})

test('any truncation is found, and so is what is too much', async () => {
  for (const length of [0, 7, 8, 9, 100, 2000, saved.length - 32, saved.length - 1]) {
    await refused(saved.slice(0, length), 'format', /not a saved session|cut off: \d+ bytes of \d+/)
  }
  await refused(Uint8Array.of(...saved, 0), 'format', /bytes, want/)
})

test('what it is not: another model, version, state, shape, or a file of something else', async () => {
  const other = await BiMamba.load(await tinyModel({ seed: 8 }), { inline: true })
  await assert.rejects(other.loadSession(saved), {
    code: 'mismatch',
    message: RegExp(`${model.info.identity.slice(0, 12)} .*${other.info.identity.slice(0, 12)} `),
  })
  await other.close()
  await refused(new Uint8Array(5000), 'format', /not a saved session/)
  await refused(
    new TextEncoder().encode('<!doctype html>'.repeat(9)),
    'format',
    /not a saved session/,
  )
  /** @type {[(header: any) => void, string, RegExp][]} */
  const changes = [
    [({ __metadata__: m }) => (m.format = 'bimamba-session 2'), 'format', /version 2, want 1/],
    [({ __metadata__: m }) => (m.format = 'bimamba 1'), 'format', /its format is "bimamba 1"/],
    [({ __metadata__: m }) => (m.state = 'f16'), 'format', /state is 'f16', want f32, i16, i8/],
    [({ __metadata__: m }) => (m.state = 'i8'), 'format', /tensors/],
    [({ __metadata__: m }) => (m.random = 'xyz'), 'format', /random/],
    [({ __metadata__: m }) => (m.seed = '1e99'), 'format', /random/],
    [({ __metadata__: m }) => (m.tail = '{"text":"a","given":2}'), 'format', /end of its text/],
    [({ __metadata__: m }) => (m.turns = '[{"role":"king"}]'), 'format', /end of its text/],
    [(header) => delete header.ids, 'format', /no token ids/],
    [(header) => (header.ids.shape = [1e9]), 'format', /tensors/],
    [(header) => (header.ssm.shape = [1, 1]), 'format', /tensors/],
    [(header) => (header.more = header.ssm), 'format', /tensors/],
    [(header) => delete header.__metadata__, 'format', /its format is/],
    [({ __metadata__: m }) => (m.format = { toString: 1 }), 'format', /metadata is not all text/],
    [({ __metadata__: m }) => (m.model = 5), 'format', /metadata is not all text/],
    [({ __metadata__: m }) => (m.random = ['0'.repeat(32)]), 'format', /metadata is not all text/],
    [({ __metadata__: m }) => (m.seed = '-5'), 'format', /random/],
    [({ __metadata__: m }) => (m.seed = ''), 'format', /random/],
    [({ __metadata__: m }) => (m.seed = `${2 ** 53}`), 'format', /random/],
    [({ __metadata__: m }) => (m.turns = turn(-5, 2)), 'format', /end of its text/],
    [({ __metadata__: m }) => (m.turns = turn(0, -2)), 'format', /end of its text/],
    [(header) => (header.ids.shape = [{ valueOf: 1, toString: 1 }]), 'format', /no token ids/],
    [(header) => (header.digest.data_offsets[1] = { valueOf: 1 }), 'format', /no digest/],
  ]
  for (const [change, code, message] of changes) await refused(withHeader(change), code, message)
  const length = Number(new DataView(saved.buffer).getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(saved.subarray(8, 8 + length)))
  // A count below 0, whose offsets agree with each other.
  const [first] = header.ids.data_offsets
  const negative = withHeader(
    (other) => {
      other.ids = { ...other.ids, shape: [-1], data_offsets: [first, first - 4] }
      other.digest.data_offsets = [first - 4, first + 28]
    },
    saved.subarray(0, 8 + length + first + 28),
  )
  await refused(negative, 'format', /no token ids/)
  const wrongId = saved.slice()
  new DataView(wrongId.buffer).setUint32(8 + length + header.ids.data_offsets[0], 4e9, true)
  await refused(withDigest(wrongId), 'format', /token id 4000000000, want below/)
  // Right in all but the numbers of the state.
  const nan = saved.slice()
  new DataView(nan.buffer).setUint32(8 + length + header.last.data_offsets[0], 0x7fc00000, true)
  await refused(withDigest(nan), 'numeric', /NaN/)
  for (const wrong of [null, 'name', {}, [1, 2]]) {
    const bytes = /** @type {Uint8Array} */ (/** @type {unknown} */ (wrong))
    await refused(bytes, 'argument', /want the bytes of a saved session/)
  }
})

test('after all that the session is as it was, and the bytes still load', async () => {
  assert.deepEqual(await session.save(), saved)
  const loaded = await model.loadSession(saved)
  assert.deepEqual(await loaded.ids(), await session.ids())
  assert.deepEqual(await loaded.save(), saved)
  await loaded.close()
})

test('kept by name: any name, replaced as a whole, listed, deleted', async () => {
  const store = new SessionStore({ folder: join(folder, 'kept') })
  assert.deepEqual(await store.list(), [])
  assert.equal(await store.delete('a'), false)
  const names = ['a', 'A b', '../../etc/passwd', 'con', '.', '*?"<>|:', 'ünïcödé 😀', '%41']
  for (const name of names) await store.save(name, session)
  await store.save('a', saved)
  assert.deepEqual(
    (await store.list()).map(({ name }) => name),
    [...names].sort(),
  )
  const files = await readdir(join(folder, 'kept'))
  assert.equal(files.length, names.length)
  assert.ok(
    files.every((file) => /^[\w%-]+\.session\.safetensors$/.test(file)),
    files.join(),
  )
  assert.deepEqual(await readdir(folder), ['kept'])
  for (const name of names) {
    const loaded = await store.load(name, model)
    assert.equal(loaded.position, session.position)
    await loaded.close()
  }
  const [first] = await store.list()
  assert.ok(first && first.bytes === saved.length && Date.now() - first.savedAt.getTime() < 60000)
  assert.equal(await store.delete('a'), true)
  await assert.rejects(store.load('a', model), {
    code: 'storage',
    message: /no session is kept as "a"/,
  })
  await assert.rejects(store.save('', session), { code: 'argument' })
  await assert.rejects(store.save('x'.repeat(201), session), { code: 'argument', message: /name/ })
  assert.throws(() => new SessionStore({ folder: /** @type {never} */ (5) }), { code: 'argument' })
  const wrong = /** @type {never} */ ({ path: 'x' })
  assert.throws(() => new SessionStore(wrong), {
    code: 'argument',
    message: /unknown option 'path'/,
  })
})

test('what goes while the sessions are listed is left out', async () => {
  const kept = join(folder, 'listed')
  const store = new SessionStore({ folder: kept })
  await store.save('a', saved)
  // As good as a file that was deleted after its name was read.
  await symlink(join(kept, 'nowhere'), join(kept, 'b.session.safetensors'))
  assert.deepEqual(
    (await store.list()).map(({ name }) => name),
    ['a'],
  )
})

test('a place that cannot be written', async () => {
  await writeFile(join(folder, 'file'), '')
  const store = new SessionStore({ folder: join(folder, 'file') })
  await assert.rejects(store.save('a', session), { code: 'storage', message: /cannot be written/ })
  await rm(join(folder, 'file'))
})
