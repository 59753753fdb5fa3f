/**
 * One model opened in several ways, for tests that must pass with each.
 *
 * Owns the models: they are loaded before the tests of a file and closed behind them.
 */

import { after, before, test } from 'node:test'
import { BiMamba } from '../../../js/index.js'

/** @typedef {import('../../../js/index.js').LoadOptions} LoadOptions */

/** Where an engine can be. @type {unknown} */
const PLACES = { worker: {}, inline: { inline: true } }

/**
 * @template {string} [K='worker' | 'inline']
 * @param {() => URL | Promise<string>} findSource
 * @param {Record<K, LoadOptions>} [ways] by name; default: in a worker and inline
 */
export function openModels(findSource, ways = /** @type {Record<K, LoadOptions>} */ (PLACES)) {
  const names = /** @type {K[]} */ (Object.keys(ways))
  const models = /** @type {Record<K, BiMamba>} */ ({})
  before(async () => {
    const source = await findSource()
    for (const name of names) models[name] = await BiMamba.load(source, ways[name])
  })
  after(() => Promise.all(names.map((name) => models[name]?.close())))
  return {
    /** Filled before the first test. */
    models,
    /** A test with each of them. @param {string} what @param {(model: BiMamba) => Promise<void>} body */
    eachModel(what, body) {
      for (const name of names) test(`${name}: ${what}`, () => body(models[name]))
    },
  }
}
