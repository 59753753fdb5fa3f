/**
 * Rounding: signs, int8 rows and half precision, against plain arithmetic.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import {
  ColumnLevels,
  firstNonFinite,
  packSigns,
  quantizeRows,
  toHalf,
} from '../../js/convert/weight-codes.js'
import { halfBits, halfValue } from './support/float-codes.js'
import { seeded } from './support/seeded.js'

/** Any float32, all exponents alike. @param {ReturnType<typeof seeded>} r */
function anyFloat(r) {
  return Number(new Float32Array(Uint32Array.of(r.uint32()).buffer)[0])
}

test('half precision: every code, its neighbours and the ties between them', () => {
  for (let code = 0; code < 0x7c00; code++) {
    const value = halfValue(code)
    const next = code < 0x7bff ? halfValue(code + 1) : 65536
    const tie = (value + next) / 2
    const up = Math.fround(tie + (next - value) / 1024)
    const down = Math.fround(tie - (next - value) / 1024)
    const values = Float32Array.of(value, -value, down, up, tie, -tie)
    const { codes } = toHalf(values)
    const even = code % 2 === 0 ? code : code + 1
    assert.deepEqual(
      [...codes],
      [code, code | 0x8000, code, code + 1, even, even | 0x8000],
      `code ${code}`,
    )
  }
})

test('half precision: random floats, and the first overflow', () => {
  for (let seed = 0; seed < 20000; seed++) {
    const value = anyFloat(seeded(seed))
    if (Number.isNaN(value)) continue
    const { codes, overflow } = toHalf(Float32Array.of(1, value))
    const over = Math.abs(value) >= 65520
    assert.equal(overflow, over ? 1 : -1, `seed ${seed}: ${value}`)
    if (!over) assert.equal(codes[1], halfBits(value), `seed ${seed}: ${value}`)
  }
})

test('signs: one bit each, zeros and numbers without a sign are counted', () => {
  for (let seed = 0; seed < 2000; seed++) {
    const r = seeded(seed)
    const special = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
    const values = Float32Array.from({ length: 8 * (1 + r.below(5)) }, () =>
      r.below(4) ? anyFloat(r) : Number(special[r.below(5)]),
    )
    const counts = { zeros: 3, nonFinite: 4 }
    const bits = packSigns(values, counts)
    const zeros = values.filter((value) => value === 0).length
    const nonFinite = values.filter((value) => !Number.isFinite(value)).length
    assert.deepEqual(counts, { zeros: 3 + zeros, nonFinite: 4 + nonFinite }, `seed ${seed}`)
    values.forEach((value, i) => {
      const bit = (Number(bits[i >> 3]) >> (i & 7)) & 1
      if (!Number.isNaN(value)) assert.equal(bit, value >= 0 ? 1 : 0, `seed ${seed}: ${value}`)
    })
  }
})

test('int8 rows: nearest code, ties to even, extremes reached', () => {
  for (let seed = 0; seed < 2000; seed++) {
    const r = seeded(seed)
    const columns = 1 + r.below(40)
    const size = 2 ** r.between(-100, 100)
    const values = Float32Array.from({ length: 2 * columns }, () => r.bell() * size)
    const { codes, scales } = quantizeRows(values, columns)
    for (let row = 0; row < 2; row++) {
      const own = values.subarray(row * columns, (row + 1) * columns)
      const most = own.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
      const scale = Number(scales[row])
      assert.equal(scale, Math.fround(most / 127), `seed ${seed}`)
      own.forEach((value, i) => {
        const exact = value / scale
        const code = Number(codes[row * columns + i])
        assert(
          Math.abs(code) <= 127 && Math.abs(code - exact) <= 0.5 + 1e-4,
          `seed ${seed}: ${exact} became ${code}`,
        )
        if (Math.abs(value) === most) assert.equal(Math.abs(code), 127, `seed ${seed}`)
      })
    }
  }
  const ties = quantizeRows(Float32Array.of(127, 0.5, 1.5, 2.5, -0.5, -1.5), 6)
  assert.deepEqual([...ties.codes], [127, 0, 2, 2, 0, -2])
})

test('int8 rows: zeros, and rows too small for a scale', () => {
  const { codes, scales } = quantizeRows(
    Float32Array.of(0, -0, 2 ** -149, -(2 ** -149), 2 ** -140, 0),
    2,
  )
  assert.deepEqual([...scales.slice(0, 2)], [0, 0])
  assert.deepEqual([...codes.slice(0, 4)], [0, 0, 0, 0])
  assert(Number(scales[2]) > 0 && Number(codes[4]) > 0 && Number(codes[4]) <= 127)
})

test('columns of two values: levels, signs, and the first column with a third', () => {
  const levels = new ColumnLevels(8)
  const first = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8)
  const second = Float32Array.of(-1, 2, -3, -4, -5, -6, -7, -8)
  assert.equal(levels.add(first), 0)
  assert.equal(levels.add(second), 0)
  assert.deepEqual([...levels.alpha()], [1, 0, 3, 4, 5, 6, 7, 8])
  assert.deepEqual([...levels.beta()], [0, 2, 0, 0, 0, 0, 0, 0])
  assert.deepEqual(levels.packSigns(second), { bits: Uint8Array.of(2), odd: -1 })
  assert.equal(levels.packSigns(Float32Array.of(1, 2, 3, 0, 5, 6, 7, 0)).odd, 3)
  assert.equal(
    levels.add(Float32Array.of(1, Number.NaN, 3, 4, -Number.POSITIVE_INFINITY, 6, 7, 8)),
    2,
  )
})

test('the first number that is not finite', () => {
  assert.equal(firstNonFinite(Float32Array.of(1, 2)), -1)
  assert.equal(firstNonFinite(Float32Array.of(1, Number.NEGATIVE_INFINITY, Number.NaN)), 1)
})
