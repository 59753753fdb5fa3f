/**
 * Random models in the shapes of the published ones, made where they are used: in the engine's memory.
 *
 * Owns the shapes and what random weights look like that keep a deep model finite. Their text is noise; what they cost in time
 * and memory is what trained weights of that shape cost. The weights are the same on every machine.
 */

import { BmError } from '../errors.js'
import { breathe } from '../platform.js'

/** @typedef {import('../core.js').Core} Core */
/** @typedef {import('../core-model.js').CoreModel} CoreModel */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */

/** n_layer and d_model of the published Bi-Mamba sizes. */
const SHAPES = /** @type {const} */ ({ '780M': [48, 1536], '1.3B': [48, 2048], '2.7B': [64, 2560] })

/** @typedef {keyof typeof SHAPES} ShapeName */

/** The shapes there are. */
export const SHAPE_NAMES = /** @type {ShapeName[]} */ (Object.keys(SHAPES))

/**
 * @param {string} name one of SHAPE_NAMES
 * @returns {ModelConfig}
 * @throws {BmError} `argument`
 */
export function syntheticConfig(name) {
  const shape = SHAPES[/** @type {ShapeName} */ (name)]
  if (!shape) throw new BmError('argument', `shape '${name}', want ${SHAPE_NAMES.join(', ')}`)
  const [n_layer, d_model] = shape
  return {
    n_layer,
    d_model,
    d_state: 128,
    headdim: 64,
    ngroups: 1,
    d_conv: 4,
    expand: 2,
    vocab_size: 32000,
    padded_vocab_size: 32000,
    tie_embeddings: true,
    norm_eps: 1e-5,
    dt_min: 0,
    dt_max: null,
    embedding_dtype: 'I8',
  }
}

const NOISE_BYTES = 1 << 20

/** Ranges of each kind of float tensor: [names, least, width]. */
const FLOAT_RANGES = /** @type {[RegExp, number, number][]} */ ([
  [/norm|\.D$/, 1, 0],
  [/scale$/, 1e-3, 0],
  [/alpha$/, 0.02, 0.02],
  [/beta$/, -0.001, 0.002],
  [/A_log$/, 0, 2.5],
  [/dt_bias$/, -6, 4],
  [/./, -0.5, 1],
])

/** @param {number} length a multiple of 4 @returns {Uint8Array} by xorshift, the same on every machine */
export function randomBytes(length) {
  const words = new Uint32Array(length / 4)
  let s = 2463534242
  for (let i = 0; i < words.length; i++) {
    s ^= s << 13
    s ^= s >>> 17
    s ^= s << 5
    words[i] = s
  }
  return new Uint8Array(words.buffer)
}

/**
 * @param {import('../format.js').TensorSpec} tensor of type F32
 * @param {number} index of the tensor
 * @param {Uint8Array} noise
 * @returns {Uint8Array}
 */
function randomFloats({ name, sizeBytes }, index, noise) {
  const [, least, width] = FLOAT_RANGES.find(([names]) => names.test(name)) ?? [/./, 0, 0]
  const values = new Float32Array(sizeBytes / 4)
  for (let i = 0; i < values.length; i++) {
    values[i] = least + (noise[(i * 7 + index) % noise.length] / 255) * width
  }
  return new Uint8Array(values.buffer)
}

/** @param {Uint8Array} noise @returns {Uint8Array} halves between 1/128 and 1/64, of both signs */
function smallHalves(noise) {
  return noise.map((byte, i) => (i % 2 ? (byte & 0x83) | 0x20 : byte))
}

/**
 * Every byte of a random model, tensor after tensor in the order of the file.
 *
 * @param {import('../format.js').TensorTable} core
 * @param {ModelConfig} config
 * @returns {Generator<{ index: number, offset: number, bytes: Uint8Array }, void, void>} bytes from `offset` on of tensor `index`
 */
export function* randomWeights(core, config) {
  const noise = randomBytes(NOISE_BYTES)
  const halves = smallHalves(noise)
  for (const [index, tensor] of core.tensors(config).entries()) {
    const { dtype } = tensor
    const bytes =
      dtype === 'F32' ? randomFloats(tensor, index, noise) : dtype === 'F16' ? halves : noise
    for (let offset = 0; offset < tensor.sizeBytes; offset += bytes.length) {
      yield { index, offset, bytes: bytes.subarray(0, tensor.sizeBytes - offset) }
    }
  }
}

/**
 * @param {Core} core
 * @param {ModelConfig} config
 * @param {{ variant?: string | undefined, head?: import('../core.js').HeadChoice | undefined, signal?: AbortSignal | undefined }} [options] kernel family,
 *   default: the last of the core's; how the head is kept
 * @returns {Promise<CoreModel>} sealed; the caller closes it
 * @throws {BmError} as `core.createModel` does; or `signal.reason`
 */
export async function randomModel(core, config, { variant, head, signal } = {}) {
  const model = core.createModel(config, { variant, head })
  try {
    await fillRandomly(model, core, signal)
    return model
  } catch (error) {
    model.close()
    throw error
  }
}

/**
 * @param {import('../generate.js').AnyModel} model  empty; sealed afterwards
 * @param {import('../format.js').TensorTable} core
 * @param {AbortSignal} [signal]
 */
export async function fillRandomly(model, core, signal) {
  for (const { index, offset, bytes } of randomWeights(core, model.config)) {
    model.write(index, offset, bytes)
    if (offset > 0) continue
    await breathe()
    signal?.throwIfAborted()
  }
  for (let part = 0; part < model.parts; part++) model.seal(part)
}
