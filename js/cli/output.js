/**
 * Writing to a terminal, a file or a pipe.
 *
 * Owns waiting for a slow reader, noticing one that has gone away, and what of a model's text a terminal may see. A model
 * can print any byte it likes, also the control sequences that retitle, recolour or reprogram a terminal.
 */

/** @typedef {import('node:stream').Writable & { isTTY?: boolean }} OutputStream */

/**
 * What a command is given instead of the process.
 *
 * @typedef {object} Io
 * @property {import('node:stream').Readable} stdin
 * @property {OutputStream} stdout
 * @property {OutputStream} stderr
 * @property {AbortSignal} signal  aborted by Ctrl-C, or when nobody reads stdout any more
 */

/**
 * @param {OutputStream} stream
 * @param {string} text
 * @param {AbortSignal} [signal] stops waiting; the text may then be lost
 */
export async function write(stream, text, signal) {
  if (signal?.aborted || stream.destroyed || stream.write(text)) return
  await new Promise((resolve) => {
    const done = () => {
      for (const event of ['drain', 'close', 'error']) stream.off(event, done)
      signal?.removeEventListener('abort', done)
      resolve(undefined)
    }
    for (const event of ['drain', 'close', 'error']) stream.on(event, done)
    signal?.addEventListener('abort', done)
  })
}

/** @param {string} text @returns {string} without C0 and C1 controls and DEL, except line feed and tab */
export function withoutControls(text) {
  return text.replace(/(?![\n\t])\p{Cc}/gu, '')
}
