/**
 * The GPU's forward pass against the exact core, on a software adapter: logits, states that cross, and what can go wrong.
 *
 * Shapes are small, for a software adapter compiles and computes slowly; each group of tests shares one model.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, describe, test } from 'node:test'
import { syntheticConfig } from '../../js/bench/synthetic-model.js'
import { Core } from '../../js/core.js'
import { GpuDevice } from '../../js/gpu/gpu-device.js'
import { GpuModel } from '../../js/gpu/gpu-model.js'
import { HEAD_ROWS, segmentsOf, sizesOf } from '../../js/gpu/gpu-sizes.js'
import { testDevice } from '../../js/gpu/self-test.js'
import { BiMamba } from '../../js/index.js'
import { findGpu } from '../../js/platform.js'
import { join } from './support/collect.js'
import { logitError } from './support/divergence.js'
import { seeded } from './support/seeded.js'
import { missingGpu } from './support/software-gpu.js'
import { TRAINED } from './support/trained-model.js'

/** @typedef {import('../../js/format.js').ModelConfig} ModelConfig */
/** @typedef {import('../../js/gpu/gpu-session.js').GpuSession} GpuSession */

const SMALL = {
  ...syntheticConfig('780M'),
  n_layer: 2,
  d_model: 256,
  vocab_size: 500,
  padded_vocab_size: 512,
}

/** Tables in each type, groups, sizes of the convolution and the state, limits of dt. @type {Record<string, ModelConfig>} */
const SHAPES = {
  'int8, tied': SMALL,
  'f16, two groups, apart': {
    ...SMALL,
    embedding_dtype: 'F16',
    ngroups: 2,
    tie_embeddings: false,
    d_state: 64,
    d_conv: 3,
  },
  'f32, small heads': {
    ...SMALL,
    embedding_dtype: 'F32',
    d_model: 160,
    d_state: 24,
    headdim: 32,
    d_conv: 2,
    dt_min: 0.01,
    dt_max: 0.1,
  },
}

const skip = await missingGpu()

/** A binding as large as this holds a part of the table. @type {number | null} */
let mostBinding = null

async function openDevice() {
  const device = await GpuDevice.open(await findGpu())
  if (mostBinding === null) return device
  const limits = { maxStorageBufferBindingSize: mostBinding }
  Object.defineProperty(device, 'limits', { value: limits })
  return device
}

/**
 * The same random weights in both.
 * @param {Core} core @param {ModelConfig} config @param {number} seed @param {'f32' | 'i16'} [state]
 * @param {(name: string, index: number) => number | null} [fixed] a number of a tensor; null: a random one
 */
async function openBoth(core, config, seed, state = 'f32', fixed = () => null) {
  const random = seeded(seed)
  const device = await openDevice()
  const how = { precision: /** @type {const} */ ('exact'), state }
  const gpu = await GpuModel.create(core, device, config, how)
  const cpu = core.createModel(config)
  for (const [index, { name, dtype, sizeBytes }] of core.tensors(config).entries()) {
    const bytes = new Uint8Array(sizeBytes)
    const floats = new Float32Array(bytes.buffer)
    if (dtype === 'F32')
      for (let i = 0; i < floats.length; i++) floats[i] = fixed(name, i) ?? weight(random, name)
    else for (let i = 0; i < bytes.length; i++) bytes[i] = random.below(256)
    // Small halves, and no infinity among them.
    if (dtype === 'F16')
      for (let i = 1; i < bytes.length; i += 2) bytes[i] = Number(bytes[i]) & 0xb7
    for (const model of [cpu, gpu]) {
      const cut = 4 * random.below(sizeBytes / 4)
      model.write(index, 0, bytes.subarray(0, cut))
      model.write(index, cut, bytes.subarray(cut))
    }
  }
  for (let part = 0; part < cpu.parts; part++) {
    cpu.seal(part)
    gpu.seal(part)
  }
  return { cpu, gpu, device, how }
}

/** @param {ReturnType<typeof seeded>} random @param {string} name of a tensor */
function weight(random, name) {
  if (/A_log/.test(name)) return random.between(-1, 2)
  if (/dt_bias/.test(name)) return random.between(-6, 0)
  if (/norm/.test(name)) return random.between(0.5, 1.5)
  if (/alpha/.test(name)) return random.between(-0.1, 0.1)
  return random.bell() * 0.1
}

