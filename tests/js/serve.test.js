/**
 * `bimamba serve` among clients that are many, slow, rude or gone: it answers the next one as if nothing had been.
 */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BiMamba } from '../../js/index.js'
import { serveModels } from '../../js/serve/server.js'

const NANO = fileURLToPath(
  new URL('../../models/tales-nano/tales-nano.safetensors', import.meta.url),
)
const MAIN = fileURLToPath(new URL('../../js/cli/main.js', import.meta.url))
const MIB = 2 ** 20

/** @type {BiMamba} */
let model
/** @type {Awaited<ReturnType<typeof serveModels>>} */
let server
/** @type {string[]} */
const log = []

before(async () => {
  model = await BiMamba.load(NANO)
  server = await serveModels(
    { nano: model },
    {
      mostWaiting: 200,
      mostBytes: 2 * MIB,
      origins: ['https://editor.example'],
      hosts: ['models.example'],
      onRequest: (line) => log.push(line),
    },
  )
})

after(async () => {
  await server?.close()
  await model?.close()
})

/** @typedef {{ status: number, headers: import('node:http').IncomingHttpHeaders, text: string }} Reply */

/**
 * A request with every header as it is given; fetch would not allow that.
 * @param {string} path
 * @param {{ method?: string, headers?: Record<string, string>, body?: string, url?: string }} [options]
 * @returns {Promise<Reply>}
 */
