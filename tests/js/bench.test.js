/**
 * `bimamba bench`: that its numbers are those of the model it names, and that they fit each other. How large they are is the
 * machine's affair.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { trafficOf } from '../../js/bench/bench-traffic.js'
import { randomModel, SHAPE_NAMES, syntheticConfig } from '../../js/bench/synthetic-model.js'
import { main } from '../../js/cli/main.js'
import { Core } from '../../js/core.js'
import { BiMamba, VERSION } from '../../js/index.js'
import { MODEL_FILE } from './support/model-file.js'

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))
const OWN_MODULE = fileURLToPath(new URL('../../dist/bimamba.wasm', import.meta.url))
const ROUNDS = 2

/** @typedef {import('../../js/bench/bench-report.js').BenchReport} BenchReport */
/** @typedef {import('../../js/bench/bench-report.js').StepReport} StepReport */

/** @param {...string} args */
function bench(...args) {
  const line = [MAIN, 'bench', '--rounds', `${ROUNDS}`, '--prompt-tokens', '100', ...args]
  return spawnSync(process.execPath, line, { encoding: 'utf8', timeout: 60000 })
}

/** @param {...string} args @returns {BenchReport} */
function reportOf(...args) {
  const { stdout, stderr, status } = bench('--json', ...args)
  assert.equal(stderr, '')
  assert.equal(status, 0)
  return JSON.parse(stdout)
}

/** @param {number} value @param {number} want @param {string} what */
function near(value, want, what) {
  assert.ok(Math.abs(value - want) <= 1e-9 * Math.abs(want), `${what}: ${value}, want ${want}`)
}

/** @param {readonly StepReport[]} steps */
function checkSteps(steps) {
  assert.deepEqual(
    steps.map(({ step }) => step),
    ['embed', 'prepare_in', 'project_in', 'scan', 'prepare_out', 'project_out', 'finish', 'head'],
  )
  for (const { step, ms, share, gbPerS, gigaWeightsPerS } of steps) {
    assert.ok(ms > 0 && share > 0 && share < 1 && gbPerS > 0, step)
    assert.equal(gigaWeightsPerS !== null && gigaWeightsPerS > 0, step.startsWith('project'), step)
  }
  const sum = steps.reduce((total, { share }) => total + share, 0)
  near(sum, 1, 'sum of shares')
}

/** @param {BenchReport['settings'][number]['decode'] | BenchReport['settings'][number]['prefill']} times */
function checkTimes({ ms, bestMs, tokensPerS, speed, roundMs }) {
  assert.equal(roundMs.length, ROUNDS)
  assert.equal(bestMs, Math.min(...roundMs))
  assert.ok(bestMs > 0 && ms >= bestMs && ms <= Math.max(...roundMs) && speed > 0)
  near(tokensPerS * ms, 1000, 'tokens a second')
}

test('a model file, two settings: every field, and what they must be', () => {
  const report = reportOf('--model', MODEL_FILE, '--threads', '1', '--threads', '2')
  const { machine, model, settings, streams } = report
  assert.ok(machine.cpu && machine.cores > 0)
  assert.deepEqual([machine.bimamba, machine.runtime], [VERSION, `Node ${process.version}`])
  assert.ok(Math.abs(Date.parse(machine.date) - Date.now()) < 60000)
  assert.equal(model.source, MODEL_FILE)
  assert.ok(model.weightBytes < statSync(MODEL_FILE).size)
  assert.deepEqual(
    [report.rounds, report.promptTokens, report.chunkTokens, report.precision, report.state],
    [ROUNDS, 100, 64, 'fast', 'f32'],
  )
  assert.deepEqual(
    streams.map(({ threads }) => threads),
    [1, 2],
  )
  assert.deepEqual(
    settings.map(({ threads, variant, wasm }) => [threads, variant, wasm]),
    [
      [1, 'table', null],
      [2, 'table', null],
    ],
  )
  for (const [
    i,
    { load, decode, prefill, steps, memory, threadsUsed, long },
  ] of settings.entries()) {
    assert.ok(load && steps)
    near(load.bytesPerS, (1000 * statSync(MODEL_FILE).size) / load.ms, 'loading')
    checkTimes(decode)
    checkTimes(prefill)
    near(prefill.timesDecode, prefill.tokensPerS / decode.tokensPerS, 'prefill / decode')
    near(decode.boundMs, model.bytesPerToken / Number(streams[i]?.gbPerS) / 1e6, 'bound')
    near(decode.boundShare, decode.boundMs / decode.ms, 'share of the bound')
    near(decode.gbPerS, model.bytesPerToken / decode.ms / 1e6, 'GB/s')
    checkSteps(steps.decode)
    checkSteps(steps.prefill)
    const moved = steps.decode.reduce((sum, { ms, gbPerS }) => sum + ms * gbPerS * 1e6, 0)
    near(moved, model.bytesPerToken, 'bytes of all steps')
    assert.ok(memory.bytes > model.weightBytes + model.stateBytes)
    near(memory.limitBytes, model.weightBytes + model.stateBytes + 32e6, 'limit')
    assert.ok(memory.bytes <= memory.limitBytes)
    assert.ok(threadsUsed >= 1 && threadsUsed <= settings[i].threads)
    assert.equal(long, null)
  }
  assert.equal(settings[0].decode.speed, 1)
})