/** Within what the project promises of `exact`. @param {Float32Array} got @param {Float32Array} want @param {string} what */
function near(got, want, what) {
  const most = Math.max(...want.map(Math.abs))
  const off = Math.max(...want.map((value, i) => Math.abs(value - Number(got[i]))))
  assert.ok(most > 0.01 && off <= 2e-3 * (1 + most), `${what}: ${off} of ${most}`)
}

/** @typedef {Awaited<ReturnType<typeof openBoth>>} Both */

/** @param {ModelConfig} config @returns {(n: number, first?: number) => number[]} */
const idsOf =
  ({ vocab_size: size }) =>
  (n, first = 3) =>
    Array.from({ length: n }, (_, k) => (first + k * 31) % size)

/** After any cut of a text, at every place of a chunk. @param {Both} both */
async function logitsAgree(both) {
  const ids = idsOf(both.cpu.config)
  const cpu = both.cpu.createSession(both.how)
  const gpu = await both.gpu.createSession()
  for (const [step, n] of [1, 1, 5, 64, 2, 1, 33].entries()) {
    const chunk = ids(n, step)
    cpu.append(chunk)
    gpu.append(chunk)
    assert.equal(gpu.position, cpu.position)
    for (const at of new Set([n - 1, 0, n >> 1])) {
      await gpu.prepareLogits(at)
      near(gpu.logits(at), cpu.logits(at), `chunk ${step}, token ${at}`)
    }
  }
  gpu.reset()
  cpu.reset()
  cpu.append([4])
  gpu.append([4])
  await gpu.prepareLogits()
  near(gpu.logits(), cpu.logits(), 'after a reset')
  assert.ok(Math.abs(gpu.logprob(-1, 7) - cpu.logprob(-1, 7)) < 1e-2)
  gpu.close()
  cpu.close()
}

/** Both ways; and a copy is the same to the bit. @param {Both} both */
async function statesCross(both) {
  const ids = idsOf(both.cpu.config)
  const cpu = both.cpu.createSession(both.how)
  const gpu = await both.gpu.createSession()
  cpu.append(ids(40))
  gpu.append(ids(40))
  const [fromCpu, fromGpu] = [cpu.state(), await gpu.state()]
  assert.equal(fromGpu.length, fromCpu.length)
  const other = both.cpu.createSession(both.how)
  other.adopt(fromGpu, 40)
  near(other.logits(), cpu.logits(), 'the last logits')
  const there = await both.gpu.createSession()
  there.adopt(fromCpu, 40)
  const copy = await both.gpu.createSession()
  copy.adopt(gpu, 40)
  for (const id of ids(6, 9)) for (const one of [cpu, gpu, other, there, copy]) one.append([id])
  for (const one of [gpu, there, copy]) await one.prepareLogits()
  near(other.logits(), cpu.logits(), 'from the GPU')
  near(there.logits(), cpu.logits(), 'to the GPU')
  assert.deepEqual(copy.logits(), gpu.logits())
  // Read out and written back it goes on, too.
  const again = await gpu.state()
  there.adopt(again, gpu.position)
  for (const one of [gpu, there, cpu]) one.append([2])
  for (const one of [gpu, there]) await one.prepareLogits()
  near(there.logits(), cpu.logits(), 'back')
  for (const one of [cpu, gpu, other, there, copy]) one.close()
}

/** A state in 16 bits next to one in f32, over a text in which scales become too small and integers too large. @param {Both} both @param {import('node:test').TestContext} t */
async function keepsInIntegers(both, t) {
  const ids = idsOf(both.cpu.config)
  const truth = both.cpu.createSession({ precision: 'exact' })
  const cpu = both.cpu.createSession(both.how)
  const gpu = await both.gpu.createSession()
  assert.equal(gpu.stateBytes, cpu.stateBytes)
  const off = { cpu: 0, gpu: 0 }
  for (let k = 0; k < 6; k++) {
    for (const one of [truth, cpu, gpu]) one.append(ids(64, 5 * k))
    await gpu.prepareLogits()
    const want = truth.logits()
    const most = Math.max(...want.map(Math.abs))
    off.cpu = Math.max(off.cpu, logitError(cpu.logits(), want, most))
    off.gpu = Math.max(off.gpu, logitError(gpu.logits(), want, most))
  }
  t.diagnostic(`off in 16 bits: ${off.gpu} on the GPU, ${off.cpu} in WebAssembly`)
  assert.ok(off.gpu > 0 && off.gpu <= 1.5 * off.cpu)
  for (const one of [truth, cpu, gpu]) one.close()
}

