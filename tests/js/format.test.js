/**
 * The packed header: what is written can be read, and nothing else can.
 *
 * Every rule of models/FORMAT.md that a header can break is broken once here, by changing a valid one.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import test from 'node:test'
import { Core } from '../../js/core.js'
import {
  CHUNK_BYTES,
  describeWrongFile,
  encodeHeader,
  headerSize,
  padTokenizer,
  parseHeader,
  readHeaderLength,
} from '../../js/format.js'
import { DEFAULTS, packedConfig } from './support/checkpoint.js'
import { seeded } from './support/seeded.js'

const core = await Core.create()

/**
 * @typedef {import('../../js/format.js').ModelConfig} ModelConfig
 * @typedef {Parameters<typeof encodeHeader>[0]} Fields
 * @typedef {{ __metadata__: Record<string, unknown>, [name: string]: any }} HeaderJson
 */

/** @param {Partial<Fields> & { sizes?: object }} [changes] @returns {Fields} */
function fieldsOf({ sizes = {}, ...changes } = {}) {
  const base = { ...packedConfig({ ...DEFAULTS, n_layer: 1, d_model: 32 }), embedding_dtype: 'I8' }
  const config = changes.config ?? /** @type {ModelConfig} */ ({ ...base, ...sizes })
  const tensors = core.tensors(config)
  const tokenizerBytes = changes.tokenizerBytes ?? 128
  const dataBytes = tensors.reduce((sum, tensor) => sum + tensor.sizeBytes, tokenizerBytes)
  const chunkSha256 = new Uint8Array(Math.ceil(dataBytes / CHUNK_BYTES) * 32).fill(0xa5)
  return {
    tensors,
    tokenizerBytes,
    chunkSha256,
    bosId: 1,
    eosIds: [2, 7],
    addBos: true,
    chatTemplate: null,
    source: 'a test: "quoted", é, \u2028',
    licence: 'Apache-2.0',
    ...changes,
    config,
  }
}

/** @param {string} json @param {{ padTo?: number }} [options] */
function headerBytes(json, { padTo = 64 } = {}) {
  const text = Buffer.from(json, 'utf8')
  const bytes = new Uint8Array(Math.ceil((8 + text.length) / padTo) * padTo).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true)
  bytes.set(text, 8)
  return bytes
}

const VALID = encodeHeader(fieldsOf())
const VALID_JSON = Buffer.from(VALID.subarray(8)).toString('utf8').trimEnd()

/** @param {(header: HeaderJson) => unknown} change may return the object or text to write instead */
function changed(change) {
  const header = /** @type {HeaderJson} */ (JSON.parse(VALID_JSON))
  const result = change(header) ?? header
  return headerBytes(typeof result === 'string' ? result : JSON.stringify(result))
}

/** @param {Uint8Array} bytes @param {RegExp} message */
async function refused(bytes, message) {
  await assert.rejects(parseHeader(bytes, core), (error) => {
    assert(error instanceof Error)
    assert.equal(/** @type {Error & { code?: string }} */ (error).code, 'format', error.stack)
    assert.match(error.message, message)
    return true
  })
}

test('what is written is read back', async () => {
  const fields = fieldsOf({ chatTemplate: '{{ x }}', addBos: false })
  const bytes = encodeHeader(fields)
  assert.equal(bytes.length, headerSize(fields))
  assert.equal(bytes.length % 64, 0)
  const header = await parseHeader(new Uint8Array([...bytes, 1, 2, 3]), core)
  assert.deepEqual(header.config, fields.config)
  assert.equal(header.identity, createHash('sha256').update(bytes).digest('hex'))
  assert.equal(header.dataOffset, bytes.length)
  assert.equal(header.fileBytes, header.dataOffset + header.dataBytes)
  assert.deepEqual(header.chunkSha256, fields.chunkSha256)
  const { bosId, eosIds, addBos, chatTemplate, source, licence, hasTokenizer } = header
  assert.deepEqual(
    { bosId, eosIds, addBos, chatTemplate, source, licence, hasTokenizer },
    {
      bosId: 1,
      eosIds: [2, 7],
      addBos: false,
      chatTemplate: '{{ x }}',
      source: fields.source,
      licence: 'Apache-2.0',
      hasTokenizer: true,
    },
  )
  let end = 0
  for (const [i, tensor] of header.tensors.entries()) {
    assert.equal(tensor.offset, end, tensor.name)
    assert.equal(tensor.index, i - 1)
    end += tensor.sizeBytes
  }
  assert.equal(end, header.dataBytes)
})

