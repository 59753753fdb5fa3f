/**
 * The choice of a kernel family: what a model runs on is what was asked for, is reported, and changes no text.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { BiMamba } from '../../js/index.js'
import { MODEL_FILE } from './support/model-file.js'

test('a model says what it runs on, and gives the same text on every family', async () => {
  const texts = new Set()
  for (const variant of [undefined, 'ref', 'popcount', 'table']) {
    const model = await BiMamba.load(MODEL_FILE, variant === undefined ? {} : { variant })
    assert.equal(model.info.variant, variant ?? 'table')
    let text = ''
    for await (const piece of model.generate('Once', { maxTokens: 12, seed: 3 })) text += piece
    texts.add(text)
    await model.close()
  }
  assert.equal(texts.size, 1)
})

test('an unknown family is an error that lists the known ones', async () => {
  await assert.rejects(BiMamba.load(MODEL_FILE, { variant: 'fastest' }), {
    code: 'argument',
    message: /variant is 'fastest', want one of ref, popcount, table/,
  })
})
