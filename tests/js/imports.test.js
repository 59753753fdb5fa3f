/**
 * The arrow law: who may know whom, and the few rules about files that no other tool checks.
 *
 * Owns the two tables of allowed imports, one for JavaScript and one for C. A file belongs to the first
 * row whose pattern its path matches, and may import files of the rows named there, nothing else. The
 * tables are the whole law: a new kind of file must be entered here before it can import anything.
 */

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, normalize } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/**
 * @typedef {object} Row
 * @property {string} layer
 * @property {RegExp} files
 * @property {string[]} mayImport
 */

/** @type {Row[]} */
const JS_LAW = [
  { layer: 'errors', files: /^js\/errors\.js$/, mayImport: [] },
  {
    layer: 'platform',
    files: /^js\/(platform|worker-handle)\.js$/,
    mayImport: ['platform', 'errors'],
  },
  {
    layer: 'core',
    files:
      /^js\/(core|core-draft|core-logits|core-model|core-prompt|core-sampler|core-session|check-integer|team|team-size|wasm-module)\.js$/,
    mayImport: ['core', 'thread', 'platform', 'errors', 'wasm module'],
  },
  { layer: 'thread', files: /^js\/thread\.js$/, mayImport: ['platform'] },
  { layer: 'worker', files: /^js\/worker\.js$/, mayImport: ['package', 'bench', 'platform'] },
  {
    layer: 'remote',
    files: /^js\/remote\.js$/,
    mayImport: ['worker', 'package', 'platform', 'errors'],
  },
  { layer: 'index', files: /^js\/index\.js$/, mayImport: ['package', 'errors'] },
  { layer: 'cache', files: /^js\/cache\//, mayImport: ['cache', 'platform', 'errors'] },
  { layer: 'grammar', files: /^js\/grammar\//, mayImport: ['grammar', 'errors'] },
  { layer: 'gpu', files: /^js\/gpu\//, mayImport: ['gpu', 'core', 'library', 'errors'] },
  {
    layer: 'bench',
    files: /^js\/bench\//,
    mayImport: ['bench', 'package', 'core', 'gpu', 'platform', 'errors'],
  },
  {
    layer: 'cli',
    files: /^js\/cli\//,
    mayImport: [
      'cli',
      'bench',
      'convert',
      'serve',
      'index',
      'package',
      'core',
      'platform',
      'errors',
    ],
  },
  {
    layer: 'convert',
    files: /^js\/convert\//,
    mayImport: ['convert', 'package', 'core', 'platform', 'errors'],
  },
  { layer: 'openai', files: /^js\/openai\//, mayImport: ['openai', 'index'] },
  { layer: 'ai-sdk', files: /^js\/ai-sdk\//, mayImport: ['openai', 'index'] },
  { layer: 'prompt-api', files: /^js\/prompt-api\//, mayImport: ['index'] },
  { layer: 'serve', files: /^js\/serve\//, mayImport: ['serve', 'openai'] },
  {
    layer: 'package',
    files: /^js\/[^/]+\.js$/,
    mayImport: [
      'package',
      'remote',
      'core',
      'cache',
      'gpu',
      'grammar',
      'platform',
      'errors',
      'library',
    ],
  },
  { layer: 'web', files: /^web\//, mayImport: ['web', 'index'] },
  { layer: 'scripts', files: /^scripts\//, mayImport: ['scripts'] },
  { layer: 'wasm module', files: /^dist\/bimamba(-threads)?(-relaxed)?\.wasm$/, mayImport: [] },
  { layer: 'library', files: /^dist\/(tokenizers|jinja|shaders)\.mjs$/, mayImport: [] },
]

/** Pages load the other layers as they are, so these alone may begin with a module of Node. */
const NODE_LAYERS = ['cli', 'serve', 'scripts']

/** @type {Row[]} */
const C_LAW = [
  { layer: 'api', files: /^src\/bm\.h$/, mayImport: [] },
  { layer: 'base', files: /^src\/bm_base\.[ch]$/, mayImport: ['base', 'api'] },
  { layer: 'config', files: /^src\/bm_config\.[ch]$/, mayImport: ['config', 'base', 'api'] },
  { layer: 'kernels', files: /^src\/kernels\//, mayImport: ['kernels', 'base', 'api'] },
  {
    layer: 'sampler',
    files: /^src\/bm_(sampler|history)\.[ch]$/,
    mayImport: ['sampler', 'base', 'api'],
  },
  {
    layer: 'model',
    files: /^src\/bm_model\.[ch]$/,
    mayImport: ['model', 'config', 'kernels', 'base', 'api'],
  },
  { layer: 'state', files: /^src\/bm_state\.[ch]$/, mayImport: ['state', 'config', 'base', 'api'] },
  {
    layer: 'forward',
    files: /^src\/bm_forward\.[ch]$/,
    mayImport: ['forward', 'model', 'state', 'config', 'kernels', 'base', 'api'],
  },
  {
    layer: 'session',
    files: /^src\/bm_(session|prompt|draft)\.[ch]$/,
    mayImport: ['session', 'forward', 'model', 'state', 'config', 'base', 'api'],
  },
  { layer: 'boundary', files: /^wasm\//, mayImport: ['boundary', 'base', 'api'] },
]

/** What portable C may include from the system: no files, no clock, no platform. */
const C_SYSTEM =
  /^(assert|float|limits|math|stdalign|stdarg|stdbool|stddef|stdint|stdio|stdlib|string)\.h$/

/**
 * The files below a folder, relative to the root.
 * @param {string} folder
 * @returns {string[]}
 */
function listFiles(folder) {
  const full = join(ROOT, folder)
  if (!existsSync(full)) return []
  return readdirSync(full, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.name.startsWith('.') || entry.name === '__pycache__') return []
    return entry.isDirectory() ? listFiles(path) : [path]
  })
}

const sources = ['src', 'wasm', 'js', 'web', 'scripts', 'tests', 'models/training']
  .flatMap(listFiles)
  .filter((path) => /\.(js|mjs|c|h|py|wgsl)$/.test(path))

/** @param {string} path */
const read = (path) => readFileSync(join(ROOT, path), 'utf8')

/**
 * The code of a file, without its comments.
 * @param {string} path
 */
const readCode = (path) => read(path).replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')

/**
 * @param {Row[]} law
 * @param {string} path
 */
const rowOf = (law, path) => law.find(({ files }) => files.test(path))

/**
 * Why a file may not import another, or null when it may.
 * @param {Row[]} law
 * @param {string} from
 * @param {string} to relative to the root
 */
function findFault(law, from, to) {
  const row = rowOf(law, from)
  const target = rowOf(law, to)
  if (!row) return `${from}: no layer of the law holds this file`
  if (target && row.mayImport.includes(target.layer)) return null
  return `${from} (${row.layer}) imports ${to} (${target?.layer ?? 'no layer'})`
}

/**
 * Every import of a JavaScript file, also by import() and, for code, `new URL(..., import.meta.url)`.
 * @param {string} code
 */
function findJsImports(code) {
  const found = []
  for (const [, name] of code.matchAll(/^(?:import|export)\s(?:[^'"]*?\sfrom\s)?\s*'([^']+)'/gm)) {
    found.push({ name: String(name), atStart: true })
  }
  for (const [, name] of code.matchAll(/(?:\bimport|new URL)\(\s*'([^']+\.(?:m?js|wasm|wgsl))'/g)) {
    found.push({ name: String(name), atStart: false })
  }
  return found
}

/** @param {string} path */
function findJsFaults(path) {
  return findJsImports(readCode(path)).flatMap(({ name, atStart }) => {
    if (name.startsWith('node:')) {
      const layer = rowOf(JS_LAW, path)?.layer ?? ''
      return atStart && !NODE_LAYERS.includes(layer) ? [`${path} begins with ${name}`] : []
    }
    if (!name.startsWith('.')) return [`${path} imports the package ${name}`]
    return findFault(JS_LAW, path, normalize(join(dirname(path), name))) ?? []
  })
}

/** @param {string} path */
function findCFaults(path) {
  return [...readCode(path).matchAll(/^\s*#\s*include\s+(["<])([^">]+)[">]/gm)].flatMap((match) => {
    const [, quote, name = ''] = match
    if (quote === '<') {
      const intrinsics = path.startsWith('src/kernels/') && /(simd128|intrin|neon)\.h$/.test(name)
      const platform =
        path.startsWith('wasm/') && /^(emscripten.*|stdatomic|time|unistd)\.h$/.test(name)
      const allowed = C_SYSTEM.test(name) || intrinsics || platform
      return allowed ? [] : [`${path} includes <${name}>`]
    }
    const candidates = [join(dirname(path), name), join('src', name), join('src/kernels', name)]
    const target = candidates.map(normalize).find((file) => existsSync(join(ROOT, file)))
    return findFault(C_LAW, path, target ?? name) ?? []
  })
}

test('JavaScript imports follow the arrows', () => {
  const files = sources.filter((path) => /^(js|web|scripts)\/.*\.js$/.test(path))
  assert.ok(files.length > 3)
  assert.deepEqual(files.flatMap(findJsFaults), [])
})

test('C includes follow the arrows', () => {
  const files = sources.filter((path) => /^(src|wasm)\/.*\.[ch]$/.test(path))
  assert.ok(files.length > 3)
  assert.deepEqual(files.flatMap(findCFaults), [])
})

test('the law finds a wrong import', () => {
  assert.match(findFault(JS_LAW, 'js/gpu/device.js', 'js/model.js') ?? '', /\(gpu\) imports/)
  assert.match(findFault(JS_LAW, 'web/page.js', 'js/core.js') ?? '', /\(web\) imports/)
  assert.match(findFault(C_LAW, 'src/kernels/ref.c', 'src/bm_model.h') ?? '', /\(kernels\) imports/)
  assert.equal(findFault(C_LAW, 'src/bm_session.c', 'src/bm_forward.h'), null)
  const code =
    "import a from './a.js'\nexport {\n  b,\n} from './b.js'\nimport './c.js'\nawait import('./d.js')"
  assert.deepEqual(
    findJsImports(code).map(({ name }) => name),
    ['./a.js', './b.js', './c.js', './d.js'],
  )
})

/** @param {string} path of a JavaScript file @param {Set<string>} [seen] @returns {Set<string>} it, and all that it leads to */
function reachOf(path, seen = new Set()) {
  if (seen.has(path) || !path.endsWith('.js')) return seen
  seen.add(path)
  for (const { name } of findJsImports(readCode(path)))
    if (name.startsWith('.')) reachOf(normalize(join(dirname(path), name)), seen)
  return seen
}

test('no script of a thread leads back to itself: bundlers follow them, and some refuse a circle', () => {
  const [page, worker, thread] = ['js/index.js', 'js/worker.js', 'js/thread.js'].map((path) =>
    reachOf(path),
  )
  assert.ok(page?.has('js/worker.js') && worker?.has('js/thread.js'))
  assert.ok(!worker.has('js/remote.js') && !worker.has('js/index.js'))
  assert.ok(thread && !thread.has('js/team.js') && thread.size < 5)
})

test('only js/core.js touches the memory, and few files know WebAssembly', () => {
  const instantiates = ['js/core.js', 'js/thread.js', 'js/wasm-module.js']
  const files = sources.filter((path) => /^(js|web)\/.*\.js$/.test(path) && path !== 'js/core.js')
  assert.deepEqual(
    files.filter((path) => /\bmemory\.buffer\b/.test(readCode(path))),
    [],
  )
  assert.deepEqual(
    files.filter((path) => /\bWebAssembly\./.test(readCode(path)) && !instantiates.includes(path)),
    [],
  )
})

test('the web app knows one address of the package', () => {
  const files = sources.filter((path) => /^web\/.*\.js$/.test(path))
  assert.ok(files.length > 3)
  assert.deepEqual(
    files.filter((path) =>
      findJsImports(readCode(path)).some(({ name }) => name.startsWith('../')),
    ),
    ['web/bimamba.js'],
  )
})

test('only wasm/ has export attributes', () => {
  const files = sources.filter((path) => /^src\/.*\.[ch]$/.test(path))
  assert.deepEqual(
    files.filter((path) => /export_name|EMSCRIPTEN_KEEPALIVE|__EMSCRIPTEN__/.test(readCode(path))),
    [],
  )
})

test('a file name stands once in the tree, and is a noun', () => {
  // But a subcommand is named as what the user types, and an entry of the package is an index.js.
  const files = sources.filter((path) => !/^js\/cli\/|\/index\.js$/.test(path))
  const names = files.map((path) => basename(path))
  assert.deepEqual(
    files.filter((path, index) => names.indexOf(basename(path)) !== index),
    [],
  )
  assert.deepEqual(
    sources.filter((path) => /(^|[_/.-])(utils?|common|helpers?|misc)[_.-]/i.test(path)),
    [],
  )
})

test('a file fits in the head: at most 600 lines, opened by a comment', () => {
  assert.deepEqual(
    sources.filter((path) => read(path).split('\n').length > 601),
    [],
  )
  assert.deepEqual(
    sources.filter((path) => !/^(#!.*\n)?\s*(\/\*|\/\/|"""|#)/.test(read(path))),
    [],
  )
})

test('what a file of the package exports, another one uses', () => {
  const exported = sources
    .filter((path) => /^js\/[^/]+\.js$/.test(path))
    .flatMap((path) =>
      [...readCode(path).matchAll(/^export (?:async )?(?:function\*?|class|const) (\w+)/gm)].map(
        ([, name]) => ({ path, name: String(name) }),
      ),
    )
  assert(exported.length > 30)
  const texts = sources
    .filter((path) => path.endsWith('.js'))
    .map((path) => ({ path, text: read(path) }))
  assert.deepEqual(
    exported.filter(({ path, name }) => {
      const word = RegExp(`\\b${name}\\b`)
      return !texts.some((other) => other.path !== path && word.test(other.text))
    }),
    [],
  )
})

test('no type of the package is `any`', () => {
  const files = sources.filter((path) => /^(js|web|scripts)\/.*\.js$/.test(path))
  assert.deepEqual(
    files.filter((path) => /@\w+ \{[^}]*\bany\b[^}]*\}|\bas any\b/.test(read(path))),
    [],
  )
})
