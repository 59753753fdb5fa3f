/**
 * Checkpoints that must not be converted: each is refused with an error that names what is wrong and where, before or
 * without anything of the input being run.
 */

import assert from 'node:assert/strict'
import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { safetensorsBytes } from './support/checkpoint-safetensors.js'
import { packFolder } from './support/memory-output.js'
import { PickleWriter, pickleStateDict } from './support/pickle-writer.js'
import { storedZip } from './support/stored-zip.js'
import { tempFolder } from './support/temp-folder.js'

/** @typedef {import('./support/checkpoint.js').MadeTensor} MadeTensor */
/** @typedef {import('./support/checkpoint.js').CheckpointOptions} CheckpointOptions */

const core = await Core.create()

/**
 * @param {{ after: (fn: () => Promise<void>) => void }} t
 * @param {CheckpointOptions} options
 * @param {RegExp} message
 * @param {(dir: string) => Promise<void>} [damage] done to the folder before it is read
 * @param {string} [code]
 */
async function refused(t, options, message, damage = async () => {}, code = 'checkpoint') {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { keep: false, ...options })
  await damage(dir)
  await assert.rejects(packFolder(core, dir), (error) => {
    assert(error instanceof Error)
    assert.equal(/** @type {Error & { code?: string }} */ (error).code, code, error.stack)
    assert.match(error.message, message)
    assert(error.message.length < 1500, `a message of ${error.message.length} characters`)
    return true
  })
}

/** @param {(tensor: MadeTensor) => MadeTensor | MadeTensor[] | null} change */
const each = (change) => (/** @type {MadeTensor[]} */ all) =>
  all.flatMap((one) => change(one) ?? [])

/** @param {string} name @param {object} change */
const alter = (name, change) => each((one) => (one.name === name ? { ...one, ...change } : one))

/** @param {number} index @param {number} value */
const withValue = (/** @type {MadeTensor} */ one, index, value) => ({
  ...one,
  values: () => {
    const values = one.values()
    values[index] = value
    return values
  },
})

const IN = 'backbone.layers.1.mixer.in_proj'

