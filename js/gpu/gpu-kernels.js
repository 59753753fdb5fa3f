/**
 * The pipelines of a model: its sizes as constants of WGSL, in front of each shader.
 *
 * Owns which shader has which bindings and constants. What each computes is said in its file, js/gpu/shaders/NAME.wgsl; dist/shaders.mjs
 * has their texts.
 */

import { BmError } from '../errors.js'
import { MOST_CANDIDATES } from './gpu-candidates.js'

/** @typedef {import('./gpu-device.js').GpuDevice} GpuDevice */
/** @typedef {import('./gpu-sizes.js').GpuSizes} GpuSizes */

/** Lanes of a scan's workgroup, and most of them across a row of the state. */
const SCAN_LANES = 256
const MOST_ACROSS = 32
/** What every device has for a workgroup. */
const WORKGROUP_BYTES = 16384

const READ = /** @type {const} */ ('read-only-storage')
const WRITE = /** @type {const} */ ('storage')
const UNIFORM = /** @type {const} */ ('uniform')

/** Bindings of each shader, in order. @satisfies {Record<string, GPUBufferBindingType[]>} */
const BINDINGS = {
  embed: [READ, READ, UNIFORM, READ, WRITE],
  head: [READ, READ, UNIFORM, READ, WRITE, UNIFORM],
  head_int8: [READ, READ, UNIFORM, READ, WRITE],
  norm: [READ, READ, READ, WRITE, WRITE],
  norm_gated: [READ, READ, READ, READ, WRITE, WRITE],
  candidates: [READ, WRITE, UNIFORM],
  quantize: [READ, WRITE, UNIFORM],
  matmul: [READ, READ, READ, WRITE, UNIFORM],
  matmul_int8: [READ, READ, READ, WRITE, UNIFORM],
  conv: [WRITE, WRITE, READ, READ, UNIFORM],
  scan: [READ, WRITE, WRITE, READ, WRITE, UNIFORM],
  scan_i16: [READ, WRITE, WRITE, READ, WRITE, UNIFORM, WRITE, WRITE],
  rescale: [WRITE, WRITE],
  rescale_i16: [READ, READ, WRITE],
}

/** @typedef {keyof typeof BINDINGS} ShaderName */
/** headInputs: of an int8 head in `fast`. @typedef {'embed' | 'head' | 'headInputs' | 'candidates' | 'normIn' | 'normGated' | 'finish' | 'inOne' | 'inMany' | 'outOne' | 'outMany' | 'conv' | 'scan' | 'rescale'} KernelName */
/** @typedef {Record<Exclude<KernelName, 'headInputs'>, GPUComputePipeline> & { headInputs?: GPUComputePipeline }} Kernels */

/**
 * How a model is computed.
 *
 * @typedef {object} GpuMode
 * @property {'fast' | 'exact'} precision  'fast': inputs of products are the core's integers
 * @property {'f32' | 'i16'} state
 * @property {boolean} usesDot4  integers by dot4I8Packed, in `fast`
 * @property {boolean} usesSubgroups  they are added up among neighbouring lanes
 */

/**
 * What is compiled for a model.
 *
 * @typedef {object} Kernel
 * @property {ShaderName} shader
 * @property {string[]} before  texts that go before the shader's
 * @property {Record<string, number | boolean>} constants
 * @property {GPUBufferBindingType[]} bindings
 */

/** Rows and tokens of a workgroup of the binary product: for one token, and for a prompt. */
export const PRODUCT_TILES = { one: { rows: 16, tokens: 1 }, many: { rows: 8, tokens: 4 } }

/** Orders of the codes of an input, as inputs_int8.wgsl names them. */
const CODES = { inOrder: 0, strided: 1, bits: 2 }

/** @param {number} cols @returns {number} words of an input in `fast`: its codes, and two for each 256 of them; read four at a time */
export const actStride = (cols) => cols / 4 + 4 * Math.ceil(cols / 512)

