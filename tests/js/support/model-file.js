/**
 * The packed model that whole-package tests run: the one that the package ships, or a tiny random one in a checkout
 * that has none.
 */

import { existsSync } from 'node:fs'
import { DEFAULT_MODEL } from '../../../js/cli/options.js'
import { tinyModel } from './tiny-model.js'

/** The full path of the model file. */
export const MODEL_FILE = existsSync(DEFAULT_MODEL) ? DEFAULT_MODEL : await tinyModel()
