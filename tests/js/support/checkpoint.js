/**
 * Makes Bi-Mamba checkpoint folders of any size from a seed, in every container the converter reads.
 *
 * Owns the authors' tensor names, plausible random values (alpha of both signs, beta not zero, decays and
 * steps in the ranges of a trained model) and the folder's files. Knows nothing of the packed model.
 * The idea: a tensor's values come from its own seed, so they are made when written and never all held.
 */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeSafetensors } from './checkpoint-safetensors.js'
import { encodeFloats, roundTo } from './float-codes.js'
import { pickleStateDict } from './pickle-writer.js'
import { seeded } from './seeded.js'
import { writeStoredZip } from './stored-zip.js'

/** @typedef {import('./seeded.js').Seeded} Seeded */

/**
 * @typedef {object} TestConfig sizes; what is left out has the value of DEFAULTS
 * @property {number} [n_layer]
 * @property {number} [d_model]
 * @property {number} [d_state]
 * @property {number} [headdim]
 * @property {number} [ngroups]
 * @property {number} [d_conv]
 * @property {number} [expand]
 * @property {number} [vocab_size]
 * @property {number} [pad_vocab_size_multiple]
 * @property {boolean} [tie_embeddings]
 * @property {number} [norm_eps]
 * @property {number} [dt_min]
 * @property {number | null} [dt_max] null: no upper limit
 */

/** @type {Required<TestConfig>} */
export const DEFAULTS = {
  n_layer: 2,
  d_model: 64,
  d_state: 16,
  headdim: 32,
  ngroups: 1,
  d_conv: 4,
  expand: 2,
  vocab_size: 50,
  pad_vocab_size_multiple: 16,
  tie_embeddings: true,
  norm_eps: 1e-5,
  dt_min: 0,
  dt_max: null,
}

/**
 * @typedef {object} MadeTensor
 * @property {string} name
 * @property {number[]} shape
 * @property {string} [dtype] default: the checkpoint's
 * @property {() => Float32Array} values made anew at each call
 * @property {string} [sharedWith] name of the tensor whose storage it shares (.bin) or repeats (safetensors)
 */

/**
 * @typedef {object} CheckpointOptions
 * @property {TestConfig} [config]
 * @property {number} [seed]
 * @property {'safetensors' | 'sharded' | 'bin' | 'bin-sharded'} [container]
 * @property {'F32' | 'F16' | 'BF16'} [dtype]
 * @property {boolean} [tiedHead] a tied checkpoint also holds lm_head.weight (default true, as the authors write it)
 * @property {'latent' | 'dense' | 'full'} [projections] latent floats with wscale and wbias; a dense export of
 *   two values a column; or full precision (plain Mamba-2)
 * @property {string[]} [nest] dict keys around the state_dict (.bin only)
 * @property {string} [prefix] written before every tensor name
 * @property {boolean} [zip64] (.bin only)
 * @property {Record<string, string | Uint8Array>} [files] further files of the folder
 * @property {(json: Record<string, unknown>) => unknown} [editConfig] changes config.json; what it returns is written (a string as it is)
 * @property {(tensors: MadeTensor[]) => MadeTensor[]} [edit] changes the list of tensors before it is written
 * @property {boolean} [keep] return all values (default true; false for checkpoints larger than memory)
 */

/**
 * Writes config.json and the weights into `dir` (created if need be).
 *
 * @param {string} dir
 * @param {CheckpointOptions} [options]
 * @returns {Promise<{ config: ReturnType<typeof packedConfig>, tensors: Map<string, { shape: number[], values: Float32Array }>, seed: number }>}
 *   `config`: as in a packed model without embedding_dtype; `tensors`: under the authors' names, as a reader of the stored dtype sees them
 */
export async function writeCheckpoint(dir, options = {}) {
  const { seed = 1, container = 'safetensors', dtype = 'F32', keep = true } = options
  const config = { ...DEFAULTS, ...options.config }
  await mkdir(dir, { recursive: true })
  const json = options.editConfig?.(configJson(config)) ?? configJson(config)
  const text = typeof json === 'string' ? json : JSON.stringify(json, null, 2)
  await writeFile(join(dir, 'config.json'), text)
  for (const [name, data] of Object.entries(options.files ?? {})) {
    await writeFile(join(dir, name), data)
  }
  const made = madeTensors(config, seed, options)
  const tensors = options.edit?.(made) ?? made
  const prefix = options.prefix ?? ''
  const named = tensors.map(({ sharedWith, ...t }) => ({
    ...t,
    name: prefix + t.name,
    ...(sharedWith === undefined ? {} : { sharedWith: prefix + sharedWith }),
  }))
  await writeContainer(dir, named, { container, dtype, ...options })
  const kept = keep ? tensors : []
  const entries = kept.map(
    ({ name, shape, values, dtype: own = dtype }) =>
      /** @type {const} */ ([name, { shape, values: roundTo(values(), own) }]),
  )
  return { config: packedConfig(config), tensors: new Map(entries), seed }
}