test('random configs round-trip and every tensor is aligned', async () => {
  for (let seed = 0; seed < 200; seed++) {
    const r = seeded(seed)
    const headdim = 4 * (1 + r.below(16))
    const sizes = {
      n_layer: 1 + r.below(4),
      d_model: 32 * headdim * (1 + r.below(2)),
      d_state: 8 * (1 + r.below(16)),
      headdim,
      ngroups: [1, 2, 4, 8][r.below(4)],
      d_conv: 2 + r.below(3),
      expand: 1 + r.below(3),
      vocab_size: 3 + r.below(500),
      padded_vocab_size: 503 + r.below(99),
      tie_embeddings: r.below(2) === 0,
      norm_eps: r.between(1e-8, 1e-3),
      dt_min: r.below(2) * 0.001,
      dt_max: r.below(2) ? null : 0.1,
      embedding_dtype: ['I8', 'F16', 'F32'][r.below(3)],
    }
    const tokenizerBytes = 64 * r.below(3)
    const fields = fieldsOf({ sizes, tokenizerBytes, eosIds: [], bosId: null, addBos: false })
    const header = await parseHeader(encodeHeader(fields), core)
    assert.deepEqual(header.config, fields.config, `seed ${seed}`)
    const widths = /** @type {Record<string, number>} */ ({ U8: 1, I8: 1, F16: 2, F32: 4 })
    for (const { name, dtype, offset } of header.tensors) {
      const at = header.dataOffset + offset
      assert.equal(at % Number(widths[dtype]), 0, `seed ${seed}: ${name} at ${at}`)
    }
  }
})

test('the tokenizer is padded with spaces to a multiple of 64', () => {
  assert.equal(padTokenizer(new Uint8Array(64)).length, 64)
  const padded = padTokenizer(new TextEncoder().encode('{"é":1}'))
  assert.equal(padded.length, 64)
  assert.deepEqual(JSON.parse(new TextDecoder().decode(padded)), { é: 1 })
})

test('a header cut at any byte is refused', async () => {
  for (let end = 0; end < VALID.length; end++) await refused(VALID.subarray(0, end), /./)
})

test('a flipped bit in the header is refused or changes the identity', async () => {
  const { identity } = await parseHeader(VALID, core)
  let refusals = 0
  for (let bit = 0; bit < VALID.length * 8; bit += 3) {
    const bytes = VALID.slice()
    bytes[bit >> 3] = Number(bytes[bit >> 3]) ^ (1 << (bit & 7))
    const header = await parseHeader(bytes, core).catch((error) => {
      assert.equal(error.code, 'format', `bit ${bit}: ${error.stack}`)
      refusals++
      return null
    })
    assert.notEqual(header?.identity, identity, `bit ${bit}`)
  }
  assert(refusals > VALID.length / 4, `${refusals} refusals`)
})

test('header lengths that no header has are refused before anything is read', () => {
  const lengths = [
    0n,
    1n,
    8388609n,
    2n ** 31n,
    2n ** 32n - 1n,
    2n ** 53n,
    2n ** 63n,
    2n ** 64n - 1n,
  ]
  for (const length of lengths) {
    const bytes = new Uint8Array(8)
    new DataView(bytes.buffer).setBigUint64(0, length, true)
    assert.throws(() => readHeaderLength(bytes), { code: 'format' }, `length ${length}`)
  }
  assert.equal(readHeaderLength(VALID), VALID.length - 8)
  assert.equal(readHeaderLength(VALID.subarray(0, 8)), VALID.length - 8)
})

/** @typedef {(h: HeaderJson) => unknown} Change */

/** Sets a value of the metadata. @param {string} key @param {unknown} value @returns {Change} */
function meta(key, value) {
  return (h) => {
    h.__metadata__[key] = value
  }
}

