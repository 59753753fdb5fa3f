/**
 * Loads a packed model: chunks that are right go straight into the engine's memory.
 *
 * Owns the order of things (header, then memory for all of it, then chunks in any order) and when a part of the model is complete: it
 * is sealed then, and whoever waits for it is told. Does not know where chunks come from (js/local-file.js, js/download.js), what
 * the header means (js/format.js) or what the tensors are for.
 * The idea: a chunk is handed on as soon as its hash is right, and there is never a second whole copy: a buffer of a chunk for each
 * lane is all the memory this needs beside the engine's.
 */

import { BmError } from './errors.js'
import { withName } from './file-header.js'

/** @typedef {import('./source-opening.js').ModelFile} ModelFile */
/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./format.js').PackedTensor} PackedTensor */
/** @typedef {import('./core.js').Core} Core */
/** @typedef {import('./core-model.js').CoreModel} CoreModel */
/** @typedef {import('./gpu/gpu-model.js').GpuModel} GpuModel */

/**
 * What happens on the way; each is called once, and an error thrown in it ends the load.
 *
 * @template {CoreModel | GpuModel} M
 * @typedef {object} LoadEvents
 * @property {(model: M, header: PackedHeader) => void | Promise<void>} [onModel]  the memory is there, no weight yet. When it throws, the caller ends what the
 *   file does
 * @property {(json: string) => void} [onTokenizer]
 * @property {(part: number) => void} [onPart]  it is complete and sealed
 */

/**
 * @param {Core} core
 * @param {ModelFile} file  the caller closes it
 * @template {CoreModel | GpuModel} [M=CoreModel]
 * @param {object} [options]
 * @param {((header: PackedHeader) => M | Promise<M>) | undefined} [options.modelFor] makes what takes the weights; default: a model of the core. When a promise of it rejects,
 *   the caller ends what the file does, or waits for a chunk
 * @param {import('./core.js').HeadChoice | undefined} [options.head]
 * @param {LoadEvents<M>} [events]
 * @returns {Promise<{ model: M, header: PackedHeader }>} the caller closes the model
 * @throws {BmError} `network`, `io`, `format`, `integrity`, `memory`, `config`, `storage`, `tokenizer`, `unsupported`
 */
export async function loadModel(core, file, { modelFor, head } = {}, events = {}) {
  const header = await readModelHeader(core, file)
  // The core has its memory at once, or nothing is fetched; a GPU gets ready while the first chunks are on their way.
  const made = modelFor ? modelFor(header) : core.createModel(header.config, { head })
  const making = Promise.resolve(/** @type {M | Promise<M>} */ (made))
  const writer = making.then((model) => new TensorWriter(file.name, header, model, events))
  writer.catch(() => {}) // who made the model hears of it, or whoever has a chunk for it
  // A head that becomes int4 on its way must come in order.
  const ordered = head === 'int4' && !header.config.tie_embeddings
  const take = async (/** @type {number} */ chunk, /** @type {Uint8Array} */ bytes) =>
    (await writer).write(chunk * header.chunkBytes, bytes)
  const reading = file.readChunks(header, take, { ordered })
  reading.catch(() => {}) // it is awaited below, unless something else fails before
  try {
    const model = await making
    await events.onModel?.(model, header)
    await reading
    return { model, header }
  } catch (error) {
    // Without a model, the first chunk ends the reading.
    await making.then(
      (model) => model.close(),
      () => reading.catch(() => {}),
    )
    throw error
  }
}

/** Only checks a file, and so fills the cache with it. @param {Core} core @param {ModelFile} file @returns {Promise<PackedHeader>} */
export async function pullFile(core, file) {
  const header = await readModelHeader(core, file)
  await file.readChunks(header, () => {}, { ordered: false })
  return header
}

/** @param {Core} core @param {ModelFile} file @returns {Promise<PackedHeader>} */
export async function readModelHeader(core, file) {
  if (!globalThis.crypto?.subtle) {
    throw new BmError(
      'unsupported',
      'crypto.subtle is missing: checking a model needs a secure context (https: or localhost)',
    )
  }
  return file.readHeader(core)
}

/** Hands each byte of the data section to the tensor it belongs to, and seals a part when it is complete. */
class TensorWriter {
  #name
  #tensors
  #model
  #events
  /** @type {Map<number, number>} bytes still missing by part */
  #missing = new Map()
  /** @type {Uint8Array<ArrayBuffer>} of the tokenizer */
  #tokenizer = new Uint8Array(0)

  /** @param {string} name of the file @param {PackedHeader} header @param {CoreModel | GpuModel} model @param {Pick<LoadEvents<CoreModel | GpuModel>, 'onTokenizer' | 'onPart'>} events */
  constructor(name, { tensors }, model, events) {
    this.#name = name
    this.#tensors = tensors
    this.#model = model
    this.#events = events
    for (const { index, part, sizeBytes } of tensors) {
      if (index < 0) this.#tokenizer = new Uint8Array(sizeBytes)
      this.#missing.set(part, (this.#missing.get(part) ?? 0) + sizeBytes)
    }
  }

  /**
   * @param {number} start of the bytes in the data section; calls come in any order, each byte once
   * @param {Uint8Array} bytes
   */
  write(start, bytes) {
    let next = this.#tensorAt(start)
    for (let done = 0; done < bytes.length; next++) {
      const tensor = this.#tensors[next]
      if (!tensor) throw new BmError('internal', 'the data section is longer than its tensors')
      const inTensor = start + done - tensor.offset
      const count = Math.min(bytes.length - done, tensor.sizeBytes - inTensor)
      this.#put(tensor, inTensor, bytes.subarray(done, done + count))
      done += count
    }
  }

  /** @param {number} position in the data section @returns {number} index of the tensor that has it */
  #tensorAt(position) {
    let [low, high] = [0, this.#tensors.length - 1]
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      if (Number(this.#tensors[middle]?.offset) <= position) low = middle
      else high = middle - 1
    }
    return low
  }

  /** @param {PackedTensor} tensor @param {number} offset @param {Uint8Array} bytes */
  #put({ index, part }, offset, bytes) {
    if (index < 0) this.#tokenizer.set(bytes, offset)
    else this.#model.write(index, offset, bytes)
    const missing = Number(this.#missing.get(part)) - bytes.length
    this.#missing.set(part, missing)
    if (missing > 0) return
    if (index < 0) this.#events.onTokenizer?.(decodeTokenizer(this.#name, this.#tokenizer))
    else this.#seal(part)
  }

  /** @param {number} part */
  #seal(part) {
    try {
      this.#model.seal(part)
    } catch (error) {
      throw withName(this.#name, error)
    }
    this.#events.onPart?.(part)
  }
}

/** @param {string} name @param {Uint8Array} bytes @returns {string} */
function decodeTokenizer(name, bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new BmError('tokenizer', `${name}: the tokenizer is not UTF-8`, { cause })
  }
}
