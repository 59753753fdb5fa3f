/**
 * Texts with a format: what comes is always of it, whatever the sampler is told, and nothing of it is lost.
 *
 * Owns five hundred random formats on models of random weights, under every setting of the sampler in turn; what is refused and with which words; and
 * that a format belongs to one generation. The texts are checked by what knows nothing of js/grammar/: JSON.parse, a validator, RegExp.
 */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { FormatReader, TokenTrie } from '../../js/grammar/format-reader.js'
import { BiMamba } from '../../js/index.js'
import { collect } from './support/collect.js'
import { MODEL_FILE } from './support/model-file.js'
import { randomFormat } from './support/random-formats.js'
import { seeded } from './support/seeded.js'
import { byteLevelTokenizer } from './support/small-tokenizer.js'
import { tinyModel } from './support/tiny-model.js'

/** @typedef {import('../../js/index.js').Session} Session */
/** @typedef {import('../../js/settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('../../js/text-format.js').TextFormat} TextFormat */

/** Every setting, alone and with others, at values that change much. @type {GenerateOptions[]} */
const SETTINGS = [
  {},
  { temperature: 0 },
  { temperature: 0.001 },
  { temperature: 100, topK: 0, topP: 1 },
  { topK: 1 },
  { topP: 0.05, topK: 0 },
  { minP: 1, topK: 0, topP: 1 },
  { typicalP: 0.1, topK: 0, topP: 1 },
  { mirostatTau: 3, mirostatEta: 0.5 },
  { repetitionPenalty: 50, repetitionWindow: 1000 },
  { frequencyPenalty: 100, presencePenalty: -100 },
  { noRepeatNgram: 1, temperature: 0 },
  { noRepeatNgram: 3, historyWindow: 65536 },
  { dryMultiplier: 100, dryBase: 4, dryAllowedLength: 1, dryBreakers: [5] },
  { logitBias: { 2: 100, 40: 100, 100: -100 } },
  { logitBias: { 0: Number.NEGATIVE_INFINITY }, stopTokens: [40, 7], temperature: 2 },
  { stopTokens: [] },
  { draft: 'text', temperature: 0 },
]

/** @type {BiMamba[]} */
let models
/** @type {BiMamba} */
let trained

before(async () => {
  const files = [
    await tinyModel(),
    await tinyModel({ tokenizer: byteLevelTokenizer(), bos: false }),
  ]
  models = await Promise.all(files.map((file) => BiMamba.load(file, { inline: true })))
  trained = await BiMamba.load(MODEL_FILE)
})
after(() => Promise.all([...models, trained].map((model) => model.close())))

/**
 * @param {BiMamba} model
 * @param {number} way of asking for a text
 * @param {GenerateOptions} options
 * @returns {Promise<{ text: string, reason: string | undefined }>}
 */
async function write(model, way, options) {
  if (way === 0) {
    // An empty text begins with a space that is not printed, where the tokenizer puts one there.
    const prompt = options.seed === undefined || options.seed % 2 === 0 ? 'once upon' : ''
    const ids = model.info.bosId === null && prompt === '' ? [9] : prompt
    const text = (await collect(model.generate(ids, options))).join('')
    return { text, reason: model.lastStats?.finishReason }
  }
  const session = await model.createSession()
  try {
    return await writeInSession(session, way, options)
  } finally {
    await session.close()
  }
}

/** @param {Session} session empty @param {number} way @param {GenerateOptions} options */
async function writeInSession(session, way, options) {
  if (way === 3) {
    await session.append('a cat')
    const texts = ['', '']
    for await (const { index, text } of session.generateMany(2, options)) texts[index] += text
    assert.equal(await session.text(), 'a cat')
    return { text: texts[1] ?? '', reason: 'not told' }
  }
  // The text before ends in the middle of a character.
  if (way === 1) await session.append([100, 3 + 0xe6])
  const pieces = way === 1 ? session.generate(options) : session.chat('a cat', options)
  const text = (await collect(pieces)).join('')
  return { text, reason: session.lastStats?.finishReason }
}

