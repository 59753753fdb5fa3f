/**
 * The report of `bimamba bench` as text for people.
 *
 * Owns the layout: what is on a line, how many digits a number has. What the numbers are is in js/bench/bench-report.js.
 */

import { formatBytes } from '../byte-count.js'
import { projectionsOf } from '../format.js'

/** @typedef {import('./bench-report.js').BenchReport} BenchReport */
/** @typedef {import('./bench-report.js').BenchSettingReport} BenchSettingReport */
/** @typedef {import('./bench-report.js').StepReport} StepReport */

/** What is in a step, in the words of the papers. @type {Record<string, string>} */
const STEP_WORDS = {
  embed: 'row of the embedding',
  prepare_in: 'norm, quantise inputs',
  project_in: 'in_proj product',
  scan: 'conv, state, gate',
  prepare_out: 'norm, quantise inputs',
  project_out: 'out_proj product',
  finish: 'last norm',
  head: 'logits of a token',
}

/** Where the GPU's steps are others: it has no integers and no tables, and the gate is with the norm. @type {Record<string, string>} */
const GPU_STEP_WORDS = {
  ...STEP_WORDS,
  prepare_in: 'norm',
  scan: 'conv, state',
  prepare_out: 'gate, norm',
}

/** @param {number} value @returns {string} three digits that count */
function digits(value) {
  if (!Number.isFinite(value)) return '-'
  if (value >= 100 || value === 0) return value.toFixed(0)
  return value >= 1 ? value.toPrecision(3) : value.toFixed(4)
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`

/** @param {string[][]} rows @returns {string} the first column to the left, the others to the right */
function align(rows) {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column].length)),
  )
  const lines = rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column]
        return column === 0 ? cell.padEnd(width) : cell.padStart(width)
      })
      .join('  ')
      .trimEnd(),
  )
  return `${lines.join('\n')}\n`
}

/** @param {BenchSettingReport} setting */
function labelOf({ gpu, threads, variant, wasm }) {
  if (gpu) return `GPU, ${variant}`
  const module = wasm === null ? '' : `, ${wasm}`
  return `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${variant}${module}`
}

/** @param {BenchReport} report @returns {string} lines of text */
export function tableOf(report) {
  const { settings } = report
  const parts = [headOf(report), speedsOf(settings)]
  for (const setting of settings) parts.push(...detailsOf(report, setting))
  return parts.join('\n')
}

/** @param {BenchReport} report */
function headOf({
  settings,
  machine,
  model,
  precision,
  state,
  head,
  rounds,
  promptTokens,
  chunkTokens,
  streams,
}) {
  const { n_layer: layers, d_model: width, vocab_size: vocabulary } = model.config
  const reading = streams.map(
    ({ threads, gbPerS }) =>
      `read at ${digits(gbPerS)} GB/s with ${threads} thread${threads > 1 ? 's' : ''}`,
  )
  const gpu = settings.find((setting) => setting.gpu)?.gpu
  if (gpu) reading.push(`copied at ${digits(gpu.copyGbPerS)} GB/s by the GPU`)
  const adapter = gpu
    ? `gpu      ${gpu.adapter}${gpu.isSoftware ? ', a program and no GPU' : ''}${gpu.integers ? `; integers by ${gpu.integers}` : ''}\n`
    : ''
  return `machine  ${machine.cpu ?? 'unknown processor'}, ${machine.cores} cores, ${machine.runtime}, bimamba ${machine.bimamba}, ${machine.date}
model    ${model.source}: ${layers} layers, d_model ${width}, ${vocabulary} tokens, projections ${projectionsOf(model.config)}; weights ${formatBytes(model.weightBytes)}, state ${formatBytes(model.stateBytes)}
work     precision ${precision}, state ${state}${head === 'int4' ? ', head int4' : ''}; ${rounds} rounds; a prompt of ${promptTokens} tokens, ${chunkTokens} at once
${adapter}memory   ${reading.join(', ')}; a token moves ${formatBytes(model.bytesPerToken)}
`
}

/** @param {BenchSettingReport[]} settings */
function speedsOf(settings) {
  const rows = settings.map((setting) => {
    const { decode, prefill } = setting
    return [
      labelOf(setting),
      ...[decode.ms, decode.bestMs, decode.tokensPerS, decode.speed],
      ...[prefill.ms, prefill.bestMs, prefill.tokensPerS, prefill.speed, prefill.timesDecode],
    ].map((cell) => (typeof cell === 'number' ? digits(cell) : cell))
  })
  const of = ['ms/token', 'best', 'tokens/s', 'x first']
  return align([
    ['', 'decode:', '', '', '', 'prefill:', '', '', '', ''],
    ['setting', ...of, ...of, 'x decode'],
    ...rows,
  ])
}

/** @param {BenchReport} report @param {BenchSettingReport} setting @returns {string[]} blocks of lines */
function detailsOf({ model, chunkTokens }, setting) {
  const { gpu, load, decode, steps, memory, long, threads, threadsUsed } = setting
  const used = threads > 1 ? ` (${threadsUsed} used)` : ''
  const words = load
    ? `${digits(load.ms)} ms until it is ready, ${formatBytes(load.bytesPerS)}/s`
    : 'not measured: the model is synthetic'
  // What is read again for every token stays in caches, if it fits.
  const cached = decode.boundShare > 1 ? '; caches hold some of it' : ''
  const fits = memory.bytes <= memory.limitBytes ? 'within' : 'MORE THAN'
  const lines = [
    `${labelOf(setting)}${used}`,
    `  load    ${words}`,
    `  memory  ${formatBytes(memory.bytes)}, ${fits} weights + state + 32 MB = ${formatBytes(memory.limitBytes)}`,
    `  bound   ${gpu ? 'moving' : 'reading'} ${formatBytes(model.bytesPerToken)}${gpu ? ' as fast as it copies' : ''} takes ${digits(decode.boundMs)} ms: decoding reaches ${percent(decode.boundShare)} of that speed (${percent(decode.bestBoundShare)} in the best round)${cached}`,
  ]
  if (long) {
    lines.push(
      `  long    a token takes ${digits(long.earlyMs)} ms after ${long.earlyPosition} others, ${digits(long.lateMs)} ms after ${long.latePosition}: ${long.ratio.toFixed(3)} times as long`,
    )
  }
  if (!steps) {
    const why = gpu
      ? 'the adapter has no timestamp-query, or too few for so many layers; times are of whole tokens'
      : 'this module cannot run them one by one'
    lines.push(`  steps   not measured: ${why}`)
  }
  const block = `${lines.join('\n')}\n`
  if (!steps) return [block]
  return [block + stepsOf(steps, chunkTokens, gpu !== null)]
}

/** @param {StepReport} step */
const weightsOf = ({ gigaWeightsPerS }) => (gigaWeightsPerS === null ? '' : digits(gigaWeightsPerS))

/**
 * @param {{ decode: StepReport[], prefill: StepReport[] }} steps
 * @param {number} chunkTokens
 * @param {boolean} isGpu  every step beside what its memory does
 */
function stepsOf({ decode, prefill }, chunkTokens, isGpu) {
  const cells = (/** @type {StepReport | undefined} */ step) =>
    step
      ? [
          digits(step.ms),
          percent(step.share),
          digits(step.gbPerS),
          isGpu ? percent(step.boundShare) : weightsOf(step),
        ]
      : []
  const words = isGpu ? GPU_STEP_WORDS : STEP_WORDS
  const rows = decode.map((step, i) => [
    `  ${step.step.padEnd(12)} ${words[step.step] ?? ''}`,
    ...cells(step),
    ...cells(prefill[i]),
  ])
  const sum = (/** @type {StepReport[]} */ steps) => digits(steps.reduce((ms, s) => ms + s.ms, 0))
  const of = ['ms/token', 'share', 'GB/s', isGpu ? 'of copy' : 'Gweights/s']
  return align([
    ['  steps', 'one token:', '', '', '', `${chunkTokens} at once:`, '', '', ''],
    ['', ...of, ...of],
    ...rows,
    ['  all', sum(decode), '', '', '', sum(prefill), '', '', ''],
  ])
}
