/**
 * JSON Schema (draft 2020-12, the part that says what a text may be) as rules.
 *
 * Owns what each keyword becomes. What is not understood is refused: a keyword that was passed over would be a promise broken. js/grammar/schema-merge.js puts
 * schemas together, js/grammar/json-text.js says how values are written.
 * The idea: a schema is read as what to write. So properties come in the order in which they are listed, those that are not listed only where
 * additionalProperties is said, and a schema without a type has the one that its keywords are about.
 */

import { BmError } from '../errors.js'
import { choice, literal, NOTHING, repeat, rule, sequence } from './expression.js'
import { asJsonString, jsonRules, jsonText, listOf, otherName, stringOf } from './json-text.js'
import { decimalsOf, numbersBetween, scaled } from './number-range.js'
import { readRegex } from './regex.js'
import { areApart, KEYWORDS, TYPES, typesOf } from './schema-keywords.js'
import { merged } from './schema-merge.js'
import { STRING_FORMATS } from './string-formats.js'

/** @typedef {import('./expression.js').Expression} Expression */
/** @typedef {import('./schema-keywords.js').Schema} Schema */

/** References and alternatives deeper than this go round in a circle. */
const MOST_DEPTH = 100

class Reader {
  #root
  /** @type {Map<string, Expression>} */
  rules
  #depth = 0

  /** @param {unknown} root */
  constructor(root) {
    this.#root = root
    this.rules = jsonRules()
  }

  /** @returns {Map<string, Expression>} */
  read() {
    this.rules.set('root', this.#reference('#', '#'))
    return this.rules
  }

  /** @param {unknown} schema @param {string} where its JSON pointer @returns {Expression} */
  #value(schema, where) {
    if (schema === true) return rule('json value')
    if (schema === false) fail(where, 'false allows no value')
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) {
      fail(where, `${jsonText(schema)} is no schema, want an object`)
    }
    if (++this.#depth > MOST_DEPTH) fail(where, 'schemas go round in a circle')
    try {
      return this.#object(/** @type {Schema} */ (schema), where)
    } finally {
      this.#depth--
    }
  }

