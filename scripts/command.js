/**
 * Running other programs from the scripts.
 *
 * Owns finding a program on PATH and running one with its output on our terminal. Knows nothing of
 * what is run or why. The idea: the scripts run on a fresh clone, so they use Node's own modules only.
 */

import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root folder of the checkout. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url))

/**
 * The full path of a program, or null.
 * @param {string} name
 */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    try {
      const path = join(folder, name)
      accessSync(path, constants.X_OK)
      return path
    } catch {
      // Not in this folder: look in the next.
    }
  }
  return null
}

/** A program that ran and failed; its own output has already told why. */
export class CommandError extends Error {}

/**
 * Runs a program in the root folder, its output on our terminal; throws CommandError when it fails.
 * @param {string} program
 * @param {string[]} args
 * @param {{ env?: Record<string, string>, timeoutMs?: number }} [options] variables to add; a limit
 */
export function run(program, args, { env = {}, timeoutMs = 0 } = {}) {
  const line = [program, ...args].join(' ')
  const { status, signal, error } = spawnSync(program, args, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: 'inherit',
    timeout: timeoutMs,
  })
  if (error && 'code' in error && error.code === 'ETIMEDOUT') {
    throw new CommandError(`${line}: not done after ${timeoutMs / 60000} minutes`)
  }
  if (error) throw new CommandError(`${line}: ${error.message}`)
  if (signal) throw new CommandError(`${line}: ended by ${signal}`)
  if (status !== 0) throw new CommandError(`${line}: exit code ${status}`)
}

/**
 * Whether a program runs and exits with 0; its output is dropped.
 * @param {string} program
 * @param {string[]} args
 * @param {string} [input] what it reads
 */
export function succeeds(program, args, input = '') {
  return spawnSync(program, args, { cwd: ROOT, input }).status === 0
}

/**
 * Runs a script's main function: a failed command ends the script with its reason in one line.
 * @param {() => void} main
 */
export function runScript(main) {
  try {
    main()
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    console.error(`\n${error.message}`)
    process.exitCode = 1
  }
}
