/**
 * Whether a GPU computes what it should: some drivers do not, and say nothing.
 *
 * Owns the weights and tokens of the test, and how far off a result may be. The idea: one layer of the model's own shape, so that the kernels are those that
 * will run, with weights made up here; the core, which every browser computes to the same bit, says what is right.
 */

import { BmError } from '../errors.js'
import { GpuModel } from './gpu-model.js'

/** @typedef {import('../core.js').Core} Core */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */
/** @typedef {import('./gpu-device.js').GpuDevice} GpuDevice */

/** Of logits, against 1 and the largest of them: what the project promises of `exact`. One integer that rounds to the next one in `fast` is far below. */
const TOLERANCE = 2e-3
/** A prompt whose last block is not whole, then single tokens. */
const CHUNKS = [19, 1, 1]
/** Enough that not all logits are read back for a draw. */
const VOCABULARY = 320

/**
 * @param {Core} core
 * @param {GpuDevice} device
 * @param {ModelConfig} config of the model that is to run
 * @param {{ precision?: import('../core.js').Precision, state?: import('../core.js').StateType }} [options] as for GpuModel.create
 * @returns {Promise<void>}
 * @throws {BmError} `gpu`: its results are wrong, or it fails; `memory`, `unsupported`
 */
export async function testDevice(core, device, config, options = {}) {
  const small = { ...config, n_layer: 1, vocab_size: VOCABULARY, padded_vocab_size: VOCABULARY }
  const cpu = core.createModel(small)
  const gpu = await GpuModel.create(core, device, small, options).catch((error) => {
    cpu.close()
    throw error
  })
  try {
    for (const [index, tensor] of core.tensors(small).entries()) {
      const bytes = madeUp(tensor, index)
      cpu.write(index, 0, bytes)
      gpu.write(index, 0, bytes)
    }
    for (let part = 0; part < cpu.parts; part++) {
      cpu.seal(part)
      gpu.seal(part)
    }
    const { precision, state } = gpu
    await compare(cpu.createSession({ precision, state }), await gpu.createSession())
  } finally {
    cpu.close()
    gpu.free()
  }
}

/** @param {import('../core-session.js').CoreSession} cpu @param {import('./gpu-session.js').GpuSession} gpu */
async function compare(cpu, gpu) {
  for (const [step, count] of CHUNKS.entries()) {
    const ids = Array.from({ length: count }, (_, i) => (step * 13 + i * 7) % VOCABULARY)
    // At last from the GPU's state, as it is read out.
    if (step === CHUNKS.length - 1) cpu.adopt(await gpu.state(), gpu.position)
    cpu.append(ids)
    gpu.append(ids)
    const drawn = await likeliest(gpu)
    await gpu.prepareLogits()
    const [want, got] = [cpu.logits(), gpu.logits()]
    if (got.indexOf(Math.max(...got)) !== drawn) {
      throw new BmError('gpu', `the GPU computes wrong: token ${drawn} is not the likeliest one`)
    }
    const most = Math.max(...want.map(Math.abs))
    const off = Math.max(...want.map((value, i) => Math.abs(value - Number(got[i]))))
    if (off <= TOLERANCE * (1 + most)) continue
    throw new BmError('gpu', `the GPU computes wrong: logits are off by ${off}, of ${most}`)
  }
}

/** @param {import('./gpu-session.js').GpuSession} gpu @returns {Promise<number>} by what is read back for a draw */
async function likeliest(gpu) {
  await gpu.prepareDraw({ count: 1, temperature: 0 })
  const sampler = gpu.createSampler({ temperature: 0 })
  try {
    return sampler.sample()
  } finally {
    sampler.close()
  }
}

/** Ranges of made-up weights: [names, least, width]. @type {[RegExp, number, number][]} */
const RANGES = [
  [/A_log/, 0, 1],
  [/dt_bias/, -4, 3],
  [/norm/, 0.5, 1],
  [/alpha|beta/, -0.05, 0.1],
  [/./, -0.5, 1],
]

/** @param {import('../format.js').TensorSpec} tensor @param {number} index @returns {Uint8Array} the same everywhere */
function madeUp({ name, dtype, sizeBytes }, index) {
  const words = new Uint32Array(sizeBytes / 4)
  let state = 2463534242 + index
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    // Halves of an infinite or a huge value are no weights.
    words[i] = dtype === 'F16' ? state & 0xb7ffb7ff : state
  }
  if (dtype !== 'F32') return new Uint8Array(words.buffer)
  const [, least, width] = RANGES.find(([names]) => names.test(name)) ?? [/./, 0, 0]
  const values = Float32Array.from(words, (word) => least + (word / 2 ** 32) * width)
  return new Uint8Array(values.buffer)
}
