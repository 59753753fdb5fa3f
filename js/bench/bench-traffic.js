/**
 * What a token must move: the bytes of weights and state that each step of the forward pass reads and writes.
 *
 * Owns which step reads which tensor; sizes are those of the core's table. Knows no time. A chunk of tokens reads every
 * weight once, and each head's state stays in cache while its tokens pass, so a chunk moves as much as a single token,
 * but for the rows of the embedding.
 */

/** @typedef {import('../core.js').StateType} StateType */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */
/** @typedef {import('../format.js').TensorSpec} TensorSpec */

/** Which step reads a tensor. Weights of the norms inside layers are folded into alpha and beta. @type {[RegExp, string][]} */
const READERS = [
  [/\.in_proj\.(alpha|beta)$/, 'prepare_in'],
  [/\.in_proj\.(sign|weight|scale)$/, 'project_in'],
  [/\.(conv\..*|dt_bias|A_log|D)$/, 'scan'],
  [/\.out_proj\.(alpha|beta)$/, 'prepare_out'],
  [/\.out_proj\.(sign|weight|scale)$/, 'project_out'],
  [/^norm_f\./, 'finish'],
]

const F32_BYTES = 4
/** Of the two numbers that each head has beside its state (bm_ssm_scale in src/bm_forward.h). */
const HEAD_SCALE_BYTES = 8
/** Of the two numbers that each row of a state in 16 bits has. */
const ROW_UNIT_BYTES = 8

/**
 * @typedef {object} Traffic
 * @property {number} weightBytes  in memory: of all tensors, the head in its form
 * @property {number} stateBytes   of one session's recurrent state: convolution, SSM and its scales
 * @property {(tokens: number) => Map<string, number>} stepBytes  read and written by each step of an append of so many tokens, by
 *   the step's name; and by `head`, for the logits after one
 * @property {Map<string, number>} signs  weights of the binary products, by the name of the step that has them
 */

/** @param {Map<string, number>} map @param {string} key @param {number} amount */
const add = (map, key, amount) => map.set(key, (map.get(key) ?? 0) + amount)

/**
 * @param {TensorSpec[]} tensors of the core, for this config
 * @param {ModelConfig} config
 * @param {StateType} stateType
 * @param {import('../core.js').HeadChoice} [headChoice]
 * @returns {Traffic}
 */
export function trafficOf(tensors, config, stateType, headChoice = 'file') {
  const head = config.tie_embeddings ? /^embedding\./ : /^head\./
  /** @type {Map<string, number>} */
  const reads = new Map()
  /** @type {Map<string, number>} */
  const signs = new Map()
  /** The 4-bit form has 17 bytes for 32 weights. */
  const headBytes = (/** @type {number} */ sizeBytes, /** @type {string} */ dtype) =>
    headChoice === 'int4' && dtype === 'I8' ? (sizeBytes * 17) / 32 : sizeBytes
  let rowBytes = 0
  let packedBytes = 0
  const state = { conv: 0, convRow: 0, ssm: 0 }
  for (const { name, dtype, shape, sizeBytes } of tensors) {
    const [rows = 0, columns = 0] = shape
    const step = READERS.find(([names]) => names.test(name))?.[1]
    if (step) add(reads, step, sizeBytes)
    if (step && name.endsWith('.sign')) add(signs, step, 8 * sizeBytes)
    // Rows past the vocabulary are never read.
    if (head.test(name) && headBytes(sizeBytes, dtype) !== sizeBytes) {
      packedBytes += headBytes(sizeBytes, dtype) - (config.tie_embeddings ? 0 : sizeBytes)
    }
    if (head.test(name))
      add(reads, 'head', (headBytes(sizeBytes, dtype) / rows) * config.vocab_size)
    if (name.startsWith('embedding.')) rowBytes += sizeBytes / rows
    if (name.endsWith('.conv.weight')) {
      state.conv += (columns - 1) * rows * F32_BYTES
      state.convRow += rows * F32_BYTES
    }
    if (name.endsWith('.A_log')) {
      const stateRowBytes =
        stateType === 'i16' ? 2 * config.d_state + ROW_UNIT_BYTES : F32_BYTES * config.d_state
      state.ssm += rows * (config.headdim * stateRowBytes + HEAD_SCALE_BYTES)
    }
  }
  return {
    weightBytes: tensors.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) + packedBytes,
    stateBytes: state.conv + state.ssm,
    signs,
    stepBytes: (tokens) => {
      const bytes = new Map(reads)
      bytes.set('embed', tokens * rowBytes)
      add(bytes, 'scan', state.conv + Math.min(state.conv, tokens * state.convRow))
      add(bytes, 'scan', 2 * state.ssm)
      return bytes
    },
  }
}
