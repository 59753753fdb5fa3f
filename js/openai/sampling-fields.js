/**
 * The fields about sampling, which both kinds of completions have, as options of this package.
 *
 * Owns their defaults, which are those of OpenAI's API and not of the package: temperature 1, everything else off. Beyond that API it knows the names that
 * other servers have for more: `top_k`, `min_p`, `typical_p`, `repetition_penalty`, and `grammar` (llama.cpp's), `guided_regex` (vLLM's).
 */

/** @typedef {import('./fields.js').Fields} Fields */
/** @typedef {import('../index.js').SessionGenerateOptions} SessionGenerateOptions */

const MOST_TOKENS = 1e9
const MOST_CHOICES = 64
const ANY_SEED = { min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER, integer: true }
/** Seeds are taken modulo this, so that with some choices added they are ones of the package. */
const SEEDS = 2 ** 52
/** Below it is greedy: what would be drawn is the likeliest all the same. */
const LEAST_TEMPERATURE = 0.001
/** 0 means that only the likeliest token is left. */
const LEAST_TOP_P = 1e-9

/**
 * @typedef {object} SamplingFields
 * @property {number} n                 choices for each prompt
 * @property {number} seed             of the first choice, drawn where none is given; the others have those that follow
 * @property {boolean} isStream
 * @property {boolean} tellsUsage       at the end of a stream
 * @property {SessionGenerateOptions} options  without maxTokens and seed
 */

/** @param {Fields} fields @returns {SamplingFields} */
export function readSampling(fields) {
  const number = (
    /** @type {string} */ name,
    /** @type {number} */ min,
    /** @type {number} */ max,
  ) => fields.number(name, { min, max })
  const format = readFormat(fields)
  const stop = readStop(fields)
  if (format && stop.length > 0)
    throw fields.wrong(
      'stop',
      'which a text of a given format cannot have: it ends where the format does',
    )
  const temperature = number('temperature', 0, 100) ?? 1
  const topK = fields.number('top_k', { min: -1, max: MOST_TOKENS, integer: true }) ?? 0
  const given = {
    temperature: temperature < LEAST_TEMPERATURE ? 0 : temperature,
    topP: Math.max(LEAST_TOP_P, number('top_p', 0, 1) ?? 1),
    topK: Math.max(0, topK), // -1 means all elsewhere
    minP: number('min_p', 0, 1) ?? 0,
    typicalP: number('typical_p', 0, 1),
    repetitionPenalty: number('repetition_penalty', 0, 100),
    frequencyPenalty: number('frequency_penalty', -2, 2),
    presencePenalty: number('presence_penalty', -2, 2),
    stop: stop.length > 0 ? stop : undefined,
    logitBias: readBias(fields),
    format,
  }
  const options = Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined),
  )
  return {
    n: fields.number('n', { min: 1, max: MOST_CHOICES, integer: true }) ?? 1,
    seed: fields.number('seed', ANY_SEED) ?? drawSeed(),
    isStream: fields.flag('stream'),
    tellsUsage: fields.object('stream_options')?.flag('include_usage') ?? false,
    options,
  }
}

/** @param {SamplingFields} request @param {number} choice @returns {number} what the package takes as a seed */
export function seedOf({ seed }, choice) {
  const rest = seed % SEEDS
  return ((rest < 0 ? rest + SEEDS : rest) + choice) % SEEDS
}

/** @returns {number} 0 to 2^32 - 1 */
function drawSeed() {
  return Number(crypto.getRandomValues(new Uint32Array(1))[0])
}

/** @param {Fields} fields @param {readonly string[]} names the first that is there counts @returns {number | undefined} */
export function readMaxTokens(fields, ...names) {
  for (const name of names) {
    const value = fields.number(name, { min: 0, max: MOST_TOKENS, integer: true })
    if (value !== undefined) return value
  }
  return undefined
}

/** @param {Fields} fields @returns {string[]} */
function readStop(fields) {
  const stop = fields.get('stop') ?? []
  const list = Array.isArray(stop) ? stop : [stop]
  if (list.every((one) => typeof one === 'string' && one !== '')) return list
  throw fields.wrong('stop', 'want a string or an array of strings, none of them empty')
}

/** @param {Fields} fields @returns {Record<string, number> | undefined} by token id; which ids there are the model knows */
function readBias(fields) {
  const biases = fields.object('logit_bias')
  const entries = Object.keys(Object(fields.get('logit_bias'))).map((id) => {
    if (!/^\d{1,10}$/.test(id))
      throw fields.wrong('logit_bias', `whose key ${JSON.stringify(id)} is no token id`)
    return [id, biases?.number(id, { min: -100, max: 100 }) ?? 0]
  })
  return biases && Object.fromEntries(entries)
}

/** @param {Fields} fields @returns {import('../index.js').TextFormat | undefined} what the text has to be */
function readFormat(fields) {
  const grammar = fields.text('grammar')
  if (grammar) return { grammar } // clients say '' for none
  const regex = fields.text('guided_regex')
  if (regex) return { regex }
  const format = fields.object('response_format')
  const type = format?.text('type') ?? 'text'
  if (!format || type === 'text') return undefined
  if (type === 'json_object') return { jsonSchema: { type: 'object' } }
  if (type !== 'json_schema') throw format.wrong('type', 'want text, json_object or json_schema')
  const schema = format.object('json_schema')?.get('schema')
  if (typeof schema === 'object' && schema !== null) return { jsonSchema: schema }
  throw format.wrong('json_schema', 'want an object with a schema')
}
