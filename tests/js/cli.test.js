/**
 * The command as a user meets it: started as a process, with pipes, signals and mistakes.
 */

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { main } from '../../js/cli/main.js'
import { withoutControls } from '../../js/cli/output.js'
import { BiMamba, VERSION } from '../../js/index.js'
import { temporaryFolder, tinyModel } from './support/tiny-model.js'

const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))

let model = ''
/** The text after 'a' is long with this seed. */
let seed = '0'

before(async () => {
  model = await tinyModel()
  const loaded = await BiMamba.load(model, { inline: true })
  for (let tried = 0; tried < 100; tried++) {
    let tokens = 0
    for await (const _ of loaded.generateIds('a', { seed: tried, maxTokens: 300 })) tokens++
    seed = String(tried)
    if (tokens === 300) break
  }
  await loaded.close()
})

/** @param {string[]} args @param {{ input?: string | Buffer, cwd?: string }} [options] */
function bimamba(args, options = {}) {
  const { stdout, stderr, status } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    timeout: 60000,
    input: '',
    ...options,
  })
  return { stdout, stderr, status }
}

/** @param {string[]} args @param {number} status @param {RegExp} pattern */
function fails(args, status, pattern) {
  const result = bimamba(args)
  assert.match(result.stderr, pattern)
  assert.match(result.stderr, /^bimamba: [^\n]*\n$/, 'one line')
  assert.equal(result.status, status)
  assert.equal(result.stdout, '')
}

test('help and version', () => {
  assert.match(
    bimamba(['--help']).stdout,
    /generate.*\n.*batch.*\n.*chat.*\n.*score.*\n.*perplexity.*\n.*eval.*\n.*bench.*\n.*serve.*\n.*pull.*\n.*cache.*\n.*convert.*\n.*inspect/,
  )
  assert.match(bimamba([]).stdout, /Usage: bimamba/)
  assert.equal(bimamba(['--version']).stdout, `${VERSION}\n`)
  const { stdout, status } = bimamba(['generate', '--help'])
  assert.equal(status, 0)
  for (const name of [
    'model',
    'max-tokens',
    'temperature',
    'top-k',
    'top-p',
    'min-p',
    'repetition-penalty',
  ]) {
    assert.match(stdout, RegExp(`--${name} `))
  }
  assert.match(bimamba(['score', '--help']).stdout, /--tokens/)
})

test('mistakes on the command line are named, and exit with 2', () => {
  fails(['genrate'], 2, /unknown command genrate, did you mean generate\?/)
  fails(['--verbose'], 2, /unknown option --verbose/)
  fails(
    ['generate', '--temprature', '1', 'x'],
    2,
    /unknown option --temprature, did you mean --temperature\?/,
  )
  fails(['generate', '--maxTokens', '1', 'x'], 2, /did you mean --max-tokens\?/)
  fails(['generate', '-t', '1', 'x'], 2, /unknown option -t/)
  fails(['generate', '--top-p', '1.5', 'x'], 2, /--top-p is 1.5, want a number from above 0 to 1/)
  fails(['generate', '--top-p', 'high', 'x'], 2, /--top-p is 'high', want a number/)
  fails(['generate', '--seed', '0x10', 'x'], 2, /--seed is '0x10'/)
  fails(['generate', '--seed', '', 'x'], 2, /--seed is ''/)
  fails(['generate', '--seed', '1', '--seed', '2', 'x'], 2, /--seed is given twice/)
  fails(['generate', 'x', '--max-tokens'], 2, /--max-tokens needs a value/)
  fails(['generate', '--json=yes', 'x'], 2, /--json takes no value/)
  fails(['generate', '--stop', '', 'x'], 2, /--stop/)
  fails(
    ['generate', '--precision', 'half', 'x'],
    2,
    /--precision is "half", want fast, high, exact/,
  )
  fails(['generate', '--variant', '', 'x'], 2, /--variant is empty/)
  fails(['generate', 'two', 'words'], 2, /unexpected argument 'words'/)
  fails(['generate', '--tokens', '1,x'], 2, /--tokens: 'x' is no token id/)
  fails(['score'], 2, /--tokens is missing/)
  fails(['score', '--tokens', '1', 'more'], 2, /unexpected argument/)
})

