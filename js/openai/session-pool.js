/**
 * Sessions of earlier requests, for later ones that go on where they ended.
 *
 * Owns which are kept: the last few. A request sends its whole text again each time; a state that has read the beginning of it need not read that again,
 * and as it is of constant size, keeping it costs the same however long the text is. What is taken belongs to the taker until it is given back.
 */

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('../index.js').Session} Session */
/** @typedef {import('../index.js').ChatMessage} ChatMessage */
/** ids: its text; messages: what was said, none of a text that is no chat. @typedef {{ session: Session, ids: Uint32Array, messages: ChatMessage[] }} Kept */

/** For going back by a few tokens, as replies need: checkpoints of so many states. */
const CHECKPOINTS = 3

export class SessionPool {
  #model
  #most
  /** @type {Kept[]} the one that was used last is the last */
  #kept = []

  /** @param {BiMamba} model @param {number} most sessions that are kept; 0: none */
  constructor(model, most) {
    this.#model = model
    this.#most = most
  }

  /** @param {Uint32Array} ids @returns {Promise<Session>} that has read a beginning of them, and nothing else */
  async forText(ids) {
    const starts = (/** @type {Kept} */ { ids: read, messages }) =>
      messages.length === 0 && read.length <= ids.length && read.every((id, i) => id === ids[i])
        ? read.length
        : 0
    return this.#take(starts)
  }

  /** @param {readonly ChatMessage[]} messages @returns {Promise<Session>} in which some of the first of them were said, and nothing else */
  async forChat(messages) {
    const starts = (/** @type {Kept} */ { messages: said }) =>
      said.length < messages.length && said.every((one, i) => isSame(one, messages[i]))
        ? said.length
        : 0
    return this.#take(starts)
  }

  /** @param {(kept: Kept) => number} fit how much of it is of use @returns {Promise<Session>} */
  async #take(fit) {
    const best = this.#kept.reduce((best, kept) => Math.max(best, fit(kept)), 0)
    const found = best > 0 ? this.#kept.findLast((kept) => fit(kept) === best) : undefined
    if (!found) {
      const checkpointBytes = CHECKPOINTS * this.#model.info.stateBytes
      return this.#model.createSession({ checkpointBytes })
    }
    this.#kept.splice(this.#kept.indexOf(found), 1)
    return found.session
  }

  /** Keeps it for a later request. @param {Session} session that nobody uses any more */
  async giveBack(session) {
    if (this.#most === 0 || session.position === 0) return session.close()
    try {
      this.#kept.push({ session, ids: await session.ids(), messages: await session.messages() })
    } catch {
      return session.close() // the model was closed
    }
    const gone = this.#kept.splice(0, Math.max(0, this.#kept.length - this.#most))
    for (const { session } of gone) await session.close()
  }

  async close() {
    for (const { session } of this.#kept.splice(0)) await session.close()
  }
}

/** @param {ChatMessage} a @param {ChatMessage | undefined} b */
function isSame(a, b) {
  return a.role === b?.role && a.content === b.content
}
