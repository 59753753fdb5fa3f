/**
 * `bimamba eval` against the harness's rules done a second time, token by token, and against being killed.
 */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BiMamba, VERSION } from '../../js/index.js'
import { countLines, killAtLine, runCommand } from './support/command-run.js'
import { asLines, evalItems, TASKS } from './support/eval-data.js'
import { argmax, meanAndError, questionOf, steppedLoglikelihood } from './support/eval-reference.js'
import { MODEL_FILE } from './support/model-file.js'
import { tempFolder } from './support/temp-folder.js'
import { temporaryFolder } from './support/tiny-model.js'

const ITEMS = 200
/** Between chunks and single steps the results are the same to the bit; this is room for the softmax of float32 logits. */
const TOLERANCE = 1e-4

const WITHOUT_NORM = ['boolq', 'winogrande']

/** @type {BiMamba} */
let model
before(async () => {
  model = await BiMamba.load(MODEL_FILE, { inline: true, threads: 1 })
})
after(() => model.close())

/** @param {string} task @param {string} file @param {...string} rest */
const argsOf = (task, file, ...rest) => [
  ...['eval', '--model', MODEL_FILE, '--threads', '1', '--task', task, '--file', file],
  ...rest,
]

/** @param {string} path @returns {{ item: number, logprobs: number[], tokens: number[] }[]} */
const journalOf = (path) =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => JSON.parse(line))

describe('what it reports is what the harness would', () => {
  for (const [seed, task] of TASKS.entries()) {
    test(`${task} (seed ${seed})`, async (t) => {
      const folder = await tempFolder(t)
      const [file, report] = [join(folder, 'data.jsonl'), join(folder, 'report.json')]
      const items = evalItems(task, ITEMS, seed)
      writeFileSync(file, asLines(items))
      const { status, stdout, stderr } = await runCommand(
        argsOf(task, file, '--report', report, '--json'),
      )
      assert.equal(status, 0, stderr)
      const found = JSON.parse(readFileSync(report, 'utf8'))
      assert.deepEqual(JSON.parse(stdout), found)
      const scores = journalOf(`${report}.journal.jsonl`)
      assert.equal(scores.length, ITEMS)
      /** @type {boolean[]} */
      const acc = []
      /** @type {boolean[]} */
      const norm = []
      for (const [i, item] of items.entries()) {
        const { pairs, choices, gold } = questionOf(task, item)
        const want = []
        for (const pair of pairs) want.push(await steppedLoglikelihood(model, ...pair))
        const got = scores[i]?.logprobs ?? []
        assert.equal(got.length, want.length)
        const worst = Math.max(...want.map((value, k) => Math.abs(value - Number(got[k]))))
        assert(worst < TOLERANCE, `item ${i}: ${got}, want ${want}`)
        assert.equal(argmax(got), argmax(want), `item ${i}`)
        acc.push(argmax(want) === gold)
        norm.push(
          argmax(want.map((value, k) => value / Array.from(choices[k] ?? '').length)) === gold,
        )
      }
      checkReport(task, found, { acc: meanAndError(acc), norm: meanAndError(norm) })
    })
  }
})

/**
 * @param {string} task
 * @param {Record<string, unknown>} found
 * @param {Record<'acc' | 'norm', { mean: number, stderr: number }>} want
 */
function checkReport(task, found, { acc, norm }) {
  const near = (/** @type {unknown} */ a, /** @type {number} */ b) =>
    assert(Math.abs(Number(a) - b) < 1e-12, `${task}: ${a}, want ${b}`)
  assert(acc.mean > 0.1 && acc.mean < 0.9, `both right and wrong ones: ${acc.mean}`)
  near(found.acc, acc.mean)
  near(found.acc_stderr, acc.stderr)
  const hasNorm = !WITHOUT_NORM.includes(task)
  assert.equal('acc_norm' in found, hasNorm)
  assert.equal(found.metric, hasNorm ? 'acc_norm' : 'acc')
  if (!hasNorm) return
  assert.notEqual(norm.mean, acc.mean, 'the length makes a difference')
  near(found.acc_norm, norm.mean)
  near(found.acc_norm_stderr, norm.stderr)
}

