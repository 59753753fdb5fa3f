/**
 * `bimamba bench` on the GPU: what it measures there, with the GPU's clock and without. How fast a software adapter is says nothing.
 */

import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { after, test } from 'node:test'
import { main } from '../../js/cli/main.js'
import { BiMamba } from '../../js/index.js'
import { gpuAs } from './support/gpu-disguise.js'
import { MODEL_FILE } from './support/model-file.js'
import { missingGpu } from './support/software-gpu.js'

/** @typedef {import('../../js/bench/bench-report.js').BenchReport} BenchReport */

const skip = await missingGpu()
const OPTIONS = ['--model', MODEL_FILE, '--rounds', '2', '--prompt-tokens', '40']
const STEPS = ['embed', 'prepare_in', 'project_in', 'scan', 'prepare_out', 'project_out', 'finish']

after(() => gpuAs(null))

/** @param {...string} args @returns {Promise<{ code: number, text: string, complaint: string }>} */
async function bench(...args) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const { signal } = new AbortController()
  const code = await main(['bench', ...args], { stdin: process.stdin, stdout, stderr, signal })
  return { code, text: String(stdout.read() ?? ''), complaint: String(stderr.read() ?? '') }
}

/** @param {number} value @param {number} want */
function near(value, want) {
  assert.ok(Math.abs(value - want) <= 1e-9 * Math.abs(want), `${value}, want ${want}`)
}

test('the processor and the GPU side by side: tokens, kernels, copies', { skip }, async () => {
  const asked = await gpuAs({ without: ['subgroups'] })
  const { code, text } = await bench(...OPTIONS, '--device', 'wasm', '--device', 'webgpu', '--json')
  assert.equal(code, 0)
  assert.deepEqual(asked.features, [['timestamp-query']])
  /** @type {BenchReport} */
  const { model, settings, streams } = JSON.parse(text)
  const [cpu, gpu] = settings
  assert.deepEqual([cpu?.device, cpu?.gpu], ['wasm', null])
  assert.deepEqual(
    streams.map(({ threads }) => threads),
    [1],
  )
  assert.ok(gpu?.gpu && gpu.steps && gpu.load)
  assert.deepEqual([gpu.device, gpu.variant, gpu.threads], ['webgpu', 'webgpu', 1])
  assert.deepEqual([gpu.gpu.isSoftware, gpu.gpu.hasClock], [true, true])
  assert.ok(gpu.gpu.adapter.length > 3 && gpu.gpu.copyGbPerS > 0)
  near(gpu.decode.boundMs, model.bytesPerToken / gpu.gpu.copyGbPerS / 1e6)
  near(gpu.decode.boundShare, gpu.decode.boundMs / gpu.decode.ms)
  assert.ok(gpu.prefill.tokensPerS > 0 && gpu.decode.speed < 1)
  assert.ok(gpu.memory.bytes > model.weightBytes + model.stateBytes)
  for (const steps of [gpu.steps.decode, gpu.steps.prefill]) {
    assert.deepEqual(
      steps.map(({ step }) => step),
      [...STEPS, 'head'],
    )
    for (const { step, ms, gbPerS, boundShare } of steps) {
      assert.ok(ms > 0, step)
      near(boundShare, gbPerS / Number(gpu.gpu.copyGbPerS))
    }
  }
  // The kernels are what a token spends its time in, and not more than that.
  const kernels = gpu.steps.decode.reduce((sum, { ms }) => sum + ms, 0)
  assert.ok(kernels > gpu.decode.bestMs / 20 && kernels < 3 * Math.max(...gpu.decode.roundMs))
  const moved = gpu.steps.decode.reduce((sum, { ms, gbPerS }) => sum + ms * gbPerS * 1e6, 0)
  near(moved, model.bytesPerToken)
})

test('without timestamp-query: whole tokens, and it says so', { skip }, async () => {
  const asked = await gpuAs({ without: ['timestamp-query', 'subgroups'] })
  const { code, text } = await bench(...OPTIONS, '--device', 'webgpu', '--long', '8')
  assert.equal(code, 0)
  assert.deepEqual(asked.features, [[]])
  assert.match(text, /^gpu {6}\S.*, a program and no GPU; integers by \w+$/m)
  assert.match(text, /^memory {3}copied at [\d.]+ GB\/s by the GPU; a token moves/m)
  assert.match(text, /^GPU, webgpu +[\d.]+/m)
  assert.match(text, /steps {3}not measured: the adapter has no timestamp-query/)
  assert.match(text, /a token takes [\d.]+ ms after 100 others, [\d.]+ ms after 108/)
  assert.doesNotMatch(text, /NaN|undefined|project_in/)
})

test('nothing but the benchmark asks for the clock', { skip }, async () => {
  const asked = await gpuAs({ without: ['subgroups'] })
  const model = await BiMamba.load(MODEL_FILE, { inline: true, device: 'webgpu' })
  await model.close()
  assert.deepEqual(asked.features, [[]])
})

test('BiMamba.benchmark on the GPU, and what is refused', { skip }, async () => {
  const { settings, text } = await BiMamba.benchmark({
    source: MODEL_FILE,
    settings: [{ device: 'webgpu' }],
    rounds: 1,
    promptTokens: 8,
  })
  assert.equal(settings[0]?.device, 'webgpu')
  assert.match(text, /of copy/)
  for (const [setting, message] of /** @type {[object, RegExp][]} */ ([
    [{ device: 'gpu' }, /device is "gpu", want wasm, webgpu/],
    [{ device: 'webgpu', threads: 2 }, /neither threads nor variants/],
    [{ device: 'wasm' }, /threads is undefined/],
  ])) {
    const asked = BiMamba.benchmark({ source: MODEL_FILE, settings: [setting] })
    await assert.rejects(asked, { code: 'argument', message })
  }
  for (const [args, message] of /** @type {[string[], RegExp][]} */ ([
    [['--device', 'gpu'], /--device is 'gpu', want wasm, webgpu/],
    [['--device', 'webgpu', '--threads', '2'], /--threads is not of the GPU/],
  ])) {
    const { code, complaint } = await bench(...args)
    assert.equal(code, 2)
    assert.match(complaint, message)
  }
  await gpuAs({ none: true })
  const { code, complaint } = await bench(...OPTIONS, '--device', 'webgpu')
  assert.equal(code, 1)
  assert.match(complaint, /no adapter/)
})