/** What cannot be, and a state that is no number. @param {Both} both */
async function refuses(both) {
  const { config } = both.cpu
  const ids = idsOf(config)
  const gpu = await both.gpu.createSession()
  assert.throws(() => gpu.append([]), { code: 'argument' })
  assert.throws(() => gpu.append([config.vocab_size]), { code: 'argument' })
  assert.throws(() => gpu.append(ids(65)), { code: 'argument', message: /65 tokens/ })
  await assert.rejects(gpu.prepareLogits(), { code: 'argument' })
  assert.throws(() => gpu.adopt(new Uint8Array(4), 1), { code: 'argument', message: /4 bytes/ })
  gpu.append([1])
  assert.throws(() => gpu.logits(), { code: 'internal', message: /not prepared/ })
  const block = await gpu.state()
  new DataView(block.buffer).setFloat32(0, Number.NaN, true)
  assert.throws(() => gpu.adopt(block, 1), { code: 'numeric' })
  assert.throws(() => gpu.append([1]), { code: 'numeric', message: /reset/ })
  gpu.reset()
  gpu.append([1])
  await gpu.prepareLogits()
  gpu.close()
  gpu.close()
  assert.throws(() => gpu.append([1]), { code: 'closed' })
}

/** A text of any length takes what its session has from the beginning. @param {Both} both */
async function makesNothing({ gpu: model, device }) {
  const ids = idsOf(model.config)
  const session = await model.createSession()
  /** @type {string[]} */
  const made = []
  for (const name of /** @type {const} */ (['buffer', 'bind', 'pipeline'])) {
    const make = device[name]
    const counted = (/** @type {unknown[]} */ ...args) => {
      made.push(name)
      return Reflect.apply(make, device, args)
    }
    Object.defineProperty(device, name, { value: counted, configurable: true })
  }
  try {
    for (const n of [1, 64, 1, 7, 1]) {
      session.append(ids(n))
      await session.prepareLogits()
      assert.ok(session.logits().every(Number.isFinite))
    }
    assert.equal(made.join(), '')
    // What counts does count.
    await session.state()
    assert.match(made.join(), /buffer/)
  } finally {
    for (const name of ['buffer', 'bind', 'pipeline']) Reflect.deleteProperty(device, name)
    session.close()
  }
}

test('a step of a millionth is as near as one of a tenth', { skip }, async () => {
  const core = await Core.create()
  for (const bias of [-2, -9, -12, -14.5]) {
    // Nothing but the biases, so that the first state is dt x B.
    const fixed = (/** @type {string} */ name) =>
      /dt_bias/.test(name) ? bias : /alpha|beta/.test(name) ? 0 : null
    const both = await openBoth(core, { ...SMALL, n_layer: 1 }, 3, 'f32', fixed)
    const cpu = both.cpu.createSession(both.how)
    const gpu = await both.gpu.createSession()
    for (const one of [cpu, gpu]) one.append([5])
    const want = firstHead(core, both, cpu.state())
    const got = firstHead(core, both, await gpu.state())
    const most = Math.max(...want.map(Math.abs))
    const off = Math.max(...want.map((value, i) => Math.abs(value - Number(got[i]))))
    assert.ok(most > 0 && off < 1e-5 * most, `dt_bias ${bias}: ${off / most}`)
    both.gpu.close()
    both.cpu.close()
  }
})

test('a state in 16 bits takes tokens whose B is 0', { skip }, async () => {
  const core = await Core.create()
  const dInner = SMALL.expand * SMALL.d_model
  // x is that of the biases, B and C are nothing.
  const fixed = (/** @type {string} */ name, /** @type {number} */ index) =>
    /conv.weight/.test(name) ? 0 : /conv.bias/.test(name) ? Number(index < dInner) : null
  const both = await openBoth(core, SMALL, 3, 'i16', fixed)
  const cpu = both.cpu.createSession(both.how)
  const gpu = await both.gpu.createSession()
  const ids = idsOf(SMALL)(48)
  for (const one of [cpu, gpu]) one.append(ids)
  await gpu.prepareLogits()
  near(gpu.logits(), cpu.logits(), 'after 48 tokens')
  both.gpu.close()
  both.cpu.close()
})

