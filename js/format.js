/**
 * The packed model's header: one writer, one strict reader (models/FORMAT.md is the rule book).
 *
 * Owns the metadata keys, the order and place of every tensor in the file, the chunk size and the model's
 * identity. Does not know where bytes come from, what a tensor means, or which tensors a config implies:
 * that table comes from `core.tensors(config)`. Works in browsers and Node.
 * The idea: a header says nothing that the config does not already imply, except hashes and a few strings, and
 * there is one way to write it. The reader states what it expects and refuses whatever differs.
 */

import { BmError } from './errors.js'
import { describeWrongFile } from './wrong-file.js'

export { describeWrongFile }

/** Value of the metadata key `format`: of binary projections, and of dense ones. A change of the format changes the number. */
const BINARY_FORMAT = 'bimamba 1'
const DENSE_FORMAT = 'bimamba 2'
/** Hashed pieces of the data section, in bytes. */
export const CHUNK_BYTES = 4194304
/** Longest header accepted (N of FORMAT.md), in bytes; checked before anything is allocated or parsed. */
export const MAX_HEADER_BYTES = 8388608
/** Largest tokenizer accepted, in bytes. */
export const MAX_TOKENIZER_BYTES = 33554432
/** Name of the tensor that holds the tokenizer.json. */
const TOKENIZER_NAME = 'tokenizer'
const ALIGNMENT = 64
const MAX_EOS_IDS = 64
const HASH_BYTES = 32

/** Keys of the config, in order, with their kinds. */
const CONFIG_KEYS = /** @type {const} */ ({
  n_layer: 'integer',
  d_model: 'integer',
  d_state: 'integer',
  headdim: 'integer',
  ngroups: 'integer',
  d_conv: 'integer',
  expand: 'integer',
  vocab_size: 'integer',
  padded_vocab_size: 'integer',
  tie_embeddings: 'boolean',
  norm_eps: 'number',
  dt_min: 'number',
  dt_max: 'number or null',
  embedding_dtype: '"I8", "F16" or "F32"',
})
/** What people call the types of dense projections. */
const PROJECTION_NAMES = /** @type {const} */ ({ I4: 'int4', I8: 'int8', F16: 'f16' })
/** The last key of the config of a dense model. */
const DENSE_KEY = 'projection_dtype'
/** @type {unknown[]} */
const DENSE_DTYPES = Object.keys(PROJECTION_NAMES)

/** How the projections are stored. @typedef {'1 bit' | 'int4' | 'int8' | 'f16'} Projections */

/** @param {ModelConfig} config @returns {Projections} */
export function projectionsOf({ projection_dtype: dtype }) {
  return dtype ? PROJECTION_NAMES[dtype] : '1 bit'
}

/**
 * @typedef {object} ModelConfig
 * @property {number} n_layer
 * @property {number} d_model
 * @property {number} d_state
 * @property {number} headdim
 * @property {number} ngroups
 * @property {number} d_conv
 * @property {number} expand
 * @property {number} vocab_size
 * @property {number} padded_vocab_size
 * @property {boolean} tie_embeddings
 * @property {number} norm_eps
 * @property {number} dt_min
 * @property {number | null} dt_max null: no upper limit
 * @property {'I8' | 'F16' | 'F32'} embedding_dtype
 * @property {'I4' | 'I8' | 'F16'} [projection_dtype] of dense projections; absent: they are binary
 */

/**
 * One row of `core.tensors(config)`.
 * @typedef {object} TensorSpec
 * @property {string} name
 * @property {'U8' | 'I8' | 'F16' | 'F32'} dtype
 * @property {number[]} shape
 * @property {number} sizeBytes
 * @property {number} part what is sealed together: 0 embedding, 1 .. n_layer layers, n_layer + 1 the rest
 */

/** @typedef {{ tensors: (config: ModelConfig) => TensorSpec[] }} TensorTable what this file needs of Core */

/**
 * A tensor in its place in the file.
 * @typedef {object} PackedTensor
 * @property {string} name
 * @property {string} dtype
 * @property {number[]} shape
 * @property {number} offset bytes from the start of the data section
 * @property {number} sizeBytes
 * @property {number} index into `core.tensors(config)`; -1 for the tokenizer
 * @property {number} part as in TensorSpec; -1 for the tokenizer
 */

