/**
 * A headless Chromium of the system, driven by playwright-core, or by puppeteer-core where tabs must hide each other.
 *
 * Owns the flags that keep it quiet, off the network and able to run as root.
 */

import { chromium } from 'playwright-core'
import puppeteer from 'puppeteer-core'
import { findProgram } from '../../scripts/command.js'
import { BROWSERS } from '../../scripts/setup.js'

const FLAGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** Without a GPU, and without one made of software. */
const NO_GPU = ['--disable-gpu']
/** WebGPU on a software adapter. */
const SOFTWARE_GPU = [
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-gpu-process-crash-limit',
]

function findChromium() {
  const executablePath = BROWSERS.map(findProgram).find((path) => path !== null)
  if (!executablePath) throw new Error('Chromium is not on PATH: `npm test` installs it on Debian')
  return executablePath
}

/** @param {string[]} [flags] more flags, such as `--js-flags=...` @param {{ gpu?: boolean }} [options] gpu: a software adapter for WebGPU */
export function launchChromium(flags = [], { gpu = false } = {}) {
  const args = [...FLAGS, ...(gpu ? SOFTWARE_GPU : NO_GPU), ...flags]
  return chromium.launch({ executablePath: findChromium(), args })
}

/** With a profile on the disk, as users have one; other contexts are private windows. @param {string} folder of the profile */
export function launchPersistent(folder) {
  return chromium.launchPersistentContext(folder, {
    executablePath: findChromium(),
    args: [...FLAGS, ...NO_GPU],
  })
}

/** What puppeteer adds to keep pages awake that nobody sees. */
const AWAKE = [
  '--disable-renderer-backgrounding',
  '--disable-backgrounding-occluded-windows',
  '--disable-background-timer-throttling',
]

/** With tabs as users have them: one behind another is hidden and slowed down, which playwright keeps from all. WebGPU is the software adapter's. */
export function launchTabs() {
  return puppeteer.launch({
    executablePath: findChromium(),
    args: [...FLAGS, ...SOFTWARE_GPU],
    ignoreDefaultArgs: AWAKE,
  })
}
