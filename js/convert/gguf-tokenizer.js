/**
 * A packed model's tokenizer as the metadata of a GGUF file.
 *
 * Owns the keys `tokenizer.ggml.*` and what each token is to llama.cpp. What a tokenizer.json may hold is checked by
 * js/tokenizer-file.js. The idea: byte-level BPE is llama.cpp's `gpt2`, as it stands. LLaMA's shape is its `llama`, which has
 * scores instead of merges: the pair whose joint piece has the best score merges first, so a piece gets the rank of its
 * first merge. That is the same order; but llama.cpp also joins pairs that no merge names, if their text is a piece.
 */

import { byteOfToken, byteToken, readTokenizerFile } from '../tokenizer-file.js'

/** @typedef {import('./gguf.js').GgufEntry} GgufEntry */
/** @typedef {import('../format.js').PackedHeader} PackedHeader */

/** enum llama_token_type of llama.h. */
const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 }

/** What of a checked tokenizer.json is needed here.
 * @typedef {{ model: { vocab: Record<string, number>, merges: (string | [string, string])[], unk_token?: string | null },
 *   added_tokens?: { id: number, content: string, special?: boolean }[] }} TokenizerJson */

/**
 * @param {string | null} json the tokenizer.json; null: none
 * @param {PackedHeader} header
 * @returns {{ metadata: GgufEntry[], warnings: string[] }}
 * @throws {import('../errors.js').BmError} `tokenizer`
 */
export function tokenizerMetadata(json, header) {
  if (json === null) return withoutTokenizer(header)
  const { config, bosId, eosIds, addBos, chatTemplate } = header
  const reservedIds = [...(bosId === null ? [] : [bosId]), ...eosIds]
  const file = readTokenizerFile(json, { paddedVocabSize: config.vocab_size, reservedIds })
  const parsed = /** @type {TokenizerJson} */ (JSON.parse(json))
  const tokens = listTokens(parsed, file, config.vocab_size)
  const texts = tokens.map(({ text }) => text)
  const [eosId, eotId, ...otherEos] = eosIds
  const unkId = parsed.model.vocab[parsed.model.unk_token ?? '']
  /** @type {GgufEntry[]} */
  const metadata = [
    ...kindEntries(file, parsed, texts),
    { key: 'tokenizer.ggml.tokens', type: 'string', list: texts },
    { key: 'tokenizer.ggml.token_type', type: 'i32', list: tokens.map(({ type }) => type) },
    ...idEntries({ bos: bosId, eos: eosId, eot: eotId, unknown: unkId }),
    { key: 'tokenizer.ggml.add_bos_token', type: 'bool', value: addBos },
    ...(chatTemplate === null
      ? []
      : [
          /** @type {GgufEntry} */ ({
            key: 'tokenizer.chat_template',
            type: 'string',
            value: chatTemplate,
          }),
        ]),
  ]
  const warnings = otherEos.length
    ? [`llama.cpp ends a text at ${eosId} and ${eotId} only, not at ${otherEos.join(', ')}`]
    : []
  if (file.nfc) warnings.push('llama.cpp does not normalise a text to NFC before it is tokenized')
  return { metadata, warnings }
}

/**
 * llama.cpp has a kind of model without tokens, but programs around it tokenize while they load and stop there. So the
 * tokens get names: the first 256 those of bytes, without which no text can be tokenized, the others their ids.
 *
 * @param {PackedHeader} header
 * @returns {{ metadata: GgufEntry[], warnings: string[] }}
 */
function withoutTokenizer({ config, bosId, eosIds, addBos }) {
  const texts = Array.from({ length: config.vocab_size }, (_, id) =>
    id < 256 ? byteToken(id) : `[token ${id}]`,
  )
  const types = texts.map((_, id) => (id < 256 ? TOKEN_TYPE.byte : TOKEN_TYPE.normal))
  return {
    metadata: [
      { key: 'tokenizer.ggml.model', type: 'string', value: 'llama' },
      { key: 'tokenizer.ggml.tokens', type: 'string', list: texts },
      { key: 'tokenizer.ggml.scores', type: 'f32', list: texts.map(() => 0) },
      { key: 'tokenizer.ggml.token_type', type: 'i32', list: types },
      ...idEntries({ bos: bosId, eos: eosIds[0], eot: eosIds[1] }),
      { key: 'tokenizer.ggml.add_bos_token', type: 'bool', value: addBos },
    ],
    warnings: [
      'the model has no tokenizer: it works on token ids, and its tokens have made-up texts',
    ],
  }
}

/** @param {Record<string, number | null | undefined>} ids @returns {GgufEntry[]} */
function idEntries(ids) {
  return Object.entries(ids).flatMap(([name, id]) =>
    id == null ? [] : [{ key: `tokenizer.ggml.${name}_token_id`, type: 'u32', value: id }],
  )
}

/**
 * @param {import('../tokenizer-file.js').TokenizerFile} file
 * @param {TokenizerJson} json
 * @param {string[]} texts
 * @returns {GgufEntry[]}
 */
function kindEntries({ shape, prefix }, { model }, texts) {
  const pairs = model.merges.map((merge) => (typeof merge === 'string' ? merge.split(' ') : merge))
  if (shape === 'bytelevel') {
    return [
      { key: 'tokenizer.ggml.model', type: 'string', value: 'gpt2' },
      { key: 'tokenizer.ggml.pre', type: 'string', value: 'gpt-2' },
      { key: 'tokenizer.ggml.merges', type: 'string', list: pairs.map((pair) => pair.join(' ')) },
    ]
  }
  /** @type {Map<string, number>} */
  const ranks = new Map()
  for (const [rank, pair] of pairs.entries()) {
    const text = pair.join('')
    if (!ranks.has(text)) ranks.set(text, rank)
  }
  const scores = texts.map((text) => 0 - (ranks.get(text) ?? pairs.length))
  return [
    { key: 'tokenizer.ggml.model', type: 'string', value: 'llama' },
    { key: 'tokenizer.ggml.pre', type: 'string', value: 'default' },
    { key: 'tokenizer.ggml.scores', type: 'f32', list: scores },
    { key: 'tokenizer.ggml.add_space_prefix', type: 'bool', value: prefix !== 'never' },
  ]
}

/**
 * @param {TokenizerJson} json
 * @param {import('../tokenizer-file.js').TokenizerFile} file
 * @param {number} vocabSize
 * @returns {{ text: string, type: number }[]} by id; ids without a token are unused ones, with a text of their own
 */
function listTokens({ model, added_tokens: added = [] }, { shape, silentIds }, vocabSize) {
  /** @type {Map<number, { text: string, type: number }>} */
  const tokens = new Map()
  for (const [text, id] of Object.entries(model.vocab)) {
    const isByte = shape === 'sentencepiece' && byteOfToken(text) !== null
    tokens.set(id, { text, type: isByte ? TOKEN_TYPE.byte : TOKEN_TYPE.normal })
  }
  for (const { id, content } of added) {
    tokens.set(id, { text: content, type: TOKEN_TYPE.userDefined })
  }
  for (const id of silentIds) {
    const text = tokens.get(id)?.text
    const isUnknown = text !== undefined && text === model.unk_token
    const type = isUnknown ? TOKEN_TYPE.unknown : TOKEN_TYPE.control
    if (text !== undefined) tokens.set(id, { text, type })
  }
  const taken = new Set([...tokens.values()].map(({ text }) => text))
  return Array.from({ length: vocabSize }, (_, id) => {
    let text = `[unused ${id}]`
    while (taken.has(text)) text += ']'
    return tokens.get(id) ?? { text, type: TOKEN_TYPE.unused }
  })
}