test('a run that is killed again and again ends with the report of one that is not', async (t) => {
  const folder = await tempFolder(t)
  const path = (/** @type {string} */ name) => join(folder, name)
  writeFileSync(path('data.jsonl'), asLines(evalItems('hellaswag', 500, 77)))
  const args = argsOf('hellaswag', path('data.jsonl'), '--report')
  assert.equal((await runCommand([...args, path('whole.json')])).status, 0)
  const journal = path('broken.json.journal.jsonl')
  let before = 0
  for (const [i, lines] of [1, 60, 61, 200].entries()) {
    const ended = await killAtLine([...args, path('broken.json')], journal, lines)
    assert.equal(ended, 'SIGKILL', 'it was not done before')
    assert(countLines(journal) >= Math.max(before, lines), 'what was there stays')
    assert(countLines(journal) < 500)
    assert(!existsSync(path('broken.json')), 'no report of a part')
    // As if the end of the last line, or a part of a character, had not reached the disk.
    if (i > 0) truncateSync(journal, readFileSync(journal).length - 5)
    before = countLines(journal)
  }
  const { status, stdout } = await runCommand([...args, path('broken.json')])
  assert.equal(status, 0)
  assert.match(
    stdout,
    /^hellaswag: 500 items of data\.jsonl\n {2}acc {7}0\.\d{4} ± 0\.\d{4}\n {2}acc_norm/,
  )
  assert.deepEqual(readFileSync(path('broken.json')), readFileSync(path('whole.json')))
  assert.deepEqual(readFileSync(journal), readFileSync(path('whole.json.journal.jsonl')))
})

test('what the journal has is not computed again; another limit goes on with it', async (t) => {
  const folder = await tempFolder(t)
  const [file, report] = [join(folder, 'data.jsonl'), join(folder, 'report.json')]
  const items = evalItems('piqa', 30, 5)
  writeFileSync(file, asLines(items))
  const args = argsOf('piqa', file, '--report', report)
  assert.equal((await runCommand([...args, '--limit', '20'])).status, 0)
  const journal = `${report}.journal.jsonl`
  const [first = ''] = readFileSync(journal, 'utf8').split('\n')
  const forged = items.slice(0, 20).map((item, i) => {
    const { gold } = questionOf('piqa', item)
    return JSON.stringify({ item: i, logprobs: gold === 0 ? [-1, -9] : [-9, -1], tokens: [1, 1] })
  })
  writeFileSync(journal, `${[first, ...forged].join('\n')}\n`)
  const limited = await runCommand([...args, '--limit', '20', '--json'])
  const { acc, acc_norm: norm, items: count } = JSON.parse(limited.stdout)
  assert.deepEqual([acc, norm, count], [1, 1, 20])
  const fewer = await runCommand([...args, '--limit', '1', '--json'])
  assert.deepEqual([JSON.parse(fewer.stdout).acc, JSON.parse(fewer.stdout).acc_stderr], [1, null])
  assert.equal(JSON.parse((await runCommand([...args, '--json'])).stdout).items, 30)
  assert.equal(journalOf(journal).length, 30)
})

