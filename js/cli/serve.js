/**
 * `bimamba serve`: a model behind OpenAI's API, for the programs of this machine.
 *
 * Owns the options, the name of the model, and what is said on the terminal. The server is js/serve/server.js.
 */

import { BmError } from '../index.js'
import { serveModels } from '../serve/server.js'
import { openModel } from './model-loading.js'
import {
  COMMON_OPTIONS,
  MODEL_OPTIONS,
  readModelOptions,
  readNumber,
  UsageError,
} from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba serve [options]

Answers /v1/completions, /v1/chat/completions and /v1/models as OpenAI's API does, on 127.0.0.1 only.
A key that requests must have is taken from the environment: BIMAMBA_API_KEY.`

const DEFAULT_PORT = 8080
const MOST_PORT = 65535
const MOST_WAITING = 10000
const MIB = 2 ** 20
const MOST_BODY_MIB = 1024

export const OPTIONS = {
  port: { value: 'N', help: `default ${DEFAULT_PORT}; 0: one that is free` },
  name: { value: 'NAME', help: 'of the model in requests (default: that of its file)' },
  'allow-origin': {
    value: 'ORIGIN',
    multiple: true,
    help: 'of pages that may ask, as https://example.org (may be repeated)',
  },
  'allow-host': {
    value: 'HOST',
    multiple: true,
    help: 'that requests may be for, besides this machine: of a proxy (may be repeated)',
  },
  'max-waiting': { value: 'N', help: 'requests that wait for their turn (default 64)' },
  'max-body': { value: 'MIB', help: 'size of a request (default 16)' },
  log: { help: 'a line on stderr for each request' },
  ...MODEL_OPTIONS,
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const { source, load } = readModelOptions(parsed)
  const options = serverOptions(parsed, io)
  const name = parsed.values.get('name')?.[0] ?? nameOf(source)
  const model = await openModel(source, load, io)
  try {
    const server = await serveModels({ [name]: model }, options).catch((error) => {
      throw new BmError(
        'io',
        `port ${options.port} cannot be had: ${error.code}; --port gives another`,
      )
    })
    try {
      await write(io.stdout, `${withoutControls(name)} at ${server.url}/v1\nCtrl-C ends it.\n`)
      await ended(io.signal)
    } finally {
      await server.close()
    }
  } finally {
    await model.close()
  }
  return 0
}

/** @param {import('./options.js').ParsedOptions} parsed @param {Io} io @returns {import('../serve/server.js').ServerOptions} */
function serverOptions({ values, flags }, io) {
  /** @param {string} name @param {number} most */
  const integer = (name, most) => {
    const text = values.get(name)?.[0]
    if (text === undefined) return undefined
    const value = readNumber(text, `--${name}`)
    if (Number.isInteger(value) && value >= 0 && value <= most) return value
    throw new UsageError(`--${name} is ${text}, want an integer from 0 to ${most}`)
  }
  const body = integer('max-body', MOST_BODY_MIB)
  const waiting = integer('max-waiting', MOST_WAITING)
  const key = process.env.BIMAMBA_API_KEY ?? ''
  const complain = (/** @type {unknown} */ error) =>
    void write(io.stderr, `bimamba: ${withoutControls(String(error))}\n`)
  const tell = (/** @type {string} */ line) => void write(io.stderr, `${withoutControls(line)}\n`)
  return {
    port: integer('port', MOST_PORT) ?? DEFAULT_PORT,
    hosts: values.get('allow-host') ?? [],
    origins: values.get('allow-origin') ?? [],
    key: key === '' ? null : key,
    ...(body === undefined ? {} : { mostBytes: body * MIB }),
    ...(waiting === undefined ? {} : { mostWaiting: waiting }),
    onError: complain,
    ...(flags.has('log') ? { onRequest: tell } : {}),
  }
}

/** @param {string} source of a model @returns {string} its file's name without the extension */
function nameOf(source) {
  const [file = ''] = /[^/\\]*$/.exec(source.replace(/[?#].*$/, '')) ?? []
  return file.replace(/\.safetensors$/, '') || 'bimamba'
}

/** @param {AbortSignal} signal @returns {Promise<void>} */
function ended(signal) {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
