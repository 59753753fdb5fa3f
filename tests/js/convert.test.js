/**
 * Conversion gives the right numbers: every packed tensor against its checkpoint tensor, for random models in every
 * container and dtype. What must be refused is in convert-refusals.test.js.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { openAsBlob } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { blobFolder } from '../../js/convert/index.js'
import { packCheckpoint } from '../../js/convert/pack.js'
import { Core } from '../../js/core.js'
import { CHUNK_BYTES, parseHeader } from '../../js/format.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { halfValue } from './support/float-codes.js'
import { memoryOutput, packFolder } from './support/memory-output.js'
import { seeded } from './support/seeded.js'
import { tempFolder } from './support/temp-folder.js'

/** @typedef {Awaited<ReturnType<typeof packFolder>>} Packed */
/** @typedef {Map<string, { shape: number[], values: Float32Array }>} Tensors */

const core = await Core.create()
const CONTAINERS = /** @type {const} */ (['safetensors', 'sharded', 'bin', 'bin-sharded'])
const DTYPES = /** @type {const} */ (['F32', 'F16', 'BF16'])
const EMBEDDINGS = /** @type {const} */ (['int8', 'f16', 'f32'])

/** @param {Tensors} tensors @param {string} name @returns {Float32Array} */
function valuesOf(tensors, name) {
  const found = tensors.get(name)
  assert(found, `the checkpoint has no ${name}`)
  return found.values
}

/** @param {Uint8Array} bytes */
const floats = (bytes) => new Float32Array(bytes.slice().buffer)

/**
 * @param {Packed} packed
 * @param {Tensors} tensors
 * @param {string} at message
 */
function checkAll({ header, tensor }, tensors, at) {
  checkTable(header, tensor, 'embedding', valuesOf(tensors, 'backbone.embedding.weight'), at)
  if (!header.config.tie_embeddings) {
    checkTable(header, tensor, 'head', valuesOf(tensors, 'lm_head.weight'), at)
  }
  assert.deepEqual(floats(tensor('norm_f.weight')), valuesOf(tensors, 'backbone.norm_f.weight'), at)
  for (let n = 0; n < header.config.n_layer; n++) {
    const layer = `backbone.layers.${n}`
    for (const [packed, name] of [
      ['norm.weight', 'norm.weight'],
      ['in_proj.alpha', 'mixer.in_proj.wscale'],
      ['in_proj.beta', 'mixer.in_proj.wbias'],
      ['conv.weight', 'mixer.conv1d.weight'],
      ['conv.bias', 'mixer.conv1d.bias'],
      ['dt_bias', 'mixer.dt_bias'],
      ['A_log', 'mixer.A_log'],
      ['D', 'mixer.D'],
      ['gate_norm.weight', 'mixer.norm.weight'],
      ['out_proj.alpha', 'mixer.out_proj.wscale'],
      ['out_proj.beta', 'mixer.out_proj.wbias'],
    ]) {
      const found = floats(tensor(`layers.${n}.${packed}`))
      assert.deepEqual(found, valuesOf(tensors, `${layer}.${name}`), `${at}: ${packed}`)
    }
    for (const linear of ['in_proj', 'out_proj']) {
      const bits = tensor(`layers.${n}.${linear}.sign`)
      const weights = valuesOf(tensors, `${layer}.mixer.${linear}.weight`)
      assert.equal(bits.length * 8, weights.length)
      const wrong = weights.findIndex(
        (w, i) => ((Number(bits[i >> 3]) >> (i & 7)) & 1) !== (w > 0 ? 1 : 0),
      )
      assert.equal(wrong, -1, `${at}: ${linear} weight ${wrong}`)
    }
  }
}

/**
 * @param {Packed['header']} header
 * @param {Packed['tensor']} tensor
 * @param {string} name
 * @param {Float32Array} values
 * @param {string} at
 */
