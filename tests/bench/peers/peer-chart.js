/**
 * The speeds as bars: docs/peers.svg.
 *
 * Owns the layout. One panel for each shape and measure, one pair of bars for each kind: 1 thread above 2. The picture brings its own
 * colours for light and dark pages, and no background.
 */

import { median } from '../../../js/bench/bench-report.js'
import { kindOf } from './peer-report.js'

/** @typedef {import('./peer-rounds.js').SpeedRow} SpeedRow */
/** @typedef {import('./peer-report.js').Measure} Measure */

const WIDTH = 720
const LABELS = 190
const VALUES = 60
const BAR = 9
const PAIR = 2 * BAR + 8
const HEAD = 34

const STYLE = `
text { font: 12px sans-serif; fill: #24292f }
.title { font-weight: bold }
.ours { fill: #1a7f5a }
.peer { fill: #8c959f }
.two { opacity: 0.6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #3fb98a }
  .peer { fill: #7d8590 }
}`

const TITLES = { decode: 'one after another', prompt: 'of a prompt' }

/** @param {SpeedRow[]} rows @returns {string} */
export function peerChart(rows) {
  const shapes = [...new Set(rows.map(({ shape }) => shape))]
  const parts = []
  let y = 0
  for (const shape of shapes) {
    for (const measure of /** @type {Measure[]} */ (['decode', 'prompt'])) {
      const own = rows.filter((row) => row.shape === shape)
      parts.push(`<g transform="translate(0 ${y})">${panel(shape, measure, own)}</g>`)
      y += HEAD + new Set(own.map(kindOf)).size * PAIR
    }
  }
  const title = 'Tokens per second of each engine, with one thread and with two'
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 8}" role="img" aria-label="${title}">`,
    `<title>${title}</title>`,
    `<style>${STYLE}</style>`,
    ...parts,
    '</svg>\n',
  ].join('\n')
}

/** @param {string} shape @param {Measure} measure @param {SpeedRow[]} rows */
function panel(shape, measure, rows) {
  const most = Math.max(...rows.map((row) => median(row[measure])))
  const lines = [
    `<text class="title" x="0" y="22">${shape}: tokens/s ${TITLES[measure]}, above 1 thread, below 2</text>`,
  ]
  for (const [i, kind] of [...new Set(rows.map(kindOf))].entries()) {
    const top = HEAD + i * PAIR
    lines.push(`<text x="${LABELS - 8}" y="${top + BAR + 4}" text-anchor="end">${kind}</text>`)
    for (const [j, row] of rows.filter((one) => kindOf(one) === kind).entries()) {
      const speed = median(row[measure])
      const width = Math.max(1, (speed / most) * (WIDTH - LABELS - VALUES))
      const look = `${row.engine === 'bimamba' ? 'ours' : 'peer'}${j ? ' two' : ''}`
      const y = top + j * BAR
      lines.push(
        `<rect class="${look}" x="${LABELS}" y="${y}" width="${width.toFixed(1)}" height="${BAR - 1}"/>`,
        `<text x="${(LABELS + width + 5).toFixed(1)}" y="${y + BAR - 1}" style="font-size: 10px">${speed.toFixed(speed < 10 ? 1 : 0)}</text>`,
      )
    }
  }
  return lines.join('\n')
}