/**
 * Sets a value of a tensor; a function gets the header and gives the value.
 * @param {string} name @param {string} key @param {unknown} value @returns {Change}
 */
function entry(name, key, value) {
  return (h) => {
    h[name][key] = typeof value === 'function' ? value(h) : value
  }
}

/** Each row breaks one rule; the message must name what is wrong. @type {[string, (h: HeaderJson) => unknown, RegExp][]} */
const BROKEN = [
  ['metadata absent', (h) => void Reflect.deleteProperty(h, '__metadata__'), /format is absent/],
  ['metadata a list', (h) => ({ ...h, __metadata__: [] }), /format is absent/],
  ['another version', meta('format', 'bimamba 3'), /"bimamba 3".*convert again/],
  ['another program', meta('format', 'pt'), /format is "pt"/],
  ['a metadata number', meta('bos_id', 1), /"bos_id": want a string/],
  [
    'a metadata key missing',
    (h) => void Reflect.deleteProperty(h.__metadata__, 'eos_ids'),
    /"eos_ids" missing/,
  ],
  ['a metadata key too many', meta('extra', ''), /"extra" not expected/],
  [
    'metadata out of order',
    (h) => {
      const { format, config, ...rest } = h.__metadata__
      return { ...h, __metadata__: { config, format, ...rest } }
    },
    /out of order/,
  ],
  [
    '__proto__ in metadata',
    (h) => JSON.stringify(h).replace('"licence":', '"__proto__":"","licence":'),
    /"__proto__" not expected/,
  ],
  ['constructor as tensor', (h) => ({ ...h, constructor: {} }), /"constructor" not expected/],
  ['chunk size', meta('chunk_bytes', '1048576'), /chunk_bytes/],
  ['chunk size 04194304', meta('chunk_bytes', '04194304'), /chunk_bytes/],
  ['hash too short', meta('chunk_sha256', 'ab'), /chunk_sha256/],
  ['hash upper case', meta('chunk_sha256', 'A5'.repeat(32)), /chunk_sha256/],
  ['hash not hex', meta('chunk_sha256', 'zz'.repeat(32)), /chunk_sha256/],
  ['bos beyond the vocabulary', meta('bos_id', '50'), /bos_id/],
  ['bos negative', meta('bos_id', '-1'), /bos_id/],
  ['bos a fraction', meta('bos_id', '1.5'), /bos_id/],
  ['bos 01', meta('bos_id', '01'), /bos_id/],
  ['bos 1e0', meta('bos_id', '1e0'), /canonical/],
  ['eos no list', meta('eos_ids', '2'), /eos_ids/],
  ['eos twice', meta('eos_ids', '[2,2]'), /eos_ids/],
  ['eos spaced', meta('eos_ids', '[2, 3]'), /canonical/],
  ['eos too many', meta('eos_ids', JSON.stringify([...Array(65).keys()])), /eos_ids/],
  ['eos text', meta('eos_ids', '["2"]'), /eos_ids/],
  ['add_bos a word', meta('add_bos', 'yes'), /add_bos/],
  ['add_bos without bos', meta('bos_id', 'null'), /add_bos/],
  ['config no object', meta('config', '[]'), /config/],
  ['config no JSON', meta('config', '{'), /config.*not JSON/],
  ['config deep', meta('config', '['.repeat(1e5)), /config/],
  [
    'tensor missing',
    (h) => void Reflect.deleteProperty(h, 'norm_f.weight'),
    /"norm_f.weight" missing/,
  ],
  [
    'tensor too many',
    (h) => ({ ...h, 'layers.1.D': h['layers.0.D'] }),
    /"layers.1.D" not expected/,
  ],
  [
    'tensors out of order',
    (h) => {
      const { 'embedding.scale': scale, ...rest } = h
      return { ...rest, 'embedding.scale': scale }
    },
    /out of order/,
  ],
  ['tensor a string', (h) => ({ ...h, 'layers.0.D': 'x' }), /layers.0.D/],
  ['tensor with more keys', entry('layers.0.D', 'strides', [1]), /"strides" not expected/],
  ['dtype', entry('layers.0.D', 'dtype', 'F16'), /layers.0.D.*dtype/],
  ['shape', entry('layers.0.D', 'shape', [3]), /layers.0.D.*shape/],
  ['shape of rank 0', entry('layers.0.D', 'shape', []), /layers.0.D.*shape/],
  [
    'hole',
    entry('norm_f.weight', 'data_offsets', (/** @type {HeaderJson} */ h) =>
      h['norm_f.weight'].data_offsets.map((/** @type {number} */ x) => x + 4),
    ),
    /norm_f.weight.*data_offsets/,
  ],
  [
    'overlap',
    entry(
      'layers.0.D',
      'data_offsets',
      (/** @type {HeaderJson} */ h) => h['layers.0.A_log'].data_offsets,
    ),
    /layers.0.D.*data_offsets/,
  ],
  ['offsets negative', entry('layers.0.D', 'data_offsets', [-8, 0]), /layers.0.D.*data_offsets/],
  ['offsets 2^53', entry('layers.0.D', 'data_offsets', [0, 2 ** 53]), /layers.0.D.*data_offsets/],
  ['offsets text', entry('layers.0.D', 'data_offsets', '[0,8]'), /layers.0.D.*data_offsets/],
  ['tokenizer of 65 bytes', entry('tokenizer', 'shape', [65]), /tokenizer/],
  ['tokenizer of 0 bytes', entry('tokenizer', 'shape', [0]), /tokenizer/],
  ['tokenizer of a terabyte', entry('tokenizer', 'shape', [2 ** 40]), /tokenizer/],
  ['tokenizer shape text', entry('tokenizer', 'shape', '64'), /tokenizer/],
  [
    'tokenizer last',
    (h) => {
      const { tokenizer, ...rest } = h
      return { ...rest, tokenizer }
    },
    /out of order/,
  ],
  ['white space', (h) => JSON.stringify(h, null, 1), /canonical/],
  [
    'an escape without need',
    (h) => JSON.stringify(h).replace('Apache', '\\u0041pache'),
    /canonical/,
  ],
  [
    'a key twice',
    (h) => JSON.stringify(h).replace('"licence":', '"licence":"MIT","licence":'),
    /canonical/,
  ],
  [
    'a number as 1.0',
    (h) => JSON.stringify(h).replace('"shape":[128]', '"shape":[128.0]'),
    /canonical/,
  ],
  ['a byte order mark', (h) => `\ufeff${JSON.stringify(h)}`, /does not start/],
  ['bytes after the object', (h) => `${JSON.stringify(h)}x`, /not JSON/],
  ['deep nesting', () => `{"__metadata__":${'['.repeat(1e5)}${']'.repeat(1e5)}}`, /format|JSON/],
  ['an empty object', () => '{}', /format is absent/],
  [
    'a format that is no text',
    () => '{"__metadata__":{"format":{"toString":1}}}',
    /format is absent/,
  ],
  [
    'a size that is no number',
    (h) => void h.tokenizer.shape.splice(0, 1, { toString: 1 }),
    /tokenizer/,
  ],
]

