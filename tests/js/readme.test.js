/**
 * The README, tried: every command and example in it runs, every name in it exists.
 *
 * Owns how its code fences are read: `sh in the checkout` and `sh in a project` say where a block's lines
 * run, one after another and in the README's order; `js` is a program in that project. The project is an
 * empty folder to which the README's own `npm install` line adds the package.
 */

import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { NUMBER_SETTINGS } from '../../js/settings.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { sentencePieceTokenizer, vocabularySize } from './support/small-tokenizer.js'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const README = await readFile(join(ROOT, 'README.md'), 'utf8')
const PACKAGE = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))

/** What the output of a line must hold; the other lines need only succeed. */
const EXPECTED = new Map([
  ['npm pack', /bimamba-0\.1\.0\.tgz/],
  ['npm start', /Once upon a time.*\w+ \w+ \w+/],
  ['npm run build', /build/],
  ['npm run web:build', /gzipped.*model\n/],
  ['npx bimamba generate "Once upon a time" --max-tokens 60 --seed 1', /\w+ \w+/],
  ['npx bimamba generate "Once upon a time" --model model.safetensors --json', /"text":/],
  ['npx bimamba bench --model model.safetensors --threads 1 --threads 2', /^2 threads, table .*$/m],
  [
    'npx bimamba eval --task piqa --file piqa.jsonl --report piqa.json',
    /piqa: 1 item of .*acc_norm/s,
  ],
  ['npx bimamba inspect model.safetensors', /n_layer/],
])

/** @type {string} */
let project

before(async () => {
  project = await mkdtemp(join(tmpdir(), 'bimamba-readme-'))
  await writeFile(join(project, 'package.json'), '{ "private": true, "type": "module" }\n')
  const tokenizer = sentencePieceTokenizer()
  await writeCheckpoint(join(project, 'CHECKPOINT_DIR'), {
    config: { vocab_size: vocabularySize(tokenizer) },
    files: { 'tokenizer.json': JSON.stringify(tokenizer) },
    editConfig: (json) => ({ ...json, bos_token_id: 1, eos_token_id: 2 }),
  })
})

after(async () => {
  await rm(project, { recursive: true })
  await rm(join(ROOT, `bimamba-${PACKAGE.version}.tgz`), { force: true })
})

/**
 * The lines of the code fences with an info string, without comments.
 * @param {string} info
 */
function fencesOf(info) {
  const pattern = new RegExp(`^\`\`\`${info}\\n([^]*?)^\`\`\`$`, 'gm')
  return [...README.matchAll(pattern)].map(([, body = '']) => body)
}

