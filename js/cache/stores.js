/**
 * Where downloaded model files are kept, and what a store promises.
 *
 * Owns the contract, and the list of stores that can be used here. Knows nothing about models: a file is an identity, a
 * header and chunks, and whether its bytes are right is asked elsewhere, whenever they are read.
 * The idea: because nothing is believed without its hash, a store need not be careful. The order of writes does not matter, nothing waits
 * for a flush, readers take no lock, and two writers of one file write the same bytes.
 */

import { BmError, reasonOf } from '../errors.js'
import { cacheFolder, fileSystem } from '../platform.js'
import { openDiskStore } from './disk-store.js'
import { openOpfsStore } from './opfs-store.js'
import { openWebCacheStore } from './web-cache-store.js'

/**
 * @typedef {object} Store
 * @property {'disk' | 'opfs' | 'cache'} kind
 * @property {boolean} writable  the origin private file system can be written to in a dedicated worker only
 * @property {(url: string) => Promise<string | null>} identityOf  what the URL was when it was last remembered
 * @property {(url: string, identity: string) => Promise<void>} remember
 * @property {(identity: string) => Promise<Entry | null>} open  for reading, also while others write; null: nothing is there
 * @property {(identity: string) => Promise<WritableEntry>} create  for reading and writing: makes it, or opens what is there. The caller has the lock
 * @property {(identity: string, control?: LockControl) => Promise<() => Promise<void>>} lock  of one writer among all tabs or processes; gives its
 *   release. It ends with the tab, thread or process that has it
 * @property {() => Promise<StoredModel[]>} list  what is damaged or not ours is left out
 * @property {(identity: string) => Promise<void>} remove  with the URLs that lead to it; `busy` when somebody writes to it
 */

/** @typedef {{ signal?: AbortSignal, onWait?: () => void }} LockControl  onWait: somebody else has it; called once */

/**
 * @typedef {object} Entry
 * @property {(start: number, target: Uint8Array) => Promise<number>} read  bytes read, fewer at the end or of what is gone. `start` is 0 (of the
 *   header, up to its end) or the start of a chunk (up to its end)
 * @property {(chunk: number, start: number) => boolean} mayHave  false: the chunk that starts there was never written, for certain
 * @property {boolean} complete  all of it was written
 * @property {() => Promise<void>} touch  it is used now
 * @property {() => Promise<void>} close
 */

/**
 * @typedef {object} Writing
 * @property {(bytes: Uint8Array, sizes: FileSizes) => Promise<void>} writeHeader
 * @property {(chunk: number, start: number, bytes: Uint8Array) => Promise<void>} writeChunk
 * @property {() => Promise<void>} finish  all of it is there
 */

/** @typedef {Entry & Writing} WritableEntry */

/** @typedef {{ fileBytes: number, chunkCount: number }} FileSizes */

/** @typedef {{ identity: string, urls: string[], fileBytes: number | null, storedBytes: number, complete: boolean, usedAt: number | null }} StoredModel usedAt: ms since 1970 */

/**
 * @param {{ folder?: string }} [options]  in Node, where to keep files; default: the user's cache folder
 * @returns {Promise<{ stores: Store[], refusals: string[] }>} the best first; and why others cannot be used, for people
 */
export async function openStores({ folder } = {}) {
  /** @type {Store[]} */
  const stores = []
  /** @type {string[]} */
  const refusals = []
  const attempts = fileSystem()
    ? [async () => openDiskStore(folder ?? cacheFolder())]
    : [openOpfsStore, openWebCacheStore]
  for (const attempt of attempts) {
    try {
      stores.push(await attempt())
    } catch (error) {
      refusals.push(error instanceof BmError ? error.message : reasonOf(error))
    }
  }
  return { stores, refusals }
}
