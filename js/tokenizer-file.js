/**
 * Reads and checks a tokenizer.json: untrusted bytes in, plain tables out.
 *
 * Owns which tokenizers are accepted: SentencePiece BPE with byte fallback (LLaMA), and byte-level BPE with the GPT-2
 * pattern (GPT-NeoX). Everything else is refused by name. Knows no library and no model.
 * The idea: a tokenizer.json can hold regular expressions that run for minutes, and tables that point anywhere; so nothing of it is
 * passed on as found. Each part must equal a known shape, and what the library gets is built anew from the checked tables.
 */

import { BmError } from './errors.js'

/**
 * A token that prints. `literal`: its text is meant as it stands (an added token), else it is in the shape's own notation.
 * @typedef {{ text: string, literal: boolean }} Piece
 */

/**
 * @typedef {object} TokenizerFile
 * @property {'sentencepiece' | 'bytelevel'} shape
 * @property {'always' | 'missing' | 'never'} prefix  whether a text gets a space in front: always, only if it has none, never
 * @property {boolean} nfc        the text is normalised to NFC first
 * @property {boolean} cutAtSpace no added token would be torn by a cut between a word and the space after it
 * @property {Map<number, Piece>} pieces   every token that prints, by id
 * @property {Set<number>} silentIds       special tokens: made from no text, and never printed
 * @property {SpecialToken[]} specials     their names
 * @property {object} library     what @huggingface/tokenizers is given
 */

/** @typedef {{ text: string, id: number }} SpecialToken */
/** @typedef {Record<string, unknown>} Json */

const MAX_TOKENS = 2 ** 21
const BYTE_TOKEN = /^<0x([0-9A-F]{2})>$/

/**
 * @param {string} json
 * @param {{ paddedVocabSize: number, reservedIds: Iterable<number> }} model
 * @returns {TokenizerFile}
 * @throws {BmError} `tokenizer`
 */
export function readTokenizerFile(json, model) {
  try {
    return readTables(parse(json), model)
  } catch (cause) {
    if (cause instanceof BmError) throw cause
    // JSON nested so deeply that comparing or quoting it overflows the stack.
    throw new BmError('tokenizer', `tokenizer: cannot be read: ${cause}`, { cause })
  }
}

/**
 * @param {Json} root
 * @param {{ paddedVocabSize: number, reservedIds: Iterable<number> }} model
 * @returns {TokenizerFile}
 */
function readTables(root, { paddedVocabSize, reservedIds }) {
  const model = objectAt(root, 'model')
  checkModel(model)
  const vocab = readVocab(model.vocab, paddedVocabSize)
  const added = readAdded(root.added_tokens, vocab, paddedVocabSize)
  const silentIds = new Set([...reservedIds, ...added.filter((t) => t.special).map((t) => t.id)])
  const merges = readMerges(model.merges, vocab, silentIds)
  checkSilent(vocab, silentIds)
  const matched = added.filter(({ id }) => !silentIds.has(id))
  const kind =
    model.byte_fallback === true ? readSentencePiece(root, vocab) : readByteLevel(root, vocab)
  return {
    ...kind,
    cutAtSpace: !matched.some(({ content }) => /\S\s/.test(content)),
    pieces: collectPieces(vocab, matched, silentIds),
    silentIds,
    specials: nameSpecials(vocab, added, silentIds),
    library: libraryInput(kind, vocab, merges, matched),
  }
}

/**
 * @param {Map<string, number>} vocab
 * @param {readonly { content: string, id: number }[]} added
 * @param {Set<number>} silentIds
 * @returns {SpecialToken[]} each once, those with an added token by its name
 */
function nameSpecials(vocab, added, silentIds) {
  const names = new Map([
    ...[...vocab].map(([text, id]) => /** @type {[number, string]} */ ([id, text])),
    ...added.map(({ content, id }) => /** @type {[number, string]} */ ([id, content])),
  ])
  return [...silentIds].flatMap((id) => {
    const text = names.get(id)
    return text === undefined ? [] : [{ text, id }]
  })
}

/** @param {string} json @returns {Json} */
function parse(json) {
  let root
  try {
    root = JSON.parse(json)
  } catch (cause) {
    throw new BmError('tokenizer', 'the tokenizer is not JSON', { cause })
  }
  if (!isObject(root)) throw bad('the file', root, 'an object')
  return root
}

