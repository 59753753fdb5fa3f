/**
 * Finds a checkpoint's tokenizer and its special tokens.
 *
 * Owns the order in which files are asked: tokenizer.json before tokenizer.model; for the ids of BOS and EOS
 * tokenizer_config.json, config.json, generation_config.json, then the SentencePiece model. Knows no tensor.
 */

import { BmError } from '../errors.js'
import { MAX_TOKENIZER_BYTES } from '../format.js'
import { parsePythonJson, readSmallFile } from './byte-source.js'
import { readSentencePiece, sentencePieceToJson } from './sentencepiece.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('./byte-source.js').CheckpointFolder} CheckpointFolder */

const MAX_SIDE_FILE_BYTES = 1048576
const MAX_TEMPLATE_CHARACTERS = 65536
/** Ends a text where no file names what does: GPT-NeoX's tokenizer.json often comes alone. */
const USUAL_END = '<|endoftext|>'

/**
 * @typedef {object} TokenizerFiles
 * @property {Uint8Array | null} json bytes of a tokenizer.json
 * @property {string | null} from the file it comes from
 * @property {number | null} bosId
 * @property {number[]} eosIds
 * @property {boolean} addBos
 * @property {string | null} chatTemplate
 */

/**
 * @param {CheckpointFolder} folder
 * @param {object} options
 * @param {ByteSource | null} options.file a tokenizer.json or SentencePiece model to use instead of the folder's
 * @param {Record<string, unknown>} options.configJson config.json
 * @param {number} options.vocabSize
 * @returns {Promise<TokenizerFiles>}
 * @throws {BmError} `tokenizer`, `checkpoint`
 */
export async function readTokenizerFiles(folder, { file, configJson, vocabSize }) {
  const found = await readTokenizer(folder, file)
  const ids = found ? tokenIds(found.parsed, found.from, vocabSize) : new Map()
  const side = await sideFile(folder, 'tokenizer_config.json')
  const generation = await sideFile(folder, 'generation_config.json')
  const valid = (/** @type {unknown} */ id) =>
    Number.isSafeInteger(id) && Number(id) >= 0 && Number(id) < vocabSize
  /** @param {'bos' | 'eos'} kind @returns {number[]} */
  const candidates = (kind) => {
    const named = ids.get(tokenText(side[`${kind}_token`]))
    const listed = [configJson, generation].map((json) => [json[`${kind}_token_id`]].flat())
    const own = kind === 'bos' ? found?.bosId : (found?.eosId ?? ids.get(USUAL_END))
    const [first = []] = [[named], ...listed, [own]]
      .map((list) => list.filter(valid))
      .filter((list) => list.length)
    return /** @type {number[]} */ (first)
  }
  const bosId = candidates('bos')[0] ?? null
  const generationEos = /** @type {number[]} */ ([generation.eos_token_id].flat().filter(valid))
  const eosIds = [...new Set([...candidates('eos'), ...generationEos])].slice(0, 64)
  return {
    json: found?.json ?? null,
    from: found?.from ?? null,
    bosId,
    eosIds,
    addBos: bosId !== null && addsBos(side, found?.parsed),
    chatTemplate: await chatTemplate(folder, side),
  }
}

/** @param {CheckpointFolder} folder @param {ByteSource | null} file */
async function readTokenizer(folder, file) {
  const name = ['tokenizer.json', 'tokenizer.model'].find((one) => folder.files.includes(one))
  if (!file && !name) return null
  const source = file ?? (await folder.open(String(name)))
  if (source.size > MAX_TOKENIZER_BYTES) {
    throw new BmError(
      'tokenizer',
      `${source.name}: ${source.size} bytes, want at most ${MAX_TOKENIZER_BYTES}`,
    )
  }
  const bytes = await source.read(0, source.size)
  const start = bytes.find((byte) => byte > 0x20)
  if (start === 0x7b) {
    const parsed = parseTokenizer(source.name, bytes)
    return { json: bytes, parsed, from: source.name, bosId: null, eosId: null }
  }
  const model = readSentencePiece(bytes)
  const parsed = sentencePieceToJson(model)
  const json = new TextEncoder().encode(JSON.stringify(parsed))
  return { json, parsed, from: source.name, bosId: model.bosId, eosId: model.eosId }
}

