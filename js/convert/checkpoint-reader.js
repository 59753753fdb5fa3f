/**
 * Opens a checkpoint folder: which files hold weights, and all their tensors under one set of names.
 *
 * Owns the choice between safetensors and .bin, shards, the index files, and the prefixes that training wrappers
 * leave on names. Knows no tensor of the model.
 */

import { BmError } from '../errors.js'
import { parsePythonJson, readSmallFile } from './byte-source.js'
import { readSafetensorsFile } from './safetensors-file.js'
import { readTorchFile } from './torch-file.js'

/** @typedef {import('./byte-source.js').CheckpointFolder} CheckpointFolder */
/** @typedef {import('./stored-tensor.js').StoredTensor} StoredTensor */

const MAX_INDEX_BYTES = 16777216

/** What FSDP, DDP, DeepSpeed and torch.compile put before names, or inside them. */
const PREFIXES = [
  '_forward_module.',
  'module.',
  '_orig_mod.',
  '_fsdp_wrapped_module.',
  '_checkpoint_wrapped_module.',
]

/** Files of training programs that end in .bin and hold no weights. */
const NO_WEIGHTS = /^(training_args|optimizer|scheduler|scaler|random_states|rng_state).*\.bin$/

/**
 * @param {CheckpointFolder} folder
 * @returns {Promise<{ tensors: Map<string, StoredTensor>, files: string[] }>}
 * @throws {BmError} `checkpoint`
 */
export async function readCheckpoint(folder) {
  const { files, read } = await chooseFiles(folder)
  /** @type {Map<string, StoredTensor>} */
  const tensors = new Map()
  for (const file of files) {
    for (const tensor of await read(await folder.open(file))) {
      const name = stripPrefixes(tensor.name)
      const other = tensors.get(name)
      if (other) {
        const where = `in ${other.file} (as ${other.name}) and in ${file} (as ${tensor.name})`
        throw new BmError('checkpoint', `${folder.name}: tensor ${name} is there twice: ${where}`)
      }
      tensors.set(name, tensor)
    }
  }
  return { tensors, files }
}

/** @param {CheckpointFolder} folder */
async function chooseFiles(folder) {
  const safe = await listed(folder, 'model.safetensors', /\.safetensors$/)
  if (safe.length) return { files: safe, read: readSafetensorsFile }
  const named = folder.files.some((file) => /^pytorch_model.*\.bin$/.test(file))
  const pattern = named ? /^pytorch_model.*\.bin$/ : /\.bin$/
  const bin = (await listed(folder, 'pytorch_model.bin', pattern)).filter(
    (f) => !NO_WEIGHTS.test(f),
  )
  if (bin.length) return { files: bin, read: readTorchFile }
  const wanted = '*.safetensors or pytorch_model*.bin'
  throw new BmError('checkpoint', `${folder.name}: holds no weights, want ${wanted}`)
}

/**
 * The files that an index names, or the main file, or all that match.
 *
 * @param {CheckpointFolder} folder
 * @param {string} main
 * @param {RegExp} pattern
 */
async function listed(folder, main, pattern) {
  const index = `${main}.index.json`
  const bytes = await readSmallFile(folder, index, MAX_INDEX_BYTES)
  if (!bytes)
    return folder.files.includes(main) ? [main] : folder.files.filter((f) => pattern.test(f))
  const map = parsePythonJson(index, bytes).weight_map
  if (typeof map !== 'object' || map === null) {
    throw new BmError('checkpoint', `${index}: want an object weight_map`)
  }
  const names = [...new Set(Object.values(map))].sort()
  for (const name of names) {
    const shown = JSON.stringify(name)?.slice(0, 100)
    if (typeof name !== 'string' || !folder.files.includes(name)) {
      throw new BmError('checkpoint', `${index}: names ${shown}, which is no file of this folder`)
    }
  }
  return /** @type {string[]} */ (names)
}

/** @param {string} name */
function stripPrefixes(name) {
  let short = name
  for (let before = ''; before !== short; ) {
    before = short
    for (const prefix of PREFIXES) {
      if (short.startsWith(prefix)) short = short.slice(prefix.length)
      short = short.replace(`.${prefix}`, '.')
    }
  }
  return short
}
