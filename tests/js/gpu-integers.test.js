/**
 * The integers of `fast` on the GPU: each kernel's against the core's, over random shapes, in both forms of WGSL.
 *
 * The core's products are looked at through its state, whose history of the convolution is what in_proj gave. A JavaScript of the contract gives the same
 * bits as the core; with it each kernel of the GPU is compared on the very inputs that the GPU made, so that nothing is lost in a tolerance.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { syntheticConfig } from '../../js/bench/synthetic-model.js'
import { Core } from '../../js/core.js'
import { chooseDot } from '../../js/gpu/dot-choice.js'
import { GpuDevice } from '../../js/gpu/gpu-device.js'
import { actStride, PRODUCT_TILES } from '../../js/gpu/gpu-kernels.js'
import { GpuModel } from '../../js/gpu/gpu-model.js'
import { BiMamba } from '../../js/index.js'
import { findGpu } from '../../js/platform.js'
import { divergence } from './support/divergence.js'
import { readBuffer, runKernels } from './support/gpu-reading.js'
import { dots, normed, quantized, scaled } from './support/product-contract.js'
import { seeded } from './support/seeded.js'
import { missingGpu } from './support/software-gpu.js'
import { TOLERANCES } from './support/tolerances.js'
import { TRAINED } from './support/trained-model.js'

/** @typedef {import('../../js/format.js').ModelConfig} ModelConfig */
/** @typedef {ReturnType<typeof seeded>} Random */

const skip = await missingGpu()

const SMALL = {
  ...syntheticConfig('780M'),
  n_layer: 1,
  vocab_size: 64,
  padded_vocab_size: 64,
  embedding_dtype: /** @type {const} */ ('F32'),
  d_state: 16,
  headdim: 32,
}
/** One group and less, one and a bit, more words than a workgroup takes at a time. */
const WIDTHS = [32, 288, 1056]
const TOKENS = 6

/** Values of one size, with outliers, zeros, groups of next to nothing, and many that are half way between integers. @param {Random} random @param {number} n */
function inputs(random, n) {
  const values = new Float32Array(n)
  for (let start = 0; start < n; start += 64) {
    const kind = random.below(5)
    for (let i = start; i < Math.min(n, start + 64); i++) {
      if (kind === 0) values[i] = random.bell() * 1e-3
      if (kind === 1) values[i] = random.below(9) === 0 ? 30 * random.bell() : random.bell()
      if (kind === 2) values[i] = random.bell() * 2 ** -110
      if (kind === 3) values[i] = (random.below(255) - 127) / 2
    }
  }
  return values
}

/** @param {Core} core @param {ModelConfig} config @param {Random} random @returns {Map<string, Uint8Array>} tensors of a model whose products can be looked at */
function weights(core, config, random) {
  const found = new Map()
  for (const { name, dtype, sizeBytes } of core.tensors(config)) {
    const bytes = new Uint8Array(sizeBytes)
    found.set(name, bytes)
    if (dtype !== 'F32') for (let i = 0; i < sizeBytes; i++) bytes[i] = random.below(256)
    else {
      const floats = new Float32Array(bytes.buffer)
      for (let i = 0; i < floats.length; i++) floats[i] = random.between(-0.5, 0.5)
      if (/embedding|alpha/.test(name)) floats.set(inputs(random, floats.length))
      if (/norm/.test(name)) floats.fill(1)
    }
  }
  return found
}

/** @template {{ write: Function, seal: (part: number) => void, parts: number }} M @param {M} model @param {Map<string, Uint8Array>} tensors @returns {M} */
function filled(model, tensors) {
  for (const [index, bytes] of [...tensors.values()].entries()) model.write(index, 0, bytes)
  for (let part = 0; part < model.parts; part++) model.seal(part)
  return model
}

/** @param {Map<string, Uint8Array>} tensors @param {string} name @returns {Float32Array} */
const floatsOf = (tensors, name) =>
  new Float32Array(/** @type {ArrayBuffer} */ (tensors.get(name)?.buffer))

