/**
 * How a fault server answers: what real servers, proxies and lines have done to downloads.
 *
 * Owns the table. A fault happens in the first `times` answers of a URL (default: in all), and the URL is an honest one afterwards; `at` is a position in
 * the file, wherever the answer begins. The `short` faults all end cleanly for `fetch`: only counting finds them.
 */

import { gzipSync } from 'node:zlib'

/**
 * @typedef {object} Question
 * @property {import('node:http').ServerResponse} response
 * @property {Buffer} bytes the file
 * @property {Buffer} other another one
 * @property {[number, number] | null} range
 * @property {number} nth of the requests of this URL, from 1
 * @property {URLSearchParams} params
 * @property {(name: string, preset?: number) => number} number a parameter
 * @property {URL} url
 * @property {import('node:http').IncomingHttpHeaders} headers
 */

/** @typedef {(question: Question) => void | Promise<void>} Answer */

const PIECE_BYTES = 65536

/** @type {WeakMap<Buffer, Buffer>} */
const packed = new WeakMap()

/** @param {Buffer} bytes @returns {Buffer} packed once, for it takes time */
function gzipped(bytes) {
  const known = packed.get(bytes) ?? gzipSync(bytes, { level: 1 })
  packed.set(bytes, known)
  return known
}

/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Writes part of a body, at the reader's pace.
 *
 * @param {import('node:http').ServerResponse} response
 * @param {Buffer} body
 */
async function send(response, body) {
  for (let at = 0; at < body.length && !response.destroyed; at += PIECE_BYTES) {
    const piece = body.subarray(at, at + PIECE_BYTES)
    await new Promise((resolve) => {
      response.once('close', resolve)
      response.write(piece, () => {
        response.off('close', resolve)
        resolve(undefined)
      })
    })
  }
}

/** @param {Question} question @param {Buffer} [bytes] @returns {{ start: number, body: Buffer }} what the range asks for, with its head written */
function begin({ response, range, bytes: whole, params }, bytes = whole) {
  if (params.has('close')) response.setHeader('connection', 'close')
  if (!range) {
    response.writeHead(200, { 'content-length': bytes.length })
    return { start: 0, body: bytes }
  }
  const [start, last] = range
  if (start >= bytes.length) {
    response.writeHead(416, { 'content-range': `bytes */${bytes.length}` })
    return { start, body: Buffer.alloc(0) }
  }
  const end = Math.min(last + 1, bytes.length)
  response.writeHead(206, {
    'content-length': end - start,
    'content-range': `bytes ${start}-${end - 1}/${bytes.length}`,
  })
  return { start, body: bytes.subarray(start, end) }
}

/** @param {Question} question @param {Buffer} [bytes] */
async function honest(question, bytes) {
  const { body } = begin(question, bytes)
  await send(question.response, body)
  question.response.end()
}

/** @param {Question} question @returns {Promise<void>} the file as a whole, whatever was asked for */
const whole = (question) => honest({ ...question, range: null })

/** @param {Answer} fault @returns {Answer} the fault so many times, then an honest answer */
const faulty = (fault) => (question) => {
  const times = question.number('times', Number.POSITIVE_INFINITY)
  const after = question.number('after')
  return question.nth > after && question.nth <= after + times ? fault(question) : honest(question)
}

/** @param {Question} question @returns {{ start: number, body: Buffer, sent: Buffer }} the part of the body that lies before `at` */
function beginCut(question) {
  const { start, body } = begin(question)
  const sent = body.subarray(0, Math.max(0, question.number('at') - start))
  return { start, body, sent }
}

/** @param {Question} question @param {Record<string, number | string>} headers */
function headOf({ response, range }, headers) {
  response.writeHead(range ? 206 : 200, headers)
}

/** @param {Question} question @returns {Buffer} what an honest answer would hold */
function bodyOf({ bytes, range }) {
  return range ? bytes.subarray(range[0], range[1] + 1) : bytes
}

