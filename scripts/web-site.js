/**
 * `npm run web:build [-- FOLDER]`: the web app as a folder that any static host can serve; default build/web.
 *
 * Owns what is in that folder: the page, its scripts and the package's bundled into a few files (a request for each of a hundred modules would be most of the
 * time of a visit), the engine, the model that comes with it, and the list of what the service worker keeps.
 */

import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { CommandError, ROOT, runScript } from './command.js'
import { setUpAndBuild } from './setup.js'

/** What is copied: from here, to there. @type {[string, string][]} */
const COPIES = [
  ...['index.html', 'page.css', 'views.css', 'icons', 'app.webmanifest', 'service-worker.js'].map(
    (name) => /** @type {[string, string]} */ ([`web/${name}`, name]),
  ),
  ...['bimamba', 'bimamba-relaxed', 'bimamba-threads', 'bimamba-threads-relaxed'].map(
    (name) => /** @type {[string, string]} */ ([`dist/${name}.wasm`, `dist/${name}.wasm`]),
  ),
  ['LICENSE', 'licenses/bimamba.txt'],
  ['dist/tokenizers.LICENSE', 'licenses/tokenizers.txt'],
  ['dist/jinja.LICENSE', 'licenses/jinja.txt'],
  ['models/tales/tales.safetensors', 'models/tales.safetensors'],
]
/** Nobody else's, so what a broken-off build has left there may go. */
const OWN_FOLDER = join(ROOT, 'build/web')
/** Scripts that something loads by their name; what they share goes into further files. */
const ENTRIES = ['web/app.js', 'js/worker.js', 'js/thread.js']
/** The package finds its modules of WebAssembly in ../dist, so the scripts are in a folder. */
const SCRIPTS = 'app'
/** What the service worker keeps. Weights are never among it. */
const SHELL = /\.(html|css|js|wasm|svg|png|webmanifest)$/
/** Itself it cannot keep, and its list is loaded by it. */
const NOT_SHELL = ['service-worker.js', 'shell-files.js']

/** @param {string} folder @returns {string[]} files below it, with `/`, sorted */
function listFiles(folder) {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => name.replaceAll('\\', '/'))
    .sort()
}

/**
 * @param {string} site
 * @returns {Promise<string[]>} what the page loads before it can do anything: app.js and what that imports
 */
async function bundleScripts(site) {
  // A package of node_modules, which a fresh clone gets while this script runs.
  const { build } = await import('esbuild')
  const { metafile } = await build({
    absWorkingDir: ROOT,
    entryPoints: ENTRIES,
    outdir: join(site, SCRIPTS),
    entryNames: '[name]',
    chunkNames: '[name]-[hash]',
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    legalComments: 'none', // licenses/ has them
    metafile: true,
    logLevel: 'warning',
  })
  const first = Object.keys(metafile.outputs).find((path) => path.endsWith(`/${SCRIPTS}/app.js`))
  const found = new Set([first ?? ''])
  for (const path of found) {
    for (const { path: imported, kind } of metafile.outputs[path]?.imports ?? []) {
      if (kind === 'import-statement') found.add(imported)
    }
  }
  return Array.from(found, (path) => `${SCRIPTS}/${path.split('/').at(-1)}`)
}

/** @param {string} site @param {Record<string, string>} headers @param {string[]} scripts that come at once and not one after another */
function finishPage(site, headers, scripts) {
  const path = join(site, 'index.html')
  const page = readFileSync(path, 'utf8')
  const policy = `<meta http-equiv="Content-Security-Policy" content="${headers['Content-Security-Policy']}">`
  const preloads = scripts.map((name) => `<link rel="modulepreload" href="${name}">`)
  const charset = '<meta charset="utf-8">'
  const finished = page
    .replace(charset, [charset, policy, ...preloads].join('\n    '))
    .replace('src="app.js"', `src="${SCRIPTS}/app.js"`)
  if (!finished.includes(policy) || !finished.includes(`src="${SCRIPTS}/`)) {
    throw new Error('index.html: the places for its policy and its script are not there')
  }
  writeFileSync(path, finished)
}

