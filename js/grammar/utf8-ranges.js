/**
 * Ranges of code points as ranges of the bytes of UTF-8.
 *
 * Owns the cut of a range where the bytes' pattern changes. The idea: below a common prefix the following bytes run through all that
 * they can be, so a range is a few sequences of byte ranges. Surrogates have no bytes and are left out.
 */

/** The last code point of each length. */
const LAST_OF_LENGTH = [0x7f, 0x7ff, 0xffff, 0x10ffff]
const SURROGATES = /** @type {const} */ ([0xd800, 0xdfff])

/** Byte ranges in a row. @typedef {(readonly [number, number])[]} ByteRanges */

/** @param {number} code @returns {number[]} */
function bytesOf(code) {
  if (code < 0x80) return [code]
  if (code < 0x800) return [0xc0 | (code >> 6), 0x80 | (code & 63)]
  if (code < 0x10000) return [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)]
  const rest = [0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63)]
  return [0xf0 | (code >> 18), ...rest]
}

/** @param {number} first @param {number} last of the same length @returns {Generator<ByteRanges, void, void>} */
function* cut(first, last) {
  for (let bits = 6; bits <= 18; bits += 6) {
    const low = (1 << bits) - 1
    // Where the bytes above the lowest `bits` bits differ, those bits must be all: cut off what is before and behind.
    if (first >> bits === last >> bits) continue
    if ((first & low) !== 0) {
      yield* cut(first, first | low)
      yield* cut((first | low) + 1, last)
      return
    }
    if ((last & low) !== low) {
      yield* cut(first, (last & ~low) - 1)
      yield* cut(last & ~low, last)
      return
    }
  }
  const ends = bytesOf(last)
  yield bytesOf(first).map((byte, i) => /** @type {const} */ ([byte, Number(ends[i])]))
}

/** @param {number} first @param {number} last code points @returns {Generator<ByteRanges, void, void>} together exactly their bytes */
export function* utf8Ranges(first, last) {
  if (first < SURROGATES[0] && last >= SURROGATES[0]) {
    yield* utf8Ranges(first, SURROGATES[0] - 1)
    yield* utf8Ranges(SURROGATES[0], last)
    return
  }
  const isSurrogate = first >= SURROGATES[0] && first <= SURROGATES[1]
  let start = isSurrogate ? SURROGATES[1] + 1 : first
  for (const end of LAST_OF_LENGTH) {
    if (start > end || start > last) continue
    yield* cut(start, Math.min(end, last))
    start = end + 1
  }
}
