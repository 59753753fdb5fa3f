/**
 * Makes a packed model from a checkpoint: the order of work, and what is counted and refused on the way.
 *
 * Owns the conversion's flow and the zero policy. Does not know containers (checkpoint-reader.js), names
 * (tensor-plan.js), rounding (weight-codes.js) or where the bytes end up (an Output).
 * The idea: everything that can be refused without reading weights is refused first; then one pass in file order,
 * a few MiB at a time, into a writer that hashes as it goes; the header, which holds the hashes, is written last.
 */

import { MOST_WEIGHT_BYTES } from '../core.js'
import { BmError, reasonOf } from '../errors.js'
import { encodeHeader, headerSize, padTokenizer } from '../format.js'
import { readTokenizerFile } from '../tokenizer-file.js'
import { readCheckpointConfig } from './checkpoint-config.js'
import { readCheckpoint } from './checkpoint-reader.js'
import { DataWriter } from './data-writer.js'
import { EMBEDDING, FIRST_PROJECTION, isBinarized, planTensors } from './tensor-plan.js'
import { holdsTwoValues, writeStep } from './tensor-steps.js'
import { readTokenizerFiles } from './tokenizer-files.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('./byte-source.js').CheckpointFolder} CheckpointFolder */
/** @typedef {import('./node-files.js').Output} Output */
/** @typedef {import('./stored-tensor.js').StoredTensor} StoredTensor */
/** @typedef {import('../format.js').ModelConfig} ModelConfig */
/** @typedef {import('../format.js').TensorTable} TensorTable */

/**
 * @typedef {object} PackOptions
 * @property {'int8' | 'f16' | 'f32'} [embedding] how embedding and head are stored (default int8, with projections f16 f16)
 * @property {'auto' | 'f16' | 'int8' | 'int4'} [projections] how in_proj and out_proj are stored: `auto` (default) as signs where the
 *   checkpoint is 1-bit, else as int8; the others make a dense model also of a dense export
 * @property {'refuse' | 'plus'} [zeros] latent weights that are exactly 0: `refuse` (default) allows
 *   max(16, 1e-6 of a tensor), `plus` any number; they become +1
 * @property {ByteSource | null} [tokenizer] a tokenizer.json or SentencePiece model (default: the folder's)
 * @property {string} [source] where the weights come from (default: the folder's name)
 * @property {string} [licence] of the weights (default "unknown")
 * @property {(doneBytes: number, totalBytes: number) => void} [onProgress] bytes of weights read
 * @property {AbortSignal} [signal]
 */

/**
 * @typedef {object} PackSummary
 * @property {ModelConfig} config
 * @property {number} fileBytes
 * @property {number} tensors
 * @property {string[]} files of weights read
 * @property {string | null} tokenizer the file the tokenizer comes from
 * @property {{ name: string, zeros: number }[]} zeros tensors that had exact zeros, now +1
 * @property {boolean} dense signs recovered from a dense export
 * @property {string[]} warnings
 */

const EMBEDDING_DTYPES = /** @type {const} */ ({ int8: 'I8', f16: 'F16', f32: 'F32' })
const PROJECTION_DTYPES = /** @type {const} */ ({
  auto: undefined,
  f16: 'F16',
  int8: 'I8',
  int4: 'I4',
})
const HEAD = 'lm_head.weight'

/**
 * @param {TensorTable} core
 * @param {CheckpointFolder} folder read, not closed
 * @param {Output} output written, neither committed nor aborted
 * @param {PackOptions} [options]
 * @returns {Promise<PackSummary>}
 * @throws {BmError} `checkpoint`, `config`, `tokenizer`, `argument`, `io`; rejects with the signal's reason
 */
