/**
 * Drawing tokens without reading all logits back from the GPU: the text is that of all logits, whatever the settings, and how little crosses.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { syntheticConfig } from '../../js/bench/synthetic-model.js'
import { Core } from '../../js/core.js'
import { CoreLogits } from '../../js/core-logits.js'
import { candidatesIn, FOUND_BYTES, wantedFor } from '../../js/gpu/gpu-candidates.js'
import { GpuDevice } from '../../js/gpu/gpu-device.js'
import { GpuModel } from '../../js/gpu/gpu-model.js'
import { GpuSession } from '../../js/gpu/gpu-session.js'
import { BiMamba } from '../../js/index.js'
import { findGpu } from '../../js/platform.js'
import { readBuffer, runKernels } from './support/gpu-reading.js'
import { seeded } from './support/seeded.js'
import { missingGpu } from './support/software-gpu.js'
import { TRAINED } from './support/trained-model.js'

const skip = await missingGpu()

const SMALL = {
  ...syntheticConfig('780M'),
  n_layer: 1,
  d_model: 32,
  headdim: 32,
  d_state: 16,
  vocab_size: 700,
  padded_vocab_size: 704,
}

/** Logits where a test puts them. */
class GivenLogits extends CoreLogits {
  #core
  #at

  /** @param {Core} core @param {number} vocabSize */
  constructor(core, vocabSize) {
    super(core, vocabSize)
    this.#core = core
    this.#at = core.pointer('block_create', 4 * vocabSize)
  }

  /** @param {Float32Array<ArrayBuffer>} logits */
  put(logits) {
    this.#core.writeBytes(this.#at, new Uint8Array(logits.buffer))
  }

  logitsPointer() {
    return this.#at
  }
}

/** Some alike, some next to each other, some far apart. @param {ReturnType<typeof seeded>} random @param {number} n @param {number} kind */
function logitsOf(random, n, kind) {
  const near = () => 20 + random.below(40) * 2 ** -19
  const makes = [
    () => random.bell() * 4,
    () => Math.round(random.bell() * 4) / 4,
    near,
    () => (random.below(9) === 0 ? near() : random.bell()),
    () => 3,
  ]
  return Float32Array.from({ length: n }, makes[kind] ?? near)
}

test('what is read back is enough for the draw, or says that it is not', { skip }, async () => {
  const core = await Core.create()
  const device = await GpuDevice.open(await findGpu())
  const model = await GpuModel.create(core, device, SMALL)
  const floats = (/** @type {number} */ n, /** @type {() => number} */ make) =>
    new Uint8Array(Float32Array.from({ length: n }, make).buffer)
  const random = seeded(8)
  for (const [index, { name, sizeBytes }] of core.tensors(SMALL).entries()) {
    const isTable = name === 'embedding.weight'
    const bytes = isTable
      ? Uint8Array.from({ length: sizeBytes }, () => random.below(256))
      : floats(sizeBytes / 4, () => 0.1)
    model.write(index, 0, bytes)
  }
  for (let part = 0; part < model.parts; part++) model.seal(part)
  const session = await model.createSession()
  const given = new GivenLogits(core, SMALL.vocab_size)
  let enough = 0
  const draws = [
    { count: 1, temperature: 0 },
    { count: 1, temperature: 1 },
    { count: 40, temperature: 0.8 },
    { count: 100, temperature: 50 },
  ]
  for (const draw of draws) {
    // Tells the kernel how many are wanted.
    session.append([1])
    await session.prepareDraw(draw)
    for (let k = 0; k < 30; k++) {
      const logits = logitsOf(random, SMALL.vocab_size, k % 5)
      device.queue.writeBuffer(model.work.logits, 0, logits)
      runKernels(device, [[model.kernels.candidates, session.candidates, 1]])
      const bytes = new Uint8Array(await readBuffer(device, model.work.found, FOUND_BYTES))
      const found = candidatesIn(bytes, draw)
      assert.equal(found.isSpoilt, false)
      if (!found.isEnough) continue
      enough++
      assert.ok(found.ids.length >= Math.min(wantedFor(draw), SMALL.vocab_size))
      const few = new Float32Array(SMALL.vocab_size).fill(-3.4028234663852886e38)
      for (const [i, id] of found.ids.entries()) {
        assert.equal(found.logits[i], logits[id])
        few[id] = Number(found.logits[i])
      }
      const options = { topK: draw.count, topP: 0.97, seed: k, temperature: draw.temperature }
      const drawn = [logits, few].map((values) => {
        given.put(values)
        const sampler = given.createSampler(options)
        const ids = Array.from({ length: 8 }, () => sampler.sample())
        sampler.close()
        return ids
      })
      assert.deepEqual(drawn[1], drawn[0], `${JSON.stringify(draw)}, seed 8, ${k}`)
    }
  }
  assert.ok(enough > 60 && enough < 120, `enough in ${enough} of 120`)
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const logits = logitsOf(random, SMALL.vocab_size, 0)
    logits[random.below(SMALL.vocab_size)] = bad
    device.queue.writeBuffer(model.work.logits, 0, logits)
    runKernels(device, [[model.kernels.candidates, session.candidates, 1]])
    const bytes = new Uint8Array(await readBuffer(device, model.work.found, FOUND_BYTES))
    assert.equal(candidatesIn(bytes, { count: 1, temperature: 0 }).isSpoilt, true)
  }
  model.close()
})

