/**
 * `bimamba export-gguf`: the files it writes, read back by an independent reader, and what it refuses.
 *
 * That llama.cpp computes the same with them is checked by `npm run bench:peers -- --check`, which needs llama.cpp.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { bytesSource, exportGguf } from '../../js/convert/index.js'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { readGguf } from './support/gguf-reader.js'
import { memoryOutput, packFolder } from './support/memory-output.js'
import {
  byteLevelTokenizer,
  sentencePieceTokenizer,
  vocabularySize,
} from './support/small-tokenizer.js'
import { tempFolder } from './support/temp-folder.js'

/** @typedef {import('../../js/convert/gguf-export.js').ExportOptions} ExportOptions */
/** @typedef {import('./support/checkpoint.js').CheckpointOptions} CheckpointOptions */
/** @typedef {import('./support/gguf-reader.js').ReadTensor} ReadTensor */
/** @typedef {{ after: (fn: () => Promise<void>) => void }} Context */

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))
const core = await Core.create()

/** Rows of 64 columns are no blocks of Q1_0, rows of 128 are. */
const CONFIG = { d_model: 64, ngroups: 2, tie_embeddings: false, vocab_size: 45 }

/**
 * @param {Context} t
 * @param {CheckpointOptions} [checkpoint]
 * @param {'int8' | 'f16' | 'f32'} [embedding]
 */
async function makeModel(t, checkpoint = {}, embedding = 'int8') {
  const folder = await tempFolder(t)
  const { tensors, config } = await writeCheckpoint(folder, { config: CONFIG, ...checkpoint })
  const packed = await packFolder(core, folder, { embedding, licence: 'MIT', source: 'a test' })
  const valuesOf = (/** @type {string} */ name) => {
    const found = tensors.get(`backbone.${name}`) ?? tensors.get(name)
    assert.ok(found, name)
    return found.values
  }
  return { ...packed, folder, valuesOf, sizes: config }
}

/** @param {Uint8Array} bytes @param {ExportOptions} [options] */
async function exported(bytes, options) {
  const [model, adapter] = [memoryOutput(), memoryOutput()]
  const outputs = { model: async () => model, adapter: async () => adapter }
  const summary = await exportGguf(core, bytesSource('m', bytes), outputs, options)
  assert.equal(model.bytes().length, summary.fileBytes)
  assert.equal(adapter.bytes().length, summary.adapterBytes)
  const loras = summary.adapterBytes ? readGguf(adapter.bytes()) : null
  return { ...readGguf(model.bytes()), adapter: loras, summary }
}

/** @param {Map<string, ReadTensor>} tensors @param {string} name @param {number[]} shape @param {number} [type] */
function tensor(tensors, name, shape, type = 0) {
  const found = tensors.get(name)
  assert.ok(found, name)
  assert.deepEqual([found.shape, found.type], [shape, type], name)
  return found.values
}

