/**
 * Options: their names, ranges and defaults, and the check that every caller's options pass.
 *
 * Owns the tables of generation and load options; the API and the command line read the same ones. Knows nothing
 * about what the options do, and no model: what depends on one (is this id in the vocabulary?) takes it as an argument.
 * The idea: an option is data, so that one function can check all of them and name the one that is wrong,
 * what it was and what it may be. An unknown name is an error too: a misspelt option must not be ignored.
 */

import { BmError } from './errors.js'
import { checkFormat } from './text-format.js'

/**
 * @typedef {object} NumberRule
 * @property {number} [default]  absent: no default (the seed is drawn when none is given)
 * @property {number} min
 * @property {number} max
 * @property {boolean} [integer]
 * @property {boolean} [open]     the minimum itself is not allowed
 * @property {boolean} [orZero]   0 is allowed too
 */

/**
 * The numeric generation options; the sampler in C checks the same ranges again, and src/bm.h says what each does.
 * @satisfies {Record<string, NumberRule>}
 */
export const NUMBER_SETTINGS = {
  maxTokens: { default: 256, min: 1, max: 2 ** 31 - 1, integer: true },
  temperature: { default: 0.8, min: 0.001, max: 100, orZero: true },
  topK: { default: 40, min: 0, max: 1048576, integer: true },
  topP: { default: 0.95, min: 0, max: 1, open: true },
  minP: { default: 0, min: 0, max: 1 },
  typicalP: { default: 1, min: 0, max: 1, open: true },
  mirostatTau: { default: 0, min: 0, max: 100 },
  mirostatEta: { default: 0.1, min: 0, max: 1, open: true },
  repetitionPenalty: { default: 1, min: 0, max: 100, open: true },
  frequencyPenalty: { default: 0, min: -100, max: 100 },
  presencePenalty: { default: 0, min: -100, max: 100 },
  repetitionWindow: { default: 64, min: 0, max: 65536, integer: true },
  noRepeatNgram: { default: 0, min: 0, max: 64, integer: true },
  dryMultiplier: { default: 0, min: 0, max: 100 },
  dryBase: { default: 1.75, min: 1, max: 100 },
  dryAllowedLength: { default: 2, min: 1, max: 64, integer: true },
  historyWindow: { default: 1024, min: 0, max: 65536, integer: true },
  seed: { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true },
}

/** @typedef {keyof typeof NUMBER_SETTINGS} NumberSetting */

/** The named choices of `BiMamba.load`, the default first. */
export const CHOICES = {
  precision: /** @type {const} */ (['fast', 'high', 'exact']),
  state: /** @type {const} */ (['f32', 'i16']),
  head: /** @type {const} */ (['file', 'int4']),
  device: /** @type {const} */ (['wasm', 'webgpu', 'auto']),
  cache: /** @type {const} */ (['auto', 'check', 'only', 'off']),
  draft: /** @type {const} */ (['none', 'text', 'model']),
}

/** The numeric options of fetching. @satisfies {Record<string, NumberRule & { default: number }>} */
const FETCH_NUMBERS = {
  streams: { default: 4, min: 1, max: 16, integer: true },
  retries: { default: 5, min: 0, max: 100, integer: true },
  retryDelayMs: { default: 500, min: 0, max: 60000 },
  stallTimeoutMs: { default: 20000, min: 1, max: 3600000 },
}

/** Options of `BiMamba.load` that say where a file of the package is. */
const PLACES = /** @type {const} */ (['wasmUrl', 'workerUrl', 'threadUrl'])

/** At most this many stop strings, each of at most this many UTF-16 units: what is held back stays small. */
const MAX_STOPS = 64
const MAX_STOP_LENGTH = 1000

/** More ids than this (1 GiB of them) are a mistake. */
const MAX_IDS = 2 ** 28