export async function packCheckpoint(core, folder, output, options = {}) {
  const { projections = 'auto', zeros = 'refuse', signal } = options
  const { embedding = projections === 'f16' ? 'f16' : 'int8' } = options
  const embedding_dtype = EMBEDDING_DTYPES[embedding]
  if (!embedding_dtype) throw choice('embedding', embedding, 'int8, f16 or f32')
  if (!Object.hasOwn(PROJECTION_DTYPES, projections))
    throw choice('projections', projections, 'auto, f16, int8 or int4')
  if (zeros !== 'refuse' && zeros !== 'plus') throw choice('zeros', zeros, 'refuse or plus')
  signal?.throwIfAborted()
  const { config: sizes, json } = await readCheckpointConfig(folder)
  core.tensors({ ...sizes, embedding_dtype })
  const { tensors, files } = await readCheckpoint(folder)
  const tie_embeddings = await isTied(tensors, sizes.tie_embeddings, signal)
  const projection_dtype = await projectionType(tensors, projections, signal)
  const config = /** @type {ModelConfig} */ ({
    ...sizes,
    tie_embeddings,
    embedding_dtype,
    ...(projection_dtype ? { projection_dtype } : {}),
  })
  const specs = core.tensors(config)
  checkSize(core, config)
  if (tie_embeddings) tensors.delete(HEAD)
  const { steps, dense } = planTensors(specs, tensors, folder.name)
  const tokenizer = await readTokenizerFiles(folder, {
    file: options.tokenizer ?? null,
    configJson: json,
    vocabSize: config.vocab_size,
  })
  checkTokenizer(tokenizer, config)
  const text = tokenizer.json ? padTokenizer(tokenizer.json) : new Uint8Array(0)
  const fields = {
    config,
    tensors: specs,
    tokenizerBytes: text.length,
    bosId: tokenizer.bosId,
    eosIds: tokenizer.eosIds,
    addBos: tokenizer.addBos,
    chatTemplate: tokenizer.chatTemplate,
    source: options.source ?? lastName(folder.name),
    licence: options.licence ?? 'unknown',
  }
  const writer = new DataWriter(output, headerSize(fields))
  await writer.write(text)
  const work = new Work(zeros, steps, options)
  for (const step of steps) await writeStep(step, writer, work)
  work.throwProblems(folder.name)
  const { chunkSha256, fileBytes } = await writer.finish()
  signal?.throwIfAborted()
  await output.write(0, encodeHeader({ ...fields, chunkSha256 }))
  return {
    config,
    fileBytes,
    tensors: specs.length + (text.length ? 1 : 0),
    files,
    tokenizer: tokenizer.from,
    zeros: work.zeros,
    dense,
    warnings: tokenizer.json
      ? []
      : ['no tokenizer found: the packed model works on token ids only'],
  }
}