  /** @param {Schema} schema @param {string} where @returns {Expression} */
  #object(schema, where) {
    for (const name of Object.keys(schema))
      if (!KEYWORDS.has(name) && !name.startsWith('x-')) fail(where, `'${name}' is not supported`)
    const { $ref, allOf, anyOf, oneOf, ...rest } = schema
    if ($ref !== undefined) {
      if (Object.keys(schema).every((name) => name === '$ref' || KEYWORDS.get(name) === 'note'))
        return this.#reference(String($ref), where)
      return this.#value(
        this.#merge([this.#find(String($ref), where), without(schema, '$ref')], where),
        where,
      )
    }
    if (allOf !== undefined) {
      const all = listed(allOf, `${where}/allOf`).map((one) => this.#resolved(one, where))
      return this.#value(this.#merge([...all, without(schema, 'allOf')], where), where)
    }
    for (const [name, branches] of Object.entries({ anyOf, oneOf })) {
      if (branches === undefined) continue
      const base = without(schema, name)
      return this.#branches(listed(branches, `${where}/${name}`), base, `${where}/${name}`)
    }
    return this.#plain(rest, where)
  }

  /** @param {unknown[]} branches @param {Schema} base what all have @param {string} where @returns {Expression} */
  #branches(branches, base, where) {
    const hasBase = Object.keys(base).some((name) => KEYWORDS.get(name) !== 'note')
    const all = branches.map((branch) => this.#resolved(branch, where))
    if (where.endsWith('oneOf'))
      for (const [i, one] of all.entries())
        for (const [k, other] of all.slice(0, i).entries())
          if (!areApart(one, other, (schema) => this.#resolved(schema, where)))
            fail(
              where,
              `schemas ${k} and ${i} may both fit a value: want anyOf, or a type or const that tells them apart`,
            )
    return choice(
      branches.map((branch, i) => {
        const own = hasBase ? this.#merge([all[i], base], `${where}/${i}`) : branch
        return this.#value(own, `${where}/${i}`)
      }),
    )
  }

  /** @param {Schema} schema without references and alternatives @param {string} where @returns {Expression} */
  #plain(schema, where) {
    if (schema.const !== undefined || schema.enum !== undefined) return this.#listed(schema, where)
    const types = typesOf(schema, where)
    if (types.length === 0) fail(where, 'no type is left')
    return choice(types.map((type) => this.#typed(type, schema, where)))
  }

  /** @param {Schema} schema @param {string} where @returns {Expression} */
  #listed(schema, where) {
    const { enum: values = [schema.const], type } = schema
    if (!Array.isArray(values) || values.length === 0) fail(where, 'enum has no value')
    const types = type === undefined ? TYPES : typesOf({ type }, where)
    const isConst = schema.const !== undefined
    const fits = values.filter(
      (value) =>
        types.some((name) => isOfType(value, name)) &&
        (!isConst || jsonText(value) === jsonText(schema.const)),
    )
    if (fits.length === 0) fail(where, 'no value of enum or const is of the type')
    const others = Object.keys(schema).filter(
      (name) => !['enum', 'const', 'type'].includes(name) && KEYWORDS.get(name) !== 'note',
    )
    if (others.length > 0) fail(where, `'${others[0]}' beside enum or const is not supported`)
    return choice(fits.map((value) => literal(jsonText(value))))
  }

  /** @param {string} type @param {Schema} schema @param {string} where @returns {Expression} */
  #typed(type, schema, where) {
    switch (type) {
      case 'null':
        return literal('null')
      case 'boolean':
        return choice([literal('true'), literal('false')])
      case 'string':
        return this.#string(schema, where)
      case 'array':
        return this.#array(schema, where)
      case 'object':
        return this.#properties(schema, where)
      default:
        return number(type, schema, where)
    }
  }

  /** @param {Schema} schema @param {string} where @returns {Expression} */
  #string({ pattern, format, minLength, maxLength }, where) {
    const [min, max] = bounds(minLength, maxLength, 'Length', where)
    const isBounded = min > 0 || max < Infinity
    if (pattern !== undefined || format !== undefined) {
      if (isBounded || (pattern !== undefined && format !== undefined))
        fail(where, 'pattern, format and lengths together are not supported: want one pattern')
      const source = pattern ?? STRING_FORMATS[String(format)]
      if (typeof source !== 'string') {
        fail(where, `format is ${jsonText(format)}, want ${Object.keys(STRING_FORMATS).join(', ')}`)
      }
      return stringOf(asJsonString(readRegex(source, `format.jsonSchema at ${where}/pattern`)))
    }
    if (!isBounded) return rule('json string')
    return stringOf(repeat(rule('json character'), min, max))
  }

  /** @param {Schema} schema @param {string} where @returns {Expression} */
  #array({ items, prefixItems = [], minItems, maxItems, uniqueItems }, where) {
    const [min, max] = bounds(minItems, maxItems, 'Items', where)
    if (uniqueItems === true && max > 1) fail(where, "'uniqueItems' is not supported")
    const first = listed(prefixItems, `${where}/prefixItems`, 0).slice(0, max)
    // As with properties: what is not said is not written.
    const isClosed = items === false || (items === undefined && first.length > 0)
    if (isClosed && min > first.length)
      fail(where, `minItems is ${min}, but there are only ${first.length} items`)
    const prefix = first.map((one, i) => this.#value(one, `${where}/prefixItems/${i}`))
    if (prefix.length === 0) {
      if (isClosed || max === 0) return literal('[]')
      const item = items === undefined ? rule('json value') : this.#named(items, `${where}/items`)
      return listOf('[', item, min, max, ']')
    }
    /** @type {Expression} */
    let rest = NOTHING
    if (!isClosed && max > prefix.length) {
      const more = sequence(literal(', '), this.#named(items, `${where}/items`))
      rest = repeat(more, Math.max(0, min - prefix.length), max - prefix.length)
    }
    for (let i = prefix.length - 1; i >= 0; i--) {
      const item = /** @type {Expression} */ (prefix[i])
      const next = sequence(i > 0 ? literal(', ') : NOTHING, item, rest)
      rest = i >= min ? choice([NOTHING, next]) : next
    }
    return sequence(literal('['), rest, literal(']'))
  }

  /** @param {Schema} schema @param {string} where @returns {Expression} */
  #properties({ properties = {}, required = [], additionalProperties }, where) {
    if (typeof properties !== 'object' || properties === null)
      fail(where, 'properties is no object')
    const needed = listed(required, `${where}/required`, 0).map(String)
    const rest = additionalProperties ?? Object.keys(properties).length === 0
    const known = new Map(Object.entries(properties))
    for (const name of needed) {
      if (!known.has(name) && rest === false)
        fail(where, `required has '${name}', which is no property`)
      if (!known.has(name)) known.set(name, rest)
    }
    const names = [...known.keys()]
    /** What follows when some property is there already, and when none is. @type {[Expression, Expression]} */
    let [more, none] = [NOTHING, NOTHING]
    if (rest !== false) {
      const name = names.length === 0 ? rule('json string') : otherName(names)
      const entry = sequence(
        name,
        literal(': '),
        this.#named(rest, `${where}/additionalProperties`),
      )
      more = this.#shared(repeat(sequence(literal(', '), entry), 0, Infinity), where)
      none = choice([NOTHING, sequence(entry, more)])
    }
    for (const name of names.toReversed()) {
      const isNeeded = needed.includes(name)
      const place = `${where}/properties/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
      const schema = known.get(name)
      if (schema === false && !isNeeded) continue
      const entry = this.#shared(
        sequence(literal(`${jsonText(name)}: `), this.#value(schema, place)),
        place,
      )
      const [laterMore, laterNone] = [more, none]
      const here = sequence(literal(', '), entry, laterMore)
      const begins = sequence(entry, laterMore)
      more = this.#shared(isNeeded ? here : choice([here, laterMore]), `${place} more`)
      none = this.#shared(isNeeded ? begins : choice([begins, laterNone]), `${place} none`)
    }
    return sequence(literal('{'), none, literal('}'))
  }

  /** @param {unknown} schema @param {string} where @returns {Expression} a rule, as it stands in more than one place */
  #named(schema, where) {
    return this.#shared(this.#value(schema, where), where)
  }

  /** @param {Expression} expression @param {string} where @returns {Expression} */
  #shared(expression, where) {
    const name = `${where} ${this.rules.size}`
    this.rules.set(name, expression)
    return rule(name)
  }

  /** @param {string} pointer @param {string} where @returns {Expression} */
  #reference(pointer, where) {
    const name = `$ref ${pointer}`
    if (this.rules.has(name)) return rule(name)
    const schema = this.#find(pointer, where)
    // It may name itself.
    this.rules.set(name, NOTHING)
    this.rules.set(name, this.#value(schema, pointer))
    return rule(name)
  }

  /** @param {string} pointer @param {string} where @returns {unknown} */
  #find(pointer, where) {
    if (!/^#(\/|$)/.test(pointer))
      fail(where, `$ref is '${pointer}', want # and a place in the same schema`)
    /** @type {unknown} */
    let at = this.#root
    for (const part of pointer.split('/').slice(1)) {
      const name = decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
      const inner = Object(at)
      if (!Object.hasOwn(inner, name)) fail(where, `$ref is '${pointer}', which is not there`)
      at = inner[name]
    }
    return at
  }

  /** @param {unknown} schema @param {string} where @returns {unknown} what it refers to, where it is a reference */
  #resolved(schema, where) {
    let found = schema
    for (let i = 0; typeof (/** @type {Schema} */ (Object(found)).$ref) === 'string'; i++) {
      if (i > MOST_DEPTH) fail(where, '$ref goes round in a circle')
      const { $ref, ...rest } = /** @type {Schema} */ (found)
      const target = this.#find(String($ref), where)
      found = Object.keys(rest).length > 0 ? this.#merge([target, rest], where) : target
    }
    return found
  }

  /** @param {unknown[]} schemas @param {string} where @returns {unknown} */
  #merge(schemas, where) {
    return schemas.reduce((a, b) => merged(a, b, (problem) => fail(where, problem)), {})
  }
}