for (const [signs, types] of /** @type {const} */ ([
  ['q1_0', [2, 41]],
  ['f32', [0, 0]],
])) {
  test(`every tensor of a model, signs as ${signs}`, async (t) => {
    const { bytes, valuesOf } = await makeModel(t)
    const { tensors, adapter } = await exported(bytes, { signs })
    assert.ok(adapter)
    for (const layer of [0, 1]) {
      const at = (/** @type {string} */ name) => valuesOf(`layers.${layer}.mixer.${name}`)
      const blk = (/** @type {string} */ name) => `blk.${layer}.${name}`
      for (const [own, name, scale, norm, shape, type] of /** @type {const} */ ([
        ['in_proj', 'ssm_in', 'attn_norm', `layers.${layer}.norm.weight`, [64, 324], types[0]],
        [
          'out_proj',
          'ssm_out',
          'ssm_norm',
          `layers.${layer}.mixer.norm.weight`,
          [128, 64],
          types[1],
        ],
      ])) {
        const signOf = at(`${own}.weight`).map((w) => (w < 0 ? -1 : 1))
        assert.deepEqual(tensor(tensors, blk(`${name}.weight`), [...shape], type), signOf)
        const [alpha, beta] = [at(`${own}.wscale`), at(`${own}.wbias`)]
        const weight = valuesOf(norm)
        const folded = tensor(tensors, blk(`${scale}.weight`), own === 'in_proj' ? [64] : [64, 2])
        assert.deepEqual(
          folded,
          weight.map((w, i) => w * Number(alpha[i])),
        )
        const a = tensor(adapter.tensors, blk(`${name}.weight.lora_a`), [shape[0], 1])
        assert.deepEqual(
          a,
          beta.map((b, i) => b / Number(alpha[i])),
        )
        const b = tensor(adapter.tensors, blk(`${name}.weight.lora_b`), [1, shape[1]])
        assert.ok(b.every((one) => one === 1))
      }
      assert.deepEqual(tensor(tensors, blk('ssm_conv1d.weight'), [4, 192]), at('conv1d.weight'))
      assert.deepEqual(tensor(tensors, blk('ssm_conv1d.bias'), [192]), at('conv1d.bias'))
      assert.deepEqual(tensor(tensors, blk('ssm_dt.bias'), [4]), at('dt_bias'))
      assert.deepEqual(tensor(tensors, blk('ssm_d'), [1, 4]), at('D'))
      assert.deepEqual(
        tensor(tensors, blk('ssm_a'), [1, 4]),
        at('A_log').map((a) => -Math.exp(a)),
      )
    }
    assert.deepEqual(tensor(tensors, 'output_norm.weight', [64]), valuesOf('norm_f.weight'))
    assert.equal(tensors.size, 3 + 2 * 9)
    assert.equal(adapter.tensors.size, 2 * 4)
  })
}

test('embedding and head: padding left behind, int8 exact as f32 and within half precision as q8_0', async (t) => {
  const { bytes, tensor: packedTensor } = await makeModel(t)
  for (const [embedding, type, tolerance] of /** @type {const} */ ([
    ['f32', 0, 0],
    ['q8_0', 8, 2 ** -11],
  ])) {
    const { tensors, summary } = await exported(bytes, { embedding })
    for (const [own, name] of /** @type {const} */ ([
      ['embedding', 'token_embd.weight'],
      ['head', 'output.weight'],
    ])) {
      const found = tensor(tensors, name, [64, 45], type)
      const [codes, scales] = [packedTensor(`${own}.weight`), packedTensor(`${own}.scale`)]
      const view = new DataView(scales.buffer, scales.byteOffset)
      for (const [i, value] of found.entries()) {
        const scale = view.getFloat32(4 * Math.floor(i / 64), true)
        const wanted = Math.fround(((Number(codes[i]) << 24) >> 24) * scale)
        assert.ok(Math.abs(value - wanted) <= tolerance * Math.abs(wanted), `${name} ${i}`)
      }
    }
    assert.equal(summary.tableBytes, 2 * 45 * 64 * (type ? 34 / 32 : 4))
  }
  for (const own of /** @type {const} */ (['f16', 'f32'])) {
    const { bytes, valuesOf } = await makeModel(
      t,
      { dtype: 'F16', config: { vocab_size: 45 } },
      own,
    )
    const { tensors } = await exported(bytes)
    const wanted = valuesOf('embedding.weight').slice(0, 45 * 64)
    assert.deepEqual(tensor(tensors, 'token_embd.weight', [64, 45]), wanted)
    assert.ok(!tensors.has('output.weight'), 'a tied head is not written')
  }
})

test('metadata: sizes, names, and an adapter that says what it is', async (t) => {
  const { metadata, adapter } = await exported((await makeModel(t)).bytes)
  for (const [key, value] of /** @type {const} */ ([
    ['general.architecture', 'mamba2'],
    ['general.name', 'a test'],
    ['general.license', 'MIT'],
    ['mamba2.embedding_length', 64],
    ['mamba2.block_count', 2],
    ['mamba2.ssm.conv_kernel', 4],
    ['mamba2.ssm.inner_size', 128],
    ['mamba2.ssm.state_size', 16],
    ['mamba2.ssm.time_step_rank', 4],
    ['mamba2.ssm.group_count', 2],
    ['mamba2.attention.layer_norm_rms_epsilon', Math.fround(1e-5)],
  ])) {
    assert.equal(metadata.get(key), value, key)
  }
  assert.deepEqual(adapter && [...adapter.metadata], [
    ['general.architecture', 'mamba2'],
    ['general.type', 'adapter'],
    ['adapter.type', 'lora'],
    ['adapter.lora.alpha', 1],
  ])
})