test('500 random formats, random weights, every setting: the text is always of the format', async () => {
  const counts = { eos: 0, stop: 0, 'not told': 0 }
  for (let seed = 0; seed < 500; seed++) {
    const r = seeded(seed)
    const { format, check } = randomFormat(r, seed)
    const settings = SETTINGS[seed % SETTINGS.length]
    const model = /** @type {BiMamba} */ (models[r.below(2)])
    const options = { ...settings, format, maxTokens: 3000, seed }
    const { text, reason } = await write(model, r.below(4), options)
    const about = `seed ${seed}: ${JSON.stringify(text)} by ${JSON.stringify({ format, settings })}`
    assert.ok(reason !== undefined && reason in counts, `${reason}, ${about}`)
    counts[/** @type {keyof typeof counts} */ (reason)]++
    assert.ok(check(text), about)
  }
  assert.ok(counts.eos > 20 && counts.stop > 100, JSON.stringify(counts))
})

test('schemas without bounds: what ends is whole, what does not says length', async () => {
  const item = { type: 'object', additionalProperties: { type: ['string', 'null'] } }
  const jsonSchema = { type: 'array', items: { anyOf: [item, { $ref: '#' }, { type: 'number' }] } }
  const reasons = new Set()
  for (let seed = 0; seed < 40; seed++) {
    const options = { format: { jsonSchema }, maxTokens: 60, seed, temperature: 3, topK: 0 }
    const { text, reason } = await write(trained, 0, options)
    reasons.add(reason)
    if (reason !== 'length') assert.ok(Array.isArray(JSON.parse(text)), text)
  }
  assert.deepEqual([...reasons].sort(), ['length', 'stop'])
})

/** A vocabulary of single bytes. */
const BYTES = new TokenTrie(Array.from({ length: 256 }, (_, i) => Uint8Array.of(i)))

/** @param {TextFormat} format @returns {(text: string) => boolean} whether the text can be written */
function acceptor(format) {
  const { plain } = new FormatReader(format, BYTES)
  return (text) => {
    /** @type {import('../../js/grammar/walker.js').State | null} */
    let state = plain.start()
    for (const byte of new TextEncoder().encode(text)) state = state && plain.next(state, byte)
    return state?.mayEnd ?? false
  }
}

test('nothing of a format is lost: short texts are accepted as RegExp does', () => {
  const alphabet = ['a', 'b', 'é', '1', '\n']
  let texts = ['']
  for (let n = 0; n < 4; n++)
    texts = [...new Set([...texts, ...texts.flatMap((t) => alphabet.map((c) => t + c))])]
  const regexes = [
    'a*b+|1?',
    '(a|b1)*é',
    '[^a]{2,3}',
    '.{0,3}',
    '(?:a?b?){2}',
    '\\w+\\s',
    '(a*)*b',
    '^a$|^b',
    '\\D\\S?\\W*',
  ]
  for (const regex of regexes) {
    const accepts = acceptor({ regex })
    const whole = new RegExp(`^(?:${regex})$`, 'u')
    for (const text of texts)
      assert.equal(accepts(text), whole.test(text), `${regex} ${JSON.stringify(text)}`)
  }
})

test('numbers between bounds are all there, and no others', () => {
  for (let seed = 0; seed < 60; seed++) {
    const r = seeded(seed)
    const minimum = r.below(400) - 200
    const maximum = minimum + r.below(300)
    const accepts = acceptor({ jsonSchema: { type: 'integer', minimum, maximum } })
    for (let n = -310; n < 510; n++)
      assert.equal(
        accepts(String(n)),
        n >= minimum && n <= maximum,
        `${n} in ${minimum}..${maximum}`,
      )
    const [low, high] = [minimum / 8, maximum / 8 + 0.3]
    const decimals = acceptor({
      jsonSchema: { type: 'number', minimum: low, exclusiveMaximum: high },
    })
    for (let i = 0; i < 400; i++) {
      const text = (low - 2 + ((high - low + 4) * i) / 400)
        .toFixed(r.below(4))
        .replace(/^-(0\.?0*)$/, '$1')
      assert.equal(
        decimals(text),
        Number(text) >= low && Number(text) < high,
        `${text} in ${low}..${high}`,
      )
    }
  }
})

