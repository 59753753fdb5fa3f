/**
 * The packed model that whole-package tests run: the smallest that is shipped, so that loading it costs next to nothing.
 */

import { fileURLToPath } from 'node:url'

/** The full path of the model file. */
export const MODEL_FILE = fileURLToPath(
  new URL('../../../models/tales-nano/tales-nano.safetensors', import.meta.url),
)
