/**
 * The tokenizer in a packed model: where it is taken from, and which ids begin and end a text.
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { bytesSource } from '../../js/convert/byte-source.js'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { packFolder } from './support/memory-output.js'
import { addedToken, byteLevelTokenizer, vocabularySize } from './support/small-tokenizer.js'
import { tempFolder } from './support/temp-folder.js'

const core = await Core.create()
const SPM = readFileSync(new URL('./support/sentencepiece/bpe.model', import.meta.url))
const CONFIG = { n_layer: 1, d_model: 32, vocab_size: 600 }

const SMALL = byteLevelTokenizer()
const FIRST = vocabularySize(SMALL)
/** Ids of tokens that no text is made of. */
const [END, BOS, ONE, TWO, THREE] = [0, FIRST, FIRST + 1, FIRST + 2, FIRST + 3]
const { '<|endoftext|>': _, ...letters } = SMALL.model.vocab

/** A tokenizer.json of the byte-level kind, whose end has an unusual name. */
const BYTE_LEVEL = {
  ...SMALL,
  added_tokens: [addedToken(END, '<|end|>', true), ...SMALL.added_tokens.slice(1)],
  model: {
    ...SMALL.model,
    vocab: { ...letters, '<|end|>': END, '<s>': BOS, '<1>': ONE, '<2>': TWO, '<3>': THREE },
  },
}

/** The same with a template that puts <s> first. */
const TEMPLATED = {
  ...BYTE_LEVEL,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>' } }, { Sequence: { id: 'A' } }],
  },
}

/**
 * @param {{ after: (fn: () => Promise<void>) => void }} t
 * @param {Record<string, unknown>} files objects are written as JSON
 * @param {{ config?: object, tokenizer?: Uint8Array }} [options]
 */
async function pack(t, files, { config = {}, tokenizer } = {}) {
  const dir = await tempFolder(t)
  const contents = Object.entries(files).map(([name, value]) => [
    name,
    value instanceof Uint8Array || typeof value === 'string' ? value : JSON.stringify(value),
  ])
  await writeCheckpoint(dir, {
    config: CONFIG,
    keep: false,
    files: Object.fromEntries(contents),
    editConfig: (json) => ({ ...json, ...config }),
  })
  return packFolder(core, dir, { tokenizer: tokenizer ? bytesSource('given', tokenizer) : null })
}

/** @param {Awaited<ReturnType<typeof pack>>} packed */
function ids({ header: { bosId, eosIds, addBos } }) {
  return [bosId, eosIds, addBos]
}

test('a tokenizer.json is kept byte for byte, then spaces', async (t) => {
  const text = `${JSON.stringify(BYTE_LEVEL, null, 3)}\n`
  const length = Buffer.byteLength(text)
  const { tensor, summary, header } = await pack(t, { 'tokenizer.json': text })
  const stored = Buffer.from(tensor('tokenizer'))
  assert.equal(stored.subarray(0, length).toString(), text)
  assert.match(stored.subarray(length).toString(), /^ {0,63}$/)
  assert.equal(stored.length % 64, 0)
  assert.equal(summary.tokenizer, 'tokenizer.json')
  assert.equal(header.tensors[0]?.name, 'tokenizer')
  assert.deepEqual(summary.warnings, [])
})

test('a SentencePiece model is converted; its ids are BOS and EOS', async (t) => {
  const packed = await pack(t, { 'tokenizer.model': SPM })
  const json = JSON.parse(Buffer.from(packed.tensor('tokenizer')).toString())
  assert.deepEqual(
    [json.model.type, json.model.byte_fallback, json.added_tokens.length],
    ['BPE', true, 3],
  )
  assert.deepEqual(ids(packed), [1, [2], true])
})

test('tokenizer.json goes before tokenizer.model, --tokenizer before both', async (t) => {
  const files = { 'tokenizer.json': BYTE_LEVEL, 'tokenizer.model': SPM }
  const first = await pack(t, files)
  assert.equal(first.summary.tokenizer, 'tokenizer.json')
  const given = await pack(t, files, { tokenizer: new Uint8Array(SPM) })
  assert.equal(given.summary.tokenizer, 'given')
  assert.deepEqual(ids(given), [1, [2], true])
  const json = new TextEncoder().encode(`\n ${JSON.stringify(TEMPLATED)}`)
  assert.equal((await pack(t, {}, { tokenizer: json })).summary.tokenizer, 'given')
})

test('without a tokenizer the model works on ids', async (t) => {
  const packed = await pack(t, {}, { config: { bos_token_id: 1, eos_token_id: 2 } })
  assert.deepEqual([packed.header.hasTokenizer, packed.summary.tokenizer], [false, null])
  assert.deepEqual(packed.summary.warnings.length, 1)
  assert.deepEqual(ids(packed), [1, [2], false])
})

