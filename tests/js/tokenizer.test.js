/**
 * Text to ids: right, the same however a long text is cut, and closed to everything but the two known shapes.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import * as library from '../../dist/tokenizers.mjs'
import { detokenize, TokenBytes } from '../../js/detokenizer.js'
import { BmError } from '../../js/errors.js'
import { createTokenizer } from '../../js/tokenizer.js'
import {
  addedToken,
  byteLevelTokenizer,
  sentencePieceTokenizer,
  vocabularySize,
} from './support/small-tokenizer.js'

/** @typedef {ReturnType<typeof sentencePieceTokenizer>} SentencePieceJson */

/** @param {object} json @param {number[]} [reservedIds] */
function create(json, reservedIds = [0]) {
  const tokenizer = /** @type {SentencePieceJson} */ (json)
  const paddedVocabSize = 16 * Math.ceil(vocabularySize(tokenizer) / 16)
  return createTokenizer(JSON.stringify(json), { paddedVocabSize, reservedIds })
}

/** @param {object} json as the library reads it when nothing of ours stands before it @returns {(text: string) => number[]} */
function libraryAlone(json) {
  const { added_tokens: added = [] } = /** @type {SentencePieceJson} */ (json)
  const plain = added.filter((token) => !token.special)
  const tokenizer = new library.Tokenizer(
    { ...json, added_tokens: plain, post_processor: null },
    {},
  )
  return (text) => (text === '' ? [] : tokenizer.encode(text, { add_special_tokens: false }).ids)
}

const WORDS = [
  'once',
  'upon',
  ' ',
  '  ',
  '\n',
  'a',
  'n',
  'été',
  '😀',
  '</s>',
  '▁',
  '<0x0A>',
  "it's",
  '42',
  '\t',
]
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.array(fc.constantFrom(...WORDS), { maxLength: 200 }).map((words) => words.join('')),
)

for (const [name, json] of /** @type {const} */ ([
  ['sentencepiece', sentencePieceTokenizer()],
  ['bytelevel', byteLevelTokenizer()],
])) {
  test(`${name}: cutting a text changes no token`, async () => {
    const tokenizer = await create(json)
    const whole = libraryAlone(json)
    await fc.assert(
      fc.asyncProperty(text, async (one) =>
        assert.deepEqual(await tokenizer.encode(one), whole(one)),
      ),
      { numRuns: 1500 },
    )
  })

  test(`${name}: encode, then decode, is the text`, async () => {
    const tokenizer = await create(json)
    const table = new TokenBytes(tokenizer.file)
    await fc.assert(
      fc.asyncProperty(text, async (one) => {
        const wanted = name === 'sentencepiece' ? one.replaceAll('▁', ' ') : one.normalize('NFC')
        assert.equal(detokenize(table, await tokenizer.encode(one)), wanted)
      }),
      { numRuns: 1500 },
    )
  })

  test(`${name}: special tokens in a text are text`, async () => {
    const tokenizer = await create(json)
    const special = json.added_tokens.filter((token) => token.special)
    for (const { content, id } of special) {
      const ids = await tokenizer.encode(`x${content}y`)
      assert.ok(!ids.includes(id) && ids.length > 3, content)
    }
  })

  test(`${name}: half a surrogate pair is U+FFFD`, async () => {
    const tokenizer = await create(json)
    assert.deepEqual(
      await tokenizer.encode('a\ud83d b\ude00'),
      await tokenizer.encode('a\ufffd b\ufffd'),
    )
  })
}

test('byte-level: added tokens that print are found', async () => {
  const json = byteLevelTokenizer()
  const size = vocabularySize(json)
  const tokenizer = await create(json)
  assert.deepEqual((await tokenizer.encode('a   b')).slice(1, -1), [size - 2])
})

test('the space in front: always, only where there is none, never', async () => {
  const json = sentencePieceTokenizer()
  const metaspace = (/** @type {string} */ prepend_scheme) => ({
    ...json,
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme, split: false },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme },
  })
  const spaces = async (/** @type {object} */ json, /** @type {string} */ one) => {
    const tokenizer = await create(json)
    const ids = await tokenizer.encode(one)
    return ids.map((id) => tokenizer.file.pieces.get(id)?.text).join('|')
  }
  assert.equal(await spaces(json, 'a'), '▁a')
  assert.equal(await spaces(json, ' a'), '▁|▁a')
  assert.equal(await spaces(metaspace('first'), 'a'), '▁a')
  assert.equal(await spaces(metaspace('first'), ' a'), '▁a')
  assert.equal(await spaces(metaspace('never'), 'a'), 'a')
  assert.equal(await spaces(metaspace('never'), ' a'), '▁a')
  assert.equal(await spaces(json, ''), '')
})

test('a long text takes time in proportion, whatever is in it', async () => {
  const tokenizer = await create(sentencePieceTokenizer())
  const words = 'once upon a time the cat sat '
  // Measured: a megabyte of words 0.2 s (uncut 6 s), of one letter 5 s. The bounds leave room for a busy machine.
  for (const [one, length, limitMs] of /** @type {const} */ ([
    [words, 1e6, 5000],
    ['😀', 2e5, 10000],
    ['a', 1e5, 10000],
    [' ', 1e5, 10000],
    ['an', 1e5, 10000],
  ])) {
    const began = performance.now()
    await tokenizer.encode(one.repeat(Math.ceil(length / one.length)))
    const ms = performance.now() - began
    assert.ok(ms < limitMs, `${JSON.stringify(one)}: ${ms} ms`)
  }
})