/** @param {string} type integer or number @param {Schema} schema @param {string} where @returns {Expression} */
function number(type, { minimum, maximum, exclusiveMinimum, exclusiveMaximum }, where) {
  const all = { minimum, maximum, exclusiveMinimum, exclusiveMaximum }
  const given = Object.entries(all).filter(([, value]) => value !== undefined)
  if (given.length === 0) return rule(`json ${type}`)
  for (const [name, value] of given)
    if (typeof value !== 'number' || !Number.isFinite(value))
      fail(where, `${name} is ${jsonText(value)}, want a number`)
  const values = given.map(([, value]) => Number(value))
  const scale =
    type === 'integer' ? 0 : Math.max(6, ...values.map((value) => decimalsOf(value) + 1))
  if (scale > 40) fail(where, 'a bound has more than 39 digits behind its point')
  const lows = [
    ...(minimum === undefined ? [] : [scaled(Number(minimum), scale, 'up')]),
    ...(exclusiveMinimum === undefined
      ? []
      : [scaled(Number(exclusiveMinimum), scale, 'down') + 1n]),
  ]
  const highs = [
    ...(maximum === undefined ? [] : [scaled(Number(maximum), scale, 'down')]),
    ...(exclusiveMaximum === undefined ? [] : [scaled(Number(exclusiveMaximum), scale, 'up') - 1n]),
  ]
  const low = lows.length > 0 ? lows.reduce((a, b) => (a > b ? a : b)) : null
  const high = highs.length > 0 ? highs.reduce((a, b) => (a < b ? a : b)) : null
  if (low !== null && high !== null && low > high) fail(where, `no ${type} is between the bounds`)
  return numbersBetween(low, high, scale)
}

