/**
 * SentencePiece's own programs, where they are installed: the reference for the conversion of its models.
 *
 * Run by itself it makes the golden files beside it anew: bpe.model and encodings.txt.
 *
 *   node tests/js/support/sentencepiece/spm.js
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { generatedLines, trickyStrings } from './generated-text.js'

/** @returns {boolean} whether spm_train and spm_encode can be run */
export function hasSentencePiece() {
  return ['spm_train', 'spm_encode'].every((name) => !spawnSync(name, ['--help']).error)
}

/**
 * Trains a model of 600 pieces on generated text, with the options of LLaMA's.
 *
 * @param {number} seed of the text
 * @param {Record<string, string>} [options] change or add to spm_train's
 * @returns {Uint8Array} the .model file
 */
export function trainModel(seed, options = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'bimamba-spm-'))
  try {
    writeFileSync(join(folder, 'text'), generatedLines(seed, 6000).join('\n'))
    const all = {
      input: join(folder, 'text'),
      model_prefix: join(folder, 'm'),
      model_type: 'bpe',
      vocab_size: '600',
      byte_fallback: 'true',
      split_digits: 'true',
      normalization_rule_name: 'identity',
      remove_extra_whitespaces: 'false',
      character_coverage: '0.9995',
      unk_id: '0',
      bos_id: '1',
      eos_id: '2',
      pad_id: '-1',
      num_threads: '1',
      minloglevel: '2',
      ...options,
    }
    execFileSync(
      'spm_train',
      Object.entries(all).map(([key, value]) => `--${key}=${value}`),
      { stdio: 'ignore' },
    )
    return readFileSync(join(folder, 'm.model'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/**
 * @param {Uint8Array} model
 * @param {string[]} strings without line feeds
 * @returns {number[][]} ids of each
 */
export function encodeWithSentencePiece(model, strings) {
  const folder = mkdtempSync(join(tmpdir(), 'bimamba-spm-'))
  try {
    const path = join(folder, 'm.model')
    writeFileSync(path, model)
    const args = [`--model=${path}`, '--output_format=id']
    const output = execFileSync('spm_encode', args, {
      input: `${strings.join('\n')}\n`,
      maxBuffer: 2 ** 28,
    })
    const lines = output.toString().split('\n').slice(0, strings.length)
    return lines.map((line) => line.split(' ').filter(Boolean).map(Number))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Writes the golden files. */
function regenerate() {
  const folder = fileURLToPath(new URL('.', import.meta.url))
  const model = trainModel(5)
  const strings = trickyStrings(9, 400)
  const ids = encodeWithSentencePiece(model, strings)
  const made = 'spm.js: trainModel(5), trickyStrings(9, 400), sentencepiece 0.1.97'
  const rows = strings.map((text, i) => JSON.stringify([text, ids[i]]))
  writeFileSync(join(folder, 'bpe.model'), model)
  writeFileSync(join(folder, 'encodings.txt'), `# ${made}\n${rows.join('\n')}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) regenerate()
