/**
 * What a conversion leaves behind: the whole file or nothing, whatever fails and whenever; and the command's exit codes.
 */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { formatBytes } from '../../js/byte-count.js'
import { main } from '../../js/cli/main.js'
import { createProgress, progressLine } from '../../js/cli/progress.js'
import { convertCheckpoint } from '../../js/convert/index.js'
import { createOutput, openFolder } from '../../js/convert/node-files.js'
import { packCheckpoint } from '../../js/convert/pack.js'
import { Core } from '../../js/core.js'
import { writeCheckpoint } from './support/checkpoint.js'
import { memoryOutput } from './support/memory-output.js'
import { tempFolder } from './support/temp-folder.js'

const core = await Core.create()
const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))

/** Runs the command in this process. @param {string[]} args @param {AbortSignal} [signal] */
async function command(args, signal = new AbortController().signal) {
  const out = collector()
  const err = collector()
  const io = { stdin: process.stdin, stdout: out.stream, stderr: err.stream, signal }
  return { code: await main(args, io), stdout: out.text(), stderr: err.text() }
}

function collector() {
  let text = ''
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk
      done()
    },
  })
  return { stream, text: () => text }
}

test('the file appears under its name only, and replaces an older one', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'))
  await mkdir(join(dir, 'out'))
  const out = join(dir, 'out', 'model.safetensors')
  await writeFile(out, 'older')
  const { fileBytes } = await convertCheckpoint(core, join(dir, 'in'), out)
  assert.deepEqual(await readdir(join(dir, 'out')), ['model.safetensors'])
  assert.equal((await stat(out)).size, fileBytes)
})

test('an error leaves nothing behind and an older file as it was', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'), {
    edit: (all) =>
      all.map((one) =>
        one.name === 'backbone.norm_f.weight'
          ? { ...one, values: () => new Float32Array(64).fill(Number.NaN) }
          : one,
      ),
  })
  await mkdir(join(dir, 'out'))
  const out = join(dir, 'out', 'model.safetensors')
  await assert.rejects(convertCheckpoint(core, join(dir, 'in'), out), { code: 'checkpoint' })
  assert.deepEqual(await readdir(join(dir, 'out')), [])
  await writeFile(out, 'older')
  await assert.rejects(convertCheckpoint(core, join(dir, 'in'), out), { code: 'checkpoint' })
  assert.deepEqual(await readdir(join(dir, 'out')), ['model.safetensors'])
  assert.equal(await readFile(out, 'utf8'), 'older')
})

test('an abort at any step rejects with its reason and leaves nothing behind', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'), { container: 'bin' })
  await mkdir(join(dir, 'out'))
  let steps = 0
  await convertCheckpoint(core, join(dir, 'in'), join(dir, 'whole'), {
    onProgress: () => void steps++,
  })
  for (let k = 0; k <= steps; k++) {
    const controller = new AbortController()
    const reason = new Error(`step ${k}`)
    if (k === 0) controller.abort(reason)
    let seen = 0
    const onProgress = () => {
      if (++seen === k) controller.abort(reason)
    }
    const { signal } = controller
    await assert.rejects(
      convertCheckpoint(core, join(dir, 'in'), join(dir, 'out', 'm'), { signal, onProgress }),
      reason,
    )
    assert.deepEqual(await readdir(join(dir, 'out')), [], `step ${k}`)
  }
})

test('any read or write that fails is reported, and a later try works', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(dir, { container: 'bin-sharded' })
  const broken = new Error('the disk is gone')
  let total = 0
  for (let k = -1; k < total || k < 0; k++) {
    let count = 0
    const maybeFail = () => {
      if (count++ === k) throw broken
    }
    const folder = await openFolder(dir)
    const failing = {
      ...folder,
      open: async (/** @type {string} */ file) => {
        maybeFail()
        const source = await folder.open(file)
        return {
          ...source,
          read: async (/** @type {number} */ offset, /** @type {number} */ length) => {
            maybeFail()
            return source.read(offset, length)
          },
        }
      },
    }
    const output = memoryOutput()
    const write = async (/** @type {number} */ position, /** @type {Uint8Array} */ bytes) => {
      maybeFail()
      return output.write(position, bytes)
    }
    const done = packCheckpoint(core, failing, { ...output, write })
    if (k < 0) {
      await done
      total = count
      assert(total > 30, `${total} reads and writes`)
    } else {
      await assert.rejects(done, broken, `operation ${k}`)
    }
    await folder.close()
  }
})

