/**
 * A grammar as an automaton over bytes, with calls.
 *
 * Owns the nodes: each rule has some, and from a node bytes lead to other nodes, or a rule is called and comes back to another node. Checks what makes
 * walking it safe: no rule begins with itself, and from every node that can be reached a text can be finished. Does not walk: js/grammar/walker.js does.
 * The ideas: a rule that may be empty is passed by as well as called, and what it does itself is never empty, so that no call ends where it began; and what
 * leads to no end is cut off here, so that a walk never comes where nothing may follow.
 */

import { BmError } from '../errors.js'
import { repeat, rule } from './expression.js'
import { utf8Ranges } from './utf8-ranges.js'

/** @typedef {import('./expression.js').Expression} Expression */

/**
 * A place in a rule. While it is built `skips` lead on without a byte; afterwards what they lead to is in the other lists.
 *
 * @typedef {object} Node
 * @property {number} id
 * @property {{ first: number, last: number, to: Node }[]} bytes
 * @property {{ rule: Rule, to: Node }[]} calls
 * @property {Node[]} skips
 * @property {boolean} isEnd  the rule may end here
 */

/**
 * @typedef {object} Rule
 * @property {string} name
 * @property {Node} start
 * @property {Node} end
 * @property {boolean} isNullable
 * @property {number} order  a rule that begins with another one comes before it
 */

/** @typedef {{ root: Rule, rules: Rule[], classOf: Uint8Array, classCount: number }} Automaton  classOf: bytes that no node tells apart */

/** More are a mistake: a repetition of a repetition. */
const MOST_NODES = 1 << 19
/** A part that is repeated more often than this becomes a rule, which is there once. */
const MOST_COPIES = 4

class Builder {
  /** @type {Map<string, Rule>} */
  rules = new Map()
  /** @type {Node[]} */
  nodes = []
  #expressions
  #hasByte
  #where
  #extra = 0

  /** @param {ReadonlyMap<string, Expression>} expressions by rule @param {(byte: number) => boolean} hasByte whether it can be written at all @param {string} where for messages */
  constructor(expressions, hasByte, where) {
    this.#expressions = new Map(expressions)
    this.#hasByte = hasByte
    this.#where = where
  }

  /** @param {string} name @returns {Rule} */
  rule(name) {
    const known = this.rules.get(name)
    if (known) return known
    const made = { name, start: this.#node(), end: this.#node(), isNullable: false, order: 0 }
    this.rules.set(name, made)
    return made
  }

  /** All rules that the root needs. @param {string} root */
  build(root) {
    this.rule(root)
    // The map grows while it is walked over.
    for (const { name, start, end } of this.rules.values()) {
      const expression = this.#expressions.get(name)
      if (!expression) throw new BmError('internal', `no rule ${name}`)
      this.#put(expression, start, end)
    }
  }

  #node() {
    if (this.nodes.length >= MOST_NODES) {
      throw new BmError('argument', `${this.#where} needs more than ${MOST_NODES} states`)
    }
    /** @type {Node} */
    const node = { id: this.nodes.length, bytes: [], calls: [], skips: [], isEnd: false }
    this.nodes.push(node)
    return node
  }

