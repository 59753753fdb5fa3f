/**
 * One writer at a time among the tabs of an origin, by Web Locks.
 *
 * Owns the name of the lock. A tab or worker that ends lets go of it by itself. Where there are no Web Locks nobody waits: two writers write the same bytes.
 */

/** @typedef {import('./stores.js').LockControl} LockControl */

/**
 * @param {string} identity
 * @param {LockControl & { wait?: boolean }} [control]  wait: false gives null instead of waiting
 * @returns {Promise<(() => Promise<void>) | null>} the release
 */
export async function lockByName(identity, { signal, onWait, wait = true } = {}) {
  signal?.throwIfAborted()
  const locks = globalThis.navigator?.locks
  if (!locks) return async () => {}
  const name = `bimamba ${identity}`
  const atOnce = await request(locks, name, { ifAvailable: true })
  if (atOnce || !wait) return atOnce
  onWait?.()
  return request(locks, name, signal ? { signal } : {})
}

/**
 * @param {LockManager} locks
 * @param {string} name
 * @param {LockOptions} options
 * @returns {Promise<(() => Promise<void>) | null>}
 */
async function request(locks, name, options) {
  return new Promise((resolve, reject) => {
    const held = locks.request(name, options, async (lock) => {
      if (!lock) {
        resolve(null)
        return
      }
      await new Promise((done) => {
        resolve(async () => {
          done(undefined)
          await held
        })
      })
    })
    held.catch(reject)
  })
}