/** @param {string} name @param {number | boolean} value */
function constant(name, value) {
  if (typeof value === 'boolean') return `const ${name}: bool = ${value};`
  return Number.isInteger(value) && !name.startsWith('DT_') && name !== 'NORM_EPS'
    ? `const ${name}: u32 = ${value}u;`
    : `const ${name}: f32 = ${value.toExponential()}f;`
}

/**
 * @param {Record<string, string>} shaders texts by name
 * @param {Kernel} kernel
 * @returns {string} WGSL
 */
export function shaderCode(shaders, { shader, before, constants }) {
  const enables = before.includes('sums_subgroups') ? ['enable subgroups;'] : []
  const header = Object.entries(constants).map(([key, value]) => constant(key, value))
  return [...enables, ...header, ...before.map((name) => shaders[name]), shaders[shader]].join('\n')
}

/** @param {GpuSizes} sizes @param {number} most @returns {number} lanes across a row of the state: each takes vectors of four */
function lanesAcross({ dState }, most) {
  const quads = dState / 4
  let across = Math.min(quads, most)
  while (quads % across) across--
  return across
}

/** @param {ShaderName} shader @param {Kernel['constants']} constants @param {string[]} [before] @returns {Kernel} */
const kernel = (shader, constants, before = []) => ({
  shader,
  before,
  constants,
  bindings: BINDINGS[shader],
})

/**
 * What a shader computes becomes the input of a product; as integers they are in one more binding.
 * @param {Kernel} kernel @param {GpuMode} mode @param {number} cols @param {number} [codes] @returns {Kernel}
 */
function withInputs(kernel, { precision, usesDot4 }, cols, codes) {
  if (precision === 'exact') return { ...kernel, before: ['inputs_f32'] }
  const { bindings, constants } = kernel
  const order = {
    COLS: cols,
    CODES: codes ?? (usesDot4 ? CODES.strided : CODES.bits),
    ACT: bindings.length,
    ACT_STRIDE: actStride(cols),
  }
  return {
    ...kernel,
    before: ['inputs_int8'],
    constants: { ...constants, ...order },
    bindings: [...bindings, WRITE],
  }
}

/** @param {GpuSizes} s @param {Pick<GpuMode, 'precision' | 'usesDot4' | 'usesSubgroups'>} mode @returns {Record<'inOne' | 'inMany' | 'outOne' | 'outMany', Kernel>} */
export function products(s, { precision, usesDot4, usesSubgroups }) {
  const { one, many } = PRODUCT_TILES
  const sums = [dotText(usesDot4), usesSubgroups ? 'sums_subgroups' : 'sums_memory']
  const of = (
    /** @type {{ rows: number, tokens: number }} */ tile,
    /** @type {boolean} */ isIn,
  ) => {
    const cols = isIn ? s.dModel : s.dInner
    const constants = {
      ROWS: tile.rows,
      TILE: tile.tokens,
      COLS: cols,
      OUT_ROWS: isIn ? s.inRows : s.dModel,
      ADD: !isIn,
    }
    return precision === 'exact'
      ? kernel('matmul', constants)
      : kernel('matmul_int8', { ...constants, ACT_STRIDE: actStride(cols) }, sums)
  }
  return {
    inOne: of(one, true),
    inMany: of(many, true),
    outOne: of(one, false),
    outMany: of(many, false),
  }
}

/** @param {boolean} usesDot4 */
const dotText = (usesDot4) => (usesDot4 ? 'dot4' : 'dot_plain')

/** @param {GpuSizes} s @param {GpuMode} mode @returns {{ head: Kernel, headInputs?: Kernel }} */
function headOf(s, mode) {
  const table = { FORM: s.form, D_MODEL: s.dModel, VOCAB: s.vocabSize }
  if (!hasIntegerHead(s, mode)) return { head: kernel('head', table, ['table']) }
  return {
    head: kernel('head_int8', table, ['table', dotText(mode.usesDot4)]),
    headInputs: withInputs(kernel('quantize', {}), mode, s.dModel, CODES.inOrder),
  }
}

