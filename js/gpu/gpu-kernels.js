/**
 * The pipelines of a model: its sizes as constants of WGSL, in front of each shader.
 *
 * Owns which shader has which bindings and constants. What each computes is said in its file, js/gpu/shaders/NAME.wgsl; dist/shaders.mjs
 * has their texts.
 */

import { BmError } from '../errors.js'

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
  norm: [READ, READ, READ, WRITE, WRITE],
  norm_gated: [READ, READ, READ, READ, WRITE, WRITE],
  matmul: [READ, READ, READ, WRITE, UNIFORM],
  conv: [WRITE, WRITE, READ, READ, UNIFORM],
  scan: [READ, WRITE, WRITE, READ, WRITE, UNIFORM],
  rescale: [WRITE, WRITE],
}

/** @typedef {keyof typeof BINDINGS} ShaderName */
/** @typedef {Record<'embed' | 'head' | 'norm' | 'normGated' | 'inOne' | 'inMany' | 'outOne' | 'outMany' | 'conv' | 'scan' | 'rescale', GPUComputePipeline>} Kernels */

/** Rows and tokens of a workgroup of the binary product: for one token, and for a prompt. */
export const PRODUCT_TILES = { one: { rows: 16, tokens: 1 }, many: { rows: 8, tokens: 4 } }

/** @param {string} name @param {number | boolean} value */
function constant(name, value) {
  if (typeof value === 'boolean') return `const ${name}: bool = ${value};`
  return Number.isInteger(value) && !name.startsWith('DT_') && name !== 'NORM_EPS'
    ? `const ${name}: u32 = ${value}u;`
    : `const ${name}: f32 = ${value.toExponential()}f;`
}

/**
 * @param {Record<string, string>} shaders texts by name
 * @param {ShaderName} name
 * @param {Record<string, number | boolean>} constants
 * @returns {string} WGSL
 */
export function shaderCode(shaders, name, constants) {
  const usesTable = name === 'embed' || name === 'head'
  const header = Object.entries(constants).map(([key, value]) => constant(key, value))
  return [...header, usesTable ? shaders.table : '', shaders[name]].join('\n')
}

/** @param {GpuSizes} sizes @returns {number} lanes across a row of the state: each takes vectors of four */
function lanesAcross({ dState }) {
  const quads = dState / 4
  let across = Math.min(quads, MOST_ACROSS)
  while (quads % across) across--
  return across
}

/**
 * What is compiled for a model: shader, constants, and a name of its own.
 * @param {GpuSizes} s
 * @returns {[keyof Kernels, ShaderName, Record<string, number | boolean>][]}
 * @throws {BmError} `unsupported`
 */
export function kernelList(s) {
  const across = lanesAcross(s)
  if (4 * s.headdim * across > WORKGROUP_BYTES) {
    throw new BmError(
      'unsupported',
      `headdim ${s.headdim} with d_state ${s.dState} is too large for a GPU's workgroup`,
    )
  }
  const table = { FORM: s.form, D_MODEL: s.dModel, VOCAB: s.vocabSize }
  const norm = { D_MODEL: s.dModel, NORM_EPS: s.normEps }
  const inner = { D_INNER: s.dInner, IN_ROWS: s.inRows, N_GROUPS: s.nGroups }
  const scan = { ...inner, D_STATE: s.dState, HEADDIM: s.headdim, N_HEADS: s.nHeads }
  const times = { DT_MIN: s.dtMin, DT_MAX: Math.min(s.dtMax, 3.4e38) }
  const { one, many } = PRODUCT_TILES
  const product = (
    /** @type {{ rows: number, tokens: number }} */ tile,
    /** @type {boolean} */ isIn,
  ) => ({
    ROWS: tile.rows,
    TILE: tile.tokens,
    COLS: isIn ? s.dModel : s.dInner,
    OUT_ROWS: isIn ? s.inRows : s.dModel,
    ADD: !isIn,
  })
  return [
    ['embed', 'embed', table],
    ['head', 'head', table],
    ['norm', 'norm', norm],
    ['normGated', 'norm_gated', { ...inner, NORM_EPS: s.normEps }],
    ['inOne', 'matmul', product(one, true)],
    ['inMany', 'matmul', product(many, true)],
    ['outOne', 'matmul', product(one, false)],
    ['outMany', 'matmul', product(many, false)],
    [
      'conv',
      'conv',
      { D_INNER: s.dInner, IN_ROWS: s.inRows, CONV_DIM: s.convDim, D_CONV: s.dConv },
    ],
    ['scan', 'scan', { ...scan, ...times, LANES: SCAN_LANES, ACROSS: across }],
    ['rescale', 'rescale', { HEADDIM: s.headdim, D_STATE: s.dState }],
  ]
}

/**
 * @param {GpuDevice} device @param {GpuSizes} sizes
 * @returns {Promise<Kernels>} all compiled
 * @throws {BmError} `unsupported` at once, for sizes that no kernel has; it rejects with `gpu`
 */
export function createKernels(device, sizes) {
  return compile(device, kernelList(sizes))
}

/** @param {GpuDevice} device @param {ReturnType<typeof kernelList>} list @returns {Promise<Kernels>} */
async function compile(device, list) {
  const { default: shaders } = await import('../../dist/shaders.mjs')
  return device.making('the shaders', async () => {
    const made = await Promise.all(
      list.map(async ([key, name, constants]) => {
        const code = shaderCode(shaders, name, constants)
        return [key, await device.pipeline(code, BINDINGS[name], key)]
      }),
    )
    return Object.fromEntries(made)
  })
}
