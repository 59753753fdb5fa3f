/**
 * Packs a checkpoint folder into memory, for tests that look at the bytes.
 *
 * Owns an Output that keeps what is written and complains about bytes that are written twice or never.
 */

import assert from 'node:assert/strict'
import { openFolder } from '../../../js/convert/node-files.js'
import { packCheckpoint } from '../../../js/convert/pack.js'
import { parseHeader } from '../../../js/format.js'
import { concatBytes } from './stored-zip.js'

/** @returns {import('../../../js/convert/node-files.js').Output & { bytes: () => Uint8Array }} */
export function memoryOutput() {
  /** @type {{ position: number, bytes: Uint8Array }[]} */
  const parts = []
  return {
    write: async (position, bytes) => void parts.push({ position, bytes: bytes.slice() }),
    commit: async () => {},
    abort: async () => {},
    bytes: () => {
      parts.sort((a, b) => a.position - b.position)
      let end = 0
      for (const { position, bytes } of parts) {
        assert.equal(position, end, 'bytes written twice or never')
        end += bytes.length
      }
      return concatBytes(parts.map((part) => part.bytes))
    },
  }
}

/**
 * @param {import('../../../js/core.js').Core} core
 * @param {string} dir
 * @param {import('../../../js/convert/pack.js').PackOptions} [options]
 */
export async function packFolder(core, dir, options) {
  const folder = await openFolder(dir)
  const output = memoryOutput()
  try {
    const summary = await packCheckpoint(core, folder, output, options)
    const bytes = output.bytes()
    const header = await parseHeader(bytes, core)
    assert.equal(bytes.length, header.fileBytes)
    return { summary, bytes, header, tensor: tensorReader(bytes, header) }
  } finally {
    await folder.close()
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {import('../../../js/format.js').PackedHeader} header
 * @returns {(name: string) => Uint8Array}
 */
function tensorReader(bytes, header) {
  return (name) => {
    const found = header.tensors.find((tensor) => tensor.name === name)
    assert(found, `no tensor ${name}`)
    const start = header.dataOffset + found.offset
    return bytes.slice(start, start + found.sizeBytes)
  }
}
