/**
 * Which tensor of a packed model becomes which of a GGUF file of the architecture `mamba2`, and the metadata that says the sizes.
 *
 * Owns llama.cpp's names and the algebra between the two forms; blocks are made by ggml-blocks.js. Source of the names and
 * shapes: src/models/mamba2.cpp of llama.cpp. The idea: with v = norm(r), `W v = S (alpha * v) + (beta . v)`. So alpha is
 * folded into the weight of the norm before a projection, which leaves a matrix of signs; and the rest is an adapter of rank 1,
 * whose input is now alpha * v: its row is beta / alpha and its column all ones.
 */

import { BmError } from '../errors.js'
import { int8Blocks, int8Floats, signBlocks } from './ggml-blocks.js'
import { GGML_TYPES } from './gguf.js'
import { decodeFloats, SLICE_BYTES } from './stored-tensor.js'

/** @typedef {import('./gguf.js').GgufEntry} GgufEntry */
/** @typedef {import('./gguf.js').GgufSource} GgufSource */
/** @typedef {import('./ggml-blocks.js').SignType} SignType */
/** @typedef {import('./packed-source.js').PackedSource} PackedSource */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */

/** @typedef {'F32' | 'Q8_0'} TableType */

/** Without a limit of its own, a Mamba has none: what converters write for one. */
const CONTEXT_LENGTH = 2 ** 20

/** The two projections of a layer: ours, the norm before it, llama.cpp's names of both. */
const PROJECTIONS = /** @type {const} */ ([
  { own: 'in_proj', norm: 'norm', matrix: 'ssm_in', scale: 'attn_norm' },
  { own: 'out_proj', norm: 'gate_norm', matrix: 'ssm_out', scale: 'ssm_norm' },
])

/** What llama.cpp's mamba2 always does. */
const FIXED = /** @type {const} */ ({ dt_min: 0, dt_max: null })

/**
 * @param {ModelConfig} config
 * @throws {BmError} `unsupported` for a model that llama.cpp would compute differently
 */
export function checkExportable(config) {
  if (config.projection_dtype) {
    throw new BmError(
      'unsupported',
      `the projections are dense (${config.projection_dtype}), want 1 bit: llama.cpp converts full-precision checkpoints itself`,
    )
  }
  for (const [key, wanted] of Object.entries(FIXED)) {
    const found = config[/** @type {keyof typeof FIXED} */ (key)]
    if (found === wanted) continue
    throw new BmError(
      'unsupported',
      `config ${key} is ${found}, want ${wanted}: llama.cpp's mamba2 does not limit the step`,
    )
  }
}

/** @param {ModelConfig} config @returns {GgufEntry[]} */
export function sizeMetadata(config) {
  const d_inner = config.expand * config.d_model
  /** @type {Record<string, number>} */
  const sizes = {
    context_length: CONTEXT_LENGTH,
    embedding_length: config.d_model,
    feed_forward_length: 0,
    block_count: config.n_layer,
    'attention.head_count': 0,
    'ssm.conv_kernel': config.d_conv,
    'ssm.inner_size': d_inner,
    'ssm.state_size': config.d_state,
    'ssm.time_step_rank': d_inner / config.headdim,
    'ssm.group_count': config.ngroups,
  }
  return [
    ...Object.entries(sizes).map(([key, value]) => ({
      key: `mamba2.${key}`,
      type: /** @type {const} */ ('u32'),
      value,
    })),
    { key: 'mamba2.attention.layer_norm_rms_epsilon', type: 'f32', value: config.norm_eps },
  ]
}

/**
 * The type of a matrix of signs: rows that are no whole blocks of Q1_0 become Q4_0, which holds the same numbers in 4.5 bits.
 *
 * @param {number} columns
 * @param {'q1_0' | 'f32'} signs
 * @returns {SignType}
 */
