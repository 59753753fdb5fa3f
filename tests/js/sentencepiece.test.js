/**
 * SentencePiece models as tokenizer.json: the same ids as SentencePiece itself gives, and clear refusals.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'
import { Tokenizer } from '@huggingface/tokenizers'
import { readSentencePiece, sentencePieceToJson } from '../../js/convert/sentencepiece.js'
import { readTokenizerFile } from '../../js/tokenizer-file.js'
import { seeded } from './support/seeded.js'
import { trickyStrings } from './support/sentencepiece/generated-text.js'
import {
  encodeWithSentencePiece,
  hasSentencePiece,
  trainModel,
} from './support/sentencepiece/spm.js'
import { concatBytes } from './support/stored-zip.js'

const GOLDEN = new URL('./support/sentencepiece/', import.meta.url)
const goldenModel = new Uint8Array(readFileSync(new URL('bpe.model', GOLDEN)))
const goldenRows = /** @type {[string, number[]][]} */ (
  readFileSync(new URL('encodings.txt', GOLDEN), 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => JSON.parse(line))
)

/** @param {Uint8Array} model */
const convert = (model) => sentencePieceToJson(readSentencePiece(model))

/**
 * @param {Uint8Array} model
 * @param {[string, number[]][]} rows
 */
function assertSameIds(model, rows) {
  const tokenizer = new Tokenizer(convert(model), {})
  for (const [text, ids] of rows) {
    const found = tokenizer.encode(text, { add_special_tokens: false }).ids
    assert.deepEqual(Array.from(found, Number), ids, JSON.stringify(text))
  }
}

test('the golden model encodes as SentencePiece encoded', () => {
  assert(goldenRows.length > 400)
  assertSameIds(goldenModel, goldenRows)
})

test('freshly trained models encode as SentencePiece does, thousands of strings', (t) => {
  if (!hasSentencePiece()) {
    console.log('skipped: spm_train and spm_encode are not installed')
    return t.skip('spm_train and spm_encode are not installed')
  }
  for (const [seed, options] of /** @type {[number, Record<string, string>][]} */ ([
    [11, {}],
    [12, { add_dummy_prefix: 'false' }],
    [13, { byte_fallback: 'false', vocab_size: '400' }],
  ])) {
    const model = trainModel(seed, options)
    const strings = trickyStrings(seed, 3000)
    const ids = encodeWithSentencePiece(model, strings)
    assertSameIds(
      model,
      strings.map((text, i) => [text, ids[i] ?? []]),
    )
  }
})

test('models of other kinds are refused by name', (t) => {
  if (!hasSentencePiece()) {
    console.log('skipped: spm_train is not installed')
    return t.skip('spm_train is not installed')
  }
  for (const [options, message] of /** @type {[Record<string, string>, RegExp][]} */ ([
    [{ model_type: 'unigram', vocab_size: '400' }, /a unigram model, want BPE/],
    [{ model_type: 'char', vocab_size: '300', hard_vocab_limit: 'false' }, /a char model/],
    [{ normalization_rule_name: 'nmt_nfkc' }, /normalization rule "nmt_nfkc"/],
    [{ remove_extra_whitespaces: 'true' }, /remove_extra_whitespaces/],
    [{ user_defined_symbols: '[X]' }, /"\[X\]" is user-defined/],
    [{ treat_whitespace_as_suffix: 'true' }, /treat_whitespace_as_suffix/],
  ])) {
    const model = trainModel(3, options)
    assert.throws(() => convert(model), { code: 'tokenizer', message }, JSON.stringify(options))
  }
})

test('the shape is one that the runtime accepts', () => {
  const json = JSON.stringify(convert(goldenModel))
  const file = readTokenizerFile(json, { paddedVocabSize: 608, reservedIds: [1, 2] })
  assert.equal(file.shape, 'sentencepiece')
  assert.equal(file.prefix, 'always')
  assert.equal(file.pieces.size, 600 - 3)
})