/** @param {Question} question @returns {Buffer} of that, what lies before `at` */
function cutOf(question) {
  const start = question.range?.[0] ?? 0
  return bodyOf(question).subarray(0, Math.max(0, question.number('at') - start))
}

/** @type {Record<string, Answer>} */
const FAULTS = {
  status: (question) => {
    const { response, params, number } = question
    const retryAfter = params.get('retryAfter')
    if (retryAfter !== null) response.setHeader('retry-after', retryAfter)
    response.writeHead(number('code', number('at'))).end('<html>no</html>')
  },
  html: ({ response }) => {
    response.setHeader('content-type', 'text/html')
    response.end('<!doctype html><html><body>please log in</body></html>')
  },
  empty: ({ response }) => void response.end(),
  lfs: ({ response }) =>
    void response.end('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n'),

  /** The line breaks behind `at`. */
  drop: async (question) => {
    const { sent, body } = beginCut(question)
    await send(question.response, sent)
    if (sent.length === body.length) return void question.response.end()
    await sleep(20)
    question.response.destroy()
  },
  /** Every answer breaks after `at` bytes of its own. */
  dropAll: async (question) => {
    const { body } = begin(question)
    await send(question.response, body.subarray(0, question.number('at')))
    await sleep(20)
    question.response.destroy()
  },
  chunkedDrop: async (question) => {
    headOf(question, rangeHeader(question))
    await send(question.response, cutOf(question))
    await sleep(20)
    question.response.destroy()
  },
  /** Says and sends less than there is. */
  shortLength: async (question) => {
    const body = cutOf(question)
    headOf(question, { 'content-length': body.length, ...rangeHeader(question) })
    await send(question.response, body)
    question.response.end()
  },
  /** Says more than there is. */
  longLength: async (question) => {
    const body = bodyOf(question)
    headOf(question, { 'content-length': body.length + 100, ...rangeHeader(question) })
    await send(question.response, body)
    await sleep(20)
    question.response.destroy()
  },
  /** Says no length, and ends the line early. */
  shortClose: async (question) => {
    question.response.useChunkedEncodingByDefault = false
    question.response.setHeader('connection', 'close')
    headOf(question, rangeHeader(question))
    await send(question.response, cutOf(question))
    question.response.end()
  },
  shortGzip: async (question) => {
    const body = gzipped(question.bytes)
    question.response.writeHead(200, { 'content-encoding': 'gzip' })
    await send(question.response, body.subarray(0, question.number('at')))
    question.response.end()
  },
  flip: async (question) => {
    const copy = Buffer.from(question.bytes)
    const at = question.number('at')
    copy[at] = Number(copy[at]) ^ 16
    await honest(question, copy)
  },
  trailing: (question) => honest(question, Buffer.concat([question.bytes, Buffer.from('more')])),
  truncated: (question) => honest(question, question.bytes.subarray(0, question.number('at'))),
  stall: async (question) => {
    const { sent, body } = beginCut(question)
    await send(question.response, sent)
    if (sent.length === body.length) question.response.end()
  },
  stallHeaders: () => {},

  /** The bytes of another place; says so, denies it (`lie`), or does not say (`hide`). */
  wrongOffset: async (question) => {
    const { response, range, bytes, params } = question
    if (!range) return honest(question)
    const start = Math.max(0, range[0] - 1000)
    const body = bytes.subarray(start, Math.min(range[1] + 1, bytes.length) - (range[0] - start))
    const said = params.has('lie') ? range[0] : start
    response.writeHead(206, {
      'content-length': body.length,
      ...(params.has('hide')
        ? {}
        : { 'content-range': `bytes ${said}-${said + body.length - 1}/${bytes.length}` }),
    })
    await send(response, body)
    response.end()
  },
  wrongTotal: async (question) => {
    const { response, range, bytes, number } = question
    if (!range) return honest(question)
    const body = bodyOf(question)
    const total = bytes.length + number('by', 1)
    response.writeHead(206, {
      'content-length': body.length,
      'content-range': `bytes ${range[0]}-${range[0] + body.length - 1}/${total}`,
    })
    await send(response, body)
    response.end()
  },
  /** A right answer to half of what was asked for. */
  short206: async (question) => {
    const { range } = question
    if (!range) return honest(question)
    const half = range[0] + Math.max(1, Math.ceil((range[1] + 1 - range[0]) / 2)) - 1
    await honest({ ...question, range: [range[0], half] })
  },
  /** A part without a byte: its end is before its start. */
  empty206: async (question) => {
    const { response, range, bytes } = question
    if (!range) return honest(question)
    response.writeHead(206, {
      'content-length': 0,
      'content-range': `bytes ${range[0]}-${range[0] - 1}/${bytes.length}`,
    })
    response.end()
  },
  long206: async (question) => {
    const { range } = question
    if (!range) return honest(question)
    await honest({ ...question, range: [range[0], range[1] + 5000] })
  },
  unsatisfiable: (question) => {
    if (!question.range) return honest(question)
    question.response.writeHead(416).end()
  },
  auth: (question) => {
    if (question.headers.authorization === question.params.get('token')) return honest(question)
    question.response.writeHead(401).end()
  },
}

