/**
 * The command line's options: reading them, and writing the help from the same table.
 *
 * Owns the syntax (`--name value`, `--name=value`, `--`), the default model's place, and how a number is written. Ranges are
 * not here: generation options are checked by js/settings.js, as the API's are.
 * The idea: a command declares its options once; the parser, the error for an unknown one and the help all read that table.
 */

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { BmError, reasonOf } from '../errors.js'
import {
  CHOICES,
  checkChoice,
  checkNumber,
  checkStop,
  checkThreads,
  NUMBER_SETTINGS,
  suggest,
} from '../settings.js'
import { checkFormat } from '../text-format.js'

/** The model of `--model` when none is given: the one that comes with the package. */
export const DEFAULT_MODEL = fileURLToPath(
  new URL('../../models/tales/tales.safetensors', import.meta.url),
)

/** A command line that cannot be understood: exit code 2. */
export class UsageError extends Error {}

/**
 * @typedef {object} OptionRule
 * @property {string} help
 * @property {string} [value]      the value's name in the help; absent: a flag
 * @property {boolean} [multiple]  may be given more than once
 */

/** @typedef {Record<string, OptionRule>} OptionTable by name, without the dashes */

/** @typedef {{ flags: Set<string>, values: Map<string, string[]>, positionals: string[] }} ParsedOptions */

/** @type {OptionTable} options that every command has */
export const COMMON_OPTIONS = { help: { help: 'show this help' } }

/** @type {OptionTable} */
export const MODEL_OPTIONS = {
  model: {
    value: 'FILE|URL|hf:NAME',
    help: 'packed model (default: the one in the package); hf:OWNER/REPO[@REVISION][/FILE]',
  },
  cache: {
    value: CHOICES.cache.join('|'),
    help: 'downloads: keep and use (default), ask whether still the same, never fetch, do not keep',
  },
  precision: {
    value: [...CHOICES.precision].reverse().join('|'),
    help: `of the computation (default ${CHOICES.precision[0]})`,
  },
  state: {
    value: CHOICES.state.join('|'),
    help: `of the recurrent state (default ${CHOICES.state[0]})`,
  },
  head: {
    value: CHOICES.head.join('|'),
    help: 'weights of the logits: as the file has them (default), or int8 ones in 4 bits',
  },
  device: {
    value: CHOICES.device.join('|'),
    help: `that computes (default ${CHOICES.device[0]}); in Node webgpu needs the package of that name`,
  },
  'draft-model': {
    value: 'FILE|URL|hf:NAME',
    help: 'a smaller model of the same tokenizer, for --draft model',
  },
  threads: { value: 'N|auto', help: 'that compute, 1 to 64 (default auto); changes no result' },
  variant: {
    value: 'NAME',
    help: 'kernel family: table, popcount or ref (default: the quickest); changes no result',
  },
}

/**
 * @param {readonly string[]} args
 * @param {OptionTable} table
 * @returns {ParsedOptions}
 * @throws {UsageError}
 */
export function parseOptions(args, table) {
  const options = Object.fromEntries(
    Object.entries(table).map(([name, { value }]) => [
      name,
      { type: /** @type {'string' | 'boolean'} */ (value ? 'string' : 'boolean') },
    ]),
  )
  const { tokens } = parseArgs({ args: [...args], options, strict: false, tokens: true })
  /** @type {ParsedOptions} */
  const parsed = { flags: new Set(), values: new Map(), positionals: [] }
  for (const token of tokens) {
    if (token.kind === 'positional') parsed.positionals.push(token.value)
    if (token.kind === 'option') takeOption(parsed, table, token)
  }
  return parsed
}

/**
 * @param {ParsedOptions} parsed
 * @param {OptionTable} table
 * @param {{ name: string, rawName: string, value?: string | undefined, inlineValue?: boolean | undefined }} token
 */
function takeOption({ flags, values }, table, { name, rawName, value }) {
  const rule = Object.hasOwn(table, name) && rawName.startsWith('--') ? table[name] : undefined
  if (!rule) {
    const meant = suggest(name, Object.keys(table))
    throw new UsageError(`unknown option ${rawName}${meant ? `, did you mean --${meant}?` : ''}`)
  }
  if (!rule.value) {
    if (value !== undefined) throw new UsageError(`${rawName} takes no value`)
    flags.add(name)
    return
  }
  if (value === undefined) throw new UsageError(`${rawName} needs a value: ${rule.value}`)
  const before = values.get(name) ?? []
  if (before.length > 0 && !rule.multiple) throw new UsageError(`${rawName} is given twice`)
  values.set(name, [...before, value])
}

/**
 * @param {string} text
 * @param {string} label
 * @returns {number}
 */