test('what goes wrong later exits with 1, in one line', () => {
  fails(['generate', '--model', '/nowhere/x.safetensors', 'a'], 1, /nowhere.*no such file/)
  fails(['generate', '--model', MAIN, 'a'], 1, /not a packed model/)
  fails(['generate', '--model', 'http://127.0.0.1:1/x', 'a'], 1, /127\.0\.0\.1:1/)
})

test('a prompt gives text on stdout and numbers on stderr, the same each time', async () => {
  const args = ['generate', '--model', model, '--seed', seed, '--max-tokens', '30', 'once upon']
  const first = bimamba(args)
  assert.equal(first.status, 0)
  assert.match(
    first.stderr,
    RegExp(`^\\[30 tokens in [\\d.]+ s, [\\d.]+ tokens/s; .*; length; seed ${seed}\\]\n$`),
  )
  assert.equal(bimamba(args).stdout, first.stdout)
  const loaded = await BiMamba.load(model, { inline: true })
  let text = ''
  for await (const piece of loaded.generate('once upon', { seed: Number(seed), maxTokens: 30 }))
    text += piece
  await loaded.close()
  assert.equal(first.stdout, `${text}\n`)
  assert.equal(bimamba([...args, '--echo']).stdout, `once upon${text}\n`)
})

test('a text of a format: a schema or a grammar in a file, or a regular expression', () => {
  const file = join(temporaryFolder(), 'format.txt')
  const args = ['generate', 'a', '--model', model, '--temperature', '2', '--max-tokens', '500']
  writeFileSync(
    file,
    '{ "type": "array", "items": { "enum": [1, "é"] }, "minItems": 2, "maxItems": 3 }',
  )
  const { stdout, stderr } = bimamba([...args, '--json-schema', file])
  assert.ok(JSON.parse(stdout).length >= 2)
  assert.match(stderr, /stop string or whole format; seed/)
  fails([...args, '--grammar', file], 2, /format\.grammar, line 1, column 1: want NAME ::=/)
  writeFileSync(file, 'root ::= "x" y\ny ::= [ab]{3}')
  assert.match(bimamba([...args, '--grammar', file]).stdout, /^x[ab]{3}\n$/)
  fails([...args, '--json-schema', file], 2, /--json-schema .*format\.txt: .*JSON/)
  assert.match(bimamba([...args, '--regex', '(no|yes)!']).stdout, /^(no|yes)!\n$/)
  fails([...args, '--regex', '('], 2, /format\.regex: Invalid regular expression/)
  fails([...args, '--regex', 'a', '--grammar', file], 2, /--regex and --grammar: want one of them/)
  fails([...args, '--grammar', `${file}.none`], 1, /--grammar .*\.none: ENOENT/)
})

test('every option reaches the model', () => {
  const base = ['generate', '--model', model, '--json', '--max-tokens', '20']
  const run = (/** @type {string[]} */ ...more) =>
    JSON.parse(bimamba([...base, ...more, 'a']).stdout)
  const greedy = run('--temperature', '0')
  assert.equal(run('--temperature=5', '--top-k', '1', '--seed', '3').text, greedy.text)
  assert.equal(run('--temperature', '5', '--min-p', '1').text, greedy.text)
  assert.equal(run('--temperature', '5', '--top-p', '0.000001').text, greedy.text)
  assert.equal(greedy.promptTokens, 2)
  assert.equal(run('--no-bos').promptTokens, 1)
  assert.equal(run('--seed', '12').seed, 12)
  assert.ok(Number.isInteger(run().seed))
  const stop = [...greedy.text].at(1)
  const stopped = run('--temperature', '0', '--stop', 'never', '--stop', stop)
  assert.equal(stopped.text, greedy.text.slice(0, greedy.text.indexOf(stop)))
  assert.equal(stopped.finishReason, 'stop')
  const penalty = run('--temperature', '0', '--repetition-penalty', '100')
  assert.notEqual(penalty.text, greedy.text)
  assert.equal(run('--precision', 'exact').finishReason.length > 0, true)
  assert.equal(run('--temperature', '0', '--variant', 'popcount').text, greedy.text)
})

