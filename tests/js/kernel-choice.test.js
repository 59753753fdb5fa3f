/**
 * The choice of a kernel family by measurement: it follows the times, and asks for a clear lead.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { Core } from '../../js/core.js'
import { isWorthChoosing, quickestVariant } from '../../js/kernel-choice.js'

/**
 * A core on which the steps of some families take several times as long as they do.
 * @param {Core} core
 * @param {Record<string, number>} times by family
 */
function slowed(core, times) {
  const { createModel } = core
  core.createModel = (config, options) => {
    const model = createModel.call(core, config, options)
    const { createSession } = model
    model.createSession = (sessionOptions) => {
      const session = createSession.call(model, sessionOptions)
      const { step } = session
      session.step = (...args) => {
        for (let i = 0; i < (times[model.variant] ?? 1); i++) step.apply(session, args)
      }
      return session
    }
    return model
  }
  return core
}

for (const precision of /** @type {const} */ (['fast', 'high'])) {
  test(`the family that is clearly quicker is taken: ${precision}`, async () => {
    const options = { precision }
    assert.equal(
      quickestVariant(slowed(await Core.create(), { table: 1, popcount: 5 }), options),
      'table',
    )
    assert.equal(
      quickestVariant(slowed(await Core.create(), { table: 100, popcount: 1 }), options),
      'popcount',
    )
  })
}

test('the reference is no candidate, and the probes leave no memory taken', async () => {
  const core = slowed(await Core.create(), { table: 200, popcount: 200 })
  assert.notEqual(quickestVariant(core, { precision: 'exact' }), 'ref')
  const { memoryBytes } = core
  for (let i = 0; i < 5; i++) quickestVariant(core, { precision: 'fast' })
  assert.equal(core.memoryBytes, memoryBytes)
})

test('small files are not worth it', () => {
  assert.equal(isWorthChoosing(2e6), false)
  assert.equal(isWorthChoosing(143e6), true)
})
