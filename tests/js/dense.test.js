/**
 * Dense projections: full-precision Mamba-2 checkpoints, from the converter to sessions.
 *
 * Owns what is stored of them (16 bits, int8, 4 bits), that the engine computes what the file says, and what is refused.
 * Kernels, splits and threads to the bit are the C tests'.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { bytesSource, exportGguf } from '../../js/convert/index.js'
import { quantizeGroups } from '../../js/convert/weight-codes.js'
import { Core } from '../../js/core.js'
import { chooseDevice } from '../../js/device-choice.js'
import { encodeHeader, parseHeader } from '../../js/format.js'
import { BiMamba } from '../../js/index.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { collect } from './support/collect.js'
import { logitError } from './support/divergence.js'
import { packFolder } from './support/memory-output.js'
import { openPacked, pack } from './support/packed-engine.js'
import { DENSE, tokensOf, writeCase } from './support/reference-cases.js'
import { findPython, runReference } from './support/reference-run.js'
import { tempFolder } from './support/temp-folder.js'
import { tinyModel } from './support/tiny-model.js'
import { TOLERANCES } from './support/tolerances.js'

const core = await Core.create()
const FORMS = /** @type {const} */ (['f16', 'int8', 'int4'])
const DTYPES = { f16: 'F16', int8: 'I8', int4: 'I4' }
/** Half a unit of what a weight is stored with, of the largest weight that shares its scale. */
const ROUNDING = { f16: 2 ** -11, int8: 0.5 / 127, int4: 1 / 8 }

/** As the `state-spaces` checkpoints are: no wscale, a vocabulary that is padded to 16, one .bin. */
const STATE_SPACES = /** @type {const} */ ({
  projections: 'full',
  container: 'bin',
  config: { d_model: 160, headdim: 64, vocab_size: 277 },
})

/** @param {Awaited<ReturnType<typeof packFolder>>} packed @param {string} at @param {number} columns */
function weightsOf({ tensor, header }, at, columns) {
  const bytes = tensor(`${at}.weight`)
  const form = header.config.projection_dtype
  if (form === 'F16') {
    const halves = new Uint16Array(bytes.buffer)
    return Float64Array.from(halves, (h) => {
      const [exponent, fraction] = [(h >> 10) & 31, h & 1023]
      const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24
      return h & 0x8000 ? -size : size
    })
  }
  const scales = new Float32Array(tensor(`${at}.scale`).buffer)
  if (form === 'I8') {
    return Float64Array.from(
      new Int8Array(bytes.buffer),
      (q, i) => q * Number(scales[Math.floor(i / columns)]),
    )
  }
  const groups = Math.ceil(columns / 128)
  const words = new Uint16Array(bytes.buffer)
  return Float64Array.from({ length: bytes.length * 2 }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns]
    const word = (row * columns + (column & ~31)) / 4 + (column & 7)
    const nibble = (Number(words[word]) >> ((column & 24) >> 1)) & 15
    return (nibble > 7 ? nibble - 16 : nibble) * Number(scales[row * groups + (column >> 7)])
  })
}

for (const projections of FORMS) {
  test(`${projections}: every weight of a full-precision checkpoint within its rounding`, async (t) => {
    const dir = await tempFolder(t)
    const { tensors } = await writeCheckpoint(dir, STATE_SPACES)
    const packed = await packFolder(core, dir, { projections })
    assert.equal(packed.header.config.projection_dtype, DTYPES[projections])
    assert.equal(packed.header.config.padded_vocab_size, 288)
    for (const linear of ['in_proj', 'out_proj']) {
      const found = tensors.get(`backbone.layers.1.mixer.${linear}.weight`)
      assert(found)
      const { values, shape } = found
      const columns = Number(shape[1])
      const stored = weightsOf(packed, `layers.1.${linear}`, columns)
      assert.equal(stored.length, values.length)
      const group = projections === 'int4' ? 128 : columns
      stored.forEach((value, i) => {
        const start = i - (i % columns) + Math.floor((i % columns) / group) * group
        const end = Math.min(start + group, i - (i % columns) + columns)
        const row = values.subarray(start, end)
        const most =
          projections === 'f16' ? Math.abs(Number(values[i])) : Math.max(...row.map(Math.abs))
        const bound = ROUNDING[projections] * most * 1.001 + 2 ** -25
        assert(Math.abs(value - Number(values[i])) <= bound, `${linear} ${i}: ${value}`)
      })
    }
  })
}

test('int8 is what a full-precision checkpoint becomes without a word', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, STATE_SPACES)
  const chosen = await packFolder(core, dir, { projections: 'int8', source: 'a' })
  const auto = await packFolder(core, dir, { source: 'a' })
  assert.deepEqual(auto.bytes, chosen.bytes)
  assert.equal(auto.summary.dense, false)
})

test('a dense export becomes signs, or what is asked for', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { projections: 'dense' })
  assert.equal((await packFolder(core, dir)).header.config.projection_dtype, undefined)
  const packed = await packFolder(core, dir, { projections: 'f16' })
  assert.equal(packed.header.config.projection_dtype, 'F16')
})