/**
 * @typedef {object} HeaderFields
 * @property {ModelConfig} config
 * @property {TensorSpec[]} tensors `core.tensors(config)`
 * @property {number} [tokenizerBytes] size of the padded tokenizer.json; 0 (default): the file has none
 * @property {number | null} bosId
 * @property {number[]} eosIds
 * @property {boolean} addBos a prompt starts with bosId unless the caller says otherwise
 * @property {string | null} [chatTemplate]
 * @property {string} source where the weights come from, in words or as a URL
 * @property {string} licence of the weights
 */

/**
 * @typedef {object} PackedHeader
 * @property {ModelConfig} config
 * @property {PackedTensor[]} tensors in file order
 * @property {number} dataOffset where the data section starts in the file: 8 + N
 * @property {number} dataBytes length of the data section
 * @property {number} fileBytes length of the whole file
 * @property {number} chunkBytes
 * @property {Uint8Array} chunkSha256 32 bytes a chunk
 * @property {string} identity SHA-256 of bytes 0 .. 8+N-1, lower-case hex
 * @property {number | null} bosId
 * @property {number[]} eosIds
 * @property {boolean} addBos
 * @property {string | null} chatTemplate
 * @property {string} source
 * @property {string} licence
 * @property {boolean} hasTokenizer
 */

/**
 * Gives every tensor its place: the tokenizer, if any, then the table, end to end.
 *
 * @param {TensorSpec[]} specs
 * @param {number} [tokenizerBytes]
 * @returns {{ tensors: PackedTensor[], dataBytes: number }}
 */
function placeTensors(specs, tokenizerBytes = 0) {
  /** @type {PackedTensor[]} */
  const tensors = []
  let offset = 0
  const place = (/** @type {Omit<PackedTensor, 'offset'>} */ tensor) => {
    tensors.push({ ...tensor, offset })
    offset += tensor.sizeBytes
  }
  if (tokenizerBytes > 0) {
    const shape = [tokenizerBytes]
    const common = { shape, sizeBytes: tokenizerBytes, index: -1, part: -1 }
    place({ name: TOKENIZER_NAME, dtype: 'U8', ...common })
  }
  for (const [index, { name, dtype, shape, sizeBytes, part }] of specs.entries()) {
    place({ name, dtype, shape, sizeBytes, index, part })
  }
  return { tensors, dataBytes: offset }
}

/** @param {Uint8Array} json tokenizer.json @returns {Uint8Array} the same with spaces to a multiple of 64 bytes */
export function padTokenizer(json) {
  const padded = new Uint8Array(alignUp(json.length)).fill(0x20)
  padded.set(json)
  return padded
}

/**
 * Length in bytes of the header with its length field (8 + N). The hashes have a known length, so the data
 * can be written before they are known.
 *
 * @param {HeaderFields} fields
 */
export function headerSize(fields) {
  const { dataBytes } = placeTensors(fields.tensors, fields.tokenizerBytes)
  const blank = new Uint8Array(Math.ceil(dataBytes / CHUNK_BYTES) * HASH_BYTES)
  return encodeHeader({ ...fields, chunkSha256: blank }).length
}

/**
 * Writes the header: bytes 0 .. 8+N-1 of the file.
 *
 * @param {HeaderFields & { chunkSha256: Uint8Array }} fields
 * @returns {Uint8Array}
 * @throws {BmError} `internal` when the number of hashes does not fit the data
 */
export function encodeHeader(fields) {
  const { tensors, dataBytes } = placeTensors(fields.tensors, fields.tokenizerBytes)
  const wanted = Math.ceil(dataBytes / CHUNK_BYTES) * HASH_BYTES
  if (fields.chunkSha256.length !== wanted) {
    const found = fields.chunkSha256.length
    throw new BmError('internal', `header: ${found} bytes of chunk hashes, want ${wanted}`)
  }
  const metadata = {
    format: fields.config.projection_dtype ? DENSE_FORMAT : BINARY_FORMAT,
    config: JSON.stringify(inOrder(fields.config)),
    chunk_bytes: String(CHUNK_BYTES),
    chunk_sha256: toHex(fields.chunkSha256),
    bos_id: JSON.stringify(fields.bosId),
    eos_ids: JSON.stringify(fields.eosIds),
    add_bos: JSON.stringify(fields.addBos),
    ...(fields.chatTemplate == null ? {} : { chat_template: fields.chatTemplate }),
    source: fields.source,
    licence: fields.licence,
  }
  const entries = tensors.map((tensor) => [tensor.name, entryOf(tensor)])
  const json = JSON.stringify({ __metadata__: metadata, ...Object.fromEntries(entries) })
  const text = new TextEncoder().encode(json)
  const bytes = new Uint8Array(alignUp(8 + text.length)).fill(0x20)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true)
  bytes.set(text, 8)
  return bytes
}

