/**
 * Turns float32 rows into the packed model's numbers: sign bits, int8 with a scale per row, 4 bits with one per
 * group of columns, half precision.
 *
 * Owns rounding and the count of what cannot be a sign: exact zeros, NaN, infinity. Pure functions on arrays; knows
 * no file and no tensor. Every rule here is stated in models/FORMAT.md.
 */

/**
 * @typedef {object} SignCounts
 * @property {number} zeros exact zeros, -0 included
 * @property {number} nonFinite NaN and infinities
 */

/**
 * Bit i%8 of byte i/8 is 1 for +1; an exact zero becomes +1.
 *
 * @param {Float32Array} values a multiple of 8 of them, row after row
 * @param {SignCounts} counts added to
 * @returns {Uint8Array} values.length / 8
 */
export function packSigns(values, counts) {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const bits = new Uint8Array(values.length / 8)
  let zeros = 0
  let nonFinite = 0
  for (let i = 0, at = 0; i < bits.length; i++) {
    let byte = 0
    for (let bit = 0; bit < 8; bit++, at++) {
      const word = Number(words[at])
      const zero = word << 1 === 0
      if (zero) zeros++
      if ((word & 0x7f800000) === 0x7f800000) nonFinite++
      if (zero || word < 0x80000000) byte |= 1 << bit
    }
    bits[i] = byte
  }
  counts.zeros += zeros
  counts.nonFinite += nonFinite
  return bits
}

/** The lowest and highest value of each column of a dense export. */
export class ColumnLevels {
  /** @param {number} columns */
  constructor(columns) {
    this.low = new Float32Array(columns).fill(Number.POSITIVE_INFINITY)
    this.high = new Float32Array(columns).fill(Number.NEGATIVE_INFINITY)
  }

  /** @param {Float32Array} values [rows, columns] @returns {number} how many are NaN or infinite */
  add(values) {
    const { low, high } = this
    let nonFinite = 0
    for (let at = 0; at < values.length; ) {
      for (let c = 0; c < low.length; c++, at++) {
        const value = Number(values[at])
        if (value < Number(low[c])) low[c] = value
        if (value > Number(high[c])) high[c] = value
        if (!(Math.abs(value) < Number.POSITIVE_INFINITY)) nonFinite++
      }
    }
    return nonFinite
  }

  /**
   * @param {Float32Array} values [rows, columns]
   * @returns {{ bits: Uint8Array, odd: number }} `odd`: first column that holds a third value, or -1
   */
  packSigns(values) {
    const { low, high } = this
    const bits = new Uint8Array(values.length / 8)
    for (let at = 0; at < values.length; ) {
      for (let c = 0; c < low.length; c++, at++) {
        const value = Number(values[at])
        if (value === high[c]) bits[at >> 3] = Number(bits[at >> 3]) | (1 << (at & 7))
        else if (value !== low[c]) return { bits, odd: c }
      }
    }
    return { bits, odd: -1 }
  }

  /** Half the distance of the two values. */
  alpha() {
    return this.low.map((low, c) => (Number(this.high[c]) - low) / 2)
  }

  /** The middle of the two values. */
  beta() {
    return this.low.map((low, c) => (Number(this.high[c]) + low) / 2)
  }
}

/**
 * @param {Float32Array} values
 * @returns {number} index of the first NaN or infinity, -1 without one
 */
export function firstNonFinite(values) {
  return values.findIndex((value) => !Number.isFinite(value))
}

/** @param {number} x @returns {number} nearest integer, ties to even, for |x| < 2^51 */
function roundEven(x) {
  return x + 6755399441055744 - 6755399441055744
}

/**
 * Symmetric int8 with one scale per row: scale = max|w| / 127 rounded to float32, q = w / scale to the nearest
 * integer, ties to even. A row whose scale is 0 (all zeros, or too small for float32) is all 0.
 *
 * @param {Float32Array} values [rows, columns]
 * @param {number} columns
 * @returns {{ codes: Int8Array, scales: Float32Array }} codes [rows, columns], scales [rows]
 */