test('the order in which files are asked for BOS and EOS', async (t) => {
  const tokenizer = { 'tokenizer.json': BYTE_LEVEL }
  /** @type {[Record<string, unknown>, object, unknown[]][]} */
  const rows = [
    [{}, {}, [null, [], false]],
    [
      { 'generation_config.json': { bos_token_id: THREE, eos_token_id: [ONE, END] } },
      {},
      [THREE, [ONE, END], false],
    ],
    [
      { 'generation_config.json': { eos_token_id: [ONE, END] } },
      { bos_token_id: TWO, eos_token_id: BOS },
      [TWO, [BOS, ONE, END], false],
    ],
    [
      { 'tokenizer_config.json': { bos_token: '<s>', eos_token: { content: '<|end|>' } } },
      { bos_token_id: TWO, eos_token_id: THREE },
      [BOS, [END], false],
    ],
    [
      { 'tokenizer_config.json': { bos_token: '<s>', eos_token: '<s>', add_bos_token: true } },
      {},
      [BOS, [BOS], true],
    ],
    [{ 'tokenizer_config.json': { bos_token: null, eos_token: 'absent' } }, {}, [null, [], false]],
    [{ 'tokenizer_config.json': { add_bos_token: true } }, {}, [null, [], false]],
    [{}, { bos_token_id: 600, eos_token_id: [-1, 'x', 1.5, 599] }, [null, [599], false]],
  ]
  for (const [files, config, wanted] of rows) {
    const packed = await pack(t, { ...tokenizer, ...files }, { config })
    assert.deepEqual(ids(packed), wanted, JSON.stringify([files, config]))
  }
})

test('BOS is added as the tokenizer does', async (t) => {
  const config = { bos_token_id: BOS }
  assert.equal((await pack(t, { 'tokenizer.json': TEMPLATED }, { config })).header.addBos, true)
  assert.equal((await pack(t, { 'tokenizer.json': BYTE_LEVEL }, { config })).header.addBos, false)
  const files = { 'tokenizer.model': SPM, 'tokenizer_config.json': { add_bos_token: false } }
  assert.equal((await pack(t, files)).header.addBos, false)
})

test('the chat template comes along', async (t) => {
  const template = (/** @type {unknown} */ chat_template) => ({
    'tokenizer_config.json': { chat_template },
  })
  assert.equal((await pack(t, template('{{ a }}'))).header.chatTemplate, '{{ a }}')
  const named = [
    { name: 'tool', template: 'x' },
    { name: 'default', template: 'y' },
  ]
  assert.equal((await pack(t, template(named))).header.chatTemplate, 'y')
  assert.equal(
    (await pack(t, template([{ name: 'tool', template: 'x' }]))).header.chatTemplate,
    null,
  )
  assert.equal(
    (await pack(t, { ...template('a'), 'chat_template.jinja': 'b\n' })).header.chatTemplate,
    'b\n',
  )
  await assert.rejects(pack(t, template('x'.repeat(70000))), {
    code: 'checkpoint',
    message: /chat template: 70000/,
  })
})

test('bad tokenizers are refused', async (t) => {
  const model = BYTE_LEVEL.model
  const vocab = (/** @type {object} */ more) => ({
    ...BYTE_LEVEL,
    model: { ...model, vocab: { ...model.vocab, ...more } },
  })
  /** @type {[string, unknown, RegExp][]} */
  const rows = [
    ['an id beyond the vocabulary', vocab({ zz: 600 }), /"zz" has id 600, want 0 \.\. 599/],
    ['a negative id', vocab({ zz: -1 }), /"zz" has id -1/],
    ['an id as text', vocab({ zz: '7' }), /"zz" has id "7"/],
    ['an id of 10^9', vocab({ zz: 1e9 }), /"zz" has id 1000000000/],
    ['an id twice', vocab({ '<4>': ONE }), /two pieces have the same id/],
    [
      'an added token beyond',
      { ...BYTE_LEVEL, added_tokens: [{ id: 601, content: 'x' }] },
      /"x" has id 601/,
    ],
    ['an added token that is null', { ...BYTE_LEVEL, added_tokens: [null] }, /has id/],
    [
      'a unigram tokenizer',
      { ...BYTE_LEVEL, model: { type: 'Unigram', vocab: [['a', 0]] } },
      /Unigram/,
    ],
    ['no model', { version: '1.0' }, /model\.vocab is no object/],
    ['cut', JSON.stringify(BYTE_LEVEL).slice(0, -9), /not a JSON object/],
    ['a web page', '<!DOCTYPE html>', /not a SentencePiece model/],
    ['empty', '', /no pieces/],
    [
      'a pattern that no reader knows',
      { ...BYTE_LEVEL, pre_tokenizer: { type: 'Split', pattern: { Regex: '.+' } } },
      /^tokenizer\.json: tokenizer: pre_tokenizer is .*, want ByteLevel/,
    ],
  ]
  for (const [name, content, message] of rows) {
    await assert.rejects(
      pack(t, { 'tokenizer.json': content }),
      { code: 'tokenizer', message },
      name,
    )
  }
  await assert.rejects(pack(t, { 'tokenizer.model': SPM.subarray(0, 5000) }), { code: 'tokenizer' })
  const small = { n_layer: 1, d_model: 32, vocab_size: 500 }
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { config: small, files: { 'tokenizer.model': SPM } })
  await assert.rejects(packFolder(core, dir), {
    code: 'tokenizer',
    message: /has id 5\d\d, want 0 \.\. 499/,
  })
})

test('side files that are damaged are named', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { keep: false })
  for (const file of ['tokenizer_config.json', 'generation_config.json']) {
    await writeFile(join(dir, file), '{"bos_token": ')
    await assert.rejects(packFolder(core, dir), {
      code: 'checkpoint',
      message: new RegExp(`${file}: not a JSON`),
    })
    await writeFile(join(dir, file), '{}')
  }
})
