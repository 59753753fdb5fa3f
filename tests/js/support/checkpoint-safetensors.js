/**
 * Writes checkpoints' safetensors files for tests, and by hand any header a hostile test wants.
 *
 * Owns the byte layout of https://github.com/huggingface/safetensors; knows no model.
 */

import { open } from 'node:fs/promises'
import { concatBytes } from './stored-zip.js'

/**
 * @typedef {object} NamedBytes
 * @property {string} name
 * @property {string} dtype
 * @property {number[]} shape
 * @property {number} sizeBytes
 * @property {() => Uint8Array} bytes called once, when it is written
 */

/** @param {string} header JSON text @param {Uint8Array} [data] */
export function safetensorsBytes(header, data = new Uint8Array(0)) {
  const json = new TextEncoder().encode(header)
  const length = new Uint8Array(8)
  new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true)
  return concatBytes([length, json, data])
}

/**
 * @param {NamedBytes[]} tensors
 * @param {Record<string, string>} [metadata]
 */
export function safetensorsHeader(tensors, metadata = { format: 'pt' }) {
  let at = 0
  const entries = tensors.map(({ name, dtype, shape, sizeBytes }) => {
    const data_offsets = [at, at + sizeBytes]
    at += sizeBytes
    return [name, { dtype, shape, data_offsets }]
  })
  const json = JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) })
  return json.padEnd(Math.ceil(json.length / 8) * 8)
}

/** @param {string} path @param {NamedBytes[]} tensors @param {Record<string, string>} [metadata] */
export async function writeSafetensors(path, tensors, metadata) {
  const file = await open(path, 'w')
  try {
    await file.write(safetensorsBytes(safetensorsHeader(tensors, metadata)))
    for (const tensor of tensors) await file.write(tensor.bytes())
  } finally {
    await file.close()
  }
}