test('values are accepted as they are written here, and in no other way', () => {
  const jsonSchema = {
    type: 'object',
    properties: { a: { type: 'integer' }, kéy: { enum: ['é', null] } },
    required: ['kéy'],
    additionalProperties: { type: 'boolean' },
  }
  const accepts = acceptor({ jsonSchema })
  for (const text of [
    '{"kéy": null}',
    '{"a": 1, "kéy": "é"}',
    '{"kéy": null, "b": true, "aa": false}',
    '{"kéy": null, "": true}',
  ]) {
    assert.ok(accepts(text), text)
  }
  for (const text of [
    '{}',
    '{"a": 1}',
    '{"kéy": null, "a": 1}',
    '{"kéy":null}',
    '{"kéy": null, "a": true}',
    '{"kéy": null, "\\u0061": true}',
    '{"kéy": null,}',
    '{"kéy": 1}',
  ]) {
    assert.ok(!accepts(text), text)
  }
  const any = acceptor({ jsonSchema: true })
  for (const value of [
    null,
    true,
    -12.5,
    'a\n"\\é',
    [],
    {},
    [1, [2, { a: [] }]],
    { b: { c: 'x' } },
    1e21,
  ]) {
    assert.ok(
      any(JSON.stringify(value).replaceAll(/([,:])(?=[^ ])/g, '$1 ')),
      JSON.stringify(value),
    )
  }
  assert.ok(
    acceptor({ jsonSchema: { allOf: [{ type: 'integer', minimum: 3 }, { maximum: 5 }] } })('4'),
  )
  assert.ok(
    acceptor({ grammar: 'root ::= ws "[" ws (root ("," root)*)? "]" ws\nws ::= [ ]*' })(
      '[ [],[ [] ] ]  ',
    ),
  )
})