/** @param {unknown} min @param {unknown} max @param {string} of what @param {string} where @returns {[number, number]} */
function bounds(min = 0, max = Infinity, of, where) {
  for (const [name, value] of Object.entries({ min, max }))
    if (typeof value !== 'number' || value < 0 || (value !== Infinity && !Number.isInteger(value)))
      fail(where, `${name}${of} is ${jsonText(value)}, want an integer from 0`)
  if (Number(min) > Number(max)) fail(where, `min${of} is ${min}, which is above max${of}, ${max}`)
  return [Number(min), Number(max)]
}

/** @param {unknown} value @param {string} where @param {number} [least] @returns {unknown[]} */
function listed(value, where, least = 1) {
  if (!Array.isArray(value) || value.length < least)
    fail(where, `want a list${least ? ' that is not empty' : ''}`)
  return value
}

/** @param {Schema} schema @param {string} name @returns {Schema} */
function without(schema, name) {
  const { [name]: _, ...rest } = schema
  return rest
}

/** @param {unknown} value @param {string} type */
function isOfType(value, type) {
  if (type === 'null') return value === null
  if (type === 'array') return Array.isArray(value)
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value)
  // The other names are those of typeof.
  return type === 'integer' ? Number.isInteger(value) : typeof value === type
}

/** @param {string} where @param {string} problem @returns {never} */
function fail(where, problem) {
  throw new BmError('argument', `format.jsonSchema at ${where}: ${problem}`)
}

/**
 * @param {unknown} schema JSON
 * @returns {Map<string, Expression>} rules, of which `root` is the first
 * @throws {BmError} `argument`, with the place in the schema
 */
export function readJsonSchema(schema) {
  return new Reader(schema).read()
}
