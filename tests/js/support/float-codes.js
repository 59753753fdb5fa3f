/**
 * Test-side conversion between numbers and the bytes of F32, F16, BF16 and other checkpoint dtypes.
 *
 * Owns a plain, arithmetic definition of rounding to nearest even. Independent of js/convert on purpose:
 * tests compare the two. Slow paths are fine here except F32 and BF16, which big generated checkpoints use.
 */

/**
 * The nearest half-precision number's 16 bits, ties to even, by arithmetic on the value.
 * @param {number} value
 */
export function halfBits(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (Number.isNaN(value)) return 0x7e00
  if (size === 0) return sign
  const exponent = Math.max(-14, Math.floor(Math.log2(size)))
  const steps = roundEven(size / 2 ** (exponent - 10))
  const number = steps * 2 ** (exponent - 10)
  if (number >= 65536) return sign | 0x7c00
  if (number < 2 ** -14) return sign | (number / 2 ** -24)
  const scale = Math.floor(Math.log2(number))
  return sign | ((scale + 15) << 10) | (number / 2 ** (scale - 10) - 1024)
}

/** @param {number} bits */
export function halfValue(bits) {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}

/** @param {number} x non-negative */
function roundEven(x) {
  const low = Math.floor(x)
  const rest = x - low
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low
}

/**
 * @param {ArrayLike<number>} values
 * @param {string} dtype F64, F32, F16, BF16 or I64
 * @returns {Uint8Array}
 */
export function encodeFloats(values, dtype) {
  if (dtype === 'F64') return new Uint8Array(Float64Array.from(values).buffer)
  if (dtype === 'I64') return new Uint8Array(BigInt64Array.from(values, BigInt).buffer)
  const f32 = values instanceof Float32Array ? values : Float32Array.from(values)
  if (dtype === 'F32') return new Uint8Array(f32.buffer, f32.byteOffset, f32.byteLength)
  const out = new Uint16Array(f32.length)
  if (dtype === 'F16') for (let i = 0; i < out.length; i++) out[i] = halfBits(Number(f32[i]))
  else if (dtype === 'BF16') bf16Bits(f32, out)
  else throw new Error(`no encoder for ${dtype}`)
  return new Uint8Array(out.buffer)
}

/** @param {Float32Array} f32 @param {Uint16Array} out */
function bf16Bits(f32, out) {
  const words = new Uint32Array(f32.buffer, f32.byteOffset, f32.length)
  for (let i = 0; i < out.length; i++) {
    const word = Number(words[i])
    const special = (word & 0x7f800000) === 0x7f800000
    out[i] = special ? word >>> 16 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16
  }
}

/**
 * What a reader of the stored bytes gets.
 * @param {ArrayLike<number>} values
 * @param {string} dtype F32, F16 or BF16
 * @returns {Float32Array}
 */
export function roundTo(values, dtype) {
  const bytes = encodeFloats(values, dtype)
  if (dtype === 'F32') return Float32Array.from(values)
  const codes = new Uint16Array(bytes.buffer)
  if (dtype === 'F16') return Float32Array.from(codes, halfValue)
  return new Float32Array(Uint32Array.from(codes, (code) => code * 65536).buffer)
}