/** @type {[TextFormat, RegExp][]} */
const REFUSED = [
  [{ jsonSchema: { enum: [] } }, /^format\.jsonSchema at #: enum has no value$/],
  [{ jsonSchema: false }, /^format\.jsonSchema at #: false allows no value$/],
  [
    { jsonSchema: { properties: { 'a/b': { multipleOf: 3 } } } },
    /at #\/properties\/a~1b: 'multipleOf' is not supported$/,
  ],
  [{ jsonSchema: { type: 'integer', minimum: 5, maximum: 2 } }, /no integer is between the bounds/],
  [
    { jsonSchema: { type: 'integer', exclusiveMinimum: 1, exclusiveMaximum: 2 } },
    /no integer is between/,
  ],
  [
    { jsonSchema: { type: 'string', minLength: 3, maxLength: 2 } },
    /minLength is 3, which is above maxLength, 2/,
  ],
  [{ jsonSchema: { type: 'strin' } }, /type is "strin", want null, boolean/],
  [{ jsonSchema: { $ref: '#/$defs/x' } }, /\$ref is '#\/\$defs\/x', which is not there/],
  [{ jsonSchema: { $ref: '#' } }, /format\.jsonSchema/],
  [
    { jsonSchema: { type: 'array', items: { $ref: '#' }, minItems: 1 } },
    /allows no text that this model can write/,
  ],
  [
    { jsonSchema: { oneOf: [{ type: 'string' }, { type: ['string', 'null'] }] } },
    /schemas 0 and 1 may both fit/,
  ],
  [
    { jsonSchema: { type: 'string', pattern: 'a(?!b)' } },
    /#\/pattern, character 2: \(\?!b is not supported/,
  ],
  [{ jsonSchema: { type: 'string', const: 1 } }, /no value of enum or const is of the type/],
  [
    { jsonSchema: { required: ['a'], additionalProperties: false } },
    /required has 'a', which is no property/,
  ],
  [{ regex: 'a(' }, /^format\.regex: Invalid regular expression/],
  [{ regex: 'a\\b' }, /^format\.regex, character 2: \\b is not supported/],
  [{ regex: '(a)\\1' }, /\\1 is not supported/],
  [{ regex: '[^\\s\\S]' }, /^format\.regex allows no text/],
  [{ regex: 'a{200000}' }, /want at most 100000 times/],
  [{ regex: 'a{99999}'.repeat(6) }, /^format\.regex needs more than 524288 states$/],
  [
    { grammar: 'root ::= "a" foo' },
    /^format\.grammar, line 1, column 14: rule 'foo' is not defined$/,
  ],
  [{ grammar: 'root ::= "a\n' }, /line 1, column 10: this text is not closed/],
  [{ grammar: 'x ::= "a"' }, /there is no rule 'root'/],
  [{ grammar: 'root ::= "a"\nroot ::= "b"' }, /line 2, column 1: rule 'root' is there twice/],
  [{ grammar: 'root ::= root "a" | "b"' }, /^format\.grammar: rule 'root' begins with itself/],
  [{ grammar: 'root ::= x? root "a" | "b"\nx ::= "x"' }, /rule 'root' begins with itself/],
  [{ grammar: 'root ::= "a" root' }, /^format\.grammar allows no text/],
  [{ grammar: 'root ::= [z-a]' }, /line 1, column 11: this range ends before it begins/],
  [{ grammar: 'root ::= "\\ud800"' }, /wants 4 hex digits of a character/],
]

test('a bad format says what is wrong before anything happens, and changes nothing', async () => {
  const session = await trained.createSession({ seed: 3 })
  const twin = await trained.createSession({ seed: 3 })
  for (const one of [session, twin]) await one.append('Once upon a time')
  for (const [format, message] of REFUSED) {
    const wanted = { code: 'argument', message }
    await assert.rejects(collect(session.generate({ format })), wanted, JSON.stringify(format))
    assert.equal(session.position, twin.position)
  }
  await assert.rejects(collect(session.chat('no', { format: { regex: '(' } })), {
    code: 'argument',
  })
  await assert.rejects(collect(trained.generate('x', { format: { regex: '(' } })), {
    code: 'argument',
  })
  assert.deepEqual(
    await collect(session.generateIds({ maxTokens: 9 })),
    await collect(twin.generateIds({ maxTokens: 9 })),
  )
})

test('options that are no format are refused by name', async () => {
  /** @type {[unknown, RegExp][]} */
  const wrong = [
    [null, /format is null, want one of jsonSchema, regex, grammar/],
    [{ regexp: 'a' }, /format has regexp/],
    [{ regex: 'a', grammar: 'b' }, /format has regex, grammar/],
    [{ regex: /a/ }, /format\.regex is object, want a string/],
    [{ jsonSchema: [] }, /format\.jsonSchema is object, want a schema/],
    [{ jsonSchema: 1n }, /format\.jsonSchema is no JSON/],
  ]
  for (const [format, message] of wrong) {
    const options = { format: /** @type {TextFormat} */ (format) }
    await assert.rejects(collect(trained.generate('x', options)), { code: 'argument', message })
  }
  const both = { format: { regex: 'a' }, stop: 'b' }
  await assert.rejects(collect(trained.generate('x', both)), /stop and format: want one of them/)
  const file = await tinyModel({ tokenizer: null })
  const model = await BiMamba.load(file, { inline: true })
  const ids = model.generateIds([5], { format: { regex: 'a' } })
  await assert.rejects(collect(ids), { code: 'tokenizer', message: /format needs one/ })
  await model.close()
})

test('where biases forbid all that the format allows, that is an error', async () => {
  const [id = 0] = await trained.tokenize('a')
  const bytes = await trained.tokenBytes(
    Array.from({ length: trained.config.vocab_size }, (_, i) => i),
  )
  const all = [...bytes.keys()].filter((one) => new TextDecoder().decode(bytes[one]) === 'a')
  assert.ok(all.length > 0 && id >= 0)
  const logitBias = all.map(
    (one) => /** @type {[number, number]} */ ([one, Number.NEGATIVE_INFINITY]),
  )
  const message = /every token that is allowed here has a bias of -infinity/
  const options = { format: { regex: 'ba' }, logitBias: [...logitBias], temperature: 0 }
  const session = await trained.createSession()
  await session.append('x')
  const ba = [...bytes.keys()].filter((one) => new TextDecoder().decode(bytes[one]) === 'ba')
  options.logitBias.push(
    ...ba.map((one) => /** @type {[number, number]} */ ([one, Number.NEGATIVE_INFINITY])),
  )
  await assert.rejects(collect(session.generate(options)), { code: 'argument', message })
  // What was given out stays, as after any error.
  assert.equal(await session.text(), 'xb')
  assert.equal(session.lastStats?.finishReason, 'error')
})

test('a format belongs to one generation: before it and after it all is free, and others are as they were', async () => {
  const session = await trained.createSession({ seed: 1 })
  await session.append('Once upon a time')
  const start = session.position
  const format = { regex: '(?:ab|cd){3}' }
  const first = (await collect(session.generate({ format }))).join('')
  assert.match(first, /^(?:ab|cd){3}$/)
  assert.equal(session.lastStats?.finishReason, 'stop')
  const second = (
    await collect(session.generate({ format: { jsonSchema: { type: 'integer' } } }))
  ).join('')
  assert.ok(Number.isInteger(JSON.parse(second)))
  assert.equal(await session.text(), `Once upon a time${first}${second}`)
  const fork = await session.fork()
  await session.rewind(start)
  const again = (await collect(session.generate({ format }))).join('')
  assert.match(again, /^(?:ab|cd){3}$/)
  const free = (await collect(fork.generate({ maxTokens: 30 }))).join('')
  assert.doesNotMatch(free, /^[abcd]*$/)
  // One is left in the middle, and one is stopped by the number of tokens.
  for await (const _ of session.generate({ format: { regex: 'x{50}' } })) break
  const cut = (await collect(session.generate({ format: { regex: 'é{50}' }, maxTokens: 5 }))).join(
    '',
  )
  assert.equal(session.lastStats?.finishReason, 'length')
  assert.match(cut, /^é+$/)
  assert.match((await collect(session.generate({ format }))).join(''), /^(?:ab|cd){3}$/)
})

test('formats of their own for sessions that are continued together, and some without', async () => {
  const sessions = await Promise.all([0, 1, 2].map(() => trained.createSession({ seed: 4 })))
  const formats = [
    { regex: '\\d{5}' },
    { jsonSchema: { type: 'array', items: { type: 'null' }, minItems: 2, maxItems: 3 } },
  ]
  const texts = ['', '', '']
  const options = [...formats.map((format) => ({ format })), { maxTokens: 5 }]
  for await (const { index, text } of trained.generateTogether(sessions, options))
    texts[index] += text
  assert.match(String(texts[0]), /^\d{5}$/)
  assert.ok(JSON.parse(String(texts[1])).length >= 2)
  assert.equal(sessions[2]?.lastStats?.tokens, 5)
  for (const session of sessions) await session.close()
})

test('the same seed gives the same text inline and in a worker; characters come whole', async () => {
  const inline = await BiMamba.load(MODEL_FILE, { inline: true })
  const options = { format: { regex: '[日本é😀]{20}' }, seed: 5 }
  const pieces = await collect(trained.generate('x', options))
  assert.deepEqual(await collect(inline.generate('x', options)), pieces)
  assert.ok(
    pieces.length >= 20 && pieces.every((piece) => /^[日本é😀]+$/u.test(piece)),
    pieces.join('|'),
  )
  await inline.close()
})
