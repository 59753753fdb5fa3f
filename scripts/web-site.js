/**
 * `npm run web:build [-- FOLDER]`: the web app as a folder that any static host can serve; default build/web.
 *
 * Owns what is in that folder: the app, the package in a folder of its own, the model that comes with it, and the list of the files that the service worker
 * keeps. The idea: nothing is bundled or changed on its way but one address (that of the package) and the policy in the page, so what runs is what can be
 * read here.
 */

import { createHash } from 'node:crypto'
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, posix, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { ROOT, runScript } from './command.js'
import { setUpAndBuild } from './setup.js'

/** What is copied: from here, to there. The command line and the converter are no part of a page. @type {[string, string][]} */
const COPIES = [
  ['web', '.'],
  ['js', 'bimamba/js'],
  ['dist/bimamba.wasm', 'bimamba/dist/bimamba.wasm'],
  ['dist/bimamba-relaxed.wasm', 'bimamba/dist/bimamba-relaxed.wasm'],
  ['dist/bimamba-threads.wasm', 'bimamba/dist/bimamba-threads.wasm'],
  ['dist/bimamba-threads-relaxed.wasm', 'bimamba/dist/bimamba-threads-relaxed.wasm'],
  ['dist/tokenizers.mjs', 'bimamba/dist/tokenizers.mjs'],
  ['dist/tokenizers.LICENSE', 'bimamba/dist/tokenizers.LICENSE'],
  ['dist/jinja.mjs', 'bimamba/dist/jinja.mjs'],
  ['dist/jinja.LICENSE', 'bimamba/dist/jinja.LICENSE'],
  ['dist/shaders.mjs', 'bimamba/dist/shaders.mjs'],
  ['LICENSE', 'LICENSE'],
  ['models/tales/tales.safetensors', 'models/tales.safetensors'],
]
const LEFT_OUT = /^js\/(cli|convert|gpu\/shaders)(\/|$)|^web\/headers\.json$/
/** What the service worker keeps, beside index.html. Weights are never among it. */
const SHELL = /\.(html|css|js|mjs|wasm|svg|png|webmanifest)$/
/** Itself it cannot keep, and its list is loaded by it. */
const NOT_SHELL = ['service-worker.js', 'shell-files.js']

/** @param {string} folder @returns {string[]} files below it, with `/`, sorted */
function listFiles(folder) {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => name.replaceAll('\\', '/'))
    .sort()
}

/** @param {string} site @param {string} name @param {(text: string) => string} change */
function edit(site, name, change) {
  const path = join(site, name)
  const before = readFileSync(path, 'utf8')
  const after = change(before)
  if (after === before) throw new Error(`${name}: nothing in it was replaced`)
  writeFileSync(path, after)
}

/** Every module that the page loads before it can do anything, so that they come at once and not one after another. @param {string} site @param {string} entry */
function findModules(site, entry) {
  const found = new Set([entry])
  for (const name of found) {
    const code = readFileSync(join(site, name), 'utf8')
    for (const [, path = ''] of code.matchAll(
      /^(?:import|export)\s(?:[^'"]*?\sfrom\s)?\s*'(\.[^']+)'/gm,
    )) {
      found.add(posix.join(posix.dirname(name), path))
    }
  }
  return [...found]
}

/** @param {string} site @param {Record<string, string>} headers */
function finishPage(site, headers) {
  edit(site, 'bimamba.js', (code) => code.replace("'../js/index.js'", "'./bimamba/js/index.js'"))
  const policy = `<meta http-equiv="Content-Security-Policy" content="${headers['Content-Security-Policy']}">`
  const preloads = findModules(site, 'app.js').map(
    (name) => `<link rel="modulepreload" href="${name}">`,
  )
  edit(site, 'index.html', (page) =>
    page.replace(
      '<meta charset="utf-8">',
      ['<meta charset="utf-8">', policy, ...preloads].join('\n    '),
    ),
  )
}

/** @param {string} site @param {Record<string, string>} headers @returns {string[]} the files of the shell */
function writeShell(site, headers) {
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
 * @param {string} [site] the folder; what was in it is gone
 * @returns {{ site: string, headers: Record<string, string>, shell: string[] }}
 */
export function buildSite(site = join(ROOT, 'build/web')) {
  rmSync(site, { recursive: true, force: true })
  for (const [from, to] of COPIES) {
    const target = join(site, to)
    mkdirSync(dirname(target), { recursive: true })
    const filter = (/** @type {string} */ path) =>
      !LEFT_OUT.test(path.slice(ROOT.length).replaceAll('\\', '/'))
    cpSync(join(ROOT, from), target, { recursive: true, filter })
  }
  /** @type {Record<string, string>} */
  const headers = JSON.parse(readFileSync(join(ROOT, 'web/headers.json'), 'utf8'))
  finishPage(site, headers)
  const shell = writeShell(site, headers)
  writeHostFiles(site, headers)
  return { site, headers, shell }
}

/** @param {number} bytes */
const kilobytes = (bytes) => `${(bytes / 1000).toFixed(0)} kB`.padStart(9)

/** @param {{ site: string, shell: string[] }} built */
function printSizes({ site, shell }) {
  /** @type {[string, (name: string) => boolean][]} */
  const groups = [
    ['page, styles, icons', (name) => /\.(html|css|svg|png|webmanifest)$/.test(name)],
    ['app', (name) => /^[^/]+\.js$/.test(name)],
    ['package', (name) => /^bimamba\/.*\.m?js$/.test(name)],
    [
      'engine (a browser loads one of four builds)',
      (name) => name === 'bimamba/dist/bimamba-threads-relaxed.wasm',
    ],
    ['model', (name) => name.endsWith('.safetensors')],
  ]
  const names = listFiles(site)
  for (const [label, belongs] of groups) {
    const contents = names.filter(belongs).map((name) => readFileSync(join(site, name)))
    const bytes = contents.reduce((sum, { length }) => sum + length, 0)
    const zipped = contents.reduce((sum, content) => sum + gzipSync(content).length, 0)
    console.log(`${kilobytes(bytes)}  ${kilobytes(zipped)} gzipped  ${label}`)
  }
  console.log(
    `${shell.length} files are kept for offline use; the model is kept by the package.\n${site}`,
  )
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder] = process.argv.slice(2)
  runScript(() => {
    setUpAndBuild()
    printSizes(buildSite(folder === undefined ? undefined : resolve(folder)))
  })
}
