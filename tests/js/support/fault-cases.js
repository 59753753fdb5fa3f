/**
 * Faults and what must come of each, in Node and in browsers alike.
 *
 * Owns the two lists. The positions are those of chunked-model.js: a header of 3,200 bytes, five chunks, 17,429,280 bytes in all.
 */

/** Faults that pass, with a server that is honest afterwards: the model loads. @type {[string, Record<string, number | string>][]} */
export const PASSING = [
  ['ok', {}],
  ['norange', {}],
  ['rangeOnce', { n: 1 }],
  ['rangeOnce', { n: 3 }],
  ['gzip', {}],
  ['redirect', { hops: 5 }],
  ['redirect', { hops: 2, to: 'localhost' }],
  ['expiring', { n: 1 }],
  ['expiring', { n: 3 }],
  ['expiring', { n: 2, code: 400 }],
  ['expiring', { n: 2, code: 503 }],
  ['status', { code: 500, times: 2 }],
  ['status', { code: 503, times: 1, after: 2, retryAfter: 0 }],
  ['status', { code: 429, times: 2, after: 1, retryAfter: 0 }],
  ['drop', { at: 100, times: 2 }],
  ['drop', { at: 5000000, times: 3 }],
  ['drop', { at: 16000000, times: 3 }],
  ['dropAll', { at: 1500000 }],
  ['chunkedDrop', { at: 9000000, times: 3 }],
  ['shortLength', { at: 300, times: 1 }],
  ['shortLength', { at: 7000000, times: 3 }],
  ['shortClose', { at: 7000000, times: 3 }],
  ['shortGzip', { at: 1000000, times: 1 }],
  ['longLength', { times: 4 }],
  ['flip', { at: 5000000, times: 2 }],
  ['stall', { at: 6000000, times: 2 }],
  ['stallHeaders', { times: 1 }],
  ['stallHeaders', { times: 2, after: 1 }],
  ['wrongOffset', { times: 3, after: 1 }],
  ['wrongOffset', { after: 1 }],
  ['wrongOffset', { lie: 1, times: 3, after: 1 }],
  ['wrongOffset', { lie: 1, after: 1 }],
  ['wrongOffset', { hide: 1, after: 1 }],
  ['short206', {}],
  ['empty206', { times: 2, after: 1 }],
  ['long206', { after: 1 }],
  ['unsatisfiable', {}],
  ['unsatisfiable', { after: 1 }],
]

/** Faults that stay: one clear error. @type {[string, Record<string, number | string>, string, RegExp[]][]} */
export const LASTING = [
  ['status', { code: 404 }, 'network', [/HTTP status 404 Not Found/]],
  ['status', { code: 403 }, 'network', [/403/]],
  ['status', { code: 404, after: 2 }, 'network', [/404.*chunk \d of 5.*load it again/]],
  ['status', { code: 500 }, 'network', [/500.*4 times in a row/]],
  ['status', { code: 429, retryAfter: 3600 }, 'network', [/429.*come back in 3600 s/]],
  ['html', {}, 'format', [/web page/]],
  ['empty', {}, 'format', [/empty/]],
  ['lfs', {}, 'format', [/git-lfs/]],
  ['loop', {}, 'network', [/redirect/]],
  ['empty206', { after: 1 }, 'network', [/truncated.*4 times in a row/]],
  ['truncated', { at: 300 }, 'network', [/truncated/]],
  ['truncated', { at: 10000000 }, 'network', [/truncated.*10000000 bytes of the file's 17429280/]],
  // Byte 10,000,000 lies in chunk 2; which of the ranges behind it gives up first is chance.
  ['shortLength', { at: 10000000 }, 'network', [/truncated.*chunk [2-4] of 5.*load it again/]],
  [
    'drop',
    { at: 10000000 },
    'network',
    [/broke|closed|Failed to fetch/, /chunk [2-4] of 5.*4 times in a row/],
  ],
  ['stall', { at: 10000000 }, 'network', [/no byte for 1 s.*chunk [2-4]/]],
  ['stallHeaders', {}, 'network', [/no byte for 1 s/]],
  ['flip', { at: 9000000 }, 'integrity', [/chunk 2 of 5 \(bytes 8391808 to 12586112\).*damaged/]],
  ['flip', { at: 4000 }, 'integrity', [/chunk 0 of 5/]],
  ['trailing', {}, 'format', [/after the end/]],
  ['wrongTotal', {}, 'format', [/after the end/]],
  ['wrongTotal', { by: -1 }, 'network', [/truncated/]],
  ['auth', { token: 'Bearer x' }, 'network', [/401/]],
]
