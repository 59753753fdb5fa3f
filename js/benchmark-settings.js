/**
 * The options of `BiMamba.benchmark`, checked as js/settings.js checks those of a model.
 *
 * Owns their defaults. Knows nothing of how anything is measured: js/bench/, which is loaded where it runs.
 */

import { BmError } from './errors.js'
import { canShareMemory, coreCount } from './platform.js'
import { checkCount } from './session-settings.js'
import { checkChoice, checkFetch, checkNames, checkSignal, checkString } from './settings.js'
import { describeSource } from './source.js'

/** @typedef {import('./source.js').SourceDescriptor} SourceDescriptor */

/**
 * @typedef {object} BenchmarkOptions
 * @property {'780M' | '1.3B' | '2.7B'} [shape]  random weights in the shape of a published model instead of a file; they are made in memory
 * @property {string | URL | Blob | FileSystemFileHandle} [source]  a packed model, as for `BiMamba.load`; this or `shape` must be given
 * @property {'fast' | 'high' | 'exact'} [precision]  default 'fast'
 * @property {'f32' | 'i16'} [state]     default 'f32'
 * @property {'file' | 'int4'} [head]    default 'file'
 * @property {readonly BenchmarkSetting[]} [settings]  what is compared, round by round: 1 to 16. Default: the quickest kernel family with one
 *                                       thread and, where memory can be shared, with all
 * @property {number} [rounds]           of which medians are taken, 1 to 100; default 3
 * @property {number} [promptTokens]     of the prompt that is read in a round, 1 to 100000; default 128
 * @property {(what: string) => void} [onProgress]  words for what is done now
 * @property {AbortSignal} [signal]      stops; the promise then rejects with `signal.reason`
 * @property {string | URL} [workerUrl]  where worker.js is; default: in the package
 */

/**
 * @typedef {object} BenchmarkSetting
 * @property {'wasm' | 'webgpu'} [device]  default 'wasm'
 * @property {number} [threads]  1 to 64; not of the GPU, else it must be given
 * @property {string} [variant]  kernel family; not of the GPU
 */

/**
 * A plan as it crosses to the engine's thread; the model's source crosses beside it.
 *
 * @typedef {object} BenchmarkSettings
 * @property {Omit<import('./bench/bench-subject.js').BenchModel, 'source'>} model
 * @property {import('./bench/bench-subject.js').BenchSetting[]} settings
 * @property {number} rounds
 * @property {number} promptTokens
 * @property {number} longTokens
 */

const NAMES = [
  ...['shape', 'source', 'precision', 'state', 'head', 'settings', 'rounds', 'promptTokens'],
  ...['onProgress', 'signal', 'workerUrl'],
]
/** As of an engine. */
const MOST_THREADS = 64
/** Kinds of sources that can be opened again for each setting. */
const REOPENED = ['http', 'path', 'blob', 'handle']

/**
 * @param {BenchmarkOptions} options
 * @returns {{ source: SourceDescriptor | null, settings: BenchmarkSettings }}
 */
export function checkBenchmark(options) {
  checkNames(options, NAMES, 'benchmark')
  const { shape, source, precision = 'fast', state = 'f32', head = 'file' } = options
  const { rounds = 3, promptTokens = 128, settings = defaultSettings() } = options
  checkChoice('precision', precision)
  checkChoice('state', state)
  checkChoice('head', head)
  checkSignal(options.signal)
  checkCount('rounds', rounds, 1, 100)
  checkCount('promptTokens', promptTokens, 1, 100000)
  if ((shape === undefined) === (source === undefined)) {
    throw new BmError('argument', 'benchmark: want either shape or source')
  }
  const descriptor = source === undefined ? null : describeSource(source)
  if (descriptor && !REOPENED.includes(descriptor.kind)) {
    throw new BmError('argument', 'benchmark: want a URL, a path, a Blob or a file handle')
  }
  const name = typeof source === 'string' || source instanceof URL ? String(source) : 'a file'
  return {
    source: descriptor,
    settings: {
      model: { name, synthetic: shape ?? null, precision, state, head, download: checkFetch({}) },
      settings: checkSettings(settings),
      rounds,
      promptTokens,
      longTokens: 0,
    },
  }
}

/** @returns {{ threads: number }[]} */
function defaultSettings() {
  const most = canShareMemory() ? Math.min(coreCount(), MOST_THREADS) : 1
  return most > 1 ? [{ threads: 1 }, { threads: most }] : [{ threads: 1 }]
}

/** @param {readonly BenchmarkSetting[]} settings @returns {BenchmarkSettings['settings']} */
function checkSettings(settings) {
  if (!Array.isArray(settings)) throw new BmError('argument', 'settings: want an array')
  checkCount('settings.length', settings.length, 1, 16)
  return settings.map((one) => {
    checkNames(one, ['device', 'threads', 'variant'], 'settings')
    const { device = 'wasm', threads, variant } = one
    if (device !== 'wasm' && device !== 'webgpu') {
      throw new BmError('argument', `device is ${JSON.stringify(device)}, want wasm, webgpu`)
    }
    if (device === 'webgpu') {
      if (threads === undefined && variant === undefined) return { device, threads: 1 }
      throw new BmError('argument', 'settings: the GPU has neither threads nor variants')
    }
    checkCount('threads', threads, 1, MOST_THREADS)
    checkString('variant', variant, "a kernel family's name")
    return { threads: Number(threads), ...(variant === undefined ? {} : { variant }) }
  })
}