export function quantizeRows(values, columns) {
  const codes = new Int8Array(values.length)
  const scales = new Float32Array(values.length / columns)
  for (let row = 0; row < scales.length; row++) {
    const start = row * columns
    let most = 0
    for (let i = start; i < start + columns; i++) most = Math.max(most, Math.abs(Number(values[i])))
    scales[row] = most / 127
    const scale = Number(scales[row])
    if (scale === 0) continue
    for (let i = start; i < start + columns; i++) {
      codes[i] = Math.max(-127, Math.min(127, roundEven(Number(values[i]) / scale)))
    }
  }
  return { codes, scales }
}

/** Columns of a row that share a scale in 4 bits: BM_I4_GROUP of src/bm.h. */
const GROUP_COLUMNS = 128

/** @param {number} columns @returns {number} scales of a row in 4 bits */
export function groupsOf(columns) {
  return Math.ceil(columns / GROUP_COLUMNS)
}

/**
 * 4 bits. The weight of the largest magnitude in a group gets the code -8, which has no counterpart of the other sign: so all 16 codes are in use.
 *
 * @param {Float32Array} values [rows, columns]
 * @param {number} columns a multiple of 32; the last group of a row may be shorter
 * @returns {{ codes: Uint8Array, scales: Float32Array }} codes [rows, columns / 2] as files have them, scales [rows, groups]
 */
export function quantizeGroups(values, columns) {
  const groups = groupsOf(columns)
  const rows = values.length / columns
  const codes = new Uint8Array(values.length / 2)
  const scales = new Float32Array(rows * groups)
  for (let at = 0; at < scales.length; at++) {
    const first = (at % groups) * GROUP_COLUMNS
    const start = Math.floor(at / groups) * columns + first
    const end = start + Math.min(GROUP_COLUMNS, columns - first)
    let most = 0
    for (let i = start; i < end; i++)
      if (Math.abs(Number(values[i])) > Math.abs(most)) most = Number(values[i])
    scales[at] = most / -8
    const scale = Number(scales[at])
    if (scale === 0) continue
    for (let i = start; i < end; i++) {
      const code = Math.max(-8, Math.min(7, roundEven(Number(values[i]) / scale))) & 15
      // A row's start is a multiple of 32, too. Nibble (i >> 3) & 3 of word i & 7.
      const byte = ((i >>> 5) << 4) | ((i & 7) << 1) | ((i >>> 4) & 1)
      codes[byte] = Number(codes[byte]) | (i & 8 ? code << 4 : code)
    }
  }
  return { codes, scales }
}

/**
 * Half precision, rounded to nearest, ties to even.
 *
 * @param {Float32Array} values
 * @returns {{ codes: Uint16Array, overflow: number }} `overflow`: index of the first value that would become
 *   infinite, -1 without one
 */
export function toHalf(values) {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const codes = new Uint16Array(values.length)
  let overflow = -1
  for (let i = 0; i < codes.length; i++) {
    const word = Number(words[i])
    const sign = (word >>> 16) & 0x8000
    const size = word & 0x7fffffff
    if (size >= 0x477ff000 && overflow < 0) overflow = i
    codes[i] = sign | (size < 0x38800000 ? smallHalf(size) : normalHalf(size))
  }
  return { codes, overflow }
}

/** Rebias the exponent; the 13 bits that fall away decide. @param {number} size bits of |w| >= 2^-14 */
function normalHalf(size) {
  const rebased = size - 0x38000000
  return (rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13
}

/** A multiple of 2^-24. @param {number} size bits of |w| < 2^-14 */
function smallHalf(size) {
  const exponent = size >>> 23
  if (exponent < 102) return 0
  const fraction = (size & 0x7fffff) | 0x800000
  const steps = fraction / 2 ** (126 - exponent)
  return roundEven(steps)
}
