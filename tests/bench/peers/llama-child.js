/**
 * Native llama.cpp (node-llama-cpp) in a process of its own, asked over its channel: the other end is subjects.js.
 *
 * Owns its settings: no GPU, one sequence, batches as long as the longest prompt, the prebuilt binary and nothing built or fetched.
 */

import { answerParent } from './answer-parent.js'
import { openLlama } from './llama-model.js'

const MOST_TOKENS = 512

answerParent(async ({ file, threads, modules }) => {
  const { model } = await openLlama(modules, file, threads)
  const context = await model.createContext({
    contextSize: 4 * MOST_TOKENS,
    batchSize: MOST_TOKENS,
    sequences: 1,
    threads,
  })
  const sequence = context.getSequence()
  let prompts = 0
  const bench = {
    /** @param {number} tokens */
    prefill: async (tokens) => {
      await sequence.clearHistory()
      prompts++
      const prompt = Array.from({ length: tokens }, (_, i) => 300 + ((i * 7919 + prompts) % 31000))
      const start = performance.now()
      await sequence.evaluateWithoutGeneratingNewTokens(prompt)
      return performance.now() - start
    },
    /** @param {number} tokens */
    decode: async (tokens) => {
      let made = 0
      const start = performance.now()
      for await (const _ of sequence.evaluate([500], { temperature: 0, yieldEogToken: true })) {
        if (++made === tokens) break
      }
      if (made !== tokens) throw new Error(`${made} tokens, want ${tokens}`)
      return performance.now() - start
    },
  }
  await bench.prefill(8)
  await bench.decode(2)
  return bench
})
