/**
 * Says from which tensor of a checkpoint each tensor of the packed model is made, and checks that all are there.
 *
 * Owns the authors' names and the shapes that follow from the packed ones; the packed names and shapes come from
 * the core's table. Reads no numbers. The idea: every difference between what the config implies and what the
 * folder holds is found before the first weight is read, and told in one error.
 */

import { BmError } from '../errors.js'

/** @typedef {import('./stored-tensor.js').StoredTensor} StoredTensor */
/** @typedef {import('../format.js').TensorSpec} TensorSpec */

/**
 * How a packed tensor is made: `table` rows of the embedding or head, in its dtype; `scales` of the table before;
 * `floats` as they are; `signs` of latent weights; of a dense export `denseSigns` (and its alpha and beta follow);
 * of a dense projection a `table`, or `codes` in 4 bits, and its `scales`.
 * @typedef {'table' | 'codes' | 'scales' | 'floats' | 'signs' | 'denseSigns' | 'denseAlpha' | 'denseBeta'} Recipe
 */

/** @typedef {{ spec: TensorSpec, recipe: Recipe, source: StoredTensor | null }} PlanStep */

/** Names inside a layer's mixer: packed -> the authors'. */
const MIXER = /** @type {Record<string, string>} */ ({
  'conv.weight': 'conv1d.weight',
  'conv.bias': 'conv1d.bias',
  dt_bias: 'dt_bias',
  A_log: 'A_log',
  D: 'D',
  'gate_norm.weight': 'norm.weight',
})

const HEAD = 'lm_head.weight'
export const EMBEDDING = 'backbone.embedding.weight'
/** Whose values tell a full-precision model. */
export const FIRST_PROJECTION = 'backbone.layers.0.mixer.in_proj.weight'

/** @param {Map<string, StoredTensor>} tensors @returns {boolean} whether the checkpoint has scales of signs */
export function isBinarized(tensors) {
  return [...tensors.keys()].some((name) => /\.(wscale|wbias)$/.test(name))
}

/**
 * @param {TensorSpec[]} specs the core's table
 * @param {Map<string, StoredTensor>} tensors the checkpoint's
 * @param {string} folder for messages
 * @returns {{ steps: PlanStep[], dense: boolean }} in file order
 * @throws {BmError} `checkpoint`: missing, unexpected or misshapen tensors, the first few by name
 */
export function planTensors(specs, tensors, folder) {
  const dense = !isBinarized(tensors) && specs.some(({ name }) => name.endsWith('.sign'))
  const rows = specs.map((spec) => ({ spec, ...origin(spec, dense) }))
  const problems = compare(rows, tensors)
  if (problems.length) {
    const shown = problems.slice(0, 6).join('; ')
    const rest = problems.length > 6 ? `; and ${problems.length - 6} more` : ''
    throw new BmError(
      'checkpoint',
      `${folder}: ${problems.length} ${problems.length === 1 ? 'problem' : 'problems'} with tensors: ${shown}${rest}`,
    )
  }
  const steps = rows.map(({ spec, recipe, name }) => ({
    spec,
    recipe,
    source: name === null ? null : (tensors.get(name) ?? null),
  }))
  return { steps, dense }
}

/**
 * @param {TensorSpec} spec
 * @param {boolean} dense
 * @returns {{ recipe: Recipe, name: string | null, shape: number[] }} name and shape in the checkpoint
 */
function origin({ name, dtype, shape }, dense) {
  if (name === 'embedding.weight') return { recipe: 'table', name: EMBEDDING, shape }
  if (name === 'head.weight') return { recipe: 'table', name: HEAD, shape }
  if (name.endsWith('.scale')) return { recipe: 'scales', name: null, shape: [] }
  if (name === 'norm_f.weight') return { recipe: 'floats', name: 'backbone.norm_f.weight', shape }
  const [, layer, rest = ''] = /^layers\.(\d+)\.(.*)$/.exec(name) ?? []
  const at = `backbone.layers.${layer}`
  if (rest === 'norm.weight') return { recipe: 'floats', name: `${at}.norm.weight`, shape }
  const [, linear, role] = /^(in_proj|out_proj)\.(sign|alpha|beta|weight)$/.exec(rest) ?? []
  const weight = `${at}.mixer.${linear}.weight`
  if (role === 'sign') {
    const [rows = 0, bytes = 0] = shape
    return { recipe: dense ? 'denseSigns' : 'signs', name: weight, shape: [rows, bytes * 8] }
  }
  if (role === 'weight') {
    const [rows = 0, columns = 0] = shape
    return dtype === 'U8'
      ? { recipe: 'codes', name: weight, shape: [rows, columns * 2] }
      : { recipe: 'table', name: weight, shape }
  }
  if (role && dense)
    return { recipe: role === 'alpha' ? 'denseAlpha' : 'denseBeta', name: null, shape: [] }
  if (role) {
    const column = `${at}.mixer.${linear}.${role === 'alpha' ? 'wscale' : 'wbias'}`
    return { recipe: 'floats', name: column, shape: [1, ...shape] }
  }
  const own = MIXER[rest]
  if (layer === undefined || own === undefined) {
    throw new BmError('internal', `no recipe for the packed tensor ${name}`)
  }
  const [first = 0, ...others] = shape
  const wanted = rest === 'conv.weight' ? [first, 1, ...others] : shape
  return { recipe: 'floats', name: `${at}.mixer.${own}`, shape: wanted }
}

/**
 * @param {ReturnType<typeof origin>[]} rows
 * @param {Map<string, StoredTensor>} tensors
 * @returns {string[]} problems: missing first, then misshapen, then unexpected
 */
function compare(rows, tensors) {
  const needed = rows.filter((row) => row.name !== null)
  const names = new Set(needed.map((row) => row.name))
  const missing = needed
    .filter((row) => !tensors.has(String(row.name)))
    .map((row) => `${row.name} is missing`)
  const misshapen = needed.flatMap((row) => {
    const found = tensors.get(String(row.name))
    return found ? misfit(found, row.shape) : []
  })
  const extra = [...tensors.keys()]
    .filter((name) => !names.has(name) && name !== HEAD)
    .map((name) => `${name.slice(0, 120)} is not expected`)
  const head = tensors.get(HEAD)
  const table = needed.find((row) => row.name === EMBEDDING)
  const headMisfit = head && table && !names.has(HEAD) ? misfit(head, table.shape) : []
  return [...missing, ...misshapen, ...headMisfit, ...extra]
}

/** @param {StoredTensor} found @param {number[]} shape wanted */
function misfit(found, shape) {
  const list = []
  if (found.shape.join() !== shape.join()) {
    list.push(
      `${found.name} is [${found.shape.join(', ')}], want [${shape.join(', ')}]${scalingHint(found)}`,
    )
  }
  if (!found.hasFloats) list.push(`${found.name} is ${found.dtype}, want F32, F16 or BF16`)
  return list
}

/** @param {StoredTensor} found */
function scalingHint({ name, shape }) {
  if (!/\.(wscale|wbias)$/.test(name)) return ''
  const elements = shape.reduce((a, b) => a * b, 1)
  if (elements === 1) return " (scaling pattern 'single', only 'column' is supported)"
  return shape.length === 2 && shape[1] === 1
    ? " (scaling pattern 'row', only 'column' is supported)"
    : ''
}