test('places where nothing can be written', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'))
  await mkdir(join(dir, 'folder'))
  const rows = [
    [join(dir, 'missing', 'm'), /cannot write in .*missing/],
    [join(dir, 'folder'), /folder: exists and is no file/],
    [join(dir, 'in', 'config.json', 'm'), /cannot write/],
  ]
  for (const [out, message] of rows) {
    await assert.rejects(convertCheckpoint(core, join(dir, 'in'), String(out)), {
      code: 'io',
      message,
    })
  }
  await assert.rejects(convertCheckpoint(core, join(dir, 'nowhere'), join(dir, 'm')), {
    code: 'io',
  })
  await assert.rejects(convertCheckpoint(core, join(dir, 'in', 'config.json'), join(dir, 'm')), {
    code: 'io',
  })
  const options = { tokenizer: join(dir, 'no.json') }
  await assert.rejects(convertCheckpoint(core, join(dir, 'in'), join(dir, 'm'), options), {
    code: 'io',
    message: /no\.json/,
  })
  assert.deepEqual((await readdir(dir)).sort(), ['folder', 'in'])
})

test('files of a folder may be links, as downloaders make them', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'blobs'))
  await mkdir(join(dir, 'snapshot'))
  for (const name of await readdir(join(dir, 'blobs'))) {
    await symlink(join('..', 'blobs', name), join(dir, 'snapshot', name))
  }
  await convertCheckpoint(core, join(dir, 'snapshot'), join(dir, 'm'))
  await rm(join(dir, 'blobs'), { recursive: true })
  await assert.rejects(convertCheckpoint(core, join(dir, 'snapshot'), join(dir, 'n')), {
    code: 'io',
  })
})

test('the command converts, summarises and warns', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'), { container: 'bin' })
  const out = join(dir, 'm.safetensors')
  const { code, stdout, stderr } = await command([
    'convert',
    join(dir, 'in'),
    out,
    '--embedding',
    'f16',
    '--licence',
    'MIT',
  ])
  assert.equal(code, 0, stderr)
  assert.match(
    stdout,
    /m\.safetensors: [\d.]+ kB, 28 tensors\n.*2 layers, d_model 64, vocabulary 50, projections 1 bit, embedding F16, tied head/,
  )
  assert.match(stdout, /zeros {6}none/)
  assert.equal(
    stderr,
    'bimamba: warning: no tokenizer found: the packed model works on token ids only\n',
  )
  assert(stdout.includes(`: ${formatBytes((await stat(out)).size)},`))
})

test('the command names wrong arguments and exits with 2', async (t) => {
  const dir = await tempFolder(t)
  for (const [args, message] of /** @type {[string[], RegExp][]} */ ([
    [[], /needs CHECKPOINT_DIR and OUT/],
    [['a'], /needs CHECKPOINT_DIR and OUT/],
    [['a', 'b', 'c'], /unexpected argument 'c'/],
    [['a', 'b', '--embeding', 'f16'], /unknown option --embeding, did you mean --embedding/],
    [['a', 'b', '--embedding', 'int4'], /--embedding is 'int4', want int8, f16, f32/],
    [['a', 'b', '--embedding'], /needs a value/],
    [['a', 'b', '--zeros', 'minus'], /--zeros is 'minus', want refuse, plus/],
  ])) {
    const { code, stdout, stderr } = await command(['convert', ...args])
    assert.deepEqual([code, stdout], [2, ''], stderr)
    assert.match(stderr, message)
    assert.match(stderr, /^bimamba: [^\n]*\n$/)
  }
  assert.deepEqual(await readdir(dir), [])
})

