/**
 * The package as its users get it: what the tarball holds, and that it works from an empty folder.
 *
 * Owns the list of what may be in the tarball and the bounds on its size. Everything runs in a folder
 * that has the installed tarball and nothing else of this checkout.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { installPackage } from './support/installed-package.js'
import { MODEL_FILE } from './support/model-file.js'

const execute = promisify(execFile)

const MODULES = ['', '-relaxed', '-threads', '-threads-relaxed'].map(
  (suffix) => `bimamba${suffix}.wasm`,
)

/** Every file of the tarball is one of these. */
const NEEDED = [
  /^(package\.json|README\.md|LICENSE)$/,
  /^js\/([a-z-]+\/)?[a-z0-9-]+\.js$/,
  /^dist\/(bimamba(-threads)?(-relaxed)?\.wasm|(tokenizers|jinja)\.(mjs|LICENSE)|shaders\.mjs)$/,
  /^dist\/((bimamba|openai|prompt-api|worker|thread|chunk-[0-9A-Z]{8})\.js|files\.json)$/,
  /^dist\/(bimamba|openai|prompt-api)\.d\.ts$/,
  /^dist\/types\/([a-z-]+\/)?[a-z0-9-]+\.d\.ts$/,
  /^models\/(?!training)[a-z0-9-]+\/([a-z0-9-]+\.safetensors|LICENSE|NOTICE|README\.md|curves\.svg)$/,
]

/** @type {Awaited<ReturnType<typeof installPackage>>} */
let installed

before(async () => {
  installed = await installPackage()
})
after(() => installed.remove())

/** @param {string} path of a file of the installed package */
const inPackage = (path) => join(installed.project, 'node_modules/bimamba', path)

/**
 * Runs a program in the folder that has the package.
 * @param {string} program
 * @param {string[]} args
 */
const runThere = (program, args) =>
  execute(program, args, {
    cwd: installed.project,
    env: { ...process.env, npm_config_offline: 'true' },
  })

test('the tarball holds what is needed and nothing else', () => {
  const paths = installed.packed.files.map(({ path }) => path)
  assert.deepEqual(
    paths.filter((path) => !NEEDED.some((pattern) => pattern.test(path))),
    [],
  )
  for (const path of [
    'js/index.js',
    'js/worker.js',
    'js/thread.js',
    ...['bimamba', 'openai', 'prompt-api', 'worker', 'thread'].map((name) => `dist/${name}.js`),
    ...MODULES.map((name) => `dist/${name}`),
    'dist/types/index.d.ts',
  ]) {
    assert.ok(paths.includes(path), `${path} is missing`)
  }
})

test('dist/files.json names what a page may load from dist/, and that is all in the tarball', async () => {
  /** @type {string[]} */
  const listed = JSON.parse(await readFile(inPackage('dist/files.json'), 'utf8'))
  const packed = installed.packed.files
    .map(({ path }) => path)
    .filter((path) => /^dist\/[^/]+\.(js|mjs|wasm)$/.test(path))
  assert.deepEqual(listed.map((name) => `dist/${name}`).sort(), packed.sort())
  for (const name of listed.filter((name) => name.endsWith('.js'))) {
    const script = await readFile(inPackage(`dist/${name}`), 'utf8')
    const addresses = Array.from(
      script.matchAll(/"(\.{1,2}\/[^"]*\.(?:js|mjs|wasm))"/g),
      ([, address]) => String(address),
    )
    const unlisted = addresses.filter((address) => !listed.includes(address.replace('./', '')))
    assert.deepEqual(unlisted, [], name)
  }
})

test('it has no run-time dependency', async () => {
  const manifest = JSON.parse(await readFile(inPackage('package.json'), 'utf8'))
  assert.deepEqual(Object.keys(manifest.dependencies ?? {}), [])
  assert.equal(manifest.scripts.postinstall ?? manifest.scripts.install, undefined)
})

test('every file that package.json names is there', async () => {
  const { exports, bin } = JSON.parse(await readFile(inPackage('package.json'), 'utf8'))
  const named = [bin, ...Object.values(exports)].flatMap((entry) =>
    typeof entry === 'string' ? [entry] : Object.values(entry),
  )
  assert.deepEqual(
    named.filter((path) => !existsSync(inPackage(path))),
    [],
  )
})

