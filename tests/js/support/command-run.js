/**
 * The command in this process, or in one of its own that is killed on its way.
 *
 * Owns the streams that it is given, and when it is killed: when a file that it writes has so many lines.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { main } from '../../../js/cli/main.js'

const MAIN = fileURLToPath(new URL('../../../js/cli/main.js', import.meta.url))

/** @param {string} path @returns {number} whole ones; 0: no such file */
export function countLines(path) {
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 1 : 0
}

/**
 * @param {string[]} args
 * @param {{ isTTY?: boolean }} [options] of stderr
 * @returns {Promise<{ status: number, stdout: string, stderr: string }>}
 */
export async function runCommand(args, { isTTY = false } = {}) {
  const [stdin, stdout] = [new PassThrough(), new PassThrough()]
  const stderr = Object.assign(new PassThrough(), { isTTY })
  const texts = [stdout, stderr].map((stream) => stream.toArray())
  const { signal } = new AbortController()
  const status = await main(args, { stdin, stdout, stderr, signal })
  stdout.end()
  stderr.end()
  const [out = [], err = []] = await Promise.all(texts)
  return { status, stdout: out.join(''), stderr: err.join('') }
}

/**
 * @param {string[]} args
 * @param {string} path that the command adds lines to
 * @param {number} lines at which it is killed
 * @returns {Promise<string | null>} what ended it: 'SIGKILL', or null when it was done before
 */
export async function killAtLine(args, path, lines) {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: 'ignore' })
  const exit = once(child, 'exit')
  const isOver = () => child.exitCode !== null || child.signalCode !== null
  while (!isOver() && countLines(path) < lines) await sleep(2)
  child.kill('SIGKILL')
  const [, signal] = await exit
  return signal
}