test('the prompt may come from stdin, be empty, or be ids', () => {
  const base = ['generate', '--model', model, '--json', '--seed', '1', '--max-tokens', '5']
  const given = JSON.parse(bimamba([...base, 'once upon']).stdout)
  for (const args of [base, [...base, '-']]) {
    assert.equal(JSON.parse(bimamba(args, { input: 'once upon\n' }).stdout).text, given.text)
  }
  assert.equal(JSON.parse(bimamba([...base, '']).stdout).promptTokens, 1)
  assert.equal(JSON.parse(bimamba(base, { input: '' }).stdout).promptTokens, 1)
  assert.equal(JSON.parse(bimamba([...base, '--tokens', '1, 5,6']).stdout).promptTokens, 3)
  assert.equal(JSON.parse(bimamba([...base, '--', '--help']).stdout).promptTokens > 2, true)
  fails([...base, '--no-bos', ''], 2, /the prompt is empty/)
  fails([...base, '--tokens', '5', 'text'], 2, /want one of them/)
  fails([...base, '--tokens', '99999'], 2, /prompt\[0\] is 99999, want a token id from 0 to 305/)
})

test('score: log-probabilities, and logits as float32', async () => {
  const out = join(temporaryFolder(), 'logits.f32')
  const ids = [1, 5, 6, 290, 7]
  const args = ['score', '--model', model, '--tokens', ids.join(','), '--precision', 'exact']
  const { stdout, status, stderr } = bimamba([...args, '--logits', out])
  assert.equal(stderr, '')
  assert.equal(status, 0)
  const { logprobs, tokens, vocabSize } = JSON.parse(stdout)
  assert.deepEqual(tokens, ids)
  assert.equal(logprobs.length, ids.length)
  assert.equal(logprobs[0], null)
  assert.equal(statSync(out).size, ids.length * vocabSize * 4)
  const file = readFileSync(out)
  for (let t = 1; t < ids.length; t++) {
    const row = Array.from({ length: vocabSize }, (_, i) =>
      file.readFloatLE(((t - 1) * vocabSize + i) * 4),
    )
    const sum = row.reduce((total, logit) => total + Math.exp(logit), 0)
    assert.ok(Math.abs(Number(row[Number(ids[t])]) - Math.log(sum) - logprobs[t]) < 1e-4)
  }
  assert.deepEqual(JSON.parse(bimamba(args).stdout).logprobs, logprobs)
})

test('score leaves no half-written file', () => {
  const folder = temporaryFolder()
  const listing = readdirSync(folder)
  fails(['score', '--model', model, '--tokens', '1,9999', '--logits', join(folder, 'x')], 2, /9999/)
  fails(
    ['score', '--model', model, '--tokens', '1', '--logits', join(folder, 'no', 'x')],
    1,
    /cannot write .*x: /,
  )
  assert.deepEqual(readdirSync(folder), listing)
})

test('Ctrl-C ends the text cleanly, with its line of numbers', {
  skip: process.platform === 'win32',
}, async () => {
  const args = [
    MAIN,
    'generate',
    '--model',
    model,
    '--seed',
    seed,
    '--max-tokens',
    '100000000',
    'a',
  ]
  for (let tries = 0; ; tries++) {
    const child = spawn(process.execPath, args)
    let stderr = ''
    child.stderr.on('data', (data) => {
      stderr += data
    })
    const exited = once(child, 'exit')
    await Promise.race([once(child.stdout, 'data'), exited])
    child.stdout.resume()
    child.kill('SIGINT')
    const [code, signal] = await exited
    // The tiny model may draw its end of text before the signal arrives.
    if (/end of text/.test(stderr) && tries < 5) continue
    assert.match(stderr, /^\[\d+ tokens in .*; interrupted; seed \d+\]\n$/)
    assert.deepEqual([code, signal], [0, null])
    break
  }
})

test('Ctrl-C or SIGTERM while it waits for stdin exits with 130 or 143', {
  skip: process.platform === 'win32',
}, async () => {
  for (const [signal, exitCode] of /** @type {const} */ ([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ])) {
    const child = spawn(process.execPath, [MAIN, 'generate', '--model', model])
    await new Promise((resolve) => setTimeout(resolve, 700))
    child.kill(signal)
    assert.deepEqual(await once(child, 'exit'), [exitCode, null])
  }
})

test('a reader that goes away ends it quietly', async () => {
  const child = spawn(process.execPath, [
    MAIN,
    'generate',
    '--model',
    model,
    '--max-tokens',
    '100000000',
    '--seed',
    seed,
    'a',
  ])
  let stderr = ''
  child.stderr.on('data', (data) => {
    stderr += data
  })
  await once(child.stdout, 'data')
  child.stdout.destroy()
  const [code] = await once(child, 'exit')
  assert.equal(code, 0)
  assert.doesNotMatch(stderr, /EPIPE|Error/)
})