/** What S is. @param {Core} core @param {Both} both @param {Uint8Array} state in f32 @returns {number[]} */
function firstHead(core, { cpu }, { buffer, byteOffset }) {
  const { headdim, d_state: size } = cpu.config
  const floats = (/** @type {string} */ wanted, /** @type {number} */ count) => {
    const at = Number(
      core.stateTensors(cpu.config, 'f32').find(({ name }) => name === wanted)?.offset,
    )
    return new Float32Array(buffer.slice(byteOffset + at, byteOffset + at + 4 * count))
  }
  const [scale = 0] = floats('ssm.scale', 1)
  return Array.from(floats('ssm', headdim * size), (value) => value * scale)
}

/** @type {[string, ModelConfig, 'f32' | 'i16'][]} */
const CASES = [
  ...Object.entries(SHAPES).map(
    ([name, config]) => /** @type {[string, ModelConfig, 'f32']} */ ([name, config, 'f32']),
  ),
  ['int8, tied, state in 16 bits', SMALL, 'i16'],
  [
    'small heads, two groups, state in 16 bits',
    { ...SHAPES['f32, small heads'], ngroups: 2 },
    'i16',
  ],
]

for (const [i, [name, config, state]] of CASES.entries()) {
  describe(name, { skip }, () => {
    /** @type {Both} */
    let both
    before(async () => {
      // The second one in parts, as a table that is larger than a binding.
      mostBinding = i === 1 ? 100 * config.d_model * 2 : null
      both = await openBoth(await Core.create(), config, 5 + i, state)
    })
    after(() => {
      both?.gpu.close()
      both?.cpu.close()
    })
    test('logits are those of the exact core', () => logitsAgree(both))
    test('states cross', () => statesCross(both))
    if (state === 'i16') test("integers are as good as the core's", (t) => keepsInIntegers(both, t))
    test('nothing is made while it computes', () => makesNothing(both))
    test('what is refused', () => refuses(both))
  })
}

test('no dispatch has more workgroups than every WebGPU has', () => {
  for (const rows of [500, 65535 * 8, 65535 * 8 + 1, 1052672]) {
    // The narrowest model, so that a binding has room for all.
    const sizes = { ...sizesOf(SMALL), tableRows: rows, rowBytes: 32 }
    const segments = segmentsOf(sizes, 2 ** 27)
    assert.ok(segments.every(({ count }) => Math.ceil(count / HEAD_ROWS) <= 65535))
    assert.equal(
      segments.reduce((sum, { count }) => sum + count, 0),
      rows,
    )
  }
})

test('no WebGPU, no adapter, no device', async () => {
  await assert.rejects(GpuDevice.open(null), { code: 'unsupported', message: /not here/ })
  const none = /** @type {GPU} */ (/** @type {unknown} */ ({ requestAdapter: async () => null }))
  await assert.rejects(GpuDevice.open(none), { code: 'unsupported', message: /no adapter/ })
  const adapter = {
    features: new Set(),
    requestDevice: () => Promise.reject(new Error('used up')),
  }
  const poor = /** @type {GPU} */ (/** @type {unknown} */ ({ requestAdapter: async () => adapter }))
  await assert.rejects(GpuDevice.open(poor), { code: 'unsupported', message: /used up/ })
})

test('what the GPU has no room for is an error, not silence', { skip }, async () => {
  const device = await openDevice()
  const wide = { ...SMALL, d_model: 16384, n_layer: 1, vocab_size: 64, padded_vocab_size: 64 }
  // Sixteen terabytes in one buffer.
  const many = () => device.buffer(2 ** 44, 128)
  await assert.rejects(device.making('much', many), (error) => {
    assert.match(String(/** @type {{ code?: string }} */ (error).code), /memory|gpu/)
    return true
  })
  const core = await Core.create()
  const large = { ...wide, headdim: 256, d_state: 512 }
  await assert.rejects(GpuModel.create(core, device, large), {
    code: 'unsupported',
    message: /headdim 256/,
  })
  await device.making('little', () => device.buffer(64, 128))
  device.close()
  await assert.rejects(
    device.making('late', () => device.buffer(64, 128)),
    { code: 'gpu', message: /lost/ },
  )
})