/**
 * Reads N, the length of the header, from the first 8 bytes of a file. Nothing else has been read yet, so the
 * caller may allocate what this returns: it is capped.
 *
 * @param {Uint8Array} bytes the first bytes of the file, 8 or more; up to 512 give a better message
 * @returns {number}
 * @throws {BmError} `format`
 */
export function readHeaderLength(bytes) {
  const found = `it looks like ${describeWrongFile(bytes)}`
  if (bytes.length < 8) throw bad(`file: ${bytes.length} bytes, want at least 8; ${found}`)
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true)
  if (length > BigInt(MAX_HEADER_BYTES) || length < 2n) {
    throw bad(`header length ${length}, want 2 .. ${MAX_HEADER_BYTES}; ${found}`)
  }
  if (bytes.length > 8 && bytes[8] !== 0x7b) throw bad(`header does not start with {; ${found}`)
  return Number(length)
}

/**
 * Reads and checks a header. Every rule of FORMAT.md that does not need the data is checked here; the caller
 * compares `fileBytes` with the real length and the chunks with their hashes.
 *
 * @param {Uint8Array} bytes the first 8+N bytes of the file, or more
 * @param {TensorTable} core
 * @returns {Promise<PackedHeader>}
 * @throws {BmError} `format`
 */
export async function parseHeader(bytes, core) {
  const length = readHeaderLength(bytes)
  const dataOffset = 8 + length
  if (bytes.length < dataOffset) {
    throw bad(`file ends inside the header: ${bytes.length} bytes, want ${dataOffset}`)
  }
  const head = bytes.slice(0, dataOffset)
  const parsed = parseJson(head.subarray(8))
  const metadata = readMetadata(parsed.__metadata__)
  if (dataOffset % ALIGNMENT) {
    throw bad(`header: the data would start at ${dataOffset}, want a multiple of ${ALIGNMENT}`)
  }
  const config = readConfig(metadata.config, metadata.format === DENSE_FORMAT)
  const tokenizerBytes = readTokenizerSize(parsed)
  const specs = impliedTensors(core, config)
  const { tensors, dataBytes } = placeTensors(specs, tokenizerBytes)
  checkTensors(parsed, tensors)
  const digest = await crypto.subtle.digest('SHA-256', head)
  return {
    config,
    tensors,
    dataOffset,
    dataBytes,
    fileBytes: dataOffset + dataBytes,
    chunkBytes: readChunkBytes(metadata.chunk_bytes),
    chunkSha256: readHashes(metadata.chunk_sha256, dataBytes),
    identity: toHex(new Uint8Array(digest)),
    ...readTokenIds(metadata, config.vocab_size),
    chatTemplate: metadata.chat_template ?? null,
    source: metadata.source,
    licence: metadata.licence,
    hasTokenizer: tokenizerBytes > 0,
  }
}

/** @param {Uint8Array} bytes @returns {string} lower-case hex */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** @param {string} what */
function bad(what, cause = /** @type {unknown} */ (undefined)) {
  return new BmError('format', `not a packed model: ${what}`, { cause })
}

/** @param {number} size */
function alignUp(size) {
  return Math.ceil(size / ALIGNMENT) * ALIGNMENT
}

/** @param {ModelConfig} config @returns {Record<string, unknown>} its known keys, in the format's order */
function inOrder(config) {
  const all = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (config))
  const keys = Object.keys(CONFIG_KEYS)
  if (config.projection_dtype) keys.push(DENSE_KEY)
  return Object.fromEntries(keys.map((key) => [key, all[key]]))
}

/** @param {PackedTensor} tensor */
function entryOf({ dtype, shape, offset, sizeBytes }) {
  return { dtype, shape, data_offsets: [offset, offset + sizeBytes] }
}

/**
 * The header as an object, and the proof that it is written the one canonical way.
 *
 * @param {Uint8Array} bytes N bytes
 * @returns {Record<string, unknown>}
 */