/** @param {Required<TestConfig>} c */
export function packedConfig(c) {
  const multiple = c.pad_vocab_size_multiple
  return {
    n_layer: c.n_layer,
    d_model: c.d_model,
    d_state: c.d_state,
    headdim: c.headdim,
    ngroups: c.ngroups,
    d_conv: c.d_conv,
    expand: c.expand,
    vocab_size: c.vocab_size,
    padded_vocab_size: Math.ceil(c.vocab_size / multiple) * multiple,
    tie_embeddings: c.tie_embeddings,
    norm_eps: c.norm_eps,
    dt_min: c.dt_min,
    dt_max: c.dt_max,
  }
}

/** @param {Required<TestConfig>} c @returns {Record<string, unknown>} config.json as the authors write it */
function configJson(c) {
  const limits = c.dt_min === 0 && c.dt_max === null ? {} : { dt_limit: [c.dt_min, c.dt_max] }
  const eps = c.norm_eps === DEFAULTS.norm_eps ? {} : { norm_epsilon: c.norm_eps }
  return {
    d_model: c.d_model,
    d_intermediate: 0,
    n_layer: c.n_layer,
    vocab_size: c.vocab_size,
    ssm_cfg: {
      layer: 'Mamba2',
      d_state: c.d_state,
      d_conv: c.d_conv,
      expand: c.expand,
      headdim: c.headdim,
      ngroups: c.ngroups,
      ...limits,
    },
    attn_layer_idx: [],
    attn_cfg: {},
    rms_norm: true,
    residual_in_fp32: true,
    fused_add_norm: true,
    pad_vocab_size_multiple: c.pad_vocab_size_multiple,
    tie_embeddings: c.tie_embeddings,
    ...eps,
  }
}

/**
 * @param {Required<TestConfig>} c
 * @param {number} seed
 * @param {CheckpointOptions} options
 * @returns {MadeTensor[]}
 */
function madeTensors(c, seed, { projections = 'latent', tiedHead = true }) {
  const { d_model: d, d_conv } = c
  const inner = c.expand * d
  const heads = inner / c.headdim
  const conv = inner + 2 * c.ngroups * c.d_state
  const vocab = packedConfig(c).padded_vocab_size
  /** @type {MadeTensor[]} */
  const list = []
  /** @param {string} name @param {number[]} shape @param {(r: Seeded) => number} draw */
  const add = (name, shape, draw) => {
    const own = seed * 7919 + list.length * 104729
    const count = shape.reduce((a, b) => a * b, 1)
    list.push({ name, shape, values: () => filled(count, seeded(own), draw) })
  }
  /** @param {string} name @param {number} rows @param {number} cols */
  const linear = (name, rows, cols) => {
    const spread = 1 / Math.sqrt(cols)
    if (projections === 'dense') {
      const own = seed * 7919 + list.length * 104729
      const values = () => denseExport(rows, cols, seeded(own))
      list.push({ name: `${name}.weight`, shape: [rows, cols], values })
      return
    }
    add(`${name}.weight`, [rows, cols], (r) => r.bell() * spread)
    if (projections === 'full') return
    add(`${name}.wscale`, [1, cols], (r) => drawAlpha(r, spread))
    add(`${name}.wbias`, [1, cols], (r) => drawBeta(r, spread))
  }
  add('backbone.embedding.weight', [vocab, d], (r) => (1.5 * r.bell()) / Math.sqrt(d))
  for (let n = 0; n < c.n_layer; n++) {
    const mixer = `backbone.layers.${n}.mixer`
    add(`${mixer}.dt_bias`, [heads], drawStepBias)
    add(`${mixer}.A_log`, [heads], (r) => Math.log(r.between(1, 16)))
    add(`${mixer}.D`, [heads], (r) => 1 + 0.2 * r.bell())
    linear(`${mixer}.in_proj`, 2 * inner + 2 * c.ngroups * c.d_state + heads, d)
    add(`${mixer}.conv1d.weight`, [conv, 1, d_conv], (r) => r.between(-0.5, 0.5))
    add(`${mixer}.conv1d.bias`, [conv], (r) => r.between(-0.5, 0.5))
    add(`${mixer}.norm.weight`, [inner], (r) => 1 + 0.1 * r.bell())
    linear(`${mixer}.out_proj`, d, inner)
    add(`backbone.layers.${n}.norm.weight`, [d], (r) => 1 + 0.1 * r.bell())
  }
  add('backbone.norm_f.weight', [d], (r) => 1 + 0.1 * r.bell())
  const head = { name: 'lm_head.weight', shape: [vocab, d] }
  if (!c.tie_embeddings) add(head.name, head.shape, (r) => (1.5 * r.bell()) / Math.sqrt(d))
  else if (tiedHead) list.push({ ...sameValues(list, 'backbone.embedding.weight'), ...head })
  return list
}

