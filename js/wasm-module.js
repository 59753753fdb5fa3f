/**
 * Gets the engine's WebAssembly module: finds, reads, compiles it, and makes the memory that it wants to share.
 *
 * Owns the question which of the four builds runs here. Knows no export of theirs. dist/bimamba.wasm brings its own memory;
 * dist/bimamba-threads.wasm imports a shared one, so that further threads can instantiate it over the same memory. Each is there
 * a second time, `-relaxed`, with an instruction of relaxed SIMD, because a module that has one is refused whole where there is none.
 */

import { BmError, reasonOf } from './errors.js'
import { absoluteUrl, fileSystem, resolvePath } from './platform.js'

/** The smallest module with a v128 instruction: validates only where 128-bit SIMD exists. */
const SIMD_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
  253, 98, 11,
])

/** The smallest module with i8x16.relaxed_swizzle, the one relaxed instruction that is used. */
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15,
  65, 0, 253, 15, 253, 128, 2, 11,
])

/** Pages of 64 KiB: what the shared build starts with (INITIAL_MEMORY in CMakeLists.txt), and all of 32-bit memory. */
const FIRST_PAGES = 32
const MOST_PAGES = 65536

/** @typedef {BufferSource | WebAssembly.Module | URL | string} WasmSource */

/**
 * @typedef {object} EngineModule
 * @property {string} name  for messages: where it came from, if that is known
 * @property {WebAssembly.Module} module
 * @property {WebAssembly.Memory | null} memory  shared, to be imported; null: the module has its own
 */

/**
 * @param {object} [options]
 * @param {WasmSource | undefined} [options.wasm] the module, or where it is: a URL, in Node also a path
 *   (from the working directory); default: of this package, with relaxed SIMD where there is such
 * @param {boolean} [options.shared] the default is the build for several threads, if its memory can be had
 * @param {AbortSignal | undefined} [options.signal] stops a download
 * @returns {Promise<EngineModule>}
 * @throws {BmError} `unsupported` without WebAssembly SIMD, and for what is no module; `network`, `io`, `argument`
 *   when the module cannot be read; `memory`; or `signal.reason`
 */
export async function loadWasm({ wasm, shared = false, signal } = {}) {
  if (!globalThis.WebAssembly?.validate(SIMD_PROBE)) {
    throw new BmError(
      'unsupported',
      'this JavaScript engine has no 128-bit WebAssembly SIMD, which bimamba needs ' +
        '(Chrome 91, Firefox 89, Safari 16.4, Node 20.16 or newer)',
    )
  }
  if (wasm === undefined) {
    // Where the address space is small, one thread is better than none.
    const memory = shared ? sharedMemory() : null
    const own = ownModule(memory !== null, WebAssembly.validate(RELAXED_PROBE))
    return { module: await compile(own, signal), memory, name: own.href }
  }
  const name = nameOf(wasm)
  const module = await compile(wasm, signal)
  if (WebAssembly.Module.imports(module).every(({ kind }) => kind !== 'memory')) {
    return { module, memory: null, name }
  }
  const memory = sharedMemory()
  if (memory) return { module, memory, name }
  throw new BmError('memory', `${name}: no shared WebAssembly memory can be had here`)
}

/**
 * Where this package's build is. Every address is written out for bundlers, which look for exactly this expression.
 *
 * @param {boolean} shared
 * @param {boolean} relaxed
 */
function ownModule(shared, relaxed) {
  if (shared) {
    return relaxed
      ? new URL('../dist/bimamba-threads-relaxed.wasm', import.meta.url)
      : new URL('../dist/bimamba-threads.wasm', import.meta.url)
  }
  return relaxed
    ? new URL('../dist/bimamba-relaxed.wasm', import.meta.url)
    : new URL('../dist/bimamba.wasm', import.meta.url)
}

/** @returns {WebAssembly.Memory | null} */
function sharedMemory() {
  try {
    return new WebAssembly.Memory({ initial: FIRST_PAGES, maximum: MOST_PAGES, shared: true })
  } catch {
    return null
  }
}

/** @param {WasmSource} wasm @returns {string} */
function nameOf(wasm) {
  if (typeof wasm === 'string' || wasm instanceof URL) return String(wasm)
  return wasm instanceof WebAssembly.Module ? 'the module' : `${wasm.byteLength} bytes`
}

/** @param {WasmSource} wasm @param {AbortSignal} [signal] */
async function compile(wasm, signal) {
  if (wasm instanceof WebAssembly.Module) return wasm
  const bytes = typeof wasm === 'string' || wasm instanceof URL ? await read(wasm, signal) : wasm
  try {
    return await WebAssembly.compile(bytes)
  } catch (cause) {
    const reason = `no WebAssembly module that runs here: ${reasonOf(cause)}`
    throw new BmError('unsupported', `${nameOf(wasm)}: ${reason}`, { cause })
  }
}

/** @param {URL | string} place @param {AbortSignal} [signal] @returns {Promise<BufferSource>} */
async function read(place, signal) {
  const fs = fileSystem()
  // A single letter before the colon is a drive.
  const isPath = fs && typeof place === 'string' && !/^[a-z][a-z0-9+.-]+:/i.test(place)
  const url = isPath ? null : new URL(absoluteUrl(place))
  if (url && url.protocol !== 'file:') return download(url, signal)
  if (!fs) throw new BmError('unsupported', `${url}: only Node reads file: URLs`)
  try {
    return await fs.readFile(url ?? resolvePath(String(place)))
  } catch (cause) {
    throw new BmError('io', `${place}: ${reasonOf(cause)}`, { cause })
  }
}

/** @param {URL} url @param {AbortSignal} [signal] */
async function download(url, signal) {
  try {
    const response = await fetch(url, signal ? { signal } : {})
    if (!response.ok) throw new BmError('network', `GET ${url}: ${response.status}`)
    // Not compileStreaming: servers that do not know .wasm send a type that it refuses.
    return await response.arrayBuffer()
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof BmError) throw cause
    throw new BmError('network', `GET ${url}: ${reasonOf(cause)}`, { cause })
  }
}
