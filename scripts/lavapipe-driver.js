/**
 * Mesa's lavapipe as the driver for WebGPU: a GPU made of software, ten times as fast as the one that comes with Chromium.
 *
 * Owns the building of what makes Dawn take it (tests/c/lavapipe_icd.c).
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run, succeeds } from './command.js'
import { library } from './setup.js'

const FOLDER = join(ROOT, 'build/gpu')
const SOURCE = 'tests/c/lavapipe_icd.c'
const HEADER = '#include <vulkan/vulkan.h>\n'

/** @returns {Record<string, string> | null} variables for a process that is to use it; null: not on this machine */
export function lavapipeDriver() {
  if (process.platform !== 'linux' || !library('libvulkan_lvp.so')()) return null
  if (!succeeds('clang', ['-E', '-x', 'c', '-'], HEADER)) return null
  mkdirSync(FOLDER, { recursive: true })
  const driver = join(FOLDER, 'liblavapipe_icd.so')
  const flags = ['-O1', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-fvisibility=hidden']
  run('clang', [...flags, SOURCE, '-ldl', '-o', driver])
  const file = join(FOLDER, 'lavapipe_icd.json')
  const manifest = {
    file_format_version: '1.0.0',
    ICD: { library_path: driver, api_version: '1.1.0' },
  }
  writeFileSync(file, `${JSON.stringify(manifest)}\n`)
  return {
    VK_DRIVER_FILES: file,
    // A driver that is not the one meant fails the tests, rather than having them run on another one.
    BIMAMBA_TEST_GPU: 'llvmpipe',
    XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? FOLDER, // Mesa complains without
  }
}
