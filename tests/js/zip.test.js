/**
 * Stored zip files: torch's own layout is read, and every lie in a central directory is refused.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { crc32 as zlibCrc32 } from 'node:zlib'
import { bytesSource } from '../../js/convert/byte-source.js'
import { crc32 } from '../../js/convert/crc32.js'
import { openZipMember, readZipDirectory } from '../../js/convert/zip.js'
import { seeded } from './support/seeded.js'
import { storedZip } from './support/stored-zip.js'

/** @param {string} text */
const bytesOf = (text) => new TextEncoder().encode(text)

const ENTRIES = [
  { name: 'a/data.pkl', bytes: bytesOf('pickle') },
  { name: 'a/data/0', bytes: new Uint8Array(1000).fill(7) },
  { name: 'a/data/1', bytes: new Uint8Array(0) },
  { name: 'a/vérsion', bytes: bytesOf('3\n') },
]

/** @param {Uint8Array} bytes */
async function readAll(bytes) {
  const source = bytesSource('x.bin', bytes)
  const members = await readZipDirectory(source)
  const contents = members.map(async (member) => {
    const part = await openZipMember(source, member)
    return [member.name, await part.read(0, part.size)]
  })
  return Object.fromEntries(await Promise.all(contents))
}

/** @param {Uint8Array} bytes @param {RegExp} message */
async function refused(bytes, message) {
  await assert.rejects(readAll(bytes), (error) => {
    assert(error instanceof Error)
    assert.equal(/** @type {Error & { code?: string }} */ (error).code, 'checkpoint', error.stack)
    assert.match(error.message, message)
    return true
  })
}

for (const zip64 of [false, true]) {
  test(`entries are read, zip64 ${zip64}`, async () => {
    const found = await readAll(storedZip(ENTRIES, { zip64 }))
    assert.deepEqual(found, Object.fromEntries(ENTRIES.map(({ name, bytes }) => [name, bytes])))
  })

  test(`a zip file cut at any byte is refused, zip64 ${zip64}`, async () => {
    const whole = storedZip(ENTRIES, { zip64 })
    for (let end = 0; end < whole.length; end++) await refused(whole.subarray(0, end), /./)
  })
}

test('a comment at the end is passed over', async () => {
  const whole = storedZip(ENTRIES)
  const comment = bytesOf('made by a test PK\x05\x06')
  const bytes = new Uint8Array([...whole, ...comment])
  new DataView(bytes.buffer).setUint16(whole.length - 2, comment.length, true)
  assert.equal(Object.keys(await readAll(bytes)).length, ENTRIES.length)
})

/** @type {[string, import('./support/stored-zip.js').ZipEntry['lie'], RegExp][]} */
const LIES = [
  ['compressed', { method: 8 }, /compressed/],
  ['encrypted', { flags: 0x0809 }, /encrypted/],
  ['size beyond the file', { size: 1e6 }, /passes/],
  ['size near 2^53', { size: 2 ** 53 - 2 }, /passes/],
  ['two sizes', { size: 6, packedSize: 5 }, /sizes 5 and 6/],
  ['larger than its place', { size: 600 }, /passes/],
  ['offset beyond the file', { offset: 1e6 }, /passes/],
  ['offset of no header', { offset: 3 }, /no entry at 3/],
  ['wrong CRC', { crc: 1 }, /CRC/],
  ['name climbs out', { name: '../../etc/passwd' }, /unsafe/],
  ['name climbs inside', { name: 'a/../../b' }, /unsafe/],
  ['absolute name', { name: '/etc/passwd' }, /unsafe/],
  ['backslash', { name: 'a\\b' }, /unsafe/],
  ['NUL', { name: 'a\0b' }, /unsafe/],
  ['no name', { name: '' }, /unsafe/],
  ['the name of another', { name: 'a/data/0' }, /two entries/],
]

for (const [name, lie, message] of LIES) {
  test(`refused: ${name}`, async () => {
    const entries = ENTRIES.map((entry, i) => (i === 0 && lie ? { ...entry, lie } : entry))
    await refused(storedZip(entries), message)
  })
}

test('refused: two entries over the same bytes', async () => {
  const [first, second, ...rest] = ENTRIES
  assert(first && second)
  const entries = [first, { ...second, lie: { offset: 0 } }, ...rest]
  await refused(storedZip(entries), /passes|no entry/)
})

test('refused: wrong counts, offsets and disks in the end record', async () => {
  const whole = storedZip(ENTRIES)
  const end = whole.length - 22
  /** @type {[number, number, number][]} field, bytes, value */
  const rows = [
    [4, 2, 1],
    [10, 2, 3],
    [10, 2, 5],
    [10, 2, 0xfffe],
    [12, 4, 1],
    [12, 4, 0xfffffffe],
    [16, 4, 1],
    [16, 4, 0xfffffffe],
    [16, 4, 0xffffffff],
  ]
  for (const [field, width, value] of rows) {
    const bytes = whole.slice()
    const view = new DataView(bytes.buffer)
    if (width === 2) view.setUint16(end + field, value, true)
    else view.setUint32(end + field, value, true)
    await refused(bytes, /damaged zip/)
  }
})

test('refused: zip64 records that point nowhere', async () => {
  const whole = storedZip(ENTRIES, { zip64: true })
  const end64 = whole.length - 22 - 76
  for (const [field, value] of [
    [32, 2n ** 60n],
    [40, 2n ** 63n],
    [48, 2n ** 64n - 1n],
    [64, 2n ** 63n],
    [64, 7n],
  ]) {
    const bytes = whole.slice()
    new DataView(bytes.buffer).setBigUint64(end64 + Number(field), BigInt(Number(value)), true)
    await refused(bytes, /damaged zip/)
  }
})

test('random damage never does worse than an error', async () => {
  const whole = storedZip(ENTRIES, { zip64: true })
  for (let seed = 0; seed < 3000; seed++) {
    const r = seeded(seed)
    const bytes = whole.slice()
    for (let n = 1 + r.below(4); n > 0; n--) bytes[r.below(bytes.length)] = r.below(256)
    await readAll(bytes).catch((error) =>
      assert.equal(error.code, 'checkpoint', `seed ${seed}: ${error.stack}`),
    )
  }
})

test('the CRC is checked however an entry is cut into reads, and not when it is read in part', async () => {
  const data = Uint8Array.from({ length: 1000 }, (_, i) => i * 31)
  const bytes = storedZip([{ name: 'x', bytes: data }])
  const at = bytes.indexOf(31, 30)
  bytes[at + 500] = Number(bytes[at + 500]) ^ 1
  const source = bytesSource('x.bin', bytes)
  const [member] = await readZipDirectory(source)
  assert(member)
  const part = await openZipMember(source, member)
  for (const [offset, length] of [
    [0, 100],
    [0, 300],
    [250, 700],
  ])
    await part.read(Number(offset), Number(length))
  await assert.rejects(part.read(900, 100), { code: 'checkpoint', message: /CRC/ })
  const other = await openZipMember(source, member)
  await other.read(100, 900)
})

test('CRC-32 equals zlib, in one piece and in several', () => {
  for (let seed = 0; seed < 300; seed++) {
    const r = seeded(seed)
    const bytes = Uint8Array.from({ length: r.below(200) }, () => r.below(256))
    const cut = r.below(bytes.length + 1)
    const wanted = zlibCrc32(bytes)
    assert.equal(crc32(bytes), wanted, `seed ${seed}`)
    assert.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), wanted, `seed ${seed}`)
  }
})