test('the command names what failed in one line and exits with 1', async (t) => {
  const dir = await tempFolder(t)
  await writeCheckpoint(join(dir, 'in'), {
    editConfig: (json) => ({ ...json, ssm_cfg: { layer: 'Mamba1\n\u001b[31m' } }),
  })
  const { code, stderr } = await command(['convert', join(dir, 'in'), join(dir, 'm')])
  assert.equal(code, 1)
  assert.match(stderr, /^bimamba: config\.json: ssm_cfg\.layer is "Mamba1[^\n]*\n$/)
  assert(!stderr.includes('\u001b'))
  assert.deepEqual(await readdir(dir), ['in'])
})

for (const [signal, exitCode] of /** @type {const} */ ([
  ['SIGINT', 130],
  ['SIGTERM', 143],
])) {
  test(`${signal} ends the command with ${exitCode} and no file`, async (t) => {
    const dir = await tempFolder(t)
    await writeCheckpoint(join(dir, 'in'), {
      config: { n_layer: 4, d_model: 512, vocab_size: 64000 },
      keep: false,
    })
    await mkdir(join(dir, 'out'))
    const child = spawn(process.execPath, [MAIN, 'convert', join(dir, 'in'), join(dir, 'out', 'm')])
    while ((await readdir(join(dir, 'out'))).length === 0)
      await new Promise((done) => setTimeout(done, 2))
    child.kill(signal)
    const code = await new Promise((done) => child.on('exit', done))
    assert.deepEqual([code, await readdir(join(dir, 'out'))], [exitCode, []])
  })
}

test('help', async () => {
  const { code, stdout } = await command(['convert', '--help'])
  assert.equal(code, 0)
  for (const word of ['--embedding', '--zeros', '--tokenizer', '--source', '--licence'])
    assert(stdout.includes(word))
})

test('the progress bar is drawn on a terminal only', () => {
  const plain = collector()
  createProgress(plain.stream).update(1, 2)
  assert.equal(plain.text(), '')
  const terminal = collector()
  const progress = createProgress(Object.assign(terminal.stream, { isTTY: true }))
  progress.clear()
  assert.equal(terminal.text(), '')
  for (let i = 1; i <= 1000; i++) progress.update(i, 1000)
  progress.clear()
  const drawings = terminal.text().split('\r').length
  assert(drawings < 20, `${drawings} drawings`)
  assert.match(terminal.text(), /100 %/)
  assert(terminal.text().endsWith('\r\x1b[K'))
})

test('the progress bar says share, speed and time left', () => {
  assert.equal(progressLine(0, 100e6, 0), `[${'.'.repeat(24)}]   0 %  0 MB/s  0:00 left`)
  assert.equal(
    progressLine(25e6, 100e6, 500),
    `[${'#'.repeat(6)}${'.'.repeat(18)}]  25 %  50 MB/s  0:02 left`,
  )
  assert.equal(progressLine(1e9, 10e9, 10000), `[##${'.'.repeat(22)}]  10 %  100 MB/s  1:30 left`)
  assert.deepEqual([0, 999, 1000, 25312, 142958592, 1.5e12].map(formatBytes), [
    '0 bytes',
    '999 bytes',
    '1.00 kB',
    '25.3 kB',
    '143 MB',
    '1.50 TB',
  ])
})

test('two outputs of one name at once: the file is one of them, whole', async (t) => {
  const folder = await tempFolder(t)
  const texts = ['first', 'the second']
  const outputs = await Promise.all(texts.map(() => createOutput(join(folder, 'out'))))
  for (const [i, text] of texts.entries()) {
    await outputs[i]?.write(0, new TextEncoder().encode(text))
  }
  for (const [i, text] of texts.entries()) {
    await outputs[i]?.commit()
    assert.equal(await readFile(join(folder, 'out'), 'utf8'), text)
  }
  assert.deepEqual(await readdir(folder), ['out'])
})
