/**
 * The walk that gives relaxed SIMD its final numbers: it changes instructions, never constants, and passes over nothing.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import {
  RELAXED_SWIZZLE,
  SWIZZLE,
  simdInstructions,
  withFinalOpcodes,
} from '../../scripts/simd-opcodes.js'

const HEADER = [0, 97, 115, 109, 1, 0, 0, 0]
const SPLAT_ZERO = [65, 0, 253, 15]
const FIRST = [0xfd, 0xa2, 1]
const FINAL = [0xfd, 0x80, 2]
const DROP = 0x1a
/** Constants that hold the bytes of the instruction, and a branch table between. */
const LOOKALIKES = [
  ...[0xfd, 12, ...FIRST, ...FIRST, 0xfd, 0xa2, 1, ...Array(7).fill(0), DROP],
  ...[0x44, ...FIRST, ...FIRST, 0, 0, DROP],
  ...[0x42, ...FIRST, DROP],
  ...[0x02, 0x40, 0x41, 0, 0x0e, 2, 0, 0, 0, 0x0b],
]

/**
 * A module with one function ()->v128.
 *
 * @param {number[]} code without its end
 * @param {number} [missing] how many bytes its size leaves out
 */
function moduleOf(code, missing = 0) {
  const body = [0, ...code, 0x0b]
  const section = [1, body.length - missing, ...body]
  // A section after it, whose bytes are no instructions.
  return Uint8Array.from([
    ...[...HEADER, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, section.length, ...section],
    ...[0, 5, 1, 97, ...FIRST],
  ])
}

/** @param {number[]} swizzle */
const codeWith = (swizzle) => [...LOOKALIKES, ...SPLAT_ZERO, ...SPLAT_ZERO, ...swizzle]

/** @param {string} name */
const built = (name) => readFileSync(new URL(`../../dist/${name}.wasm`, import.meta.url))

/** @param {Uint8Array} bytes @param {number} opcode */
const count = (bytes, opcode) => simdInstructions(bytes).filter((i) => i.opcode === opcode).length

test('an instruction gets its final number, a constant like it keeps its bytes', () => {
  const want = moduleOf(codeWith(FINAL))
  assert.deepEqual(withFinalOpcodes(moduleOf(codeWith(FIRST))), want)
  assert.deepEqual(withFinalOpcodes(want), want)
  const plain = moduleOf(codeWith([0xfd, SWIZZLE]))
  assert(WebAssembly.validate(plain))
  assert.equal(count(plain, SWIZZLE), 1)
})

describe('what is not understood is refused', () => {
  /** @type {[string, Uint8Array, RegExp][]} */
  const cases = [
    ['no relaxed instruction', moduleOf(codeWith([0xfd, SWIZZLE])), /no relaxed instruction/],
    [
      'another relaxed one, first number',
      moduleOf(codeWith([0xfd, 0xb2, 1])),
      /fd b2 .*not one of/,
    ],
    ['another relaxed one, final number', moduleOf(codeWith([0xfd, 0x85, 2])), /fd 105 .*not one/],
    ['an unknown instruction', moduleOf([0x06]), /0 6 before byte 25: not one of/],
    ['a body that is longer', moduleOf(codeWith(FIRST), 1), /not what it seemed/],
    ['a body without an end', moduleOf([...SPLAT_ZERO, 0x0b, 0x01], 1), /not what it seemed/],
    ['an early end of the file', moduleOf(codeWith(FIRST)).subarray(0, 60), /ends in the middle/],
  ]
  for (const [name, bytes, message] of cases) {
    test(name, () => assert.throws(() => withFinalOpcodes(bytes), { message }))
  }
})

for (const name of ['bimamba', 'bimamba-threads']) {
  test(`${name}: the relaxed build differs from the plain one in every swizzle, and only there`, () => {
    const plain = built(name)
    const relaxed = built(`${name}-relaxed`)
    assert(count(plain, SWIZZLE) > 0)
    assert.equal(count(plain, RELAXED_SWIZZLE), 0)
    assert.equal(count(relaxed, SWIZZLE), 0)
    const plainOnes = (/** @type {Uint8Array} */ bytes) =>
      simdInstructions(bytes).map(({ opcode }) => (opcode === RELAXED_SWIZZLE ? SWIZZLE : opcode))
    assert.deepEqual(plainOnes(relaxed).sort(), plainOnes(plain).sort())
  })
}