test('codes of 4 bits: the largest magnitude is -8, zeros stay, a short last group has its own scale', () => {
  const values = new Float32Array(160)
  values[3] = 2
  values[20] = -1
  values[140] = -4
  const { codes, scales } = quantizeGroups(values, 160)
  assert.deepEqual([...scales], [-0.25, 0.5])
  const words = new Uint16Array(codes.buffer)
  assert.deepEqual(
    [...words.subarray(0, 8)],
    [0, 0, 0, 0x0008, 0x0400, 0, 0, 0],
    'columns 3 and 20',
  )
  assert.deepEqual([...words.subarray(32)], [0, 0, 0, 0, 0x0080, 0, 0, 0], 'column 140')
})

test('exact computes what the file says, as the reference reads it', async (t) => {
  const python = findPython()
  if (!python) return t.skip('needs python3 with numpy')
  const dir = await tempFolder(t)
  const folder = join(dir, 'case')
  await writeCase(folder, DENSE, { dtype: 'F32' })
  const tokens = tokensOf(DENSE, 60)
  const paths = []
  for (const projections of FORMS) {
    paths.push(await pack(core, folder, { embedding: 'f32', projections }))
  }
  const results = await runReference(
    python,
    dir,
    [...paths, folder].map((model) => ({ model, tokens })),
  )
  const full = results[FORMS.length]
  for (const [i, path] of paths.entries()) {
    const want = results[i]
    assert(want && full)
    const { model } = await openPacked(core, path)
    const session = model.createSession({ precision: 'exact', state: 'f32', maxChunk: 60 })
    session.append(tokens)
    const n = want.vocabSize
    /** @param {typeof want} reference @returns {number} the worst of all positions */
    const worst = (reference) =>
      Math.max(
        ...tokens.map((_, at) => {
          const row = reference.logits.slice(at * n, (at + 1) * n)
          return logitError(session.logits(at), row, reference.maxLogit)
        }),
      )
    assert(worst(want) <= TOLERANCES.exact.limit, `${FORMS[i]}: ${worst(want)}`)
    t.diagnostic(`${FORMS[i]}: ${worst(full).toExponential(1)} from the checkpoint`)
    session.close()
    model.close()
  }
})

for (const projections of FORMS) {
  test(`${projections}: threads, snapshots, rewinds and saved sessions`, async () => {
    const path = await tinyModel({ projections })
    const one = await BiMamba.load(path, { threads: 1 })
    const two = await BiMamba.load(path, { threads: 2 })
    try {
      const options = { maxTokens: 40, temperature: 0.8, seed: 3 }
      const prompt = Array.from({ length: 30 }, (_, i) => 3 + (i % 7))
      const wanted = await collect(one.generateIds(prompt, options))
      assert.deepEqual(await collect(two.generateIds(prompt, options)), wanted)
      const session = await two.createSession()
      await session.append(prompt)
      const snapshot = await session.snapshot()
      const saved = await session.save()
      const write = async (/** @type {import('../../js/index.js').Session} */ s) =>
        (await collect(s.generateTokens({ ...options, maxTokens: 12 }))).map(({ id }) => id)
      const first = await write(session)
      await session.restore(snapshot)
      assert.deepEqual(await write(session), first, 'after a restore')
      await session.rewind(prompt.length)
      assert.deepEqual(await write(session), first, 'after a rewind')
      assert.deepEqual(await write(await one.loadSession(saved)), first, 'saved')
    } finally {
      await one.close()
      await two.close()
    }
  })
}

/** @param {Promise<unknown>} promise @param {string} code @param {RegExp} message */
async function refused(promise, code, message) {
  await assert.rejects(promise, (error) => {
    assert.equal(/** @type {{ code?: string }} */ (error).code, code, String(error))
    assert.match(/** @type {Error} */ (error).message, message)
    return true
  })
}

test('refused: dense projections of a 1-bit checkpoint, a third value, and words nobody knows', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, {})
  await refused(packFolder(core, dir, { projections: 'int8' }), 'argument', /int8.*1-bit.*wscale/)
  const wrong = /** @type {'int8'} */ ('int3')
  await refused(packFolder(core, dir, { projections: wrong }), 'argument', /want auto, f16, int8/)
  const mixed = await tempFolder(t)
  await writeCheckpoint(mixed, {
    projections: 'dense',
    edit: (all) =>
      all.map((one) =>
        one.name.endsWith('1.mixer.in_proj.weight')
          ? { ...one, values: () => one.values().map((v, i) => v + (i < 200 ? 0.01 * i : 0)) }
          : one,
      ),
  })
  await refused(
    packFolder(core, mixed),
    'checkpoint',
    /column 0 holds more than two values.*not 1-bit/,
  )
})