export function readNumber(text, label) {
  const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : Number.NaN
  if (Number.isNaN(number)) throw new UsageError(`${label} is '${text}', want a number`)
  return number
}

/**
 * @template {string} T
 * @param {string} name
 * @param {string} value
 * @param {readonly T[]} choices
 * @returns {T}
 */
export function oneOf(name, value, choices) {
  const found = choices.find((choice) => choice === value)
  if (found === undefined) {
    throw new UsageError(`--${name} is '${value}', want ${choices.join(', ')}`)
  }
  return found
}

/**
 * @param {string} text ids separated by commas
 * @param {string} label
 * @returns {number[]}
 */
export function readIds(text, label) {
  return text.split(',').map((part) => {
    if (/^\s*\d{1,9}\s*$/.test(part)) return Number(part)
    throw new UsageError(`${label}: '${part.trim()}' is no token id, want ids separated by commas`)
  })
}

/** @param {string} text @returns {[number, number]} */
function readBias(text) {
  const [, id = '', bias = ''] = /^(\d{1,9})=(.+)$/.exec(text) ?? []
  if (id === '') throw new UsageError(`--logit-bias is '${text}', want ID=BIAS`)
  if (bias === '-Infinity') return [Number(id), Number.NEGATIVE_INFINITY]
  return [Number(id), readNumber(bias, '--logit-bias')]
}

/** @type {OptionTable} what a text has to be; one of them */
export const FORMAT_OPTIONS = {
  'json-schema': {
    value: 'FILE',
    help: 'the text is JSON that is valid by the schema in this file',
  },
  regex: { value: 'REGEX', help: 'the whole text matches this regular expression' },
  grammar: { value: 'FILE', help: 'the text is one of the grammar (GBNF) in this file' },
}

/**
 * Of a table with `settingOptions()` and `FORMAT_OPTIONS`.
 * @param {ParsedOptions} parsed
 * @returns {Promise<import('../settings.js').GenerateOptions>}
 * @throws {BmError} `argument`, `io`
 */
export async function readTextSettings(parsed) {
  const settings = readSettings(parsed)
  const format = await readFormat(parsed)
  return format ? { ...settings, format } : settings
}

/**
 * @param {ParsedOptions} parsed
 * @returns {Promise<import('../settings.js').GenerateOptions['format'] | null>}
 */