test('it runs through a link, as npm installs it', () => {
  const link = join(temporaryFolder(), 'bimamba')
  symlinkSync(MAIN, link)
  const { stdout } = spawnSync(process.execPath, [link, '--version'], { encoding: 'utf8' })
  assert.equal(stdout, `${VERSION}\n`)
})

test('a terminal gets no control characters, a pipe gets the text as it is', async () => {
  assert.equal(withoutControls('a\u001b[31m\u0007\u009b\u007f\r\n\tb\u0000é😀'), 'a[31m\n\tbé😀')
  const { PassThrough } = await import('node:stream')
  /** @param {boolean} isTTY */
  const run = async (isTTY) => {
    const stdout = Object.assign(new PassThrough(), { isTTY })
    const stderr = new PassThrough()
    const stdin = new PassThrough()
    const args = ['generate', '--model', model, '--seed', seed, '--max-tokens', '200', 'a']
    const code = await main(args, { stdin, stdout, stderr, signal: new AbortController().signal })
    assert.equal(code, 0)
    stdout.end()
    return (await stdout.toArray()).join('')
  }
  const [piped, shown] = [await run(false), await run(true)]
  assert.match(piped, /(?![\n\t])\p{Cc}/u)
  assert.equal(shown, withoutControls(piped))
})

/** @param {string[]} lines @param {string[]} [args] */
function chat(lines, args = []) {
  const input = lines.map((line) => `${line}\n`).join('')
  const folder = join(temporaryFolder(), 'chats')
  const common = ['chat', '--model', model, '--sessions', folder, '--max-tokens', '4']
  return bimamba([...common, '--seed', '3', '--temperature', '0', ...args], { input })
}

test('chat: a reply to each line; save, undo, again, fork and back', () => {
  const plain = chat(['hello', 'and?'])
  assert.deepEqual([plain.status, plain.stderr], [0, ''])
  assert.ok(plain.stdout.endsWith('\n') && plain.stdout.length > 2)
  const first = chat(['hello'])
  assert.ok(plain.stdout.startsWith(first.stdout))
  const told = chat([
    'hello',
    '/save one',
    '/fork',
    'what?',
    '/back',
    '/undo',
    'hello',
    'and?',
    '/list',
  ])
  assert.equal(told.status, 0)
  assert.match(
    told.stderr,
    /saved as one: \d+ tokens\nin fork 1; \/back returns\nback where the fork was\ntaken back: hello\n {2}20[-\d]+ [\d:]+ .* MB {2}one\n$/,
  )
  const formed = chat(['hello', 'and?'], ['--regex', '(yes|no), \\w{3}'])
  assert.match(formed.stdout, /^((yes|no), \w{3}\n){2}$/)
  // After all that the chat goes on as one that was never left.
  assert.ok(told.stdout.endsWith(plain.stdout))
  const loaded = chat(['and?'], ['--load', 'one'])
  assert.equal(first.stdout + loaded.stdout, plain.stdout)
  assert.equal(chat(['hello', '/again']).stdout, first.stdout + first.stdout)
})

test('chat: a system text, a new beginning, and mistakes that are told', () => {
  const system = chat(['hello', '/reset', 'hello'], ['--system', 'Be kind.'])
  assert.deepEqual([system.status, system.stderr], [0, 'a new chat\n'])
  const half = system.stdout.length / 2
  assert.equal(system.stdout.slice(0, half), system.stdout.slice(half))
  const { stderr, status } = chat([
    '/sav one',
    '/save',
    '/load none',
    '/back',
    '/undo',
    '/help',
    '/quit',
    'x',
  ])
  assert.equal(status, 0)
  for (const part of [
    'no command /sav, did you mean /save?',
    'want /save NAME',
    'no session is kept as "none"',
    'in no fork',
    'there is nothing to take back',
    '/fork       try something',
  ]) {
    assert.ok(stderr.includes(part), `${part} in ${stderr}`)
  }
  fails(['chat', '--model', model, '--system', 'a', '--load', 'b'], 2, /--system and --load/)
  fails(['chat', '--model', model, 'hello'], 2, /unexpected argument 'hello'/)
  fails(['chat', '--model', model, '--load', 'never saved'], 1, /no session is kept/)
})