function checkTable(header, tensor, name, values, at) {
  const { embedding_dtype: dtype, d_model: columns } = header.config
  const bytes = tensor(`${name}.weight`)
  if (dtype === 'F32') return assert.deepEqual(floats(bytes), values, at)
  if (dtype === 'F16') {
    const codes = new Uint16Array(bytes.buffer)
    return values.forEach((value, i) => {
      const error = Math.abs(halfValue(Number(codes[i])) - value)
      assert(error <= Math.max(2 ** -25, Math.abs(value) * 2 ** -11), `${at}: ${name} ${i}`)
    })
  }
  const codes = new Int8Array(bytes.buffer)
  const scales = floats(tensor(`${name}.scale`))
  for (const [row, scale] of scales.entries()) {
    const own = values.slice(row * columns, (row + 1) * columns)
    const most = own.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
    assert.equal(scale, Math.fround(most / 127), `${at}: ${name} row ${row}`)
    own.forEach((value, i) => {
      const code = Number(codes[row * columns + i])
      assert(Math.abs(value - scale * code) <= scale * 0.50001, `${at}: ${name} ${row},${i}`)
    })
  }
}

/** @param {ReturnType<typeof seeded>} r */
function randomConfig(r) {
  const headdim = [4, 8, 32, 64][r.below(4)] ?? 4
  return {
    n_layer: 1 + r.below(2),
    d_model: 32 * (1 + r.below(3)) * (headdim === 64 ? 2 : 1),
    d_state: 8 * (1 + r.below(8)),
    headdim,
    ngroups: 1 + r.below(2),
    d_conv: 2 + r.below(3),
    expand: 2,
    vocab_size: 1 + r.below(80),
    pad_vocab_size_multiple: [1, 8, 16][r.below(3)] ?? 1,
    tie_embeddings: r.below(2) === 0,
    norm_eps: r.below(2) ? 1e-5 : 1e-6,
    dt_min: r.below(2) ? 0 : 0.001,
    dt_max: r.below(2) ? null : 0.1,
  }
}

for (const container of CONTAINERS) {
  test(`every number arrives: random models from ${container}`, async (t) => {
    const dir = await tempFolder(t)
    for (let seed = 0; seed < 24; seed++) {
      const r = seeded(seed)
      const dtype = DTYPES[r.below(3)] ?? 'F32'
      const embedding = EMBEDDINGS[r.below(3)] ?? 'int8'
      const nest = container.startsWith('bin')
        ? [[], ['model'], ['state_dict', 'module']][r.below(3)]
        : []
      const prefix = ['', 'module.', '_orig_mod.', 'module._fsdp_wrapped_module.'][r.below(4)]
      const at = `seed ${seed}: ${container} ${dtype} ${embedding} ${nest} ${prefix}`
      const folder = join(dir, String(seed))
      const options = {
        config: randomConfig(r),
        seed,
        container,
        dtype,
        nest: nest ?? [],
        zip64: r.below(2) === 0,
      }
      const plain = await writeCheckpoint(folder, {
        ...options,
        prefix: prefix ?? '',
        tiedHead: r.below(2) === 0,
      })
      const packed = await packFolder(core, folder, { embedding })
      const { embedding_dtype: _, ...config } = packed.header.config
      assert.deepEqual(config, plain.config, at)
      checkAll(packed, plain.tensors, at)
    }
  })
}

test('all containers give the same bytes', async (t) => {
  const dir = await tempFolder(t)
  const hashes = new Set()
  for (const container of CONTAINERS) {
    await writeCheckpoint(join(dir, container), { container, seed: 5 })
    const { bytes } = await packFolder(core, join(dir, container), { source: 'same' })
    hashes.add(createHash('sha256').update(bytes).digest('hex'))
  }
  assert.equal(hashes.size, 1)
})

test('a page converts the same from Blobs', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { container: 'bin-sharded', seed: 6 })
  const names = await readdir(dir)
  const files = names.map(async (name) => new File([await openAsBlob(join(dir, name))], name))
  const output = memoryOutput()
  await packCheckpoint(core, blobFolder(await Promise.all(files)), output, { source: 's' })
  const { bytes } = await packFolder(core, dir, { source: 's' })
  assert.deepEqual(output.bytes(), bytes)
})