/**
 * What `generate` accepts.
 *
 * @typedef {object} GenerateOptions
 * @property {number} [maxTokens]         most tokens to generate; default 256
 * @property {number} [temperature]       0 is greedy (ties to the lowest id); default 0.8
 * @property {number} [topK]              keep the k likeliest tokens, 0 keeps all; default 40
 * @property {number} [topP]              keep the likeliest tokens up to this probability mass; default 0.95
 * @property {number} [minP]              drop tokens below this fraction of the likeliest one's probability; default 0
 * @property {number} [typicalP]          keep the tokens whose surprise is nearest to the entropy, up to this probability mass; default 1 (off)
 * @property {number} [mirostatTau]       Mirostat 2: the surprise to aim at, in bits; takes the place of the four filters. Default 0 (off)
 * @property {number} [mirostatEta]       how fast it adapts; default 0.1
 * @property {number} [repetitionPenalty] above 1 makes recent tokens less likely; default 1 (off)
 * @property {number} [frequencyPenalty]  taken from a logit for each time the token is recent; default 0
 * @property {number} [presencePenalty]   taken once from the logit of a recent token; default 0
 * @property {number} [repetitionWindow]  how many tokens are recent; default 64
 * @property {number} [noRepeatNgram]     so many tokens in a row never come a second time; default 0 (off)
 * @property {number} [dryMultiplier]     DRY: tokens that make a repetition longer lose dryMultiplier * dryBase^(its length - dryAllowedLength);
 *                                        default 0 (off)
 * @property {number} [dryBase]           default 1.75
 * @property {number} [dryAllowedLength]  tokens that may repeat freely; default 2
 * @property {readonly number[]} [dryBreakers]  token ids over which no repetition reaches, at most 1024; default none
 * @property {number} [historyWindow]     how many tokens noRepeatNgram and DRY look back; default 1024
 * @property {LogitBias} [logitBias]      added to the logits of token ids, -100 to 100, or -Infinity: never; at most 1024
 * @property {readonly number[]} [stopTokens]  ids that end the text, and are no part of it; default: the model's EOS
 * @property {number} [seed]              an integer; the same seed gives the same text. Default: drawn, see `lastStats.seed`
 * @property {'none' | 'text' | 'model'} [draft]  'text': tokens are guessed from what the text has said before, and read together; changes no token, and
 *                                        is quicker where a text repeats itself. 'model': guessed by the model of `load({ draftModel })`.
 *                                        Only in WebAssembly, and for a text alone. Default 'none'
 * @property {string | readonly string[]} [stop]  the text ends before the first of these strings
 * @property {import('./text-format.js').TextFormat} [format]  what the text has to be: { jsonSchema }, { regex } or { grammar }; not together with `stop`
 * @property {boolean} [bos]              begin with the model's BOS token; default: what the file says for text, no for ids
 * @property {AbortSignal} [signal]       stops the work; the generator then throws `signal.reason`
 */

/** Biases by token id. @typedef {ReadonlyMap<number, number> | readonly (readonly [number, number])[] | Readonly<Record<number, number>>} LogitBias */

/**
 * Checked settings, complete, as the generation loop takes them: what the sampler takes, and
 *
 * @typedef {object} LoopSettings
 * @property {number} maxTokens
 * @property {number | null} seed  null: random numbers go on where they are
 * @property {string[]} stop
 * @property {number[] | null} stopTokens  null: the model's EOS
 * @property {import('./text-format.js').TextFormat | null} format
 * @property {boolean | null} bos  null: as the file says
 * @property {'none' | 'text' | 'model'} draft
 * @property {number | null} logprobs  how many alternatives to tell with each token; null: no probabilities at all
 */

/** @typedef {Omit<import('./core.js').Sampling, 'seed'> & LoopSettings} Settings */

/**
 * How a file on a server is got and kept: of `BiMamba.load` and `BiMamba.cache.add`.
 *
 * @typedef {object} FetchSettings
 * @property {'auto' | 'check' | 'only' | 'off'} [cache]  of http: and https: files on this device. 'auto' (default): what is there is used without a
 *                                        request, the rest is fetched and kept; 'check': the server is asked first whether it still has the same file;
 *                                        'only': nothing is fetched, `storage` when the file is not there; 'off': nothing is read or kept
 * @property {string} [cacheFolder]       in Node, where files are kept; default: the environment variable BIMAMBA_CACHE, or the user's cache folder
 * @property {string} [identity]          that the file must have, as `info.identity` gives it; `integrity` for another one. As it holds the
 *                                        hashes of all the rest, it pins the whole file
 * @property {Record<string, string>} [headers]  for the server of the URL; they do not follow a redirect to another origin, nor go to another one for `draftModel`
 * @property {typeof globalThis.fetch} [fetch]   used in place of the global one; runs in this thread
 * @property {number} [streams]           ranges fetched at the same time where the server allows them, 1 to 16; default 4
 * @property {number} [retries]           of a request that failed in passing, without progress in between; default 5
 * @property {number} [retryDelayMs]      before the first retry; doubles with each, to 30 s; default 500
 * @property {number} [stallTimeoutMs]    without a byte, after which a request is given up and tried again; default 20000
 * @property {(progress: Progress) => void} [onProgress]  called at most about ten times a second, and at each new phase; the last time at the end
 * @property {AbortSignal} [signal]       stops; the promise then rejects with `signal.reason`. What has arrived is kept
 */