  /** @param {Expression} expression @param {Node} from @param {Node} to */
  #put(expression, from, to) {
    switch (expression.kind) {
      case 'set':
        for (const [first, last] of expression.ranges) this.#putRange(first, last, from, to)
        break
      case 'sequence': {
        let at = from
        for (const [i, part] of expression.parts.entries()) {
          const next = i === expression.parts.length - 1 ? to : this.#node()
          this.#put(part, at, next)
          at = next
        }
        if (expression.parts.length === 0) from.skips.push(to)
        break
      }
      case 'choice':
        for (const part of expression.parts) this.#put(part, from, to)
        break
      case 'rule':
        from.calls.push({ rule: this.rule(expression.name), to })
        break
      case 'repeat':
        this.#putRepeat(expression, from, to)
    }
  }

  /** @param {number} first @param {number} last @param {Node} from @param {Node} to */
  #putRange(first, last, from, to) {
    for (const ranges of utf8Ranges(first, last)) {
      let at = from
      for (const [i, [low, high]] of ranges.entries()) {
        const next = i === ranges.length - 1 ? to : this.#node()
        // What no token can write does not occur.
        for (let byte = low; byte <= high; byte++) {
          if (!this.#hasByte(byte)) continue
          const start = byte
          while (byte < high && this.#hasByte(byte + 1)) byte++
          at.bytes.push({ first: start, last: byte, to: next })
        }
        at = next
      }
    }
  }

  /** @param {Extract<Expression, { kind: 'repeat' }>} repeated @param {Node} from @param {Node} to */
  #putRepeat({ part, min, max }, from, to) {
    const isShort = part.kind === 'rule' || Math.max(min, max === Infinity ? 1 : max) <= MOST_COPIES
    const one = isShort ? part : this.#asRule(part)
    let at = from
    for (let i = 0; i < min; i++) {
      const next = this.#node()
      this.#put(one, at, next)
      at = next
    }
    if (max === Infinity) {
      // A node of its own, so that the way back is not open to what else begins or ends here.
      const loop = this.#node()
      at.skips.push(loop)
      const back = this.#node()
      this.#put(one, loop, back)
      back.skips.push(loop)
      loop.skips.push(to)
      return
    }
    for (let i = min; i < max; i++) {
      at.skips.push(to)
      const next = this.#node()
      this.#put(one, at, next)
      at = next
    }
    at.skips.push(to)
  }

  /** @param {Expression} part @returns {Expression} */
  #asRule(part) {
    const name = `(${++this.#extra})`
    this.#expressions.set(name, part)
    return rule(name)
  }
}

/**
 * @param {ReadonlyMap<string, Expression>} expressions every rule that another one names is there
 * @param {string} root
 * @param {(byte: number) => boolean} hasByte
 * @param {string} where for messages
 * @returns {Automaton | null} null: no text at all
 * @throws {BmError} `argument`: a rule begins with itself, or all is too large
 */
export function buildAutomaton(expressions, root, hasByte, where) {
  const builder = new Builder(expressions, hasByte, where)
  builder.build(root)
  const rules = [...builder.rules.values()]
  const { nodes } = builder
  findNullable(rules)
  for (const node of nodes)
    for (const call of node.calls) if (call.rule.isNullable) node.skips.push(call.to)
  for (const { end } of rules) end.isEnd = true
  joinSkips(nodes)
  cutDeadEnds(rules, nodes)
  const start = /** @type {Rule} */ (rules[0])
  if (!start.isNullable && start.start.bytes.length + start.start.calls.length === 0) return null
  sortByBeginning(rules, where)
  return { root: start, rules, ...classesOf(nodes) }
}

/** @param {Node} node @returns {Node[]} where its skips lead, itself included */
function closure(node) {
  const found = new Set([node])
  for (const one of found) for (const next of one.skips) found.add(next)
  return [...found]
}

/** Which rules may be empty. @param {readonly Rule[]} rules */
function findNullable(rules) {
  for (let changed = true; changed; ) {
    changed = false
    for (const rule of rules) {
      if (rule.isNullable) continue
      const found = new Set([rule.start])
      for (const node of found) {
        for (const next of node.skips) found.add(next)
        for (const { rule: called, to } of node.calls) if (called.isNullable) found.add(to)
      }
      if (!found.has(rule.end)) continue
      rule.isNullable = true
      changed = true
    }
  }
}

