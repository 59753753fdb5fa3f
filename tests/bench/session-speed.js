/**
 * `npm run bench:sessions -- [--rounds 5] [--shape 780M]`: what sessions cost.
 *
 * Owns the measurement, in three parts: copies of a state beside a plain copy of as many bytes; several sessions together beside one
 * alone, with random weights in the shape of a published model; and what a state in fewer bits costs in the text that follows, with the
 * trained model. Rounds take turns, and each ratio is the median of its rounds.
 */

import { parseArgs } from 'node:util'
import { SHAPE_NAMES } from '../../js/bench/synthetic-model.js'
import { BiMamba } from '../../js/index.js'
import { TRAINED } from '../js/support/trained-model.js'
import { randomPacked } from './random-packed.js'

/** @typedef {import('../../js/index.js').Session} Session */

const FREE = { stopTokens: [], topK: 0, topP: 1, temperature: 1 }

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/** @template T @param {() => T | Promise<T>} work @returns {Promise<{ ms: number, value: T }>} */
async function timed(work) {
  const began = performance.now()
  const value = await work()
  return { ms: performance.now() - began, value }
}

/** @param {string} what @param {Record<string, string | number>} numbers */
function tell(what, numbers) {
  const rounded = Object.entries(numbers).map(([name, value]) => {
    return `${name} ${typeof value === 'number' ? Number(value.toPrecision(4)) : value}`
  })
  console.log(`${what.padEnd(34)}${rounded.join('   ')}`)
}

/**
 * Copies of the state. The yardstick copies as many bytes from one JavaScript array to a new one.
 * @param {BiMamba} model @param {number} rounds
 */
async function measureCopies(model, rounds) {
  const session = await model.createSession({ checkpointBytes: 0 })
  await session.append(Array.from({ length: 64 }, (_, i) => i))
  const { length } = await session.save()
  const source = new Uint8Array(length).fill(1)
  /** @type {Record<string, number[]>} */
  const times = {}
  const note = (/** @type {string} */ name, /** @type {number} */ ms) => {
    times[name] ??= []
    times[name].push(ms)
  }
  for (let round = 0; round <= rounds; round++) {
    const copy = await timed(() => source.slice())
    const again = await timed(() => copy.value.set(source))
    const snapshot = await timed(() => session.snapshot())
    const restore = await timed(() => session.restore(snapshot.value))
    const fork = await timed(() => session.fork())
    const save = await timed(() => session.save())
    const load = await timed(() => model.loadSession(save.value, { checkpointBytes: 0 }))
    const small = await timed(() => session.save({ state: 'i8' }))
    const loadSmall = await timed(() => model.loadSession(small.value, { checkpointBytes: 0 }))
    for (const one of [fork, load, loadSmall, snapshot]) await one.value.close()
    // The first round brings the pages of the memory.
    if (round === 0) continue
    note('snapshot', snapshot.ms / copy.ms)
    note('restore', restore.ms / again.ms)
    note('copy, ms', copy.ms)
    note('copy over, ms', again.ms)
    for (const [name, { ms }] of Object.entries({ snapshot, restore, fork, save, load }))
      note(`${name}, ms`, ms)
    note('save i8, ms', small.ms)
    note('load i8, ms', loadSmall.ms)
  }
  tell('bytes of a saved session', { MB: length / 1e6 })
  for (const [name, values] of Object.entries(times)) {
    tell(
      name,
      name.includes('ms') ? { median: median(values) } : { 'times a copy': median(values) },
    )
  }
  await session.close()
}

/** An edit in the middle of a prompt of 400 tokens, beside reading it all. @param {BiMamba} model */
async function measureEdit(model) {
  const ids = Array.from({ length: 400 }, (_, i) => (i * 31) % 1000)
  const session = await model.createSession()
  const whole = await timed(() => session.append(ids))
  const edit = await timed(() => session.edit(200, 210, [7, 8, 9]))
  const end = await timed(() => session.edit(-3, session.position, [7]))
  tell('a prompt of 400 tokens', { ms: whole.ms })
  tell('an edit in its middle', { 'tokens read': edit.value, ms: edit.ms })
  tell('an edit at its end', { 'tokens read': end.value, ms: end.ms })
  await session.close()
}

/** Tokens a second of n sessions together. @param {BiMamba} model @param {number} rounds */
async function measureTogether(model, rounds) {
  const sizes = [1, 2, 4, 8, 16]
  /** @type {Map<number, number[]>} */
  const speeds = new Map(sizes.map((n) => [n, []]))
  for (let round = 0; round < rounds; round++) {
    for (const n of sizes) {
      /** @type {Session[]} */
      const sessions = []
      while (sessions.length < n) sessions.push(await model.createSession({ checkpointBytes: 0 }))
      for (const session of sessions) await session.append([1])
      const options = { ...FREE, temperature: 0, maxTokens: 12 }
      const { ms } = await timed(async () => {
        for await (const _ of model.generateTogether(sessions, options));
      })
      speeds.get(n)?.push((12 * n * 1000) / ms)
      for (const session of sessions) await session.close()
    }
  }
  const alone = median(speeds.get(1) ?? [])
  for (const [n, values] of speeds) {
    tell(`${n} together`, { 'tokens/s': median(values), 'times one': median(values) / alone })
  }
}

/**
 * The mean loss of what follows, where the state was kept in a type and taken up again, over what it was without.
 * Texts are the model's own, from different seeds.
 * @param {BiMamba} model
 */
async function measureTypes(model) {
  const types = /** @type {const} */ (['f32', 'i16', 'i8'])
  /** @type {Record<string, number>} */
  const sums = { own: 0, f32: 0, i16: 0, i8: 0 }
  let count = 0
  const session = await model.createSession()
  for (let seed = 0; seed < 40; seed++) {
    await session.rewind(0)
    await session.append('Once upon a time')
    for await (const _ of session.generate({ ...FREE, seed, maxTokens: 480 }));
    const ids = await session.ids()
    const cut = 128
    await session.rewind(cut)
    const rest = ids.subarray(cut)
    const sum = async (/** @type {Session} */ one) =>
      (await one.score(rest)).reduce((total, { logprob }) => total - Number(logprob), 0)
    sums.own = Number(sums.own) + (await sum(session))
    for (const state of types) {
      const loaded = await model.loadSession(await session.save({ state }))
      sums[state] = Number(sums[state]) + (await sum(loaded))
      await loaded.close()
    }
    count += rest.length
  }
  const own = Number(sums.own) / count
  tell('loss of what follows, nats a token', { own, tokens: count })
  for (const state of types) {
    const loss = Number(sums[state]) / count
    const { length } = await session.save({ state })
    tell(`kept in ${state}`, {
      loss,
      'perplexity, %': 100 * (Math.exp(loss - own) - 1),
      MB: length / 1e6,
    })
  }
  await session.close()
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    shape: { type: 'string', default: '780M' },
  },
})
const shape = SHAPE_NAMES.find((name) => name === values.shape)
if (!shape) throw new Error(`--shape is ${values.shape}, want ${SHAPE_NAMES.join(', ')}`)
const rounds = Number(values.rounds)

const large = await BiMamba.load(await randomPacked(shape), { inline: true, threads: 1 })
await measureCopies(large, rounds)
await measureEdit(large)
await measureTogether(large, rounds)
await large.close()
const trained = await BiMamba.load(TRAINED, { inline: true })
await measureTypes(trained)
await trained.close()
