/**
 * Checkpoints to packed models, and packed models to GGUF, in Node and in browsers.
 *
 * Owns `convertCheckpoint` and `exportGgufFile`, the way for folders and files of Node. A page calls `packCheckpoint` with a
 * `blobFolder`, or `exportGguf` with a `blobSource`, and an Output of its own. Knows nothing of the command line.
 */

import { BmError } from '../errors.js'
import { exportGguf } from './gguf-export.js'
import { createOutput, isSameFile, openFile, openFolder, removeFile } from './node-files.js'
import { packCheckpoint } from './pack.js'

export { blobFolder, blobSource, bytesSource } from './byte-source.js'
export { exportGguf } from './gguf-export.js'
export { packCheckpoint } from './pack.js'

/** @typedef {import('./gguf-export.js').ExportSummary} ExportSummary */
/** @typedef {import('./node-files.js').Output} Output */
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

/** @param {string} out path of a GGUF file @returns {string} path of the adapter beside it */
function adapterPath(out) {
  return `${out.replace(/\.gguf$/i, '')}.lora.gguf`
}

/**
 * Writes a packed model as GGUF: `out`, and the adapter beside it when the model needs one. Both appear when both are
 * complete; on an error or an abort nothing is left behind and files that were there before stay. An adapter of an earlier
 * export that this one does not need is removed.
 *
 * @param {import('../format.js').TensorTable} core an engine, for its table of tensors
 * @param {string} path of the packed model
 * @param {string} out path of the GGUF file
 * @param {import('./gguf-export.js').ExportOptions} [options]
 * @returns {Promise<ExportSummary & { adapter: string | null }>} `adapter`: its path
 * @throws {import('../errors.js').BmError} `format`, `integrity`, `tokenizer`, `unsupported`, `argument`, `io`
 */
export async function exportGgufFile(core, path, out, options = {}) {
  const file = await openFile(path)
  if (await isSameFile(path, out)) {
    await file.close()
    throw new BmError('argument', `${out}: is the model itself, want another name for the output`)
  }
  /** @type {Output[]} */
  const outputs = []
  const create = async (/** @type {string} */ target) => {
    const output = await createOutput(target)
    outputs.push(output)
    return output
  }
  try {
    const model = () => create(out)
    const adapter = () => create(adapterPath(out))
    const summary = await exportGguf(core, file, { model, adapter }, options)
    for (const output of outputs) await output.commit()
    // One of an earlier export would be taken for this one's.
    if (!summary.adapterBytes) await removeFile(adapterPath(out))
    return { ...summary, adapter: summary.adapterBytes ? adapterPath(out) : null }
  } finally {
    for (const output of outputs) await output.abort()
    await file.close()
  }
}
