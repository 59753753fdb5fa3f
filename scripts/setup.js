/**
 * Everything that must be on the machine before this project builds, runs or is tested.
 *
 * Owns the one table of tools: how to see that one is there, what installs it, what it is for. Does
 * not know how they are used. The idea: a look is cheap, so every script looks each time; what is
 * missing is installed on Debian (as root) and named, with the way to get it, everywhere else.
 */

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError, findProgram, ROOT, run, succeeds } from './command.js'

/**
 * @typedef {object} Tool
 * @property {'build' | 'test'} task what needs it; tests need the tools to build too
 * @property {string} name what to call it
 * @property {() => boolean} isThere
 * @property {string} apt the Debian package that has it
 * @property {string} purpose
 * @property {string} elsewhere how to get it on another system
 * @property {boolean} [isOptional] without it some tests are skipped
 */

/** @param {...string} names programs, any one of which will do */
const program =
  (...names) =>
  () =>
    names.some(findProgram)

/** @param {string} file a C header the compiler must find */
const header = (file) => () => succeeds('clang', ['-E', '-x', 'c', '-'], `#include <${file}>\n`)

const sanitizers = () =>
  succeeds(
    'clang',
    ['-fsanitize=address,undefined', '-o', '/dev/null', '-x', 'c', '-'],
    'int main(void) { return 0; }',
  )

/**
 * The Python of this machine that has a module, or undefined: Debian's packages are for Debian's own.
 * @param {string} name
 */
export function pythonWith(name) {
  const line = `import importlib.util, sys; sys.exit(importlib.util.find_spec('${name}') is None)`
  return ['/usr/bin/python3', 'python3'].find((python) => succeeds(python, ['-c', line]))
}

/** @param {string} name a module that some Python on this machine must have */
const pythonModule = (name) => () => pythonWith(name) !== undefined

/** @param {string} name of a shared library that the loader must find; elsewhere than on Linux nobody looks */
export const library = (name) => () =>
  process.platform !== 'linux' ||
  ['/usr/lib', '/usr/local/lib', '/lib', ...triplets()].some((folder) =>
    existsSync(join(folder, name)),
  )

/** Where Debian has the libraries of an architecture. */
function triplets() {
  const name = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  return [`/usr/lib/${name}-linux-gnu`]
}

/** The software driver for WebGPU that comes with Chromium on Debian, or undefined. */
export function softwareDriver() {
  const file = '/usr/lib/chromium/vk_swiftshader_icd.json'
  return existsSync(file) ? file : undefined
}

/** The browsers that the tests in tests/browser can drive, in order of preference. */
export const BROWSERS = ['chromium', 'chromium-browser', 'google-chrome']

/** @type {Tool[]} */
const TOOLS = [
  {
    task: 'build',
    name: 'Emscripten',
    isThere: program('emcc'),
    apt: 'emscripten',
    purpose: 'compiles the C core to WebAssembly',
    elsewhere: 'the Emscripten SDK (emsdk install latest), with emcc on PATH',
  },
  {
    task: 'build',
    name: 'CMake 3.22 or newer',
    isThere: program('cmake'),
    apt: 'cmake',
    purpose: 'knows what to compile and how',
    elsewhere: 'https://cmake.org/download',
  },
  {
    task: 'build',
    name: 'Make',
    isThere: program('make'),
    apt: 'make',
    purpose: 'runs the compilers',
    elsewhere: 'the package manager',
  },
  {
    task: 'test',
    name: 'Clang',
    isThere: program('clang'),
    apt: 'clang',
    purpose: 'builds the C tests as native programs',
    elsewhere: 'https://releases.llvm.org or the package manager',
  },
  {
    task: 'test',
    name: "Clang's sanitizers",
    isThere: sanitizers,
    apt: 'libclang-rt-dev',
    purpose: 'find wrong addresses and undefined behaviour while the C tests run',
    elsewhere: 'compiler-rt, with Clang',
  },
  {
    task: 'test',
    name: 'clang-format',
    isThere: program('clang-format'),
    apt: 'clang-format',
    purpose: 'checks the layout of the C code',
    elsewhere: 'https://releases.llvm.org or the package manager',
  },
  {
    task: 'test',
    name: 'SIMDe',
    isThere: header('simde/wasm/simd128.h'),
    apt: 'libsimde-dev',
    purpose: 'lets the WebAssembly SIMD code run natively in the C tests',
    elsewhere: 'https://github.com/simd-everywhere/simde',
  },
  {
    task: 'test',
    name: 'Python with NumPy',
    isThere: pythonModule('numpy'),
    apt: 'python3-numpy',
    purpose: 'runs the independent reference that the engine is compared with',
    elsewhere: 'https://numpy.org',
  },
  {
    task: 'test',
    name: 'Python with PyTorch',
    isThere: pythonModule('torch'),
    apt: 'python3-torch',
    purpose: 'runs the tests of the training recipe',
    elsewhere: 'https://pytorch.org',
  },
  {
    task: 'test',
    name: 'Python with SentencePiece',
    isThere: pythonModule('sentencepiece'),
    apt: 'python3-sentencepiece',
    purpose: "trains the recipe's tokenizer",
    elsewhere: 'https://github.com/google/sentencepiece',
  },
  {
    task: 'test',
    name: 'SentencePiece',
    isThere: program('spm_train'),
    apt: 'sentencepiece',
    purpose: 'says what ids a converted tokenizer must give',
    elsewhere: 'https://github.com/google/sentencepiece',
  },
  {
    task: 'test',
    name: 'Chromium',
    isThere: program(...BROWSERS),
    apt: 'chromium',
    purpose: 'runs the package in a real page',
    elsewhere: 'any Chromium or Chrome as `chromium` or `google-chrome` on PATH',
  },
  {
    task: 'test',
    name: 'Firefox',
    isThere: program('firefox-esr', 'firefox'),
    apt: 'firefox-esr',
    purpose: 'runs the web app',
    elsewhere: 'https://www.mozilla.org/firefox',
    isOptional: true,
  },
  {
    task: 'test',
    name: "WebKitGTK's driver",
    isThere: program('WebKitWebDriver'),
    apt: 'webkit2gtk-driver',
    purpose: 'runs the web app in WebKit',
    elsewhere: 'WebKitGTK, on Linux only',
    isOptional: true,
  },
  {
    task: 'test',
    name: 'Xvfb',
    isThere: program('Xvfb'),
    apt: 'xvfb',
    purpose: 'is the screen of WebKitGTK, which nobody sees',
    elsewhere: 'https://x.org, on Linux only',
    isOptional: true,
  },
  {
    task: 'test',
    name: 'the Vulkan loader',
    isThere: library('libvulkan.so.1'),
    apt: 'libvulkan1',
    purpose: "runs the GPU's tests in Node, on the software driver that comes with Chromium",
    elsewhere: 'https://github.com/KhronosGroup/Vulkan-Loader',
  },
  {
    task: 'test',
    name: "Mesa's lavapipe",
    isThere: library('libvulkan_lvp.so'),
    apt: 'mesa-vulkan-drivers',
    purpose: "a quick software driver for the GPU's tests in Node",
    elsewhere: 'https://mesa3d.org, on Linux only',
    isOptional: true,
  },
  {
    task: 'test',
    name: "Vulkan's headers",
    isThere: () => process.platform !== 'linux' || header('vulkan/vulkan.h')(),
    apt: 'libvulkan-dev',
    purpose: 'build what makes Dawn take that driver',
    elsewhere: 'https://github.com/KhronosGroup/Vulkan-Headers',
    isOptional: true,
  },
]