test('what the model says of itself', () => {
  const { pieces, ...rest } = readSentencePiece(goldenModel)
  assert.deepEqual(rest, {
    modelType: 2,
    byteFallback: true,
    unkId: 0,
    bosId: 1,
    eosId: 2,
    addDummyPrefix: true,
    unsupported: [],
  })
  assert.deepEqual(pieces.slice(0, 4), [
    { text: '<unk>', score: 0, type: 2 },
    { text: '<s>', score: 0, type: 3 },
    { text: '</s>', score: 0, type: 3 },
    { text: '<0x00>', score: 0, type: 6 },
  ])
  assert.equal(pieces.length, 600)
})

/** A protobuf field. @param {number} field @param {number | string | Uint8Array} value */
function proto(field, value) {
  if (typeof value === 'number') return Uint8Array.from([field << 3, ...varint(value)])
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value
  return Uint8Array.from([...varint((field << 3) | 2), ...varint(bytes.length), ...bytes])
}

/** @param {number} value @returns {number[]} */
function varint(value) {
  return value < 128 ? [value] : [(value % 128) | 128, ...varint(Math.floor(value / 128))]
}

/** @param {string | Uint8Array} text @param {number} [type] */
const piece = (text, type = 1) => proto(1, concatBytes([proto(1, text), proto(3, type)]))

/** BPE, and no cutting of spaces. */
const TRAINER = proto(2, proto(3, 2))
const NORMALIZER = proto(3, proto(4, 0))
const UNK = piece('<unk>', 2)

/** @type {[string, Uint8Array[], RegExp][]} */
const BAD = [
  ['nothing', [], /no pieces/],
  ['no unknown piece', [piece('a'), TRAINER, NORMALIZER], /piece 0 is not the unknown piece/],
  [
    'two equal pieces',
    [UNK, piece('a'), piece('a'), TRAINER, NORMALIZER],
    /two pieces are the same/,
  ],
  ['an empty piece', [UNK, piece(''), TRAINER, NORMALIZER], /"" is empty/],
  ['a piece with a space', [UNK, piece('a b'), TRAINER, NORMALIZER], /has a space/],
  ['an unused piece', [UNK, piece('a', 5), TRAINER, NORMALIZER], /"a" is user-defined or unused/],
  [
    'a piece that is not UTF-8',
    [UNK, piece(Uint8Array.of(0xff)), TRAINER, NORMALIZER],
    /not UTF-8/,
  ],
  ['a unigram model', [UNK, piece('a'), NORMALIZER], /unigram/],
  ['spaces cut', [UNK, piece('a'), TRAINER], /remove_extra_whitespaces/],
  [
    'a rule for characters',
    [UNK, TRAINER, proto(3, concatBytes([proto(1, 'nfkc'), proto(2, 'x'), proto(4, 0)]))],
    /"nfkc"/,
  ],
  [
    'spaces not escaped',
    [UNK, TRAINER, proto(3, concatBytes([proto(4, 0), proto(5, 0)]))],
    /escape_whitespaces/,
  ],
  ['a field past the end', [Uint8Array.of(0x0a, 0x7f, 1)], /passes the end/],
  ['a number without end', [new Uint8Array(30).fill(0xff)], /passes the end/],
  ['a group', [Uint8Array.of(0x0b, 0x0c)], /passes the end/],
]

for (const [name, parts, message] of BAD) {
  test(`refused: ${name}`, () => {
    assert.throws(() => convert(concatBytes(parts)), { code: 'tokenizer', message })
  })
}

test('a piece named __proto__ is a piece', () => {
  const json = convert(concatBytes([UNK, piece('__proto__'), TRAINER, NORMALIZER]))
  const { vocab } = JSON.parse(JSON.stringify(json)).model
  assert.deepEqual(Object.entries(vocab), [
    ['<unk>', 0],
    ['__proto__', 1],
  ])
})

test('damaged models are errors of the tokenizer, nothing worse', () => {
  for (let seed = 0; seed < 2000; seed++) {
    const r = seeded(seed)
    const bytes = goldenModel.slice(
      0,
      r.below(4) ? goldenModel.length : r.below(goldenModel.length),
    )
    for (let n = 1 + r.below(5); n > 0 && bytes.length; n--)
      bytes[r.below(bytes.length)] = r.below(256)
    try {
      convert(bytes)
    } catch (error) {
      const { code, stack } = /** @type {Error & { code?: string }} */ (error)
      assert.equal(code, 'tokenizer', `seed ${seed}: ${stack}`)
    }
  }
})
