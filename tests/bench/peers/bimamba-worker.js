/** Our engine in a worker of peer-page.js: one question, one answer, as in answer-parent.js. */

import { BimambaBench } from './bimamba-bench.js'

/** @type {BimambaBench | null} */
let bench = null

globalThis.onmessage = async ({ data: { verb, value } }) => {
  try {
    if (verb === 'start') bench = await BimambaBench.start(value)
    const answer = verb === 'start' ? 0 : bench?.[/** @type {'prefill' | 'decode'} */ (verb)](value)
    postMessage({ value: answer })
  } catch (error) {
    postMessage({ error: String(error) })
  }
}