/** @param {Map<string, Uint8Array>} tensors @param {'in' | 'out'} which @param {number} cols @param {number} o @returns {Uint8Array} */
function signsOf(tensors, which, cols, o) {
  const signs = /** @type {Uint8Array} */ (tensors.get(`layers.0.${which}_proj.sign`))
  return signs.subarray((o * cols) / 8, ((o + 1) * cols) / 8)
}

test('the contract in JavaScript gives the bits of the core', async () => {
  const core = await Core.create()
  for (const [seed, d_model] of WIDTHS.entries()) {
    const config = { ...SMALL, d_model }
    const tensors = weights(core, config, seeded(seed))
    const model = filled(core.createModel(config), tensors)
    const session = model.createSession({ precision: 'fast' })
    const ids = [3, 9, 5]
    session.append(ids)
    const ring = core.stateTensors(config, 'f32').find(({ name }) => name === 'conv')
    const found = new Float32Array(session.state().buffer, ring?.offset)
    const channels = Number(ring?.shape[1])
    const [scale, bias, table] = ['in_proj.alpha', 'in_proj.beta', 'embedding.weight'].map((name) =>
      floatsOf(tensors, name === 'embedding.weight' ? name : `layers.0.${name}`),
    )
    for (const [t, id] of ids.entries()) {
      const r = Float32Array.from(table?.subarray(id * d_model, (id + 1) * d_model) ?? [])
      const { x, c } = normed(r, scale ?? r, bias ?? r, config.norm_eps)
      const { q, d } = quantized(x)
      for (let k = 0; k < channels; k++) {
        const row = signsOf(tensors, 'in', d_model, 2 * d_model + k)
        assert.equal(found[t * channels + k], scaled(c, dots(row, q), d), `${d_model}: ${t}, ${k}`)
      }
    }
    model.close()
  }
})

/** The codes of a token, whatever their order. @param {Uint32Array} act @param {number} at @param {number} cols @param {'inOrder' | 'strided' | 'bits'} order */
function codesOf(act, at, cols, order) {
  const bytes = new Int8Array(act.buffer, 4 * at, cols)
  return Int32Array.from({ length: cols }, (_, i) => {
    const [block, k] = [i - (i % 32), i % 32]
    if (order === 'inOrder') return Number(bytes[i])
    if (order === 'strided') return Number(bytes[block + 4 * (k % 8) + (k >> 3)])
    const bits = [0, 1, 2, 3, 4, 5, 6, 7].map((b) => (Number(act[at + block / 4 + b]) >>> k) & 1)
    return bits.reduce((sum, bit, b) => sum + bit * (b === 7 ? -128 : 1 << b), 0)
  })
}

/**
 * Codes, scales and sums of one token are those of the contract on the same x.
 * @param {Uint32Array} act @param {number} token @param {Float32Array} x @param {'inOrder' | 'strided' | 'bits'} order
 */
function inputsAgree(act, token, x, order) {
  const at = token * actStride(x.length)
  const want = quantized(x)
  assert.deepEqual(codesOf(act, at, x.length, order), want.q)
  const rest = act.subarray(at + x.length / 4)
  for (const [g, d] of want.d.entries()) {
    assert.equal(new Float32Array(rest.slice(2 * g, 2 * g + 1).buffer)[0], d, `scale ${g}`)
    const sum = want.q.subarray(256 * g, 256 * (g + 1)).reduce((a, b) => a + b, 0)
    assert.equal(Number(rest[2 * g + 1]) | 0, sum, `sum ${g}`)
  }
  return want
}

/** To one unit in the last place of the terms: a device may fuse a multiplication and an addition. @param {number} got @param {number} c @param {number[]} sums @param {Float32Array} d @param {string} what */
function productAgrees(got, c, sums, d, what) {
  const want = scaled(c, sums, d)
  const most = sums.reduce((a, dot, g) => Math.max(a, Math.abs(dot * Number(d[g]))), Math.abs(c))
  // A single integer that is off by one shows.
  const least = Math.min(...d.filter((one) => one > most * 2 ** -19))
  const tolerance = sums.length * most * 2 ** -23
  assert.ok(tolerance < least, `${what}: the test sees nothing`)
  assert.ok(Math.abs(got - want) <= tolerance, `${what}: ${got}, want ${want}`)
}

