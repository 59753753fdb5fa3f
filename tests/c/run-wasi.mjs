/**
 * Runs a C test that was compiled to WebAssembly: `node run-wasi.mjs TEST.wasm [arguments]`.
 *
 * Owns the module's outside: arguments, standard output and the exit code, by node:wasi. Knows no
 * test. Its one import beside WASI is Emscripten's notice of memory growth, which nobody here needs.
 */

import { readFile } from 'node:fs/promises'
import { WASI } from 'node:wasi'

const [program = '', ...args] = process.argv.slice(2)
const wasi = new WASI({ version: 'preview1', args: [program, ...args], returnOnExit: true })
const module = await WebAssembly.compile(await readFile(program))
const env = { emscripten_notify_memory_growth() {} }
const instance = await WebAssembly.instantiate(module, { ...wasi.getImportObject(), env })
process.exitCode = wasi.start(instance)
