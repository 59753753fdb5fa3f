/**
 * A progress bar on a terminal: share done, speed and the time left.
 *
 * Owns when to draw (only on a terminal, ten times a second) and what. Knows nothing of what is being done.
 */

import { performance } from 'node:perf_hooks'
import { formatBytes } from '../byte-count.js'

const BAR_CELLS = 24
const REDRAW_MS = 100

/** @param {number} seconds */
function formatTime(seconds) {
  const whole = Math.round(seconds)
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`
}

/** @typedef {'bytes' | 'tokens'} ProgressUnit */

/**
 * One line of the bar, without line breaks.
 *
 * @param {number} done
 * @param {number} total
 * @param {number} elapsedMs since the start
 * @param {ProgressUnit} [unit] of both
 */
export function progressLine(done, total, elapsedMs, unit = 'bytes') {
  const share = total > 0 ? Math.min(1, done / total) : 1
  const perSecond = (1000 * done) / Math.max(1, elapsedMs)
  const speed =
    unit === 'bytes' ? `${(perSecond / 1e6).toFixed(0)} MB/s` : `${perSecond.toFixed(0)} tokens/s`
  const left = share > 0 ? ((1 - share) / share) * (elapsedMs / 1000) : 0
  return `${barOf(share)}  ${speed}  ${formatTime(left)} left`
}

/** @param {number} share of 1 */
function barOf(share) {
  const bar = '#'.repeat(Math.floor(share * BAR_CELLS)).padEnd(BAR_CELLS, '.')
  return `[${bar}] ${String(Math.floor(share * 100)).padStart(3)} %`
}

/**
 * One line of a terminal that is written again and again.
 *
 * @param {import('./output.js').OutputStream} stream
 * @returns {{ show: (text: string) => void, clear: () => void }} `clear` wipes it; both do nothing where there is no terminal
 */
function createLine(stream) {
  if (!stream.isTTY) return { show: () => {}, clear: () => {} }
  let visible = false
  return {
    show: (text) => {
      visible = true
      stream.write(`\r\x1b[K${text}`)
    },
    clear: () => {
      if (visible) stream.write('\r\x1b[K')
      visible = false
    },
  }
}

/**
 * @param {import('./output.js').OutputStream} stream
 * @param {ProgressUnit} [unit]
 * @returns {{ update: (done: number, total: number) => void, clear: () => void }}
 */
export function createProgress(stream, unit = 'bytes') {
  const line = createLine(stream)
  const start = performance.now()
  let drawn = Number.NEGATIVE_INFINITY
  return {
    update: (done, total) => {
      const now = performance.now()
      if (now - drawn < REDRAW_MS && done < total) return
      drawn = now
      line.show(progressLine(done, total, now - start, unit))
    },
    clear: line.clear,
  }
}

/**
 * Of a run over items that may have begun earlier.
 *
 * @param {import('./output.js').OutputStream} stream
 * @param {string} unit of the items
 * @param {number} before how many were done by an earlier run
 * @returns {{ update: (done: number, total: number, note?: string) => void, clear: () => void }} done: with those before
 */
export function createItemProgress(stream, unit, before) {
  const line = createLine(stream)
  const start = performance.now()
  let drawn = Number.NEGATIVE_INFINITY
  return {
    update: (done, total, note = '') => {
      const now = performance.now()
      if (now - drawn < REDRAW_MS && done < total) return
      drawn = now
      const msEach = (now - start) / Math.max(1, done - before)
      const left = done > before ? `  ${formatTime(((total - done) * msEach) / 1000)} left` : ''
      line.show(`${barOf(done / total)}  ${done} of ${total} ${unit}${note}${left}`)
    },
    clear: line.clear,
  }
}

/** @typedef {import('../load-meter.js').Progress} LoadProgress */

/** A load that takes less than this shows nothing, ms. */
const QUIET_MS = 300

/** @param {LoadProgress} progress @returns {string} one line about a load, without line breaks */
export function loadLine({ phase, loadedBytes, totalBytes, cachedBytes, bytesPerSecond, etaMs }) {
  if (phase === 'connect' || totalBytes === null) return 'connecting'
  if (phase === 'wait') return 'waiting: another process is downloading this model'
  if (phase === 'start' || phase === 'ready') return 'starting'
  const speed = !bytesPerSecond ? '' : `  ${formatBytes(bytesPerSecond)}/s`
  const left = etaMs === null ? '' : `  ${formatTime(etaMs / 1000)} left`
  const share = Math.floor((100 * cachedBytes) / totalBytes)
  const cached = share > 0 ? `  ${share} % from the cache` : ''
  const size = `${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`
  return `${barOf(loadedBytes / totalBytes)}  ${size}${speed}${left}${cached}`
}

/**
 * @param {import('./output.js').OutputStream} stream
 * @returns {{ update: (progress: LoadProgress) => void, clear: () => void }}
 */
export function createLoadProgress(stream) {
  const line = createLine(stream)
  const start = performance.now()
  return {
    update: (progress) => {
      if (performance.now() - start >= QUIET_MS) line.show(loadLine(progress))
    },
    clear: line.clear,
  }
}
