/**
 * What tokens are called in an answer.
 *
 * Owns the rule of OpenAI's API: a token is called by its text; one whose bytes are no text by themselves is called `bytes:\xe2\x80`. The package tells a
 * token's text once all of a character has come, so the names come from bytes.
 */

/** @typedef {import('../index.js').BiMamba} BiMamba */
/** @typedef {import('../index.js').Token} Token */
/** @typedef {{ id: number, logprob: number | null }} Chance */
/** @typedef {{ name: string, bytes: number[], logprob: number }} Named */
/** A token with the likeliest ones in its place. text: that it completes. @typedef {Named & { text: string, top: Named[] }} NamedToken */

/** What a log-probability is said to be where nothing comes before, as by OpenAI's API for what is out of reach. */
const NONE = Number.NaN

export class TokenNames {
  #model
  /** @type {Map<number, { name: string, bytes: number[] }>} */
  #known = new Map()

  /** @param {BiMamba} model */
  constructor(model) {
    this.#model = model
  }

  /** @param {readonly Token[]} tokens @returns {Promise<NamedToken[]>} those with an id */
  async of(tokens) {
    const sampled = tokens.flatMap(({ id, text, logprob, top }) =>
      id === null ? [] : [{ id, text, logprob, top }],
    )
    await this.#learn(sampled.flatMap(({ id, top }) => [id, ...top.map((one) => one.id)]))
    return sampled.map((token) => ({
      ...this.#named(token),
      text: token.text,
      top: token.top.map((one) => this.#named(one)),
    }))
  }

  /** @param {Chance} chance @returns {Named} */
  #named({ id, logprob }) {
    const { name, bytes } = this.#known.get(id) ?? { name: '', bytes: [] }
    return { name, bytes, logprob: logprob ?? NONE }
  }

  /** @param {number[]} ids */
  async #learn(ids) {
    const unknown = [...new Set(ids)].filter((id) => !this.#known.has(id))
    if (unknown.length === 0) return
    const all = await this.#model.tokenBytes(unknown)
    for (const [i, bytes] of all.entries())
      this.#known.set(Number(unknown[i]), { name: nameOf(bytes), bytes: [...bytes] })
  }
}

/** @param {Uint8Array} bytes */
function nameOf(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
  }
}
