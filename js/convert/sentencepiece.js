/**
 * Reads a SentencePiece model (`tokenizer.model`) and says the same as a tokenizer.json of the LLaMA shape.
 *
 * Owns the few protobuf fields of sentencepiece_model.proto that matter and the derivation of BPE merges.
 * Knows nothing of the checkpoint. The idea: SentencePiece's BPE always joins the neighbours whose joined piece
 * has the best score, so the merges are all ways to split each piece into two others, best score first.
 */

import { BmError } from '../errors.js'

/** @typedef {{ text: string, score: number, type: number }} Piece */

/**
 * @typedef {object} SentencePieceModel
 * @property {Piece[]} pieces the index is the id
 * @property {number} modelType 1 unigram, 2 BPE, 3 word, 4 char
 * @property {boolean} byteFallback
 * @property {number} unkId
 * @property {number} bosId -1: none
 * @property {number} eosId -1: none
 * @property {boolean} addDummyPrefix
 * @property {string[]} unsupported options in use that a tokenizer.json of this shape cannot say
 */

const NORMAL = 1
const UNKNOWN = 2
const CONTROL = 3
const BYTE = 6
const SPACE = '\u2581'

/** @param {string} what */
function bad(what) {
  return new BmError('tokenizer', `tokenizer.model: ${what}`)
}

/**
 * The fields of one protobuf message.
 *
 * @param {Uint8Array} bytes
 * @returns {Generator<{ field: number, number: number, bytes: Uint8Array }>} `number` for varints and floats
 */
function* fieldsOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const varint = () => {
    let value = 0
    for (let shift = 1; at < bytes.length; shift *= 128) {
      const byte = Number(bytes[at++])
      value += (byte & 127) * shift
      if (byte < 128) return value
      if (shift > 2 ** 63) break
    }
    throw bad('not a SentencePiece model (a number passes the end)')
  }
  while (at < bytes.length) {
    const key = varint()
    const [field, wire] = [Math.floor(key / 8), key % 8]
    const length = wire === 2 ? varint() : wire === 5 ? 4 : wire === 1 ? 8 : 0
    const number = wire === 0 ? varint() : 0
    if ((wire > 2 && wire !== 5) || at + length > bytes.length) {
      throw bad('not a SentencePiece model (a field passes the end)')
    }
    const value = wire === 5 ? view.getFloat32(at, true) : number
    yield { field, number: value, bytes: bytes.subarray(at, at + length) }
    at += length
  }
}

/** @param {Uint8Array} bytes */
function utf8(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw bad('a piece is not UTF-8')
  }
}

/** @param {Uint8Array} bytes @returns {Piece} */
function readPiece(bytes) {
  const piece = { text: '', score: 0, type: NORMAL }
  for (const { field, number, bytes: value } of fieldsOf(bytes)) {
    if (field === 1) piece.text = utf8(value)
    if (field === 2) piece.score = number
    if (field === 3) piece.type = number
  }
  return piece
}

/** Negative int32 arrive as 64-bit varints. @param {number} number */
function int32(number) {
  return number >= 2 ** 31 ? -1 : number
}

/**
 * @param {Uint8Array} bytes the file
 * @returns {SentencePieceModel}
 * @throws {BmError} `tokenizer`
 */
export function readSentencePiece(bytes) {
  /** @type {SentencePieceModel} */
  const model = {
    pieces: [],
    modelType: 1,
    byteFallback: false,
    unkId: 0,
    bosId: 1,
    eosId: 2,
    addDummyPrefix: true,
    unsupported: [],
  }
  let removesSpaces = true
  for (const { field, bytes: value } of fieldsOf(bytes)) {
    if (field === 1) model.pieces.push(readPiece(value))
    if (field === 2) readTrainer(value, model)
    if (field === 3) removesSpaces = readNormalizer(value, model)
  }
  if (removesSpaces) model.unsupported.push('remove_extra_whitespaces')
  return model
}