test('as text, with another variant and module, fewer bits in state and head, and a long text', () => {
  const { stdout, status, stderr } = bench(
    ...['--model', MODEL_FILE, '--variant', 'table', '--variant', 'popcount', '--state', 'i16'],
    ...['--head', 'int4', '--wasm', OWN_MODULE, '--long', '1000'],
  )
  assert.equal(stderr, '')
  assert.equal(status, 0)
  assert.match(stdout, /state i16, head int4; 2 rounds; a prompt of 100 tokens, 64 at once/)
  for (const variant of ['table', 'popcount']) {
    assert.match(stdout, RegExp(`^1 thread, ${variant}, .*bimamba\\.wasm$`, 'm'))
  }
  assert.equal(stdout.match(/after 100 others, .* after 1100: [\d.]+ times as long/g)?.length, 2)
  assert.equal(
    stdout.match(/^ {2}project_in .* %( +[\d.]+){3} +[\d.]+ %( +[\d.]+){2}$/gm)?.length,
    2,
  )
  assert.doesNotMatch(stdout, /NaN|undefined/)
})

test('mistakes exit with 2 and say what is wanted', async () => {
  for (const [args, pattern] of /** @type {[string[], RegExp][]} */ ([
    [['--synthetic', '9B'], /--synthetic is '9B', want 780M, 1\.3B, 2\.7B/],
    [['--synthetic', '780M', '--model', MODEL_FILE], /want one of them/],
    [['--threads', '0'], /--threads is 0, want an integer from 1 to 64/],
    [['--threads', 'auto'], /--threads is 'auto', want a number/],
    [['--long', '0.5'], /--long is 0\.5, want an integer/],
    [['--state', 'f8'], /--state is "f8", want f32, i16/],
    [['--variant', ''], /--variant is empty/],
    [['--variant', 'quick', '--model', MODEL_FILE], /variant is 'quick', want one of ref/],
    [['--wasm', OWN_MODULE, '--threads', '2'], /is a build without threads/],
    [['2.7B'], /unexpected argument '2\.7B'/],
  ])) {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()]
    const { signal } = new AbortController()
    const code = await main(['bench', ...args], { stdin: process.stdin, stdout, stderr, signal })
    assert.equal(code, 2)
    assert.equal(stdout.read(), null)
    assert.match(String(stderr.read()), RegExp(`^bimamba: [^\\n]*${pattern.source}[^\\n]*\\n$`))
  }
})

test('Ctrl-C ends it between two measurements', async () => {
  const args = ['bench', '--model', MODEL_FILE, '--rounds', '1000', '--prompt-tokens', '100000']
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 700)
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const io = { stdin: process.stdin, stdout, stderr, signal: controller.signal }
  assert.equal(await main(args, io), 130)
  assert.deepEqual([stdout.read(), stderr.read()], [null, null])
})

test('BiMamba.benchmark measures in a thread of its own, and says what it does', async () => {
  /** @type {string[]} */
  const done = []
  const { text, ...report } = await BiMamba.benchmark({
    source: MODEL_FILE,
    settings: [{ threads: 1, variant: 'table' }, { threads: 2 }],
    rounds: ROUNDS,
    promptTokens: 100,
    onProgress: (what) => done.push(what),
  })
  assert.equal(report.model.source, MODEL_FILE)
  assert.deepEqual(
    report.settings.map(({ threads, variant }) => [threads, variant]),
    [
      [1, 'table'],
      [2, 'table'],
    ],
  )
  for (const { decode, prefill, steps } of report.settings) {
    checkTimes(decode)
    checkTimes(prefill)
    checkSteps(steps?.decode ?? [])
  }
  assert.match(text, /^1 thread, table /m)
  assert.ok(done.includes(`round 1 of ${ROUNDS}`))
  assert.deepEqual(structuredClone(report), report)
})

