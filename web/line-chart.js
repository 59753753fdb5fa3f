/**
 * A chart of lines, as SVG.
 *
 * Owns axes and how values become places. What is drawn is also said: the caller gives a sentence that tells the same. Colours are the style sheet's, by the
 * line's class.
 */

import { formatCount } from './number-text.js'

/** @typedef {{ name: string, className: string, points: readonly (readonly [number, number])[] }} Line */

/**
 * @typedef {object} Chart
 * @property {string} title
 * @property {string} says        the same in words
 * @property {readonly Line[]} lines
 * @property {string} xName
 * @property {(y: number) => string} formatY
 * @property {number} mostX
 * @property {number} mostY
 */

const WIDTH = 480
const HEIGHT = 220
const LEFT = 62
const RIGHT = 12
const TOP = 12
const BOTTOM = 36
const NAMESPACE = 'http://www.w3.org/2000/svg'

/** @param {string} tag @param {Record<string, string | number>} attributes @param {string} [text] */
function svg(tag, attributes, text) {
  const element = document.createElementNS(NAMESPACE, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value))
  if (text !== undefined) element.textContent = text
  return element
}

/** @param {number} most @returns {number[]} three to six round numbers from 0 to about `most` */
function ticks(most) {
  const rough = most / 4
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough) ?? rough
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, i) => i * step)
}

/** @param {Chart} chart @returns {SVGElement} */
export function drawLines({ title, says, lines, xName, formatY, mostX, mostY }) {
  const root = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: 'img',
    'aria-label': `${title}. ${says}`,
  })
  const x = (/** @type {number} */ value) => LEFT + (value / mostX) * (WIDTH - LEFT - RIGHT)
  const y = (/** @type {number} */ value) =>
    HEIGHT - BOTTOM - (value / mostY) * (HEIGHT - TOP - BOTTOM)
  for (const tick of ticks(mostY)) {
    root.append(
      svg('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
    )
    root.append(
      svg(
        'text',
        { class: 'tick', x: LEFT - 6, y: y(tick) + 4, 'text-anchor': 'end' },
        formatY(tick),
      ),
    )
  }
  for (const tick of ticks(mostX)) {
    root.append(
      svg(
        'text',
        { class: 'tick', x: x(tick), y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle' },
        formatCount(tick),
      ),
    )
  }
  root.append(
    svg('text', { class: 'tick', x: WIDTH - RIGHT, y: HEIGHT - 4, 'text-anchor': 'end' }, xName),
  )
  for (const { className, points } of lines) {
    const path = points
      .map(([px, py]) => `${x(px).toFixed(1)},${y(Math.min(py, mostY)).toFixed(1)}`)
      .join(' ')
    root.append(svg('polyline', { class: `curve ${className}`, points: path }))
  }
  return root
}