/** @param {GpuModel} model @param {GPUBuffer} buffer @param {number} length */
const floatsAt = async ({ device }, buffer, length) =>
  new Float32Array(await readBuffer(device, buffer, 4 * length))

/** Both products of a layer, on inputs that the GPU makes. @param {GpuModel} model @param {Map<string, Uint8Array>} tensors @param {Random} random @param {number} tokens */
async function productsAgree(model, tensors, random, tokens) {
  const { device, kernels, sizes, passes, work } = model
  const order = device.usesDot4 ? 'strided' : 'bits'
  // Tells the kernels how many tokens there are.
  const session = await model.createSession()
  session.append(new Array(tokens).fill(1))
  await session.prepareLogits()
  const tile = tokens === 1 ? PRODUCT_TILES.one : PRODUCT_TILES.many
  const [first] = passes.layers
  const [groups] = session.groups
  assert.ok(first && groups)
  const { dModel, dInner, inRows } = sizes
  const put = (/** @type {GPUBuffer} */ buffer, /** @type {Float32Array<ArrayBuffer>} */ values) =>
    device.queue.writeBuffer(buffer, 0, values)
  const r = inputs(random, tokens * dModel).map((v) => v + 0.01)
  const y = inputs(random, tokens * dInner).map((v) => v + 0.01)
  const base = r.map(() => random.bell() * 1e-4)
  put(work.r, r)
  put(work.y, y)
  for (const [which, cols, rows] of /** @type {const} */ ([
    ['in', dModel, inRows],
    ['out', dInner, dModel],
  ])) {
    const isIn = which === 'in'
    const [norm, prepare] = isIn
      ? [kernels.normIn, first.prepareIn]
      : [kernels.normGated, first.prepareOut]
    if (!isIn) put(work.r, base)
    const { One, Many } = isIn
      ? { One: kernels.inOne, Many: kernels.inMany }
      : { One: kernels.outOne, Many: kernels.outMany }
    runKernels(device, [
      [norm, prepare, tokens],
      [
        tokens === 1 ? One : Many,
        groups[which],
        Math.ceil(rows / tile.rows),
        Math.ceil(tokens / tile.tokens),
      ],
    ])
    const x = await floatsAt(model, work.x, tokens * cols)
    const c = await floatsAt(model, work.c, tokens)
    const act = new Uint32Array(await readBuffer(device, work.act, 4 * tokens * actStride(cols)))
    const found = await floatsAt(model, isIn ? work.zxbcdt : work.r, tokens * rows)
    for (let t = 0; t < tokens; t++) {
      const { q, d } = inputsAgree(act, t, x.slice(t * cols, (t + 1) * cols), order)
      for (let o = 0; o < rows; o++) {
        const got = Number(found[t * rows + o]) - (isIn ? 0 : Number(base[t * dModel + o]))
        const sums = dots(signsOf(tensors, which, cols, o), q)
        productAgrees(got, Number(c[t]), sums, d, `${which} ${cols}, token ${t}, row ${o}`)
      }
    }
  }
  session.close()
}

/** @param {boolean} usesDot4 @param {boolean} [usesSubgroups] */
async function openDevice(usesDot4, usesSubgroups = false) {
  const device = await GpuDevice.open(await findGpu())
  assert.ok(device.usesDot4, 'this test wants both forms')
  Object.defineProperty(device, 'usesDot4', { value: usesDot4 })
  Object.defineProperty(device, 'usesSubgroups', { value: usesSubgroups, writable: true })
  return device
}

/** Subgroups of 8 lanes and more: Mesa's driver has them, Chromium's has not. */
const hasSubgroups = async () => {
  const device = await GpuDevice.open(await findGpu())
  device.close()
  return device.usesSubgroups
}
const noSubgroups = skip || ((await hasSubgroups()) ? false : 'subgroups are too small, or missing')

/** Numbers half way between two integers, next to nothing, a zero, outliers, and what is no number. @param {Random} random @param {number} n */
function edges(random, n) {
  const values = inputs(random, n)
  for (let i = 0; i < Math.min(n, 256); i += 4)
    values.set([i === 0 ? 127 : 0.5, 1.5, -2.5, 31.5], i)
  return values
}