/** @typedef {import('./load-meter.js').Progress} Progress */

/**
 * What `BiMamba.load` accepts.
 *
 * @typedef {FetchSettings & EngineSettings} LoadOptions
 */

/**
 * Of the engine.
 *
 * @typedef {object} EngineSettings
 * @property {string | ArrayLike<number>} [prompt]  read while the model loads, layer by layer: the first `generate` whose prompt is this, or begins
 *                                        with it, has it read already
 * @property {'fast' | 'high' | 'exact'} [precision]  of the computation; default 'fast'
 * @property {'f32' | 'i16'} [state]      how the recurrent state is kept; default 'f32'
 * @property {'file' | 'int4'} [head]    how the language-model head is kept: as the file has it, or an int8 one in 4 bits, which
 *                                        is quicker and a little less exact; `argument` for other heads. Default 'file'
 * @property {import('./source.js').ModelSource} [draftModel]  a smaller model with the same tokenizer, which guesses tokens for `generate({ draft: 'model' })`;
 *                                        `mismatch` for another tokenizer
 * @property {'wasm' | 'webgpu' | 'auto'} [device]  where it is computed: in WebAssembly (default), or on the GPU, where 'high' is 'exact'; 'auto': on the
 *                                        GPU where there is one and it is quicker, which is measured; `info.deviceNote` says why not
 * @property {number | 'auto'} [threads]  that compute, 1 to 64; default 'auto': as many as the machine has, for models that
 *                                        are large enough. 1 where memory cannot be shared: pages that are not
 *                                        cross-origin isolated, and `inline` on a page. No result depends on it
 * @property {string} [variant]           a kernel family by name: 'table', 'popcount' or 'ref'. Default: the quickest here, found in
 *                                        some 40 ms when first a file of 32 MB or more is loaded, and remembered while the
 *                                        program runs; until then 'table'. No result depends on it
 * @property {boolean} [inline]           run the engine in this thread instead of a worker; default false
 * @property {string | URL} [wasmUrl]     where the module is, one of bimamba.wasm, bimamba-relaxed.wasm, bimamba-threads.wasm and
 *                                        bimamba-threads-relaxed.wasm; default: the one in the package that suits
 * @property {string | URL} [workerUrl]   where worker.js is; default: in the package
 * @property {string | URL} [threadUrl]   where thread.js is; default: in the package
 */

/**
 * @param {string} name
 * @param {readonly string[]} names
 * @returns {string | null} the name that was probably meant
 */
export function suggest(name, names) {
  const plain = (/** @type {string} */ text) => text.toLowerCase().replace(/[-_]/g, '')
  let best = null
  let bestDistance = 3
  for (const candidate of names) {
    const distance = editDistance(plain(name), plain(candidate))
    if (distance < Math.min(bestDistance, candidate.length - 1)) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** @param {string} a @param {string} b @returns {number} insertions, deletions and substitutions between the two */
function editDistance(a, b) {
  if (Math.abs(a.length - b.length) > 3) return 4
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = Number(row[j - 1]) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next[j] = Math.min(change, Number(row[j]) + 1, Number(next[j - 1]) + 1)
    }
    row = next
  }
  return Number(row[b.length])
}

/**
 * @param {object} options
 * @param {readonly string[]} names those allowed
 * @param {string} where for the message
 */
export function checkNames(options, names, where) {
  if (typeof options !== 'object' || options === null) {
    throw new BmError('argument', `${where}: the options are ${show(options)}, want an object`)
  }
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue
    const meant = suggest(name, names)
    throw new BmError(
      'argument',
      `${where}: unknown option '${name}'${meant ? `, did you mean '${meant}'?` : ''}`,
    )
  }
}

/**
 * @param {NumberSetting} name
 * @param {unknown} value
 * @param {string} [label] what the caller calls it, for the message
 * @returns {number}
 */
export function checkNumber(name, value, label = name) {
  return checkRule(NUMBER_SETTINGS[name], value, label)
}

