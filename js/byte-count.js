/**
 * Numbers of bytes for people.
 */

/** @param {number} bytes @returns {string} decimal units: 1 MB = 10^6 bytes */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} bytes`
  const units = ['kB', 'MB', 'GB', 'TB']
  const power = Math.min(units.length, Math.floor(Math.log10(bytes) / 3))
  return `${(bytes / 1000 ** power).toPrecision(3)} ${units[power - 1]}`
}