test('the report says what was measured', async (t) => {
  const folder = await tempFolder(t)
  const file = join(folder, 'my data.jsonl')
  const lines = asLines(evalItems('boolq', 6, 1))
  writeFileSync(file, lines.replaceAll('\n', '\r\n\n'))
  const { stdout } = await runCommand(argsOf('boolq', file, '--json', '--precision', 'exact'))
  const { acc, acc_stderr, ...rest } = JSON.parse(stdout)
  assert(acc >= 0 && acc_stderr >= 0)
  const { identity, head } = model.info
  assert.deepEqual(rest, {
    task: 'boolq',
    metric: 'acc',
    items: 6,
    file: 'my data.jsonl',
    file_sha256: createHash('sha256').update(readFileSync(file)).digest('hex'),
    model: identity,
    settings: {
      ...{ precision: 'exact', state: 'f32', head, device: 'wasm' },
      ...{ window: 2048, num_fewshot: 0 },
    },
    version: VERSION,
  })
})

test('a terminal is told how far it is', async (t) => {
  const file = join(await tempFolder(t), 'data.jsonl')
  writeFileSync(file, asLines(evalItems('boolq', 6, 1)))
  const { stderr } = await runCommand(argsOf('boolq', file), { isTTY: true })
  assert.match(stderr, /\[#{24}\] 100 % {2}6 of 6 items {2}acc [01]\.\d{4} {2}0:00 left/)
  assert(stderr.endsWith('\r\x1b[K'), 'and the line is wiped')
  assert.equal((await runCommand(argsOf('boolq', file))).stderr, '')
})

test('a journal of something else is refused, and left as it is', async (t) => {
  const folder = await tempFolder(t)
  const [file, report] = [join(folder, 'data.jsonl'), join(folder, 'report.json')]
  writeFileSync(file, asLines(evalItems('arc_easy', 4, 1)))
  assert.equal((await runCommand(argsOf('arc_easy', file, '--report', report))).status, 0)
  const journal = `${report}.journal.jsonl`
  const kept = readFileSync(journal)
  const otherData = join(folder, 'other.jsonl')
  writeFileSync(otherData, asLines(evalItems('arc_easy', 4, 2)))
  const otherModel = MODEL_FILE.replaceAll('tales-nano', 'tales')
  /** @type {[string[], RegExp][]} */
  const cases = [
    [
      argsOf('arc_challenge', file),
      /another run: task "arc_easy", want "arc_challenge"; delete it/,
    ],
    [argsOf('arc_easy', otherData), /another run: file_sha256 "[0-9a-f]{64}", want "[0-9a-f]{64}"/],
    [['eval', '--model', otherModel, '--task', 'arc_easy', '--file', file], /another run: model "/],
    [argsOf('arc_easy', file, '--precision', 'high'), /another run: precision "fast", want "high"/],
  ]
  for (const [args, pattern] of cases) {
    const { status, stderr } = await runCommand([...args, '--report', report])
    assert.match(stderr, pattern)
    assert.equal(status, 1)
    assert.deepEqual(readFileSync(journal), kept)
  }
  const damages = /** @type {const} */ ([
    ['"item":1', '"item":2', /line 3: field 'item' is 2, want 1/],
    [
      '"logprobs":[',
      '"logprobs":[0,',
      /line 2: field 'logprobs' is .*, want an array of \d numbers/,
    ],
    ['{"item":2', '"item":2', /line 4: it is no JSON/],
  ])
  for (const [text, damage, pattern] of damages) {
    writeFileSync(journal, kept.toString().replace(text, damage))
    const { status, stderr } = await runCommand(argsOf('arc_easy', file, '--report', report))
    assert.match(stderr, pattern)
    assert.equal(status, 2)
  }
})

// The smallest good item of each form.
const arc = { question: 'q', choices: { text: ['a', 'b'], label: ['A', 'B'] }, answerKey: 'A' }
const piqa = { goal: 'g', sol1: 'a', sol2: 'b', label: 1 }
const swag = { activity_label: 'x', ctx_a: 'a', ctx_b: '', endings: ['a', 'b'], label: '1' }
const grande = { sentence: 'a _ b', option1: 'c', option2: 'd', answer: '1' }
const boolq = { passage: 'p', question: 'q', answer: true }
/** @type {Record<string, object>} */
const GOOD = {
  ...{ piqa, boolq, hellaswag: swag, winogrande: grande },
  ...{
    arc_easy: arc,
    arc_challenge: arc,
    openbookqa: { ...arc, question_stem: 'q', question: 'q' },
  },
}

describe('bad data is named by file, line and field', () => {
  /** @type {[string, unknown, RegExp][]} */
  const cases = [
    ['piqa', { ...piqa, label: -1 }, /field 'label' is -1, want an integer from 0 to 1/],
    ['piqa', { ...piqa, label: '' }, /field 'label' is "", want an integer/],
    ['piqa', { ...piqa, goal: ' ' }, /field 'goal' is " ", want a string that is not blank/],
    ['piqa', { goal: 'g', sol1: 'a', label: 1 }, /field 'sol2' is missing, want a string/],
    ['piqa', [piqa], /it is \[\{.*, want a JSON object/],
    ['boolq', { ...boolq, answer: 'yes' }, /field 'answer' is "yes", want true or false/],
    ['boolq', { ...boolq, label: 2 }, /field 'label' is 2, want an integer from 0 to 1/],
    [
      'hellaswag',
      { ...swag, endings: ['a', 5] },
      /field 'endings' is \["a",5\], want an array of 2/,
    ],
    ['hellaswag', { ...swag, label: 2 }, /field 'label' is 2, want an integer from 0 to 1/],
    ['hellaswag', { ...swag, ctx_b: null }, /field 'ctx_b' is null, want a string/],
    ['winogrande', { ...grande, sentence: 'a b' }, /field 'sentence' is "a b", want .* with a _/],
    ['winogrande', { ...grande, answer: '' }, /field 'answer' is "", want an integer from 1 to 2/],
    [
      'arc_easy',
      { ...arc, answerKey: 'C' },
      /field 'answerKey' is "C", want one of the labels A, B/,
    ],
    ['arc_easy', { ...arc, choices: ['a', 'b'] }, /field 'choices' is \["a","b"\], want an object/],
    [
      'arc_challenge',
      { ...arc, choices: { text: ['a', 'b'], label: ['A'] } },
      /in 'choices': field 'label' is \["A"\], want an array of 2/,
    ],
    [
      'arc_challenge',
      { ...arc, choices: { text: ['a', 'b'], label: ['A', 'B', 'C'] } },
      /in 'choices': field 'label' is .*, want as many labels as texts, 2/,
    ],
    ['openbookqa', { ...arc, question: undefined }, /field 'question_stem' is missing/],
    [
      'openbookqa',
      { question: { stem: 's', choices: [{ text: 'a' }, { text: 'b' }] }, answerKey: 'A' },
      /in 'question': field 'choices' is .*, want an array of 2 or more objects with text and label/,
    ],
  ]
  for (const [task, item, pattern] of cases) {
    test(`${task}: ${pattern.source}`, async (t) => {
      const file = join(await tempFolder(t), 'bad.jsonl')
      writeFileSync(file, asLines([GOOD[task] ?? {}, /** @type {object} */ (item)]))
      const { status, stdout, stderr } = await runCommand(argsOf(task, file))
      assert.match(stderr, pattern)
      assert.match(stderr, /^bimamba: .*bad\.jsonl line 2[:,] [^\n]*\n$/)
      assert.deepEqual([status, stdout], [2, ''])
      assert.equal(
        (await runCommand(argsOf(task, file, '--limit', '1'))).status,
        0,
        'line 1 is good',
      )
    })
  }
})

test('says what is wrong with the command line, the file and the texts', async (t) => {
  const folder = await tempFolder(t)
  const files = { blank: '\n \n', torn: '{"goal": "a', binary: Uint8Array.of(0x7b, 0xff, 0x0a) }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  const at = (/** @type {string} */ name) => join(folder, name)
  const piqa = { goal: 'g', sol1: 'a', sol2: 'b', label: 1 }
  writeFileSync(at('good'), asLines([piqa]))
  writeFileSync(at('long'), asLines([piqa, { ...piqa, sol1: 'fox '.repeat(3000) }]))
  /** @type {[string[], number, RegExp][]} */
  const cases = [
    [['eval'], 2, /--task is missing, want boolq, piqa, /],
    [['eval', '--task', 'hellaswg'], 2, /--task is 'hellaswg', did you mean hellaswag\?/],
    [['eval', '--task', 'mmlu'], 2, /--task is 'mmlu', want boolq, /],
    [['eval', '--task', 'piqa'], 2, /--file is missing/],
    [argsOf('piqa', at('good'), 'more'), 2, /unexpected argument 'more'/],
    [argsOf('piqa', at('good'), '--limit', '0'), 2, /--limit is 0, want an integer from 1/],
    [argsOf('piqa', at('good'), '--report', ''), 2, /--report is empty/],
    [argsOf('piqa', at('good'), '--report', at('./good')), 2, /--report and --file are one file/],
    [argsOf('piqa', at('absent')), 1, /cannot read .*absent: ENOENT/],
    [argsOf('piqa', at('blank')), 2, /blank has no items/],
    [argsOf('piqa', at('torn')), 2, /torn line 1: it is no JSON: "\{\\"goal/],
    [argsOf('piqa', at('binary')), 2, /binary line 1: it is not UTF-8 text/],
    [
      argsOf('piqa', at('long')),
      2,
      /long line 2: a continuation has \d+ tokens, want at most .* 2048/,
    ],
    [
      argsOf('piqa', at('good'), '--report', at('no/r.json')),
      1,
      /cannot write .*no\/r\.json\.journal/,
    ],
  ]
  for (const [args, status, pattern] of cases) {
    const result = await runCommand(args)
    assert.match(result.stderr, pattern)
    assert.equal(result.status, status, String(pattern))
    assert.equal(result.stdout, '')
  }
})

test('two runs with one journal: the one that writes second says so', async () => {
  const { LineFile } = await import('../../js/cli/line-file.js')
  const path = join(temporaryFolder(), 'shared.jsonl')
  const openIt = () => LineFile.open(path, () => {}, '{')
  const [one, two] = [await openIt(), await openIt()]
  await one.append('{"a":1}')
  await assert.rejects(two.append('{"b":2}'), {
    code: 'io',
    message: /another process writes to it/,
  })
  await one.append('{"c":3}')
  await Promise.all([one.close(), two.close()])
  assert.equal(readFileSync(path, 'utf8'), '{"a":1}\n{"c":3}\n')
  copyFileSync(path, `${path}.torn`)
  writeFileSync(`${path}.torn`, Uint8Array.of(0x22, 0xc3), { flag: 'a' })
  /** @type {string[]} */
  const lines = []
  const torn = await LineFile.open(`${path}.torn`, ({ text }) => lines.push(text), '{')
  await torn.append('é')
  await torn.close()
  assert.deepEqual(lines, ['{"a":1}', '{"c":3}'])
  assert.equal(readFileSync(`${path}.torn`, 'utf8'), '{"a":1}\n{"c":3}\né\n')
  // Nothing but a torn line: a beginning of ours is cut, of anything else nothing is.
  for (const [text, isOurs] of /** @type {[string, boolean][]} */ ([
    ['{"', true],
    ['{"inde', true],
    ['{"id": 5', false],
    ['{"index":5,"te', true],
    ['a letter', false],
  ])) {
    writeFileSync(`${path}.one`, text)
    const opening = LineFile.open(`${path}.one`, () => {}, '{"index":')
    if (isOurs) await (await opening).close()
    else
      await assert.rejects(opening, {
        code: 'argument',
        message: /is another file, it begins with/,
      })
    assert.equal(readFileSync(`${path}.one`, 'utf8'), isOurs ? '' : text)
  }
})
