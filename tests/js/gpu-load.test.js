/**
 * Loading on the GPU: what happens at the same time, and what goes wrong at each stage, on a software adapter in disguise.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { BiMamba } from '../../js/index.js'
import { join } from './support/collect.js'
import { FaultServer } from './support/fault-server.js'
import { gpuAs } from './support/gpu-disguise.js'
import { missingGpu } from './support/software-gpu.js'
import { TRAINED } from './support/trained-model.js'

const skip = await missingGpu()
const OPTIONS = { maxTokens: 4, temperature: 0 }
const LIMIT = { skip, timeout: 120000 }

/** @type {FaultServer} */
let server
/** What WebAssembly says. */
let text = ''
let sizeBytes = 0

before(async () => {
  const bytes = await readFile(TRAINED)
  sizeBytes = bytes.length
  server = new FaultServer(bytes, {})
  await server.listen()
  const model = await BiMamba.load(TRAINED, { inline: true, precision: 'exact' })
  text = await join(model.generate('Once upon a time', OPTIONS))
  await model.close()
})

after(async () => {
  await gpuAs(null)
  await server.close()
})

for (const device of /** @type {const} */ (['webgpu', 'auto'])) {
  test(`${device}: the whole file arrives before a shader is compiled`, LIMIT, async () => {
    server.reset()
    let compiled = 0
    // Were the download to wait for the shaders, neither would end.
    const pipeline = async () => {
      while (server.bytesServed() < sizeBytes) await setTimeout(2)
      compiled++
    }
    await gpuAs({ hardware: true, pipeline })
    const model = await BiMamba.load(server.url('ok'), { inline: true, device, cache: 'off' })
    assert.ok(compiled > 5)
    if (device === 'webgpu') {
      assert.equal(model.info.device, 'webgpu')
      assert.equal(await join(model.generate('Once upon a time', OPTIONS)), text)
    } else assert.match(String(model.info.deviceNote), /the GPU is slower here/)
    await model.close()
  })

  test(`${device}: what computes wrong is found before there is a model`, LIMIT, async () => {
    const { default: shaders } = await import('../../dist/shaders.mjs')
    const right = String(shaders.conv)
    shaders.conv = right.replace('bias[channel]', '0.0')
    assert.notEqual(shaders.conv, right)
    try {
      await gpuAs({ hardware: true })
      const load = BiMamba.load(server.url('ok'), { inline: true, device, cache: 'off' })
      if (device === 'webgpu') {
        await assert.rejects(load, { code: 'gpu', message: /computes wrong/ })
      } else {
        const model = await load
        assert.match(String(model.info.deviceNote), /computes wrong/)
        assert.equal(model.info.device, 'wasm')
        await model.close()
      }
    } finally {
      shaders.conv = right
    }
  })
}
