/**
 * The installed package with a page and a model beside it, as folders for startPageServer.
 *
 * Owns the folders' names: page/plain-page.html, package/, models/good.safetensors.
 */

import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { installPackage } from '../js/support/installed-package.js'
import { MODEL_FILE } from '../js/support/model-file.js'

/** @returns {Promise<{ project: string, folders: Record<'page' | 'package' | 'models', string>, remove: () => Promise<void> }>} project: the folder that has node_modules */
export async function installSite() {
  const { project, remove } = await installPackage()
  const folders = {
    page: new URL('.', import.meta.url).pathname,
    package: join(project, 'node_modules/bimamba'),
    models: join(project, 'models'),
  }
  await mkdir(folders.models)
  await copyFile(MODEL_FILE, join(folders.models, 'good.safetensors'))
  return { project, folders, remove }
}