/** What apt-get needs: a Debian system, and the right to install. */
function canInstall() {
  return existsSync('/etc/debian_version') && findProgram('apt-get') && process.getuid?.() === 0
}

/** @param {Tool[]} missing */
function installPackages(missing) {
  console.log('Installing with apt-get:')
  for (const { apt, purpose } of missing) console.log(`  ${apt.padEnd(16)} ${purpose}`)
  const env = { DEBIAN_FRONTEND: 'noninteractive' }
  run('apt-get', ['-qq', 'update'], { env })
  const packages = missing.map(({ apt }) => apt)
  run('apt-get', ['-qq', 'install', '-y', '--no-install-recommends', ...packages], { env })
  const absent = missing.filter((tool) => !tool.isThere())
  if (absent.length > 0) {
    const names = absent.map(({ name }) => name).join(', ')
    throw new CommandError(`Installed, but still not found: ${names}. Is it on PATH?`)
  }
}

/** @param {Tool[]} missing */
function explainMissing(missing) {
  const lines = missing.map(
    ({ name, purpose, elsewhere }) => `  ${name}: ${purpose}\n    get it from ${elsewhere}`,
  )
  const packages = missing.map(({ apt }) => apt).join(' ')
  return `Missing on this machine:\n${lines.join('\n')}\n  On Debian, as root: apt-get install ${packages}`
}

/** Whether node_modules holds exactly the versions that package.json pins. */
function hasNodePackages() {
  const { devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  return Object.entries(devDependencies).every(([name, version]) => {
    const file = join(ROOT, 'node_modules', name, 'package.json')
    return existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === version
  })
}

/** Installs the packages of package-lock.json, unless they are there. */
export function setUpNodePackages() {
  if (hasNodePackages()) return
  console.log('Installing the packages of package-lock.json with npm (into node_modules)')
  run('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'])
}

/**
 * Makes sure that the tools for a task are there; installs what is missing, or throws CommandError with
 * the list of what is missing and where to get it.
 * @param {'build' | 'test'} task
 */
export function setUpTools(task) {
  const missing = []
  for (const tool of TOOLS) {
    if ((task === 'test' || tool.task === 'build') && !tool.isThere()) missing.push(tool)
  }
  if (missing.length === 0) return
  if (canInstall()) {
    installPackages(missing)
    return
  }
  const needed = missing.filter(({ isOptional }) => !isOptional)
  if (needed.length > 0) throw new CommandError(explainMissing(needed))
  console.log(`skipped: ${missing.map(({ name }) => name).join(', ')}, not on this machine`)
}

/** From a fresh clone to all that the package needs: tools, Node's packages, dist/. */
export function setUpAndBuild() {
  setUpTools('build')
  setUpNodePackages()
  run(process.execPath, ['scripts/build.js'])
}
