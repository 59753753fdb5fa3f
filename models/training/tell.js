/**
 * Lets a packed model continue the prompts of prompts.txt, by the package itself: at temperature 0, and at 0.8 with fixed seeds.
 *
 *   node models/training/tell.js MODEL.safetensors [--tokens 150] [--seeds 5] > told.jsonl
 *
 * One JSON object a line: { prompt, temperature, seed, text }, the prompt not repeated in the text. names.py counts who is in them.
 */

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { BiMamba } from '../../js/index.js'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    tokens: { type: 'string', default: '150' },
    seeds: { type: 'string', default: '5' },
  },
})
const [tokens, seeds] = [Number(values.tokens), Number(values.seeds)]
if (positionals.length !== 1 || !(tokens >= 1) || !(seeds >= 0)) {
  console.error('usage: node tell.js MODEL.safetensors [--tokens N] [--seeds N]')
  process.exit(2)
}
const prompts = readFileSync(new URL('prompts.txt', import.meta.url), 'utf8')
  .trim()
  .split('\n')
const model = await BiMamba.load(String(positionals[0]))

/** @param {string} prompt @param {number} temperature @param {number} seed */
async function tell(prompt, temperature, seed) {
  let text = ''
  const options = { maxTokens: tokens, temperature, seed }
  for await (const part of model.generate(prompt, options)) text += part
  console.log(JSON.stringify({ prompt, temperature, seed, text }))
}

for (const prompt of prompts) {
  await tell(prompt, 0, 0)
  for (let seed = 1; seed <= seeds; seed++) await tell(prompt, 0.8, seed)
}
await model.close()
