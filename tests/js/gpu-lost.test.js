/**
 * A GPU that is lost, at every moment: a text goes on as if nothing had happened, and little of it is read again.
 *
 * The software adapter's devices are destroyed for real; what the package asks for afterwards is another one, or none.
 */

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { GpuSession } from '../../js/gpu/gpu-session.js'
import { BiMamba } from '../../js/index.js'
import { join } from './support/collect.js'
import { gpuAs } from './support/gpu-disguise.js'
import { missingGpu } from './support/software-gpu.js'
import { TRAINED } from './support/trained-model.js'

/** @typedef {Awaited<ReturnType<typeof gpuAs>>} Asked */

const skip = await missingGpu()
const LIMIT = { skip, timeout: 240000 }
const PROMPT = Array.from({ length: 70 }, (_, i) => 300 + ((i * 37) % 900))
const OPTIONS = { maxTokens: 60, temperature: 0.8, seed: 7, stopTokens: [] }

/** What an undisturbed text is. @type {number[]} */
const wanted = []
/** Tokens that sessions on the GPU were given. */
let given = 0
const { append } = GpuSession.prototype

before(async () => {
  GpuSession.prototype.append = function (ids) {
    if (this.vocabSize > 320) given += ids.length // not those of self-tests
    return append.call(this, ids)
  }
  const wasm = await BiMamba.load(TRAINED, { inline: true, precision: 'exact' })
  for await (const id of wasm.generateIds(PROMPT, OPTIONS)) wanted.push(id)
  await wasm.close()
})

afterEach(() => void gpuAs(null))
after(() => Object.assign(GpuSession.prototype, { append }))

/** @param {Asked} asked */
const lose = (asked) => asked.devices.at(-1)?.destroy()

const load = () => BiMamba.load(TRAINED, { inline: true, device: 'webgpu', precision: 'exact' })

test(
  'while a text is written: once, and it goes on there; twice, and WebAssembly does',
  LIMIT,
  async () => {
    const asked = await gpuAs({})
    const model = await load()
    assert.equal(model.info.backupTokens, 64)
    const ids = []
    for await (const id of model.generateIds(PROMPT, OPTIONS)) {
      ids.push(id)
      if (ids.length === 20 || ids.length === 45) {
        given = 0
        lose(asked)
      }
      // 70 + 20 tokens: the backup is of 64.
      if (ids.length === 21) assert.ok(given >= 25 && given <= 27, `${given} tokens`)
      if (ids.length === 22) {
        assert.equal(model.info.device, 'webgpu')
        assert.match(String(model.info.deviceNote), /^the GPU was lost: .*; it was opened again$/)
      }
    }
    assert.deepEqual(ids, wanted)
    assert.deepEqual([model.info.device, model.info.backupTokens], ['wasm', null])
    assert.match(String(model.info.deviceNote), /lost: .*; the processor goes on$/)
    assert.equal(asked.devices.length, 2)
    await model.close()
  },
)

test('a backup is on its way while tokens go on', LIMIT, async () => {
  let held = 0
  let release = () => {}
  const released = new Promise((resolve) => {
    release = () => resolve(undefined)
  })
  const asked = await gpuAs({
    async map(bytes) {
      if (bytes < 1e6) return false
      held++
      await released
      return false
    },
  })
  const model = await load()
  const ids = []
  for await (const id of model.generateIds(PROMPT.slice(0, 60), OPTIONS)) {
    ids.push(id)
    // The backup of 64 tokens does not come.
    if (ids.length === 40) {
      assert.equal(held, 1)
      release()
    }
    if (ids.length === 50) {
      given = 0
      lose(asked)
    }
    if (ids.length === 51) assert.ok(given >= 45 && given <= 47, `${given} tokens`)
  }
  assert.equal(ids.length, OPTIONS.maxTokens)
  await model.close()
})

test('no other GPU to be had: WebAssembly goes on at once', LIMIT, async () => {
  const asked = await gpuAs({ device: (count) => count === 1 })
  const model = await load()
  const ids = []
  for await (const id of model.generateIds(PROMPT, OPTIONS)) {
    ids.push(id)
    if (ids.length === 10) lose(asked)
  }
  assert.deepEqual(ids, wanted)
  assert.equal(model.info.device, 'wasm')
  assert.equal(asked.devices.length, 1)
  await model.close()
})