test('chunk hashes cover the data section, and any safetensors reader finds the tensors', async (t) => {
  const dir = await tempFolder(t)
  const config = { n_layer: 1, d_model: 64, vocab_size: 20000 }
  const { tensors } = await writeCheckpoint(dir, { config })
  const { bytes, header } = await packFolder(core, dir, { embedding: 'f32' })
  const data = bytes.subarray(header.dataOffset)
  assert.equal(header.chunkSha256.length, 64)
  for (let k = 0; k < 2; k++) {
    const chunk = data.subarray(k * CHUNK_BYTES, (k + 1) * CHUNK_BYTES)
    const wanted = createHash('sha256').update(chunk).digest()
    assert.deepEqual(Buffer.from(header.chunkSha256.subarray(32 * k, 32 * k + 32)), wanted)
  }
  const json = JSON.parse(Buffer.from(bytes.subarray(8, header.dataOffset)).toString())
  const [start, end] = json['norm_f.weight'].data_offsets
  assert.deepEqual(floats(data.subarray(start, end)), valuesOf(tensors, 'backbone.norm_f.weight'))
})

test('a packed model fills the engine, and is the same bytes every time', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { config: { ngroups: 2, tie_embeddings: false } })
  const first = await packFolder(core, dir)
  const second = await packFolder(core, dir)
  assert.deepEqual(first.bytes, second.bytes)
  const model = core.createModel(first.header.config, {})
  try {
    for (const { name, index } of first.header.tensors) {
      if (index >= 0) model.write(index, 0, first.tensor(name))
    }
    for (let part = 0; part < model.parts; part++) model.seal(part)
  } finally {
    model.close()
  }
})

test('the head is stored only when it differs from the embedding', async (t) => {
  const dir = await tempFolder(t)
  const HEAD = 'lm_head.weight'
  /** @type {[string, Parameters<typeof writeCheckpoint>[1], boolean][]} name, options, tied */
  const rows = [
    ['tied, duplicate', {}, true],
    ['tied, duplicate in another file', { container: 'sharded' }, true],
    ['tied, shared storage', { container: 'bin' }, true],
    ['tied, absent', { tiedHead: false }, true],
    ['untied', { config: { tie_embeddings: false } }, false],
    [
      'said to be untied, yet equal',
      {
        config: { tie_embeddings: false },
        edit: (all) => {
          const table = all.find((one) => one.name === 'backbone.embedding.weight')
          assert(table)
          return all.map((one) => (one.name === HEAD ? { ...table, name: HEAD } : one))
        },
      },
      true,
    ],
    [
      'said to be tied, yet one number differs',
      {
        edit: (all) =>
          all.map(({ sharedWith: _, ...one }) => ({
            ...one,
            values: () => {
              const values = one.values()
              if (one.name === HEAD) values[values.length - 1] = 0.25
              return values
            },
          })),
      },
      false,
    ],
  ]
  for (const [i, [name, options, tied]] of rows.entries()) {
    const folder = join(dir, String(i))
    const { tensors } = await writeCheckpoint(folder, options)
    const packed = await packFolder(core, folder, { embedding: 'f32' })
    assert.equal(packed.header.config.tie_embeddings, tied, name)
    checkAll(packed, tensors, name)
  }
})

test('a dense export gives back signs and scales', async (t) => {
  const dir = await tempFolder(t)
  for (const dtype of DTYPES) {
    const folder = join(dir, dtype)
    const { tensors } = await writeCheckpoint(folder, { projections: 'dense', dtype, seed: 3 })
    const { summary, tensor } = await packFolder(core, folder)
    assert(summary.dense)
    for (const linear of ['in_proj', 'out_proj']) {
      const wanted = valuesOf(tensors, `backbone.layers.1.mixer.${linear}.weight`)
      const bits = tensor(`layers.1.${linear}.sign`)
      const alpha = floats(tensor(`layers.1.${linear}.alpha`))
      const beta = floats(tensor(`layers.1.${linear}.beta`))
      wanted.forEach((value, i) => {
        const column = i % alpha.length
        const sign = (Number(bits[i >> 3]) >> (i & 7)) & 1 ? 1 : -1
        const found = sign * Number(alpha[column]) + Number(beta[column])
        assert(
          Math.abs(found - value) <= 2 ** -23 * (Math.abs(Number(alpha[column])) + Math.abs(value)),
          `${dtype} ${i}`,
        )
      })
    }
  }
})