for (const [name, change, message] of BROKEN) {
  test(`refused: ${name}`, () => refused(changed(change), message))
}

/** @type {[string, unknown, RegExp][]} */
const BAD_CONFIGS = [
  ['n_layer', 0, /n_layer/],
  ['n_layer', 1e9, /n_layer/],
  ['n_layer', 1.5, /n_layer.*integer/],
  ['n_layer', '1', /n_layer.*integer/],
  ['n_layer', null, /n_layer.*integer/],
  ['d_model', 33, /d_model/],
  ['d_model', -32, /d_model/],
  ['d_state', 7, /d_state/],
  ['headdim', 24, /headdim/],
  ['ngroups', 3, /ngroups/],
  ['d_conv', 5, /d_conv/],
  ['expand', 9, /expand/],
  ['vocab_size', 65, /vocab/],
  ['padded_vocab_size', 2 ** 31, /vocab/],
  ['tie_embeddings', 1, /tie_embeddings/],
  ['norm_eps', 0, /norm_eps/],
  ['norm_eps', null, /norm_eps/],
  ['dt_min', -1, /dt_min/],
  ['dt_max', 0, /dt_max/],
  ['dt_max', 'Infinity', /dt_max/],
  ['embedding_dtype', 'I4', /embedding_dtype/],
]