/** @param {string} name @param {Uint8Array} bytes */
function parseTokenizer(name, bytes) {
  try {
    return parsePythonJson(name, bytes)
  } catch (cause) {
    throw new BmError('tokenizer', `${name}: not a JSON object in UTF-8`, { cause })
  }
}

/**
 * Checks that the ids can be rows of the embedding. What kind of pipeline it is, is for the tokenizer to judge.
 *
 * @param {Record<string, unknown>} json a tokenizer.json
 * @param {string} name for messages
 * @param {number} vocabSize
 * @returns {Map<string, number>}
 */
function tokenIds(json, name, vocabSize) {
  const model = /** @type {{ type?: unknown, vocab?: unknown }} */ (json.model ?? {})
  const vocab = model.vocab
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab)) {
    throw new BmError(
      'tokenizer',
      `${name}: model.vocab is no object of ids (model type ${JSON.stringify(model.type)}), want BPE`,
    )
  }
  const added = Array.isArray(json.added_tokens) ? json.added_tokens : []
  const pairs = [...Object.entries(vocab), ...added.map((token) => [token?.content, token?.id])]
  const ids = new Map()
  for (const [text, id] of pairs) {
    if (!Number.isSafeInteger(id) || id < 0 || id >= vocabSize) {
      const found = `${JSON.stringify(String(text).slice(0, 40))} has id ${JSON.stringify(id)}`
      throw new BmError('tokenizer', `${name}: ${found}, want 0 .. ${vocabSize - 1}`)
    }
    ids.set(String(text), Number(id))
  }
  if (new Set(Object.values(vocab)).size !== Object.keys(vocab).length) {
    throw new BmError('tokenizer', `${name}: two pieces have the same id`)
  }
  return ids
}

/** @param {CheckpointFolder} folder @param {string} file @returns {Promise<Record<string, unknown>>} {} when absent */
async function sideFile(folder, file) {
  const bytes = await readSmallFile(folder, file, MAX_SIDE_FILE_BYTES)
  return bytes ? parsePythonJson(file, bytes) : {}
}

/** A token is written as text or as an object with its content. @param {unknown} token */
function tokenText(token) {
  if (typeof token === 'object' && token !== null && 'content' in token) return token.content
  return token
}

/** @param {Record<string, unknown>} side tokenizer_config.json @param {Record<string, unknown> | undefined} tokenizer */
function addsBos(side, tokenizer) {
  if (typeof side.add_bos_token === 'boolean') return side.add_bos_token
  if (!tokenizer) return false
  const post = /** @type {{ single?: unknown } | null | undefined} */ (tokenizer.post_processor)
  const first = Array.isArray(post?.single) ? post.single[0] : undefined
  const templated = typeof first === 'object' && first !== null && 'SpecialToken' in first
  const model = /** @type {{ byte_fallback?: unknown }} */ (tokenizer.model ?? {})
  return templated || (!post && model.byte_fallback === true)
}

/** @param {CheckpointFolder} folder @param {Record<string, unknown>} side */
async function chatTemplate(folder, side) {
  const bytes = await readSmallFile(folder, 'chat_template.jinja', MAX_SIDE_FILE_BYTES)
  const listed = Array.isArray(side.chat_template) ? side.chat_template : []
  const chosen = listed.find((one) => one?.name === 'default')?.template
  const text = bytes ? new TextDecoder().decode(bytes) : (chosen ?? side.chat_template)
  if (typeof text !== 'string') return null
  if (text.length > MAX_TEMPLATE_CHARACTERS) {
    throw new BmError(
      'checkpoint',
      `chat template: ${text.length} characters, want at most ${MAX_TEMPLATE_CHARACTERS}`,
    )
  }
  return text
}