/** @param {Json} model */
function checkModel(model) {
  if (model.type !== 'BPE') throw bad('model.type', model.type, '"BPE"')
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    const value = model[key] ?? ''
    if (value !== '') throw bad(`model.${key}`, value, 'none')
  }
  if ((model.dropout ?? 0) !== 0) throw bad('model.dropout', model.dropout, 'none')
  if ((model.ignore_merges ?? false) !== false)
    throw bad('model.ignore_merges', model.ignore_merges, 'false')
}

/**
 * @param {unknown} value
 * @param {number} limit ids are below it
 * @returns {Map<string, number>}
 */
function readVocab(value, limit) {
  if (!isObject(value)) throw bad('model.vocab', value, 'an object')
  const vocab = new Map(/** @type {[string, number][]} */ (Object.entries(value)))
  if (vocab.size > MAX_TOKENS) throw bad('model.vocab', vocab.size, `at most ${MAX_TOKENS} tokens`)
  const seen = new Map()
  for (const [text, id] of vocab) {
    checkId(`model.vocab[${quote(text)}]`, id, limit)
    if (text === '') throw bad('model.vocab', text, 'tokens that are not empty')
    if (seen.has(id))
      throw new BmError(
        'tokenizer',
        `tokenizer: id ${id} is ${quote(seen.get(id))} and ${quote(text)}`,
      )
    seen.set(id, text)
  }
  return vocab
}

/** @typedef {{ id: number, content: string, special: boolean }} AddedToken */

/**
 * @param {unknown} value
 * @param {Map<string, number>} vocab
 * @param {number} limit
 * @returns {AddedToken[]}
 */
function readAdded(value, vocab, limit) {
  if (!Array.isArray(value ?? [])) throw bad('added_tokens', value, 'an array')
  const list = /** @type {unknown[]} */ (value ?? [])
  const textOf = new Map([...vocab].map(([text, id]) => [id, text]))
  /** @type {Map<string, AddedToken>} */
  const tokens = new Map()
  for (const [i, token] of list.entries()) {
    const where = `added_tokens[${i}]`
    if (!isObject(token)) throw bad(where, token, 'an object')
    const { id, content, special = false } = token
    checkId(`${where}.id`, id, limit)
    if (typeof content !== 'string' || content === '')
      throw bad(`${where}.content`, content, 'a text')
    if (typeof special !== 'boolean') throw bad(`${where}.special`, special, 'true or false')
    // How a special token would match does not matter: it never matches.
    for (const key of special ? [] : ['single_word', 'lstrip', 'rstrip']) {
      if ((token[key] ?? false) !== false) throw bad(`${where}.${key}`, token[key], 'false')
    }
    const other = textOf.get(Number(id)) ?? content
    const otherId = vocab.get(content) ?? id
    if (other !== content || otherId !== id || tokens.has(content)) {
      throw new BmError(
        'tokenizer',
        `tokenizer: ${where} (${quote(content)}, id ${id}) contradicts another token`,
      )
    }
    textOf.set(Number(id), content)
    tokens.set(content, { id: Number(id), content, special })
  }
  return [...tokens.values()]
}

/**
 * @param {unknown} value
 * @param {Map<string, number>} vocab
 * @param {Set<number>} silentIds
 * @returns {[string, string][]}
 */
function readMerges(value, vocab, silentIds) {
  if (!Array.isArray(value) || value.length > MAX_TOKENS * 4)
    throw bad('model.merges', value, 'an array')
  return value.map((merge, i) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge
    const where = `model.merges[${i}]`
    if (!Array.isArray(pair) || pair.length !== 2) throw bad(where, merge, 'a pair of tokens')
    const [left, right] = pair
    if (!vocab.has(left) || !vocab.has(right)) throw bad(where, merge, 'a pair of known tokens')
    const id = vocab.get(left + right)
    if (id === undefined) throw bad(where, merge, 'a pair that makes a known token')
    if (silentIds.has(id) || BYTE_TOKEN.test(left + right)) {
      throw bad(where, merge, 'no special token or byte to be made from text')
    }
    return [left, right]
  })
}

