/**
 * Streams to their ends.
 *
 * Owns nothing; tests of models and sessions share it.
 */

/** @template T @param {AsyncIterable<T>} items @returns {Promise<T[]>} */
export async function collect(items) {
  const list = []
  for await (const item of items) list.push(item)
  return list
}

/** @param {AsyncGenerator<string, unknown, void>} pieces @returns {Promise<string>} */
export async function join(pieces) {
  return (await collect(pieces)).join('')
}
