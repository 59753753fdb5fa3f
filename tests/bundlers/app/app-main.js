/**
 * An app as people write them with a bundler: it knows the package by its name.
 */

// @ts-expect-error: an app has it in its node_modules
import { BiMamba } from 'bimamba'

/** @param {{ url: string, inline: boolean }} options */
async function write({ url, inline }) {
  const model = await BiMamba.load(url, { inline, cache: 'off', threads: 2 })
  /** @param {import('../../../js/index.js').GenerateOptions} options */
  const text = async (options) => {
    let text = ''
    for await (const piece of model.generate('Once upon a time', options)) text += piece
    return text
  }
  const plain = await text({ maxTokens: 20, seed: 1 })
  const formed = await text({ format: { regex: 'yes|no' } })
  const { threads } = model.info
  await model.close()
  return { plain, formed, threads }
}

Object.assign(globalThis, { write })