/** @type {[string, CheckpointOptions['edit'], RegExp][]} */
const TENSORS = [
  [
    'one missing',
    each((one) => (one.name === `${IN}.wbias` ? null : one)),
    /1 problem .*1\.mixer\.in_proj\.wbias is missing/,
  ],
  [
    'many missing',
    each((one) => (/D$|A_log|dt_bias|conv1d/.test(one.name) ? null : one)),
    /10 problems(.* is missing){6}; and 4 more/,
  ],
  [
    'one too many',
    each((one) =>
      one.name.endsWith('1.mixer.D')
        ? [one, { ...one, name: 'backbone.layers.1.mlp.fc1.weight' }]
        : one,
    ),
    /layers\.1\.mlp\.fc1\.weight is not expected/,
  ],
  [
    'a third layer',
    each((one) =>
      one.name.includes('layers.1.')
        ? [one, { ...one, name: one.name.replace('layers.1', 'layers.2') }]
        : one,
    ),
    /13 problems.*layers\.2.*not expected/,
  ],
  [
    'a wrong shape',
    alter(`${IN}.weight`, { shape: [64, 292] }),
    /in_proj\.weight is \[64, 292\], want \[292, 64\]/,
  ],
  [
    'a wrong rank',
    alter('backbone.layers.0.mixer.conv1d.weight', { shape: [160, 4] }),
    /conv1d\.weight is \[160, 4\], want \[160, 1, 4\]/,
  ],
  ['F64', alter('backbone.layers.0.mixer.D', { dtype: 'F64' }), /mixer\.D is F64, want F32/],
  [
    'I64',
    alter('backbone.norm_f.weight', { dtype: 'I64', values: () => new Float32Array(64) }),
    /norm_f\.weight is I64/,
  ],
  ['a head of F64', alter('lm_head.weight', { dtype: 'F64' }), /lm_head\.weight is F64/],
  [
    'a head of another shape',
    alter('lm_head.weight', { shape: [50, 64], values: () => new Float32Array(3200) }),
    /lm_head\.weight is \[50, 64\], want \[64, 64\]/,
  ],
  [
    'no embedding',
    each((one) => (one.name.includes('embedding') ? null : one)),
    /backbone\.embedding\.weight is missing/,
  ],
  [
    "pattern 'row'",
    each((one) =>
      /in_proj\.w(scale|bias)$/.test(one.name)
        ? { ...one, shape: [292, 1], values: () => new Float32Array(292) }
        : one,
    ),
    /wscale is \[292, 1\].*pattern 'row'/,
  ],
  [
    "pattern 'single'",
    each((one) =>
      /w(scale|bias)$/.test(one.name)
        ? { ...one, shape: [1], values: () => new Float32Array(1) }
        : one,
    ),
    /wscale is \[1\].*pattern 'single'/,
  ],
  [
    "pattern 'single', rank 0",
    each((one) =>
      /w(scale|bias)$/.test(one.name)
        ? { ...one, shape: [], values: () => new Float32Array(1) }
        : one,
    ),
    /wscale is \[\].*pattern 'single'/,
  ],
  [
    'other names',
    each((one) => ({ ...one, name: one.name.replace('backbone', 'model') })),
    /backbone\.embedding\.weight is missing/,
  ],
  [
    'NaN in a norm',
    each((one) => (one.name.endsWith('0.norm.weight') ? withValue(one, 5, Number.NaN) : one)),
    /layers\.0\.norm\.weight has NaN at element 5/,
  ],
  [
    'infinity in a scale',
    each((one) =>
      one.name === `${IN}.wscale` ? withValue(one, 63, -Number.POSITIVE_INFINITY) : one,
    ),
    /in_proj\.wscale has -Infinity at element 63/,
  ],
  [
    'NaN in latent weights',
    each((one) => (one.name === `${IN}.weight` ? withValue(one, 18687, Number.NaN) : one)),
    /in_proj\.weight has 1 NaN or infinite/,
  ],
  [
    'infinity in latent weights',
    each((one) =>
      one.name === `${IN}.weight` ? withValue(one, 0, Number.POSITIVE_INFINITY) : one,
    ),
    /in_proj\.weight has 1 NaN or infinite/,
  ],
  [
    'NaN in the embedding',
    each((one) => (one.name.includes('embedding') ? withValue(one, 4095, Number.NaN) : one)),
    /embedding\.weight has NaN at element 4095/,
  ],
  [
    'NaN everywhere',
    each((one) => ({ ...one, values: () => one.values().fill(Number.NaN) })),
    /(has .*){5}/,
  ],
]

for (const [name, edit, message] of TENSORS) {
  test(`refused tensors: ${name}`, (t) => refused(t, { edit: edit ?? ((all) => all) }, message))
}

test('refused: an embedding too large for f16', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, {
    edit: each((one) => (one.name.includes('embedding') ? withValue(one, 7, -65520) : one)),
    tiedHead: false,
  })
  await assert.rejects(packFolder(core, dir, { embedding: 'f16' }), {
    code: 'checkpoint',
    message: /-65520 at element 7, too large/,
  })
  await packFolder(core, dir, { embedding: 'int8' })
})

/** @param {object} change @param {object} [ssm] */
const config =
  (change, ssm = {}) =>
  (/** @type {any} */ json) => ({ ...json, ...change, ssm_cfg: { ...json.ssm_cfg, ...ssm } })