/** @param {NumberRule} rule @param {unknown} value @param {string} label @returns {number} */
function checkRule(rule, value, label) {
  if (typeof value === 'number') {
    const inRange = value >= rule.min && value <= rule.max && !(rule.open && value === rule.min)
    const fits = inRange || (rule.orZero === true && value === 0)
    if (fits && !(rule.integer && !Number.isInteger(value))) return value
  }
  const range = `${rule.open ? 'above ' : ''}${rule.min} to ${rule.max}${rule.orZero ? ', or 0' : ''}`
  throw new BmError(
    'argument',
    `${label} is ${show(value)}, want ${rule.integer ? 'an integer' : 'a number'} from ${range}`,
  )
}

/**
 * @param {unknown} value
 * @param {string} [label]
 * @returns {string[]}
 */
export function checkStop(value, label = 'stop') {
  const list = typeof value === 'string' ? [value] : value
  if (!Array.isArray(list) || list.length > MAX_STOPS) {
    throw new BmError(
      'argument',
      `${label} is ${show(value)}, want a string or up to ${MAX_STOPS} strings`,
    )
  }
  for (const stop of list) {
    if (typeof stop !== 'string' || stop === '' || stop.length > MAX_STOP_LENGTH) {
      throw new BmError(
        'argument',
        `${label}: ${show(stop)}, want a string of 1 to ${MAX_STOP_LENGTH} characters`,
      )
    }
    if (wellFormed(stop) !== stop) {
      throw new BmError('argument', `${label}: ${show(stop)} has half of a surrogate pair`)
    }
  }
  return [...list]
}

const NUMBER_NAMES = /** @type {NumberSetting[]} */ (Object.keys(NUMBER_SETTINGS))
/** What `generate` accepts. */
const GENERATE_NAMES = [
  ...NUMBER_NAMES,
  ...['stop', 'stopTokens', 'logitBias', 'dryBreakers', 'format', 'draft', 'bos', 'signal'],
]

/** At most this many of each: as src/bm.h says. */
const MAX_LISTED = 1024

/** @param {unknown} value @param {number} vocabSize @returns {[number, number][]} */
function checkLogitBias(value, vocabSize) {
  const isList = typeof value === 'object' && value !== null && Symbol.iterator in value
  const wanted = 'want a Map, an object or pairs of token id and bias'
  if (typeof value !== 'object' || value === null) {
    throw new BmError('argument', `logitBias is ${show(value)}, ${wanted}`)
  }
  const pairs = isList ? [.../** @type {Iterable<unknown>} */ (value)] : Object.entries(value)
  if (pairs.length > MAX_LISTED) {
    throw new BmError(
      'argument',
      `logitBias has ${pairs.length} entries, want at most ${MAX_LISTED}`,
    )
  }
  /** @type {Map<number, number>} */
  const biases = new Map()
  for (const pair of pairs) {
    if (!Array.isArray(pair) || pair.length !== 2) {
      throw new BmError('argument', `logitBias: ${show(pair)}, ${wanted}`)
    }
    const [name, bias] = pair
    // The names of an object are strings.
    const id = !isList && /^\d+$/.test(name) ? Number(name) : name
    checkIds([id], vocabSize, 'logitBias: id')
    if (!(bias >= -100 && bias <= 100) && bias !== Number.NEGATIVE_INFINITY) {
      throw new BmError(
        'argument',
        `logitBias of ${id} is ${show(bias)}, want a number from -100 to 100, or -Infinity`,
      )
    }
    if (biases.has(id)) throw new BmError('argument', `logitBias: token id ${id} twice`)
    biases.set(id, bias)
  }
  return [...biases]
}

/** @param {string} name @param {unknown} ids @param {number} vocabSize @returns {number[]} */
function checkListed(name, ids, vocabSize) {
  const list = [...checkIds(ids, vocabSize, name)]
  if (list.length <= MAX_LISTED) return list
  throw new BmError('argument', `${name} has ${list.length} ids, want at most ${MAX_LISTED}`)
}

/**
 * @param {GenerateOptions} options
 * @param {number} vocabSize
 * @returns {Settings} without the signal, which does not travel with the rest
 */