test('a device that is lost: every call says so, and none hangs', {
  skip,
  timeout: 60000,
}, async () => {
  const { gpu, cpu } = await openBoth(await Core.create(), SMALL, 1)
  const session = await gpu.createSession()
  session.append([1, 2])
  await session.prepareLogits()
  gpu.device.close()
  session.append([3])
  await assert.rejects(session.prepareLogits(), { code: 'gpu', message: /lost: closed/ })
  await assert.rejects(session.state(), { code: 'gpu' })
  await assert.rejects(gpu.createSession(), { code: 'gpu' })
  session.close()
  gpu.close()
  cpu.close()
})

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'worker'}: the trained model tells on the GPU what it tells in WebAssembly`, {
    skip,
  }, async () => {
    const wasm = await BiMamba.load(TRAINED, { inline, precision: 'exact' })
    const model = await BiMamba.load(TRAINED, { inline, device: 'webgpu', precision: 'exact' })
    assert.deepEqual(
      { ...model.info, memoryBytes: 0 },
      {
        ...wasm.info,
        ...{ memoryBytes: 0, device: 'webgpu', variant: 'webgpu', threads: 1, backupTokens: 64 },
      },
    )
    const options = { temperature: 0, maxTokens: 12 }
    assert.equal(
      await join(model.generate('Once upon a time', options)),
      await join(wasm.generate('Once upon a time', options)),
    )
    const session = await model.createSession({ seed: 4, checkpointBytes: 0 })
    await session.append('Once upon a time there was')
    await join(session.generate({ maxTokens: 5 }))
    const fork = await session.fork()
    const loaded = await wasm.loadSession(await session.save())
    const back = await model.loadSession(await loaded.save())
    const want = await join(session.generate(options))
    for (const one of [fork, loaded, back]) assert.equal(await join(one.generate(options)), want)
    await session.rewind(3)
    assert.equal(session.position, 3)
    const [one = '', two = ''] = await together(model, [session, fork])
    assert.ok(one.length > 0 && two.length > 0)
    const scores = await model.score([1, 300, 301, 302])
    const exact = await wasm.score([1, 300, 301, 302])
    for (const [k, score] of scores.entries())
      assert.ok(Math.abs(Number(score) - Number(exact[k])) < 1e-2)
    await model.close()
    await wasm.close()
  })
}

/** @param {BiMamba} model @param {import('../../js/index.js').Session[]} sessions */
async function together(model, sessions) {
  const texts = sessions.map(() => '')
  for await (const { index, text } of model.generateTogether(sessions, {
    maxTokens: 3,
    temperature: 0,
  })) {
    texts[index] += text
  }
  return texts
}

test('where it is computed: what cannot be, what is not worth it', { skip }, async () => {
  const auto = await BiMamba.load(TRAINED, { inline: true, device: 'auto' })
  assert.equal(auto.info.device, 'wasm')
  assert.match(String(auto.info.deviceNote), /swiftshader|llvmpipe|software/)
  await auto.close()
  await assert.rejects(BiMamba.load(TRAINED, { inline: true, device: 'webgpu', head: 'int4' }), {
    code: 'unsupported',
    message: /int4/,
  })
  await assert.rejects(BiMamba.load(TRAINED, { device: /** @type {never} */ ('gpu') }), {
    code: 'argument',
    message: /device is "gpu", want wasm, webgpu, auto/,
  })
})

/** Whatever is asked for first after the loss. @param {readonly GpuDevice[]} devices that were opened */
async function recoversFrom(devices) {
  const options = { maxTokens: 4, temperature: 0 }
  /** @typedef {import('../../js/index.js').Session} Session */
  for (const ask of [
    (/** @type {BiMamba} */ one) => one.score([1, 300, 301]),
    (/** @type {BiMamba} */ one) => one.createSession(),
    (/** @type {BiMamba} */ _, /** @type {Session} */ empty) => join(empty.generate(options)),
    (/** @type {BiMamba} */ _, /** @type {Session} */ empty) => join(empty.chat('Hello', options)),
  ]) {
    const fresh = await BiMamba.load(TRAINED, { inline: true, device: 'webgpu' })
    const empty = await fresh.createSession()
    devices.at(-1)?.close()
    await ask(fresh, empty)
    assert.match(String(fresh.info.deviceNote), /lost: closed; it was opened again/)
    await fresh.close()
  }
}

test('a GPU that is lost under its texts: it is opened again and goes on with each of them', {
  skip,
}, async () => {
  const wasm = await BiMamba.load(TRAINED, { inline: true, precision: 'exact' })
  /** @type {GpuDevice[]} */
  const devices = []
  const { create } = GpuModel
  GpuModel.create = (core, opened, config) => {
    devices.push(opened)
    return create.call(GpuModel, core, opened, config)
  }
  const options = { maxTokens: 10, temperature: 0 }
  try {
    const model = await BiMamba.load(TRAINED, {
      inline: true,
      device: 'webgpu',
      precision: 'exact',
    })
    const session = await model.createSession({ seed: 2 })
    await session.append('Once upon a time there was')
    const snapshot = await session.snapshot()
    const other = await session.fork()
    const pieces = model.generate('Once upon a time', options)
    const others = other.generate(options)
    let text = ''
    let beside = ''
    for (let i = 0; i < 4; i++) {
      text += (await pieces.next()).value
      beside += (await others.next()).value
    }
    devices.at(-1)?.close()
    for await (const piece of pieces) text += piece
    // This one was between two pieces when the other one moved it.
    for await (const piece of others) beside += piece
    assert.equal(text, await join(wasm.generate('Once upon a time', options)))
    assert.equal(model.info.device, 'webgpu')
    assert.match(String(model.info.deviceNote), /lost: closed; it was opened again/)
    // What was a session on the GPU is one now, and so is its snapshot.
    const there = await wasm.createSession()
    await there.append('Once upon a time there was')
    const want = await join(there.generate(options))
    assert.equal(beside, want)
    assert.equal(await join(session.generate(options)), want)
    await session.restore(snapshot)
    assert.equal(await join(session.generate(options)), want)
    await model.close()
    await recoversFrom(devices)
    // Bytes that nobody has kept do not come again.
    const bytes = await readFile(TRAINED)
    const given = await BiMamba.load(bytes, { inline: true, device: 'webgpu' })
    devices.at(-1)?.close()
    await assert.rejects(join(given.generate('a')), { code: 'gpu', message: /lost/ })
    await given.close()
  } finally {
    Object.assign(GpuModel, { create })
    await wasm.close()
  }
})

test('a GPU that computes wrong is not used', { skip }, async () => {
  const { default: shaders } = await import('../../dist/shaders.mjs')
  const faults = /** @type {const} */ ([
    ['exact', 'f32', 'conv', 'bias[channel]', '0.0'],
    ['exact', 'f32', 'scan', '* decay', ''],
    ['exact', 'f32', 'matmul', 'c[token]', '0.0'],
    ['exact', 'i16', 'scan_i16', '* own.keep', ''],
    ['fast', 'f32', 'inputs_int8', 'total += q', 'total -= q'],
    ['fast', 'f32', 'matmul_int8', '2 * sums', 'sums'],
    ['exact', 'f32', 'candidates', 'value < bound', 'value <= bound'],
    ['fast', 'f32', 'head_int8', 'quad / 64u * 2u', '0u'],
  ])
  for (const [precision, state, name, right, wrong] of faults) {
    const before = String(shaders[name])
    assert.ok(before.includes(right))
    shaders[name] = before.replace(right, wrong)
    const core = await Core.create()
    const device = await openDevice()
    await assert.rejects(
      testDevice(core, device, { ...SMALL, d_model: 320 }, { precision, state }),
      { code: 'gpu', message: /computes wrong/ },
      name,
    )
    device.close()
    shaders[name] = before
  }
  const device = await openDevice()
  for (const precision of /** @type {const} */ (['exact', 'fast'])) {
    for (const config of Object.values(SHAPES)) {
      const state = precision === 'fast' ? 'i16' : 'f32'
      await testDevice(await Core.create(), device, config, { precision, state })
    }
  }
  device.close()
})
