/**
 * Names the usual wrong files, so that a refusal says what to do next.
 *
 * Owns a list of first bytes. Knows no rule of the format: it is asked only after a file was refused.
 */

/**
 * Says in words what a file that is no packed model looks like.
 *
 * @param {Uint8Array} bytes its first bytes, ideally 512
 * @returns {string} to follow "it looks like"
 */
export function describeWrongFile(bytes) {
  if (bytes.length === 0) return 'an empty file'
  const text = String.fromCharCode(...bytes.subarray(0, 512))
  if (/^\s*<(!doctype|html|\?xml|head|body)/i.test(text)) return 'a web page (HTML), not a model'
  if (text.startsWith('version https://git-lfs')) {
    return 'a git-lfs pointer: fetch the real file with `git lfs pull`'
  }
  if (text.startsWith('PK\x03\x04') || text.startsWith('PK\x05\x06')) {
    return 'a zip file (a PyTorch checkpoint?): convert its folder first'
  }
  if (text.startsWith('GGUF')) return 'a GGUF file, which is another format'
  if (bytes[0] === 0x80 && Number(bytes[1]) >= 2 && Number(bytes[1]) <= 5) {
    return 'a Python pickle (a PyTorch checkpoint?): convert it first'
  }
  if (text.startsWith('\x1f\x8b')) return 'a gzip file: unpack it first'
  if (text[8] === '{' && !/"format":"bimamba [12]"/.test(text)) {
    return text.includes('"format":"bimamba ')
      ? 'a packed model of another format version: convert again'
      : 'a plain safetensors checkpoint: convert it first'
  }
  if (/^\s*[[{]/.test(text)) return 'a JSON text'
  return 'no packed model'
}