export function checkGenerate(options, vocabSize) {
  checkNames(options, GENERATE_NAMES, 'generate')
  checkFlag('bos', options.bos)
  checkSignal(options.signal)
  checkChoice('draft', options.draft)
  const numbers = NUMBER_NAMES.map((name) => {
    /** @type {NumberRule} */
    const rule = NUMBER_SETTINGS[name]
    const { [name]: value = rule.default ?? drawSeed() } = options
    return [name, checkNumber(name, value)]
  })
  const { stop = [], stopTokens, logitBias = [], dryBreakers = [], bos = null } = options
  const { draft = CHOICES.draft[0] } = options
  const format = options.format === undefined ? null : checkFormat(options.format)
  if (format && options.stop !== undefined) {
    throw new BmError('argument', 'stop and format: want one of them, a format says where it ends')
  }
  return {
    .../** @type {Record<NumberSetting, number>} */ (Object.fromEntries(numbers)),
    stop: checkStop(stop),
    stopTokens: stopTokens === undefined ? null : checkListed('stopTokens', stopTokens, vocabSize),
    logitBias: checkLogitBias(logitBias, vocabSize),
    dryBreakers: checkListed('dryBreakers', dryBreakers, vocabSize),
    format,
    bos,
    draft,
    logprobs: null,
  }
}

/** What both `load` and `cache.add` take. */
const FETCH_NAMES = [
  'cache',
  'cacheFolder',
  'identity',
  'headers',
  'fetch',
  ...Object.keys(FETCH_NUMBERS),
  'onProgress',
  'signal',
]

/**
 * @param {LoadOptions} options
 * @returns {CheckedLoad}
 */
export function checkLoad(options) {
  const names = ['precision', 'state', 'head', 'device', 'threads', 'variant', 'inline', 'prompt']
  checkNames(options, [...names, 'draftModel', ...PLACES, ...FETCH_NAMES], 'load')
  checkFlag('inline', options.inline)
  checkChoice('precision', options.precision)
  checkChoice('state', options.state)
  checkChoice('head', options.head)
  checkChoice('device', options.device)
  checkString('variant', options.variant, "a kernel family's name")
  checkPlaces(options)
  const { prompt } = options
  const isPrompt = typeof prompt === 'string' || (typeof prompt === 'object' && prompt !== null)
  if (prompt !== undefined && !isPrompt) {
    throw new BmError('argument', `prompt is ${show(prompt)}, want a string or token ids`)
  }
  const {
    precision = CHOICES.precision[0],
    state = CHOICES.state[0],
    head = CHOICES.head[0],
    device = CHOICES.device[0],
    threads = 'auto',
  } = options
  checkThreads(threads)
  return { ...options, precision, state, head, device, threads, download: checkFetch(options) }
}

/** @typedef {LoadOptions & { precision: 'fast' | 'high' | 'exact', state: 'f32' | 'i16', head: 'file' | 'int4', device: 'wasm' | 'webgpu' | 'auto', threads: number | 'auto', download: import('./source.js').FetchOptions }} CheckedLoad */

/**
 * @param {FetchSettings & { workerUrl?: string | URL, wasmUrl?: string | URL, inline?: boolean }} options
 * @param {string} [where] for the message
 * @returns {import('./source.js').FetchOptions}
 */
export function checkPull(options, where = 'cache.add') {
  checkNames(options, [...FETCH_NAMES, 'inline', 'workerUrl', 'wasmUrl'], where)
  checkFlag('inline', options.inline)
  checkPlaces(options)
  return checkFetch(options)
}

/** @param {FetchSettings} options @returns {import('./source.js').FetchOptions} */
export function checkFetch(options) {
  const { cache = CHOICES.cache[0], cacheFolder, identity, headers = {}, fetch } = options
  checkChoice('cache', cache)
  checkString('cacheFolder', cacheFolder, 'a path')
  if (identity !== undefined && !/^[0-9a-f]{64}$/.test(identity)) {
    throw new BmError('argument', `identity is ${show(identity)}, want 64 lower-case hex digits`)
  }
  checkHeaders(headers)
  if (fetch !== undefined && typeof fetch !== 'function') {
    throw new BmError('argument', `fetch is ${show(fetch)}, want a function`)
  }
  if (options.onProgress !== undefined && typeof options.onProgress !== 'function') {
    throw new BmError('argument', `onProgress is ${show(options.onProgress)}, want a function`)
  }
  checkSignal(options.signal)
  const number = (/** @type {keyof typeof FETCH_NUMBERS} */ name) =>
    checkRule(FETCH_NUMBERS[name], options[name] ?? FETCH_NUMBERS[name].default, name)
  return {
    cache,
    ...(cacheFolder === undefined ? {} : { cacheFolder }),
    identity: identity ?? null,
    headers: { ...headers },
    streams: number('streams'),
    retries: number('retries'),
    retryDelayMs: number('retryDelayMs'),
    stallTimeoutMs: number('stallTimeoutMs'),
  }
}

