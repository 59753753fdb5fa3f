/**
 * `npm run build`: makes dist/, all that the package needs and git does not hold.
 *
 * Owns what is in dist/ and when a part of it is made again. Does not know how C is compiled
 * (CMakeLists.txt does) and installs nothing. The idea: a part newer than all it is made from is
 * left alone, so that a second build costs nothing and needs no compiler.
 */

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { CommandError, ROOT, run, runScript } from './command.js'
import { withFinalOpcodes } from './simd-opcodes.js'

/** As in CMakeLists.txt: a module, and the same with relaxed SIMD. */
const MODULES = ['bimamba', 'bimamba-threads']
const RELAXED_MODULES = MODULES.map((name) => `${name}-relaxed`)

/**
 * When a file, or the newest file in a folder, was last changed; 0 when there is none.
 * @param {string} path relative to the root
 * @returns {number} milliseconds since 1970
 */
function changedAt(path) {
  const full = join(ROOT, path)
  if (!existsSync(full)) return 0
  if (!statSync(full).isDirectory()) return statSync(full).mtimeMs
  const times = readdirSync(full).map((name) => changedAt(join(path, name)))
  return Math.max(0, statSync(full).mtimeMs, ...times)
}

/**
 * @param {string} output a file relative to the root
 * @param {string[]} inputs files and folders it is made from
 */
function isCurrent(output, inputs) {
  return existsSync(join(ROOT, output)) && inputs.every((i) => changedAt(i) <= changedAt(output))
}

function buildWasm() {
  const inputs = ['src', 'wasm', 'cmake', 'CMakeLists.txt', 'CMakePresets.json']
  const relaxedInputs = [...inputs, 'scripts/simd-opcodes.js']
  const areCurrent =
    MODULES.every((name) => isCurrent(`dist/${name}.wasm`, inputs)) &&
    RELAXED_MODULES.every((name) => isCurrent(`dist/${name}.wasm`, relaxedInputs))
  if (areCurrent) return
  run('cmake', ['--preset', 'wasm'])
  run('cmake', ['--build', '--preset', 'wasm', '--parallel', String(availableParallelism())])
  for (const name of RELAXED_MODULES) {
    const bytes = readFileSync(join(ROOT, `build/wasm/${name}.wasm`))
    writeFileSync(join(ROOT, `dist/${name}.wasm`), withFinalOpcodes(bytes))
  }
}

/** Libraries that the package holds as one file each, dist/NAME.mjs: where they are in node_modules. */
const LIBRARIES = {
  tokenizers: { name: '@huggingface/tokenizers', file: 'dist/tokenizers.min.mjs' },
  jinja: { name: '@huggingface/jinja', file: 'dist/index.js' },
}

/**
 * A library goes into the package as a file: a page without a bundler, and a module worker, cannot
 * resolve the name of a package.
 */
function copyLibraries() {
  for (const [target, { name, file }] of Object.entries(LIBRARIES)) {
    const library = join(ROOT, 'node_modules', name)
    if (!existsSync(library)) throw new CommandError('node_modules is not complete: run `npm ci`')
    mkdirSync(join(ROOT, 'dist'), { recursive: true })
    copyFileSync(join(library, file), join(ROOT, `dist/${target}.mjs`))
    copyFileSync(join(library, 'LICENSE'), join(ROOT, `dist/${target}.LICENSE`))
    // For the type check of this checkout only: it is not in the package.
    writeFileSync(join(ROOT, `dist/${target}.d.mts`), `export * from '${name}'\n`)
  }
}

/** The shaders' texts as one module: a page could fetch a file, but not every bundler finds it. */
function writeShaders() {
  const folder = join(ROOT, 'js/gpu/shaders')
  const texts = readdirSync(folder)
    .filter((name) => name.endsWith('.wgsl'))
    .map((name) => [name.replace('.wgsl', ''), readFileSync(join(folder, name), 'utf8')])
  const module = `export default ${JSON.stringify(Object.fromEntries(texts), null, 2)}\n`
  writeFileSync(join(ROOT, 'dist/shaders.mjs'), module)
  const types = 'declare const shaders: Record<string, string>\nexport default shaders\n'
  writeFileSync(join(ROOT, 'dist/shaders.d.mts'), types)
}

/** What pages import, dist/NAME.js, and the file of js/ that it is. */
const PAGE_ENTRIES = {
  bimamba: 'index',
  openai: 'openai/index',
  'prompt-api': 'prompt-api/index',
}

/** Each list is bundled for itself: what of it is loaded later is in further files, dist/chunk-*.js. */
const BUNDLES = [
  Object.entries(PAGE_ENTRIES).map(([name, source]) => `${name}=js/${source}.js`),
  ['worker=js/worker.js'],
  ['thread=js/thread.js'],
]

/** The names in dist/ of all that a page may come to load from there: a service worker can keep that, although names of chunks change. */
const PAGE_FILES = 'dist/files.json'

/** @returns {boolean} whether nothing of what was there at the end of the last build is missing */
function isWhole() {
  if (!existsSync(join(ROOT, PAGE_FILES))) return false
  /** @type {string[]} */
  const names = JSON.parse(readFileSync(join(ROOT, PAGE_FILES), 'utf8'))
  return names.every((name) => existsSync(join(ROOT, 'dist', name)))
}

/** @returns {string[]} paths of the scripts that were bundled */
const bundledScripts = () =>
  readdirSync(join(ROOT, 'dist'))
    .filter((name) => name.endsWith('.js'))
    .map((name) => join(ROOT, 'dist', name))

/**
 * For pages without a bundler, which would load a hundred modules one level after another. Addresses in them lead to files beside them, so that
 * dist/ can be served under any name.
 */
function bundleForPages() {
  if (isWhole() && isCurrent('dist/bimamba.js', ['js', 'scripts/build.js'])) return
  for (const path of [join(ROOT, PAGE_FILES), ...bundledScripts()]) rmSync(path, { force: true })
  const options = [
    ...['--outdir=dist', '--chunk-names=chunk-[hash]', '--format=esm', '--target=es2022'],
    ...['--bundle', '--splitting', '--minify', '--log-level=warning'],
    `--external:${join(ROOT, 'dist/*.mjs')}`,
  ]
  for (const entries of BUNDLES.toReversed())
    run('node_modules/.bin/esbuild', [...entries, ...options])
  for (const path of bundledScripts())
    writeFileSync(path, readFileSync(path, 'utf8').replaceAll('"../dist/', '"./'))
}

/** An editor looks for the types of what a page imports beside that. */
function writeEntryTypes() {
  for (const [name, source] of Object.entries(PAGE_ENTRIES))
    writeFileSync(join(ROOT, `dist/${name}.d.ts`), `export * from './types/${source}.js'\n`)
}

/** Last of all: that it is there says that all the others are. */
function listPageFiles() {
  const names = readdirSync(join(ROOT, 'dist')).filter((name) => /\.(js|mjs|wasm)$/.test(name))
  writeFileSync(join(ROOT, PAGE_FILES), `${JSON.stringify(names.sort(), null, 2)}\n`)
}

function writeTypes() {
  if (isCurrent('dist/types/index.d.ts', ['js', 'tsconfig.json', 'tsconfig.types.json'])) return
  rmSync(join(ROOT, 'dist/types'), { recursive: true, force: true })
  run('node_modules/.bin/tsc', ['-p', 'tsconfig.types.json'])
}

runScript(() => {
  buildWasm()
  copyLibraries()
  writeShaders()
  bundleForPages()
  writeEntryTypes()
  writeTypes()
  listPageFiles()
})
