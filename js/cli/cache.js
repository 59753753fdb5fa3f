/**
 * `bimamba cache`: what has been downloaded, and getting rid of it.
 *
 * Owns the listing. The work is `BiMamba.cache`'s.
 */

import { formatBytes } from '../byte-count.js'
import { BiMamba } from '../index.js'
import { COMMON_OPTIONS, UsageError } from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('./output.js').Io} Io */

export const USAGE = `
Usage: bimamba cache [options]

Lists the models in the cache, those used last first: \`bimamba pull\` and every --model URL put them there.`

export const OPTIONS = {
  delete: { value: 'URL|hf:NAME|IDENTITY', multiple: true, help: 'delete this one instead' },
  clear: { help: 'delete all of them instead' },
  json: { help: 'print one JSON object instead of text' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run({ flags, values }, io) {
  const names = values.get('delete') ?? []
  if (flags.has('clear') && names.length > 0) throw new UsageError('--clear and --delete: want one')
  if (flags.has('clear') || names.length > 0) {
    const freedBytes = names.length > 0 ? await deleteAll(names) : await BiMamba.cache.clear()
    const text = flags.has('json')
      ? JSON.stringify({ freedBytes })
      : `${formatBytes(freedBytes)} freed`
    await write(io.stdout, `${text}\n`)
    return 0
  }
  const models = await BiMamba.cache.list()
  const text = flags.has('json') ? `${JSON.stringify({ models }, null, 2)}\n` : listing(models)
  await write(io.stdout, withoutControls(text), io.signal)
  return 0
}

/** @param {string[]} names @returns {Promise<number>} bytes freed */
async function deleteAll(names) {
  let freed = 0
  for (const name of names) {
    const bytes = await BiMamba.cache.delete(name)
    if (bytes === 0) throw new UsageError(`--delete ${name}: it is not in the cache`)
    freed += bytes
  }
  return freed
}

/** @param {import('../model-cache.js').CachedModel[]} models */
function listing(models) {
  if (models.length === 0) return 'the cache is empty\n'
  const total = models.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  const lines = models.map(({ identity, urls, fileBytes, storedBytes, complete, usedAt }) => {
    const size = complete
      ? formatBytes(storedBytes)
      : `${formatBytes(storedBytes)} of ${fileBytes === null ? '?' : formatBytes(fileBytes)}`
    const used = usedAt ? usedAt.toISOString().slice(0, 10) : 'never'
    return `${identity.slice(0, 12)}  ${size.padEnd(20)}  used ${used}  ${urls.join(' ')}`
  })
  return `${lines.join('\n')}\n${formatBytes(total)} in all\n`
}
