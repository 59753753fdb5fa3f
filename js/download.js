/**
 * A packed file on a web server, with the copy of it that this device may have: header and chunks, each from where it is nearest.
 *
 * Owns the order of asking (the kept copy, then the server), and the lanes that work side by side: parallel ranges, or one stream of a
 * server that knows none. Knows nothing of tensors; js/remote-file.js and js/chunk-fetch.js fetch, js/stored-copy.js keeps what came.
 * The idea: nothing is believed but a chunk whose hash is right. So a kept copy may be damaged, a server may lie, a line may break
 * anywhere: a chunk that is not right is fetched again, and only that one.
 */

import { ChunkFetch } from './chunk-fetch.js'
import { ChunkMap } from './chunk-map.js'
import { BmError } from './errors.js'
import { readHeader } from './file-header.js'
import { MissingChunks } from './missing-chunks.js'
import { NoRanges } from './remote-file.js'
import { RequestFailure } from './retry.js'

/** @typedef {import('./format.js').PackedHeader} PackedHeader */
/** @typedef {import('./format.js').TensorTable} TensorTable */
/** @typedef {import('./load-meter.js').LoadMeter} LoadMeter */
/** @typedef {import('./remote-file.js').RemoteFile} RemoteFile */
/** @typedef {import('./stored-copy.js').StoredCopy} StoredCopy */

/**
 * @typedef {object} DownloadOptions
 * @property {'auto' | 'check' | 'only' | 'off'} cache
 * @property {string | null} identity  that the file must have
 * @property {number} streams          parallel ranges
 * @property {number} retries
 * @property {number} retryDelayMs
 * @property {boolean} [headerOnly]     nothing but the header is wanted
 */

/**
 * How a remote file came, and where it is kept.
 *
 * @typedef {object} CacheReport
 * @property {'disk' | 'opfs' | 'cache' | null} store  'opfs': the origin private file system; 'cache': the Cache API; null: only in memory
 * @property {number} cachedBytes     that were here already
 * @property {number} fetchedBytes    that came from the server, those that came twice counted twice
 * @property {number} repairedChunks  of 4 MiB, that were damaged here and have been fetched again
 * @property {string | null} note     for people: why the file is not kept, or an old copy was used
 */

/**
 * Takes a chunk that is right; its bytes are valid until it returns.
 * @typedef {(chunk: number, bytes: Uint8Array) => void | Promise<void>} TakeChunk
 */

/** The first request is for so much: a small file as a whole. */
const FIRST_BYTES = 4194304
/** And for so much where the chunks are here already: most headers as a whole. */
const HEADER_BYTES = 65536
export class Download {
  #file
  #copy
  #options
  #meter
  #signal
  /** The file may have changed since it was kept. */
  #distrust = false
  #cachedBytes = 0
  #repairedChunks = 0

  /**
   * @param {object} parts
   * @param {RemoteFile} parts.file
   * @param {StoredCopy} parts.copy
   * @param {DownloadOptions} parts.options
   * @param {LoadMeter} parts.meter
   * @param {AbortSignal | undefined} parts.signal
   */
  constructor({ file, copy, options, meter, signal }) {
    this.#file = file
    this.#copy = copy
    this.#options = options
    this.#meter = meter
    this.#signal = signal
  }

  get name() {
    return this.#file.name
  }

  /** @returns {CacheReport} */
  report() {
    return {
      store: this.#copy.kind,
      cachedBytes: this.#cachedBytes,
      fetchedBytes: this.#file.fetchedBytes,
      repairedChunks: this.#repairedChunks,
      note: this.#options.cache === 'off' ? null : this.#copy.note,
    }
  }

  /** After `FileChanged`: begin again with what the server has now. */
  async startAgain() {
    this.#distrust = true
    await this.#file.startAgain()
  }

