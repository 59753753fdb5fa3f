/**
 * What a URL led to: a record of its own for each, so that one that is damaged takes no other along.
 *
 * Owns its form and its name. Does not know where it is stored.
 */

/** @typedef {{ url: string, identity: string }} UrlRecord */

/** @param {string} url @returns {Promise<string>} a name for any file system: its SHA-256 in hex */
export async function urlKey(url) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(url))
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** @param {unknown} value @returns {value is UrlRecord} */
export function isUrlRecord(value) {
  const { url, identity } = /** @type {Record<string, unknown>} */ (Object(value))
  return typeof url === 'string' && typeof identity === 'string' && /^[0-9a-f]{64}$/.test(identity)
}