test('while a prompt is read, and while nothing is done', LIMIT, async () => {
  const asked = await gpuAs({})
  const model = await load()
  const session = await model.createSession({ seed: 7, checkpointBytes: 0 })
  const reading = session.append(PROMPT)
  await new Promise((resolve) => setTimeout(resolve, 5))
  lose(asked)
  assert.equal(await reading, PROMPT.length)
  const first = []
  for await (const id of session.generateIds({ ...OPTIONS, maxTokens: 25 })) first.push(id)
  assert.equal(model.info.device, 'webgpu')
  const { keptBytes, sessions } = await model.memory()
  assert.deepEqual([keptBytes > 0, sessions], [true, 1])
  const fork = await session.fork()
  lose(asked)
  await new Promise((resolve) => setTimeout(resolve, 50))
  const rest = []
  const { seed, ...following } = { ...OPTIONS, maxTokens: 35 }
  for await (const id of session.generateIds(following)) rest.push(id)
  assert.deepEqual([...first, ...rest], wanted)
  assert.equal(model.info.device, 'wasm')
  // Its other texts have moved, too.
  const again = []
  for await (const id of fork.generateIds(following)) again.push(id)
  assert.deepEqual(again, rest)
  await model.close()
})

for (const times of [1, 2]) {
  test(`while it is loaded, ${times} of 2 times`, LIMIT, async () => {
    /** @type {Asked} */
    let asked
    let lost = 0
    // With its first shader, and so before it is known whether it computes right.
    const pipeline = () => {
      if (asked.devices.length <= lost || lost === times) return
      lost++
      lose(asked)
    }
    asked = await gpuAs({ pipeline })
    const model = await load()
    assert.equal(model.info.device, times === 1 ? 'webgpu' : 'wasm')
    assert.match(
      String(model.info.deviceNote),
      times === 1 ? /lost: .*; it was opened again$/ : /lost: .*; the processor goes on$/,
    )
    const options = { maxTokens: 12, temperature: 0 }
    const text = await join(model.generate('Once upon a time', options))
    assert.ok(text.length > 20)
    if (times === 1) {
      lose(asked)
      assert.equal(await join(model.generate('Once upon a time', options)), text)
      // It was the second one.
      assert.equal(model.info.device, 'wasm')
    }
    await model.close()
  })
}

test('while nothing is done: what is copied from a text is of that text', LIMIT, async () => {
  const asked = await gpuAs({})
  const model = await load()
  const session = await model.createSession({ seed: 7, checkpointBytes: 0 })
  await session.append(PROMPT)
  const logits = await session.logits()
  const scores = await session.score('Once upon a time')
  for (const device of ['webgpu', 'wasm']) {
    lose(asked)
    await new Promise((resolve) => setTimeout(resolve, 50))
    // The first thing that asks for the device is a session for the copy.
    const [fork, again] =
      device === 'webgpu'
        ? [await session.fork(), null]
        : [null, await session.score('Once upon a time')]
    assert.equal(model.info.device, device)
    const got = await (fork ?? session).logits()
    const off = Math.max(...got.map((value, i) => Math.abs(value - Number(logits[i]))))
    assert.ok(off < 1e-3, `${device}: ${off}`)
    for (const [i, { logprob }] of (again ?? []).entries())
      assert.ok(Math.abs(Number(logprob) - Number(scores[i]?.logprob)) < 1e-3)
  }
  await model.close()
})

test('a session that is closed while its logits are on their way is no loss', LIMIT, async () => {
  /** @type {(() => void) | null} */
  let close = null
  const asked = await gpuAs({
    map() {
      if (close) setImmediate(close)
      close = null
      return false
    },
  })
  const model = await load()
  const session = await model.createSession()
  await session.append(PROMPT)
  const writing = session.generateIds(OPTIONS)
  await writing.next()
  close = () => void session.close()
  await assert.rejects(
    async () => {
      for await (const _ of writing);
    },
    { code: 'closed' },
  )
  const ids = []
  for await (const id of model.generateIds(PROMPT, OPTIONS)) ids.push(id)
  assert.deepEqual(ids, wanted)
  assert.deepEqual([asked.devices.length, model.info.deviceNote], [1, null])
  await model.close()
})

test(
  'a command that is refused, which WebGPU tells nobody: not what was there before',
  LIMIT,
  async () => {
    const asked = await gpuAs({})
    const model = await load()
    const ids = []
    for await (const id of model.generateIds(PROMPT, OPTIONS)) {
      ids.push(id)
      if (ids.length !== 20) continue
      // A submit with a buffer that is no more.
      const device = /** @type {GPUDevice} */ (asked.devices[0])
      const [from, to] = [4, 8].map((usage) => device.createBuffer({ size: 16, usage }))
      const encoder = device.createCommandEncoder()
      encoder.copyBufferToBuffer(
        /** @type {GPUBuffer} */ (from),
        0,
        /** @type {GPUBuffer} */ (to),
        0,
        16,
      )
      from?.destroy()
      device.queue.submit([encoder.finish()])
    }
    assert.deepEqual(ids, wanted)
    assert.match(String(model.info.deviceNote), /refused a command: .*; it was opened again$/s)
    await model.close()
  },
)