/** @type {[string, (json: any) => unknown, RegExp, string?][]} */
const CONFIGS = [
  ['no JSON', () => '{"d_model": ', /config\.json: not a JSON object/],
  ['a list', () => '[]', /config\.json: not a JSON object/],
  ['a web page', () => '<!DOCTYPE html>', /config\.json: not a JSON object/],
  ['Mamba1', (json) => ({ ...json, ssm_cfg: {} }), /ssm_cfg\.layer is missing.*Mamba1/],
  ['no ssm_cfg', ({ ssm_cfg: _, ...json }) => json, /ssm_cfg\.layer is missing/],
  ['Mamba1 said', config({}, { layer: 'Mamba1' }), /ssm_cfg\.layer is "Mamba1"/],
  ['attention layers', config({ attn_layer_idx: [3] }), /attn_layer_idx is \[3\]/],
  ['an MLP', config({ d_intermediate: 128 }), /d_intermediate is 128/],
  ['LayerNorm', config({ rms_norm: false }), /rms_norm is false/],
  ['norm before gate', config({}, { norm_before_gate: true }), /norm_before_gate is true/],
  ['no gate norm', config({}, { rmsnorm: false }), /ssm_cfg\.rmsnorm is false/],
  ['D per channel', config({}, { D_has_hdim: true }), /D_has_hdim is true/],
  ['biases', config({}, { bias: true }), /ssm_cfg\.bias is true/],
  ['conv without bias', config({}, { conv_bias: false }), /conv_bias is false/],
  ['a partial SSM', config({}, { d_ssm: 64 }), /d_ssm is 64, want 128/],
  [
    'an unknown option',
    config({}, { learnable_init_states: true }),
    /learnable_init_states.*unknown/,
  ],
  ['rows scaled', config({ scaling_pattern: 'row' }), /scaling_pattern is "row"/],
  ['one scale', config({}, { scaling_pattern: 'single' }), /scaling_pattern is "single"/],
  ['no d_model', ({ d_model: _, ...json }) => json, /d_model is missing/],
  [
    "another library's names",
    ({ d_model: _, ...json }) => ({ ...json, hidden_size: 64 }),
    /hidden_size is 64.*d_model/,
  ],
  ['d_model as text', config({ d_model: '64' }), /d_model is "64", want a positive integer/],
  ['n_layer 0', config({ n_layer: 0 }), /n_layer is 0/],
  ['n_layer 1e9', config({ n_layer: 1e9 }), /n_layer/, 'config'],
  ['d_model 1e15', config({ d_model: 1e15 }), /d_model/, 'config'],
  ['an odd d_model', config({ d_model: 63 }), /d_model/, 'config'],
  ['a huge padding', config({ pad_vocab_size_multiple: 2 ** 52 }), /vocab/, 'config'],
  ['dt_limit of three', config({}, { dt_limit: [0, 1, 2] }), /dt_limit/],
  ['dt_limit as text', config({}, { dt_limit: '0,inf' }), /dt_limit/],
  ['dt_limit upside down', config({}, { dt_limit: [1, 0.5] }), /dt_m/, 'config'],
  ['tie_embeddings as text', config({ tie_embeddings: 'yes' }), /tie_embeddings is "yes"/],
  ['epsilon 0', config({ norm_epsilon: 0 }), /norm_eps/, 'config'],
  [
    'another vocabulary',
    config({ vocab_size: 99 }),
    /embedding\.weight is \[64, 64\], want \[112, 64\]/,
  ],
  [
    'another d_state',
    config({}, { d_state: 32 }),
    /in_proj\.weight is \[292, 64\], want \[324, 64\]/,
  ],
]

for (const [name, editConfig, message, code] of CONFIGS) {
  test(`refused config: ${name}`, (t) => refused(t, { editConfig }, message, undefined, code))
}

test('refused: no config.json, or one of 2 MB', async (t) => {
  await refused(t, {}, /has no config\.json/, (dir) => rm(join(dir, 'config.json')))
  await refused(
    t,
    { editConfig: (json) => ({ ...json, x: 'x'.repeat(2e6) }) },
    /config\.json: 2000\d+ bytes/,
  )
})

test('a config as Python writes it: Infinity, NaN, and defaults for what is left out', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, {
    config: { d_state: 128, headdim: 64, d_model: 64, vocab_size: 64, pad_vocab_size_multiple: 8 },
    editConfig: (
      json,
    ) => `{"d_model": 64, "n_layer": 2, "vocab_size": 64, "note": "Infinity \\" NaN", "x": NaN,
      "ssm_cfg": {"layer": "Mamba2", "dt_limit": [0.0, Infinity], "chunk_size": 64, "A_init_range": [1, 16]}, "y": ${JSON.stringify(json.d_model)}}`,
  })
  const { header } = await packFolder(core, dir)
  const { d_state, headdim, ngroups, d_conv, expand, norm_eps, dt_min, dt_max } = header.config
  assert.deepEqual(
    [d_state, headdim, ngroups, d_conv, expand, norm_eps, dt_min, dt_max],
    [128, 64, 1, 4, 2, 1e-5, 0, null],
  )
})