/** @returns {Record<string, string>} of every answer */
const readHeaders = () => JSON.parse(readFileSync(join(ROOT, 'web/headers.json'), 'utf8'))

/** Writes the list of what the service worker keeps, of what is there now. @param {string} site @returns {string[]} those files */
export function writeShell(site) {
  const headers = readHeaders()
  const names = listFiles(site).filter((name) => SHELL.test(name) && !NOT_SHELL.includes(name))
  const files = Object.fromEntries(
    names.map((name) => [
      name,
      `sha256-${createHash('sha256')
        .update(readFileSync(join(site, name)))
        .digest('base64')}`,
    ]),
  )
  const version = createHash('sha256')
    .update(JSON.stringify({ headers, files }))
    .digest('hex')
    .slice(0, 16)
  const list = JSON.stringify({ version, headers, files }, null, 2)
  writeFileSync(
    join(site, 'shell-files.js'),
    `/* Made by the build: what service-worker.js keeps. */\nself.SHELL = ${list}\n`,
  )
  return names
}

/** Hosts that read such a file send the headers by themselves. @param {string} site @param {Record<string, string>} headers */
function writeHostFiles(site, headers) {
  const lines = Object.entries(headers).map(([name, value]) => `  ${name}: ${value}`)
  writeFileSync(
    join(site, '_headers'),
    ['/*', ...lines, '/service-worker.js', '  Cache-Control: no-cache', ''].join('\n'),
  )
  writeFileSync(join(site, '.nojekyll'), '')
}

/**
 * @param {string} [site] the folder; an earlier build in it is gone
 * @throws {CommandError} there is something else in it
 * @returns {Promise<{ site: string, headers: Record<string, string>, shell: string[] }>} shell: what the service worker keeps
 */
export async function buildSite(site = OWN_FOLDER) {
  const isOurs = site === OWN_FOLDER || existsSync(join(site, 'shell-files.js'))
  if (existsSync(site) && !isOurs && readdirSync(site).length > 0) {
    throw new CommandError(`${site} is not empty, and no earlier build: nothing was written`)
  }
  rmSync(site, { recursive: true, force: true })
  for (const [from, to] of COPIES) {
    mkdirSync(dirname(join(site, to)), { recursive: true })
    cpSync(join(ROOT, from), join(site, to), { recursive: true })
  }
  const headers = readHeaders()
  finishPage(site, headers, await bundleScripts(site))
  const shell = writeShell(site)
  writeHostFiles(site, headers)
  return { site, headers, shell }
}

/** @param {number} bytes */
const kilobytes = (bytes) => `${(bytes / 1000).toFixed(0)} kB`.padStart(9)

/** @param {{ site: string, shell: string[] }} built */
function printSizes({ site, shell }) {
  /** @type {[string, RegExp][]} */
  const groups = [
    ['page, styles, icons', /\.(html|css|svg|png|webmanifest)$/],
    ['scripts of the app and of the package', /\.js$/],
    [
      'engine (one of four builds, as the browser needs it)',
      /^dist\/bimamba-threads-relaxed\.wasm$/,
    ],
    ['model', /\.safetensors$/],
  ]
  const names = listFiles(site)
  for (const [label, pattern] of groups) {
    const contents = names
      .filter((name) => pattern.test(name))
      .map((name) => readFileSync(join(site, name)))
    const bytes = contents.reduce((sum, { length }) => sum + length, 0)
    const zipped = contents.reduce((sum, content) => sum + gzipSync(content).length, 0)
    console.log(`${kilobytes(bytes)} ${kilobytes(zipped)} gzipped  ${label}`)
  }
  console.log(
    `The service worker keeps ${shell.length} files; the package keeps the model.\n${site}`,
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder] = process.argv.slice(2)
  runScript(setUpAndBuild)
  try {
    if (!process.exitCode)
      printSizes(await buildSite(folder === undefined ? undefined : resolve(folder)))
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
