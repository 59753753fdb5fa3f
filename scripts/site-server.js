/**
 * `npm run web [-- PORT]`: builds the web app and serves it on this machine, with the headers that give it threads.
 *
 * Owns a static server for one folder, on the loopback address only: types, ranges, and validators, so that a reload fetches nothing twice. The tests use the same one,
 * also without the headers, as on a host that knows none.
 */

import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runScript } from './command.js'
import { setUpAndBuild } from './setup.js'
import { buildSite } from './web-site.js'

const PORT = 8080

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.webmanifest': 'application/manifest+json',
}

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */

/** @param {string} site @param {string} url @returns {{ path: string, size: number, tag: string } | null} null: there is no such file */
function findFile(site, url) {
  let name = ''
  try {
    name = decodeURIComponent(new URL(url, 'http://host').pathname)
  } catch {
    return null
  }
  const path = normalize(join(site, name.endsWith('/') ? `${name}index.html` : name))
  if (!path.startsWith(site.endsWith(sep) ? site : site + sep)) return null
  let stats
  try {
    stats = statSync(path, { throwIfNoEntry: false })
  } catch {
    return null // no name that a file can have
  }
  if (!stats?.isFile()) return null
  return { path, size: stats.size, tag: `"${stats.size}-${Math.round(stats.mtimeMs)}"` }
}

/** @param {string | undefined} text of the header @param {number} size @returns {{ start: number, end: number } | null} end: the last byte; null: the whole file */
function readRange(text, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(text ?? '')
  if (!match) return null
  const start = Number(match[1])
  const end = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1)
  return start <= end ? { start, end } : null
}

/** @param {string} site @param {Record<string, string>} headers @param {IncomingMessage} request @param {ServerResponse} response */
function answer(site, headers, request, response) {
  const file = findFile(site, request.url ?? '/')
  if (!file || (request.method !== 'GET' && request.method !== 'HEAD')) {
    response
      .writeHead(file ? 405 : 404, { 'Content-Type': 'text/plain', ...headers })
      .end('Not found\n')
    return
  }
  const { path, size, tag } = file
  const shared = {
    ...headers,
    'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream',
    'Cache-Control': 'no-cache',
    'Accept-Ranges': 'bytes',
    ETag: tag,
  }
  if (request.headers['if-none-match'] === tag) {
    response.writeHead(304, shared).end()
    return
  }
  const range = readRange(request.headers.range, size)
  const { start, end } = range ?? { start: 0, end: size - 1 }
  const partial = range ? { 'Content-Range': `bytes ${start}-${end}/${size}` } : {}
  response.writeHead(range ? 206 : 200, {
    ...shared,
    ...partial,
    'Content-Length': end - start + 1,
  })
  if (request.method === 'HEAD' || size === 0) response.end()
  else createReadStream(path, { start, end }).pipe(response)
}

/**
 * @param {string} site folder
 * @param {{ headers?: Record<string, string>, port?: number, onRequest?: (path: string) => void }} [options] headers of every answer; port, default: any that is free
 * @returns {Promise<{ url: string, close: () => Promise<void> }>} url without a slash at its end
 */
export async function serveSite(site, { headers = {}, port = 0, onRequest } = {}) {
  const server = createServer((request, response) => {
    onRequest?.(request.url ?? '')
    answer(site, headers, request, response)
  })
  await new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(port, '127.0.0.1', () => resolve(undefined))
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    close: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  runScript(setUpAndBuild)
  if (process.exitCode) process.exit()
  const { site, headers } = await buildSite()
  const port = Number(process.argv[2] ?? PORT)
  const { url } = await serveSite(site, { headers, port })
  console.log(`${url}/`)
}