async function readFormat({ values }) {
  const given = Object.keys(FORMAT_OPTIONS).filter((name) => values.has(name))
  const [name] = given
  if (name === undefined) return null
  if (given.length > 1) throw new UsageError(`--${given.join(' and --')}: want one of them`)
  const value = String(values.get(name)?.[0])
  if (name === 'regex') return checkFormat({ regex: value })
  const text = await readText(value, `--${name}`)
  if (name === 'grammar') return checkFormat({ grammar: text })
  try {
    return checkFormat({ jsonSchema: JSON.parse(text) })
  } catch (cause) {
    if (cause instanceof BmError) throw cause
    throw new BmError('argument', `--json-schema ${value}: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {string} path @param {string} label @returns {Promise<string>} */
async function readText(path, label) {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new BmError('io', `${label} ${path}: ${reasonOf(cause)}`, { cause })
  }
}

/** Generation options as the command line spells them, in the order of the help. */
const SETTING_HELP = /** @type {const} */ ({
  maxTokens: 'most tokens to generate',
  temperature: '0 takes the likeliest token',
  topK: 'sample from the N likeliest tokens, 0: all',
  topP: 'sample from the likeliest tokens up to this probability',
  minP: "drop tokens below this fraction of the likeliest one's probability",
  typicalP: 'sample from the most typical tokens up to this probability',
  mirostatTau: 'Mirostat 2 in place of the filters above: surprise to aim at, in bits',
  mirostatEta: 'how fast Mirostat adapts',
  repetitionPenalty: 'above 1: recent tokens become less likely',
  frequencyPenalty: 'above 0: the more often a token is recent, the less likely',
  presencePenalty: 'above 0: recent tokens become less likely, however often they are',
  repetitionWindow: 'how many tokens are recent',
  noRepeatNgram: 'so many tokens in a row never come twice',
  dryMultiplier: 'DRY: against tokens that make a repetition longer',
  dryBase: 'its growth with each repeated token',
  dryAllowedLength: 'tokens that may repeat freely',
  historyWindow: 'how many tokens the last two look back',
  seed: 'same seed, same text (default: drawn, and printed)',
})

/** @param {string} name @returns {string} topK to top-k */
const kebab = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)

/** @returns {OptionTable} */
export function settingOptions() {
  /** @type {OptionTable} */
  const table = {}
  for (const [name, help] of Object.entries(SETTING_HELP)) {
    /** @type {import('../settings.js').NumberRule} */
    const rule = NUMBER_SETTINGS[/** @type {keyof typeof SETTING_HELP} */ (name)]
    const preset = rule.default === undefined ? '' : ` (default ${rule.default})`
    table[kebab(name)] = { value: 'N', help: help + preset }
  }
  table.stop = { value: 'TEXT', multiple: true, help: 'end before this text (may be repeated)' }
  table.draft = {
    value: CHOICES.draft.join('|'),
    help: 'guess tokens from the text so far and read them together; changes no token (default none)',
  }
  table['logit-bias'] = {
    value: 'ID=BIAS',
    multiple: true,
    help: "add to a token's logit, -100 to 100, or -Infinity: never (may be repeated)",
  }
  return table
}

/**
 * @param {ParsedOptions} parsed
 * @returns {import('../settings.js').GenerateOptions}
 * @throws {BmError} `argument` for a value out of range, named as on the command line
 */
function readSettings({ values }) {
  /** @type {import('../settings.js').GenerateOptions} */
  const settings = {}
  for (const name of /** @type {(keyof typeof SETTING_HELP)[]} */ (Object.keys(SETTING_HELP))) {
    const text = values.get(kebab(name))?.[0]
    const label = `--${kebab(name)}`
    if (text !== undefined) settings[name] = checkNumber(name, readNumber(text, label), label)
  }
  const stop = values.get('stop')
  if (stop) settings.stop = checkStop(stop, '--stop')
  const draft = values.get('draft')?.[0]
  if (draft !== undefined) settings.draft = oneOf('draft', draft, CHOICES.draft)
  const biases = values.get('logit-bias')
  if (biases) settings.logitBias = biases.map(readBias)
  return settings
}

/**
 * @param {ParsedOptions} parsed
 * @returns {{ precision: 'fast' | 'high' | 'exact', state: 'f32' | 'i16', head: 'file' | 'int4' }} how a model is held and computed
 * @throws {BmError} `argument`
 */
export function readChoices({ values }) {
  const precision = values.get('precision')?.[0] ?? CHOICES.precision[0]
  checkChoice('precision', precision, '--precision')
  const state = values.get('state')?.[0] ?? CHOICES.state[0]
  checkChoice('state', state, '--state')
  const head = values.get('head')?.[0] ?? CHOICES.head[0]
  checkChoice('head', head, '--head')
  return {
    precision: /** @type {'fast' | 'high' | 'exact'} */ (precision),
    state: /** @type {'f32' | 'i16'} */ (state),
    head: /** @type {'file' | 'int4'} */ (head),
  }
}

/**
 * @param {ParsedOptions} parsed
 * @returns {'auto' | 'check' | 'only' | 'off'}
 * @throws {BmError} `argument`
 */
export function readCache({ values }) {
  const cache = values.get('cache')?.[0] ?? CHOICES.cache[0]
  checkChoice('cache', cache, '--cache')
  return /** @type {ReturnType<typeof readCache>} */ (cache)
}

/**
 * @param {ParsedOptions} parsed
 * @returns {{ source: string, load: import('../settings.js').LoadOptions }}
 */
export function readModelOptions(parsed) {
  const { values } = parsed
  const choices = readChoices(parsed)
  const text = values.get('threads')?.[0] ?? 'auto'
  const threads = text === 'auto' ? text : readNumber(text, '--threads')
  checkThreads(threads, '--threads')
  const source = values.get('model')?.[0] ?? DEFAULT_MODEL
  if (source === '') throw new UsageError('--model is empty, want a file or a URL')
  const device = values.get('device')?.[0] ?? CHOICES.device[0]
  checkChoice('device', device, '--device')
  const variant = values.get('variant')?.[0]
  const draftModel = values.get('draft-model')?.[0]
  if (variant === '') throw new UsageError('--variant is empty, want the name of a kernel family')
  return {
    source,
    load: {
      ...choices,
      device: /** @type {'wasm' | 'webgpu' | 'auto'} */ (device),
      cache: readCache(parsed),
      threads,
      ...(variant === undefined ? {} : { variant }),
      ...(draftModel === undefined ? {} : { draftModel }),
    },
  }
}

/**
 * @param {string} usage first lines of the help
 * @param {OptionTable} table
 * @returns {string}
 */
export function helpText(usage, table) {
  const rows = Object.entries(table).map(([name, { value, help }]) => [
    `  --${name}${value ? ` ${value}` : ''}`,
    help,
  ])
  const width = Math.max(...rows.map(([left]) => String(left).length)) + 2
  const lines = rows.map(([left, right]) => `${String(left).padEnd(width)}${right}`)
  return `${usage.trim()}\n\nOptions:\n${lines.join('\n')}\n`
}
