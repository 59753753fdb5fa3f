/**
 * A file server on 127.0.0.1 that misbehaves on request: `/MODE?...` answers as MODE says.
 *
 * Owns the faults seen in real networks. Every one of the `short` kind ends cleanly for fetch: only counting finds it.
 */

import { createServer } from 'node:http'
import { gzipSync } from 'node:zlib'

/** @typedef {(response: import('node:http').ServerResponse, bytes: Buffer, at: number) => void} Fault */

/** @type {Record<string, Fault>} `at`: a byte offset from the query */
const FAULTS = {
  ok: (response, bytes) => response.end(bytes),
  status: (response, _, at) => response.writeHead(at).end('<html>no</html>'),
  html: (response) => {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><html><body>please log in</body></html>')
  },
  empty: (response) => response.end(),
  lfs: (response) =>
    response.end('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n'),
  shortLength: (response, bytes, at) => {
    response.setHeader('content-length', at)
    response.end(bytes.subarray(0, at))
  },
  shortClose: (response, bytes, at) => {
    response.useChunkedEncodingByDefault = false
    response.write(bytes.subarray(0, at), () => response.end())
  },
  shortGzip: (response, bytes, at) => {
    response.setHeader('content-encoding', 'gzip')
    response.end(gzipSync(bytes).subarray(0, at))
  },
  drop: (response, bytes, at) => {
    response.setHeader('content-length', bytes.length)
    response.write(bytes.subarray(0, at), () => setTimeout(() => response.destroy(), 20))
  },
  flip: (response, bytes, at) => {
    const copy = Buffer.from(bytes)
    copy[at] = Number(copy[at]) ^ 16
    response.end(copy)
  },
  trailing: (response, bytes) => response.end(Buffer.concat([bytes, Buffer.from('more')])),
  stall: (response, bytes, at) => {
    response.setHeader('content-length', bytes.length)
    response.write(bytes.subarray(0, at))
  },
  gzip: (response, bytes) => {
    response.setHeader('content-encoding', 'gzip')
    response.end(gzipSync(bytes))
  },
}

/**
 * @param {Buffer} bytes the file
 * @returns {Promise<{ url: (mode: string, at?: number) => string, sockets: () => number, close: () => Promise<void> }>}
 */
export async function startFaultServer(bytes) {
  /** @type {Set<import('node:net').Socket>} */
  const sockets = new Set()
  const server = createServer((request, response) => {
    const url = new URL(String(request.url), 'http://127.0.0.1')
    // No connection is kept, so that a test can see that all are closed.
    response.setHeader('connection', 'close')
    const fault = FAULTS[url.pathname.slice(1)]
    if (fault) fault(response, bytes, Number(url.searchParams.get('at')))
    else response.writeHead(404).end()
  })
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: (mode, at = 0) => `http://127.0.0.1:${port}/${mode}?at=${at}`,
    sockets: () => sockets.size,
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
