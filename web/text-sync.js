/**
 * Makes a session's text what a person has written.
 *
 * Owns finding how much of what was read can stay: the state goes back to the last token before the first change, and reads from there. Knows no page.
 */

/** @typedef {import('../js/index.js').Session} Session */

/** A word that goes on is read anew from its beginning, as long as that is not further back than so many tokens. */
const LONGEST_WORD = 16

/**
 * @param {Session} session
 * @param {string} wanted
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>} its text is `wanted` then; when it is aborted, a beginning of that
 */
export async function syncText(session, wanted, signal) {
  const control = signal ? { signal } : {}
  const kept = await keptTokens(session, wanted)
  if (kept < session.position) await session.rewind(kept, control)
  const rest = wanted.slice((await session.text()).length)
  if (rest !== '') await session.append(rest, control)
}

/** @param {Session} session @param {string} wanted @returns {Promise<number>} tokens of the session that `wanted` begins with */
async function keptTokens(session, wanted) {
  let least = 0
  let most = session.position
  while (least < most) {
    const middle = Math.ceil((least + most) / 2)
    if (wanted.startsWith(await session.text(0, middle))) least = middle
    else most = middle - 1
  }
  for (let position = least; position > Math.max(0, least - LONGEST_WORD); position--) {
    const start = await session.text(0, position)
    // Only BOS is left: it comes with what is appended at the beginning.
    if (start === '') return 0
    const rest = wanted.slice(start.length)
    if (wanted.startsWith(start) && (rest === '' || /^\s/.test(rest))) return position
  }
  return (await session.text(0, least)) === '' ? 0 : least
}
