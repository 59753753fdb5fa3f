/**
 * The relaxed modules under the numbers that engines know.
 *
 * Debian's Clang 14 and Binaryen 108 write i8x16.relaxed_swizzle as the proposal first numbered it, `fd a2 01`; engines know
 * the final `fd 80 02`, which is as long. Owns the walk over a module's instructions that finds the one and makes it the
 * other. Knows nothing of what they compute. The idea: every instruction is read, so that no constant is taken for one; and
 * a single byte that is not understood is an error, so that a walk which ends has read the module right.
 */

import { CommandError } from './command.js'

export const SWIZZLE = 14
export const RELAXED_SWIZZLE = 0x100
/** Its first number. */
const PROTOTYPE = 0xa2
/** The final number as LEB128, as long as the first one. */
const FINAL_BYTES = [0x80, 0x02]

/** Numbers that 128-bit SIMD leaves free. The proposal had its other instructions there, which none of our modules may have. */
const FREE = new Set([
  ...[0x9a, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6],
  ...[0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee],
])

/**
 * What follows the opcodes from the first to the last of a row: so many LEB128 numbers, then so many bytes.
 *
 * @typedef {readonly [first: number, last: number, numbers: number, bytes: number]} Row
 */

/** @type {Row[]} */
const PLAIN_ROWS = [
  [0x00, 0x01, 0, 0], // unreachable, nop
  [0x02, 0x04, 1, 0], // block, loop, if: a type
  [0x05, 0x05, 0, 0], // else
  [0x0b, 0x0b, 0, 0], // end
  [0x0c, 0x0d, 1, 0], // br, br_if; br_table is apart
  [0x0f, 0x0f, 0, 0], // return
  [0x10, 0x10, 1, 0], // call
  [0x11, 0x11, 2, 0], // call_indirect
  [0x1a, 0x1b, 0, 0], // drop, select
  [0x20, 0x26, 1, 0], // variables and tables
  [0x28, 0x3e, 2, 0], // loads and stores: alignment, offset
  [0x3f, 0x42, 1, 0], // memory.size, memory.grow, i32.const, i64.const
  [0x43, 0x43, 0, 4], // f32.const
  [0x44, 0x44, 0, 8], // f64.const
  [0x45, 0xc4, 0, 0], // numbers
]
const BR_TABLE = 0x0e

/** @type {Row[]} */
const BULK_ROWS = [
  [0, 7, 0, 0], // conversions that saturate
  [8, 8, 2, 0], // memory.init
  [9, 9, 1, 0], // data.drop
  [10, 10, 2, 0], // memory.copy
  [11, 11, 1, 0], // memory.fill
]

/** @type {Row[]} */
const SIMD_ROWS = [
  [0, 11, 2, 0], // loads and a store
  [12, 13, 0, 16], // v128.const, i8x16.shuffle
  [SWIZZLE, 20, 0, 0], // i8x16.swizzle, splats
  [21, 34, 0, 1], // lanes
  [35, 83, 0, 0], // comparisons and logic
  [84, 91, 2, 1], // loads and stores of lanes
  [92, 93, 2, 0], // loads of one number
  [94, 0xff, 0, 0], // numbers
  [RELAXED_SWIZZLE, RELAXED_SWIZZLE, 0, 0],
]

/** @type {Row[]} */
const ATOMIC_ROWS = [
  [0, 2, 2, 0], // notify, wait
  [3, 3, 0, 1], // fence
  [16, 78, 2, 0], // the others
]

const SIMD = 0xfd
/** The opcodes after a prefix. */
const PREFIXED = new Map([
  [0xfc, BULK_ROWS],
  [SIMD, SIMD_ROWS],
  [0xfe, ATOMIC_ROWS],
])
const END = 0x0b
const CODE_SECTION = 10

/** Reads a module from front to back. */
class ModuleReader {
  at = 8

  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes
  }

  byte() {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw new CommandError('the module ends in the middle')
    return byte
  }

  /** An unsigned LEB128 number; signed ones are skipped by it too. */
  number() {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      const byte = this.byte()
      value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }

  /** @param {number} count */
  skipNumbers(count) {
    for (let i = 0; i < count; i++) this.number()
  }

  /** @returns {{ prefix: number, opcode: number }} of an instruction, all of which is read; prefix 0: none */
  instruction() {
    const first = this.byte()
    if (first === BR_TABLE) {
      this.skipNumbers(this.number() + 1)
      return { prefix: 0, opcode: first }
    }
    const table = PREFIXED.get(first)
    const prefix = table ? first : 0
    const opcode = table ? this.number() : first
    const row = (table ?? PLAIN_ROWS).find((row) => row[0] <= opcode && opcode <= row[1])
    if (!row || (prefix === SIMD && FREE.has(opcode))) {
      const name = [prefix, opcode].map((value) => value.toString(16)).join(' ')
      throw new CommandError(`instruction ${name} before byte ${this.at}: not one of our modules'`)
    }
    this.skipNumbers(row[2])
    this.at += row[3]
    return { prefix, opcode }
  }
}

/**
 * @param {ModuleReader} reader at a function's body
 * @returns {{ opcode: number, at: number }[]} its SIMD instructions; at: where they begin
 */
function simdOfFunction(reader) {
  const found = []
  const size = reader.number()
  const end = reader.at + size
  const groups = reader.number()
  reader.skipNumbers(2 * groups) // of local variables: how many, of which type
  let last = -1
  while (reader.at < end) {
    const at = reader.at
    const { prefix, opcode } = reader.instruction()
    if (prefix === SIMD) found.push({ opcode, at })
    last = prefix === 0 ? opcode : -1
  }
  if (reader.at !== end || last !== END) {
    throw new CommandError(`the function before byte ${end} is not what it seemed`)
  }
  return found
}

/**
 * @param {Uint8Array} bytes a module
 * @returns {{ opcode: number, at: number }[]} its SIMD instructions, in order; at: where they begin
 * @throws {CommandError} for an instruction that none of our modules should have, and for what is no module
 */
export function simdInstructions(bytes) {
  const reader = new ModuleReader(bytes)
  const found = []
  while (reader.at < bytes.length) {
    const id = reader.byte()
    const size = reader.number()
    const end = reader.at + size
    if (id === CODE_SECTION) {
      for (let functions = reader.number(); functions > 0; functions--) {
        found.push(...simdOfFunction(reader))
      }
      if (reader.at !== end) throw new CommandError('the code section is not what it seemed')
    }
    reader.at = end
  }
  return found
}

/**
 * @param {Uint8Array} bytes a module with relaxed SIMD, from any Emscripten
 * @returns {Uint8Array} the same under final numbers
 * @throws {CommandError} also when it has no relaxed instruction: the compiler was not asked for any
 */
export function withFinalOpcodes(bytes) {
  const result = bytes.slice()
  let count = 0
  for (const { opcode, at } of simdInstructions(bytes)) {
    if (opcode !== PROTOTYPE && opcode !== RELAXED_SWIZZLE) continue
    result.set(FINAL_BYTES, at + 1)
    count++
  }
  if (count === 0) throw new CommandError('the relaxed module has no relaxed instruction')
  return result
}
