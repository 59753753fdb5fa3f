/**
 * Safetensors checkpoints and stored tensors: right numbers from right files, errors from wrong ones.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { bytesSource } from '../../js/convert/byte-source.js'
import { readSafetensorsFile } from '../../js/convert/safetensors-file.js'
import { decodeFloats, rowMajor, StoredTensor } from '../../js/convert/stored-tensor.js'
import { safetensorsBytes, safetensorsHeader } from './support/checkpoint-safetensors.js'
import { encodeFloats, halfValue, roundTo } from './support/float-codes.js'
import { seeded } from './support/seeded.js'
import { concatBytes } from './support/stored-zip.js'

/** @param {Uint8Array} bytes */
const read = (bytes) => readSafetensorsFile(bytesSource('model.safetensors', bytes))

const VALUES = Float32Array.from({ length: 12 }, (_, i) => i - 5.5)

test('tensors of three dtypes are read exactly', async () => {
  const parts = ['F32', 'F16', 'BF16'].map((dtype) => {
    const bytes = encodeFloats(VALUES, dtype)
    return { name: `t.${dtype}`, dtype, shape: [4, 3], sizeBytes: bytes.length, bytes: () => bytes }
  })
  const file = safetensorsBytes(
    safetensorsHeader(parts),
    concatBytes(parts.map((part) => part.bytes())),
  )
  for (const tensor of await read(file)) {
    assert.deepEqual(await tensor.readRows(0, 4), VALUES, tensor.name)
    assert.deepEqual(await tensor.readRows(1, 2), VALUES.slice(3, 9), tensor.name)
  }
})

test('every half-precision code and many bfloat16 codes decode to their value', () => {
  const codes = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const halves = decodeFloats(new Uint8Array(codes.buffer), 'F16')
  for (const code of codes) assert.equal(halves[code], halfValue(code), `code ${code}`)
  const r = seeded(1)
  const values = Float32Array.from({ length: 1000 }, () => r.bell() * 2 ** r.between(-30, 30))
  assert.deepEqual(decodeFloats(encodeFloats(values, 'BF16'), 'BF16'), roundTo(values, 'BF16'))
})

test('unaligned bytes are decoded', () => {
  const bytes = concatBytes([new Uint8Array(1), encodeFloats(VALUES, 'F32')])
  assert.deepEqual(decodeFloats(bytes.subarray(1), 'F32'), VALUES)
})

test('strided views give the same rows as a plain copy', async () => {
  for (let seed = 0; seed < 300; seed++) {
    const r = seeded(seed)
    const shape = Array.from({ length: 1 + r.below(3) }, () => 1 + r.below(5))
    const order = shape.map((_, i) => i).sort(() => r.uniform() - 0.5)
    const strides = new Array(shape.length).fill(0)
    let step = 1 + r.below(2)
    for (const i of order) {
      strides[i] = step
      step *= Number(shape[i]) + r.below(2)
    }
    const offset = r.below(3)
    const storage = Float32Array.from({ length: offset + step + 1 }, () => r.bell())
    const tensor = new StoredTensor({
      name: 't',
      file: 'f',
      dtype: 'F32',
      shape,
      strides,
      offset,
      storageKey: '0',
      openStorage: async () => bytesSource('s', encodeFloats(storage, 'F32')),
    })
    const row = r.below(tensor.rows)
    const count = 1 + r.below(tensor.rows - row)
    const found = await tensor.readRows(row, count)
    const plain = rowMajor(shape)
    const wanted = Array.from({ length: count * tensor.columns }, (_, k) => {
      let rest = row * tensor.columns + k
      let at = offset
      for (const [i, stride] of plain.entries()) {
        at += Math.floor(rest / stride) * strides[i]
        rest %= stride
      }
      return storage[at]
    })
    assert.deepEqual([...found], wanted, `seed ${seed}`)
  }
})

