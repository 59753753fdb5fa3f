/**
 * `bimamba inspect`: what a packed file says about itself, and whether its bytes are those it names.
 *
 * Owns the listing. The file is read and checked by js/convert/packed-source.js.
 */

import { formatBytes } from '../byte-count.js'
import { openFile } from '../convert/node-files.js'
import { PackedSource } from '../convert/packed-source.js'
import { Core } from '../core.js'
import { BmError } from '../errors.js'
import { COMMON_OPTIONS } from './options.js'
import { withoutControls, write } from './output.js'
import { createProgress } from './progress.js'

/** @typedef {import('./output.js').Io} Io */
/** @typedef {import('../format.js').PackedHeader} PackedHeader */

export const USAGE = `
Usage: bimamba inspect [options] FILE

Shows the config, tensors, sizes and hashes of a packed model.`

export const ARGUMENTS = ['FILE']

export const OPTIONS = {
  verify: { help: 'read the whole file and compare every chunk with its SHA-256' },
  json: { help: 'one JSON object instead of text' },
  ...COMMON_OPTIONS,
}

/**
 * @param {import('./options.js').ParsedOptions} parsed
 * @param {Io} io
 * @returns {Promise<number>} exit code
 */
export async function run({ flags, positionals }, io) {
  const [path = ''] = positionals
  const file = await openFile(path)
  const progress = createProgress(io.stderr)
  try {
    const packed = await PackedSource.open(await Core.create(), file)
    const { header } = packed
    const bad = flags.has('verify') ? await badChunks(packed, progress.update, io.signal) : null
    progress.clear()
    const text = flags.has('json') ? asJson(header, bad) : asText(path, header, bad)
    await write(io.stdout, withoutControls(text), io.signal)
    if (bad?.length) throw damaged(path, header, bad)
    return 0
  } finally {
    progress.clear()
    await file.close()
  }
}

/**
 * @param {PackedSource} packed
 * @param {(done: number, total: number) => void} onProgress
 * @param {AbortSignal} signal
 */
async function badChunks(packed, onProgress, signal) {
  /** @type {number[]} */
  const bad = []
  for await (const k of packed.damagedChunks({ onProgress, signal })) bad.push(k)
  return bad
}

/** @param {string} path @param {PackedHeader} header @param {number[]} bad */
function damaged(path, { chunkBytes, dataOffset, chunkSha256 }, bad) {
  const first = Number(bad[0])
  const where = `chunk ${first} (from byte ${dataOffset + first * chunkBytes})`
  return new BmError(
    'integrity',
    `${path}: ${bad.length} of ${chunkSha256.length / 32} chunks are damaged, the first is ${where}`,
  )
}

/** @param {PackedHeader} header @param {number[] | null} bad */
function asJson(header, bad) {
  const { chunkSha256, ...rest } = header
  const hex = Buffer.from(chunkSha256).toString('hex')
  const chunks = hex.match(/.{64}/g) ?? []
  const verified = bad === null ? null : bad.length === 0
  return `${JSON.stringify({ ...rest, chunkSha256: chunks, verified, badChunks: bad ?? [] }, null, 2)}\n`
}

/** @param {string} path @param {PackedHeader} header @param {number[] | null} bad */
function asText(path, header, bad) {
  const chunks = header.chunkSha256.length / 32
  const checked =
    bad === null ? 'not verified' : bad.length ? `${bad.length} damaged` : 'all verified'
  const lines = [
    `${path}: ${formatBytes(header.fileBytes)} (${header.fileBytes} bytes)`,
    `identity   ${header.identity}`,
    `chunks     ${chunks} of ${header.chunkBytes} bytes, SHA-256 ${checked}`,
    `source     ${JSON.stringify(header.source)}`,
    `licence    ${JSON.stringify(header.licence)}`,
    `tokenizer  ${header.hasTokenizer ? 'yes' : 'none: works on token ids'}`,
    `bos        ${header.bosId ?? 'none'}${header.addBos ? ', added to prompts' : ''}`,
    `eos        ${header.eosIds.join(', ') || 'none'}`,
    `template   ${header.chatTemplate === null ? 'none' : `${header.chatTemplate.length} characters`}`,
    'config',
    ...Object.entries(header.config).map(([key, value]) => `  ${key.padEnd(18)} ${value}`),
    `tensors    ${header.tensors.length}`,
    ...header.tensors.map(
      ({ name, dtype, shape, offset, sizeBytes }) =>
        `  ${name.padEnd(30)} ${dtype.padEnd(4)} ${`[${shape.join(', ')}]`.padEnd(16)} ${String(sizeBytes).padStart(12)} bytes at ${header.dataOffset + offset}`,
    ),
  ]
  return `${lines.join('\n')}\n`
}