/** The head's inputs, which are the host's to the bit. @param {GpuModel} model @param {Map<string, Uint8Array>} tensors @param {Random} random */
async function headAgrees(model, tensors, random) {
  const { device, kernels, sizes, work } = model
  const session = await model.createSession()
  session.append([1])
  const state = await session.state()
  const x = edges(random, sizes.dModel)
  new Float32Array(state.buffer).set(x)
  session.adopt(state, 1)
  await session.prepareLogits()
  const act = new Uint32Array(await readBuffer(device, work.act, 4 * actStride(sizes.dModel)))
  const { q, d } = inputsAgree(act, 0, x, 'inOrder')
  const table = new Int8Array(/** @type {ArrayBuffer} */ (tensors.get('embedding.weight')?.buffer))
  const scales = floatsOf(tensors, 'embedding.scale')
  for (const [v, got] of session.logits().entries()) {
    const sums = Array.from(d, (_, g) =>
      q
        .subarray(256 * g, 256 * (g + 1))
        .reduce((a, code, i) => a + code * Number(table[v * sizes.dModel + 256 * g + i]), 0),
    )
    const want = scaled(0, sums, d) * Number(scales[v])
    const most = Math.max(...sums.map((sum, g) => Math.abs(sum * Number(d[g] * Number(scales[v])))))
    assert.ok(Math.abs(got - want) <= 64 * most * 2 ** -23, `logit ${v}: ${got}, want ${want}`)
  }
  // What is no number makes its scale none, so that nothing of it is lost in integers.
  assert.ok(kernels.headInputs && session.headInputs)
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    device.queue.writeBuffer(work.r, 0, new Float32Array(sizes.dModel).fill(bad))
    runKernels(device, [
      [kernels.finish, session.finish, 1],
      [kernels.headInputs, session.headInputs, 1],
    ])
    const spoilt = new Uint32Array(await readBuffer(device, work.act, 4 * actStride(sizes.dModel)))
    assert.equal(spoilt[sizes.dModel / 4], 0x7fc00000)
  }
  session.close()
}

for (const [usesDot4, usesSubgroups] of /** @type {const} */ ([
  [true, false],
  [false, false],
  [true, true],
  [false, true],
])) {
  const form = `${usesDot4 ? 'by dot4I8Packed' : 'bit by bit'}${usesSubgroups ? ', with subgroups' : ''}`
  const without = usesSubgroups ? noSubgroups : skip
  test(`${form}: inputs and products are the core's`, { skip: without }, async () => {
    const core = await Core.create()
    const device = await openDevice(usesDot4, usesSubgroups)
    for (const [i, d_model] of WIDTHS.entries()) {
      const random = seeded(40 + i)
      const config = { ...SMALL, d_model, ngroups: 1 + (i % 2) }
      const tensors = weights(core, config, random)
      const model = await GpuModel.create(core, device, config, { precision: 'fast' })
      await model.ready
      filled(model, tensors)
      for (const tokens of [1, TOKENS]) await productsAgree(model, tensors, random, tokens)
      model.free()
    }
    device.close()
  })

  if (usesSubgroups) continue // the head has no use for them
  test(`${form}: an int8 head is the core's`, { skip }, async () => {
    const core = await Core.create()
    const device = await openDevice(usesDot4)
    for (const d_model of [96, 320]) {
      const random = seeded(d_model)
      const config = { ...SMALL, d_model, embedding_dtype: /** @type {const} */ ('I8') }
      const tensors = weights(core, config, random)
      const model = await GpuModel.create(core, device, config, { precision: 'fast' })
      await model.ready
      await headAgrees(filled(model, tensors), tensors, random)
      model.free()
    }
    device.close()
  })
}