test('refused: weights too large for 16 bits, NaN, a misshapen projection', async (t) => {
  const dir = await tempFolder(t)
  const edits = /** @type {[string, (v: Float32Array) => Float32Array, RegExp][]} */ ([
    ['f16', (v) => v.fill(1e6, 0, 1), /too large for f16/],
    ['int4', (v) => v.fill(Number.NaN, 5, 6), /NaN at element 5/],
    ['int8', (v) => v.subarray(0, 160 * 100), /want \[/],
  ])
  for (const [i, [projections, change, message]] of edits.entries()) {
    const folder = join(dir, String(i))
    await writeCheckpoint(folder, {
      ...STATE_SPACES,
      container: 'safetensors',
      edit: (all) =>
        all.map((one) =>
          one.name.endsWith('0.mixer.in_proj.weight')
            ? {
                ...one,
                shape: projections === 'int8' ? [100, 160] : one.shape,
                values: () => change(one.values()),
              }
            : one,
        ),
    })
    const form = /** @type {'int8'} */ (projections)
    await refused(packFolder(core, folder, { projections: form }), 'checkpoint', message)
  }
})

test('refused: more weights than a model may have, before any is read; what fits is said', async (t) => {
  const dir = await tempFolder(t)
  const sizes = { d_model: 2560, n_layer: 64, vocab_size: 50277 }
  await writeCheckpoint(dir, {
    ...STATE_SPACES,
    keep: false,
    editConfig: (json) => ({ ...json, ...sizes }),
  })
  const large = (/** @type {'f16' | 'int8'} */ projections) =>
    packFolder(core, dir, { projections })
  const fits = /projections that fit: int4 \(1613 MB\)$/
  await refused(large('int8'), 'config', /weights would take 2676 MB, .* room for 2131 MB/)
  await refused(large('f16'), 'config', fits)
  const { config } = await parseHeader(
    await readFile(await tinyModel({ projections: 'f16' })),
    core,
  )
  const huge = { ...config, ...sizes, padded_vocab_size: 50288 }
  assert.throws(() => core.createModel(huge), {
    code: 'memory',
    message: /weights take \d+ MB, and/,
  })
})

test('refused headers: another dtype or scale shape, a dense key in format 1, none in format 2', async () => {
  const path = await tinyModel({ projections: 'int4' })
  const bytes = await readFile(path)
  const header = await parseHeader(bytes, core)
  assert.deepEqual(
    encodeHeader({
      ...header,
      tensors: core.tensors(header.config),
      tokenizerBytes: tokenizerOf(header),
    }),
    new Uint8Array(bytes.subarray(0, header.dataOffset)),
  )
  const text = bytes.subarray(8, header.dataOffset).toString().trimEnd()
  const dense = '\\"projection_dtype\\":\\"I4\\"'
  assert(text.includes(dense))
  const edits = /** @type {[string, string, RegExp][]} */ ([
    [dense, dense.replace('I4', 'I2'), /projection_dtype: "I2", want "I4", "I8" or "F16"/],
    [
      dense,
      '\\"projection_dtype\\":[\\"I4\\"]',
      /projection_dtype: \["I4"\], want "I4", "I8" or "F16"/,
    ],
    [
      dense,
      dense.replace('I4', 'I8'),
      /in_proj.weight.*dtype|dtype.*in_proj.weight|in_proj.weight/,
    ],
    [`,${dense}`, '', /"projection_dtype" missing/],
    ['bimamba 2', 'bimamba 1', /projection_dtype/],
    ['bimamba 2', 'bimamba 3', /"bimamba 3", want "bimamba 1" or "bimamba 2".*convert again/],
    [
      '"layers.0.in_proj.scale":{"dtype":"F32","shape":[',
      '"layers.0.in_proj.scale":{"dtype":"F32","shape":[1',
      /in_proj.scale/,
    ],
  ])
  for (const [from, to, message] of edits) {
    const changed = text.replaceAll(from, to)
    assert.notEqual(changed, text)
    const size = Math.ceil((8 + Buffer.byteLength(changed)) / 64) * 64
    const file = Buffer.alloc(size, 0x20)
    file.writeBigUInt64LE(BigInt(size - 8))
    file.write(changed, 8)
    await refused(parseHeader(file, core), 'format', message)
  }
})

/** @param {import('../../js/format.js').PackedHeader} header */
function tokenizerOf({ tensors }) {
  return tensors.find(({ name }) => name === 'tokenizer')?.sizeBytes ?? 0
}

test('refused: the GPU, and an export to llama.cpp', async () => {
  const path = await tinyModel({ projections: 'int8' })
  const bytes = await readFile(path)
  const { config } = await parseHeader(bytes, core)
  const options = /** @type {const} */ ({ state: 'f32', head: 'file' })
  const why = /it computes 1-bit projections only, and this model's are dense \(I8\)/
  await refused(chooseDevice(core, config, { device: 'webgpu', ...options }), 'unsupported', why)
  const { device, note } = await chooseDevice(core, config, { device: 'auto', ...options })
  assert.equal(device, null)
  assert.match(String(note), why)
  const never = async () => assert.fail('an output was opened')
  const outputs = { model: never, adapter: never }
  await refused(exportGguf(core, bytesSource('m', bytes), outputs), 'unsupported', /dense \(I8\)/)
})