test('without a beta there is no adapter', async (t) => {
  const { bytes } = await makeModel(t, {
    edit: (tensors) =>
      tensors.map((tensor) =>
        tensor.name.endsWith('.wbias')
          ? { ...tensor, values: () => tensor.values().fill(0) }
          : tensor,
      ),
  })
  const { adapter, summary } = await exported(bytes)
  assert.equal(adapter, null)
  assert.equal(summary.adapterBytes, 0)
})

/** @param {Context} t @param {object} tokenizer @param {number} vocab_size @param {Record<string, unknown>} ids */
async function tokens(t, tokenizer, vocab_size, ids) {
  const { bytes } = await makeModel(t, {
    config: { vocab_size },
    files: { 'tokenizer.json': JSON.stringify(tokenizer) },
    editConfig: (json) => ({ ...json, ...ids }),
  })
  const { metadata, summary } = await exported(bytes)
  const list = (/** @type {string} */ key) =>
    /** @type {unknown[]} */ (metadata.get(`tokenizer.ggml.${key}`))
  assert.equal(list('tokens').length, vocab_size)
  assert.equal(new Set(list('tokens')).size, vocab_size, 'every text once')
  return { metadata, list, summary }
}

test("a tokenizer of LLaMA's shape: scores in the order of the merges, types of tokens", async (t) => {
  const tokenizer = sentencePieceTokenizer()
  const size = vocabularySize(tokenizer) + 2
  const { metadata, list } = await tokens(t, tokenizer, size, { bos_token_id: 1, eos_token_id: 2 })
  assert.equal(metadata.get('tokenizer.ggml.model'), 'llama')
  assert.deepEqual(list('tokens').slice(0, 4), ['<unk>', '<s>', '</s>', '<0x00>'])
  assert.deepEqual(list('token_type').slice(0, 4), [2, 3, 3, 6])
  assert.deepEqual(list('token_type').slice(-3), [1, 5, 5])
  const merged = tokenizer.model.merges.map((pair) => /** @type {string[]} */ (pair).join(''))
  const scores = merged.map((text) => list('scores')[list('tokens').indexOf(text)])
  assert.deepEqual(
    scores,
    merged.map((_, rank) => 0 - rank),
  )
  assert.equal(Math.min(.../** @type {number[]} */ (list('scores'))), -merged.length)
  for (const [key, value] of /** @type {const} */ ([
    ['bos_token_id', 1],
    ['eos_token_id', 2],
    ['unknown_token_id', 0],
    ['add_bos_token', true],
    ['add_space_prefix', true],
  ])) {
    assert.equal(metadata.get(`tokenizer.ggml.${key}`), value, key)
  }
})

test('a byte-level tokenizer: merges as they are, special and added tokens', async (t) => {
  const tokenizer = byteLevelTokenizer()
  const size = vocabularySize(tokenizer)
  const ids = { eos_token_id: [0, size, size + 1] }
  const { metadata, list, summary } = await tokens(t, tokenizer, size + 2, ids)
  assert.equal(metadata.get('tokenizer.ggml.model'), 'gpt2')
  assert.equal(metadata.get('tokenizer.ggml.pre'), 'gpt-2')
  assert.deepEqual(list('merges'), tokenizer.model.merges)
  assert.deepEqual(list('token_type').slice(0, 2), [3, 1])
  assert.deepEqual(list('tokens').slice(size - 2, size), ['   ', '  '])
  assert.deepEqual(list('token_type').slice(size - 2), [4, 4, 5, 5])
  assert.equal(metadata.get('tokenizer.ggml.eot_token_id'), size)
  assert.match(summary.warnings.join(), /ends a text at 0 and \d+ only, not at \d+.*NFC/)
})

test('a model without a tokenizer gets a text for each token', async (t) => {
  const { metadata, summary } = await exported((await makeModel(t)).bytes)
  const texts = /** @type {string[]} */ (metadata.get('tokenizer.ggml.tokens'))
  assert.equal(texts.length, 45)
  assert.match(summary.warnings.join(), /no tokenizer/)
})

