/**
 * `bimamba/openai`: the calls of the `openai` client, computed in this process.
 *
 * Owns the names: `client.chat.completions.create`, `client.completions.create`, `client.models`. What they give is plain data in the form of OpenAI's API, or
 * for `stream: true` an async iterable of chunks.
 */

import { OpenAIError } from './openai-error.js'
import { Service } from './service.js'

export { OpenAIError }

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('./service.js').Answer} Answer */
/** @typedef {import('./openai-error.js').ErrorBody} ErrorBody */

/**
 * @typedef {object} InProcessClient
 * @property {{ completions: { create: Create } }} chat
 * @property {{ create: Create }} completions
 * @property {{ list: () => Promise<Answer>, retrieve: (name: string) => Promise<Answer> }} models
 * @property {() => Promise<void>} close  frees the sessions that are kept for later requests; the models stay the caller's
 */

/**
 * body: as OpenAI's API documents it. Gives the answer, or for `stream: true` its chunks; leaving their loop stops the work. It rejects with an `OpenAIError`,
 * or with the signal's reason.
 *
 * @typedef {(body: Record<string, unknown>, options?: { signal?: AbortSignal }) => Promise<Answer & AsyncIterable<Answer>>} Create
 */

/**
 * @param {BiMamba | Record<string, BiMamba>} models  one, or several by the names that requests have for them
 * @param {{ keptSessions?: number }} [options]  keptSessions: of earlier requests, kept for those that go on where they ended; default 4 for each model, 0: none
 * @returns {InProcessClient}
 */
export function createOpenAI(models, options = {}) {
  const service = new Service(isOne(models) ? { bimamba: models } : models, options)
  return {
    chat: { completions: { create: creator(service, 'chat') } },
    completions: { create: creator(service, 'text') },
    models: {
      list: async () => service.list(),
      retrieve: async (name) => service.retrieve(name),
    },
    close: () => service.close(),
  }
}

/** @param {BiMamba | Record<string, BiMamba>} models @returns {models is BiMamba} */
function isOne(models) {
  return typeof Object(models).createSession === 'function'
}

/** @param {Service} service @param {'text' | 'chat'} kind @returns {Create} */
function creator(service, kind) {
  return async (body, { signal } = {}) => {
    signal?.throwIfAborted()
    const { isStream, chunks, whole } = service.create(kind, body, signal)
    return /** @type {Answer & AsyncIterable<Answer>} */ (isStream ? chunks() : await whole())
  }
}