/** @param {string} file @param {unknown} content */
const write = (file, content) => (/** @type {string} */ dir) =>
  writeFile(join(dir, file), content instanceof Uint8Array ? content : JSON.stringify(content))

/** @type {[string, CheckpointOptions, (dir: string) => Promise<void>, RegExp][]} */
const FOLDERS = [
  ['no weights', {}, (dir) => rm(join(dir, 'model.safetensors')), /holds no weights/],
  [
    'only an optimizer',
    {},
    (dir) => rename(join(dir, 'model.safetensors'), join(dir, 'optimizer.bin')),
    /holds no weights/,
  ],
  [
    'an index that climbs out',
    {},
    write('model.safetensors.index.json', { weight_map: { w: '../../etc/passwd' } }),
    /"\.\.\/\.\.\/etc\/passwd", which is no file/,
  ],
  [
    'an index with an absolute path',
    {},
    write('model.safetensors.index.json', { weight_map: { w: '/etc/passwd' } }),
    /"\/etc\/passwd", which is no file/,
  ],
  [
    'an index with a number',
    {},
    write('model.safetensors.index.json', { weight_map: { w: 7 } }),
    /names 7/,
  ],
  [
    'an index with __proto__',
    {},
    write('model.safetensors.index.json', Buffer.from('{"weight_map":{"__proto__":"x"}}')),
    /"x", which is no file/,
  ],
  ['an index without a map', {}, write('model.safetensors.index.json', {}), /weight_map/],
  [
    'an index that is a web page',
    {},
    write('model.safetensors.index.json', Buffer.from('<html>')),
    /not a JSON object/,
  ],
  [
    'a shard missing',
    { container: 'sharded' },
    (dir) => rm(join(dir, 'model-00002-of-00002.safetensors')),
    /"model-00002-of-00002\.safetensors", which is no file/,
  ],
  [
    'a .bin shard missing',
    { container: 'bin-sharded' },
    (dir) => rm(join(dir, 'pytorch_model-00001-of-00002.bin')),
    /"pytorch_model-00001-of-00002\.bin", which is no file/,
  ],
  [
    'a tensor in two shards',
    { container: 'bin' },
    async (dir) => {
      const bytes = storedZip([
        {
          name: 'x/data.pkl',
          bytes: pickleStateDict([
            {
              name: 'backbone.norm_f.weight',
              dtype: 'F32',
              shape: [1],
              storage: '0',
              storageLength: 1,
            },
          ]),
        },
        { name: 'x/data/0', bytes: new Uint8Array(4) },
      ])
      await writeFile(join(dir, 'pytorch_model_2.bin'), bytes)
      await rename(join(dir, 'pytorch_model.bin'), join(dir, 'pytorch_model_1.bin'))
    },
    /backbone\.norm_f\.weight is there twice: in pytorch_model_1.bin.* and in pytorch_model_2\.bin/,
  ],
  [
    'a web page as safetensors',
    {},
    write('model.safetensors', Buffer.from('<!DOCTYPE html><html><title>404</title>')),
    /web page/,
  ],
  [
    'a git-lfs pointer',
    {},
    write(
      'model.safetensors',
      Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n'),
    ),
    /git-lfs/,
  ],
  [
    'a git-lfs pointer as .bin',
    { container: 'bin' },
    write(
      'pytorch_model.bin',
      Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n'),
    ),
    /git-lfs/,
  ],
  [
    'an empty .bin',
    { container: 'bin' },
    write('pytorch_model.bin', new Uint8Array(0)),
    /empty file/,
  ],
  [
    'an old torch.save',
    { container: 'bin' },
    write('pytorch_model.bin', Uint8Array.of(0x80, 2, 0x8a, 10, 0x6c, 0xfc)),
    /old torch\.save pickle/,
  ],
  [
    'a packed model as checkpoint',
    {},
    write('model.safetensors', safetensorsBytes('{"__metadata__":{"format":"bimamba 1"}}')),
    /packed model already/,
  ],
]