/** @param {unknown} headers */
function checkHeaders(headers) {
  const isPlain = typeof headers === 'object' && headers !== null && !(headers instanceof Headers)
  for (const [name, value] of Object.entries(isPlain ? headers : { '': null })) {
    // What `fetch` would refuse only later, with a message that names nothing.
    const fits =
      /^[!#$%&'*+.^`|~\w-]+$/.test(name) && /^[\t\x20-\x7e\x80-\xff]*$/.test(String(value))
    if (fits && typeof value === 'string') continue
    const found = isPlain ? `${show(name)}: ${show(value)}` : show(headers)
    throw new BmError('argument', `headers is ${found}, want an object of names and texts`)
  }
}

/** @param {Partial<Record<typeof PLACES[number], string | URL>>} options */
function checkPlaces(options) {
  for (const name of PLACES) {
    const url = options[name]
    if (url !== undefined && typeof url !== 'string' && !(url instanceof URL)) {
      throw new BmError('argument', `${name} is ${show(url)}, want a URL`)
    }
  }
}

/** @param {string} name @param {unknown} value @param {string} want */
export function checkString(name, value, want) {
  if (value === undefined || typeof value === 'string') return
  throw new BmError('argument', `${name} is ${show(value)}, want ${want}`)
}

/**
 * @param {unknown} value
 * @param {string} [label]
 */
export function checkThreads(value, label = 'threads') {
  if (value === 'auto') return
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 64) return
  throw new BmError(
    'argument',
    `${label} is ${show(value)}, want 'auto' or an integer from 1 to 64`,
  )
}

/**
 * @param {keyof typeof CHOICES} name
 * @param {unknown} value
 * @param {string} [label]
 */
export function checkChoice(name, value, label = name) {
  /** @type {readonly unknown[]} */
  const choices = CHOICES[name]
  if (value === undefined || choices.includes(value)) return
  throw new BmError('argument', `${label} is ${show(value)}, want ${choices.join(', ')}`)
}

/** @param {string} name @param {unknown} value */
export function checkFlag(name, value) {
  if (value === undefined || typeof value === 'boolean') return
  throw new BmError('argument', `${name} is ${show(value)}, want true or false`)
}

/** @param {unknown} signal */
export function checkSignal(signal) {
  if (signal === undefined || signal instanceof AbortSignal) return
  throw new BmError('argument', `signal is ${show(signal)}, want an AbortSignal`)
}

/**
 * @param {unknown} ids
 * @param {number} vocabSize
 * @param {string} where for the message
 * @returns {Uint32Array} a copy
 */
export function checkIds(ids, vocabSize, where) {
  const list = /** @type {ArrayLike<unknown>} */ (ids)
  const isList = typeof ids === 'object' && ids !== null && Number.isInteger(list.length)
  if (!isList || list.length < 0 || list.length > MAX_IDS) {
    throw new BmError('argument', `${where} is ${show(ids)}, want an array of token ids`)
  }
  const copy = new Uint32Array(list.length)
  for (let i = 0; i < copy.length; i++) {
    const id = list[i]
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new BmError(
        'argument',
        `${where}[${i}] is ${show(id)}, want a token id from 0 to ${vocabSize - 1}`,
      )
    }
    copy[i] = id
  }
  return copy
}

/** @param {string} text @returns {string} with each lone surrogate replaced by U+FFFD, as every encoder does */
export function wellFormed(text) {
  return text.replace(/\p{Surrogate}/gu, '\ufffd')
}

/** @returns {number} 32 random bits: enough to differ, short enough to type again */
export function drawSeed() {
  return Number(crypto.getRandomValues(new Uint32Array(1))[0])
}

/** One more than the largest seed. */
const SEEDS = 2 ** 53

/** @param {number} seed @param {number} count @returns {number} so many seeds on; behind the largest comes 0 */
export function seedAfter(seed, count) {
  // A sum above 2^53 would be rounded.
  const left = seed - SEEDS + count
  return left < 0 ? left + SEEDS : left
}

/** @param {unknown} value @returns {string} short and printable */
function show(value) {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value)
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return typeof value === 'function' ? 'a function' : String(value)
}