/** @param {Uint8Array} bytes @param {RegExp} message @param {string} code @param {ExportOptions} [options] */
async function refuses(bytes, message, code, options) {
  const outputs = {
    model: () => assert.fail('nothing is to be written'),
    adapter: () => assert.fail('nothing is to be written'),
  }
  await assert.rejects(exportGguf(core, bytesSource('m', bytes), outputs, options), {
    code,
    message,
  })
}

test('what llama.cpp would compute differently is refused before anything is written', async (t) => {
  const config = { dt_max: 0.25, dt_min: 0 }
  const limited = await makeModel(t, { config })
  await refuses(limited.bytes, /config dt_max is 0.25, want null/, 'unsupported')
  const dead = await makeModel(t, {
    edit: (tensors) =>
      tensors.map((tensor) =>
        tensor.name.endsWith('.wscale')
          ? { ...tensor, values: () => tensor.values().fill(0, 3, 4) }
          : tensor,
      ),
  })
  const name = /layers\.0\.in_proj\.beta divided by alpha is -?Infinity in column 3/
  await refuses(dead.bytes, name, 'unsupported')
  const half = await makeModel(t, {}, 'f16')
  const q8 = /** @type {const} */ ({ embedding: 'q8_0' })
  await refuses(half.bytes, /embedding: "q8_0", want f32 for a table of F16/, 'argument', q8)
})

test('a file that is no whole model is refused', async (t) => {
  const { bytes } = await makeModel(t)
  await refuses(bytes.subarray(0, bytes.length - 1), /m: .*truncated/, 'format')
  await refuses(new Uint8Array(5), /m: .*5 bytes/, 'format')
  const flipped = bytes.slice()
  flipped[bytes.length - 9] = 1 ^ Number(bytes.at(-9))
  await refuses(flipped, /m: chunk 0 .*damaged/, 'integrity')
})

/** @param {string[]} args */
function command(...args) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [MAIN, 'export-gguf', ...args], {
    encoding: 'utf8',
    timeout: 60000,
  })
  return { stdout, stderr, status }
}

test('the command writes both files, or none', async (t) => {
  const { bytes, folder } = await makeModel(t)
  const model = join(folder, 'm.safetensors')
  writeFileSync(model, bytes)
  const out = join(folder, 'm.gguf')
  const done = command(model, out)
  assert.equal(done.status, 0, done.stderr)
  assert.match(done.stdout, /m\.gguf: [\d.]+ kB\n {2}tensors {4}.*2 Q4_0 .*\n.*\n.*m\.lora\.gguf: /)
  assert.match(done.stderr, /warning: the model has no tokenizer/)
  assert.equal(readGguf(readFileSync(out)).tensors.get('blk.0.ssm_out.weight')?.type, 41)
  assert.equal(readGguf(readFileSync(join(folder, 'm.lora.gguf'))).tensors.size, 8)
  assert.equal(command('--signs', 'f32', model, out).status, 0)
  assert.equal(readGguf(readFileSync(out)).tensors.get('blk.0.ssm_out.weight')?.type, 0)
  const same = command(model, join(folder, '.', 'm.safetensors'))
  assert.equal(same.status, 2)
  assert.match(same.stderr, /is the model itself, want another name/)
  assert.deepEqual(new Uint8Array(readFileSync(model)), new Uint8Array(bytes))
  const listing = readdirSync(folder)
  writeFileSync(model, bytes.subarray(0, -1))
  const failed = command(model, join(folder, 'other.gguf'))
  assert.equal(failed.status, 1)
  assert.match(failed.stderr, /^bimamba: [^\n]*truncated[^\n]*\n$/)
  assert.deepEqual(readdirSync(folder), listing)
})

test('the command names what is wrong with its line', () => {
  for (const [args, message] of /** @type {const} */ ([
    [['m'], /needs MODEL and OUT\.gguf/],
    [['m', 'n', 'o'], /unexpected argument 'o'/],
    [['--signs', 'q2', 'm', 'n'], /--signs is 'q2', want q1_0, f32/],
    [['--embedding', 'f16', 'm', 'n'], /--embedding is 'f16', want f32, q8_0/],
  ])) {
    const { status, stderr } = command(...args)
    assert.equal(status, 2)
    assert.match(stderr, message)
  }
  assert.match(command('--help').stdout, /Usage: bimamba export-gguf/)
  assert.ok(!existsSync('n'))
})