for (const [name, options, damage, message] of FOLDERS) {
  test(`refused folder: ${name}`, (t) => refused(t, options, message, damage))
}

/** @param {Uint8Array} pickle @param {import('./support/stored-zip.js').ZipEntry[]} [more] */
const torchFile =
  (pickle, more = []) =>
  (/** @type {string} */ dir) =>
    writeFile(
      join(dir, 'pytorch_model.bin'),
      storedZip([{ name: 'a/data.pkl', bytes: pickle }, ...more]),
    )

const evil = new PickleWriter()
  .global('posix', 'system')
  .text('touch /tmp/owned')
  .raw('\x85R')
  .bytes()
const one = { name: 'w', dtype: 'F32', shape: [2], storage: '0', storageLength: 2 }

/** @type {[string, (dir: string) => Promise<void>, RegExp][]} */
const TORCH_FILES = [
  ['an evil pickle', torchFile(evil), /"posix\.system", which is not on the list/],
  [
    'two pickles',
    torchFile(pickleStateDict([one]), [{ name: 'b/data.pkl', bytes: evil }]),
    /2 entries/,
  ],
  [
    'no pickle',
    (dir) =>
      writeFile(
        join(dir, 'pytorch_model.bin'),
        storedZip([{ name: 'a/version', bytes: new Uint8Array(1) }]),
      ),
    /0 entries/,
  ],
  ['a pickle of a number', torchFile(new PickleWriter().int(3).bytes()), /no dict of tensors/],
  ['a dict without tensors', torchFile(new PickleWriter().raw('}').bytes()), /no dict of tensors/],
  [
    'a storage that is missing',
    torchFile(pickleStateDict([one])),
    /w: no entry for its storage, want 8 bytes/,
  ],
  [
    'a storage that is short',
    torchFile(pickleStateDict([one]), [{ name: 'a/data/0', bytes: new Uint8Array(7) }]),
    /w: 7 bytes for its storage, want 8/,
  ],
  [
    'a storage outside',
    torchFile(pickleStateDict([{ ...one, storage: '../../x' }])),
    /no entry for its storage/,
  ],
  [
    'big-endian numbers',
    torchFile(pickleStateDict([one]), [{ name: 'a/byteorder', bytes: Buffer.from('big') }]),
    /big-endian/,
  ],
  [
    'nests without end',
    torchFile(pickleStateDict([one], { nest: ['model', 'model', 'model', 'model', 'model'] })),
    /no dict of tensors/,
  ],
]

for (const [name, damage, message] of TORCH_FILES) {
  test(`refused .bin: ${name}`, (t) => refused(t, { container: 'bin' }, message, damage))
}

test('a damaged byte in a .bin storage is noticed', async (t) => {
  const { readFile } = await import('node:fs/promises')
  await refused(t, { container: 'bin' }, /CRC/, async (dir) => {
    const path = join(dir, 'pytorch_model.bin')
    const bytes = await readFile(path)
    const at = bytes.length >> 1
    bytes[at] = Number(bytes[at]) ^ 1
    await writeFile(path, bytes)
  })
})

test('a checkpoint file cut anywhere is refused', async (t) => {
  const { readFile, truncate } = await import('node:fs/promises')
  for (const container of /** @type {const} */ (['safetensors', 'bin'])) {
    const dir = await tempFolder(t)
    await writeCheckpoint(dir, { container, config: { n_layer: 1, d_model: 32 } })
    const path = join(dir, container === 'bin' ? 'pytorch_model.bin' : 'model.safetensors')
    const { length } = await readFile(path)
    for (let end = length - 1; end > 0; end -= 1 + Math.floor(length / 150)) {
      await truncate(path, end)
      await assert.rejects(
        packFolder(core, dir),
        { code: 'checkpoint' },
        `${container} cut at ${end}`,
      )
    }
  }
})