/** @param {GpuSizes} s @param {GpuMode} mode @returns {boolean} whether the logits are an integer product, too */
export const hasIntegerHead = (s, { precision }) => s.form === 0 && precision === 'fast'

/**
 * @param {GpuSizes} s @param {GpuMode} mode
 * @returns {{ scan: Kernel, rescale: Kernel }}
 * @throws {BmError} `unsupported`
 */
function recurrence(s, { state }) {
  const isI16 = state === 'i16'
  // In 16 bits there are two numbers for each lane, and four for each row.
  const across = lanesAcross(s, isI16 ? MOST_ACROSS / 2 : MOST_ACROSS)
  const bytes = s.headdim * (isI16 ? 8 * across + 16 : 4 * across) + (isI16 ? 4 * across : 0)
  if (bytes > WORKGROUP_BYTES) {
    throw new BmError(
      'unsupported',
      `headdim ${s.headdim} with d_state ${s.dState} is too large for a GPU's workgroup`,
    )
  }
  const constants = {
    ...{ D_INNER: s.dInner, IN_ROWS: s.inRows, N_GROUPS: s.nGroups },
    ...{ D_STATE: s.dState, HEADDIM: s.headdim, N_HEADS: s.nHeads },
    ...{ DT_MIN: s.dtMin, DT_MAX: Math.min(s.dtMax, 3.4e38) },
    ...{ LANES: SCAN_LANES, ACROSS: across },
  }
  return {
    scan: kernel(isI16 ? 'scan_i16' : 'scan', constants, ['recurrence']),
    rescale: isI16
      ? kernel('rescale_i16', { HEADDIM: s.headdim })
      : kernel('rescale', { HEADDIM: s.headdim, D_STATE: s.dState }),
  }
}

/**
 * What is compiled for a model, by name.
 * @param {GpuSizes} s
 * @param {GpuMode} mode
 * @returns {Partial<Record<KernelName, Kernel>>}
 * @throws {BmError} `unsupported`
 */
export function kernelList(s, mode) {
  const norm = kernel('norm', { D_MODEL: s.dModel, NORM_EPS: s.normEps })
  const inner = { D_INNER: s.dInner, IN_ROWS: s.inRows, N_GROUPS: s.nGroups }
  const gated = kernel('norm_gated', { ...inner, NORM_EPS: s.normEps })
  const conv = { D_INNER: s.dInner, IN_ROWS: s.inRows, CONV_DIM: s.convDim, D_CONV: s.dConv }
  return {
    embed: kernel('embed', { FORM: s.form, D_MODEL: s.dModel }, ['table']),
    ...headOf(s, mode),
    candidates: kernel('candidates', { MOST: MOST_CANDIDATES }),
    normIn: withInputs(norm, mode, s.dModel),
    normGated: withInputs(gated, mode, s.dInner),
    finish: withInputs(norm, { ...mode, precision: 'exact' }, s.dModel),
    ...products(s, mode),
    conv: kernel('conv', conv),
    ...recurrence(s, mode),
  }
}

/**
 * @param {GpuDevice} device @param {GpuSizes} sizes @param {GpuMode} mode
 * @returns {Promise<Kernels>} all compiled
 * @throws {BmError} `unsupported` at once, for sizes that no kernel has; it rejects with `gpu`
 */
export function createKernels(device, sizes, mode) {
  return compile(device, Object.entries(kernelList(sizes, mode)))
}

/** @param {GpuDevice} device @param {[string, Kernel][]} list @returns {Promise<Kernels>} */
async function compile(device, list) {
  const { default: shaders } = await import('../../dist/shaders.mjs')
  return device.making('the shaders', async () => {
    const made = await Promise.all(
      list.map(async ([name, kernel]) => {
        const code = shaderCode(shaders, kernel)
        return [name, await device.pipeline(code, kernel.bindings, name)]
      }),
    )
    return Object.fromEntries(made)
  })
}
