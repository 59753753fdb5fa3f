/**
 * `bimamba batch`: each line answered as the API would, once, in however many processes and attempts.
 */

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { linkSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import { join as joinPieces } from './support/collect.js'
import { countLines, killAtLine, runCommand } from './support/command-run.js'
import { asLines } from './support/eval-data.js'
import { MODEL_FILE } from './support/model-file.js'
import { seeded } from './support/seeded.js'
import { tempFolder } from './support/temp-folder.js'
import { tinyModel } from './support/tiny-model.js'

/** @type {BiMamba} */
let model
before(async () => {
  model = await BiMamba.load(MODEL_FILE, { inline: true, threads: 1 })
})
after(() => model.close())

/** @param {...string} rest */
const argsOf = (...rest) => ['batch', '--model', MODEL_FILE, '--threads', '1', ...rest]

/** @param {string} path */
const answersOf = (path) =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

/** @param {number} count @param {number} seed @returns {object[]} prompts and chats, some of them wrong */
function prompts(count, seed) {
  const random = seeded(seed)
  const names = ['fox', 'bear', 'girl', 'boy']
  return Array.from({ length: count }, (_, i) => {
    const text = `Once there was a little ${names[random.below(4)]}`
    const maxTokens = 10 + random.below(40)
    if (i % 10 === 7) return { id: `wrong ${i}`, prompt: text, maxTokens: -1 }
    if (i % 5 === 3) return { messages: [{ role: 'user', content: text }], maxTokens }
    return { id: `line ${i}`, prompt: text, maxTokens }
  })
}

test('each line is what the API gives for its prompt, options and seed', async (t) => {
  const folder = await tempFolder(t)
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  const said = [
    { role: /** @type {const} */ ('system'), content: 'You tell stories.' },
    { role: /** @type {const} */ ('user'), content: 'A fox?' },
    { role: /** @type {const} */ ('assistant'), content: 'Yes.' },
  ]
  const lines = [
    { id: 'plain', prompt: 'Once upon a time' },
    { id: 7, prompt: 'Once upon a time' },
    { prompt: 'The fox', temperature: 0, maxTokens: 9, stop: ['.'] },
    { prompt: [1, 5, 9], seed: 99, bos: false },
    { id: 'chat', messages: [...said, { role: 'user', content: 'Go on.' }], maxTokens: 12 },
  ]
  writeFileSync(input, asLines(lines))
  const { status, stdout, stderr } = await runCommand(
    argsOf(input, output, '--max-tokens', '20', '--seed', '40', '--top-k', '5'),
  )
  assert.deepEqual([status, stdout, stderr], [0, '', '[5 lines made]\n'])
  const common = { maxTokens: 20, topK: 5 }
  /** @type {[string | number[], import('../../js/settings.js').GenerateOptions][]} */
  const wanted = [
    ['Once upon a time', { ...common, seed: 40 }],
    ['Once upon a time', { ...common, seed: 41 }],
    ['The fox', { ...common, seed: 42, temperature: 0, maxTokens: 9, stop: ['.'] }],
    [[1, 5, 9], { ...common, seed: 99, bos: false }],
  ]
  const answers = answersOf(output)
  const keys = ['index', 'id', 'text', 'promptTokens', 'tokens', 'finishReason', 'seed', 'run']
  for (const answer of answers) assert.deepEqual(Object.keys(answer), keys)
  assert.deepEqual(
    answers.map(({ index, id }) => [index, id]),
    [
      [0, 'plain'],
      [1, 7],
      [2, 2],
      [3, 3],
      [4, 'chat'],
    ],
  )
  for (const [i, [prompt, options]] of wanted.entries()) {
    const { run, index, id, ...found } = answers[i]
    const text = await joinPieces(model.generate(prompt, options))
    const { promptTokens, tokens, finishReason, seed } = model.lastStats ?? {}
    assert.deepEqual(found, { text, promptTokens, tokens, finishReason, seed })
  }
  assert.notEqual(answers[0].text, answers[1].text, 'each line has its own seed')
  const chat = await model.createSession()
  await chat.say(said)
  const reply = chat.chat('Go on.', { ...common, seed: 44, maxTokens: 12 })
  assert.equal(answers[4].text, await joinPieces(reply))
  await chat.close()
})

test('behind the largest seed comes 0', async (t) => {
  const folder = await tempFolder(t)
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  writeFileSync(input, asLines([{ prompt: 'a' }, { prompt: 'a' }, { prompt: 'a' }]))
  const largest = Number.MAX_SAFE_INTEGER
  const { status } = await runCommand(
    argsOf(input, output, '--max-tokens', '1', '--seed', String(largest)),
  )
  assert.equal(status, 0)
  assert.deepEqual(
    answersOf(output).map(({ seed }) => seed),
    [largest, 0, 1],
  )
})

test('texts of a format: of the run, and of a line', async (t) => {
  const folder = await tempFolder(t)
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  writeFileSync(input, asLines([{ prompt: 'Once' }, { prompt: 'Once', format: { regex: 'c+d' } }]))
  const { status } = await runCommand(argsOf(input, output, '--regex', '[ab]{4}'))
  assert.equal(status, 0)
  const [first, second] = answersOf(output)
  assert.match(first.text, /^[ab]{4}$/)
  assert.match(second.text, /^c+d$/)
})

test('a run that is killed again and again ends with the file of one that is not', async (t) => {
  const folder = await tempFolder(t)
  const path = (/** @type {string} */ name) => join(folder, name)
  writeFileSync(path('in.jsonl'), asLines(prompts(300, 3)))
  const args = argsOf(path('in.jsonl'))
  assert.equal((await runCommand([...args, path('whole.jsonl')])).status, 0)
  assert.equal(countLines(path('whole.jsonl')), 300)
  let before = 0
  for (const [i, lines] of [1, 40, 41, 100].entries()) {
    const ended = await killAtLine([...args, path('out.jsonl')], path('out.jsonl'), lines)
    assert.equal(ended, 'SIGKILL', 'it was not done before')
    assert(countLines(path('out.jsonl')) >= Math.max(before, lines), 'what was there stays')
    assert(countLines(path('out.jsonl')) < 300)
    if (i > 0) truncateSync(path('out.jsonl'), readFileSync(path('out.jsonl')).length - 9)
    before = countLines(path('out.jsonl'))
  }
  const { status, stderr } = await runCommand([...args, path('out.jsonl')])
  assert.equal(status, 0)
  assert.equal(
    stderr,
    `[${300 - before} lines made, ${before} were there; 30 in all with an error]\n`,
  )
  assert.deepEqual(readFileSync(path('out.jsonl')), readFileSync(path('whole.jsonl')))
})

test('shards together are the lines of one run', async (t) => {
  const folder = await tempFolder(t)
  const path = (/** @type {string} */ name) => join(folder, name)
  const lines = asLines(prompts(32, 4)).split('\n')
  lines.splice(4, 0, '', '  ')
  writeFileSync(path('in.jsonl'), lines.join('\n'))
  assert.equal((await runCommand(argsOf(path('in.jsonl'), path('one.jsonl')))).status, 0)
  /** @type {number[][]} */
  const parts = []
  for (const shard of [1, 2, 3]) {
    const output = path(`out.${shard}.jsonl`)
    const args = argsOf(path('in.jsonl'), output, '--shard', `${shard}/3`)
    assert.equal((await runCommand(args)).status, 0)
    parts.push(answersOf(output).map(({ index }) => index))
  }
  for (const [i, part] of parts.entries()) assert(part.every((index) => index % 3 === i))
  assert.deepEqual(parts.flat().length, 32, 'blank lines have no answer')
  // The README's way of putting them together.
  const command = 'sort -t: -k2n out.*.jsonl'
  const { stdout } = spawnSync('bash', ['-c', command], { cwd: folder, encoding: 'utf8' })
  assert.equal(stdout, readFileSync(path('one.jsonl'), 'utf8'))
})

describe('a wrong line', () => {
  const message = (/** @type {unknown[]} */ ...list) => ({ messages: list, maxTokens: 2 })
  /** @type {[string, RegExp][]} */
  const cases = [
    ['{"prompt": "a"', /^line 2: it is no JSON: /],
    ['["a"]', /^line 2: it is \["a"\], want a JSON object$/],
    ['{}', /^line 2: field 'prompt' is missing, want a prompt or 'messages', one of them$/],
    ['{"prompt": "a", "messages": []}', /^line 2: field 'prompt' is "a", want a prompt or/],
    ['{"prompt": 5}', /^line 2: prompt is 5, want a string or an array of token ids$/],
    ['{"prompt": [-1]}', /^line 2: prompt\[0\] is -1, want a token id from 0 to 3071$/],
    ['{"prompt": "a", "id": null}', /^line 2: field 'id' is null, want a string or a number$/],
    ['{"prompt": "a", "topk": 5}', /^line 2: .*unknown option 'topk', did you mean 'topK'\?$/],
    ['{"prompt": "a", "topP": 2}', /^line 2: topP is 2, want a number from above 0 to 1$/],
    ['{"prompt": "a", "signal": {}}', /^line 2: field 'signal' is \{\}, want no such field$/],
    [
      JSON.stringify(message()),
      /^line 2: field 'messages' is \[\], want an array of messages, the/,
    ],
    [JSON.stringify(message({ role: 'assistant', content: 'a' })), /^line 2: .*the role 'user'$/],
    [
      JSON.stringify(message({ role: 'user', content: 5 })),
      /^line 2: said\[0\]\.content is number, want a string$/,
    ],
    [
      JSON.stringify(message({ role: 'x' }, { role: 'user', content: 'a' })),
      /^line 2: said\[0\]\.role is "x"/,
    ],
  ]
  for (const [line, pattern] of cases) {
    test(`${line} is answered by an error, and with --strict ends the run`, async (t) => {
      const folder = await tempFolder(t)
      const path = (/** @type {string} */ name) => join(folder, name)
      const good = '{"prompt": "a", "maxTokens": 2}'
      writeFileSync(path('in.jsonl'), `${good}\n${line}\n${good}`)
      const { status, stderr } = await runCommand(argsOf(path('in.jsonl'), path('out.jsonl')))
      assert.deepEqual([status, stderr], [0, '[3 lines made; 1 in all with an error]\n'])
      const [first, wrong, last] = answersOf(path('out.jsonl'))
      assert.deepEqual(Object.keys(wrong), ['index', 'id', 'error', 'run'])
      assert.equal(wrong.error.code, 'argument')
      assert.match(wrong.error.message, pattern)
      assert.deepEqual([first.tokens, wrong.index, last.index, last.tokens], [2, 1, 2, 2])
      for (const output of ['out.jsonl', 'strict.jsonl']) {
        const args = argsOf(path('in.jsonl'), path(output), '--strict')
        const strict = await runCommand(args)
        assert.match(strict.stderr, /^bimamba: [^\n]*in\.jsonl line 2: [^\n]*\n$/)
        assert.equal(strict.status, 2)
      }
      assert.equal(countLines(path('strict.jsonl')), 1, 'the lines before it stay')
    })
  }
})

test('an output of other prompts, options, models or shards is refused, and left as it is', async (t) => {
  const folder = await tempFolder(t)
  const path = (/** @type {string} */ name) => join(folder, name)
  const lines = asLines(prompts(6, 5))
  writeFileSync(path('in.jsonl'), lines)
  writeFileSync(path('changed.jsonl'), lines.replace('line 1', 'line one'))
  writeFileSync(path('shorter.jsonl'), lines.slice(0, lines.trimEnd().lastIndexOf('\n') + 1))
  assert.equal((await runCommand(argsOf(path('in.jsonl'), path('out.jsonl')))).status, 0)
  const kept = readFileSync(path('out.jsonl'), 'utf8')
  const [first = ''] = kept.split('\n')
  /** @type {[string[], RegExp][]} */
  const cases = [
    [
      argsOf(path('in.jsonl'), '--seed', '1'),
      /out\.jsonl line 1 was made from line 1 of .*in\.jsonl with/,
    ],
    [argsOf(path('in.jsonl'), '--top-k', '3'), /another model, options or prompt: want a new file/],
    [['batch', '--model', await tinyModel(), path('in.jsonl')], /out\.jsonl line 1 was made from/],
    [argsOf(path('changed.jsonl')), /out\.jsonl line 2 was made from line 2 of .*changed\.jsonl/],
    [
      argsOf(path('shorter.jsonl')),
      /line 6 has the index 5, which is not in this shard of .*shorter/,
    ],
    [
      argsOf(path('in.jsonl'), '--shard', '1/2'),
      /line 2 has the index 1, which is not in this shard/,
    ],
  ]
  for (const [args, pattern] of cases) {
    const { status, stderr } = await runCommand([...args, path('out.jsonl')])
    assert.match(stderr, pattern)
    assert.equal(status, 1)
    assert.equal(readFileSync(path('out.jsonl'), 'utf8'), kept)
  }
  const damages = /** @type {const} */ ([
    [`${first}\n${first}\n`, /out\.jsonl line 2: field 'index' is 0, want each only once/],
    [`${first}\n{"index":1\n${first}\n`, /out\.jsonl line 2: it is no JSON/],
    ['{"a":1}\n', /out\.jsonl line 1: field 'index' is missing/],
  ])
  for (const [text, pattern] of damages) {
    writeFileSync(path('out.jsonl'), text)
    const { status, stderr } = await runCommand(argsOf(path('in.jsonl'), path('out.jsonl')))
    assert.match(stderr, pattern)
    assert.equal(status, 2)
    assert.equal(readFileSync(path('out.jsonl'), 'utf8'), text)
  }
})

test('says what is wrong with the command line and the files', async (t) => {
  const folder = await tempFolder(t)
  const path = (/** @type {string} */ name) => join(folder, name)
  writeFileSync(path('in.jsonl'), '{"prompt": "a"}\n')
  writeFileSync(path('binary.jsonl'), Uint8Array.of(0x22, 0xff, 0x22, 0x0a))
  const silent = await tinyModel({ tokenizer: null, bos: false })
  /** @type {[string[], number, RegExp][]} */
  const cases = [
    [argsOf(), 2, /batch needs IN\.jsonl and OUT\.jsonl/],
    [argsOf(path('in.jsonl')), 2, /batch needs IN/],
    [argsOf(path('in.jsonl'), path('o'), 'more'), 2, /unexpected argument 'more'/],
    [argsOf(path('in.jsonl'), path('./in.jsonl')), 2, /IN\.jsonl and OUT\.jsonl are one file/],
    [
      argsOf(path('in.jsonl'), path('o'), '--shard', '0/3'),
      2,
      /--shard is '0\/3', want I\/N with I from/,
    ],
    [argsOf(path('in.jsonl'), path('o'), '--shard', '4/3'), 2, /--shard is '4\/3', want I\/N/],
    [argsOf(path('in.jsonl'), path('o'), '--shard', 'x'), 2, /--shard is 'x', want I\/N/],
    [argsOf(path('in.jsonl'), path('o'), '--top-p', '7'), 2, /--top-p is 7/],
    [argsOf(path('absent.jsonl'), path('o')), 1, /cannot read .*absent\.jsonl: ENOENT/],
    [argsOf(path('binary.jsonl'), path('o')), 2, /binary\.jsonl line 1: it is not UTF-8 text/],
    [argsOf(path('in.jsonl'), path('no/o')), 1, /cannot write .*no\/o: ENOENT/],
    [
      ['batch', '--model', silent, path('in.jsonl'), path('o')],
      1,
      /no tokenizer: batch writes text/,
    ],
  ]
  writeFileSync(path('mine.jsonl'), '{"id":"x","prompt":"my only copy"}')
  linkSync(path('in.jsonl'), path('hard.jsonl'))
  symlinkSync(path('in.jsonl'), path('soft.jsonl'))
  cases.push(
    [argsOf(path('absent.jsonl'), path('mine.jsonl')), 2, /mine\.jsonl is another file, it begins/],
    [argsOf(path('in.jsonl'), path('hard.jsonl')), 2, /are one file/],
    [argsOf(path('in.jsonl'), path('soft.jsonl')), 2, /are one file/],
  )
  for (const [args, status, pattern] of cases) {
    const result = await runCommand(args)
    assert.match(result.stderr, pattern)
    assert.equal(result.status, status, String(pattern))
  }
  assert.equal(readFileSync(path('mine.jsonl'), 'utf8'), '{"id":"x","prompt":"my only copy"}')
  assert.equal(readFileSync(path('in.jsonl'), 'utf8'), '{"prompt": "a"}\n')
})

test('a terminal is told how far it is', async (t) => {
  const folder = await tempFolder(t)
  const [input, output] = [join(folder, 'in.jsonl'), join(folder, 'out.jsonl')]
  writeFileSync(input, `${'{"prompt": "a", "maxTokens": 2}\n'.repeat(3)}{}\n`)
  const { stderr } = await runCommand(argsOf(input, output), { isTTY: true })
  assert.match(stderr, /\[#{24}\] 100 % {2}4 of 4 lines, 1 wrong {2}0:00 left.*\[4 lines made/s)
})
