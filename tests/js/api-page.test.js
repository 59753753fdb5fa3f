/**
 * docs/API.md, tried: its examples run as the one program that they are, and it names all that is public.
 */

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { copyFile, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as api from '../../js/index.js'
import { NUMBER_SETTINGS } from '../../js/settings.js'
import { installPackage } from './support/installed-package.js'
import { MODEL_FILE } from './support/model-file.js'

const PAGE = await readFile(fileURLToPath(new URL('../../docs/API.md', import.meta.url)), 'utf8')

test('the examples run from top to bottom', async () => {
  const program = [...PAGE.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, body]) => body).join('\n')
  const installed = await installPackage()
  try {
    await copyFile(MODEL_FILE, join(installed.project, 'model.safetensors'))
    await writeFile(join(installed.project, 'page.mjs'), program)
    const run = promisify(execFile)(process.execPath, ['page.mjs'], { cwd: installed.project })
    const { stdout, stderr } = await run
    assert.equal(stderr, '')
    assert.match(stdout, /Once upon a time there was a fox/)
    assert.match(stdout, /\d+ tokens were read/)
    assert.match(stdout, /argument text is 5, want a string or an array of token ids\n$/)
  } finally {
    await installed.remove()
  }
})

test('every public name, method and option is on it', () => {
  const { BiMamba, Session, SessionStore, Snapshot } = api
  const methods = [BiMamba, Session, SessionStore, Snapshot].flatMap(({ prototype }) =>
    Object.getOwnPropertyNames(prototype),
  )
  const names = [...Object.keys(api), ...methods, ...Object.keys(NUMBER_SETTINGS)]
  assert.deepEqual(
    names.filter((name) => name !== 'constructor' && !RegExp(`\\b${name}\\b`).test(PAGE)),
    [],
  )
})