/** @param {string} info */
const linesOf = (info) =>
  fencesOf(info)
    .join('')
    .split('\n')
    .map((line) => line.replace(/\s+#.*$/, '').trim())
    .filter((line) => line !== '')

/**
 * Runs one line of a shell, without a network.
 * @param {string} line
 * @param {string} cwd
 */
async function runLine(line, cwd) {
  const env = { ...process.env, npm_config_offline: 'true' }
  const { stdout } = await promisify(execFile)('bash', ['-c', line], { cwd, env })
  assert.match(stdout, EXPECTED.get(line) ?? /^/, line)
}

test('every code fence says where it runs', () => {
  const infos = [...README.matchAll(/^```(.+)$/gm)].map(([, info]) => info)
  const known = ['js', 'text', 'sh in the checkout', 'sh in a project']
  assert.deepEqual(
    infos.filter((info) => !known.includes(String(info))),
    [],
  )
})

test('the commands for the checkout run there', async () => {
  const lines = linesOf('sh in the checkout')
  assert.deepEqual(lines, [
    ...['npm pack', 'npm run web', 'npm run web:build'],
    ...['npm start', 'npm test', 'npm run build'],
  ])
  // `npm test` is what runs this file, and `npm run web` runs until it is stopped.
  const ended = lines.filter((line) => !['npm test', 'npm run web'].includes(line))
  for (const line of ended) await runLine(line, ROOT)
})

test('`npm run web` serves the app at the address that it prints, with the headers that give threads', async () => {
  const served = spawn('npm', ['run', 'web', '--', '0'], { cwd: ROOT, detached: true })
  try {
    let output = ''
    for await (const piece of served.stdout) {
      output += piece
      if (/http:\/\/127\.0\.0\.1:\d+\//.test(output)) break
    }
    const [url = ''] = /http:\S+/.exec(output) ?? []
    const response = await fetch(url)
    assert.match(await response.text(), /<title>bimamba/)
    assert.equal(response.headers.get('Cross-Origin-Embedder-Policy'), 'require-corp')
    assert.equal((await fetch(`${url}models/tales.safetensors`, { method: 'HEAD' })).status, 200)
    assert.equal((await fetch(`${url}../package.json`)).status, 404)
  } finally {
    process.kill(-Number(served.pid))
  }
})

test('the commands for a project run there', async () => {
  const lines = linesOf('sh in a project')
  assert.match(lines[0] ?? '', /^npm install PATH\/TO\//)
  // The README shows what can be done before it says how a model is converted.
  const converts = lines.filter((line) => line.includes(' convert '))
  const others = lines.filter((line) => !line.includes(' convert '))
  const [install = '', ...rest] = others
  for (const line of [install, ...converts, ...rest])
    await runLine(line.replace('PATH/TO', ROOT), project)
  const { vocab_size: vocabSize } = JSON.parse(
    await readFile(join(project, 'CHECKPOINT_DIR/config.json'), 'utf8'),
  )
  const logits = await readFile(join(project, 'logits.f32'))
  assert.equal(logits.length, 4 * vocabSize * 4)
})

test('the examples run, each as a program', async () => {
  const examples = fencesOf('js')
  assert.ok(examples.length > 0)
  for (const example of examples) {
    await writeFile(join(project, 'example.js'), example)
    const { stdout } = await promisify(execFile)(process.execPath, ['example.js'], { cwd: project })
    assert.ok(stdout.length > 0)
  }
})

test('the sizes of the web app that it states are within 2 % of what is built', async () => {
  const { stdout } = await promisify(execFile)('npm', ['run', 'web:build'], { cwd: ROOT })
  const built = [...stdout.matchAll(/^ *(\d+) kB +(\d+) kB gzipped /gm)]
  const stated = [...README.matchAll(/^\| .* \| ([\d,]+) kB, ([\d,]+) kB \|$/gm)]
  const numbers = (/** @type {RegExpMatchArray[]} */ rows) =>
    rows.flatMap(([, size = '', gzipped = '']) =>
      [size, gzipped].map((text) => Number(text.replace(',', ''))),
    )
  const [want, found] = [numbers(built), numbers(stated)]
  assert.deepEqual([want.length, found.length], [8, 8])
  for (const [i, kilobytes] of found.entries()) {
    // They are whole numbers.
    const off = Math.abs(kilobytes - Number(want[i]))
    assert.ok(
      off <= Math.max(1, 0.02 * Number(want[i])),
      `${kilobytes} kB stated, ${want[i]} built`,
    )
  }
})

test('the size of the module that it states is within 2 % of what was built', () => {
  const stated = /with threads ([\d,]+);.*\| ([\d,]+), [\d,]+ \|/.exec(README)?.slice(1) ?? []
  const built = ['bimamba-threads', 'bimamba'].map(
    (name) => statSync(join(ROOT, `dist/${name}.wasm`)).size,
  )
  assert.equal(stated.length, 2)
  for (const [i, text] of stated.entries()) {
    const bytes = Number(text.replaceAll(',', ''))
    assert.ok(Math.abs(bytes / built[i] - 1) < 0.02, `${bytes} bytes stated, ${built[i]} built`)
  }
})

/** What is loaded with a script of dist/, itself first. @param {string} entry @returns {string[]} names in dist/ */
function loadedWith(entry) {
  const found = new Set([entry])
  for (const name of found) {
    const script = readFileSync(join(ROOT, 'dist', name), 'utf8')
    for (const [, other] of script.matchAll(/\b(?:from|import)"\.\/([^"]+)"/g))
      found.add(String(other))
  }
  return [...found]
}

test('the files and bytes of the package for a page that it states are what was built', () => {
  const stated =
    /into (\w+) files for the page and (\w+) for its worker, (\d+) kB, (\d+) gzipped/.exec(README)
  const page = loadedWith('bimamba.js')
  const all = [...new Set([...page, ...loadedWith('worker.js'), 'tokenizers.mjs'])]
  const inWords = (/** @type {number} */ n) => ['one', 'two', 'three', 'four', 'five', 'six'][n - 1]
  assert.deepEqual(stated?.slice(1, 3), [inWords(page.length), inWords(all.length - page.length)])
  const scripts = all.map((name) => readFileSync(join(ROOT, 'dist', name)))
  for (const [i, built] of [scripts, scripts.map((script) => gzipSync(script))].entries()) {
    const kilobytes = built.reduce((sum, { length }) => sum + length, 0) / 1000
    const off = Math.abs(Number(stated?.[3 + i]) / kilobytes - 1)
    assert.ok(off < 0.02, `${stated?.[3 + i]} kB stated, ${kilobytes} built`)
  }
})

test('every script and file it names exists', () => {
  for (const [, name] of README.matchAll(/npm run ([a-z:]+)/g)) {
    assert.ok(Object.hasOwn(PACKAGE.scripts, String(name)), `npm run ${name}`)
  }
  for (const [, path] of README.matchAll(/\]\(([^):]+)\)/g)) {
    assert.ok(existsSync(join(ROOT, String(path))), `link to ${path}`)
  }
  for (const [, path] of README.matchAll(/[^/\w]((?:js|src|dist|models)\/[\w./-]*\w)/g)) {
    assert.ok(existsSync(join(ROOT, String(path))), String(path))
  }
})

test('it names every generation option, error code and dependency', async () => {
  const errors = await readFile(join(ROOT, 'js/errors.js'), 'utf8')
  const codes = [...errors.matchAll(/^ \* - `(\w+)`/gm)].map(([, code]) => String(code))
  assert.ok(codes.length > 10)
  const names = [...codes, ...Object.keys(NUMBER_SETTINGS), ...Object.keys(PACKAGE.devDependencies)]
  assert.deepEqual(
    names.filter((name) => !README.includes(`\`${name}\``)),
    [],
  )
})