  /**
   * @param {TensorTable} core
   * @returns {Promise<PackedHeader>}
   */
  async readHeader(core) {
    const { cache, identity } = this.#options
    const wanted = cache === 'off' ? null : (identity ?? (await this.#copy.lastIdentity()))
    const found = wanted !== null && (await this.#copy.find(wanted))
    if (found && cache !== 'check' && !this.#distrust) {
      const header = await this.#keptHeader(core, wanted)
      if (header) return header
    }
    if (cache === 'only') {
      throw new BmError(
        'storage',
        `${this.name}: it is not in the cache, and nothing else may be used`,
      )
    }
    try {
      const isEnough = found || this.#options.headerOnly === true
      const header = await this.#file.readHeader(core, isEnough ? HEADER_BYTES : FIRST_BYTES)
      this.#meter.begin(header.fileBytes, header.dataOffset)
      if (cache !== 'off') await this.#copy.find(header.identity)
      return header
    } catch (error) {
      const mayUseCopy = found && error instanceof RequestFailure
      const header = mayUseCopy && (await this.#keptHeader(core, wanted))
      if (!header || this.#lacksChunks(new ChunkMap(header))) throw error
      this.#copy.note = `the server could not be asked, and the kept copy is used: ${error.message}`
      return header
    }
  }

  /** @param {TensorTable} core @param {string} identity @returns {Promise<PackedHeader | null>} null: it is damaged */
  async #keptHeader(core, identity) {
    const first = async (/** @type {number} */ length) => {
      const bytes = new Uint8Array(length)
      return bytes.subarray(0, await this.#copy.read(0, bytes))
    }
    try {
      const { header, bytes } = await readHeader(this.name, core, first)
      if (header.identity !== identity) return null
      this.#file.headerBytes = bytes
      this.#cachedBytes = bytes.length
      this.#meter.begin(header.fileBytes, bytes.length, true)
      return header
    } catch (error) {
      if (error instanceof BmError && error.code === 'format') return null
      throw error
    }
  }

  /**
   * Gets every chunk and hands it on, in any order.
   *
   * @param {PackedHeader} header
   * @param {TakeChunk} take
   * @param {{ ordered: boolean }} options  ordered: from the first to the last
   */
  async readChunks(header, take, { ordered }) {
    const map = new ChunkMap(header)
    const missing = new MissingChunks(map.count)
    const job = { map, missing, take, lanes: ordered ? 1 : this.#options.streams }
    this.#meter.enter('load')
    try {
      const mayFinish = this.#copy.isUnsure && this.#options.cache !== 'only'
      if (mayFinish || this.#lacksChunks(map)) await this.#startKeeping(map)
      for (;;) {
        if (await this.#runLanes(job)) break
        this.#file.ranged = false
        missing.rewind()
      }
      await this.#copy.finish()
    } catch (error) {
      throw this.#withAdvice(error)
    } finally {
      await this.#file.closeOpening()
    }
  }

  /** @param {unknown} error @returns {unknown} a failure also says what to do */
  #withAdvice(error) {
    if (!(error instanceof RequestFailure) || this.#copy.kind === null) return error
    const message = `${error.message}: what has arrived is kept, load it again to go on from there`
    return new RequestFailure(message, { cause: error })
  }

  /** @typedef {{ map: ChunkMap, missing: MissingChunks, take: TakeChunk, lanes: number }} Job */

  /** @param {ChunkMap} map @returns {Promise<void>} the file may be complete afterwards: another tab may have been at it */
  async #startKeeping(map) {
    if (this.#options.cache === 'off') return
    if (this.#options.cache === 'only') throw this.#notComplete('it is not complete')
    const sizes = { fileBytes: map.fileBytes, chunkCount: map.count }
    const onWait = () => {
      this.#meter.enter('wait')
      void this.#file.closeOpening()
    }
    await this.#copy.startWriting(this.#file.headerBytes, sizes, { signal: this.#signal, onWait })
    this.#meter.enter('load')
  }

  /** @param {ChunkMap} map @returns {boolean} whether some chunk is certainly not on this device */
  #lacksChunks(map) {
    for (let chunk = 0; chunk < map.count; chunk++) if (!this.#mayHave(map, chunk)) return true
    return false
  }

  /** @param {ChunkMap} map @param {number} chunk @returns {boolean} false: it is certainly not on this device */
  #mayHave(map, chunk) {
    return this.#copy.mayHave(chunk, map.range(chunk).start)
  }

  /** @param {string} what */
  #notComplete(what) {
    return new BmError(
      'storage',
      `${this.name}: the copy in the cache cannot be used: ${what}, and nothing may be fetched`,
    )
  }

  /**
   * @param {Job} job
   * @returns {Promise<boolean>} false: the server turned out to know no ranges, and some chunks are still missing
   */
  async #runLanes(job) {
    const group = new AbortController()
    const onAbort = () => group.abort(this.#signal?.reason)
    this.#signal?.addEventListener('abort', onAbort)
    try {
      const lanes = Array.from({ length: this.#file.ranged ? job.lanes : 1 }, async () => {
        try {
          await this.#runLane(job, group.signal)
        } catch (error) {
          group.abort(error)
        }
      })
      await Promise.all(lanes)
    } finally {
      this.#signal?.removeEventListener('abort', onAbort)
    }
    this.#signal?.throwIfAborted()
    const { aborted, reason } = group.signal
    if (aborted && !(reason instanceof NoRanges)) throw reason
    return !aborted
  }

  /** One of the lanes that work side by side. @param {Job} job @param {AbortSignal} signal */
  async #runLane(job, signal) {
    const buffer = new Uint8Array(job.map.longest)
    for (;;) {
      signal.throwIfAborted()
      const chunk = job.missing.next()
      if (chunk === null) return
      if (this.#mayHave(job.map, chunk)) {
        if (await this.#readKept(job, chunk, buffer)) continue
        this.#repairedChunks++
        await this.#fetch(job, [chunk], buffer, signal)
        continue
      }
      const mayTake = (/** @type {number} */ other) => !this.#mayHave(job.map, other)
      // A request for each: so chunks, and with them layers, come nearly in order. Where there are no ranges, one for all.
      const span = this.#file.ranged ? 1 : job.map.count
      await this.#fetch(
        job,
        [chunk, ...job.missing.following(chunk, span - 1, mayTake)],
        buffer,
        signal,
      )
    }
  }

  /** @param {Job} job @param {number} chunk @param {Uint8Array<ArrayBuffer>} buffer @returns {Promise<boolean>} false: it is damaged */
  async #readKept({ map, missing, take }, chunk, buffer) {
    const { start, length } = map.range(chunk)
    const bytes = buffer.subarray(0, length)
    const isWhole = async () =>
      (await this.#copy.read(start, bytes)) === length && (await map.isRight(chunk, bytes))
    let isGood = await isWhole()
    if (!isGood) {
      if (this.#options.cache === 'only') throw this.#notComplete(`${map.name(chunk)} is damaged`)
      await this.#startKeeping(map)
      // Another tab may have mended it while this one waited for the lock.
      isGood = await isWhole()
    }
    if (!isGood) return false
    this.#cachedBytes += length
    this.#meter.addCached(length)
    await take(chunk, bytes)
    missing.done(chunk)
    return true
  }

  /** @param {Job} job @param {number[]} chunks ascending @param {Uint8Array<ArrayBuffer>} buffer @param {AbortSignal} signal */
  async #fetch({ map, missing, take }, chunks, buffer, signal) {
    const onBytes = (/** @type {number} */ count) => this.#meter.add(count)
    const onChunk = async (/** @type {number} */ chunk, /** @type {Uint8Array} */ bytes) => {
      await take(chunk, bytes)
      await this.#copy.write(chunk, map.range(chunk).start, bytes)
      missing.done(chunk)
    }
    await new ChunkFetch(this.#file, map, buffer, { onBytes, onChunk }, signal).run(chunks)
  }

  async close() {
    await this.#file.closeOpening()
    await this.#copy.close()
  }
}
