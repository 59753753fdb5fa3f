/**
 * Walks over an automaton, byte by byte.
 *
 * Owns the states: where in the rules a text can be, with all that called them, and what was found about each. Knows no tokens.
 * The ideas: whatever calls a rule at the same place shares one stack, so that a grammar that can be read in many ways costs no more
 * than one that cannot; stacks and states that are equal are the same object, so that what was found once, a step or a mask, is found for ever; and
 * a call that comes back to an end of its rule comes back to the caller's caller, so that a list has one state however long it gets.
 */

/** @typedef {import('./automaton.js').Automaton} Automaton */
/** @typedef {import('./automaton.js').Node} Node */
/** @typedef {import('./automaton.js').Rule} Rule */

/** Where a call comes back to; null: the text may end. @typedef {{ key: string, to: Node | null, stack: Stack | null }} Frame */
/** @typedef {{ id: number, frames: Frame[] }} Stack */
/** @typedef {{ node: Node, stack: Stack }} Item */

/**
 * @typedef {object} State
 * @property {Item[]} items
 * @property {boolean} mayEnd
 * @property {(State | null | undefined)[]} next  by class of bytes; null: no text goes on so, undefined: not looked for
 * @property {Uint32Array | null} mask            of tokens; null: not looked for
 */

/** When there are more, all are forgotten: a text that nests deeper and deeper makes ever new ones. */
const MOST_STATES = 20000

export class Walker {
  #automaton
  /** @type {Map<string, State>} */
  #states = new Map()
  /** @type {Map<string, Stack>} */
  #stacks = new Map()
  #lastStack = 0

  /** @param {Automaton} automaton */
  constructor(automaton) {
    this.#automaton = automaton
  }

  /** @returns {State} of the empty text */
  start() {
    const { root } = this.#automaton
    const calls = new Calls()
    calls.add(root, null, null)
    return this.#enter([], calls, root.isNullable)
  }

  /** @param {State} state @param {number} byte @returns {State | null} null: no text goes on so */
  next(state, byte) {
    const cls = Number(this.#automaton.classOf[byte])
    const known = state.next[cls]
    if (known !== undefined) return known
    const next = this.#step(state, byte)
    state.next[cls] = next
    return next
  }

  /** @param {State} state @param {number} byte */
  #step(state, byte) {
    /** @type {Map<string, Item>} */
    const reached = new Map()
    /** @param {Node} node @param {Stack} stack */
    const reach = (node, stack) => {
      const key = `${node.id}:${stack.id}`
      if (!reached.has(key)) reached.set(key, { node, stack })
    }
    for (const { node, stack } of state.items)
      for (const { first, last, to } of node.bytes)
        if (byte >= first && byte <= last) reach(to, stack)
    if (reached.size === 0) return null
    const calls = new Calls()
    let mayEnd = false
    // The map grows while it is walked over.
    for (const { node, stack } of reached.values()) {
      for (const { rule, to } of node.calls) calls.add(rule, to, stack)
      if (!node.isEnd) continue
      for (const frame of stack.frames)
        if (frame.to && frame.stack) reach(frame.to, frame.stack)
        else mayEnd = true
    }
    return this.#enter([...reached.values()], calls, mayEnd)
  }

  /** Begins the rules that are called, and those that they begin with. @param {Item[]} reached @param {Calls} calls @param {boolean} mayEnd */
  #enter(reached, calls, mayEnd) {
    const items = reached.filter(({ node }) => node.bytes.length > 0)
    for (let call = calls.takeFirst(); call; call = calls.takeFirst()) {
      const stack = this.#stackOf([...call.frames.values()])
      const { start } = call.rule
      if (start.bytes.length > 0) items.push({ node: start, stack })
      for (const { rule, to } of start.calls) calls.add(rule, to, stack)
    }
    const keys = items.map(({ node, stack }) => `${node.id}:${stack.id}`).sort()
    const key = `${mayEnd}|${keys.join()}`
    const known = this.#states.get(key)
    if (known) return known
    if (this.#states.size >= MOST_STATES) this.#forget()
    /** @type {State} */
    const state = { items, mayEnd, next: [], mask: null }
    this.#states.set(key, state)
    return state
  }

  #forget() {
    for (const state of this.#states.values()) Object.assign(state, { next: [], mask: null })
    this.#states.clear()
    this.#stacks.clear()
  }

  /** @param {Frame[]} frames @returns {Stack} */
  #stackOf(frames) {
    const key = frames
      .map((frame) => frame.key)
      .sort()
      .join()
    const known = this.#stacks.get(key)
    if (known) return known
    const stack = { id: ++this.#lastStack, frames }
    this.#stacks.set(key, stack)
    return stack
  }
}

/** The rules that are called at one place, and where the calls come back to. */
class Calls {
  /** @type {Map<Rule, Map<string, Frame>>} */
  #frames = new Map()

  /** @param {Rule} rule @param {Node | null} to @param {Stack | null} stack */
  add(rule, to, stack) {
    const frames = this.#frames.get(rule) ?? new Map()
    this.#frames.set(rule, frames)
    const isLast = to?.isEnd && to.bytes.length === 0 && to.calls.length === 0
    if (isLast && stack) for (const frame of stack.frames) frames.set(frame.key, frame)
    else {
      const key = to && stack ? `${to.id}:${stack.id}` : 'end'
      frames.set(key, { key, to, stack })
    }
  }

  /** @returns {{ rule: Rule, frames: Map<string, Frame> } | null} that no other one begins with */
  takeFirst() {
    /** @type {Rule | null} */
    let first = null
    for (const rule of this.#frames.keys()) if (!first || rule.order < first.order) first = rule
    if (!first) return null
    const frames = /** @type {Map<string, Frame>} */ (this.#frames.get(first))
    this.#frames.delete(first)
    return { rule: first, frames }
  }
}
