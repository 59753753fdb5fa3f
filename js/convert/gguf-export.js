/**
 * Writes a packed model as GGUF files that llama.cpp runs: the model, and an adapter when some beta is not zero.
 *
 * Owns the order of work and the summary. Does not know the container (gguf.js), names (gguf-tensors.js) or tokens
 * (gguf-tokenizer.js). The idea: what can be refused is refused first, then every chunk of the source is checked, and
 * only then is anything written.
 */

import { BmError } from '../errors.js'
import { ggufTensorBytes, writeGguf } from './gguf.js'
import { adapterTensors, checkExportable, modelTensors, sizeMetadata } from './gguf-tensors.js'
import { tokenizerMetadata } from './gguf-tokenizer.js'
import { PackedSource } from './packed-source.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('./gguf.js').GgufEntry} GgufEntry */
/** @typedef {import('./gguf.js').GgufSource} GgufSource */
/** @typedef {import('./node-files.js').Output} Output */
/** @typedef {import('../format.js').PackedHeader} PackedHeader */

/**
 * @typedef {object} ExportOptions
 * @property {'q1_0' | 'f32'} [signs] type of the sign matrices (default q1_0, and q4_0 where rows are no multiple of 128). With
 *   `f32` llama.cpp computes in float32; with the others it rounds the inputs to int8
 * @property {'f32' | 'q8_0'} [embedding] type of embedding and head (default f32: exact). `q8_0` keeps the numbers of an int8 table and
 *   rounds their scales to half precision
 * @property {(doneBytes: number, totalBytes: number) => void} [onProgress] bytes written
 * @property {AbortSignal} [signal]
 */

/**
 * @typedef {object} ExportSummary
 * @property {number} fileBytes of the model
 * @property {number} adapterBytes of the adapter; 0: none is needed, and nothing was written
 * @property {Map<string, { tensors: number, bytes: number }>} types of the model's tensors
 * @property {number} tableBytes of embedding and head
 * @property {string[]} warnings
 */

const SIGNS = ['q1_0', 'f32']
const TABLES = /** @type {const} */ ({ f32: 'F32', q8_0: 'Q8_0' })

/**
 * @param {import('../format.js').TensorTable} core
 * @param {ByteSource} source a packed model; read, not closed
 * @param {{ model: () => Promise<Output>, adapter: () => Promise<Output> }} outputs called when there is something to write; written,
 *   neither committed nor aborted
 * @param {ExportOptions} [options]
 * @returns {Promise<ExportSummary>}
 * @throws {BmError} `format`, `integrity`, `tokenizer`, `unsupported`, `argument`, `io`; rejects with the signal's reason
 */
export async function exportGguf(core, source, outputs, options = {}) {
  const { signs = 'q1_0', embedding = 'f32', onProgress, signal } = options
  const table = TABLES[embedding]
  if (!table) throw choice('embedding', embedding, 'f32 or q8_0')
  if (!SIGNS.includes(signs)) throw choice('signs', signs, 'q1_0 or f32')
  signal?.throwIfAborted()
  const packed = await PackedSource.open(core, source)
  const { config } = packed.header
  checkExportable(config)
  if (table === 'Q8_0' && config.embedding_dtype !== 'I8') {
    throw choice('embedding', embedding, `f32 for a table of ${config.embedding_dtype}`)
  }
  await packed.verify(signal)
  const { metadata, warnings } = exportMetadata(packed.header, await packed.tokenizerJson())
  const tensors = modelTensors(packed, { signs, table })
  const adapter = await adapterTensors(packed)
  const totalBytes = [...tensors, ...adapter].reduce((sum, t) => sum + ggufTensorBytes(t), 0)
  let doneBytes = 0
  const onBytes = (/** @type {number} */ bytes) => {
    doneBytes += bytes
    onProgress?.(doneBytes, totalBytes)
  }
  const write = { onBytes, signal }
  const fileBytes = await writeGguf(await outputs.model(), metadata, tensors, write)
  const adapterBytes = adapter.length
    ? await writeGguf(await outputs.adapter(), ADAPTER_METADATA, adapter, write)
    : 0
  signal?.throwIfAborted()
  const types = countTypes(tensors)
  const isTable = (/** @type {GgufSource} */ { name }) => /^(token_embd|output)\./.test(name)
  const tableBytes = tensors.filter(isTable).reduce((sum, t) => sum + ggufTensorBytes(t), 0)
  return { fileBytes, adapterBytes, types, tableBytes, warnings }
}

/** @type {GgufEntry[]} alpha is the strength of the adapter, divided by its rank */
const ADAPTER_METADATA = [
  { key: 'general.architecture', type: 'string', value: 'mamba2' },
  { key: 'general.type', type: 'string', value: 'adapter' },
  { key: 'adapter.type', type: 'string', value: 'lora' },
  { key: 'adapter.lora.alpha', type: 'f32', value: 1 },
]

/**
 * All that the model's file says beside its tensors.
 *
 * @param {PackedHeader} header
 * @param {string | null} tokenizerJson
 * @returns {{ metadata: GgufEntry[], warnings: string[] }}
 * @throws {BmError} `tokenizer`
 */
export function exportMetadata(header, tokenizerJson) {
  const tokenizer = tokenizerMetadata(tokenizerJson, header)
  /** @type {GgufEntry[]} */
  const names = [
    { key: 'general.architecture', type: 'string', value: 'mamba2' },
    { key: 'general.type', type: 'string', value: 'model' },
    { key: 'general.name', type: 'string', value: header.source },
    { key: 'general.license', type: 'string', value: header.licence },
    { key: 'general.quantization_version', type: 'u32', value: 2 },
  ]
  const metadata = [...names, ...sizeMetadata(header.config), ...tokenizer.metadata]
  return { metadata, warnings: tokenizer.warnings }
}

/** @param {GgufSource[]} tensors */
function countTypes(tensors) {
  /** @type {ExportSummary['types']} */
  const types = new Map()
  for (const tensor of tensors) {
    const found = types.get(tensor.type) ?? { tensors: 0, bytes: 0 }
    found.tensors++
    found.bytes += ggufTensorBytes(tensor)
    types.set(tensor.type, found)
  }
  return types
}

/** @param {string} name @param {unknown} found @param {string} wanted */
function choice(name, found, wanted) {
  return new BmError('argument', `${name}: ${JSON.stringify(found)}, want ${wanted}`)
}