test('BiMamba.benchmark: what is wrong is said, and a signal stops it', async () => {
  for (const [options, pattern] of /** @type {[object, RegExp][]} */ ([
    [{}, /want either shape or source/],
    [{ shape: '780M', source: 'x' }, /want either shape or source/],
    [{ shape: '9B' }, /shape '9B', want 780M, 1\.3B, 2\.7B/],
    [{ source: new Uint8Array(8) }, /want a URL, a path, a Blob or a file handle/],
    [{ source: MODEL_FILE, settings: [] }, /settings\.length is 0, want an integer from 1 to 16/],
    [{ source: MODEL_FILE, settings: [{ thread: 1 }] }, /did you mean 'threads'/],
    [{ source: MODEL_FILE, rounds: 0 }, /rounds is 0, want an integer from 1 to 100/],
  ])) {
    await assert.rejects(BiMamba.benchmark(options), { code: 'argument', message: pattern })
  }
  const signal = AbortSignal.timeout(500)
  const endless = { source: MODEL_FILE, rounds: 100, promptTokens: 100000, signal }
  await assert.rejects(BiMamba.benchmark(endless), { name: 'TimeoutError' })
})

describe('synthetic models', async () => {
  const core = await Core.create()

  test('have the sizes of the published ones', () => {
    const signs = { '780M': 48, '1.3B': 48, '2.7B': 64 }
    for (const name of SHAPE_NAMES) {
      const config = syntheticConfig(name)
      const { n_layer: layers, d_model: width, vocab_size: vocabulary } = config
      assert.equal(layers, signs[name])
      const traffic = trafficOf(core.tensors(config), config, 'f32')
      const inner = 2 * width
      const heads = inner / 64
      const inRows = 2 * inner + 2 * 128 + heads
      const convolved = inner + 2 * 128
      // Signs; alpha, beta and norm of both products; five columns of the convolution; three numbers a head.
      const floats = 3 * (width + inner) + 5 * convolved + 3 * heads
      const layer = (inRows * width + width * inner) / 8 + 4 * floats
      const table = vocabulary * (width + 4)
      assert.equal(traffic.weightBytes, layers * layer + table + 4 * width)
      const ssm = heads * (64 * 128 * 4 + 8)
      assert.equal(traffic.stateBytes, layers * (3 * convolved * 4 + ssm))
      assert.equal(traffic.signs.get('project_in'), layers * inRows * width)
      const bytes = [...traffic.stepBytes(1).values()].reduce((sum, value) => sum + value, 0)
      const folded = 4 * layers * (width + inner)
      const state = layers * (4 * convolved * 4 + 2 * ssm)
      assert.equal(bytes, traffic.weightBytes - folded + (width + 4) + state)
    }
  })

  test('are finite, the same every time, and stop being made on a signal', async () => {
    const config = { ...syntheticConfig('780M'), n_layer: 2 }
    const logits = []
    for (let i = 0; i < 2; i++) {
      const model = await randomModel(core, config)
      const session = model.createSession()
      session.append([1, 2, 3])
      logits.push(session.logits())
      model.close()
    }
    assert.deepEqual(logits[0], logits[1])
    const signal = AbortSignal.abort(new Error('enough'))
    await assert.rejects(randomModel(core, config, { signal }), /enough/)
  })
})

test('a pass over memory reads all of it, with any number of threads', async () => {
  for (const threads of [1, 2]) {
    const core = await Core.create({ shared: threads > 1 })
    await core.startTeam(threads)
    const block = core.pointer('stream_create', 3)
    const words = (3 * core.call('stream_task_bytes')) / 4
    assert.equal(core.call('stream_sum', block, 3) >>> 0, (0x01010101 * words) % 2 ** 32)
    core.call('stream_free', block)
    core.close()
    assert.throws(() => core.pointer('stream_create', 0), /0 tasks, want 1 to/)
  }
})
