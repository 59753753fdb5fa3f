/**
 * What a session says of its last generation: it is its own, whatever others do at the same time, and what was refused has none.
 */

import assert from 'node:assert/strict'
import { collect } from './support/collect.js'
import { openModels } from './support/each-model.js'
import { tinyModel } from './support/tiny-model.js'

const { eachModel } = openModels(() => tinyModel())

eachModel('of sessions that work side by side each has its own', async (model) => {
  const lengths = [3, 4, 5, 6]
  const sessions = await Promise.all(lengths.map(() => model.createSession()))
  for (const [i, session] of sessions.entries()) {
    await session.append(Array.from({ length: Number(lengths[i]) }, (_, k) => 5 + k))
  }
  const options = { maxTokens: 6, stopTokens: [] }
  await Promise.all(
    sessions.map((session, seed) => collect(session.generateIds({ ...options, seed }))),
  )
  const found = sessions.map(({ position, lastStats }) => [
    position,
    lastStats?.promptTokens,
    lastStats?.seed,
  ])
  assert.deepEqual(
    found,
    lengths.map((length, i) => [length + 6, length, i]),
  )
  await Promise.all(sessions.map((session) => session.close()))
})

eachModel('so has one whose loop is left while the others go on', async (model) => {
  const [left, other] = [await model.createSession(), await model.createSession()]
  await left.append([5, 6, 7])
  await other.append([5])
  const rest = collect(other.generateIds({ maxTokens: 4, stopTokens: [] }))
  for await (const _ of left.generateIds({ maxTokens: 9, stopTokens: [] })) break
  await rest
  assert.deepEqual(
    [left.position, left.lastStats?.tokens, left.lastStats?.finishReason],
    [...[4, 1, 'abort']],
  )
  assert.deepEqual([other.position, other.lastStats?.tokens], [5, 4])
  await Promise.all([left.close(), other.close()])
})

eachModel('a generation that is refused as busy leaves those of the last one', async (model) => {
  const session = await model.createSession()
  await session.append([5, 6, 7])
  const pieces = session.generateIds({ maxTokens: 6, stopTokens: [] })
  await pieces.next()
  await assert.rejects(collect(session.generateIds()), { code: 'busy' })
  await assert.rejects(collect(session.chat('a')), { code: 'busy' })
  assert.equal(session.lastStats ?? null, null)
  await pieces.return(/** @type {never} */ (undefined))
  assert.equal(session.lastStats?.tokens, 1)
  await session.close()
})

eachModel('what fails before the first token says so', async (model) => {
  const session = await model.createSession()
  await session.append([5, 6])
  await assert.rejects(collect(session.generate({ format: { regex: '(' } })), { code: 'argument' })
  assert.equal(session.lastStats?.finishReason, 'error')
  await assert.rejects(collect(session.chat('a')), { code: 'argument' })
  assert.equal(session.lastStats?.finishReason, 'error')
  await session.close()
})

eachModel('the seeds of many ways are different ones, behind the largest, too', async (model) => {
  const session = await model.createSession()
  await session.append([5, 6])
  const ways = session.generateMany(4, { maxTokens: 2, stopTokens: [], seed: 2 ** 53 - 1 })
  for (;;) {
    const { done, value } = await ways.next()
    if (!done) continue
    assert.deepEqual(
      value.map(({ seed }) => seed),
      [2 ** 53 - 1, 0, 1, 2],
    )
    break
  }
  await session.close()
})
