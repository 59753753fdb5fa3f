/**
 * How far a load is: phases, bytes, speed, the time left.
 *
 * Owns what is reported and when: at most ten times a second, never going back, once at the end. Knows nothing about where bytes come from.
 */

/**
 * How far a load is.
 *
 * @typedef {object} Progress
 * @property {'connect' | 'wait' | 'load' | 'start' | 'ready'} phase  'connect': the header is awaited; 'wait': another tab or process is
 *   downloading the same file; 'load': bytes arrive and are checked; 'start': all are there, and what is left of the prompt is read; 'ready': the end
 * @property {number} loadedBytes         never goes down, unless the file turns out to be a shorter one now; all of them at 'ready'
 * @property {number | null} totalBytes   from the file's header; null before
 * @property {number} cachedBytes         of `loadedBytes`, those that were on this device
 * @property {number | null} bytesPerSecond over the last seconds; null before anything can be said
 * @property {number | null} etaMs        time left at that speed
 */

const INTERVAL_MS = 100
/** Speed is that of so long a time, ms: shorter jumps, longer is slow to see a change. */
const WINDOW_MS = 4000

export class LoadMeter {
  #onProgress
  /** @type {Progress['phase']} */
  #phase = 'connect'
  /** @type {number | null} */
  #total = null
  /** Bytes on their way to being a chunk, and those that are one. */
  #arrived = 0
  #cached = 0
  #shown = 0
  #lastReport = Number.NEGATIVE_INFINITY
  /** @type {{ at: number, bytes: number }[]} one every interval */
  #samples = []

  /** @param {((progress: Progress) => void) | undefined} onProgress */
  constructor(onProgress) {
    this.#onProgress = onProgress
  }

  /** The header is there. @param {number} totalBytes @param {number} headerBytes @param {boolean} [isCached] the header was on this device */
  begin(totalBytes, headerBytes, isCached = false) {
    if (this.#shown > totalBytes) {
      this.#shown = totalBytes
      this.#samples = []
    }
    this.#total = totalBytes
    this.#arrived = headerBytes
    this.#cached = isCached ? headerBytes : 0
  }

  /** @param {Progress['phase']} phase */
  enter(phase) {
    if (this.#phase === phase) return
    this.#phase = phase
    this.#report(true)
  }

  /** @param {number} bytes that arrived; negative: those of a chunk that was not right, or was not finished */
  add(bytes) {
    this.#arrived += bytes
    this.#report(false)
  }

  /** @param {number} bytes of `add` that were on this device */
  addCached(bytes) {
    this.#cached += bytes
    this.add(bytes)
  }

  /** @param {boolean} now whatever the interval */
  #report(now) {
    const at = performance.now()
    if (!this.#onProgress || (!now && at - this.#lastReport < INTERVAL_MS)) return
    this.#lastReport = at
    const all = this.#phase === 'start' || this.#phase === 'ready' ? this.#total : null
    this.#shown = Math.max(
      this.#shown,
      Math.min(all ?? this.#arrived, this.#total ?? this.#arrived),
    )
    const bytesPerSecond = this.#speed(at)
    const left = this.#total === null ? null : this.#total - this.#shown
    this.#onProgress({
      phase: this.#phase,
      loadedBytes: this.#shown,
      totalBytes: this.#total,
      cachedBytes: this.#cached,
      bytesPerSecond,
      etaMs: left === 0 ? 0 : timeFor(left, bytesPerSecond),
    })
  }

  /** @param {number} at @returns {number | null} */
  #speed(at) {
    this.#samples.push({ at, bytes: this.#shown })
    while (this.#samples.length > 2 && at - Number(this.#samples[1]?.at) > WINDOW_MS) {
      this.#samples.shift()
    }
    const first = this.#samples[0]
    if (!first || at - first.at < INTERVAL_MS / 2) return null
    return Math.round((1000 * (this.#shown - first.bytes)) / (at - first.at))
  }
}

/** @param {number | null} bytes @param {number | null} bytesPerSecond @returns {number | null} ms */
function timeFor(bytes, bytesPerSecond) {
  if (bytes === null || !bytesPerSecond) return null
  return Math.round((1000 * bytes) / bytesPerSecond)
}