/** @type {object[]} */
const FEW = [
  {},
  { temperature: 0 },
  { topK: 5, topP: 1, minP: 0.2, temperature: 1.5 },
  { topK: 100, typicalP: 0.7, temperature: 1 },
]
/** @type {object[]} */
const ALL = [
  { topK: 0 },
  { topK: 101 },
  { temperature: 0, repetitionPenalty: 1.3 },
  { frequencyPenalty: 0.5 },
  { noRepeatNgram: 2 },
  { dryMultiplier: 1 },
  { logitBias: { 300: 5 } },
  { mirostatTau: 3 },
  { format: { regex: '[a-z ]{4,30}' } },
]

/** Calls of a method, whose arguments are noted. @param {object} owner @param {string} name */
function noted(owner, name) {
  /** @type {unknown[][]} */
  const calls = []
  const method = Reflect.get(owner, name)
  Object.defineProperty(owner, name, {
    configurable: true,
    writable: true,
    value(/** @type {unknown[]} */ ...args) {
      calls.push(args)
      return Reflect.apply(method, this, args)
    },
  })
  return { calls, end: () => Object.defineProperty(owner, name, { value: method }) }
}

test('the same text as with all logits; a submit and a small answer for each token', {
  skip,
}, async () => {
  const { create } = GpuModel
  /** @type {GpuModel | null} */
  let made = null
  GpuModel.create = async (...args) => {
    made = await create.apply(GpuModel, args)
    return made
  }
  const model = await BiMamba.load(TRAINED, { inline: true, device: 'webgpu' })
  Object.assign(GpuModel, { create })
  const { device } = /** @type {GpuModel} */ (/** @type {unknown} */ (made))
  const { vocab_size: size } = model.config
  const idsOf = async (/** @type {object} */ settings) => {
    const ids = []
    const options = { seed: 5, maxTokens: 4, stopTokens: [], ...settings }
    for await (const id of model.generateIds([1, 300], options)) ids.push(id)
    return ids
  }
  const { prepareDraw } = GpuSession.prototype
  try {
    for (const settings of [...FEW, ...ALL]) {
      const isFew = FEW.includes(settings)
      const submits = noted(device.queue, 'submit')
      const reads = noted(device, 'read')
      const ids = await idsOf(settings)
      submits.end()
      reads.end()
      const name = JSON.stringify(settings)
      const bytes = reads.calls.map(([, count]) => count)
      assert.deepEqual(
        bytes,
        ids.map(() => (isFew ? FOUND_BYTES : 4 * size)),
        name,
      )
      // The prompt is one, and a reset.
      assert.ok(submits.calls.length <= ids.length + 2, `${name}: ${submits.calls.length}`)
      if (!isFew) continue
      GpuSession.prototype.prepareDraw = function () {
        return this.prepareLogits()
      }
      const want = await idsOf(settings)
      GpuSession.prototype.prepareDraw = prepareDraw
      assert.deepEqual(ids, want, name)
    }
    // Between two generations all logits are there for who asks.
    const session = await model.createSession({ seed: 1 })
    await session.append('Once upon a time')
    for await (const _ of session.generate({ maxTokens: 2 }));
    const top = await session.top(3)
    for await (const _ of session.generate({ maxTokens: 1 }));
    assert.ok(top.every(({ logprob }) => logprob < 0 && logprob > -20))
    for await (const { logprob } of session.generateTokens({ maxTokens: 2 })) {
      assert.ok(Number.isFinite(logprob))
    }
  } finally {
    GpuSession.prototype.prepareDraw = prepareDraw
    await model.close()
  }
})
