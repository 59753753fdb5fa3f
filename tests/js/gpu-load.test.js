/**
 * Loading on the GPU: what happens at the same time, and what goes wrong at each stage, on a software adapter in disguise.
 */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, before, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { CoreSession } from '../../js/core-session.js'
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

const load = (/** @type {object} */ options = {}) =>
  BiMamba.load(TRAINED, { inline: true, device: 'webgpu', precision: 'exact', ...options })

test('what every WebGPU has is enough, and tables are cut to smaller bindings', LIMIT, async () => {
  for (const most of [2 ** 27, 2 ** 19]) {
    const limits = { maxStorageBufferBindingSize: most }
    const asked = await gpuAs({ limits, without: ['shader-f16', 'subgroups', 'timestamp-query'] })
    const model = await load()
    assert.equal(await join(model.generate('Once upon a time', OPTIONS)), text)
    await model.close()
    assert.deepEqual([asked.limits, asked.features], [[], [[]]])
    const { maxStorageBuffersPerShaderStage: buffers, minStorageBufferOffsetAlignment: offsets } =
      /** @type {GPUDevice} */ (asked.devices[0]).limits
    assert.deepEqual([buffers, offsets], [8, 256])
    // The whole table is larger than the second one.
    assert.ok(asked.mostBound > 9e5 === most > 9e5 && asked.mostBound <= most)
    assert.deepEqual([asked.open.size, asked.buffers.size], [0, 0])
  }
})

/** @typedef {'memory' | 'validation' | 'throws'} Fault */

test('auto: what the GPU that was chosen has no room for, WebAssembly takes', LIMIT, async () => {
  const { append } = CoreSession.prototype
  // The GPU is to be the quicker one.
  CoreSession.prototype.append = function (ids) {
    const began = performance.now()
    while (performance.now() - began < 100);
    return append.call(this, ids)
  }
  try {
    const whole = await gpuAs({ hardware: true })
    const model = await load({ device: 'auto' })
    assert.equal(model.info.device, 'webgpu')
    await model.close()
    // Of its weights, and of its session.
    for (const nth of [whole.made - 40, whole.made - 1]) {
      for (const fault of /** @type {Fault[]} */ (['memory', 'validation'])) {
        const asked = await gpuAs({
          hardware: true,
          buffer: (_, count) => (count === nth ? fault : undefined),
        })
        const other = await load({ device: 'auto' })
        assert.equal(other.info.device, 'wasm')
        assert.match(
          String(other.info.deviceNote),
          /(no memory|validation of a test).*; the processor goes on$/,
        )
        assert.deepEqual([asked.open.size, asked.devices.length], [0, 1])
        await other.close()
      }
    }
  } finally {
    Object.assign(CoreSession.prototype, { append })
  }
})

test(
  'a buffer that cannot be made, whichever it is: one error, and nothing is left',
  LIMIT,
  async () => {
    const whole = await gpuAs({})
    await (await load()).close()
    const { made } = whole
    assert.ok(made > 60)
    // Of the test's model and of the real one; two sessions are made behind them.
    const places = Array.from({ length: Math.ceil((made - 14) / 9) }, (_, i) => 9 * i)
    for (const fault of /** @type {Fault[]} */ (['memory', 'validation', 'throws'])) {
      for (const nth of [...places, made - 1]) {
        // Software takes seconds to compile, which only the last ones, of sessions, wait for.
        const compiles = nth === made - 1
        const asked = await gpuAs({
          buffer: (_, count) => (count === nth ? fault : undefined),
          ...(compiles ? {} : { pipeline: () => new Promise(() => {}) }),
        })
        await assert.rejects(load(), (/** @type {import('../../js/index.js').BmError} */ error) => {
          const [code, message] =
            fault === 'memory'
              ? ['memory', /no memory/]
              : ['gpu', /validation of a test|createBuffer failed/]
          assert.deepEqual([error.name, error.code], ['BmError', code], `${fault} ${nth}`)
          assert.match(error.message, message)
          return true
        })
        assert.deepEqual([asked.open.size, asked.devices.length], [0, 1], `${fault} ${nth}`)
      }
    }
    for (const fault of /** @type {Fault[]} */ (['memory', 'validation', 'throws'])) {
      const asked = await gpuAs({ hardware: true, buffer: () => fault })
      const model = await load({ device: 'auto' })
      assert.equal(model.info.device, 'wasm')
      assert.match(
        String(model.info.deviceNote),
        /no memory|validation of a test|createBuffer failed/,
      )
      assert.equal(asked.open.size, 0)
      await model.close()
    }
  },
)

test(
  'a session that has no room: an error, and all else goes on; one that is refused moves',
  LIMIT,
  async () => {
    /** @type {Fault | undefined} */
    let fault
    const asked = await gpuAs({ buffer: () => fault })
    const model = await load()
    const before = asked.buffers.size
    fault = 'memory'
    for (let i = 0; i < 3; i++) {
      await assert.rejects(model.createSession(), {
        code: 'memory',
        message: /a session: .*no memory/,
      })
    }
    // What was made of it before is freed.
    assert.equal(asked.buffers.size, before)
    // A text needs nothing new, and does without backups.
    const ids = []
    const options = { maxTokens: 80, temperature: 0, stopTokens: [] }
    for await (const id of model.generateIds([1, 300], options)) ids.push(id)
    assert.equal(ids.length, 80)
    assert.equal(asked.buffers.size, before)
    fault = 'validation'
    // The next device refuses it, too.
    const session = await model.createSession()
    assert.equal(model.info.device, 'wasm')
    assert.match(String(model.info.deviceNote), /a session: validation of a test; the processor/)
    fault = undefined
    await session.append([1, 300])
    const again = []
    for await (const id of session.generateIds(options)) again.push(id)
    assert.deepEqual(again, ids)
    assert.deepEqual([asked.open.size, asked.devices.length], [0, 2])
    await model.close()
  },
)

test(
  'results that do not come back: another device, then WebAssembly, and the same text',
  LIMIT,
  async () => {
    let fails = false
    const asked = await gpuAs({ map: () => fails })
    const model = await load()
    const pieces = model.generate('Once upon a time', { ...OPTIONS, maxTokens: 12 })
    let made = String((await pieces.next()).value)
    fails = true
    for await (const piece of pieces) made += piece
    assert.equal(model.info.device, 'wasm')
    assert.match(String(model.info.deviceNote), /gave nothing back: mapAsync of a test/)
    assert.ok(made.startsWith(text))
    assert.equal(asked.open.size, 0)
    await model.close()
  },
)

test('a model that is closed while it loads or writes leaves no device', LIMIT, async () => {
  const asked = await gpuAs({})
  const stop = new AbortController()
  const loading = load({ signal: stop.signal })
  await setTimeout(20)
  stop.abort()
  await assert.rejects(loading, { name: 'AbortError' })
  const model = await load()
  const writing = model.generate('Once upon a time', { maxTokens: 500 })
  await writing.next()
  await model.close()
  await assert.rejects(writing.next(), { code: 'closed' })
  await setTimeout(50)
  assert.deepEqual([asked.open.size, asked.buffers.size], [0, 0])
})