/** @param {MadeTensor[]} list @param {string} name */
function sameValues(list, name) {
  const found = list.find((tensor) => tensor.name === name)
  return { values: () => (found ? found.values() : new Float32Array(0)), sharedWith: name }
}

/** A column scale: mostly positive, one in eight negative, as training leaves them. */
function drawAlpha(/** @type {Seeded} */ r, /** @type {number} */ spread) {
  return (r.below(8) === 0 ? -1 : 1) * r.between(0.5, 1.5) * spread
}

/** A column offset, a tenth of the scale. */
function drawBeta(/** @type {Seeded} */ r, /** @type {number} */ spread) {
  return 0.1 * r.bell() * spread
}

/** softplus(dt_bias) is a step between 0.001 and 0.1, log-uniform. */
function drawStepBias(/** @type {Seeded} */ r) {
  const step = Math.exp(r.between(Math.log(0.001), Math.log(0.1)))
  return step + Math.log(-Math.expm1(-step))
}

/** @param {number} count @param {Seeded} r @param {(r: Seeded) => number} draw */
function filled(count, r, draw) {
  const out = new Float32Array(count)
  for (let i = 0; i < count; i++) out[i] = draw(r)
  return out
}

/** Every column holds exactly two values: beta + alpha and beta - alpha. */
function denseExport(
  /** @type {number} */ rows,
  /** @type {number} */ cols,
  /** @type {Seeded} */ r,
) {
  const spread = 1 / Math.sqrt(cols)
  const alpha = filled(cols, r, () => Math.fround(drawAlpha(r, spread)))
  const beta = filled(cols, r, () => Math.fround(drawBeta(r, spread)))
  return filled(rows * cols, r, () => 0).map((_, i) => {
    const col = i % cols
    return Number(beta[col]) + (r.below(2) ? 1 : -1) * Number(alpha[col])
  })
}

/**
 * @param {string} dir
 * @param {MadeTensor[]} tensors
 * @param {CheckpointOptions & { container: string, dtype: string }} options
 */
async function writeContainer(dir, tensors, options) {
  const bin = options.container.startsWith('bin')
  const stem = bin ? 'pytorch_model' : 'model'
  const suffix = bin ? 'bin' : 'safetensors'
  /** @param {string} file @param {MadeTensor[]} part */
  const write = (file, part) =>
    bin ? writeBin(join(dir, file), part, options) : writeSafe(join(dir, file), part, options.dtype)
  if (!options.container.endsWith('sharded')) return write(`${stem}.${suffix}`, tensors)
  const half = Math.ceil(tensors.length / 2)
  /** @type {Record<string, string>} */
  const weight_map = {}
  for (const [i, part] of [tensors.slice(0, half), tensors.slice(half)].entries()) {
    const file = `${stem}-0000${i + 1}-of-00002.${suffix}`
    for (const tensor of part) weight_map[tensor.name] = file
    await write(file, part)
  }
  const index = JSON.stringify({ metadata: { total_size: 0 }, weight_map }, null, 2)
  await writeFile(join(dir, `${stem}.${suffix}.index.json`), index)
}

/** @param {MadeTensor[]} tensors @param {string} dtype */
function withBytes(tensors, dtype) {
  return tensors.map(({ name, shape, values, dtype: own = dtype }) => ({
    name,
    shape,
    dtype: own,
    sizeBytes:
      shape.reduce((a, b) => a * b, 1) *
      (own === 'F64' || own === 'I64' ? 8 : own === 'F32' ? 4 : 2),
    bytes: () => encodeFloats(values(), own),
  }))
}

/** @param {string} path @param {MadeTensor[]} tensors @param {string} dtype */
async function writeSafe(path, tensors, dtype) {
  await writeSafetensors(path, withBytes(tensors, dtype))
}

/** @param {string} path @param {MadeTensor[]} tensors @param {CheckpointOptions & { dtype: string }} options */
async function writeBin(path, tensors, { dtype, nest, zip64 = false }) {
  const data = withBytes(tensors, dtype)
  /** @type {Map<string, string>} */
  const keys = new Map()
  const pickled = tensors.map(({ name, sharedWith }, i) => {
    const storage = keys.get(sharedWith ?? '') ?? String(i)
    keys.set(name, storage)
    const { shape, dtype: own } = /** @type {typeof data[number]} */ (data[i])
    return { name, shape, dtype: own, storage, storageLength: shape.reduce((a, b) => a * b, 1) }
  })
  const root = 'pytorch_model'
  const storages = data
    .map((tensor, i) => ({ name: `${root}/data/${i}`, bytes: tensor.bytes }))
    .filter((_, i) => pickled[i]?.storage === String(i))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
  const text = new TextEncoder()
  await writeStoredZip(
    path,
    [
      { name: `${root}/data.pkl`, bytes: pickleStateDict(pickled, { nest: nest ?? [] }) },
      { name: `${root}/byteorder`, bytes: text.encode('little') },
      ...storages,
      { name: `${root}/version`, bytes: text.encode('3\n') },
    ],
    { zip64 },
  )
}
