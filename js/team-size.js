/**
 * How many threads work best, found by what tokens cost while they are made.
 *
 * Owns the choice; knows neither clock nor threads: whoever times the work asks for a number and reports the time.
 * The idea: hardware concurrency counts cores that are slow, busy or not real, so every candidate is tried on a few
 * tokens and the quickest stays. Now and then its neighbours are tried again, since other programs come and go. No result
 * depends on the number, so nothing is lost but a few microseconds.
 */

/** Trials of a candidate before it is judged: the least of their times counts, since noise only adds. */
const TRIALS = 3
/** The first tokens say nothing: the JavaScript engine is still replacing the kernels by faster code. */
const WARM_UP = 8
/** Tokens between two looks at a neighbour. */
const RECHECK = 64
/** A change must promise this much, or noise would make it. */
const GAIN = 0.95
/** Something else has begun when tokens cost this much more than when the choice was made. */
const ALARM = 1.25

export class TeamSize {
  /** @type {number[]} */
  #candidates
  /** @type {number[][]} the last times of each candidate, ms */
  #times
  /** @type {number} index of the one in use */
  #best
  /** @type {number[]} candidates to be tried, an entry a token */
  #trials
  #warmUp = WARM_UP
  #sinceCheck = 0
  /** ms of a token when the choice was last looked at */
  #usual = Number.POSITIVE_INFINITY
  #side = 1

  /** @param {number} most threads there are */
  constructor(most) {
    const sizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64].filter((size) => size < most)
    this.#candidates = [...sizes, most]
    this.#times = this.#candidates.map(() => [])
    this.#best = this.#candidates.length - 1
    // From the largest down: on most machines the first is right already.
    this.#trials = this.#candidates.flatMap((_, i) => Array(TRIALS).fill(i)).reverse()
    if (this.#candidates.length === 1) this.#trials = []
  }

  /** @returns {number} threads for the next token */
  get next() {
    const trial = this.#warmUp > 0 ? undefined : this.#trials[0]
    return this.#candidates[trial ?? this.#best] ?? 1
  }

  /** @returns {number} threads that were best so far */
  get best() {
    return this.#candidates[this.#best] ?? 1
  }

  /** @param {number} ms what one token took with `next` threads */
  report(ms) {
    if (this.#candidates.length === 1 || this.#warmUp-- > 0) return
    const wasTrial = this.#trials.length > 0
    const tried = this.#trials.shift() ?? this.#best
    const times = /** @type {number[]} */ (this.#times[tried])
    times.push(ms)
    if (times.length > TRIALS) times.shift()
    if (this.#trials.length > 0) return
    if (wasTrial) this.#judge()
    const now = this.#cost(this.#best)
    this.#usual = Math.min(this.#usual, now)
    if (++this.#sinceCheck >= RECHECK || now > ALARM * this.#usual) this.#lookAside()
  }

  /** @param {number} i a candidate */
  #cost(i) {
    return Math.min(...(this.#times[i] ?? []))
  }

  /** Only right after trials: old times are of another moment. */
  #judge() {
    for (let i = 0; i < this.#candidates.length; i++) {
      if (this.#cost(i) < GAIN * this.#cost(this.#best)) this.#best = i
    }
  }

  /** Tries a neighbour again, the two in turn, alternating with the best: both meet the same moment. */
  #lookAside() {
    this.#sinceCheck = 0
    this.#usual = this.#cost(this.#best)
    this.#side = -this.#side
    const aside = this.#best + this.#side
    const neighbour = aside in this.#candidates ? aside : this.#best - this.#side
    this.#times[neighbour] = []
    this.#times[this.#best] = []
    this.#trials = Array.from({ length: 2 * TRIALS }, (_, i) => (i % 2 ? this.#best : neighbour))
  }
}