test('what an option of load can place elsewhere can be named to be copied', async () => {
  const { exports } = JSON.parse(await readFile(inPackage('package.json'), 'utf8'))
  for (const name of ['worker.js', 'thread.js', ...MODULES]) {
    assert.equal(typeof exports[`./${name}`], 'string', name)
  }
})

test('package-lock.json suits every platform and names no host', async () => {
  const lock = await readFile(new URL('../../package-lock.json', import.meta.url), 'utf8')
  assert.doesNotMatch(lock, /"resolved"/)
  const { packages } = JSON.parse(lock)
  for (const [path, { optionalDependencies = {} }] of Object.entries(packages)) {
    const missing = Object.keys(optionalDependencies).filter(
      (name) => !packages[`node_modules/${name}`],
    )
    assert.deepEqual(missing, [], path)
  }
})

test('publint finds no fault', async () => {
  const { messages, pkg } = await publint({ pkgDir: inPackage('.'), pack: false, strict: true })
  assert.deepEqual(
    messages.map((message) => formatMessage(message, pkg)),
    [],
  )
})

test('imported in Node it loads a model and generates the same text twice', async () => {
  const program = `
    import { BiMamba, VERSION } from 'bimamba'
    const model = await BiMamba.load(process.argv[2])
    let text = ''
    for await (const piece of model.generate('Once upon a time', { maxTokens: 32, seed: 5 })) text += piece
    await model.close()
    console.log(JSON.stringify({ text, VERSION }))`
  await writeFile(join(installed.project, 'program.js'), program)
  const runs = []
  for (let n = 0; n < 2; n++) {
    const { stdout } = await runThere('node', ['program.js', MODEL_FILE])
    runs.push(JSON.parse(stdout))
  }
  assert.ok(runs[0].text.length > 0)
  assert.equal(runs[0].VERSION, '0.1.0')
  assert.deepEqual(runs[1], runs[0])
})

test('importing it does nothing: no output, no open handle', async () => {
  await writeFile(
    join(installed.project, 'only-import.js'),
    "import 'bimamba'\nimport 'bimamba/convert'\n",
  )
  const { stdout, stderr } = await runThere('node', ['only-import.js'])
  assert.equal(stdout + stderr, '')
})

test('a TypeScript user sees the types', async () => {
  const program = `
    import { BiMamba, BmError, type Session } from 'bimamba'
    const model: BiMamba = await BiMamba.load('model.safetensors', { precision: 'high' })
    for await (const text of model.generate('x', { maxTokens: 1 })) { const s: string = text; s.trim() }
    const session: Session = await model.createSession({ seed: 1 })
    for await (const { text, logprob } of session.generateTokens({ logitBias: { 5: -Infinity } })) { const n: number | null = logprob; text + n }
    const bytes: Uint8Array = await session.save({ state: 'i8' })
    const loaded: Session = await model.loadSession(bytes)
    const read: number = await loaded.rewind(-1)
    // @ts-expect-error: BOS belongs to append
    session.generate({ bos: true, maxTokens: read })
    // @ts-expect-error: no such precision
    await BiMamba.load('model.safetensors', { precision: 'low' })
    const code: 'closed' | string = new BmError('closed', 'x').code
    export { code }\n`
  await writeFile(join(installed.project, 'typed.ts'), program)
  const inPage = `
    import { BiMamba } from './node_modules/bimamba/dist/bimamba.js'
    import { createOpenAI } from './node_modules/bimamba/dist/openai.js'
    import { createLanguageModel } from './node_modules/bimamba/dist/prompt-api.js'
    const model = await BiMamba.load('model.safetensors')
    export const others = [createOpenAI({ model }), createLanguageModel(model)]
    // @ts-expect-error: no such precision
    await BiMamba.load('model.safetensors', { precision: 'low' })\n`
  await writeFile(join(installed.project, 'in-page.ts'), inPage)
  const compiler = fileURLToPath(new URL('../../node_modules/.bin/tsc', import.meta.url))
  const flags = '--noEmit --strict --exactOptionalPropertyTypes --module nodenext --target es2022'
  const libraries = ['--lib', 'es2023,esnext.disposable,dom', '--types', '']
  const { stdout } = await runThere(compiler, [
    ...flags.split(' '),
    ...libraries,
    'typed.ts',
    'in-page.ts',
  ])
  assert.equal(stdout, '')
})

test('npx bimamba runs the command of the installed package', async () => {
  const { stdout } = await runThere('npx', ['--no-install', 'bimamba', '--version'])
  assert.match(stdout, /^(bimamba )?0\.1\.0\n$/)
})
