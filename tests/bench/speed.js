/**
 * `npm run bench -- [780M|1.3B|2.7B] [--precision fast] [--state f32] [--rounds 7] [--threads N ...]
 * [--variant NAME ...] [--wasm FILE ...]`: decode and prefill speed of the engine on a random model of a true shape,
 * without text around it.
 *
 * Owns the shapes, the random weights and the timing. Numbers of threads, kernel families and modules are timed in turn, round
 * by round, because a shared machine drifts: compare the ratios of one run, not numbers of different runs. Prints one
 * JSON line a row: medians and best times in ms a token, tokens per second, and the bytes that a token must move.
 */

import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { Core } from '../../js/core.js'

/** n_layer and d_model of the published Bi-Mamba sizes. @type {Record<string, [number, number]>} */
const SHAPES = { '780M': [48, 1536], '1.3B': [48, 2048], '2.7B': [64, 2560] }
const PREFILL_TOKENS = 128
const DECODE_TOKENS = 8

/** @typedef {import('../../js/format.js').ModelConfig} ModelConfig */
/** @typedef {import('../../js/core.js').CoreSession} CoreSession */

/** @param {string} shape @returns {ModelConfig} */
function configOf(shape) {
  const [n_layer, d_model] = SHAPES[shape] ?? []
  if (!n_layer || !d_model)
    throw new Error(`shape '${shape}', want ${Object.keys(SHAPES).join(', ')}`)
  return {
    n_layer,
    d_model,
    d_state: 128,
    headdim: 64,
    ngroups: 1,
    d_conv: 4,
    expand: 2,
    vocab_size: 32000,
    padded_vocab_size: 32000,
    tie_embeddings: true,
    norm_eps: 1e-5,
    dt_min: 0,
    dt_max: null,
    embedding_dtype: 'I8',
  }
}

/** Random bytes by xorshift, the same on every machine. */
function randomBytes(/** @type {number} */ length) {
  const words = new Uint32Array(length / 4)
  let s = 2463534242
  for (let i = 0; i < words.length; i++) {
    s ^= s << 13
    s ^= s >>> 17
    s ^= s << 5
    words[i] = s
  }
  return new Uint8Array(words.buffer)
}

/** Ranges in which each kind of float tensor keeps a deep random model finite: [least, width]. */
const FLOAT_RANGES = /** @type {[RegExp, number, number][]} */ ([
  [/norm|\.D$/, 1, 0],
  [/scale$/, 1e-3, 0],
  [/alpha$/, 0.02, 0.02],
  [/beta$/, -0.001, 0.002],
  [/A_log$/, 0, 2.5],
  [/dt_bias$/, -6, 4],
  [/./, -0.5, 1],
])

/**
 * @param {Core} core
 * @param {ModelConfig} config
 * @param {string} variant
 */
function randomModel(core, config, variant) {
  const model = core.createModel(config, { variant })
  const noise = randomBytes(1 << 20)
  core.tensors(config).forEach(({ name, dtype, sizeBytes }, index) => {
    if (dtype === 'F32') {
      const [, least, width] = FLOAT_RANGES.find(([names]) => names.test(name)) ?? [/./, 0, 0]
      const values = Float32Array.from({ length: sizeBytes / 4 }, (_, i) => {
        return least + ((noise[(i * 7 + index) % noise.length] ?? 0) / 255) * width
      })
      model.write(index, 0, new Uint8Array(values.buffer))
      return
    }
    for (let at = 0; at < sizeBytes; at += noise.length) {
      model.write(index, at, noise.subarray(0, Math.min(noise.length, sizeBytes - at)))
    }
  })
  for (let part = 0; part < model.parts; part++) model.seal(part)
  return model
}

/** @param {CoreSession} session @returns {{ decode: number, head: number, prefill: number }} ms a token */
function round(session) {
  const prompt = Array.from({ length: PREFILL_TOKENS }, (_, i) => (i * 7919) % 32000)
  let start = performance.now()
  for (let i = 0; i < prompt.length; i += session.maxChunk) {
    session.append(prompt.slice(i, i + session.maxChunk))
  }
  const prefill = (performance.now() - start) / prompt.length
  start = performance.now()
  for (let i = 0; i < DECODE_TOKENS; i++) session.append([i + 1])
  const decode = (performance.now() - start) / DECODE_TOKENS
  start = performance.now()
  session.logits()
  return { decode, head: performance.now() - start, prefill }
}

/** @param {number[]} values */
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/**
 * Bytes of weights and state that one token of decoding must move.
 * @param {Core} core
 * @param {ModelConfig} config
 * @param {string} state
 */
function bytesPerToken(core, config, state) {
  const tensors = core.tensors(config)
  const signs = tensors
    .filter(({ dtype }) => dtype === 'U8')
    .reduce((sum, t) => sum + t.sizeBytes, 0)
  const head = tensors[0]?.sizeBytes ?? 0
  const elements = config.n_layer * config.expand * config.d_model * config.d_state
  return signs + head + 2 * elements * (state === 'f16' ? 2 : 4)
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    precision: { type: 'string', default: 'fast' },
    state: { type: 'string', default: 'f32' },
    rounds: { type: 'string', default: '7' },
    chunk: { type: 'string', default: '64' },
    threads: { type: 'string', multiple: true, default: ['1'] },
    variant: { type: 'string', multiple: true, default: ['table'] },
    wasm: { type: 'string', multiple: true },
  },
})
const shape = positionals[0] ?? '780M'
const config = configOf(shape)
const setups = values.threads.flatMap((threads) => {
  const own = Number(threads) > 1 ? 'dist/bimamba-threads.wasm' : 'dist/bimamba.wasm'
  const files = values.wasm ?? [own]
  return files.flatMap((file) =>
    values.variant.map((variant) => ({ file, variant, threads: Number(threads) })),
  )
})
const runs = []
for (const { file, variant, threads } of setups) {
  const core = await Core.create({ wasm: readFileSync(file) })
  await core.startTeam(threads)
  const session = randomModel(core, config, variant).createSession({
    precision: /** @type {import('../../js/core.js').Precision} */ (values.precision),
    state: /** @type {import('../../js/core.js').StateType} */ (values.state),
    maxChunk: Number(values.chunk),
  })
  round(session) // the engine's optimising compiler replaces the kernels while they run
  runs.push({
    file,
    variant,
    threads,
    core,
    session,
    times: /** @type {ReturnType<typeof round>[]} */ ([]),
  })
}
for (let i = 0; i < Number(values.rounds); i++) {
  for (const run of runs) run.times.push(round(run.session))
}
for (const { file, variant, threads, core, times } of runs) {
  const bytes = bytesPerToken(core, config, values.state)
  const token = times.map(({ decode, head }) => decode + head)
  const ms = median(token)
  console.log(
    JSON.stringify({
      shape,
      wasm: file,
      variant,
      threads,
      precision: values.precision,
      state: values.state,
      decode_ms: +ms.toFixed(2),
      decode_best_ms: +Math.min(...token).toFixed(2),
      decode_tokens_per_s: +(1000 / ms).toFixed(1),
      head_ms: +median(times.map(({ head }) => head)).toFixed(2),
      prefill_ms: +median(times.map(({ prefill }) => prefill)).toFixed(2),
      prefill_best_ms: +Math.min(...times.map(({ prefill }) => prefill)).toFixed(2),
      bytes_per_token: bytes,
      gb_per_s: +(bytes / ms / 1e6).toFixed(1),
      memory_mb: +(core.memoryBytes / 1e6).toFixed(0),
      machine: cpus()[0]?.model,
      node: process.version,
    }),
  )
}
for (const { core } of runs) core.close()
