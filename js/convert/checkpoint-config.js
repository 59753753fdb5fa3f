/**
 * Reads config.json as the authors' code writes it and says what the packed model's config is.
 *
 * Owns the names and defaults of that file, and the list of options this runtime does not compute, each
 * refused by name. Ranges of the sizes are checked by the core. Knows no tensor.
 * The idea: an option that is not understood must never be read past, so unknown keys of ssm_cfg are refused.
 */

import { BmError } from '../errors.js'
import { parsePythonJson, readSmallFile } from './byte-source.js'

/** @typedef {import('./byte-source.js').CheckpointFolder} CheckpointFolder */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */

const FILE = 'config.json'
const MAX_BYTES = 1048576

/** Keys of ssm_cfg that only guide training or choose between equal code paths. */
const HARMLESS = [
  'conv_init',
  'A_init_range',
  'dt_min',
  'dt_max',
  'dt_init_floor',
  'chunk_size',
  'use_mem_eff_path',
  'sequence_parallel',
]

/** Keys of ssm_cfg that are read below. */
const READ = ['layer', 'd_state', 'd_conv', 'expand', 'headdim', 'ngroups', 'dt_limit', 'd_ssm']

/** Options with one supported value, which is also what a missing key means. */
const FIXED_SSM = /** @type {Record<string, unknown>} */ ({
  rmsnorm: true,
  norm_before_gate: false,
  D_has_hdim: false,
  bias: false,
  conv_bias: true,
  process_group: null,
})

/**
 * @param {CheckpointFolder} folder
 * @returns {Promise<{ config: Omit<ModelConfig, 'embedding_dtype'>, json: Record<string, unknown> }>}
 *   `tie_embeddings` as the file says; whether the tensors agree is for the converter to see
 * @throws {BmError} `checkpoint`
 */
export async function readCheckpointConfig(folder) {
  const bytes = await readSmallFile(folder, FILE, MAX_BYTES)
  if (!bytes) throw new BmError('checkpoint', `${folder.name}: has no ${FILE}`)
  const json = parsePythonJson(FILE, bytes)
  if (json.d_model === undefined && json.hidden_size !== undefined) {
    throw bad(
      'hidden_size',
      json.hidden_size,
      'd_model: a checkpoint as the mamba_ssm code writes it',
    )
  }
  const ssm = json.ssm_cfg ?? {}
  if (typeof ssm !== 'object' || Array.isArray(ssm)) throw bad('ssm_cfg', ssm, 'an object')
  const ssmCfg = /** @type {Record<string, unknown>} */ (ssm)
  refuseUnsupported(json, ssmCfg)
  const integer = (
    /** @type {Record<string, unknown>} */ from,
    /** @type {string} */ key,
    /** @type {number} */ other,
  ) => readInteger(from, key, other)
  const vocab = integer(json, 'vocab_size', Number.NaN)
  const multiple = integer(json, 'pad_vocab_size_multiple', 8)
  const [dtMin, dtMax] = readLimits(ssmCfg.dt_limit)
  const config = {
    n_layer: integer(json, 'n_layer', Number.NaN),
    d_model: integer(json, 'd_model', Number.NaN),
    d_state: integer(ssmCfg, 'd_state', 128),
    headdim: integer(ssmCfg, 'headdim', 64),
    ngroups: integer(ssmCfg, 'ngroups', 1),
    d_conv: integer(ssmCfg, 'd_conv', 4),
    expand: integer(ssmCfg, 'expand', 2),
    vocab_size: vocab,
    padded_vocab_size: Math.ceil(vocab / multiple) * multiple,
    tie_embeddings: readFlag(json, 'tie_embeddings', true),
    norm_eps: readNumber(json, 'norm_epsilon', 1e-5),
    dt_min: dtMin,
    dt_max: dtMax,
  }
  const inner = config.expand * config.d_model
  if ((ssmCfg.d_ssm ?? inner) !== inner)
    throw bad('ssm_cfg.d_ssm', ssmCfg.d_ssm, `${inner} or null`)
  return { config, json }
}

/** @param {string} key @param {unknown} found @param {string} wanted */
function bad(key, found, wanted) {
  const shown = found === undefined ? 'missing' : String(JSON.stringify(found)).slice(0, 100)
  return new BmError('checkpoint', `${FILE}: ${key} is ${shown}, want ${wanted}`)
}

/** @param {Record<string, unknown>} json @param {Record<string, unknown>} ssm */
function refuseUnsupported(json, ssm) {
  if (ssm.layer !== 'Mamba2') {
    throw bad(
      'ssm_cfg.layer',
      ssm.layer,
      '"Mamba2" (without it the model is a Mamba1, which this runtime does not run)',
    )
  }
  for (const key of ['scaling_pattern', 'scale_pattern']) {
    const pattern = ssm[key] ?? json[key] ?? 'column'
    if (pattern !== 'column') throw bad(key, pattern, '"column", the only scaling supported')
  }
  const attention = json.attn_layer_idx ?? []
  if (!Array.isArray(attention) || attention.length)
    throw bad('attn_layer_idx', attention, '[]: attention layers are not supported')
  if ((json.d_intermediate ?? 0) !== 0)
    throw bad('d_intermediate', json.d_intermediate, '0: MLP layers are not supported')
  if ((json.rms_norm ?? true) !== true)
    throw bad('rms_norm', json.rms_norm, 'true: LayerNorm is not supported')
  for (const [key, value] of Object.entries(ssm)) {
    if (Object.hasOwn(FIXED_SSM, key)) {
      if (value !== FIXED_SSM[key])
        throw bad(`ssm_cfg.${key}`, value, `${FIXED_SSM[key]}, the only value supported`)
    } else if (!READ.includes(key) && !HARMLESS.includes(key) && !key.startsWith('scal')) {
      throw bad(`ssm_cfg.${key}`, value, 'no such key: its meaning is unknown')
    }
  }
}

/** @param {Record<string, unknown>} from @param {string} key @param {number} other NaN: the key must be there */
function readInteger(from, key, other) {
  const value = from[key] ?? other
  if (!Number.isSafeInteger(value) || Number(value) < 1)
    throw bad(key, from[key], 'a positive integer')
  return Number(value)
}

/** @param {Record<string, unknown>} from @param {string} key @param {number} other */
function readNumber(from, key, other) {
  const value = from[key] ?? other
  if (typeof value !== 'number' || !Number.isFinite(value)) throw bad(key, value, 'a number')
  return value
}

/** @param {Record<string, unknown>} from @param {string} key @param {boolean} other */
function readFlag(from, key, other) {
  const value = from[key] ?? other
  if (typeof value !== 'boolean') throw bad(key, value, 'true or false')
  return value
}

/** @param {unknown} value `[low, high]`; Infinity or null: no upper limit @returns {[number, number | null]} */
function readLimits(value) {
  if (value === undefined) return [0, null]
  const [low, high] = Array.isArray(value) && value.length === 2 ? value : []
  const top = high === Number.POSITIVE_INFINITY ? null : high
  if (!Number.isFinite(low) || (top !== null && !Number.isFinite(top))) {
    throw bad('ssm_cfg.dt_limit', value, '[low, high], high perhaps Infinity')
  }
  return [low, top]
}