/** What nobody could load need not be written. @param {TensorTable} core @param {ModelConfig} config @throws {BmError} `config` */
function checkSize(core, config) {
  /** @param {ModelConfig} one */
  const bytesOf = (one) => core.tensors(one).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const bytes = bytesOf(config)
  if (bytes <= MOST_WEIGHT_BYTES) return
  const others = Object.entries(PROJECTION_DTYPES).flatMap(([name, projection_dtype]) => {
    if (!config.projection_dtype || !projection_dtype) return []
    const other = bytesOf({ ...config, projection_dtype })
    return other > MOST_WEIGHT_BYTES ? [] : [`${name} (${megabytes(other)})`]
  })
  const advice = others.length > 0 ? `; projections that fit: ${others.join(', ')}` : ''
  throw new BmError(
    'config',
    `the weights would take ${megabytes(bytes)}, and WebAssembly has room for ${megabytes(MOST_WEIGHT_BYTES)}${advice}`,
  )
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${Math.round(bytes / 1e6)} MB`
}

/** Refuses what loading would refuse. @param {import('./tokenizer-files.js').TokenizerFiles} tokenizer @param {ModelConfig} config @throws {BmError} `tokenizer` */
function checkTokenizer({ json, from, bosId, eosIds }, { padded_vocab_size: paddedVocabSize }) {
  if (!json) return
  const reservedIds = [...eosIds, ...(bosId === null ? [] : [bosId])]
  try {
    readTokenizerFile(new TextDecoder().decode(json), { paddedVocabSize, reservedIds })
  } catch (cause) {
    throw new BmError('tokenizer', `${from}: ${reasonOf(cause)}`, { cause })
  }
}

/**
 * @param {Map<string, StoredTensor>} tensors
 * @param {keyof typeof PROJECTION_DTYPES} wanted
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<ModelConfig['projection_dtype']>} undefined: signs
 */
async function projectionType(tensors, wanted, signal) {
  if (isBinarized(tensors)) {
    if (wanted === 'auto') return undefined
    throw choice('projections', wanted, 'auto: this checkpoint is 1-bit (it has wscale)')
  }
  if (wanted !== 'auto') return PROJECTION_DTYPES[wanted]
  const first = tensors.get(FIRST_PROJECTION)
  // What is missing or no float is told by the plan.
  if (!first?.hasFloats || first.shape.length !== 2) return undefined
  return (await holdsTwoValues(first, signal)) ? undefined : 'I8'
}

/** @param {string} name @param {unknown} found @param {string} wanted */
function choice(name, found, wanted) {
  return new BmError('argument', `${name}: ${JSON.stringify(found)}, want ${wanted}`)
}

/** @param {string} path */
function lastName(path) {
  return path.split(/[\\/]/).filter(Boolean).at(-1) ?? path
}

/**
 * Whether the head is the embedding: it is absent, the same view, or equal number by number. One that cannot be
 * compared counts as untied, so that the plan says what is wrong with it.
 *
 * @param {Map<string, StoredTensor>} tensors
 * @param {boolean} said what config.json says
 * @param {AbortSignal | undefined} signal
 */
async function isTied(tensors, said, signal) {
  const head = tensors.get(HEAD)
  const table = tensors.get(EMBEDDING)
  if (!head || !table) return said && !head
  if (head.shape.join() !== table.shape.join() || !head.hasFloats || !table.hasFloats) return false
  if (head.sameAs(table)) return true
  const others = table.slices(signal)
  try {
    for await (const { values } of head.slices(signal)) {
      const other = (await others.next()).value?.values ?? []
      if (values.some((value, i) => !Object.is(value, other[i]))) return false
    }
    return true
  } finally {
    await others.return(undefined)
  }
}

/** What one conversion counts: bytes read, zeros, and numbers that no model may hold. */
export class Work {
  /** @type {{ name: string, zeros: number }[]} */
  zeros = []
  /** @type {string[]} */
  #problems = []
  #doneBytes = 0
  #totalBytes
  #policy
  #onProgress
  /** @type {Map<string, Float32Array>} */
  #handed = new Map()

  /**
   * @param {'refuse' | 'plus'} policy
   * @param {import('./tensor-plan.js').PlanStep[]} steps
   * @param {PackOptions} options
   */
  constructor(policy, steps, { onProgress, signal }) {
    this.#policy = policy
    this.#onProgress = onProgress
    this.signal = signal
    const weight = (/** @type {import('./tensor-plan.js').PlanStep} */ { recipe, source }) =>
      (source?.sizeBytes ?? 0) * (recipe === 'denseSigns' ? 2 : 1)
    this.#totalBytes = steps.reduce((sum, step) => sum + weight(step), 0)
  }

  /** @param {StoredTensor} tensor @param {number} rows of it that were read */
  read(tensor, rows) {
    this.#doneBytes += (tensor.sizeBytes / tensor.rows) * rows
    this.#onProgress?.(this.#doneBytes, this.#totalBytes)
  }

  /** Keeps what a later step of the same tensor writes. @param {string} recipe @param {Float32Array} values */
  hand(recipe, values) {
    this.#handed.set(recipe, values)
  }

  /** @param {string} recipe */
  take(recipe) {
    const values = this.#handed.get(recipe)
    if (!values) throw new BmError('internal', `nothing was handed to the step ${recipe}`)
    this.#handed.delete(recipe)
    return values
  }

  /** Five are enough to see what is wrong. @param {string} what */
  problem(what) {
    this.#problems.push(what)
    if (this.#problems.length >= 5) this.throwProblems('')
  }

  /** @param {StoredTensor} tensor @param {import('./weight-codes.js').SignCounts} counts */
  signs(tensor, { zeros, nonFinite }) {
    const weights = tensor.rows * tensor.columns
    const allowed = this.#policy === 'plus' ? weights : Math.max(16, 1e-6 * weights)
    if (zeros > 0) this.zeros.push({ name: tensor.name, zeros })
    if (nonFinite > 0) this.problem(`${tensor.name} has ${nonFinite} NaN or infinite weights`)
    if (zeros > allowed) {
      const most = Math.floor(allowed)
      this.problem(
        `${tensor.name} has ${zeros} exact zeros of ${weights}, at most ${most} are allowed (zeros = plus makes them +1)`,
      )
    }
  }

  /** @param {string} folder */
  throwProblems(folder) {
    if (this.#problems.length === 0) return
    const where = folder ? `${folder}: ` : ''
    throw new BmError('checkpoint', `${where}${this.#problems.join('; ')}`)
  }
}
