/**
 * A session as bytes: models/SESSION.md says what is in them.
 *
 * Owns that format, both ways, and every check of what comes from outside. Knows nothing about where bytes are kept.
 * The idea: a safetensors file, so that any tool can look into it, whose last tensor is the SHA-256 of all bytes before. What passes that
 * check is as it was written; what is then refused is refused because it belongs to something else.
 */

import { BmError } from './errors.js'
import { toHex } from './format.js'

/** @typedef {import('./core.js').StoredType} StoredType */
/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./format.js').ModelConfig} ModelConfig */
/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./timeline.js').Snapshot} Snapshot */
/** @typedef {import('./timeline.js').Turn} Turn */

const FORMAT = 'bimamba-session'
const VERSION = 1
const ALIGNMENT = 64
const DIGEST_BYTES = 32
const MOST_HEADER_BYTES = 64 * 2 ** 20
/** @type {readonly string[]} */
const TYPES = ['f32', 'i16', 'i8']

/**
 * @typedef {object} SessionFields what the header says, beside the tensors
 * @property {string} model        identity of the model
 * @property {string} source       of the model, for people
 * @property {StoredType} state
 * @property {string} precision    that computed it
 * @property {number} seed
 * @property {string} random       of the sampler, hex; '' when nothing was drawn
 * @property {import('./text-stream.js').Tail} tail
 * @property {readonly Turn[]} turns
 */

/**
 * @param {Snapshot} snapshot
 * @param {{ core: Core, header: PackedHeader, state: StoredType, precision: string }} from
 * @param {StoredType | null} type of the state in the file; null: as it is
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function writeSessionFile(snapshot, { core, header, state, precision }, type) {
  const { config } = header
  const stored = type ?? state
  const block =
    stored === state ? snapshot.state : core.convertState(config, snapshot.state, state, stored)
  const { identity, source } = header
  const { seed, random, tail, turns } = snapshot
  const fields = {
    format: `${FORMAT} ${VERSION}`,
    model: identity,
    source,
    state: stored,
    precision,
    seed: String(seed),
    random: random ? toHex(random) : '',
    tail: JSON.stringify(tail),
    turns: JSON.stringify(turns),
  }
  const tensors = layout(core, config, stored, snapshot.ids.length)
  const head = new TextEncoder().encode(
    JSON.stringify({ __metadata__: fields, ...Object.fromEntries(tensors.map(entryOf)) }),
  )
  const dataOffset = Math.ceil((8 + head.length) / ALIGNMENT) * ALIGNMENT
  const end = dataOffset + Number(tensors.at(-1)?.end)
  const bytes = new Uint8Array(end).fill(0x20, 8 + head.length, dataOffset)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(dataOffset - 8), true)
  bytes.set(head, 8)
  for (const { name, start, sizeBytes, offset } of tensors) {
    if (name === 'digest') continue
    const content =
      offset === null ? bytesOf(snapshot.ids) : block.subarray(offset, offset + sizeBytes)
    bytes.set(content, dataOffset + start)
  }
  bytes.set(await sha256(bytes.subarray(0, end - DIGEST_BYTES)), end - DIGEST_BYTES)
  return bytes
}

/**
 * @param {Uint8Array} bytes
 * @param {{ core: Core, header: PackedHeader, state: StoredType }} into what is to go on from it
 * @returns {Promise<Omit<Snapshot, 'checkpoints'>>} the state in the type that is asked for
 * @throws {BmError} `format`: no saved session, another version, not all of it; `integrity`: changed bytes; `mismatch`: of another model
 */
export async function readSessionFile(bytes, { core, header, state }) {
  const { fields, entries, dataOffset } = await readHead(bytes)
  if (fields.model !== header.identity) {
    throw new BmError(
      'mismatch',
      `the session is of the model ${shortened(fields.model)} (${fields.source}), this is ${shortened(header.identity)} (${header.source})`,
    )
  }
  const { config } = header
  const idsEntry = entries.ids
  const count = idsEntry?.shape?.[0]
  if (!isCount(count)) throw bad('no token ids')
  const tensors = layout(core, config, fields.state, count)
  if (
    JSON.stringify(Object.entries(entries)) !==
    JSON.stringify(tensors.map(entryOf).map(([name, entry]) => [name, entry]))
  ) {
    throw bad('its tensors are not those of this model')
  }
  const block = new Uint8Array(core.stateBytes(config, fields.state))
  const ids = new Uint32Array(count)
  for (const { start, end, offset, name } of tensors) {
    const content = bytes.subarray(dataOffset + start, dataOffset + end)
    if (offset !== null) block.set(content, offset)
    else if (name === 'ids') bytesOf(ids).set(content)
  }
  checkIds(ids, header.config.vocab_size)
  const { seed, random, tail, turns } = fields
  return {
    state: fields.state === state ? block : core.convertState(config, block, fields.state, state),
    ids,
    seed,
    random: random === '' ? null : fromHex(random),
    tail,
    turns,
  }
}

/** @typedef {{ dtype?: string, shape?: number[], data_offsets?: number[] }} Entry */

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<{ fields: SessionFields, entries: Record<string, Entry>, dataOffset: number }>} of bytes that are as they were written
 */