function parseJson(bytes) {
  let text = ''
  let parsed = /** @type {unknown} */ (null)
  let again = ''
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    text = text.slice(0, lastNonSpace(text) + 1)
    parsed = JSON.parse(text)
    again = JSON.stringify(parsed)
  } catch (cause) {
    throw bad('header: not JSON in UTF-8', cause)
  }
  if (!isObject(parsed)) throw bad('header: want one JSON object')
  const version = isObject(parsed.__metadata__) ? parsed.__metadata__.format : undefined
  if (version !== BINARY_FORMAT && version !== DENSE_FORMAT) {
    const found = typeof version === 'string' ? `"${version.slice(0, 40)}"` : 'absent'
    const isOurs = typeof version === 'string' && version.startsWith('bimamba ')
    const hint = isOurs ? 'convert again' : 'convert it first'
    throw bad(`metadata format is ${found}, want "${BINARY_FORMAT}" or "${DENSE_FORMAT}": ${hint}`)
  }
  const padding = bytes.length - new TextEncoder().encode(text).length
  if (again !== text || padding >= ALIGNMENT) {
    throw bad('header: not in canonical form (re-saved by another program?): convert again')
  }
  return parsed
}

/** A regular expression would take quadratic time on a header of spaces. @param {string} text */
function lastNonSpace(text) {
  let at = text.length - 1
  while (at >= 0 && text.charCodeAt(at) === 0x20) at--
  return at
}

const METADATA_KEYS = /** @type {const} */ ([
  'format',
  'config',
  'chunk_bytes',
  'chunk_sha256',
  'bos_id',
  'eos_ids',
  'add_bos',
  'chat_template',
  'source',
  'licence',
])

/**
 * @param {unknown} value
 * @returns {Record<Exclude<typeof METADATA_KEYS[number], 'chat_template'>, string> & { chat_template?: string }}
 */
function readMetadata(value) {
  if (!isObject(value)) throw bad('metadata: want an object')
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw bad(`metadata ${quote(key)}: want a string`)
  }
  const found = Object.keys(value)
  const wanted = METADATA_KEYS.filter((key) => key !== 'chat_template' || found.includes(key))
  sameKeys('metadata', found, wanted)
  return /** @type {ReturnType<typeof readMetadata>} */ (value)
}

/** @param {string} text @param {boolean} dense @returns {ModelConfig} */
function readConfig(text, dense) {
  const config = canonicalJson('config', text)
  if (!isObject(config)) throw bad('config: want an object')
  sameKeys('config', Object.keys(config), [
    ...Object.keys(CONFIG_KEYS),
    ...(dense ? [DENSE_KEY] : []),
  ])
  if (dense && !DENSE_DTYPES.includes(config[DENSE_KEY]))
    throw bad(
      `config ${DENSE_KEY}: ${clip(JSON.stringify(config[DENSE_KEY]))}, want "I4", "I8" or "F16"`,
    )
  for (const [key, kind] of Object.entries(CONFIG_KEYS)) {
    const value = config[key]
    const fits =
      kind === 'integer'
        ? Number.isSafeInteger(value)
        : kind === 'boolean'
          ? typeof value === 'boolean'
          : kind === 'number'
            ? typeof value === 'number'
            : kind === 'number or null'
              ? typeof value === 'number' || value === null
              : value === 'I8' || value === 'F16' || value === 'F32'
    if (!fits) throw bad(`config ${key}: ${clip(JSON.stringify(value))}, want ${kind}`)
  }
  return /** @type {ModelConfig} */ (/** @type {unknown} */ (config))
}

/** @param {TensorTable} core @param {ModelConfig} config */
function impliedTensors(core, config) {
  try {
    return core.tensors(config)
  } catch (cause) {
    if (cause instanceof BmError && cause.code === 'config') throw bad(cause.message, cause)
    throw cause
  }
}

/** @param {Record<string, unknown>} parsed @returns {number} 0 without a tokenizer */
function readTokenizerSize(parsed) {
  if (!Object.hasOwn(parsed, TOKENIZER_NAME)) return 0
  const entry = parsed[TOKENIZER_NAME]
  const size = isObject(entry) && Array.isArray(entry.shape) ? entry.shape[0] : undefined
  const fits = Number.isSafeInteger(size) && size > 0 && size <= MAX_TOKENIZER_BYTES
  if (!fits || size % ALIGNMENT) {
    const wanted = `want a multiple of ${ALIGNMENT} up to ${MAX_TOKENIZER_BYTES}`
    throw bad(
      `tensor "${TOKENIZER_NAME}": ${clip(JSON.stringify(size) ?? 'unknown')} bytes, ${wanted}`,
    )
  }
  return size
}

