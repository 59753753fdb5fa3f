/**
 * A progress bar on a terminal: share done, speed and the time left.
 *
 * Owns when to draw (only on a terminal, ten times a second) and what. Knows nothing of what is being done.
 */

import { performance } from 'node:perf_hooks'

const BAR_CELLS = 24
const REDRAW_MS = 100

/** @param {number} bytes @returns {string} decimal units: 1 MB = 10^6 bytes */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} bytes`
  const units = ['kB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length, Math.floor(Math.log10(bytes) / 3))
  return `${(bytes / 1000 ** power).toPrecision(3)} ${units[power - 1]}`
}

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
  const cells = Math.floor(share * BAR_CELLS)
  const bar = '#'.repeat(cells).padEnd(BAR_CELLS, '.')
  const perSecond = (1000 * done) / Math.max(1, elapsedMs)
  const speed =
    unit === 'bytes' ? `${(perSecond / 1e6).toFixed(0)} MB/s` : `${perSecond.toFixed(0)} tokens/s`
  const left = share > 0 ? ((1 - share) / share) * (elapsedMs / 1000) : 0
  const percent = String(Math.floor(share * 100)).padStart(3)
  return `[${bar}] ${percent} %  ${speed}  ${formatTime(left)} left`
}

/**
 * @param {import('./output.js').OutputStream} stream
 * @param {ProgressUnit} [unit]
 * @returns {{ update: (done: number, total: number) => void, clear: () => void }} `clear` wipes the line; both do
 *   nothing where there is no terminal
 */
export function createProgress(stream, unit = 'bytes') {
  if (!stream.isTTY) return { update: () => {}, clear: () => {} }
  const start = performance.now()
  let drawn = Number.NEGATIVE_INFINITY
  let visible = false
  return {
    update: (done, total) => {
      const now = performance.now()
      if (now - drawn < REDRAW_MS && done < total) return
      drawn = now
      visible = true
      stream.write(`\r\x1b[K${progressLine(done, total, now - start, unit)}`)
    },
    clear: () => {
      if (visible) stream.write('\r\x1b[K')
      visible = false
    },
  }
}
