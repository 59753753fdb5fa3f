/**
 * Reads the recurrent state out of a saved session.
 *
 * Owns that part of the format, which models/SESSION.md defines: a safetensors file whose tensors `ssm`, `ssm.unit` and `ssm.scale` give the state as
 * scale * unit * stored, with the state in 8 bits. Only what is to be shown is computed.
 */

/** @typedef {import('../js/index.js').ModelConfig} ModelConfig */

/**
 * A sample of the state of one layer.
 *
 * @typedef {object} LayerState
 * @property {Float32Array} values  [rows, columns]
 * @property {number} rows          channels, evenly spaced among those of the layer
 * @property {number} columns       d_state
 * @property {number} rms           of the sample
 */

/** A header begins with what kind of file it is, within so many bytes. */
const KIND_BYTES = 200

/** @param {Blob} file @returns {Promise<boolean>} whether it is a saved session, of whatever version: no model */
export async function isSavedSession(file) {
  const start = await file.slice(8, 8 + KIND_BYTES).text()
  return /^\{"__metadata__":\{"format":"bimamba-session /.test(start)
}

/** Rows of a layer that are shown. */
const MOST_ROWS = 64

/**
 * @param {Uint8Array<ArrayBuffer>} saved  with the state in 8 bits
 * @param {ModelConfig} config
 * @returns {LayerState[]} of each layer
 */
export function readLayers(saved, { n_layer, d_model, expand, headdim, d_state }) {
  const view = new DataView(saved.buffer, saved.byteOffset, saved.byteLength)
  const length = Number(view.getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(saved.subarray(8, 8 + length)))
  /** @param {string} name @returns {number} where its bytes begin */
  const startOf = (name) => saved.byteOffset + 8 + length + header[name].data_offsets[0]
  const channels = d_model * expand
  const stored = new Int8Array(saved.buffer, startOf('ssm'), n_layer * channels * d_state)
  const units = new Float32Array(saved.buffer, startOf('ssm.unit'), n_layer * channels)
  const scales = new Float32Array(
    saved.buffer,
    startOf('ssm.scale'),
    (2 * n_layer * channels) / headdim,
  )
  const rows = Math.min(MOST_ROWS, channels)
  return Array.from({ length: n_layer }, (_, layer) => {
    const values = new Float32Array(rows * d_state)
    let squares = 0
    for (let row = 0; row < rows; row++) {
      const channel = layer * channels + Math.floor((row * channels) / rows)
      const factor = units[channel] * scales[2 * Math.floor(channel / headdim)]
      for (let column = 0; column < d_state; column++) {
        const value = factor * stored[channel * d_state + column]
        values[row * d_state + column] = value
        squares += value * value
      }
    }
    return { values, rows, columns: d_state, rms: Math.sqrt(squares / values.length) }
  })
}