test('a long text can be aborted', async () => {
  const tokenizer = await create(sentencePieceTokenizer())
  const reason = new Error('enough')
  const controller = new AbortController()
  setTimeout(() => controller.abort(reason), 1)
  await assert.rejects(tokenizer.encode('aaaa bb '.repeat(1e5), controller.signal), reason)
})

/** @type {[string, (json: SentencePieceJson) => unknown, RegExp][]} */
const REFUSED = [
  ['no object', () => 5, /an object/],
  [
    'another model',
    (json) => ({ ...json, model: { ...json.model, type: 'Unigram' } }),
    /model\.type.*BPE/,
  ],
  ['no model', (json) => ({ ...json, model: undefined }), /model/],
  [
    'a regex of its own',
    (json) => ({
      ...json,
      pre_tokenizer: { type: 'Split', pattern: { Regex: '(a+)+$' }, behavior: 'Isolated' },
    }),
    /pre_tokenizer/,
  ],
  [
    'a regex in the normalizer',
    (json) => ({
      ...json,
      normalizer: { type: 'Replace', pattern: { Regex: '(a+)+$' }, content: '' },
    }),
    /normalizer/,
  ],
  [
    'a regex in the decoder',
    (json) => ({
      ...json,
      decoder: { type: 'Replace', pattern: { Regex: '(a+)+$' }, content: '' },
    }),
    /decoder/,
  ],
  ['lower case', (json) => ({ ...json, normalizer: { type: 'Lowercase' } }), /normalizer/],
  [
    'a decoder that strips nothing',
    (json) => ({ ...json, decoder: { type: 'Fuse' } }),
    /leading space/,
  ],
  ['dropout', (json) => ({ ...json, model: { ...json.model, dropout: 0.1 } }), /dropout/],
  [
    'a suffix',
    (json) => ({ ...json, model: { ...json.model, end_of_word_suffix: '</w>' } }),
    /end_of_word_suffix/,
  ],
  ['an id twice', (json) => withVocab(json, { zz: 5 }), /id 5/],
  ['an id beyond the model', (json) => withVocab(json, { zz: 1e6 }), /zz.*want an id/],
  ['a negative id', (json) => withVocab(json, { zz: -1 }), /zz.*want an id/],
  ['a fractional id', (json) => withVocab(json, { zz: 1.5 }), /zz.*want an id/],
  [
    'an id as text',
    (json) => withVocab(json, /** @type {never} */ ({ zz: '9' })),
    /zz.*want an id/,
  ],
  ['an empty token', (json) => withVocab(json, { '': 300 }), /not empty/],
  ['a byte missing', (json) => withVocab(json, {}, ['<0x41>']), /<0x41>/],
  ['a merge of an unknown token', (json) => withMerge(json, ['q', 'a']), /known tokens/],
  ['a merge into an unknown token', (json) => withMerge(json, ['a', 's']), /makes a known/],
  ['a merge of three', (json) => withMerge(json, 'a b c'), /pair/],
  ['a merge that is no text', (json) => withMerge(json, [{}, 'a']), /known tokens/],
  [
    'a merge into a special token',
    (json) => withMerge(withVocab(json, { '<': 310, '/s>': 311 }), ['<', '/s>']),
    /no special token/,
  ],
  ['a special token of one letter', (json) => oneLetterSpecial(json), /more than one character/],
  [
    'an added token that contradicts',
    (json) => ({ ...json, added_tokens: [addedToken(7, 'zz', false)] }),
    /contradicts/,
  ],
  [
    'an added token that eats spaces',
    (json) => ({ ...json, added_tokens: [{ ...addedToken(310, 'zz', false), lstrip: true }] }),
    /lstrip/,
  ],
  [
    'added tokens that are no list',
    (json) => ({ ...json, added_tokens: { a: 1 } }),
    /added_tokens/,
  ],
]

/** @param {SentencePieceJson} json @param {Record<string, number>} more @param {string[]} [without] */
function withVocab(json, more, without = []) {
  const vocab = { ...json.model.vocab, ...more }
  for (const piece of without) delete vocab[piece]
  return { ...json, model: { ...json.model, vocab } }
}

/** @param {SentencePieceJson} json */
function oneLetterSpecial(json) {
  const id = Number(json.model.vocab.a)
  return { ...json, added_tokens: [...json.added_tokens, addedToken(id, 'a', true)] }
}

/** @param {SentencePieceJson} json @param {unknown} merge */
function withMerge(json, merge) {
  return { ...json, model: { ...json.model, merges: [...json.model.merges, merge] } }
}

for (const [name, change, pattern] of REFUSED) {
  test(`refused: ${name}`, async () => {
    const json = JSON.stringify(change(sentencePieceTokenizer()))
    const creating = createTokenizer(json, { paddedVocabSize: 320, reservedIds: [1, 2] })
    await assert.rejects(creating, (error) => {
      assert.ok(error instanceof BmError && error.code === 'tokenizer', String(error))
      assert.match(error.message, pattern)
      return true
    })
  })
}

test('refused: what is not JSON, and JSON too deep', async () => {
  const deep = `{"model":{"type":${'['.repeat(1e5)}${']'.repeat(1e5)}}}`
  for (const json of ['', '{', '\u0000', deep]) {
    await assert.rejects(createTokenizer(json, { paddedVocabSize: 320, reservedIds: [] }), {
      code: 'tokenizer',
    })
  }
})

test('accepted: holes in the ids', async () => {
  const json = sentencePieceTokenizer()
  const moved = withVocab(json, { zz: 315 })
  const tokenizer = await createTokenizer(JSON.stringify(moved), {
    paddedVocabSize: 320,
    reservedIds: [],
  })
  assert.equal(detokenize(new TokenBytes(tokenizer.file), [314, 315, 316]), 'zz')
})
