/**
 * One more thread of an engine: an instance of its module over its memory, that does tasks until it is sent home.
 *
 * Knows nothing of models: what a task is, the memory says (wasm/bm_pool.c). This file is an entry point, started by
 * js/team.js. While it works it handles no messages: it sleeps inside WebAssembly.
 */

import { connectToParent } from './platform.js'

/**
 * @typedef {object} Seat
 * @property {WebAssembly.Module} module
 * @property {WebAssembly.Memory} memory shared
 * @property {number} stack  top of this thread's own stack
 * @property {number} seat   1 and up: 0 is the engine's own thread
 */

const post = connectToParent((message) => join(/** @type {Seat} */ (message)))

/** @param {Seat} seat */
function join({ module, memory, stack, seat }) {
  const env = { memory, emscripten_notify_memory_growth: () => {} }
  const { exports } = new WebAssembly.Instance(module, { env })
  const call = (/** @type {string} */ name, /** @type {number[]} */ ...args) =>
    /** @type {(...args: number[]) => void} */ (exports[name])(...args)
  call('stackRestore', stack)
  post('ready')
  try {
    call('thread_join', seat)
  } catch (error) {
    // The engine's thread waits for this one's task: it must not wait for ever.
    call('thread_fail')
    throw error
  }
}
