/**
 * Writes a packed 1-bit model out as a checkpoint of full weights, W = alpha * sign + beta, as the authors lay one out.
 *
 * Owns the way back from packed names to the authors'. Knows nothing of what is measured on it.
 */

import { openAsBlob } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { blobSource } from '../../js/convert/index.js'
import { PackedSource } from '../../js/convert/packed-source.js'
import { writeSafetensors } from '../js/support/checkpoint-safetensors.js'

/** @typedef {import('../../js/core.js').Core} Core */

/** Packed names inside a layer -> the authors'. */
const LAYER = /** @type {Record<string, string>} */ ({
  'norm.weight': 'norm.weight',
  'conv.bias': 'mixer.conv1d.bias',
  dt_bias: 'mixer.dt_bias',
  A_log: 'mixer.A_log',
  D: 'mixer.D',
  'gate_norm.weight': 'mixer.norm.weight',
})

/**
 * @param {Core} core
 * @param {string} path of a packed 1-bit model with a tied int8 table
 * @param {string} dir where config.json and model.safetensors go
 * @returns {Promise<string>} path of the tokenizer
 */
export async function writeFullWeights(core, path, dir) {
  const packed = await PackedSource.open(core, blobSource(path, await openAsBlob(path)))
  const { config } = packed.header
  if (config.projection_dtype || !config.tie_embeddings || config.embedding_dtype !== 'I8') {
    throw new Error(`${path}: want a 1-bit model with a tied int8 embedding`)
  }
  /** @type {Map<string, { shape: number[], values: Float32Array }>} */
  const tensors = new Map()
  tensors.set('backbone.embedding.weight', await embedding(packed))
  tensors.set('backbone.norm_f.weight', await floats(packed, 'norm_f.weight'))
  for (let n = 0; n < config.n_layer; n++) {
    const own = `backbone.layers.${n}`
    for (const [name, theirs] of Object.entries(LAYER)) {
      tensors.set(`${own}.${theirs}`, await floats(packed, `layers.${n}.${name}`))
    }
    const conv = await floats(packed, `layers.${n}.conv.weight`)
    const [channels = 0, taps = 0] = conv.shape
    tensors.set(`${own}.mixer.conv1d.weight`, { ...conv, shape: [channels, 1, taps] })
    for (const linear of ['in_proj', 'out_proj']) {
      tensors.set(`${own}.mixer.${linear}.weight`, await matrix(packed, `layers.${n}.${linear}`))
    }
  }
  await writeSafetensors(
    join(dir, 'model.safetensors'),
    [...tensors].map(([name, { shape, values }]) => ({
      name,
      shape,
      dtype: 'F32',
      sizeBytes: values.byteLength,
      bytes: () => new Uint8Array(values.buffer),
    })),
  )
  await writeFile(join(dir, 'config.json'), JSON.stringify(configJson(packed.header)))
  const tokenizer = join(dir, 'tokens.json')
  await writeFile(tokenizer, String(await packed.tokenizerJson()))
  return tokenizer
}

/** @param {PackedSource} packed @param {string} name */
async function floats(packed, name) {
  return { shape: packed.tensor(name).shape, values: await packed.floats(name) }
}

/** @param {PackedSource} packed */
async function embedding(packed) {
  const { shape } = packed.tensor('embedding.weight')
  const codes = new Int8Array((await packed.bytes('embedding.weight')).slice().buffer)
  const scales = await packed.floats('embedding.scale')
  const columns = Number(shape[1])
  const values = Float32Array.from(codes, (q, i) => q * Number(scales[Math.floor(i / columns)]))
  return { shape, values }
}

/** @param {PackedSource} packed @param {string} at */
async function matrix(packed, at) {
  const bits = await packed.bytes(`${at}.sign`)
  const alpha = await packed.floats(`${at}.alpha`)
  const beta = await packed.floats(`${at}.beta`)
  const columns = alpha.length
  const values = new Float32Array(bits.length * 8)
  for (let i = 0; i < values.length; i++) {
    const sign = (Number(bits[i >> 3]) >> (i & 7)) & 1 ? 1 : -1
    values[i] = sign * Number(alpha[i % columns]) + Number(beta[i % columns])
  }
  return { shape: [values.length / columns, columns], values }
}

/** @param {import('../../js/format.js').PackedHeader} header */
function configJson({ config, bosId, eosIds }) {
  const { d_model, n_layer, d_state, d_conv, expand, headdim, ngroups, padded_vocab_size } = config
  const limits = { dt_limit: [config.dt_min, config.dt_max] }
  return {
    d_model,
    n_layer,
    vocab_size: config.vocab_size,
    pad_vocab_size_multiple: padded_vocab_size === config.vocab_size ? 1 : padded_vocab_size,
    ssm_cfg: { layer: 'Mamba2', d_state, d_conv, expand, headdim, ngroups, ...limits },
    tie_embeddings: true,
    norm_epsilon: config.norm_eps,
    bos_token_id: bosId,
    eos_token_id: eosIds,
  }
}
