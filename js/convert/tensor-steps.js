/**
 * Makes one packed tensor: reads its source slice by slice, codes it, writes it.
 *
 * Owns the recipes of tensor-plan.js and what a step hands to the next one: row scales after an int8 table, alpha
 * and beta after the signs of a dense export. Knows neither containers nor the file's header.
 */

import { BmError } from '../errors.js'
import {
  ColumnLevels,
  firstNonFinite,
  groupsOf,
  packSigns,
  quantizeGroups,
  quantizeRows,
  toHalf,
} from './weight-codes.js'

/** @typedef {import('./tensor-plan.js').PlanStep} PlanStep */
/** @typedef {import('./stored-tensor.js').StoredTensor} StoredTensor */
/** @typedef {import('./data-writer.js').DataWriter} DataWriter */
/** @typedef {import('./pack.js').Work} Work */

/**
 * @param {PlanStep} step
 * @param {DataWriter} writer
 * @param {Work} work
 */
export async function writeStep({ spec, recipe, source }, writer, work) {
  if (recipe === 'floats') return writeFloats(mustHave(source), writer, work)
  if (recipe === 'signs') return writeSigns(mustHave(source), writer, work)
  if (recipe === 'denseSigns') return writeDenseSigns(mustHave(source), writer, work)
  if (recipe === 'codes') return writeCodes(mustHave(source), writer, work)
  if (recipe === 'table') return writeTable(spec.dtype, mustHave(source), writer, work)
  await writer.write(bytesOf(work.take(recipe)))
}

/** @param {StoredTensor | null} source */
function mustHave(source) {
  if (!source) throw new BmError('internal', 'a packed tensor has no source')
  return source
}

/** @param {Float32Array | Uint16Array | Int8Array} array */
function bytesOf(array) {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength)
}

/**
 * @param {StoredTensor} source
 * @param {number} row
 * @param {Float32Array} values
 * @param {Work} work
 */
function checkFinite(source, row, values, work) {
  const at = firstNonFinite(values)
  if (at < 0) return
  const index = row * source.columns + at
  work.problem(`${source.name} has ${values[at]} at element ${index}, want finite numbers`)
}

/** @param {StoredTensor} source @param {DataWriter} writer @param {Work} work */
async function writeFloats(source, writer, work) {
  for await (const { row, count, values } of source.slices(work.signal)) {
    checkFinite(source, row, values, work)
    await writer.write(bytesOf(values))
    work.read(source, count)
  }
}

/** @param {StoredTensor} source @param {DataWriter} writer @param {Work} work */
async function writeSigns(source, writer, work) {
  const counts = { zeros: 0, nonFinite: 0 }
  for await (const { count, values } of source.slices(work.signal)) {
    await writer.write(packSigns(values, counts))
    work.read(source, count)
  }
  work.signs(source, counts)
}

/** @param {StoredTensor} source @param {DataWriter} writer @param {Work} work */
async function writeDenseSigns(source, writer, work) {
  const levels = new ColumnLevels(source.columns)
  const counts = { zeros: 0, nonFinite: 0 }
  for await (const { count, values } of source.slices(work.signal)) {
    counts.nonFinite += levels.add(values)
    work.read(source, count)
  }
  work.signs(source, counts)
  for await (const { count, values } of source.slices(work.signal)) {
    const { bits, odd } = levels.packSigns(values)
    if (odd >= 0) throw thirdValue(source, odd)
    await writer.write(bits)
    work.read(source, count)
  }
  work.hand('denseAlpha', levels.alpha())
  work.hand('denseBeta', levels.beta())
}

/**
 * Whether every column holds at most two values, as in a dense export of a 1-bit projection.
 *
 * @param {StoredTensor} source
 * @param {AbortSignal} [signal]
 */
export async function holdsTwoValues(source, signal) {
  const levels = new ColumnLevels(source.columns)
  for await (const { values } of source.slices(signal)) levels.add(values)
  for await (const { values } of source.slices(signal)) {
    if (levels.packSigns(values).odd >= 0) return false
  }
  return true
}

/** @param {StoredTensor} source @param {number} column */
function thirdValue({ name }, column) {
  const found = `column ${column} holds more than two values and there is no wscale`
  return new BmError(
    'checkpoint',
    `${name}: ${found}: not 1-bit like the projections before it; choose how to store them (projections)`,
  )
}

/** 4 bits with a scale for each group of a row's columns. @param {StoredTensor} source @param {DataWriter} writer @param {Work} work */
async function writeCodes(source, writer, work) {
  const groups = groupsOf(source.columns)
  const scales = new Float32Array(source.rows * groups)
  for await (const { row, count, values } of source.slices(work.signal)) {
    checkFinite(source, row, values, work)
    const quantized = quantizeGroups(values, source.columns)
    scales.set(quantized.scales, row * groups)
    await writer.write(quantized.codes)
    work.read(source, count)
  }
  work.hand('scales', scales)
}

/** @param {string} dtype I8, F16 or F32 @param {StoredTensor} source @param {DataWriter} writer @param {Work} work */
async function writeTable(dtype, source, writer, work) {
  const scales = new Float32Array(dtype === 'I8' ? source.rows : 0)
  for await (const { row, count, values } of source.slices(work.signal)) {
    checkFinite(source, row, values, work)
    if (dtype === 'I8') {
      const quantized = quantizeRows(values, source.columns)
      scales.set(quantized.scales, row)
      await writer.write(bytesOf(quantized.codes))
    } else if (dtype === 'F16') {
      const { codes, overflow } = toHalf(values)
      if (overflow >= 0 && Number.isFinite(values[overflow])) {
        const element = row * source.columns + overflow
        work.problem(
          `${source.name} has ${values[overflow]} at element ${element}, too large for f16: store it as int8`,
        )
      }
      await writer.write(bytesOf(codes))
    } else {
      await writer.write(bytesOf(values))
    }
    work.read(source, count)
  }
  if (dtype === 'I8') work.hand('scales', scales)
}
