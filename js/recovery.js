/**
 * Work that is done again where what computed was lost.
 *
 * Owns how often: a GPU may be opened again once, and what follows is WebAssembly, which is not lost. Who replaces what computes is js/engine.js, and js/startup.js
 * while a model is loaded.
 */

/** @typedef {import('./generate.js').AnyModel} AnyModel */
/** After an error: the model that computes now, and to which all texts were moved; null: the error stands. @typedef {(error: unknown) => Promise<AnyModel | null>} Recover */

/** GPUs that may be lost: behind the last of them WebAssembly goes on. */
export const MOST_LOSSES = 2

/**
 * @template T
 * @param {Recover | undefined} recover
 * @param {(model: AnyModel | null) => T | Promise<T>} work  leaves everything as it was when it fails; model: what computes since the loss, null before
 * @returns {Promise<T>}
 */
export async function persist(recover, work) {
  /** @type {AnyModel | null} */
  let model = null
  for (let losses = 0; ; losses++) {
    try {
      return await work(model)
    } catch (error) {
      model = losses < MOST_LOSSES ? ((await recover?.(error)) ?? null) : null
      if (!model) throw error
    }
  }
}