/** A special token of one character would be made from text without any merge. @param {Map<string, number>} vocab @param {Set<number>} silentIds */
function checkSilent(vocab, silentIds) {
  for (const [text, id] of vocab) {
    if (silentIds.has(id) && [...text].length === 1)
      throw bad('a special token', text, 'more than one character')
  }
}

/** @typedef {Pick<TokenizerFile, 'shape' | 'prefix' | 'nfc'>} Kind */

/**
 * The LLaMA shapes: the old one writes the space in front as a normalizer, the new one as a pre-tokenizer.
 *
 * @param {Json} root
 * @param {Map<string, number>} vocab
 * @returns {Kind}
 */
function readSentencePiece(root, vocab) {
  for (let byte = 0; byte < 256; byte++) {
    if (!vocab.has(byteToken(byte)))
      throw bad('model.vocab', 'no byte fallback', `the token ${byteToken(byte)}`)
  }
  const prefix = readPrefix(root.normalizer ?? null, root.pre_tokenizer ?? null)
  const strips = readSpaceStripping(root.decoder ?? null)
  if (strips !== (prefix !== 'never')) {
    throw new BmError(
      'tokenizer',
      `tokenizer: the decoder ${strips ? 'strips' : 'keeps'} a leading space, the encoder ${strips ? 'adds none' : 'adds one'}`,
    )
  }
  return { shape: 'sentencepiece', prefix, nfc: false }
}

/** @param {unknown} normalizer @param {unknown} preTokenizer @returns {TokenizerFile['prefix']} */
function readPrefix(normalizer, preTokenizer) {
  const steps = sequence(normalizer, 'normalizers')
  const [first, second] = steps
  if (preTokenizer === null) {
    const replace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' }
    if (steps.length === 1 && same(first, replace)) return 'never'
    if (
      steps.length === 2 &&
      same(first, { type: 'Prepend', prepend: '▁' }) &&
      same(second, replace)
    )
      return 'always'
  } else if (steps.length === 0 && isObject(preTokenizer) && preTokenizer.type === 'Metaspace') {
    const { replacement, prepend_scheme: scheme, split } = preTokenizer
    if (replacement === '▁' && split === false) {
      if (scheme === 'first' || scheme === 'always') return 'missing'
      if (scheme === 'never') return 'never'
    }
  }
  throw new BmError(
    'tokenizer',
    `tokenizer: the normalizer ${quote(normalizer)} with the pre_tokenizer ${quote(preTokenizer)} is none of LLaMA's`,
  )
}

/** @param {unknown} decoder @returns {boolean} whether it takes one space off the start of a text */
function readSpaceStripping(decoder) {
  const steps = sequence(decoder, 'decoders')
  const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 }
  const known = [
    { type: 'ByteFallback' },
    { type: 'Fuse' },
    { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
    strip,
  ]
  let strips = false
  for (const step of steps) {
    if (isObject(step) && step.type === 'Metaspace' && step.replacement === '▁')
      strips = step.prepend_scheme !== 'never'
    else if (!known.some((want) => same(step, want)))
      throw bad('decoder', step, "a step of LLaMA's decoder")
    else if (same(step, strip)) strips = true
  }
  return strips
}

/**
 * @param {Json} root
 * @param {Map<string, number>} vocab
 * @returns {Kind}
 */
function readByteLevel(root, vocab) {
  const steps = sequence(root.normalizer ?? null, 'normalizers')
  const nfc = steps.length === 1 && same(steps[0], { type: 'NFC' })
  if (steps.length > 0 && !nfc) throw bad('normalizer', root.normalizer, 'none or NFC')
  const pre = root.pre_tokenizer
  if (!isObject(pre) || pre.type !== 'ByteLevel') throw bad('pre_tokenizer', pre, 'ByteLevel')
  if (pre.add_prefix_space !== false)
    throw bad('pre_tokenizer.add_prefix_space', pre.add_prefix_space, 'false')
  if ((pre.use_regex ?? true) !== true) throw bad('pre_tokenizer.use_regex', pre.use_regex, 'true')
  const decoder = root.decoder
  if (!isObject(decoder) || decoder.type !== 'ByteLevel') throw bad('decoder', decoder, 'ByteLevel')
  for (const [character, byte] of byteCharacters()) {
    if (isInUtf8(byte) && !vocab.has(character))
      throw bad('model.vocab', 'no', `the token ${quote(character)}, which stands for a byte`)
  }
  return { shape: 'bytelevel', prefix: 'never', nfc }
}

