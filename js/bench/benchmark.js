/**
 * A benchmark from its plan to its report: what `BiMamba.benchmark` and `bimamba bench` run.
 *
 * Owns nothing but the order: measure (js/bench/bench-run.js), say what it means (js/bench/bench-report.js), lay it out
 * (js/bench/bench-table.js).
 */

import { reportOf } from './bench-report.js'
import { runBench } from './bench-run.js'
import { tableOf } from './bench-table.js'

/** @typedef {import('./bench-run.js').BenchPlan} BenchPlan */
/** @typedef {import('./bench-report.js').BenchReport & { text: string }} Benchmark  text: the report as a table, for people */

/**
 * @param {BenchPlan} plan
 * @param {{ signal: AbortSignal, onProgress: (what: string) => void }} control  what: the words for what is done now
 * @returns {Promise<Benchmark>}
 */
export async function benchmark(plan, control) {
  const report = reportOf(plan, await runBench(plan, control))
  return { ...report, text: tableOf(report) }
}
