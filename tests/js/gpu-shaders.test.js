/**
 * Every shader in every variant, as the validator sees it: a pipeline of each, for all forms of tables and inputs, types of the state, a published shape and odd ones.
 *
 * A pipeline is what says that a shader fits its bindings and what every WebGPU has; nothing is computed here.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { syntheticConfig } from '../../js/bench/synthetic-model.js'
import { GpuDevice } from '../../js/gpu/gpu-device.js'
import { kernelList, shaderCode } from '../../js/gpu/gpu-kernels.js'
import { sizesOf, whyTooLarge } from '../../js/gpu/gpu-sizes.js'
import { findGpu } from '../../js/platform.js'
import { missingGpu } from './support/software-gpu.js'

/** @typedef {import('../../js/format.js').ModelConfig} ModelConfig */
/** @typedef {import('../../js/gpu/gpu-kernels.js').GpuMode} GpuMode */

const skip = await missingGpu()

/** @type {ModelConfig[]} */
const CONFIGS = [
  ...['I8', 'F16', 'F32'].map((type) => ({
    ...syntheticConfig('780M'),
    embedding_dtype: /** @type {ModelConfig['embedding_dtype']} */ (type),
  })),
  { ...syntheticConfig('780M'), d_model: 32, headdim: 8, d_state: 8, d_conv: 2, ngroups: 2 },
  { ...syntheticConfig('780M'), d_state: 24, headdim: 128, d_conv: 3, dt_min: 0.01, dt_max: 0.1 },
]

/** @type {GpuMode[]} */
const MODES = /** @type {const} */ (['exact', 'fast']).flatMap((precision) =>
  /** @type {const} */ (['f32', 'i16']).flatMap((state) =>
    [true, false].flatMap((usesDot4) =>
      [true, false].map((usesSubgroups) => ({ precision, state, usesDot4, usesSubgroups })),
    ),
  ),
)

test('models with pieces too large for a device are told, the published shapes are not', () => {
  const limits = { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 28 }
  const config = syntheticConfig('2.7B')
  assert.equal(whyTooLarge(sizesOf(config), limits), null)
  const why = (/** @type {Partial<ModelConfig>} */ more) =>
    String(whyTooLarge(sizesOf({ ...config, ...more }), limits))
  assert.match(
    why({ d_model: 16384, headdim: 128 }),
    /^the signs of a layer: \d+ MB in one piece, .* 134 MB here$/,
  )
  assert.match(why({ d_state: 256, n_layer: 100 }), /^the state: 5\d\d MB .* 268 MB here$/)
})

test('every variant of every shader makes a pipeline', { skip, timeout: 280000 }, async (t) => {
  const device = await GpuDevice.open(await findGpu())
  const { default: shaders } = await import('../../dist/shaders.mjs')
  /** @type {Set<string>} */
  const used = new Set()
  /** @type {Map<string, import('../../js/gpu/gpu-kernels.js').Kernel>} */
  const all = new Map()
  for (const config of CONFIGS) {
    for (const mode of MODES) {
      if (mode.usesDot4 && !device.usesDot4) continue
      if (mode.usesSubgroups && !device.usesSubgroups) continue
      for (const kernel of Object.values(kernelList(sizesOf(config), mode))) {
        all.set(shaderCode(shaders, kernel), kernel)
        for (const name of [kernel.shader, ...kernel.before]) used.add(name)
      }
    }
  }
  for (const [code, { shader, bindings }] of all) {
    await device.making(shader, () => device.pipeline(code, bindings, shader))
  }
  t.diagnostic(`${all.size} variants of ${used.size} files`)
  const left = Object.keys(shaders).filter((name) => !used.has(name))
  // What a device has not got it cannot compile.
  const missing = [
    ...(device.usesDot4 ? [] : ['dot4']),
    ...(device.usesSubgroups ? [] : ['sums_subgroups']),
  ]
  assert.deepEqual(left, missing)
  // The validator does look.
  const [[code, kernel] = ['', null]] = all
  assert.ok(kernel)
  const wrong = [
    [`${code}\nfn unused() { missing(); }`, kernel.bindings],
    [code, kernel.bindings.slice(1)],
  ]
  for (const [text, bindings] of /** @type {[string, GPUBufferBindingType[]][]} */ (wrong)) {
    await assert.rejects(
      device.making('a wrong one', () => device.pipeline(text, bindings, 'wrong')),
      /wrong/,
    )
  }
  device.close()
})