test('a large transposed view is read column by column', async () => {
  const [rows, columns] = [3000, 700]
  const storage = Float32Array.from({ length: rows * columns }, (_, i) => i)
  const bytes = encodeFloats(storage, 'F32')
  let most = 0
  const source = bytesSource('s', bytes)
  const tensor = new StoredTensor({
    name: 't',
    file: 'f',
    dtype: 'F32',
    shape: [rows, columns],
    strides: [1, rows],
    offset: 0,
    storageKey: '0',
    openStorage: async () => ({
      ...source,
      read: (offset, length) => {
        most = Math.max(most, length)
        return source.read(offset, length)
      },
    }),
  })
  let seen = 0
  for await (const { row, count, values } of tensor.slices()) {
    for (let i = 0; i < values.length; i += 997) {
      const [r, c] = [row + Math.floor(i / columns), i % columns]
      assert.equal(values[i], r + c * rows)
    }
    seen += count
  }
  assert.equal(seen, rows)
  assert(most < bytes.length / 4, `one read of ${most} of ${bytes.length} bytes`)
})

/** @type {[string, Uint8Array, RegExp][]} */
const BAD_FILES = [
  ['empty', new Uint8Array(0), /empty file/],
  ['a web page', Buffer.from('<!DOCTYPE html><html><head>'), /web page/],
  [
    'a git-lfs pointer',
    Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'),
    /git-lfs/,
  ],
  [
    'a header longer than the file',
    Uint8Array.of(255, 0, 0, 0, 0, 0, 0, 0, 123),
    /header of 255 bytes/,
  ],
  ['a header of 2^63 bytes', Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 128), /header of/],
  ['no JSON', safetensorsBytes('{"a":'), /JSON/],
  ['a list', safetensorsBytes('[]'), /JSON object/],
  [
    'a packed model',
    safetensorsBytes('{"__metadata__":{"format":"bimamba 1"}}'),
    /packed model already/,
  ],
  [
    'a format that is no text',
    safetensorsBytes('{"__metadata__":{"format":{"toString":1}},"t":null}'),
    /dtype/,
  ],
  [
    'an unknown dtype',
    safetensorsBytes('{"t":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', new Uint8Array(1)),
    /"F4" is unknown/,
  ],
  [
    'a dtype of the prototype',
    safetensorsBytes(
      '{"t":{"dtype":"constructor","shape":[1],"data_offsets":[0,1]}}',
      new Uint8Array(1),
    ),
    /unknown/,
  ],
  ['a tensor that is null', safetensorsBytes('{"t":null}'), /dtype/],
  [
    'a negative shape',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', new Uint8Array(4)),
    /shape/,
  ],
  [
    'a fractional shape',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}', new Uint8Array(4)),
    /shape/,
  ],
  [
    'three offsets',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}', new Uint8Array(8)),
    /data_offsets/,
  ],
  [
    'offsets beyond the end',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', new Uint8Array(4)),
    /0 .. 8 of 4/,
  ],
  [
    'offsets that run backwards',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}', new Uint8Array(8)),
    /8 .. 4/,
  ],
  [
    'a size that is not its shape',
    safetensorsBytes('{"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', new Uint8Array(8)),
    /want 12/,
  ],
]

for (const [name, bytes, message] of BAD_FILES) {
  test(`refused: ${name}`, async () => {
    await assert.rejects(read(bytes), { code: 'checkpoint', message })
  })
}

test('a file cut at any byte is refused', async () => {
  const tensor = {
    name: 't',
    dtype: 'F32',
    shape: [3, 4],
    sizeBytes: 48,
    bytes: () => encodeFloats(VALUES, 'F32'),
  }
  const whole = safetensorsBytes(safetensorsHeader([tensor]), tensor.bytes())
  for (let end = 0; end < whole.length; end++) {
    await assert.rejects(read(whole.subarray(0, end)), { code: 'checkpoint' }, `${end} bytes`)
  }
  assert.equal((await read(whole)).length, 1)
})
