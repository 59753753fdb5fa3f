/**
 * Two small tokenizers for tests, one of each accepted shape, as objects of a tokenizer.json.
 *
 * Owns a few words and the merges that build them. Knows nothing of how they are read.
 */

import { byteCharacters } from '../../../js/tokenizer-file.js'

/** @typedef {{ vocab: Record<string, number>, merges: [string, string][] }} Bpe */

const WORDS = [
  '▁once',
  '▁upon',
  '▁a',
  '▁time',
  '▁the',
  '▁cat',
  '▁sat',
  'ing',
  '▁▁▁▁',
  'nn',
  'aaaa',
  'été',
]

/**
 * Adds each word's prefixes from left to right, and the merge that makes each.
 *
 * @param {string[]} singles pieces that come first
 * @param {string[]} words
 * @returns {Bpe}
 */
function buildBpe(singles, words) {
  const characters = words.flatMap((word) => [...word])
  const pieces = new Set([...singles, ...characters])
  /** @type {[string, string][]} */
  const merges = []
  for (const word of words) {
    const all = [...word]
    for (let n = 2; n <= all.length; n++) {
      const whole = all.slice(0, n).join('')
      if (!pieces.has(whole)) merges.push([all.slice(0, n - 1).join(''), String(all[n - 1])])
      pieces.add(whole)
    }
  }
  return { vocab: Object.fromEntries([...pieces].map((piece, id) => [piece, id])), merges }
}

/** @param {number} id @param {string} content @param {boolean} special */
export function addedToken(id, content, special) {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special }
  return { id, content, ...flags }
}

/** LLaMA's shape: `<unk>` 0, `<s>` 1, `</s>` 2, then the bytes. @param {string[]} [words] */
export function sentencePieceTokenizer(words = WORDS) {
  const bytes = Array.from(
    { length: 256 },
    (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`,
  )
  const specials = ['<unk>', '<s>', '</s>']
  const { vocab, merges } = buildBpe([...specials, ...bytes, '▁'], words)
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content, id) => addedToken(id, content, true)),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: /** @type {object | null} */ (null),
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab,
      merges: /** @type {unknown[]} */ (merges),
    },
  }
}

/** Bytes that no UTF-8 has; the vocabulary of GPT-NeoX has no token for them. */
const NEVER = [0xc0, 0xc1, ...Array.from({ length: 11 }, (_, i) => 0xf5 + i)]

/** GPT-NeoX's shape: `<|endoftext|>` 0, the bytes that a text can have, and two added tokens that print, runs of spaces. */
export function byteLevelTokenizer() {
  const words = WORDS.filter((word) => /^[▁a-z]+$/.test(word)).map((word) =>
    word.replaceAll('▁', 'Ġ'),
  )
  const bytes = [...byteCharacters()].flatMap(([text, byte]) =>
    NEVER.includes(byte) ? [] : [text],
  )
  const { vocab, merges } = buildBpe(['<|endoftext|>', ...bytes], words)
  const size = Object.keys(vocab).length
  return {
    version: '1.0',
    added_tokens: [
      addedToken(0, '<|endoftext|>', true),
      addedToken(size, '   ', false),
      addedToken(size + 1, '  ', false),
    ],
    normalizer: { type: 'NFC' },
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
    post_processor: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      byte_fallback: false,
      vocab,
      merges: merges.map((pair) => pair.join(' ')),
    },
  }
}

/** @param {{ model: { vocab: object }, added_tokens: { id: number }[] }} tokenizer @returns {number} ids it has */
export function vocabularySize({ model, added_tokens }) {
  const added = added_tokens.map(({ id }) => id + 1)
  return Math.max(Object.keys(model.vocab).length, ...added)
}