test('the way that is quicker here is taken, and only what WGSL has', { skip }, async () => {
  const device = await openDevice(true)
  Object.defineProperty(device, 'usesDot4', { writable: true })
  Object.defineProperty(device, 'softwareName', { value: null, writable: true })
  const { onSubmittedWorkDone } = Object.getPrototypeOf(device.queue)
  // The first way that is timed is dot_plain.wgsl.
  for (const slow of [0, 1]) {
    device.usesDot4 = true
    let calls = 0
    Object.defineProperty(device.queue, 'onSubmittedWorkDone', {
      configurable: true,
      value: async () => {
        await Reflect.apply(onSubmittedWorkDone, device.queue, [])
        if (Math.floor(calls++ / 4) === slow) await setTimeout(300)
      },
    })
    await chooseDot(device, { ...SMALL, d_model: 64 }, { precision: 'fast' })
    assert.equal(calls, 8)
    assert.equal(device.usesDot4, slow === 0)
  }
  device.usesDot4 = false
  await chooseDot(device, SMALL, { precision: 'fast' })
  assert.equal(device.usesDot4, false)
  if (noSubgroups === false) {
    // The second of four ways is the plain one with subgroups.
    Object.assign(device, { usesDot4: true, usesSubgroups: true })
    let calls = 0
    Object.defineProperty(device.queue, 'onSubmittedWorkDone', {
      configurable: true,
      value: async () => {
        await Reflect.apply(onSubmittedWorkDone, device.queue, [])
        if (Math.floor(calls++ / 4) !== 1) await setTimeout(200)
      },
    })
    await chooseDot(device, { ...SMALL, d_model: 64 }, { precision: 'fast' })
    assert.deepEqual([calls, device.usesDot4, device.usesSubgroups], [16, false, true])
    // A driver that says it has them, and refuses what uses them.
    const { pipeline } = device
    device.pipeline = (code, ...rest) =>
      code.startsWith('enable subgroups')
        ? Promise.reject(new Error('refused'))
        : pipeline.call(device, code, ...rest)
    Object.assign(device, { usesDot4: false, usesSubgroups: true })
    await chooseDot(device, { ...SMALL, d_model: 64 }, { precision: 'fast' })
    assert.equal(device.usesSubgroups, false)
    device.pipeline = pipeline
  }
  device.usesDot4 = true
  await chooseDot(device, SMALL, { precision: 'exact' })
  assert.equal(device.usesDot4, true)
  Object.assign(device, { softwareName: 'a program' })
  await chooseDot(device, SMALL, { precision: 'fast' })
  assert.equal(device.usesDot4, false)
  device.close()
})

/** @param {BiMamba} model @param {number[]} ids @returns {Promise<Float32Array[]>} */
async function logitsAfter(model, ids) {
  const rows = []
  for await (const { logits } of model.evaluate(ids, { logits: true })) {
    if (logits) rows.push(logits)
  }
  return rows
}

/** @param {Float32Array[]} truth @param {Float32Array[]} found */
const meanDivergence = (truth, found) =>
  truth.reduce((sum, p, i) => sum + divergence(p, found[i] ?? p), 0) / truth.length

test('fast on the GPU loses what fast in WebAssembly loses', { skip }, async (t) => {
  const exact = await BiMamba.load(TRAINED, { inline: true, precision: 'exact' })
  const ids = [1]
  const open = { temperature: 1, topK: 0, topP: 1, seed: 3, stopTokens: [], maxTokens: 127 }
  for await (const id of exact.generateIds(ids, open)) ids.push(id)
  const fast = await BiMamba.load(TRAINED, { inline: true, precision: 'fast' })
  const gpu = await BiMamba.load(TRAINED, { inline: true, device: 'webgpu' })
  assert.deepEqual([gpu.info.device, gpu.info.precision], ['webgpu', 'fast'])
  const [truth, there, here] = [
    await logitsAfter(exact, ids),
    await logitsAfter(gpu, ids),
    await logitsAfter(fast, ids),
  ]
  const lost = meanDivergence(truth, there)
  const apart = meanDivergence(here, there)
  t.diagnostic(`mean KL over ${ids.length} tokens: ${lost} from exact, ${apart} from fast in WASM`)
  assert.ok(lost > 0 && lost <= TOLERANCES.fastOnTrained.limit, `${lost}`)
  assert.ok(apart <= TOLERANCES.fastElsewhere.limit, `${apart}`)
  for (const model of [exact, fast, gpu]) await model.close()
})
