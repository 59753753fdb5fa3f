/**
 * Checkpoints to packed models, in Node and in browsers.
 *
 * Owns `convertCheckpoint`, the way for folders and files of Node. A page calls `packCheckpoint` with a
 * `blobFolder` and an Output of its own. Knows nothing of the command line.
 */

import { createOutput, openFile, openFolder } from './node-files.js'
import { packCheckpoint } from './pack.js'

export { blobFolder, blobSource, bytesSource } from './byte-source.js'
export { packCheckpoint } from './pack.js'

/** @typedef {import('./pack.js').PackSummary} PackSummary */

/**
 * Packs a checkpoint folder into one file. The file appears when it is complete; on an error or an abort nothing
 * is left behind and a file that was there before stays.
 *
 * @param {import('../format.js').TensorTable} core an engine, for its table of tensors
 * @param {string} folder path of the checkpoint
 * @param {string} out path of the packed model
 * @param {Omit<import('./pack.js').PackOptions, 'tokenizer'> & { tokenizer?: string }} [options] `tokenizer`: a path
 * @returns {Promise<PackSummary>}
 * @throws {import('../errors.js').BmError} `checkpoint`, `config`, `tokenizer`, `argument`, `io`
 */
export async function convertCheckpoint(core, folder, out, options = {}) {
  const { tokenizer, ...rest } = options
  const opened = await openFolder(folder)
  let file = null
  let output = null
  try {
    file = tokenizer === undefined ? null : await openFile(tokenizer)
    output = await createOutput(out)
    const summary = await packCheckpoint(core, opened, output, { ...rest, tokenizer: file })
    await output.commit()
    return summary
  } finally {
    await output?.abort()
    await file?.close()
    await opened.close()
  }
}
