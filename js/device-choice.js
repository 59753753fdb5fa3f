/**
 * Where a model is computed: in WebAssembly or on the GPU.
 *
 * Owns the choice and its reasons. A GPU is tested before anything is trusted to it. The idea of 'auto': which of them is quicker is measured, on layers of the model's own shape with nothing in
 * them, while the first weights arrive and wait; and a GPU that is a program on the processor is never taken.
 */

import { BmError } from './errors.js'
import { chooseDot } from './gpu/dot-choice.js'
import { GpuDevice } from './gpu/gpu-device.js'
import { GpuModel } from './gpu/gpu-model.js'
import { sizesOf, whyTooLarge } from './gpu/gpu-sizes.js'
import { testDevice } from './gpu/self-test.js'
import { findGpu } from './platform.js'

/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./format.js').ModelConfig} ModelConfig */
/** @typedef {{ precision: import('./core.js').Precision, state: import('./core.js').StateType }} How a model is computed */
/**
 * @typedef {object} Choice
 * @property {GpuDevice | null} device
 * @property {string | null} note  why no GPU, where one was looked for
 * @property {Promise<void>} tested  rejects with `gpu` where results are wrong, or as `testDevice` does: nothing that the device computes counts before
 */

const REOPEN = { tries: 4, pauseMs: 250 }

const DONE = Promise.resolve()
/** Layers of the models that are timed, and tokens of each. */
const PROBE = { layers: 4, tokens: 6 }

/**
 * @param {Core} core
 * @param {ModelConfig} config
 * @param {{ device: 'wasm' | 'webgpu' | 'auto', head: string } & Partial<How>} options
 * @param {readonly GPUFeatureName[]} [features] that the device is to have, where its adapter has them
 * @returns {Promise<Choice>} the device is the caller's; its test goes on where it was asked for by name, since nothing else depends on it
 * @throws {BmError} `unsupported`: with 'webgpu' only
 */
export async function chooseDevice(core, config, options, features = []) {
  const { device, precision = 'fast', state = 'f32', head } = options
  const how = { precision, state }
  const none = (/** @type {string | null} */ note) => ({ device: null, note, tested: DONE })
  if (device === 'wasm') return none(null)
  const why =
    head !== 'file'
      ? `its head cannot be ${head}`
      : config.projection_dtype
        ? `it computes 1-bit projections only, and this model's are dense (${config.projection_dtype})`
        : null
  try {
    if (why) throw new BmError('unsupported', `the GPU: ${why}`)
    const opened = await GpuDevice.open(await findGpu(), features)
    await closedOnError(opened, async () => checkSize(opened, config))
    if (device === 'webgpu') {
      await closedOnError(opened, () => chooseDot(opened, config, how))
      const tested = testDevice(core, opened, config, how)
      tested.catch(() => {}) // whoever has the choice awaits it
      return { device: opened, note: null, tested }
    }
    const note = await closedOnError(opened, async () => {
      const reason = softwareReason(opened)
      if (reason) return reason
      await chooseDot(opened, config, how)
      await testDevice(core, opened, config, how)
      return speedReason(core, opened, config, how)
    })
    if (note === null) return { device: opened, note, tested: DONE }
    opened.close()
    return none(note)
  } catch (error) {
    if (device === 'webgpu' || !(error instanceof BmError)) throw error
    return none(error.message)
  }
}

/** @param {GpuDevice} device @param {ModelConfig} config @throws {BmError} `unsupported` */
function checkSize({ limits }, config) {
  const why = whyTooLarge(sizesOf(config), limits)
  if (why) throw new BmError('unsupported', `the GPU: ${why}`)
}

/**
 * Once more, after a loss: a process that died takes a moment to come back.
 *
 * @param {Core} core @param {ModelConfig} config @param {{ head: string } & Partial<How>} options
 * @returns {Promise<Choice>} as `chooseDevice` of 'webgpu'
 * @throws {BmError} `unsupported`
 */
export async function chooseDeviceAgain(core, config, options) {
  for (let tries = 1; ; tries++) {
    try {
      return await chooseDevice(core, config, { ...options, device: 'webgpu' })
    } catch (error) {
      if (tries === REOPEN.tries) throw error
      await new Promise((resolve) => setTimeout(resolve, REOPEN.pauseMs))
    }
  }
}

/** @template T @param {GpuDevice} device @param {() => Promise<T>} work @returns {Promise<T>} */
async function closedOnError(device, work) {
  try {
    return await work()
  } catch (error) {
    device.close()
    throw error
  }
}

/** @param {GpuDevice} device @returns {string | null} */
function softwareReason({ softwareName }) {
  return softwareName && `WebGPU here is ${softwareName}, no GPU`
}

/** @param {Core} core @param {GpuDevice} device @param {ModelConfig} config @param {How} how @returns {Promise<string | null>} null: the GPU is quicker */
async function speedReason(core, device, config, how) {
  const small = {
    ...config,
    n_layer: Math.min(PROBE.layers, config.n_layer),
    vocab_size: 64,
    padded_vocab_size: 64,
  }
  const onCore = await timeCore(core, small, how)
  const onGpu = await timeGpu(core, device, small, how)
  const ms = (/** @type {number} */ value) => `${value.toFixed(1)} ms`
  return onGpu < onCore
    ? null
    : `the GPU is slower here: ${ms(onGpu)} for ${small.n_layer} layers, the processor ${ms(onCore)}`
}

/** @param {Core} core @param {ModelConfig} config @param {How} how @returns {Promise<number>} ms a token, the best of some */
async function timeCore(core, config, how) {
  const model = core.createModel(config)
  try {
    for (const [index, { sizeBytes }] of core.tensors(config).entries()) {
      model.write(index, 0, new Uint8Array(sizeBytes))
    }
    for (let part = 0; part < model.parts; part++) model.seal(part)
    return await timeTokens(model.createSession(how))
  } finally {
    model.close()
  }
}

/** @param {Core} core @param {GpuDevice} device @param {ModelConfig} config @param {How} how */
async function timeGpu(core, device, config, how) {
  const model = await GpuModel.create(core, device, config, how)
  try {
    return await timeTokens(await model.createSession())
  } finally {
    model.free()
  }
}

/** @param {import('./timeline.js').AnySession} session */
async function timeTokens(session) {
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < PROBE.tokens; i++) {
    const began = performance.now()
    session.append([1])
    await session.prepareLogits()
    session.logitsPointer(-1)
    best = Math.min(best, performance.now() - began)
  }
  return best
}