/** @param {Record<string, unknown>} parsed @param {PackedTensor[]} tensors what the config implies */
function checkTensors(parsed, tensors) {
  const names = ['__metadata__', ...tensors.map((tensor) => tensor.name)]
  sameKeys('tensors', Object.keys(parsed), names)
  for (const tensor of tensors) {
    const entry = parsed[tensor.name]
    if (!isObject(entry)) throw bad(`tensor "${tensor.name}": want an object`)
    const wanted = /** @type {Record<string, unknown>} */ (entryOf(tensor))
    sameKeys(`tensor "${tensor.name}"`, Object.keys(entry), Object.keys(wanted))
    for (const key of Object.keys(wanted)) {
      const [found, want] = [JSON.stringify(entry[key]) ?? '', JSON.stringify(wanted[key])]
      if (found !== want) {
        throw bad(`tensor "${tensor.name}": ${key} ${clip(found)}, want ${want}`)
      }
    }
  }
}

/** @param {string} text */
function readChunkBytes(text) {
  if (text !== String(CHUNK_BYTES)) {
    throw bad(`metadata chunk_bytes: ${quote(text)}, want ${CHUNK_BYTES}`)
  }
  return CHUNK_BYTES
}

/** @param {string} hex @param {number} dataBytes */
function readHashes(hex, dataBytes) {
  const wanted = Math.ceil(dataBytes / CHUNK_BYTES) * HASH_BYTES
  if (hex.length !== wanted * 2 || !/^[0-9a-f]*$/.test(hex)) {
    const found = `${hex.length} characters`
    throw bad(`metadata chunk_sha256: ${found}, want ${wanted * 2} of lower-case hex`)
  }
  return Uint8Array.from({ length: wanted }, (_, i) =>
    Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16),
  )
}

/**
 * @param {{ bos_id: string, eos_ids: string, add_bos: string }} metadata
 * @param {number} vocabSize
 */
function readTokenIds({ bos_id, eos_ids, add_bos }, vocabSize) {
  const isId = (/** @type {unknown} */ id) =>
    typeof id === 'number' && Number.isSafeInteger(id) && id >= 0 && id < vocabSize
  const bosId = canonicalJson('bos_id', bos_id)
  const eosIds = canonicalJson('eos_ids', eos_ids)
  const addBos = canonicalJson('add_bos', add_bos)
  if (bosId !== null && !isId(bosId)) {
    throw bad(`metadata bos_id: ${quote(bos_id)}, want null or 0 .. ${vocabSize - 1}`)
  }
  const list = Array.isArray(eosIds) && eosIds.length <= MAX_EOS_IDS && eosIds.every(isId)
  if (!list || new Set(eosIds).size !== eosIds.length) {
    const wanted = `want up to ${MAX_EOS_IDS} different ids of 0 .. ${vocabSize - 1}`
    throw bad(`metadata eos_ids: ${quote(eos_ids)}, ${wanted}`)
  }
  if (typeof addBos !== 'boolean' || (addBos && bosId === null)) {
    throw bad(`metadata add_bos: ${quote(add_bos)}, want true or false, and false without bos_id`)
  }
  return {
    bosId: /** @type {number | null} */ (bosId),
    eosIds: /** @type {number[]} */ (eosIds),
    addBos,
  }
}

/** @param {string} key @param {string} text @returns {unknown} */
function canonicalJson(key, text) {
  let value
  try {
    value = JSON.parse(text)
    if (JSON.stringify(value) === text) return value
  } catch (cause) {
    throw bad(`metadata ${key}: ${quote(text)} is not JSON`, cause)
  }
  throw bad(`metadata ${key}: ${quote(text)} is not in canonical form`)
}

/** @param {string} where @param {string[]} found @param {readonly string[]} wanted */
function sameKeys(where, found, wanted) {
  const [has, wants] = [new Set(found), new Set(wanted)]
  const missing = wanted.filter((key) => !has.has(key))
  if (missing.length) throw bad(`${where}: ${someNames(missing)} missing`)
  const extra = found.filter((key) => !wants.has(key))
  if (extra.length) throw bad(`${where}: ${someNames(extra)} not expected`)
  const at = wanted.findIndex((key, i) => found[i] !== key)
  if (at >= 0) throw bad(`${where}: ${quote(found[at] ?? '')} out of order, want "${wanted[at]}"`)
}

/** @param {string[]} names */
function someNames(names) {
  const shown = names.slice(0, 5).map(quote).join(', ')
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown
}

/** Shows hostile text in a message: short, on one line. @param {string} text */
function quote(text) {
  return text.length > 60 ? `${JSON.stringify(text.slice(0, 60))}...` : JSON.stringify(text)
}

/** The same for JSON text. @param {string} json */
function clip(json) {
  return json.length > 60 ? `${json.slice(0, 60)}...` : json
}

/** @param {unknown} value @returns {value is Record<string, unknown>} */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
