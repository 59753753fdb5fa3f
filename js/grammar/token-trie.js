/**
 * The tokens of a vocabulary as a tree of their bytes, and which of them a text can go on with.
 *
 * Owns the tree: its nodes in the order of a walk from left to right, each with its byte, its depth and where its branch ends. Knows states only as what
 * js/grammar/walker.js gives.
 * The idea: tokens that begin alike are looked at once, and a branch whose first byte does not fit is skipped whole.
 */

/** @typedef {import('./walker.js').State} State */
/** @typedef {import('./walker.js').Walker} Walker */

export class TokenTrie {
  #bytes
  #depths
  /** The node behind a node's branch. */
  #skips
  /** Where the ids of a node's tokens begin in `#ids`; one more than there are nodes. */
  #starts
  #ids
  #words

  /** @param {readonly Uint8Array[]} tokens bytes by id; empty: no text */
  constructor(tokens) {
    this.#words = Math.ceil(tokens.length / 32)
    const order = [...tokens.keys()].filter((id) => bytesOf(tokens, id).length > 0)
    order.sort((a, b) => compare(bytesOf(tokens, a), bytesOf(tokens, b)) || a - b)
    /** @type {number[]} */
    const bytes = []
    /** @type {number[]} */
    const depths = []
    /** @type {number[]} tokens before each node's */
    const starts = []
    /** @type {Uint8Array} */
    let before = new Uint8Array(0)
    for (const [i, id] of order.entries()) {
      const token = bytesOf(tokens, id)
      for (let depth = sharedLength(before, token); depth < token.length; depth++) {
        bytes.push(Number(token[depth]))
        depths.push(depth)
        // The last of these nodes is the token's own; the others have none, nor have they any later.
        starts.push(i)
      }
      before = token
    }
    starts.push(order.length)
    this.#bytes = Uint8Array.from(bytes)
    this.#depths = Uint16Array.from(depths)
    this.#skips = skipsOf(this.#depths)
    this.#starts = Uint32Array.from(starts)
    this.#ids = Uint32Array.from(order)
  }

  /** @param {number} byte @returns {boolean} whether some token is this byte alone */
  hasByte(byte) {
    for (let i = 0; i < this.#bytes.length; i = Number(this.#skips[i])) {
      if (this.#bytes[i] === byte) return Number(this.#starts[i + 1]) > Number(this.#starts[i])
    }
    return false
  }

  /** @param {Walker} walker @param {State} state @returns {Uint32Array} bit id % 32 of word id / 32; kept with the state, not to be changed */
  maskOf(walker, state) {
    if (state.mask) return state.mask
    const mask = new Uint32Array(this.#words)
    const path = [state]
    for (let i = 0; i < this.#bytes.length; ) {
      const depth = Number(this.#depths[i])
      const next = walker.next(/** @type {State} */ (path[depth]), Number(this.#bytes[i]))
      if (!next) {
        i = Number(this.#skips[i])
        continue
      }
      path[depth + 1] = next
      for (let k = Number(this.#starts[i]); k < Number(this.#starts[i + 1]); k++) {
        const id = Number(this.#ids[k])
        mask[id >>> 5] = Number(mask[id >>> 5]) | (1 << (id & 31))
      }
      i++
    }
    state.mask = mask
    return mask
  }
}

/** @param {readonly Uint8Array[]} tokens @param {number} id */
const bytesOf = (tokens, id) => /** @type {Uint8Array} */ (tokens[id])

/** @param {Uint8Array} a @param {Uint8Array} b @returns {number} how many bytes they begin with together */
function sharedLength(a, b) {
  let n = 0
  while (n < a.length && n < b.length && a[n] === b[n]) n++
  return n
}

/** @param {Uint8Array} a @param {Uint8Array} b */
function compare(a, b) {
  const n = sharedLength(a, b)
  return n < a.length && n < b.length ? Number(a[n]) - Number(b[n]) : a.length - b.length
}

/** @param {Uint16Array} depths @returns {Uint32Array} */
function skipsOf(depths) {
  const skips = new Uint32Array(depths.length)
  /** @type {number[]} the nodes whose branches are open */
  const open = []
  for (let i = 0; i <= depths.length; i++) {
    const depth = i < depths.length ? Number(depths[i]) : 0
    while (open.length > depth) skips[Number(open.pop())] = i
    open.push(i)
  }
  return skips
}
