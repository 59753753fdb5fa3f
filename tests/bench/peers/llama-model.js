/**
 * Opens a model in node-llama-cpp.
 *
 * Owns where that package lies and the few of its types that are used: it is no dependency of ours, so the compiler cannot know it.
 */

import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

/** @typedef {[number, { generateNext: { logits: true } }]} AskedToken */
/** @typedef {{ next: { logits?: Map<number, number> } }} TokenResult */

/**
 * @typedef {object} LlamaSequence
 * @property {() => Promise<void>} clearHistory
 * @property {(tokens: number[]) => Promise<void>} evaluateWithoutGeneratingNewTokens
 * @property {(tokens: number[], options: object) => AsyncGenerator<number, void, void>} evaluate
 * @property {(input: AskedToken[]) => Promise<(TokenResult | undefined)[]>} controlledEvaluate
 */

/** @typedef {{ getSequence: () => LlamaSequence, dispose: () => Promise<void> }} LlamaContext */
/** @typedef {{ createContext: (options: object) => Promise<LlamaContext>, dispose: () => Promise<void> }} LlamaModel */
/** @typedef {{ loadModel: (options: object) => Promise<LlamaModel>, llamaCppRelease: { release: string } }} Llama */

/**
 * @param {string} modules the folder node_modules that holds it
 * @param {string} file
 * @param {number} threads
 * @returns {Promise<{ model: LlamaModel, release: string }>} `release` of llama.cpp
 */
export async function openLlama(modules, file, threads) {
  const entry = pathToFileURL(join(modules, 'node-llama-cpp/dist/index.js')).href
  /** @type {{ getLlama: (options: object) => Promise<Llama> }} */
  const { getLlama } = await import(entry)
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    progressLogs: false,
    logLevel: 'error',
    maxThreads: threads,
  })
  const model = await llama.loadModel({ modelPath: file })
  return { model, release: llama.llamaCppRelease.release }
}