export function signType(columns, signs) {
  if (signs === 'f32') return 'F32'
  return columns % GGML_TYPES.Q1_0.block === 0 ? 'Q1_0' : 'Q4_0'
}

/**
 * @param {PackedSource} packed
 * @param {{ signs: 'q1_0' | 'f32', table: TableType }} types
 * @returns {GgufSource[]}
 */
export function modelTensors(packed, { signs, table }) {
  const { config } = packed.header
  const tensors = [tableTensor(packed, 'embedding', 'token_embd.weight', table)]
  for (let layer = 0; layer < config.n_layer; layer++) {
    tensors.push(...layerTensors(packed, layer, signs))
  }
  tensors.push(
    floatTensor('output_norm.weight', [config.d_model], () => packed.floats('norm_f.weight')),
  )
  if (!config.tie_embeddings) {
    tensors.push(tableTensor(packed, 'head', 'output.weight', table))
  }
  return tensors
}

/**
 * @param {PackedSource} packed
 * @param {number} layer
 * @param {'q1_0' | 'f32'} signs
 * @returns {GgufSource[]}
 */
function layerTensors(packed, layer, signs) {
  const { config } = packed.header
  const own = (/** @type {string} */ name) => `layers.${layer}.${name}`
  const block = (/** @type {string} */ name) => `blk.${layer}.${name}`
  const d_inner = config.expand * config.d_model
  const n_heads = d_inner / config.headdim
  const conv_dim = d_inner + 2 * config.ngroups * config.d_state
  const plain = (/** @type {string} */ name) => () => packed.floats(own(name))
  const minusExp = async () => (await packed.floats(own('A_log'))).map((a) => -Math.exp(a))
  const [input, output] = PROJECTIONS
  const grouped = [d_inner / config.ngroups, config.ngroups]
  return [
    foldedNorm(packed, layer, input, [config.d_model]),
    signTensor(packed, own('in_proj.sign'), block('ssm_in.weight'), signs),
    floatTensor(block('ssm_conv1d.weight'), [config.d_conv, conv_dim], plain('conv.weight')),
    floatTensor(block('ssm_conv1d.bias'), [conv_dim], plain('conv.bias')),
    floatTensor(block('ssm_dt.bias'), [n_heads], plain('dt_bias')),
    floatTensor(block('ssm_a'), [1, n_heads], minusExp),
    floatTensor(block('ssm_d'), [1, n_heads], plain('D')),
    foldedNorm(packed, layer, output, grouped),
    signTensor(packed, own('out_proj.sign'), block('ssm_out.weight'), signs),
  ]
}

/**
 * @param {string} name
 * @param {number[]} shape
 * @param {() => Promise<Float32Array>} values
 * @returns {GgufSource}
 */
function floatTensor(name, shape, values) {
  const pieces = async function* () {
    yield bytesOf(await values())
  }
  return { name, type: 'F32', shape, pieces }
}

/**
 * The norm before a projection, times the projection's alpha.
 *
 * @param {PackedSource} packed
 * @param {number} layer
 * @param {(typeof PROJECTIONS)[number]} projection
 * @param {number[]} shape
 */
function foldedNorm(packed, layer, { own, norm, scale }, shape) {
  return floatTensor(`blk.${layer}.${scale}.weight`, shape, async () => {
    const name = `layers.${layer}.${own}.alpha`
    const alpha = await packed.floats(name)
    const weight = await packed.floats(`layers.${layer}.${norm}.weight`)
    return finite(
      weight.map((w, i) => w * Number(alpha[i])),
      `${name} times the norm's weight`,
    )
  })
}

/**
 * @param {PackedSource} packed
 * @param {string} own name of the packed tensor
 * @param {string} name
 * @param {'q1_0' | 'f32'} signs
 * @returns {GgufSource}
 */
