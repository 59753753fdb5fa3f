/**
 * Times of a model's kernels, by the GPU's own clock.
 *
 * Owns the queries, and which kernel belongs to which step of src/bm_forward.c. Knows nothing about bytes or rounds: js/bench/ has those.
 * The idea: WebGPU tells the time only where a pass begins and ends. So each dispatch is made a pass of its own, with the commands that are recorded anyway:
 * this stands where the one pass would be. The steps are those of a real token, but the gaps between passes are not in their sum.
 */

import { BmError } from '../errors.js'
import { USAGE } from './gpu-device.js'

/** @typedef {import('./gpu-model.js').GpuModel} GpuModel */
/** @typedef {import('./gpu-session.js').GpuSession} GpuSession */

/** What a query set has at most. */
const MOST_QUERIES = 4096
const QUERY_BYTES = 8

/** Labels of pipelines, and the steps that they are of. @type {[RegExp, string][]} */
const STEPS = [
  [/^embed/, 'embed'],
  [/^normGated/, 'prepare_out'],
  [/^norm/, 'prepare_in'],
  [/^in/, 'project_in'],
  [/^(conv|scan)/, 'scan'],
  [/^out/, 'project_out'],
  [/^head/, 'head'],
]

/** The steps that are timed, in the order of src/bm_forward.c, and the head. */
export const PROFILE_STEPS = [
  ...['embed', 'prepare_in', 'project_in', 'scan', 'prepare_out', 'project_out', 'finish', 'head'],
]

export class GpuProfile {
  #device
  #queries
  #resolved
  #copy
  /** @type {string[]} of the dispatches since the last reading, in order */
  #steps = []

  /** Use `create`. @param {GpuModel} model @param {{ queries: GPUQuerySet, resolved: GPUBuffer, copy: GPUBuffer }} made */
  constructor({ device }, { queries, resolved, copy }) {
    this.#device = device
    this.#queries = queries
    this.#resolved = resolved
    this.#copy = copy
  }

  /**
   * @param {GpuModel} model
   * @returns {Promise<GpuProfile | null>} the caller closes it; null: this device has no clock, or not enough queries for such a model
   * @throws {BmError} `memory`, `gpu`
   */
  static async create(model) {
    const { device, sizes, headTable, embeddingTable } = model
    const ends = headTable.segments.length + embeddingTable.segments.length
    // Of any layer there are fewer dispatches than this.
    const count = 2 * (8 * sizes.nLayer + ends + 8)
    if (!device.hasClock || count > MOST_QUERIES) return null
    const bytes = count * QUERY_BYTES
    const made = await device.making('a profile', () => ({
      queries: device.timestamps(count),
      resolved: device.buffer(bytes, USAGE.queryResolve | USAGE.copySrc),
      copy: device.buffer(bytes, USAGE.mapRead | USAGE.copyDst),
    }))
    return new GpuProfile(model, made)
  }

  /**
   * What dispatches of one submit are recorded in, one submit a reading.
   * @param {GPUCommandEncoder} encoder
   * @param {GpuSession} session
   * @returns {import('./gpu-model.js').Pass}
   */
  begin(encoder, session) {
    const steps = this.#steps
    const queries = this.#queries
    /** @type {GPUComputePipeline | null} */
    let kernel = null
    /** @type {GPUBindGroup | null} */
    let group = null
    return {
      setPipeline: (pipeline) => {
        kernel = pipeline
      },
      setBindGroup: (
        /** @type {number} */ _,
        /** @type {GPUBindGroup | null | undefined} */ one,
      ) => {
        group = one ?? null
      },
      dispatchWorkgroups: (x, y, z) => {
        if (!kernel) throw new BmError('internal', 'a dispatch without a kernel')
        const first = 2 * steps.length
        steps.push(group === session.finish ? 'finish' : stepOf(kernel.label))
        const writes = { beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 }
        const pass = encoder.beginComputePass({ timestampWrites: { querySet: queries, ...writes } })
        pass.setPipeline(kernel)
        pass.setBindGroup(0, group)
        pass.dispatchWorkgroups(x, y, z)
        pass.end()
      },
      end: () => {
        encoder.resolveQuerySet(queries, 0, 2 * steps.length, this.#resolved, 0)
        const bytes = 2 * steps.length * QUERY_BYTES
        encoder.copyBufferToBuffer(this.#resolved, 0, this.#copy, 0, bytes)
      },
    }
  }

  /** @returns {Promise<Map<string, number>>} ms of each of the steps in the submit before, the layers together */
  async read() {
    const steps = this.#steps.splice(0)
    const bytes = await this.#device.read(this.#copy, 2 * steps.length * QUERY_BYTES)
    const times = new BigUint64Array(bytes.buffer)
    const ms = new Map(PROFILE_STEPS.map((step) => [step, 0]))
    for (const [i, step] of steps.entries()) {
      // Some clocks go back now and then.
      const ns = Math.max(
        0,
        Number(BigInt.asIntN(64, (times[2 * i + 1] ?? 0n) - (times[2 * i] ?? 0n))),
      )
      ms.set(step, (ms.get(step) ?? 0) + ns / 1e6)
    }
    return ms
  }

  close() {
    this.#queries.destroy()
    this.#resolved.destroy()
    this.#copy.destroy()
  }
}

/** @param {string} label of a pipeline @returns {string} */
function stepOf(label) {
  const step = STEPS.find(([labels]) => labels.test(label))?.[1]
  if (step) return step
  throw new BmError('internal', `kernel '${label}' is of no step`)
}
