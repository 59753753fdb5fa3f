/**
 * The files that are kept on this device: `BiMamba.cache`.
 *
 * Owns what a program may ask about them. Does not know how a store works (js/cache/), and does not download by itself: `add` starts an
 * engine's thread that does.
 */

import { BmError } from './errors.js'
import { absoluteUrl, askToPersist } from './platform.js'
import { RemoteEngine } from './remote.js'
import { checkNames, checkPull } from './settings.js'
import { describeSource } from './source.js'

/** @typedef {import('./settings.js').FetchSettings} FetchSettings */
/** @typedef {import('./source.js').ModelSource} ModelSource */

/**
 * A kept file.
 *
 * @typedef {object} CachedModel
 * @property {string} identity          as `info.identity`
 * @property {string[]} urls            it was fetched from
 * @property {'disk' | 'opfs' | 'cache'} store
 * @property {number | null} fileBytes  of the whole file; null when that is not known
 * @property {number} storedBytes       of them that are here
 * @property {boolean} complete         all of it was here and right when it was kept; it is checked again whenever it is loaded
 * @property {Date | null} usedAt       when it was last loaded
 */

/** @typedef {{ cacheFolder?: string }} CacheOptions  in Node, another folder than the default one */

export class ModelCache {
  /** @param {CacheOptions} [options] @returns {Promise<CachedModel[]>} those used last first */
  async list(options = {}) {
    const stores = await open(options, 'cache.list')
    const lists = await Promise.all(
      stores.map(async (store) => {
        const models = await store.list()
        return models.map(({ usedAt, ...model }) => ({
          ...model,
          store: store.kind,
          usedAt: usedAt === null ? null : new Date(usedAt),
        }))
      }),
    )
    return lists.flat().sort((a, b) => Number(b.usedAt) - Number(a.usedAt))
  }

  /** @param {CacheOptions} [options] @returns {Promise<number>} bytes that all of them take together */
  async size(options = {}) {
    const models = await this.list(options)
    return models.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  }

  /**
   * Deletes a file. A model that was loaded from it goes on working.
   *
   * @param {string | URL} model  its identity, or the URL or hf: name that it was fetched from
   * @param {CacheOptions} [options]
   * @returns {Promise<number>} bytes freed; 0 when it was not there
   * @throws {BmError} `busy` while it is being downloaded, `argument`, `storage`
   */
  async delete(model, options = {}) {
    const wanted = identityOrUrl(model)
    let freed = 0
    for (const store of await open(options, 'cache.delete')) {
      for (const { identity, urls, storedBytes } of await store.list()) {
        if (identity !== wanted && !urls.includes(wanted)) continue
        await store.remove(identity)
        freed += storedBytes
      }
    }
    return freed
  }

  /**
   * Deletes all files.
   * @param {CacheOptions} [options]
   * @returns {Promise<number>} bytes freed
   * @throws {BmError} as `delete` does; what could be deleted is then gone
   */
  async clear(options = {}) {
    let freed = 0
    /** @type {unknown} */
    let failure = null
    for (const { identity } of await this.list(options)) {
      try {
        freed += await this.delete(identity, options)
      } catch (error) {
        failure ??= error
      }
    }
    if (failure !== null) throw failure
    return freed
  }

  /**
   * Fetches a file for later, or what of it is missing or damaged, without making a model of it.
   *
   * @param {string | URL} source  a URL or hf: name
   * @param {FetchSettings & { inline?: boolean, workerUrl?: string | URL, wasmUrl?: string | URL }} [options]
   * @returns {Promise<import('./startup.js').Pulled>} what came, and where it is kept
   * @throws {BmError} as `BiMamba.load` does
   */
  async add(source, options = {}) {
    const download = checkPull(options)
    const { inline, workerUrl, wasmUrl, onProgress, signal, fetch } = options
    const descriptor = describeSource(source, fetch)
    if (descriptor.kind !== 'http') {
      throw new BmError(
        'argument',
        `cache.add: ${source} is not on a server: want an http: or https: URL`,
      )
    }
    const request = {
      download,
      ...(wasmUrl === undefined ? {} : { wasmUrl: absoluteUrl(wasmUrl) }),
    }
    const pulled = inline
      ? await (await import('./startup.js')).pullModel(descriptor, request, { onProgress, signal })
      : /** @type {import('./startup.js').Pulled} */ (
          await RemoteEngine.once(
            { kind: 'pull', source: descriptor, options: request },
            {
              workerUrl: workerUrl === undefined ? undefined : absoluteUrl(workerUrl),
              onProgress,
              signal,
            },
          )
        )
    if (pulled.cache?.store) askToPersist()
    return pulled
  }

  /**
   * How much room there is, as far as the browser says.
   *
   * @returns {Promise<{ usedBytes: number | null, quotaBytes: number | null, persisted: boolean | null }>} of the whole origin; persisted:
   *   whether the browser promised not to delete it by itself. All null in Node
   */
  async room() {
    const storage = globalThis.navigator?.storage
    const estimate = await storage?.estimate?.()
    return {
      usedBytes: estimate?.usage ?? null,
      quotaBytes: estimate?.quota ?? null,
      persisted: (await storage?.persisted?.()) ?? null,
    }
  }
}

/** @param {CacheOptions} options @param {string} where */
async function open(options, where) {
  checkNames(options, ['cacheFolder'], where)
  const { openStores } = await import('./cache/stores.js')
  const { stores } = await openStores(
    options.cacheFolder === undefined ? {} : { folder: options.cacheFolder },
  )
  return stores
}

/** @param {string | URL} model */
function identityOrUrl(model) {
  if (typeof model === 'string' && /^[0-9a-f]{64}$/.test(model)) return model
  const descriptor = describeSource(model)
  if (descriptor.kind === 'http') return descriptor.url
  throw new BmError('argument', `${model}: want an identity, or the URL that the file came from`)
}
