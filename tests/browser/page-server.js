/**
 * A small static server on 127.0.0.1 for pages under test.
 *
 * Owns the headers a careful site would send: a Content-Security-Policy that allows scripts and
 * WebAssembly of its own only, and on request the two headers of cross-origin isolation. Does not
 * know what it serves: a table maps the first folder of a path to a folder on disk.
 */

import { createReadStream, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.wasm': 'application/wasm',
}

/** @param {string} connect where pages may fetch from */
const policyOf = (connect) =>
  `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src ${connect}; img-src data:`

const FOR_OTHERS = {
  'Access-Control-Allow-Origin': '*',
  'Cross-Origin-Resource-Policy': 'cross-origin',
}

const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
}

/**
 * @param {object} site
 * @param {Record<string, string>} site.folders first folder of the URL's path -> folder on disk
 * @param {boolean} [site.isolated] send the headers of cross-origin isolation
 * @param {string} [site.connect] where the policy lets pages fetch from; default: here
 * @param {boolean} [site.forOthers] allow other origins to use it, as a server of packages does
 * @param {string | null} [site.policy] another Content-Security-Policy; null: none
 * @returns {Promise<{ url: string, close: () => Promise<void> }>} url ends without a slash
 */
export async function startPageServer({ folders, isolated = false, connect = "'self'", ...site }) {
  const { policy = policyOf(connect), forOthers = false } = site
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url ?? '/', 'http://host').pathname))
    const [, first = '', ...rest] = path.split('/')
    const file = join(folders[first] ?? '/nowhere', ...rest)
    const size = statSync(file, { throwIfNoEntry: false })
    if (!size?.isFile()) {
      response.writeHead(404, { 'Content-Type': 'text/html' }).end('<!doctype html><p>Not found')
      return
    }
    response.writeHead(200, {
      'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream',
      'Content-Length': size.size,
      ...(policy === null ? {} : { 'Content-Security-Policy': policy }),
      'Cache-Control': 'no-store',
      ...(isolated ? ISOLATION : {}),
      ...(forOthers ? FOR_OTHERS : {}),
    })
    createReadStream(file).pipe(response)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
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
