/**
 * The trained model that is shipped, and text it writes itself.
 *
 * Owns where it is (BIMAMBA_MODEL names another packed model) and how a text for measurements is drawn: at
 * temperature 1 in `exact`, so that it is the model's own distribution and no text has to be stored.
 */

import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const TRAINED =
  process.env.BIMAMBA_MODEL ??
  fileURLToPath(new URL('../../../models/tales/tales.safetensors', import.meta.url))

/** @returns {false | string} why tests of the trained model are skipped, as node:test wants it */
export function missingTrained() {
  return existsSync(TRAINED) ? false : `no model at ${TRAINED}`
}

/**
 * @param {import('../../../js/core-model.js').CoreModel} model
 * @param {import('../../../js/format.js').PackedHeader} header
 * @param {{ seed: number, maxTokens: number }} options
 * @returns {number[]} ids, BOS first (id 1 for a model without one), up to EOS
 */
export function writtenText(model, { bosId, eosIds }, { seed, maxTokens }) {
  const session = model.createSession({ precision: 'exact', state: 'f32', maxChunk: 1 })
  const sampler = session.createSampler({
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    repetitionWindow: 0,
    seed,
  })
  const text = [bosId ?? 1]
  session.append(text)
  while (text.length < maxTokens) {
    const id = sampler.sample()
    if (eosIds.includes(id)) break
    text.push(id)
    session.append([id])
  }
  sampler.close()
  session.close()
  return text
}
