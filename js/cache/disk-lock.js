/**
 * One writer at a time among threads and processes, by a file.
 *
 * Owns the lock file and its heartbeat. Does not know what is locked.
 * The idea: the file is made so that only one can make it. Its age says whether the holder still lives: a thread that was ended cannot
 * take its file away. To be wrong about that costs a second download, nothing more.
 */

import { fileSystem, joinPath } from '../platform.js'

/** @typedef {import('./stores.js').LockControl} LockControl */

const HEARTBEAT_MS = 1000
/** A file whose time is further away than this has no living holder, ms. */
const STALE_MS = 5000
const LOOK_MS = 200

/**
 * @param {string} path of the lock file; its folder is made where there is none: who has the lock may delete it with the folder
 * @param {LockControl & { wait?: boolean }} [control]  wait: false gives null instead of waiting
 * @returns {Promise<(() => Promise<void>) | null>} the release
 */
export async function lockFile(path, { signal, onWait, wait = true } = {}) {
  const token = crypto.randomUUID()
  let waits = false
  for (;;) {
    signal?.throwIfAborted()
    if (await makeFile(path, token)) return holdFile(path, token)
    if (await isStale(path)) {
      await removeFile(path)
      continue
    }
    if (!wait) return null
    if (!waits) onWait?.()
    waits = true
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS * (0.5 + Math.random())))
  }
}

function files() {
  return /** @type {NonNullable<ReturnType<typeof fileSystem>>} */ (fileSystem())
}

/** @param {string} path @param {string} token @returns {Promise<boolean>} false: it is there already */
async function makeFile(path, token) {
  await files().mkdir(joinPath(path, '..'), { recursive: true })
  const file = await files()
    .open(path, 'wx')
    .catch((error) => {
      if (Object(error).code === 'EEXIST') return null
      throw error
    })
  if (!file) return false
  try {
    await file.writeFile(token)
    return true
  } catch (error) {
    // On a full disk there is room for its name. Left there, it would be waited for.
    await removeFile(path)
    throw error
  } finally {
    await file.close()
  }
}

/** @param {string} path */
async function isStale(path) {
  const stat = await files()
    .stat(path)
    .catch(() => null)
  // Nor has one from the future: the clock was set back since, and would have to catch up first.
  return stat !== null && Math.abs(Date.now() - stat.mtimeMs) > STALE_MS
}

/** @param {string} path */
async function removeFile(path) {
  await files().rm(path, { force: true })
}

/** @param {string} path @param {string} token @returns {() => Promise<void>} */
function holdFile(path, token) {
  const beat = setInterval(async () => {
    const now = new Date()
    await files()
      .utimes(path, now, now)
      .catch(() => {})
  }, HEARTBEAT_MS)
  // In a page's types a timer is a number.
  const timer = /** @type {{ unref?: () => void }} */ (/** @type {unknown} */ (beat))
  timer.unref?.()
  return async () => {
    clearInterval(beat)
    const holder = await files()
      .readFile(path, 'utf8')
      .catch(() => '')
    if (holder === token) await removeFile(path)
  }
}