/** @param {Uint8Array} bytes @param {SentencePieceModel} model */
function readTrainer(bytes, model) {
  for (const { field, number } of fieldsOf(bytes)) {
    if (field === 3) model.modelType = number
    if (field === 24 && number) model.unsupported.push('treat_whitespace_as_suffix')
    if (field === 35) model.byteFallback = number !== 0
    if (field === 40) model.unkId = number
    if (field === 41) model.bosId = int32(number)
    if (field === 42) model.eosId = int32(number)
  }
}

/** @param {Uint8Array} bytes @param {SentencePieceModel} model @returns {boolean} whether runs of spaces are cut */
function readNormalizer(bytes, model) {
  let name = ''
  let removesSpaces = true
  let charsmap = 0
  for (const { field, number, bytes: value } of fieldsOf(bytes)) {
    if (field === 1) name = utf8(value)
    if (field === 2) charsmap = value.length
    if (field === 3) model.addDummyPrefix = number !== 0
    if (field === 4) removesSpaces = number !== 0
    if (field === 5 && !number) model.unsupported.push('escape_whitespaces = false')
  }
  if (charsmap)
    model.unsupported.push(`the normalization rule ${JSON.stringify(name.slice(0, 40))}`)
  return removesSpaces
}

/**
 * @param {SentencePieceModel} model
 * @returns {Record<string, unknown>} a tokenizer.json: BPE with byte fallback, as LLaMA's
 * @throws {BmError} `tokenizer` names what it cannot say
 */
export function sentencePieceToJson(model) {
  checkModel(model)
  const { pieces, unkId } = model
  const vocab = new Map(pieces.map(({ text }, id) => [text, id]))
  if (vocab.size !== pieces.length) throw bad('two pieces are the same')
  const special = pieces.flatMap(({ text, type }, id) =>
    type === UNKNOWN || type === CONTROL ? [{ id, content: text }] : [],
  )
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map(({ id, content }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        ...(model.addDummyPrefix ? [{ type: 'Prepend', prepend: SPACE }] : []),
        { type: 'Replace', pattern: { String: ' ' }, content: SPACE },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(model.addDummyPrefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: pieces[unkId]?.text,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: model.byteFallback,
      vocab: Object.fromEntries(vocab),
      merges: deriveMerges(pieces),
    },
  }
}

/** @param {SentencePieceModel} model */
function checkModel({ pieces, modelType, unkId, unsupported }) {
  if (pieces.length === 0) throw bad('not a SentencePiece model (no pieces)')
  const kinds = ['', 'unigram', 'BPE', 'word', 'char']
  if (modelType !== 2) throw bad(`a ${kinds[modelType] ?? modelType} model, want BPE`)
  if (unsupported.length) throw bad(`uses ${unsupported.join(', ')}, which is not supported`)
  if (pieces[unkId]?.type !== UNKNOWN) throw bad(`piece ${unkId} is not the unknown piece`)
  const other = pieces.find(({ type }) => ![NORMAL, UNKNOWN, CONTROL, BYTE].includes(type))
  if (other)
    throw bad(
      `piece ${JSON.stringify(other.text.slice(0, 40))} is user-defined or unused, which is not supported`,
    )
  const spaced = pieces.find(({ text }) => text.includes(' ') || text === '')
  if (spaced)
    throw bad(`piece ${JSON.stringify(spaced.text.slice(0, 40))} is empty or has a space in it`)
}

/**
 * All pairs of pieces whose joint text is a piece: best score first; pairs of one piece by the longer left part.
 *
 * @param {Piece[]} pieces
 * @returns {string[]} "left right"
 */
function deriveMerges(pieces) {
  const normal = new Set(pieces.filter(({ type }) => type === NORMAL).map(({ text }) => text))
  const merges = pieces.flatMap(({ text, score, type }) => {
    if (type !== NORMAL) return []
    const characters = Array.from(text)
    return characters.slice(1).flatMap((_, i) => {
      const left = characters.slice(0, i + 1).join('')
      const right = text.slice(left.length)
      return normal.has(left) && normal.has(right)
        ? [{ left, right, score, size: left.length }]
        : []
    })
  })
  merges.sort((a, b) => b.score - a.score || b.size - a.size)
  return merges.map(({ left, right }) => `${left} ${right}`)
}
