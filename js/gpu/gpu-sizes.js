/**
 * The sizes of a model as the GPU's side uses them.
 *
 * Owns their names and how they follow from a config (src/bm_config.h has the same), and how tables are cut to fit a binding.
 */

/** @typedef {import('../format.js').ModelConfig} ModelConfig */

/** Tokens that pass the layers together. */
export const MOST_TOKENS = 64
/** Rows of the head that a workgroup computes, and workgroups that every WebGPU has in a line. */
export const HEAD_ROWS = 8
const MOST_WORKGROUPS = 65535
/** Where a part of a buffer may begin. */
export const OFFSET_ALIGNMENT = 256

/**
 * @typedef {object} GpuSizes
 * @property {number} nLayer
 * @property {number} dModel
 * @property {number} dInner
 * @property {number} dState
 * @property {number} headdim
 * @property {number} nHeads
 * @property {number} nGroups
 * @property {number} dConv
 * @property {number} convDim
 * @property {number} inRows
 * @property {number} vocabSize
 * @property {number} tableRows   of the embedding, padded
 * @property {number} form        of its weights: 0 int8, 1 f16, 2 f32
 * @property {number} rowBytes
 * @property {boolean} isTied
 * @property {number} normEps
 * @property {number} dtMin
 * @property {number} dtMax
 */

/** @param {ModelConfig} c @returns {GpuSizes} */
export function sizesOf(c) {
  const dInner = c.expand * c.d_model
  const nHeads = dInner / c.headdim
  const form = { I8: 0, F16: 1, F32: 2 }[c.embedding_dtype]
  return {
    nLayer: c.n_layer,
    dModel: c.d_model,
    dInner,
    dState: c.d_state,
    headdim: c.headdim,
    nHeads,
    nGroups: c.ngroups,
    dConv: c.d_conv,
    convDim: dInner + 2 * c.ngroups * c.d_state,
    inRows: 2 * dInner + 2 * c.ngroups * c.d_state + nHeads,
    vocabSize: c.vocab_size,
    tableRows: c.padded_vocab_size,
    form,
    rowBytes: c.d_model * 2 ** form,
    isTied: Boolean(c.tie_embeddings),
    normEps: c.norm_eps,
    dtMin: c.dt_min,
    dtMax: c.dt_max ?? Number.POSITIVE_INFINITY,
  }
}

/** @param {number} bytes @returns {number} where the next part of a buffer may begin */
export const aligned = (bytes) => Math.ceil(bytes / OFFSET_ALIGNMENT) * OFFSET_ALIGNMENT

/** Of a state, for each token: what backups may add to what a token moves. */
const BACKUP_BYTES = 1 << 20

/** @param {number} stateBytes @returns {number} tokens between two backups of a state, which are whole chunks */
export const backupTokensOf = (stateBytes) =>
  MOST_TOKENS * Math.ceil(stateBytes / BACKUP_BYTES / MOST_TOKENS)

/**
 * What is one piece on the GPU: a matrix of signs, and an array of the states of all layers.
 * @param {GpuSizes} s
 * @param {{ maxStorageBufferBindingSize: number, maxBufferSize: number }} limits
 * @returns {string | null} why the model is too large for a device of these limits
 */
export function whyTooLarge(s, { maxStorageBufferBindingSize: binding, maxBufferSize: whole }) {
  const state = 4 * s.nHeads * s.headdim * s.dState
  const pieces = /** @type {const} */ ([
    ['the signs of a layer', (Math.max(s.inRows, s.dInner) * s.dModel) / 8, binding],
    ['the state of a layer', state, binding],
    ['the state', s.nLayer * state, whole],
  ])
  const found = pieces.find(([, bytes, most]) => bytes > most)
  if (!found) return null
  const [what, bytes, most] = found
  return `${what}: ${Math.round(bytes / 1e6)} MB in one piece, which may have ${Math.round(most / 1e6)} MB here`
}

/** @param {readonly GPUBuffer[]} buffers @returns {number} */
export const bytesOf = (buffers) => buffers.reduce((sum, { size }) => sum + size, 0)

/**
 * @param {GpuSizes} sizes @param {number} mostBytes of a binding
 * @returns {{ first: number, count: number }[]} rows of a table, in parts that can be bound and dispatched
 */
export function segmentsOf({ tableRows, rowBytes }, mostBytes) {
  const most = Math.min(Math.floor(mostBytes / rowBytes), HEAD_ROWS * MOST_WORKGROUPS)
  const segments = []
  for (let first = 0; first < tableRows; first += most) {
    segments.push({ first, count: Math.min(most, tableRows - first) })
  }
  return segments
}
