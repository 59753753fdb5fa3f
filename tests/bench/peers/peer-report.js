/**
 * The results as text: docs/PEERS.md is made from docs/peers.json by this file alone.
 *
 * Owns the tables and the ratios. A ratio compares with the best that the other engine reaches with any of its types and with as many
 * threads or fewer, since a user of it would choose that.
 */

import { median } from '../../../js/bench/bench-report.js'

/** @typedef {import('./logits-check.js').CheckRow} CheckRow */
/** @typedef {import('./peer-rounds.js').SpeedRow} SpeedRow */

/**
 * @typedef {object} Circumstances
 * @property {string} date
 * @property {string} command
 * @property {string} machine
 * @property {Record<string, string>} versions
 */

/**
 * @typedef {object} PeerResults
 * @property {(Circumstances & { rows: CheckRow[] }) | null} check
 * @property {(Circumstances & { rows: SpeedRow[], load: number[] }) | null} speed `load` of the machine before and after, by minute
 */

/** @typedef {'decode' | 'prompt'} Measure */

/** @param {PeerResults} results @returns {string} */
export function peerReport({ check, speed }) {
  return `${[
    '# Side by side with llama.cpp',
    '',
    'Made by `npm run bench:peers`, which installs what it compares with; the numbers are in [peers.json](peers.json).',
    '',
    '## Speed',
    '',
    ...(speed ? speedSection(speed) : ['Not measured yet.']),
    '',
    '## Same logits',
    '',
    ...(check ? checkSection(check) : ['Not measured yet.']),
  ].join('\n')}\n`
}

/** @param {Circumstances} circumstances */
function circumstancesLine({ date, command, machine, versions }) {
  const list = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return `\`${command}\`, ${date}, ${machine}; ${list.join(', ')}.`
}

/** @param {NonNullable<PeerResults['speed']>} speed */
function speedSection(speed) {
  const shapes = [...new Set(speed.rows.map(({ shape }) => shape))]
  const [before = 0, after = 0] = speed.load
  const rounds = speed.rows[0]?.decode.length ?? 0
  return [
    'Random weights in the shapes of the published models, tokens per second, medians. Every subject lives in a process of its own,',
    'only one works at a time, and all are asked in every round. llama.cpp runs as the native program (node-llama-cpp: AVX-512',
    'where the processor has it) and as WebAssembly (wllama), at the settings that suited it best: one sequence, no GPU. All files',
    'have an embedding of 8 bits. A prompt has 512 tokens; where that would take too long, it has as many as the parentheses say.',
    '',
    '![Tokens per second of each engine](peers.svg)',
    ...shapes.flatMap((shape) => ['', `### ${shape}`, '', ...shapeTables(shape, speed.rows)]),
    '',
    `${circumstancesLine(speed)} Rounds: ${rounds}, with a prompt in every second one. Load of the machine before and after: ${before.toFixed(1)}, ${after.toFixed(1)}.`,
  ]
}

/** @param {string} shape @param {SpeedRow[]} all */
function shapeTables(shape, all) {
  const rows = all.filter((row) => row.shape === shape)
  const threads = [...new Set(rows.map((row) => row.threads))]
  const measures = /** @type {Measure[]} */ (['decode', 'prompt'])
  const columns = measures.flatMap((measure) => threads.map((count) => ({ measure, count })))
  const titles = columns.map(({ measure, count }) => {
    const what = measure === 'decode' ? 'one after another' : 'of a prompt'
    return `${what}, ${count} thread${count > 1 ? 's' : ''}`
  })
  const line = (/** @type {string[]} */ cells) => `| ${cells.join(' | ')} |`
  const rule = line(['---', ...titles.map(() => '---:')])
  const kinds = [...new Set(rows.map(kindOf))]
  const speeds = kinds.map((kind) =>
    line([
      kind,
      ...columns.map(({ measure, count }) =>
        cell(
          rows.find((row) => kindOf(row) === kind && row.threads === count),
          measure,
        ),
      ),
    ]),
  )
  const ratios = ['Node', 'Chromium'].flatMap((host) =>
    ['llama.cpp', 'wllama'].map((engine) =>
      line([
        `bimamba in ${host} / best of ${engine === 'wllama' ? engine : 'native llama.cpp'}`,
        ...columns.map(({ measure, count }) => ratio(rows, { host, engine, measure, count })),
      ]),
    ),
  )
  return [
    line(['tokens/s', ...titles]),
    rule,
    ...speeds,
    '',
    line(['ratio', ...titles]),
    rule,
    ...ratios,
  ]
}

/** @param {SpeedRow} row */
export function kindOf({ engine, host, type }) {
  return `${engine === 'llama.cpp' ? 'llama.cpp, native' : `${engine}, ${host}`}, ${type}`
}

/** @param {SpeedRow | undefined} row @param {Measure} measure */
function cell(row, measure) {
  if (!row) return ''
  const speed = digits(median(row[measure]))
  return measure === 'prompt' && row.promptTokens < 512 ? `${speed} (${row.promptTokens})` : speed
}

/**
 * @param {SpeedRow[]} rows of one shape
 * @param {{ host: string, engine: string, measure: Measure, count: number }} wanted
 */
function ratio(rows, { host, engine, measure, count }) {
  const ours = rows.find((r) => r.engine === 'bimamba' && r.host === host && r.threads === count)
  const [best] = rows
    .filter((row) => row.engine === engine && row.threads <= count)
    .toSorted((a, b) => median(b[measure]) - median(a[measure]))
  if (!ours || !best) return ''
  const over = median(ours[measure]) / median(best[measure])
  return `${digits(over)} (${best.type}${best.threads < count ? `, ${best.threads} thread` : ''})`
}

/** @param {number} value three digits */
function digits(value) {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(value >= 10 ? 3 : 2)
}

/** @param {NonNullable<PeerResults['check']>} check */
function checkSection(check) {
  return [
    'tales-nano, exported by `bimamba export-gguf`, in native llama.cpp against `exact` here, on a text that it wrote itself. With its',
    'signs as F32 llama.cpp computes in float32; as Q1_0 and Q4_0 it rounds the inputs of each product to int8.',
    '',
    '| signs | positions | largest difference of two logits | largest logit | same likeliest token |',
    '| --- | ---: | ---: | ---: | ---: |',
    ...check.rows.map(
      ({ signs, positions, worst, largest, sameArgmax }) =>
        `| ${signs} | ${positions} | ${worst.toExponential(1)} | ${largest.toFixed(1)} | ${sameArgmax} |`,
    ),
    '',
    circumstancesLine(check),
  ]
}
