/**
 * `bimamba pull`: downloads a model for later.
 *
 * Owns the command's options and its one line of result. Downloading is `BiMamba.cache.add`.
 */

import { formatBytes } from '../byte-count.js'
import { BiMamba } from '../index.js'
import { tellNote } from './model-loading.js'
import { COMMON_OPTIONS, readCache, UsageError } from './options.js'
import { withoutControls, write } from './output.js'
import { createLoadProgress } from './progress.js'

/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba pull [options] URL|hf:OWNER/REPO[@REVISION][/FILE]

Downloads a packed model into the cache, or what of it is missing or damaged there. Every chunk is compared with its
SHA-256. An interrupted pull goes on where it was.`

export const ARGUMENTS = ['URL|hf:OWNER/REPO']

export const OPTIONS = {
  cache: {
    value: 'auto|check|only',
    help: 'as for generate; only: do not fetch, but check what is there',
  },
  identity: { value: 'HEX', help: 'that the file must have, as bimamba inspect shows it' },
  header: { value: 'NAME:TEXT', multiple: true, help: 'to send (may be repeated)' },
  json: { help: 'print one JSON object instead of a line' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run(parsed, io) {
  const { flags, values, positionals } = parsed
  const [source = ''] = positionals
  const cache = readCache(parsed)
  if (cache === 'off') throw new UsageError('--cache off: then there is nothing to pull into')
  const identity = values.get('identity')?.[0]
  const progress = createLoadProgress(io.stderr)
  try {
    const pulled = await BiMamba.cache.add(source, {
      cache,
      ...(identity === undefined ? {} : { identity }),
      headers: Object.fromEntries((values.get('header') ?? []).map(readHeader)),
      onProgress: progress.update,
      signal: io.signal,
    })
    progress.clear()
    await tellNote(pulled.cache, io)
    const text = flags.has('json') ? JSON.stringify(pulled) : lineOf(source, pulled)
    await write(io.stdout, `${withoutControls(text)}\n`, io.signal)
    return pulled.cache?.store ? 0 : 1
  } finally {
    progress.clear()
  }
}

/** @param {string} text @returns {[string, string]} */
function readHeader(text) {
  const [, name, value] = /^([^:\s]+):\s*(.*)$/.exec(text) ?? []
  if (name === undefined || value === undefined) {
    throw new UsageError(`--header is '${text}', want NAME:TEXT`)
  }
  return [name, value]
}

/** @param {string} source @param {import('../startup.js').Pulled} pulled */
function lineOf(source, { identity, fileBytes, cache }) {
  const fetched = cache?.fetchedBytes
    ? `${formatBytes(cache.fetchedBytes)} fetched`
    : 'all of it was there'
  return `${source}: ${formatBytes(fileBytes)}, ${fetched}, identity ${identity}`
}
