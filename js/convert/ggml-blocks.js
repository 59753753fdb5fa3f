/**
 * Rows of a packed model as the blocks of GGML's tensors.
 *
 * Owns the layouts of the blocks that hold our numbers. Pure functions on arrays; knows no file. The layouts are those of
 * ggml-common.h; d is the half-precision scale that begins a block:
 *
 *   Q1_0   d, then a bit for each of 128 numbers, least significant first: +d for 1, -d for 0
 *   Q4_0   d, then 32 codes of 4 bits: byte i holds number i (low half) and number i + 16; a code c means (c - 8) d
 *   Q8_0   d, then 32 codes of int8: a code c means c d
 *
 * The idea: with d = 1 the first two hold -1 and +1 exactly, and the bits of Q1_0 are in our own order.
 */

import { GGML_TYPES } from './gguf.js'
import { toHalf } from './weight-codes.js'

/** 1.0 in half precision, little-endian. */
const ONE = [0x00, 0x3c]

/** @typedef {'Q1_0' | 'Q4_0' | 'F32'} SignType */

/**
 * @param {Uint8Array} bits eight signs a byte, 1 for +1, least significant first; whole rows
 * @param {SignType} type a row is a multiple of its block
 * @returns {Uint8Array}
 */
export function signBlocks(bits, type) {
  if (type === 'F32') return signFloats(bits)
  const { block, bytes } = GGML_TYPES[type]
  const step = block / 8
  const out = new Uint8Array((bits.length / step) * bytes)
  for (let from = 0, to = 0; from < bits.length; from += step, to += bytes) {
    out.set(ONE, to)
    const signs = bits.subarray(from, from + step)
    if (type === 'Q1_0') out.set(signs, to + 2)
    else
      for (let i = 0; i < 16; i++) out[to + 2 + i] = nibble(signs, i) | (nibble(signs, i + 16) << 4)
  }
  return out
}

/** @param {Uint8Array} bits @param {number} i @returns {number} the code of Q4_0: 9 for +1, 7 for -1 */
function nibble(bits, i) {
  return 7 + 2 * ((Number(bits[i >> 3]) >> (i & 7)) & 1)
}

/** @param {Uint8Array} bits */
function signFloats(bits) {
  const out = new Float32Array(bits.length * 8)
  for (let i = 0; i < out.length; i++) out[i] = (Number(bits[i >> 3]) >> (i & 7)) & 1 ? 1 : -1
  return new Uint8Array(out.buffer)
}

/**
 * Rows of int8 with a scale each, as they are but for the scale, which is rounded to half precision.
 *
 * @param {Int8Array} codes [rows, columns]
 * @param {Float32Array} scales [rows]
 * @returns {{ blocks: Uint8Array, overflow: number }} `overflow`: the first row whose scale is too large, -1 without one
 */
export function int8Blocks(codes, scales) {
  const { block, bytes } = GGML_TYPES.Q8_0
  const columns = codes.length / scales.length
  const raw = new Uint8Array(codes.buffer, codes.byteOffset, codes.length)
  const { codes: halves, overflow } = toHalf(scales)
  const blocks = new Uint8Array((codes.length / block) * bytes)
  for (let from = 0, to = 0; from < raw.length; from += block, to += bytes) {
    const d = Number(halves[Math.floor(from / columns)])
    blocks[to] = d & 0xff
    blocks[to + 1] = d >> 8
    blocks.set(raw.subarray(from, from + block), to + 2)
  }
  return { blocks, overflow }
}

/**
 * @param {Int8Array} codes [rows, columns]
 * @param {Float32Array} scales [rows]
 * @returns {Float32Array} [rows, columns]: scale * code, computed in float32 as the engine does
 */
export function int8Floats(codes, scales) {
  const columns = codes.length / scales.length
  return Float32Array.from(codes, (code, i) => code * Number(scales[Math.floor(i / columns)]))
}
