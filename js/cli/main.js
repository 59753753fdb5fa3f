#!/usr/bin/env node
/**
 * The `bimamba` command: finds the subcommand, and turns signals and errors into exit codes.
 *
 * Owns the list of subcommands, Ctrl-C (once: end cleanly; twice: exit at once), a reader that goes away (end quietly), and what
 * an error looks like: one line. Exit code 0: done; 1: failed; 2: the command line is wrong; 130: Ctrl-C; 143: SIGTERM.
 */

import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { BmError, VERSION } from '../index.js'
import { suggest } from '../settings.js'
import { helpText, parseOptions, UsageError } from './options.js'
import { withoutControls, write } from './output.js'

/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('./options.js').ParsedOptions} ParsedOptions */

/**
 * What a module of a command gives. USAGE: the first lines of its help. ARGUMENTS: what it takes besides options; one in brackets may be left out.
 * run gives the exit code.
 * @typedef {object} Command
 * @property {string} USAGE
 * @property {import('./options.js').OptionTable} OPTIONS
 * @property {readonly string[]} [ARGUMENTS]
 * @property {(parsed: ParsedOptions, io: Io) => Promise<number>} run
 */

/** @type {Record<string, { about: string, load: () => Promise<Command> }>} */
const COMMANDS = {
  generate: { about: 'continue a prompt', load: () => import('./generate.js') },
  batch: { about: 'continue many prompts from a file', load: () => import('./batch.js') },
  chat: { about: 'talk, save, undo, fork', load: () => import('./chat.js') },
  score: { about: 'log-probabilities and logits of token ids', load: () => import('./score.js') },
  perplexity: { about: 'how well a model predicts a text', load: () => import('./perplexity.js') },
  eval: { about: 'accuracy on multiple-choice tasks', load: () => import('./eval.js') },
  bench: { about: 'measure speed and memory', load: () => import('./bench.js') },
  serve: { about: "OpenAI's API on this machine", load: () => import('./serve.js') },
  pull: { about: 'download a model into the cache', load: () => import('./pull.js') },
  cache: { about: 'show what is in the cache, or delete it', load: () => import('./cache.js') },
  convert: { about: 'pack a checkpoint', load: () => import('./convert.js') },
  inspect: { about: 'show what a packed model holds', load: () => import('./inspect.js') },
  'export-gguf': {
    about: 'write a packed model as GGUF, for llama.cpp',
    load: () => import('./export-gguf.js'),
  },
}

const HELP = `Usage: bimamba COMMAND [options]

Runs 1-bit Mamba-2 (Bi-Mamba) language models, and dense ones beside them.

Commands:
${Object.entries(COMMANDS)
  .map(([name, { about }]) => `  ${name.padEnd(13)}${about}`)
  .join('\n')}

bimamba COMMAND --help shows a command's options.
bimamba --version shows the version.
`

/**
 * @param {string[]} args
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function main(args, io) {
  try {
    return await dispatch(args, io)
  } catch (error) {
    // Whatever failed after Ctrl-C failed because of it.
    if (io.signal.aborted) return exitCodeOf(io.signal.reason)
    await write(io.stderr, `bimamba: ${describe(error)}\n`)
    return isUsage(error) ? 2 : 1
  }
}

/**
 * @param {string[]} args
 * @param {Io} io
 * @returns {Promise<number>}
 */
async function dispatch([name = '--help', ...args], io) {
  if (name === '--help' || name === '-h' || name === 'help') {
    await write(io.stdout, HELP)
    return 0
  }
  if (name === '--version') {
    await write(io.stdout, `${VERSION}\n`)
    return 0
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (!command) {
    const meant = suggest(name, Object.keys(COMMANDS))
    const what = name.startsWith('-') ? 'option' : 'command'
    throw new UsageError(
      `unknown ${what} ${name}${meant ? `, did you mean ${meant}?` : ''}; see bimamba --help`,
    )
  }
  const { USAGE, OPTIONS, ARGUMENTS = [], run } = await command.load()
  const parsed = parseOptions(args, OPTIONS)
  if (parsed.flags.has('help')) {
    await write(io.stdout, helpText(USAGE, OPTIONS))
    return 0
  }
  checkArguments(name, ARGUMENTS, parsed.positionals)
  return run(parsed, io)
}

/** @param {string} command @param {readonly string[]} names @param {readonly string[]} found @throws {UsageError} there are too few, or too many */
function checkArguments(command, names, found) {
  const needed = names.filter((name) => !name.startsWith('['))
  if (needed.some((_, i) => !found[i]))
    throw new UsageError(`${command} needs ${needed.join(' and ')}`)
  const extra = found[names.length]
  if (extra !== undefined)
    throw new UsageError(`unexpected argument '${extra}'; what has spaces needs quotes`)
}

/** @param {unknown} error a wrong command line, however a command says it */
function isUsage(error) {
  return error instanceof UsageError || (error instanceof BmError && error.code === 'argument')
}

/** @param {unknown} error @returns {string} one line; file names and servers may hold control characters too */
function describe(error) {
  const text = error instanceof Error ? error.message : String(error)
  const kind = error instanceof BmError || error instanceof UsageError ? '' : 'unexpected error: '
  return withoutControls(kind + text).replace(/\s*\n\s*/g, ' ')
}

/** Nobody reads stdout any more (`bimamba ... | head`). */
class ReaderGone extends Error {}

/** A signal asked for the end. */
class Interrupted extends Error {
  /** @param {number} exitCode 128 and the signal's number */
  constructor(exitCode) {
    super('interrupted')
    this.exitCode = exitCode
  }
}

/** @param {unknown} reason of an abort */
function exitCodeOf(reason) {
  if (reason instanceof ReaderGone) return 0
  return reason instanceof Interrupted ? reason.exitCode : 130
}

/** @returns {Promise<void>} */
async function runProcess() {
  const controller = new AbortController()
  for (const [name, exitCode] of /** @type {const} */ ([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ])) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(exitCode)
      controller.abort(new Interrupted(exitCode))
    })
  }
  process.stdout.on('error', (error) => {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'EPIPE') throw error
    controller.abort(new ReaderGone())
  })
  // Nobody sees what is said on stderr any more; the work is the same.
  process.stderr.on('error', () => {})
  const { stdin, stdout, stderr } = process
  const code = await main(process.argv.slice(2), {
    stdin,
    stdout,
    stderr,
    signal: controller.signal,
  })
  process.exitCode = code
  // An unfinished read of a terminal or pipe would keep the process alive.
  stdin.destroy()
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await runProcess()
}