/**
 * @param {Map<string, number>} vocab
 * @param {AddedToken[]} matched
 * @param {Set<number>} silentIds
 * @returns {Map<number, Piece>}
 */
function collectPieces(vocab, matched, silentIds) {
  const pieces = new Map()
  for (const [text, id] of vocab) if (!silentIds.has(id)) pieces.set(id, { text, literal: false })
  for (const { id, content } of matched) pieces.set(id, { text: content, literal: true })
  return pieces
}

/**
 * @param {Kind} kind
 * @param {Map<string, number>} vocab
 * @param {[string, string][]} merges
 * @param {AddedToken[]} matched
 */
function libraryInput({ shape }, vocab, merges, matched) {
  const isByteLevel = shape === 'bytelevel'
  // Spaces are already marked when the library sees a text, so the tokens it looks for are marked as well.
  const mark = (/** @type {string} */ text) => (isByteLevel ? text : text.replaceAll(' ', '▁'))
  return {
    normalizer: null,
    pre_tokenizer: isByteLevel
      ? { type: 'ByteLevel', add_prefix_space: false, use_regex: true }
      : null,
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(vocab),
      merges,
      byte_fallback: !isByteLevel,
      unk_token: null,
    },
    post_processor: null,
    decoder: null,
    added_tokens: matched.map(({ id, content }) => ({
      id,
      content: mark(content),
      special: false,
      normalized: false,
    })),
  }
}

/** @param {number} byte @returns {string} the token of byte fallback */
export function byteToken(byte) {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
}

/** @param {string} text @returns {number | null} the byte that a token of byte fallback stands for */
export function byteOfToken(text) {
  const digits = BYTE_TOKEN.exec(text)?.[1]
  return digits === undefined ? null : Number.parseInt(digits, 16)
}

/**
 * Byte-level BPE writes each byte as a printable character: itself where it is one, else the next one from U+0100 on.
 *
 * @returns {Map<string, number>} 256 characters to bytes
 */
export function byteCharacters() {
  const isPrintable = (/** @type {number} */ byte) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
  const bytes = new Map()
  let next = 0x100
  for (let byte = 0; byte < 256; byte++) {
    bytes.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte)
  }
  return bytes
}

/** Whether any text has the byte: GPT-NeoX's vocabulary lacks the 13 that none has. @param {number} byte */
function isInUtf8(byte) {
  return byte < 0xf5 && byte !== 0xc0 && byte !== 0xc1
}

/** @param {unknown} value @param {string} key @returns {unknown[]} the steps of a Sequence, of one step, of none */
function sequence(value, key) {
  if (value === null) return []
  if (isObject(value) && value.type === 'Sequence') {
    const steps = value[key]
    if (!Array.isArray(steps)) throw bad(key, steps, 'an array')
    return steps
  }
  return [value]
}

/** @param {string} where @param {unknown} id @param {number} limit */
function checkId(where, id, limit) {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < limit) return
  throw bad(where, id, `an id from 0 to ${limit - 1}`)
}

/** @param {unknown} a @param {Json} b @returns {boolean} equal as JSON, whatever the order of keys */
function same(a, b) {
  const sorted = (/** @type {string} */ _, /** @type {unknown} */ value) =>
    isObject(value)
      ? Object.fromEntries(Object.entries(value).sort(([x], [y]) => (x < y ? -1 : 1)))
      : value
  return JSON.stringify(a, sorted) === JSON.stringify(b, sorted)
}

/** @param {Json} value @param {string} key @returns {Json} */
function objectAt(value, key) {
  const inner = value[key]
  if (!isObject(inner)) throw bad(key, inner, 'an object')
  return inner
}

/** @param {unknown} value @returns {value is Json} */
function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @param {unknown} value @returns {string} as short JSON */
function quote(value) {
  const text = JSON.stringify(value) ?? 'missing'
  return text.length > 80 ? `${text.slice(0, 80)}...` : text
}

/** @param {string} where @param {unknown} found @param {string} wanted */
function bad(where, found, wanted) {
  return new BmError('tokenizer', `tokenizer: ${where} is ${quote(found)}, want ${wanted}`)
}
