/**
 * Ids to text, in pieces: whatever the ids, the pieces joined are the decoding of all of them, and no piece is broken.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Detokenizer, detokenize, StopMatcher, TokenBytes } from '../../js/detokenizer.js'
import { readTokenizerFile } from '../../js/tokenizer-file.js'
import {
  byteLevelTokenizer,
  sentencePieceTokenizer,
  vocabularySize,
} from './support/small-tokenizer.js'

const SHAPES = /** @type {const} */ ([
  ['sentencepiece', sentencePieceTokenizer()],
  ['bytelevel', byteLevelTokenizer()],
])

/** @param {typeof SHAPES[number][1]} tokenizer */
function tableOf(tokenizer) {
  const size = vocabularySize(tokenizer)
  const file = readTokenizerFile(JSON.stringify(tokenizer), {
    paddedVocabSize: size,
    reservedIds: [],
  })
  return { table: new TokenBytes(file), file, size }
}

/** @param {TokenBytes} table @param {number[]} ids */
function stream(table, ids) {
  const detokenizer = new Detokenizer(table)
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()]
}

/** @param {TokenBytes} table @param {number[]} ids the definition: all bytes, decoded at once */
function decodeAtOnce(table, ids) {
  const bytes = ids.flatMap((id) => [...table.of(id)])
  if (table.leadingSpace && bytes[0] === 0x20) bytes.shift()
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes))
}

for (const [name, tokenizer] of SHAPES) {
  const { table, file, size } = tableOf(tokenizer)
  const idOf = new Map([...file.pieces].map(([id, { text }]) => [text, id]))
  /** @param {string} text @returns {number[]} one token a byte */
  const byteIds = (text) =>
    Array.from(new TextEncoder().encode(text), (byte) => {
      const hex = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
      const single = [...file.pieces].find(
        ([id]) => table.of(id).length === 1 && table.of(id)[0] === byte,
      )
      return Number(idOf.get(hex) ?? single?.[0])
    })

  test(`${name}: pieces joined are the whole, for any ids`, () => {
    const ids = fc.array(fc.nat({ max: size + 3 }), { maxLength: 40 })
    fc.assert(
      fc.property(ids, (list) => {
        const pieces = stream(table, list)
        assert.equal(pieces.join(''), decodeAtOnce(table, list))
        assert.equal(detokenize(table, list), pieces.join(''))
        for (const piece of pieces) assert.doesNotMatch(piece, /\p{Surrogate}/u)
      }),
      { numRuns: 2000 },
    )
  })

  test(`${name}: a character of several bytes appears when its last byte does`, () => {
    for (const character of ['é', '中', '😀', '\ufeff', '\u2028', '\u0000']) {
      const ids = [...byteIds('a'), ...byteIds(character)]
      const pieces = stream(table, ids)
      assert.deepEqual(pieces.slice(1), [...Array(ids.length - 2).fill(''), character, ''])
    }
  })

  test(`${name}: text in bytes comes back, and has no replacement character`, () => {
    const text = fc.string({ unit: 'binary' }).filter((one) => !one.startsWith(' '))
    fc.assert(fc.property(text, (one) => assert.equal(detokenize(table, byteIds(one)), one)))
  })

  test(`${name}: an unfinished character is one U+FFFD, at the end or before what follows`, () => {
    const [first, second] = byteIds('中')
    assert.deepEqual(stream(table, [Number(first), Number(second)]), ['', '', '\ufffd'])
    const [a] = byteIds('a')
    assert.deepEqual(stream(table, [Number(first), Number(a)]), ['', '\ufffda', ''])
  })

  test(`${name}: cut at any token the rest is what it would have been`, () => {
    const bytes = [...byteIds('a é 中😀'), ...byteIds('\u0301')]
    const ids = fc.array(fc.oneof(fc.constantFrom(...bytes), fc.nat({ max: size + 3 })), {
      maxLength: 30,
    })
    fc.assert(
      fc.property(ids, fc.nat(), (list, where) => {
        const at = list.length === 0 ? 0 : where % (list.length + 1)
        const whole = stream(table, list)
        const rest = new Detokenizer(table, list.slice(0, at))
        const pieces = [...list.slice(at).map((id) => rest.push(id)), rest.flush()]
        assert.deepEqual(pieces, whole.slice(at))
      }),
      { numRuns: 3000 },
    )
  })

  test(`${name}: special tokens and unknown ids print nothing`, () => {
    const special = tokenizer.added_tokens.filter((token) => token.special).map(({ id }) => id)
    assert.equal(detokenize(table, [...special, size, size + 1, 2 ** 31]), '')
  })
}

