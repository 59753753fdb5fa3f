/**
 * GGUF files of the true shapes with random weights, for the peers.
 *
 * Owns the bytes of random blocks whose scales keep a deep model finite. Names, shapes and metadata are those of the exporter;
 * only the type of the projections differs. The embedding is Q8_0 in every file, as ours is int8. A file is made once.
 */

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { randomBytes, syntheticConfig } from '../../../js/bench/synthetic-model.js'
import { GGML_TYPES, ggufTensorBytes, writeGguf } from '../../../js/convert/gguf.js'
import { exportMetadata } from '../../../js/convert/gguf-export.js'
import { modelTensors } from '../../../js/convert/gguf-tensors.js'
import { createOutput } from '../../../js/convert/node-files.js'
import { Core } from '../../../js/core.js'
import { sentencePieceTokenizer } from '../../js/support/small-tokenizer.js'

/** @typedef {import('../../../js/convert/gguf.js').GgmlType} GgmlType */
/** @typedef {import('../../../js/convert/gguf.js').GgufTensor} GgufTensor */
/** @typedef {import('../../../js/convert/packed-source.js').PackedSource} PackedSource */
/** @typedef {import('../../../js/format.js').ModelConfig} ModelConfig */
/** @typedef {'Q1_0' | 'TQ2_0' | 'Q4_K'} PeerType of the projections */

const NOISE_BYTES = 1 << 20

/** 2^-5, 2^-10 and 7.5 * 2^-10 in half precision, little-endian. */
const [D_SIGN, D_NIBBLE, D_LEAST] = [
  [0x00, 0x28],
  [0x00, 0x14],
  [0x80, 0x1f],
]

/** Every sub-block of Q4_K has scale 8 and minimum 8: d 8 q - dmin 8 is +-7.5 d 8 at the ends. */
const Q4_K_SCALES = [8, 8, 8, 8, 8, 8, 8, 8, 0x88, 0x88, 0x88, 0x88]

/**
 * What makes the bytes of a random block sane. @type {Record<string, (block: Uint8Array) => void>}
 */
const TAMERS = {
  Q1_0: (block) => block.set(D_SIGN, 0),
  Q8_0: (block) => block.set([0x00, 0x10], 0), // 2^-11
  TQ2_0: (block) => {
    // Two bits are -1, 0 or +1; 3 means nothing and becomes 0.
    for (let i = 0; i < 64; i++)
      block[i] = Number(block[i]) & ~((Number(block[i]) << 1) & Number(block[i]) & 0xaa)
    block.set(D_SIGN, 64)
  },
  Q4_K: (block) => block.set([...D_NIBBLE, ...D_LEAST, ...Q4_K_SCALES], 0),
}

/** Ranges of the float tensors: [least, width]. */
const FLOAT_RANGES = /** @type {[RegExp, number, number][]} */ ([
  [/norm|ssm_d$/, 1, 0],
  [/ssm_a$/, -12, 11],
  [/ssm_dt/, -6, 4],
  [/./, -0.5, 1],
])

/**
 * @param {string} folder made if need be
 * @param {string} shape
 * @param {PeerType} type
 * @returns {Promise<string>} path of the file
 */
export async function randomGguf(folder, shape, type) {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, `random-${shape}-${type}.gguf`)
  if (existsSync(path)) return path
  const config = syntheticConfig(shape)
  const packed = await unwritten(config)
  const noise = randomBytes(NOISE_BYTES)
  const tensors = modelTensors(packed, { signs: 'q1_0', table: 'Q8_0' }).map((tensor) => {
    const isProjection = tensor.type === 'Q1_0'
    const typed = { ...tensor, type: isProjection ? type : tensor.type }
    return { ...typed, pieces: () => randomPieces(typed, noise) }
  })
  const { metadata } = exportMetadata(packed.header, JSON.stringify(sentencePieceTokenizer()))
  const output = await createOutput(path)
  try {
    await writeGguf(output, metadata, tensors)
    await output.commit()
  } finally {
    await output.abort()
  }
  return path
}

/**
 * A packed model of which only the header is asked.
 * @param {ModelConfig} config
 */
async function unwritten(config) {
  const specs = new Map((await Core.create()).tensors(config).map((spec) => [spec.name, spec]))
  const header = {
    config,
    bosId: 1,
    eosIds: [2],
    addBos: true,
    chatTemplate: null,
    source: 'random weights',
    licence: 'none',
  }
  const packed = { header, tensor: (/** @type {string} */ name) => specs.get(name) }
  return /** @type {PackedSource} */ (/** @type {unknown} */ (packed))
}

/**
 * @param {GgufTensor} tensor
 * @param {Uint8Array} noise
 */
function* randomPieces(tensor, noise) {
  const bytes = ggufTensorBytes(tensor)
  if (tensor.type === 'F32') {
    const [, least, width] = FLOAT_RANGES.find(([names]) => names.test(tensor.name)) ?? [/./, 0, 0]
    const values = Float32Array.from(
      { length: bytes / 4 },
      (_, i) => least + (Number(noise[(i * 7) % noise.length]) / 255) * width,
    )
    yield new Uint8Array(values.buffer)
    return
  }
  const size = GGML_TYPES[tensor.type].bytes
  const piece = noise.slice(0, Math.floor(noise.length / size) * size)
  for (let at = 0; at < piece.length; at += size) {
    TAMERS[tensor.type]?.(piece.subarray(at, at + size))
  }
  for (let at = 0; at < bytes; at += piece.length)
    yield piece.subarray(0, Math.min(piece.length, bytes - at))
}
