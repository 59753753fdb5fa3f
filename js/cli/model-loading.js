/**
 * Loads the model of a command, and shows how far it is.
 *
 * Owns the progress line and what is said about the cache, both on stderr.
 */

import { BiMamba } from '../index.js'
import { withoutControls, write } from './output.js'
import { createLoadProgress } from './progress.js'

/** @typedef {import('./output.js').Io} Io */

/**
 * @param {string} source
 * @param {import('../settings.js').LoadOptions} options
 * @param {Io} io
 * @returns {Promise<BiMamba>} the caller closes it
 */
export async function openModel(source, options, io) {
  const progress = createLoadProgress(io.stderr)
  try {
    const onProgress = progress.update
    const model = await BiMamba.load(source, { ...options, onProgress, signal: io.signal })
    progress.clear()
    await tellNote(model.info.cache, io)
    return model
  } finally {
    progress.clear()
  }
}

/** @param {import('../download.js').CacheReport | null} report @param {Io} io */
export async function tellNote(report, io) {
  if (report?.note) await write(io.stderr, `bimamba: ${withoutControls(report.note)}\n`)
  if (report?.repairedChunks) {
    const plural = report.repairedChunks > 1 ? 's' : ''
    const what = `${report.repairedChunks} damaged chunk${plural}`
    await write(io.stderr, `bimamba: ${what} of the file in the cache fetched again\n`)
  }
}