function signTensor(packed, own, name, signs) {
  const [rows = 0, rowBytes = 0] = packed.tensor(own).shape
  const columns = rowBytes * 8
  const type = signType(columns, signs)
  const pieces = async function* () {
    for (const [row, count] of slicesOf(rows, columns * 4)) {
      yield signBlocks(await packed.bytes(own, row * rowBytes, count * rowBytes), type)
    }
  }
  return { name, type, shape: [columns, rows], pieces }
}

/**
 * The embedding or the head. Its padding rows are never used and stay behind: llama.cpp wants a row for each token.
 *
 * @param {PackedSource} packed
 * @param {'embedding' | 'head'} own
 * @param {string} name
 * @param {TableType} type
 * @returns {GgufSource}
 */
function tableTensor(packed, own, name, type) {
  const { vocab_size: rows, d_model: columns, embedding_dtype: dtype } = packed.header.config
  const width = { I8: 1, F16: 2, F32: 4 }[dtype]
  const pieces = async function* () {
    const scales = dtype === 'I8' ? await packed.floats(`${own}.scale`) : new Float32Array(0)
    for (const [row, count] of slicesOf(rows, columns * 4)) {
      const bytes = await packed.bytes(
        `${own}.weight`,
        row * columns * width,
        count * columns * width,
      )
      if (dtype !== 'I8') yield bytesOf(decodeFloats(bytes, dtype))
      else yield int8Table(bytes, scales.subarray(row, row + count), type, `${own}.scale`)
    }
  }
  return { name, type, shape: [columns, rows], pieces }
}

/**
 * @param {Uint8Array} bytes
 * @param {Float32Array} scales
 * @param {TableType} type
 * @param {string} name of the scales, for messages
 */
function int8Table(bytes, scales, type, name) {
  const codes = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length)
  if (type === 'F32') return bytesOf(int8Floats(codes, scales))
  const { blocks, overflow } = int8Blocks(codes, scales)
  if (overflow < 0) return blocks
  const found = `${name} has ${scales[overflow]}, too large for the half precision of Q8_0`
  throw new BmError('unsupported', `${found}; F32 holds it`)
}

/**
 * The adapter: for each projection whose beta is not zero everywhere, a row and a column.
 *
 * @param {PackedSource} packed
 * @returns {Promise<GgufSource[]>} empty when every beta is zero
 * @throws {BmError} `unsupported` where alpha is zero, or too small, and beta is not
 */
export async function adapterTensors(packed) {
  const { n_layer } = packed.header.config
  const tensors = []
  for (let layer = 0; layer < n_layer; layer++) {
    for (const { own, matrix } of PROJECTIONS) {
      const at = `layers.${layer}.${own}`
      const [alpha, beta] = [await packed.floats(`${at}.alpha`), await packed.floats(`${at}.beta`)]
      if (beta.every((b) => b === 0)) continue
      const row = beta.map((b, i) => (b === 0 ? 0 : b / Number(alpha[i])))
      finite(row, `${at}.beta divided by alpha`)
      const [rows = 0] = packed.tensor(`${at}.sign`).shape
      const name = `blk.${layer}.${matrix}.weight`
      const column = new Float32Array(rows).fill(1)
      tensors.push(
        floatTensor(`${name}.lora_a`, [row.length, 1], async () => row),
        floatTensor(`${name}.lora_b`, [1, rows], async () => column),
      )
    }
  }
  return tensors
}

/** @param {Float32Array} values @param {string} what @returns {Float32Array} the same */
function finite(values, what) {
  const column = values.findIndex((value) => !Number.isFinite(value))
  if (column < 0) return values
  throw new BmError(
    'unsupported',
    `${what} is ${values[column]} in column ${column}, want a finite number`,
  )
}

/** @param {number} rows @param {number} rowBytes @returns {[number, number][]} first row and count of each slice */
function slicesOf(rows, rowBytes) {
  const step = Math.max(1, Math.floor(SLICE_BYTES / rowBytes))
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => [
    i * step,
    Math.min(step, rows - i * step),
  ])
}

/** @param {Float32Array} values */
function bytesOf(values) {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}