test('a dense column of one value has alpha 0', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, {
    projections: 'dense',
    edit: (all) =>
      all.map((one) => ({
        ...one,
        values: () =>
          one.name.endsWith('0.mixer.in_proj.weight')
            ? one.values().map((value, i) => (i % 64 === 9 ? 0.125 : value))
            : one.values(),
      })),
  })
  const { tensor } = await packFolder(core, dir)
  assert.equal(floats(tensor('layers.0.in_proj.alpha'))[9], 0)
  assert.equal(floats(tensor('layers.0.in_proj.beta'))[9], 0.125)
})

test('exact zeros: a few become +1 and are counted, more only if allowed', async (t) => {
  const dir = await tempFolder(t)
  const zeros = (/** @type {number} */ count, /** @type {number} */ value) => ({
    edit: (/** @type {import('./support/checkpoint.js').MadeTensor[]} */ all) =>
      all.map((one) => ({
        ...one,
        values: () =>
          one.name.endsWith('1.mixer.out_proj.weight')
            ? one.values().map((old, i) => (i % 2 === 0 && i < 2 * count ? value : old))
            : one.values(),
      })),
  })
  const bitsOf = (/** @type {Packed} */ packed) => packed.tensor('layers.1.out_proj.sign')
  for (const [i, value] of [0, -0].entries()) {
    const folder = join(dir, `few${i}`)
    await writeCheckpoint(folder, zeros(16, value))
    const packed = await packFolder(core, folder)
    assert.deepEqual(packed.summary.zeros, [
      { name: 'backbone.layers.1.mixer.out_proj.weight', zeros: 16 },
    ])
    for (let k = 0; k < 4; k++) assert.equal(Number(bitsOf(packed)[k]) & 0x55, 0x55)
  }
  const many = join(dir, 'many')
  await writeCheckpoint(many, zeros(17, -0))
  const message = /1\.mixer\.out_proj\.weight has 17 exact zeros of 8192, at most 16/
  await assert.rejects(packFolder(core, many), { code: 'checkpoint', message })
  const packed = await packFolder(core, many, { zeros: 'plus' })
  assert.equal(packed.summary.zeros[0]?.zeros, 17)
})

test('signs come from the stored dtype: the smallest numbers have one', async (t) => {
  const dir = await tempFolder(t)
  for (const [dtype, least] of /** @type {const} */ ([
    ['F32', 2 ** -149],
    ['F16', 2 ** -24],
    ['BF16', 2 ** -133],
  ])) {
    const folder = join(dir, dtype)
    await writeCheckpoint(folder, {
      dtype,
      edit: (all) =>
        all.map((one) => ({
          ...one,
          values: () =>
            one.name.includes('proj.weight')
              ? one.values().map((value) => (value > 0 ? least : -least))
              : one.values(),
        })),
    })
    const small = await packFolder(core, folder)
    assert.deepEqual(small.summary.zeros, [])
    await writeCheckpoint(folder, { dtype })
    const plain = await packFolder(core, folder)
    for (const name of ['layers.0.in_proj.sign', 'layers.1.out_proj.sign']) {
      assert.deepEqual(small.tensor(name), plain.tensor(name), `${dtype} ${name}`)
    }
  }
})

test('progress runs from nothing to everything and never back', async (t) => {
  const dir = await tempFolder(t)
  for (const projections of /** @type {const} */ (['latent', 'dense'])) {
    await writeCheckpoint(join(dir, projections), { projections })
    let last = 0
    let whole = 0
    const onProgress = (/** @type {number} */ done, /** @type {number} */ total) => {
      assert(done > last && done <= total + 1e-6)
      last = done
      whole = total
    }
    await packFolder(core, join(dir, projections), { onProgress })
    assert(Math.abs(last - whole) < 1, `${last} of ${whole}`)
  }
})

test('the header tells source and licence', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'my-model'))
  const plain = await packFolder(core, join(dir, 'my-model'))
  assert.deepEqual([plain.header.source, plain.header.licence], ['my-model', 'unknown'])
  const { bytes } = await packFolder(core, join(dir, 'my-model'), {
    source: 'a\n"b"',
    licence: 'MIT',
  })
  const header = await parseHeader(bytes, core)
  assert.deepEqual([header.source, header.licence], ['a\n"b"', 'MIT'])
})