function ask(path, { method = 'GET', headers = {}, body, url = server.url } = {}) {
  return new Promise((resolve, reject) => {
    const { port } = new URL(url)
    const outgoing = request(
      { host: '127.0.0.1', port, path, method, headers, agent: false },
      (incoming) => {
        let text = ''
        incoming.on('data', (part) => {
          text += part
        })
        incoming.on('end', () =>
          resolve({ status: Number(incoming.statusCode), headers: incoming.headers, text }),
        )
        incoming.on('error', reject)
      },
    )
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

const JSON_TYPE = { 'content-type': 'application/json' }

/** @param {Record<string, unknown>} fields @param {Record<string, string>} [headers] */
function complete(fields, headers = {}) {
  const body = JSON.stringify({ model: 'nano', prompt: 'Once', max_tokens: 3, ...fields })
  return ask('/v1/completions', { method: 'POST', headers: { ...JSON_TYPE, ...headers }, body })
}

/** The next one is answered. */
async function isWell() {
  const { status, text } = await complete({})
  assert.equal(status, 200, text)
  assert.equal(JSON.parse(text).usage.completion_tokens, 3)
}

/** @param {Reply} reply @param {number} status @param {RegExp} message */
function refuses({ status: found, text }, status, message) {
  assert.equal(found, status, text)
  const { error } = JSON.parse(text)
  assert.match(error.message, message)
  assert.equal(typeof error.type, 'string')
}

test('paths, methods, bodies: what is wrong is said as OpenAI does', async () => {
  refuses(await ask('/'), 404, /there is no \/ here/)
  refuses(await ask('/v1/../../etc/passwd'), 404, /there is no/)
  refuses(await ask('/v1/models/..%2f..%2fetc%2fpasswd'), 404, /there is no model "\.\.\/\.\.\/etc/)
  refuses(await ask('/v1/models/%ff'), 404, /there is no model/)
  refuses(await ask('//x'), 404, /there is no/)
  refuses(await ask('/v1/completions'), 405, /GET is not possible here, want POST/)
  refuses(await ask('/v1/models', { method: 'DELETE' }), 405, /want GET/)
  const post = { method: 'POST', headers: JSON_TYPE }
  refuses(
    await ask('/v1/completions', { ...post, body: '{"prompt": ' }),
    400,
    /the body is no JSON/,
  )
  refuses(
    await ask('/v1/completions', { ...post, body: '5' }),
    400,
    /the request is 5, want an object/,
  )
  refuses(await ask('/v1/completions', { ...post, body: 'null' }), 400, /the request is null/)
  refuses(
    await ask('/v1/completions', {
      method: 'POST',
      headers: { 'content-type': 'text/plain' },
      body: '{}',
    }),
    415,
    /want application\/json/,
  )
  refuses(await complete({}, { 'content-encoding': 'gzip' }), 415, /encoded as gzip/)
  const depth = 1e5
  const deep = `{"model":"nano","prompt":${'['.repeat(depth)}${']'.repeat(depth)}}`
  refuses(await ask('/v1/completions', { ...post, body: deep }), 400, /prompt|JSON/)
  assert.equal(JSON.parse((await ask('/health')).text).status, 'ok')
  await isWell()
})

test('a host that is not this machine, and pages that were not allowed, are refused', async () => {
  refuses(
    await ask('/v1/models', { headers: { host: 'evil.example' } }),
    403,
    /"evil.example", which this is not/,
  )
  refuses(await complete({}, { host: 'evil.example:8080' }), 403, /evil/)
  for (const host of ['localhost', 'LOCALHOST:1234', '[::1]:80', 'models.example'])
    assert.equal((await ask('/v1/models', { headers: { host } })).status, 200, host)
  for (const origin of ['https://evil.example', 'null', 'https://editor.example.evil.example'])
    refuses(await complete({}, { origin }), 403, /may not ask/)
  const allowed = await complete({}, { origin: 'https://editor.example' })
  assert.equal(allowed.status, 200)
  assert.equal(allowed.headers['access-control-allow-origin'], 'https://editor.example')
  const asked = { 'access-control-request-headers': 'authorization,content-type' }
  const headers = { origin: 'https://editor.example', ...asked }
  const preflight = await ask('/v1/completions', { method: 'OPTIONS', headers })
  assert.equal(preflight.status, 204)
  assert.equal(preflight.headers['access-control-allow-headers'], 'authorization,content-type')
  assert.equal((await ask('/v1/models')).headers['access-control-allow-origin'], undefined)
})

test('a key, where one is wanted', async (t) => {
  const guarded = await serveModels({ nano: model }, { key: 'a secret' })
  t.after(guarded.close)
  const { url } = guarded
  refuses(await ask('/v1/models', { url }), 401, /API key is missing or wrong/)
  refuses(
    await ask('/v1/models', { url, headers: { authorization: 'Bearer a secreT' } }),
    401,
    /wrong/,
  )
  const { status } = await ask('/v1/models', { url, headers: { authorization: 'Bearer a secret' } })
  assert.equal(status, 200)
  assert.equal((await ask('/health', { url })).status, 200)
})

test('a body of 1 GB is refused when it is announced, and when it just comes', async () => {
  const { port } = new URL(server.url)
  const before = process.memoryUsage().rss
  const head = `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`
  for (const length of [
    `Content-Length: ${2 ** 30}\r\n\r\n`,
    'Transfer-Encoding: chunked\r\n\r\n',
  ]) {
    const socket = connect(Number(port), '127.0.0.1')
    socket.on('error', () => {}) // the server hangs up
    let answer = ''
    socket.on('data', (part) => {
      answer += part
    })
    socket.write(head + length)
    const part = Buffer.alloc(MIB, 32)
    const isChunked = length.startsWith('Transfer')
    let sent = 0
    const closed = once(socket, 'close').catch(() => {})
    while (sent < 1024 && !socket.destroyed && !answer.includes('\r\n\r\n')) {
      if (isChunked) socket.write(`${MIB.toString(16)}\r\n`)
      const more = socket.write(part)
      if (isChunked) socket.write('\r\n')
      sent++
      if (!more)
        await Promise.race([
          once(socket, 'drain'),
          closed,
          new Promise((r) => setTimeout(r, 100)),
        ]).catch(() => {})
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
    assert.match(answer, /^HTTP\/1\.1 413 /, `after ${sent} MiB`)
    assert.match(answer, /the body is larger than 2097152 bytes/)
    assert.ok(sent < 1024, `${sent} MiB were taken`)
    socket.destroy()
  }
  const grown = process.memoryUsage().rss - before
  assert.ok(grown < 150 * MIB, `${grown} bytes`)
  await isWell()
})

test('a hundred at once are all answered, one after another; more than may wait are told to come again', async (t) => {
  const many = await Promise.all(
    Array.from({ length: 100 }, (_, i) => complete({ seed: i, stream: i % 2 === 0 })),
  )
  for (const { status, text } of many) {
    assert.equal(status, 200, text)
    assert.ok(/"finish_reason":"length"/.test(text))
  }
  assert.equal(many.filter(({ text }) => text.endsWith('data: [DONE]\n\n')).length, 50)
  const small = await serveModels({ nano: model }, { mostWaiting: 2 })
  t.after(small.close)
  const body = JSON.stringify({ prompt: 'Once', max_tokens: 200, temperature: 1 })
  const replies = await Promise.all(
    Array.from({ length: 10 }, () =>
      ask('/v1/completions', { url: small.url, method: 'POST', headers: JSON_TYPE, body }),
    ),
  )
  const told = replies.filter(({ status }) => status === 429)
  assert.equal(told.length, 7)
  assert.equal(told[0]?.headers['retry-after'], '1')
  refuses(/** @type {Reply} */ (told[0]), 429, /2 requests wait already/)
})

/**
 * Begins a stream by hand.
 * @param {Record<string, unknown>} fields
 */
function openStream(fields) {
  const body = JSON.stringify({ model: 'nano', prompt: 'Once', stream: true, ...fields })
  const socket = connect(Number(new URL(server.url).port), '127.0.0.1')
  socket.on('error', () => {})
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
  return socket
}

test('what is wrong is said at once, however many wait', async () => {
  const [end] = model.info.eosIds
  const busy = openStream({ max_tokens: 1e8, logit_bias: { [String(end)]: -100 } })
  await once(busy, 'data')
  const waiting = openStream({ max_tokens: 1 })
  refuses(await complete({ stream: true, temperature: 'hot' }), 400, /temperature is "hot"/)
  refuses(await complete({ model: 'other' }), 404, /only nano/)
  busy.destroy()
  waiting.destroy()
  await isWell()
})

test('clients that go away in the middle, or while they wait, free the engine', async () => {
  const [endsIn] = model.info.eosIds
  const endless = { max_tokens: 1e8, logit_bias: { [String(endsIn)]: -100 } }
  const streams = Array.from({ length: 20 }, () => openStream(endless))
  await once(/** @type {import('node:net').Socket} */ (streams[0]), 'data')
  for (const socket of streams) {
    socket.destroy()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await isWell()
  assert.ok(
    log.filter((line) => line.includes('client gone')).length >= 20,
    log.slice(-25).join('\n'),
  )
})

test('a reader that does not read holds up nobody for what it has asked for', async () => {
  const slow = openStream({ max_tokens: 1500, logprobs: 5 })
  slow.pause()
  await new Promise((resolve) => setTimeout(resolve, 20))
  await isWell()
  let text = ''
  slow.on('data', (part) => {
    text += part
  })
  slow.resume()
  while (!text.includes('[DONE]')) await once(slow, 'data')
  assert.match(text, /"finish_reason":"(length|stop)"/)
  slow.destroy()
})

test('a reader that has stopped is given up, one that is slow is not; the next one is answered', async () => {
  const [endsIn] = model.info.eosIds
  const much = { logprobs: 5, logit_bias: { [String(endsIn)]: -100 } }
  const stopped = openStream({ ...much, max_tokens: 1e8 })
  stopped.pause()
  const gone = log.length
  await once(stopped.resume(), 'data')
  stopped.pause()
  await isWell() // waits until it has been given up
  assert.match(log.slice(gone).join('\n'), /client gone/)
  stopped.destroy()

  const slow = openStream({ ...much, max_tokens: 6000 })
  let text = ''
  let pauses = 0
  slow.on('data', (part) => {
    text += part
    slow.pause()
    pauses++
    setTimeout(() => slow.resume(), 2)
  })
  await isWell()
  while (!text.includes('data: [DONE]')) await once(slow, 'data')
  assert.ok(text.length > 2e6 && pauses > 20, `${text.length} characters in ${pauses} pieces`)
})

test('bodies of many requests at a time: no more is kept than there may be', async (t) => {
  const own = await serveModels({ nano: model }, { mostBytes: 64 * MIB })
  t.after(() => own.close())
  const { port } = new URL(own.url)
  const part = Buffer.alloc(60 * MIB, ' ')
  const begun = () => {
    const socket = connect(Number(port), '127.0.0.1')
    socket.on('error', () => {})
    socket.write(
      `POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${64 * MIB}\r\n\r\n`,
    )
    socket.write(part)
    return socket
  }
  const sockets = [begun(), begun(), begun()]
  const [answer] = await Promise.race(sockets.map((socket) => once(socket, 'data')))
  assert.match(String(answer), /^HTTP\/1\.1 429 /)
  assert.match(String(answer), /too much is being sent at the same time/)
  for (const socket of sockets) socket.destroy()
  const large = () =>
    ask('/v1/completions', {
      ...{ url: own.url, method: 'POST', headers: JSON_TYPE },
      body: JSON.stringify({ prompt: 'Once', max_tokens: 1, user: ' '.repeat(60 * MIB) }),
    })
  let reply = await large()
  // The server may learn a little later that they are gone.
  for (let i = 0; i < 20 && reply.status === 429; i++) reply = await large()
  assert.equal(reply.status, 200, 'what was kept of those that are gone does not count')
})

test('memory stays: five hundred requests of every kind', async () => {
  const round = async () => {
    for (let i = 0; i < 25; i++) {
      await complete({ prompt: `Once ${i}`, echo: true, logprobs: 2 })
      await complete({ prompt: `Once ${i} upon`, stream: true })
      await complete({ prompt: 5 })
      const gone = openStream({ max_tokens: 1000 })
      await once(gone, 'data')
      gone.destroy()
      const body = JSON.stringify({
        messages: [{ role: 'user', content: `Hello ${i}` }],
        max_tokens: 2,
      })
      await ask('/v1/chat/completions', { method: 'POST', headers: JSON_TYPE, body })
    }
  }
  await round()
  const before = await model.memory()
  const heapBefore = process.memoryUsage().heapUsed
  for (let i = 0; i < 3; i++) await round()
  await isWell()
  const after = await model.memory()
  assert.equal(after.engineBytes, before.engineBytes)
  assert.ok(after.sessions <= 5, `${after.sessions} sessions`)
  assert.ok(
    after.keptBytes <= 2 * before.keptBytes + MIB,
    `${after.keptBytes} after ${before.keptBytes}`,
  )
  const grown = process.memoryUsage().heapUsed - heapBefore
  assert.ok(grown < 40 * MIB, `the heap grew by ${grown} bytes`)
})

test('the command: says where it is, answers, logs, and ends with Ctrl-C', async (t) => {
  const child = spawn(process.execPath, [MAIN, 'serve', '--port', '0', '--model', NANO, '--log'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, BIMAMBA_API_KEY: 'k' },
  })
  t.after(() => child.kill('SIGKILL'))
  let [out, err] = ['', '']
  child.stderr.on('data', (part) => {
    err += part
  })
  while (!out.includes('Ctrl-C')) out += String((await once(child.stdout, 'data'))[0])
  const [, url = ''] = /^tales-nano at (http:\/\/127\.0\.0\.1:\d+)\/v1\n/.exec(out) ?? []
  const headers = { ...JSON_TYPE, authorization: 'Bearer k' }
  const body = JSON.stringify({ model: 'tales-nano', prompt: 'Once', max_tokens: 4 })
  const { status } = await ask('/v1/completions', { url, method: 'POST', headers, body })
  assert.equal(status, 200)
  refuses(await ask('/v1/models', { url }), 401, /key/)
  const second = spawn(process.execPath, [
    MAIN,
    'serve',
    '--port',
    new URL(url).port,
    '--model',
    NANO,
  ])
  let said = ''
  second.stderr.on('data', (part) => {
    said += part
  })
  assert.deepEqual(await once(second, 'close'), [1, null])
  assert.match(said, /^bimamba: port \d+ cannot be had: EADDRINUSE; --port gives another\n$/)
  child.kill('SIGINT')
  assert.deepEqual(await once(child, 'exit'), [0, null])
  assert.match(err, /^POST \/v1\/completions 200 \d+ ms\nGET \/v1\/models 401 \d+ ms\n$/)
})