/** @param {Question} question @returns {Record<string, string>} */
function rangeHeader({ range, bytes }) {
  if (!range) return {}
  const last = Math.min(range[1], bytes.length - 1)
  return { 'content-range': `bytes ${range[0]}-${last}/${bytes.length}` }
}

/** @type {Record<string, Answer>} servers that are only unusual */
const UNUSUAL = {
  ok: honest,
  /** Ignores ranges. */
  norange: whole,
  /** Ignores them after `n` requests. */
  rangeOnce: (question) => (question.nth <= question.number('n', 1) ? honest : whole)(question),
  gzip: async ({ response, bytes }) => {
    response.writeHead(200, { 'content-encoding': 'gzip' })
    await send(response, gzipped(bytes))
    response.end()
  },
  /** `rate` bytes a second. */
  slow: async (question) => {
    const { body } = begin(question)
    const step = Math.ceil(question.number('rate') / 20)
    for (let at = 0; at < body.length && !question.response.destroyed; at += step) {
      await send(question.response, body.subarray(at, at + step))
      await sleep(50)
    }
    question.response.end()
  },
  /** Leads to itself `hops` times, then to the file; `to=localhost`: on another origin. */
  redirect: (question) => {
    const { response, number, params, url } = question
    const hops = number('hops', 1)
    if (hops === 0) return honest(question)
    const next = new URL(url)
    next.searchParams.set('hops', String(hops - 1))
    next.searchParams.delete('to')
    const host = params.get('to')
    const port = String(question.headers.host).split(':')[1]
    const origin = host ? `http://${host}:${port}` : ''
    response.writeHead(302, { location: `${origin}${next.pathname}${next.search}` }).end()
  },
  loop: ({ response, url }) =>
    void response.writeHead(302, { location: `${url.pathname}${url.search}` }).end(),
  lost: ({ response }) => void response.writeHead(302, { location: 'http://' }).end(),
  /** Leads to an address that is good for `n` requests, and answers with the status `code` then. */
  expiring: ({ response, nth, url }) => {
    const next = new URL(url)
    next.pathname = '/signed/model.safetensors'
    next.searchParams.set('signature', String(nth))
    response.writeHead(302, { location: `${next.pathname}${next.search}` }).end()
  },
  signed: (question) => {
    if (question.nth <= question.number('n', 1)) return honest(question)
    const { response, number } = question
    const code = number('code', 403)
    const elsewhere = { location: '/ok/model.safetensors' }
    response.writeHead(code, code === 302 ? elsewhere : {}).end('expired')
  },
  /** Another file from the request after the `n`-th on. */
  swap: (question) =>
    honest(question, question.nth > question.number('n', 1) ? question.other : question.bytes),
}

/** @type {Record<string, Answer>} */
export const ANSWERS = {
  ...UNUSUAL,
  ...Object.fromEntries(Object.entries(FAULTS).map(([mode, fault]) => [mode, faulty(fault)])),
}
