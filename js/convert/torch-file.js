/**
 * Reads a `.bin` checkpoint: the zip file that torch.save writes, with a pickle that says where tensors are.
 *
 * Owns torch's names inside the zip and the search for the state_dict in nested dicts. Knows no model.
 */

import { BmError } from '../errors.js'
import { describeWrongFile } from '../wrong-file.js'
import { readPickle, TensorRef } from './pickle.js'
import { StoredTensor } from './stored-tensor.js'
import { openZipMember, readZipDirectory } from './zip.js'

/** @typedef {import('./byte-source.js').ByteSource} ByteSource */
/** @typedef {import('./zip.js').ZipMember} ZipMember */

const MAX_PICKLE_BYTES = 67108864
const DTYPE_BYTES = /** @type {Record<string, number>} */ ({
  F32: 4,
  F16: 2,
  BF16: 2,
  F64: 8,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
})

/** Keys under which training programs put the state_dict. */
const WRAPPERS = ['model', 'state_dict', 'module']

/**
 * @param {ByteSource} source
 * @returns {Promise<StoredTensor[]>}
 * @throws {BmError} `checkpoint`
 */
export async function readTorchFile(source) {
  await refuseOtherKinds(source)
  const members = new Map((await readZipDirectory(source)).map((member) => [member.name, member]))
  const pickles = [...members.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name))
  if (pickles.length !== 1) {
    throw new BmError('checkpoint', `${source.name}: ${pickles.length} entries */data.pkl, want 1`)
  }
  const root = String(pickles[0]).slice(0, -'data.pkl'.length)
  const order = await readMember(source, members.get(`${root}byteorder`), 16)
  if (order && new TextDecoder().decode(order).trim() !== 'little') {
    throw new BmError('checkpoint', `${source.name}: big-endian numbers, want little-endian`)
  }
  const pickle = await readMember(source, members.get(`${root}data.pkl`), MAX_PICKLE_BYTES)
  const value = readPickle(pickle ?? new Uint8Array(0), `${source.name}: data.pkl`)
  return [...stateDict(value, source.name)].map(([name, ref]) =>
    stored(source, members, root, name, ref),
  )
}

/** @param {ByteSource} source */
async function refuseOtherKinds(source) {
  const head = await source.read(0, Math.min(source.size, 512))
  if (head[0] === 0x80) {
    const what = 'an old torch.save pickle (before PyTorch 1.6), not a zip file'
    throw new BmError(
      'checkpoint',
      `${source.name}: ${what}: load it and save it again with PyTorch`,
    )
  }
  if (head[0] !== 0x50 || head[1] !== 0x4b) {
    const found = describeWrongFile(head)
    throw new BmError(
      'checkpoint',
      `${source.name}: want a torch.save zip file, it looks like ${found}`,
    )
  }
}

/** @param {ByteSource} source @param {ZipMember | undefined} member @param {number} maxBytes */
async function readMember(source, member, maxBytes) {
  if (!member) return null
  if (member.size > maxBytes) {
    const found = `${member.name} has ${member.size} bytes`
    throw new BmError('checkpoint', `${source.name}: ${found}, want at most ${maxBytes}`)
  }
  return (await openZipMember(source, member)).read(0, member.size)
}

/**
 * @param {unknown} value what the pickle holds
 * @param {string} file
 * @returns {Map<string, TensorRef>}
 */
function stateDict(value, file) {
  let dict = value
  for (let depth = 0; depth < 4 && dict instanceof Map; depth++) {
    const here = dict
    const tensors = [...here].filter(([, item]) => item instanceof TensorRef)
    const inner = WRAPPERS.find((key) => here.get(key) instanceof Map)
    if (inner === undefined && tensors.length > 0) {
      return new Map(tensors.map(([name, ref]) => [String(name), /** @type {TensorRef} */ (ref)]))
    }
    dict = inner === undefined ? null : here.get(inner)
  }
  throw new BmError(
    'checkpoint',
    `${file}: no dict of tensors, neither at the top nor under ${WRAPPERS.join(', ')}`,
  )
}

/**
 * @param {ByteSource} source
 * @param {Map<string, ZipMember>} members
 * @param {string} root
 * @param {string} name
 * @param {TensorRef} ref
 */
function stored(source, members, root, name, { storage, offset, shape, strides }) {
  const member = members.get(`${root}data/${storage.key}`)
  const wanted = storage.length * (DTYPE_BYTES[storage.dtype] ?? 0)
  if (!member || member.size !== wanted) {
    const found = member ? `${member.size} bytes` : 'no entry'
    throw new BmError(
      'checkpoint',
      `${source.name}: ${name}: ${found} for its storage, want ${wanted} bytes`,
    )
  }
  return new StoredTensor({
    name,
    file: source.name,
    dtype: storage.dtype,
    shape,
    strides,
    offset,
    storageKey: `${source.name}/${storage.key}`,
    openStorage: () => openZipMember(source, member),
  })
}
