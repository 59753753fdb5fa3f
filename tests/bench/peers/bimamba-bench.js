/**
 * Our engine on a random model, one measurement at a time; the same in a process of Node and in a worker of a page.
 *
 * Owns the order of calls that a generation makes: prompts in the package's own chunks, then a token, its logits and the likeliest
 * next one. Everything is as `BiMamba.load` has it by default, but that the number of threads is given, and the kernels are the look-up tables.
 */

import { randomModel, syntheticConfig } from '../../../js/bench/synthetic-model.js'
import { Core } from '../../../js/core.js'

/** Tokens before the first measurement: the engine's optimising compiler and the choice of threads need them. */
const WARM_UP = 96

/** The sampler takes the likeliest token, as every subject does. */
const GREEDY = {
  repetitionPenalty: 1,
  repetitionWindow: 0,
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  seed: 0,
}

export class BimambaBench {
  /** @param {Core} core @param {import('../../../js/core-session.js').CoreSession} session */
  constructor(core, session) {
    this.core = core
    this.session = session
    this.sampler = session.createSampler(GREEDY)
  }

  /**
   * @param {{ shape: string, threads: number }} options
   * @returns {Promise<BimambaBench>} warm
   */
  static async start({ shape, threads }) {
    const core = await Core.create({ shared: threads > 1 })
    await core.startTeam(threads)
    const model = await randomModel(core, syntheticConfig(shape))
    const bench = new BimambaBench(core, model.createSession())
    bench.decode(WARM_UP / 2)
    bench.prefill(WARM_UP / 2)
    return bench
  }

  /** @param {number} tokens @returns {number} ms */
  prefill(tokens) {
    const prompt = Array.from({ length: tokens }, (_, i) => (i * 7919) % 32000)
    const { session } = this
    session.reset()
    const start = performance.now()
    for (let i = 0; i < tokens; i += session.maxChunk) {
      session.append(prompt.slice(i, i + session.maxChunk))
    }
    session.logits()
    return performance.now() - start
  }

  /** @param {number} tokens @returns {number} ms */
  decode(tokens) {
    let id = 1
    const start = performance.now()
    for (let i = 0; i < tokens; i++) {
      this.session.append([id])
      id = this.sampler.sample()
    }
    return performance.now() - start
  }
}