async function readHead(bytes) {
  if (bytes.length < 8) throw bad(`${bytes.length} bytes`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = Number(view.getBigUint64(0, true))
  if (length > MOST_HEADER_BYTES) throw bad(`a header of ${length} bytes`)
  const dataOffset = 8 + length
  if (dataOffset > bytes.length) throw short(bytes.length, dataOffset)
  /** @type {{ __metadata__?: Record<string, string> } & Record<string, Entry>} */
  let parsed
  try {
    parsed = JSON.parse(
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.slice(8, dataOffset)),
    )
  } catch (cause) {
    throw bad('its header is no JSON', cause)
  }
  const { __metadata__: metadata, ...entries } = Object(parsed)
  if (Object.values(Object(metadata)).some((value) => typeof value !== 'string')) {
    throw bad('its metadata is not all text')
  }
  const [name, version] = String(metadata?.format).split(' ')
  if (name !== FORMAT)
    throw bad(`its format is ${JSON.stringify(String(metadata?.format).slice(0, 40))}`)
  const sizeBytes = entries.digest?.data_offsets?.[1]
  if (!isCount(sizeBytes)) throw bad('no digest')
  const end = dataOffset + sizeBytes
  if (bytes.length < end) throw short(bytes.length, end)
  if (bytes.length !== end) throw bad(`${bytes.length} bytes, want ${end}`)
  const digest = await sha256(bytes.subarray(0, end - DIGEST_BYTES))
  if (digest.some((byte, i) => byte !== bytes[end - DIGEST_BYTES + i])) {
    throw new BmError('integrity', 'the saved session is damaged: its SHA-256 is another one')
  }
  if (Number(version) !== VERSION) {
    throw new BmError('format', `the session was saved in version ${version}, want ${VERSION}`)
  }
  return { fields: readFields(metadata), entries, dataOffset }
}

/** @param {unknown} value @returns {value is number} */
function isCount(value) {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

/** Hand-made ones can hold any text. @param {Record<string, string>} metadata @returns {SessionFields} */
function readFields({
  model = '',
  source = '',
  state = '',
  precision = '',
  seed = '',
  random = '',
  tail = '',
  turns = '',
}) {
  if (!TYPES.includes(state)) throw bad(`its state is '${state}', want ${TYPES.join(', ')}`)
  const isSeed = /^\d+$/.test(seed) && isCount(Number(seed))
  if (!isSeed || !/^([0-9a-f]{32})?$/.test(random)) {
    throw bad('its random numbers')
  }
  try {
    return {
      model,
      source,
      state: /** @type {StoredType} */ (state),
      precision,
      seed: Number(seed),
      random,
      tail: readTail(JSON.parse(tail)),
      turns: readTurns(JSON.parse(turns)),
    }
  } catch (cause) {
    throw bad('the end of its text', cause)
  }
}

/** @param {Record<string, unknown>} tail @returns {import('./text-stream.js').Tail} */
function readTail({ text, given }) {
  if (typeof text === 'string' && isCount(given) && given <= text.length) return { text, given }
  throw new Error('tail')
}

/** @param {Turn[]} turns as they should be @returns {Turn[]} */
function readTurns(turns) {
  return turns.map(({ role, content, start, end }) => {
    const isTurn = ['system', 'user', 'assistant'].includes(role) && typeof content === 'string'
    if (!isTurn || !isCount(start) || !isCount(end)) throw new Error('turn')
    return { role, content, start, end }
  })
}

/**
 * @typedef {object} Placed a tensor of the file
 * @property {string} name
 * @property {string} dtype
 * @property {number[]} shape
 * @property {number} start      in the data
 * @property {number} end
 * @property {number} sizeBytes
 * @property {number | null} offset  in the state's block; null: not of it
 */

/** @param {Core} core @param {ModelConfig} config @param {StoredType} type @param {number} count of ids @returns {Placed[]} */
function layout(core, config, type, count) {
  const parts = [
    ...core.stateTensors(config, type),
    { name: 'ids', dtype: 'U32', shape: [count], sizeBytes: 4 * count, offset: null },
    { name: 'digest', dtype: 'U8', shape: [DIGEST_BYTES], sizeBytes: DIGEST_BYTES, offset: null },
  ]
  let start = 0
  return parts.map((part) => {
    const placed = { ...part, start, end: start + part.sizeBytes }
    start = placed.end
    return placed
  })
}

/** @param {Placed} tensor @returns {[string, Entry]} */
function entryOf({ name, dtype, shape, start, end }) {
  return [name, { dtype, shape, data_offsets: [start, end] }]
}

/** @param {Uint32Array} ids @param {number} vocabSize */
function checkIds(ids, vocabSize) {
  const wrong = ids.find((id) => id >= vocabSize)
  if (wrong !== undefined) throw bad(`token id ${wrong}, want below ${vocabSize}`)
}

/** Everything this runs on is little-endian, as WebAssembly is. @param {Uint32Array} ids */
function bytesOf(ids) {
  return new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength)
}

/** @param {Uint8Array} bytes */
async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BmError(
      'unsupported',
      'crypto.subtle is missing: saved sessions need a secure context (https: or localhost)',
    )
  }
  const digest = await crypto.subtle.digest('SHA-256', /** @type {BufferSource} */ (bytes))
  return new Uint8Array(digest)
}

/** @param {string} hex */
function fromHex(hex) {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16))
}

/** @param {string} what @param {unknown} [cause] */
function bad(what, cause) {
  return new BmError('format', `not a saved session: ${what}`, { cause })
}

/** @param {number} found @param {number} want */
function short(found, want) {
  return new BmError('format', `the saved session is cut off: ${found} bytes of ${want}`)
}

/** @param {string | undefined} identity @returns {string} as much of it as tells models apart */
function shortened(identity = '') {
  return identity.slice(0, 12)
}
