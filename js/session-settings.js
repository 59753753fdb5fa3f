/**
 * The options of sessions, checked as js/settings.js checks those of a model.
 *
 * Owns what is different about sessions: a seed is not drawn for each text, and texts can be added to.
 */

import { BmError } from './errors.js'
import { checkGenerate, checkIds, checkNames, checkNumber, drawSeed } from './settings.js'

/** @typedef {import('./settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./settings.js').Settings} Settings */

/**
 * What a session's `generate` accepts: as a model's, but BOS belongs to what is appended, and without a seed the random numbers go on.
 *
 * @typedef {Omit<GenerateOptions, 'bos'>} SessionGenerateOptions
 */

/**
 * @typedef {object} CreateSessionOptions
 * @property {number} [seed]             where the random numbers begin, an integer; default: drawn
 * @property {number} [checkpointBytes]  most memory for states along the text, from which a rewind or an edit goes on; 0: none, and they read all
 *                                       from the beginning. There is one every 64 tokens, 128, 256 or so on, as all
 *                                       fit. Default 256 MiB
 */

const CHECKPOINT_BYTES = 2 ** 28

/** @param {CreateSessionOptions} options @param {string} where @returns {{ seed: number, checkpointBytes: number }} */
export function checkCreateSession(options, where) {
  checkNames(options, ['seed', 'checkpointBytes'], where)
  const { seed = drawSeed(), checkpointBytes = CHECKPOINT_BYTES } = options
  checkNumber('seed', seed)
  checkCount('checkpointBytes', checkpointBytes, 0, Number.MAX_SAFE_INTEGER)
  return { seed, checkpointBytes }
}

/** @param {SessionGenerateOptions} options @param {number} vocabSize @returns {Settings} seed null: where the session's random numbers are */
export function checkSessionGenerate(options, vocabSize) {
  if ('bos' in Object(options)) {
    throw new BmError('argument', "generate: unknown option 'bos': it belongs to append")
  }
  const settings = checkGenerate(options, vocabSize)
  return { ...settings, seed: options.seed ?? null }
}

/** @param {string} name @param {unknown} value @param {number} least @param {number} most */
export function checkCount(name, value, least, most) {
  if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
    return
  const found = typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : String(value)
  throw new BmError('argument', `${name} is ${found}, want an integer from ${least} to ${most}`)
}

/** Whether the session has it is known where the session is. @param {string} name @param {unknown} place */
export function checkPlace(name, place) {
  checkCount(name, place, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
}

/** @param {unknown} text @param {number} vocabSize @param {string} name @returns {string | Uint32Array} */
export function checkText(text, vocabSize, name) {
  if (typeof text === 'string') return text
  if (typeof text === 'object' && text !== null) return checkIds(text, vocabSize, name)
  throw new BmError(
    'argument',
    `${name} is ${String(text)}, want a string or an array of token ids`,
  )
}

/** @param {unknown} type */
export function checkStored(type) {
  if (['own', 'f32', 'i16', 'i8'].includes(/** @type {string} */ (type))) return
  throw new BmError('argument', `state is ${JSON.stringify(type)}, want own, f32, i16 or i8`)
}
