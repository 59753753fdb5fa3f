/**
 * The child's end of the channel to subjects.js: one question, one answer.
 *
 * Owns the form of the messages. A question is `{ verb, value }`, an answer `{ value }` or `{ error }`.
 */

/** @typedef {{ shape: string, threads: number, file: string, modules: string }} SubjectOptions */

/**
 * What is measured: both take a number of tokens and give ms.
 * @typedef {{ prefill: (tokens: number) => number | Promise<number>, decode: (tokens: number) => number | Promise<number> }} Bench
 */

/** @param {(options: SubjectOptions) => Promise<Bench>} start */
export function answerParent(start) {
  /** @type {Bench | null} */
  let bench = null
  process.on('message', async (message) => {
    const { verb, value } =
      /** @type {{ verb: 'start' | 'prefill' | 'decode', value: SubjectOptions & number }} */ (
        message
      )
    try {
      if (verb === 'start') bench = await start(value)
      const answer = verb === 'start' ? 0 : await bench?.[verb](value)
      process.send?.({ value: answer })
    } catch (error) {
      process.send?.({ error: String(error) })
    }
  })
  process.on('disconnect', () => process.exit())
}
