/**
 * The package's worker, but it dies: at its third pull by exiting, at a call by an error.
 */

import { parentPort } from 'node:worker_threads'
import '../../../js/worker.js'

let pulls = 0
parentPort?.on('message', (message) => {
  if (message.kind === 'next' && ++pulls === 3) process.exit(3)
  if (message.kind === 'call') throw new Error('the worker broke')
})
