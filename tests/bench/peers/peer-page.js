/**
 * The page in which an engine is measured: `startBench` and then `bench` are called by subjects.js.
 *
 * Owns the two engines' ways to start: ours in a worker, since a page itself may not wait for threads; wllama makes its own.
 */

/** @typedef {import('./answer-parent.js').Bench} Bench */

/**
 * What is used of wllama, which is no dependency of ours.
 * @typedef {{ timings: { prompt_n: number, prompt_ms: number, predicted_n: number, predicted_ms: number } }} Completion
 */
/** @typedef {{ loadModel: (blobs: Blob[], options: object) => Promise<void>, createCompletion: (options: object) => Promise<Completion> }} Wllama */

/** @param {{ shape: string, threads: number }} options @returns {Promise<Bench>} */
async function startBimamba(options) {
  const worker = new Worker(new URL('bimamba-worker.js', import.meta.url), { type: 'module' })
  const ask = (/** @type {string} */ verb, /** @type {unknown} */ value) =>
    new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) =>
        data.error === undefined ? resolve(data.value) : reject(new Error(data.error))
      worker.onerror = ({ message }) => reject(new Error(message))
      worker.postMessage({ verb, value })
    })
  await ask('start', options)
  return {
    prefill: (tokens) => /** @type {Promise<number>} */ (ask('prefill', tokens)),
    decode: (tokens) => /** @type {Promise<number>} */ (ask('decode', tokens)),
  }
}

/** @param {{ threads: number, file: string }} options `file`: its address @returns {Promise<Bench>} */
async function startWllama({ threads, file }) {
  const entry = new URL('/wllama/esm/index.js', location.href).href
  const { Wllama, LoggerWithoutDebug } = await import(entry)
  const wasm = new URL('/wllama/esm/wasm/wllama.wasm', location.href).href
  /** @type {Wllama} */
  const wllama = new Wllama(
    { default: wasm },
    { suppressNativeLog: true, logger: LoggerWithoutDebug },
  )
  const blob = await (await fetch(file)).blob()
  // One sequence instead of four: its state is not small. No warm-up: it has its own below.
  await wllama.loadModel([blob], { n_threads: threads, n_ctx: 1024, n_parallel: 1, warmup: false })
  /** @param {number} promptTokens 3 or more @param {number} tokens */
  const complete = async (promptTokens, tokens) => {
    // It takes no ids. The text becomes BOS, a space, and then a token for each digit.
    const digits = Array.from({ length: promptTokens - 2 }, (_, i) => (i * 7) % 10)
    const { timings } = await wllama.createCompletion({
      prompt: digits.join(''),
      max_tokens: tokens,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: false,
    })
    if (timings.prompt_n !== promptTokens || timings.predicted_n !== tokens) {
      throw new Error(`wllama took ${timings.prompt_n} and made ${timings.predicted_n} tokens`)
    }
    return timings
  }
  await complete(3, 2)
  return {
    prefill: async (tokens) => (await complete(tokens, 1)).prompt_ms,
    // Its clock starts at the first token, which the prompt has paid for.
    decode: async (tokens) => (await complete(3, tokens + 1)).predicted_ms,
  }
}

Object.assign(globalThis, {
  /** @param {'bimamba' | 'wllama'} engine @param {{ shape: string, threads: number, file: string }} options */
  startBench: async (engine, options) => {
    if (!crossOriginIsolated) throw new Error('the page is not cross-origin isolated')
    const start = engine === 'bimamba' ? startBimamba : startWllama
    Object.assign(globalThis, { bench: await start(options) })
  },
})
