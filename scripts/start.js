/**
 * `npm start`: from a fresh clone to text. `npm start -- score --tokens 1,2` passes other arguments on.
 *
 * Owns the order of the steps: tools, packages, build, run. Knows no step from inside.
 */

import { run, runScript } from './command.js'
import { setUpAndBuild } from './setup.js'

/** A small model tells a better story when it takes fewer risks. */
const STORY = ['generate', '--echo', '--temperature', '0.5', 'Once upon a time']

const given = process.argv.slice(2)

runScript(() => {
  setUpAndBuild()
  run('node', ['js/cli/main.js', ...(given.length > 0 ? given : STORY)])
})