for (const [key, value, message] of BAD_CONFIGS) {
  test(`refused: config ${key} ${JSON.stringify(value)}`, async () => {
    const bytes = changed((h) => {
      const config = { ...JSON.parse(String(h.__metadata__.config)), [key]: value }
      h.__metadata__.config = JSON.stringify(config)
    })
    await refused(bytes, message)
  })
}

test('refused: config keys missing, too many, out of order, 1e400, -0', async () => {
  const config = String(JSON.parse(VALID_JSON).__metadata__.config)
  /** @type {[string, RegExp][]} */
  const rows = [
    [config.replace('"ngroups":1,', ''), /"ngroups" missing/],
    [config.replace('"ngroups":1,', '"ngroups":1,"x":1,'), /"x" not expected/],
    [config.replace('"n_layer":1,"d_model":32', '"d_model":32,"n_layer":1'), /out of order/],
    [config.replace('"dt_min":0', '"dt_min":-0'), /canonical/],
    [config.replace('"dt_max":null', '"dt_max":1e400'), /canonical/],
    [config.replace('"dt_min":0', '"dt_min":0.0'), /canonical/],
  ]
  for (const [text, message] of rows) {
    assert.notEqual(text, config)
    await refused(changed(meta('config', text)), message)
  }
})

test('refused: padding that is short, long or not spaces, and bad UTF-8', async () => {
  const longer = new Uint8Array(VALID.length + 64).fill(0x20)
  longer.set(VALID)
  new DataView(longer.buffer).setBigUint64(0, BigInt(longer.length - 8), true)
  await refused(longer, /canonical/)
  await refused(headerBytes(VALID_JSON, { padTo: 1 }), /multiple of 64/)
  const tabs = headerBytes(`${VALID_JSON}\t`)
  await refused(tabs, /canonical/)
  const invalid = VALID.slice()
  invalid[VALID.indexOf(0xc3)] = 0xff
  await refused(invalid, /UTF-8/)
})

test('headers of 8 MB that are made to be slow are refused within 5 s', async () => {
  const start = performance.now()
  const keys = Array.from({ length: 4e5 }, (_, i) => `"${i}a":0`).join()
  await refused(headerBytes(`{"__metadata__":{"format":"bimamba 1"},${keys}}`), /./)
  await refused(headerBytes(`{"__metadata__":{"format":"bimamba 1"${' '.repeat(8e6)}}}`), /./)
  await refused(headerBytes(`{${'['.repeat(8e6)}`), /./)
  assert(performance.now() - start < 5000, `${performance.now() - start} ms`)
})

test('wrong files are named', () => {
  /** @type {[string | Uint8Array, RegExp][]} */
  const rows = [
    ['', /empty/],
    ['<!DOCTYPE html><html>', /web page/],
    ['\n  <html lang="en">', /web page/],
    ['version https://git-lfs.github.com/spec/v1\noid sha256:', /git-lfs/],
    ['PK\x03\x04rest', /zip/],
    ['GGUF\x03', /GGUF/],
    [Uint8Array.of(0x80, 2, 0x8a), /pickle/],
    [Uint8Array.of(0x1f, 0x8b, 8), /gzip/],
    [headerBytes('{"__metadata__":{"format":"pt"}}'), /plain safetensors/],
    [headerBytes('{"__metadata__":{"format":"bimamba 9"}}'), /another format version/],
    [headerBytes('{"__metadata__":{"format":"bimamba 2"}}'), /no packed model/],
    ['{"a":1}', /JSON/],
    ['hello', /no packed model/],
  ]
  for (const [content, message] of rows) {
    const bytes = typeof content === 'string' ? Buffer.from(content, 'latin1') : content
    assert.match(describeWrongFile(bytes), message)
  }
})

test('the length check says what a wrong file looks like', () => {
  const page = Buffer.from('<!doctype html><html><body>Not found</body></html>')
  assert.throws(() => readHeaderLength(page), { code: 'format', message: /web page/ })
  assert.throws(() => readHeaderLength(Buffer.from('GGUF')), { code: 'format', message: /GGUF/ })
})