/** What a node's skips lead to becomes its own. @param {readonly Node[]} nodes */
function joinSkips(nodes) {
  const joined = nodes.map((node) => {
    if (node.skips.length === 0) return node
    const all = closure(node)
    return {
      bytes: [...new Set(all.flatMap(({ bytes }) => bytes))],
      calls: [...new Set(all.flatMap(({ calls }) => calls))],
      isEnd: all.some(({ isEnd }) => isEnd),
    }
  })
  for (const [i, { bytes, calls, isEnd }] of joined.entries())
    Object.assign(/** @type {Node} */ (nodes[i]), { bytes, calls, isEnd, skips: [] })
}

/** Takes away what leads to nodes from which no end of the rule can be reached. @param {readonly Rule[]} rules @param {readonly Node[]} nodes */
function cutDeadEnds(rules, nodes) {
  /** @type {Set<Node>} from which the end of the rule can be reached */
  const alive = new Set(nodes.filter(({ isEnd }) => isEnd))
  /** @type {Map<Node, Set<Node>>} */
  const before = new Map()
  /** @type {Map<Rule, { from: Node, to: Node }[]>} */
  const callers = new Map(rules.map((rule) => [rule, []]))
  /** @param {Node} from @param {Node} to */
  const link = (from, to) => {
    const set = before.get(to) ?? new Set()
    before.set(to, set.add(from))
  }
  const starts = new Map(rules.map((rule) => [rule.start, rule]))
  for (const from of nodes) {
    for (const { to } of from.bytes) link(from, to)
    for (const { rule, to } of from.calls) callers.get(rule)?.push({ from, to })
  }
  // The set grows while it is walked over; a call counts when both its rule and what follows are alive.
  for (const node of alive) {
    for (const from of before.get(node) ?? []) alive.add(from)
    const rule = starts.get(node)
    for (const { from, to } of (rule && callers.get(rule)) ?? [])
      if (alive.has(to)) alive.add(from)
      else link(from, to)
  }
  for (const node of nodes) {
    node.bytes = node.bytes.filter(({ to }) => alive.has(to))
    node.calls = node.calls.filter(({ rule, to }) => alive.has(rule.start) && alive.has(to))
  }
}

/** Sets `order`. @param {readonly Rule[]} rules @param {string} where */
function sortByBeginning(rules, where) {
  /** @type {Map<Rule, 'open' | 'done'>} */
  const state = new Map()
  let next = rules.length
  for (const first of rules) {
    /** @type {{ rule: Rule, rest: Rule[] }[]} */
    const path = state.has(first) ? [] : [{ rule: first, rest: beginsWith(first) }]
    state.set(first, state.get(first) ?? 'open')
    for (let top = path.at(-1); top; top = path.at(-1)) {
      const called = top.rest.pop()
      if (!called) {
        state.set(top.rule, 'done')
        top.rule.order = --next
        path.pop()
      } else if (state.get(called) === 'open') {
        const names = path.map(({ rule }) => rule.name).filter((name) => !name.startsWith('('))
        const name = called.name.startsWith('(') ? (names.at(-1) ?? '') : called.name
        throw new BmError(
          'argument',
          `${where}: rule '${name}' begins with itself: want something before it`,
        )
      } else if (!state.has(called)) {
        state.set(called, 'open')
        path.push({ rule: called, rest: beginsWith(called) })
      }
    }
  }
}

/** @param {Rule} rule @returns {Rule[]} */
const beginsWith = (rule) => [...new Set(rule.start.calls.map((call) => call.rule))]

/** @param {readonly Node[]} nodes @returns {{ classOf: Uint8Array, classCount: number }} */
function classesOf(nodes) {
  const isFirst = new Uint8Array(257)
  for (const { bytes } of nodes)
    for (const { first, last } of bytes) {
      isFirst[first] = 1
      isFirst[last + 1] = 1
    }
  const classOf = new Uint8Array(256)
  let count = 0
  for (let byte = 1; byte < 256; byte++) classOf[byte] = isFirst[byte] ? ++count : count
  return { classOf, classCount: count + 1 }
}