test('LLaMA: one leading space goes, once, and only at the start of a text', () => {
  const { table, file } = tableOf(sentencePieceTokenizer())
  const id = (/** @type {string} */ text) =>
    Number([...file.pieces].find(([, piece]) => piece.text === text)?.[0])
  assert.equal(detokenize(table, [1, id('▁once'), id('▁upon')]), 'once upon')
  assert.equal(detokenize(table, [id('▁'), id('▁once')]), ' once')
  assert.equal(detokenize(table, [id('▁▁▁▁')]), '   ')
  const continued = new Detokenizer(table)
  continued.push(id('▁once'))
  assert.equal(continued.push(id('▁upon')), ' upon')
})

test('byte-level: added tokens stand for themselves', () => {
  const { table, size } = tableOf(byteLevelTokenizer())
  assert.equal(detokenize(table, [size - 2, size - 1]), '     ')
})

/** @param {string[]} stops @param {string[]} pieces */
function matched(stops, pieces) {
  const matcher = new StopMatcher(stops)
  const out = pieces.map((piece) => matcher.push(piece))
  return { out, text: out.join('') + matcher.flush(), stopped: matcher.stopped }
}

test('stop strings: the text ends before the first, however it is cut', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c') })
  const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(fc.array(letters), fc.array(stop, { maxLength: 3 }), (pieces, stops) => {
      const whole = pieces.join('')
      const ends = stops
        .map((one) => ({ at: whole.indexOf(one), end: whole.indexOf(one) + one.length }))
        .filter(({ at }) => at >= 0)
        .sort((x, y) => x.end - y.end || x.at - y.at)
      const wanted = whole.slice(0, ends[0]?.at)
      const { text, stopped, out } = matched(stops, pieces)
      assert.equal(text, wanted)
      assert.equal(stopped, ends.length > 0)
      // Never given out too early: what came out so far is a start of the answer.
      assert.ok(wanted.startsWith(out.join('')))
    }),
    { numRuns: 3000 },
  )
})

test('stop strings: a text in two parts is as in one, where it ends in the second', () => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c') })
  const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 4 })
  const options = fc.record({
    first: fc.array(letters, { maxLength: 5 }),
    second: fc.array(letters),
    stops: fc.array(stop, { maxLength: 3 }),
    isFlushed: fc.boolean(),
  })
  fc.assert(
    fc.property(options, ({ first, second, stops, isFlushed }) => {
      const before = new StopMatcher(stops)
      let out = first.map((piece) => before.push(piece)).join('')
      fc.pre(!before.stopped)
      if (isFlushed) out += before.flush()
      const text = first.join('')
      const after = new StopMatcher(stops, { text, given: text.length - before.heldLength })
      assert.equal(before.heldLength, text.length - out.length)
      for (const piece of ['', ...second]) out += after.push(piece)
      out += after.flush()
      const whole = matched(stops, [...first, ...second])
      assert.equal(after.stopped, whole.stopped)
      // What was given out cannot be taken back; without that it is the same text.
      assert.equal(out, isFlushed && whole.text.length < text.length ? text : whole.text)
    }),
    { numRuns: 4000 },
  )
})

test('stop strings: no more is held back than could begin one', () => {
  assert.deepEqual(matched(['\n\n', 'END'], ['one\n', 'two', ' E', 'N', 'x']).out, [
    'one',
    '\ntwo',
    ' ',
    '',
    'ENx',
  ])
  assert.deepEqual(matched(['ab'], ['a', 'a', 'b']), {
    out: ['', 'a', ''],
    text: 'a',
    stopped: true,
  })
  assert.deepEqual(matched([], ['x']).out, ['x'])
})
