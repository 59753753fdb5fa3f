/**
 * Pickles: torch's are understood, and everything else is refused without being done.
 */

import assert from 'node:assert/strict'
import test from 'node:test'
import { readPickle, TensorRef } from '../../js/convert/pickle.js'
import { PickleWriter, pickleStateDict } from './support/pickle-writer.js'
import { seeded } from './support/seeded.js'

/** @param {Uint8Array} bytes */
const read = (bytes) => readPickle(bytes, 'x.bin: data.pkl')

/** @param {PickleWriter | Uint8Array} pickle @param {RegExp} message */
function refused(pickle, message) {
  const bytes = pickle instanceof PickleWriter ? pickle.bytes() : pickle
  assert.throws(
    () => read(bytes),
    (error) => {
      assert(error instanceof Error)
      const { code } = /** @type {Error & { code?: string }} */ (error)
      assert.equal(code, 'checkpoint', error.stack)
      assert.match(error.message, message)
      return true
    },
  )
}

const TENSOR = { name: 'w', dtype: 'F16', shape: [2, 3], storage: '0', storageLength: 6 }

test('a state_dict is understood', () => {
  for (const parameter of [false, true]) {
    const value = read(
      pickleStateDict([TENSOR, { ...TENSOR, name: 'v', shape: [3], offset: 3 }], { parameter }),
    )
    assert(value instanceof Map)
    assert.deepEqual([...value.keys()], ['w', 'v'])
    const tensor = value.get('v')
    assert(tensor instanceof TensorRef)
    assert.deepEqual([tensor.offset, tensor.shape, tensor.strides], [3, [3], [1]])
    assert.deepEqual({ ...tensor.storage }, { key: '0', dtype: 'F16', length: 6 })
  }
})

test('plain values around the weights are understood', () => {
  const p = new PickleWriter()
    .raw('}(')
    .text('a')
    .int(-7)
    .text('b')
    .int(2 ** 40)
    .text('c')
    .raw('N')
  p.text('d').raw([0x47, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]).text('e').raw([0x88, 0x89, 0x86])
  p.text('f').raw('](').int(1).text('x').raw('e').text('g').raw('h\x01').raw('u')
  const value = read(p.bytes())
  assert(value instanceof Map)
  assert.deepEqual(Object.fromEntries(value), {
    a: -7,
    b: 2 ** 40,
    c: null,
    d: 1.5,
    e: [true, false],
    f: [1, 'x'],
    g: 'b',
  })
})

test('keys that mean something to JavaScript are only keys', () => {
  const p = new PickleWriter()
    .raw('}(')
    .text('__proto__')
    .raw('}(')
    .text('polluted')
    .int(1)
    .raw('u')
    .text('constructor')
    .int(2)
    .raw('u')
  const value = read(p.bytes())
  assert(value instanceof Map)
  assert.deepEqual([...value.keys()], ['__proto__', 'constructor'])
  assert.equal(/** @type {Record<string, unknown>} */ ({}).polluted, undefined)
})

/** Names that pickles in the wild have used to run code, and near misses of allowed names. */
const NAMES = [
  ['posix', 'system'],
  ['nt', 'system'],
  ['os', 'system'],
  ['builtins', 'eval'],
  ['builtins', 'exec'],
  ['builtins', 'getattr'],
  ['__builtin__', 'eval'],
  ['subprocess', 'Popen'],
  ['torch', 'load'],
  ['torch', 'UntypedStorage'],
  ['torch', '__proto__'],
  ['torch', 'constructor'],
  ['torch.storage', 'FloatStorage'],
  ['torch._utils', '_rebuild_tensor'],
  ['torch._utils', 'eval'],
  ['collections', 'OrderedDict '],
  ['collections', 'defaultdict'],
  ['collections.OrderedDict', ''],
  ['', 'collections.OrderedDict'],
]

for (const [module = '', name = ''] of NAMES) {
  test(`refused: the name ${module}.${name}`, () => {
    const call = new PickleWriter().global(module, name).text('touch /tmp/owned').raw('\x85R')
    refused(call, /not on the list/)
    refused(new PickleWriter().global(module, name), /not on the list/)
  })
}

/** @type {[string, PickleWriter, RegExp][]} */
const EVIL = [
  ['STACK_GLOBAL', new PickleWriter().text('posix').text('system').raw([0x93]), /opcode 0x93/],
  ['INST', new PickleWriter().raw('(').text('x').raw('iposix\nsystem\n'), /opcode 0x69/],
  ['OBJ', new PickleWriter().raw('(').text('x').raw('o'), /opcode 0x6f/],
  ['NEWOBJ', new PickleWriter().orderedDict().raw(')\x81'), /opcode 0x81/],
  ['EXT1', new PickleWriter().raw([0x82, 1]), /opcode 0x82/],
  ['PERSID as text', new PickleWriter().raw('Pstorage\n'), /opcode 0x50/],
  ['a call of a string', new PickleWriter().text('eval').raw(')R'), /call of a value/],
  ['a call of a dict', new PickleWriter().orderedDict().raw(')R'), /call of a value/],
  [
    'OrderedDict with arguments',
    new PickleWriter().global('collections', 'OrderedDict').tuple([1]).raw('R'),
    /1 arguments/,
  ],
  [
    'a call of a storage class',
    new PickleWriter().global('torch', 'FloatStorage').raw(')R'),
    /call of torch.FloatStorage/,
  ],
  ['BUILD on a list', new PickleWriter().raw(']}b'), /state set/],
  ['BUILD with a list', new PickleWriter().orderedDict().raw(']b'), /state set/],
  [
    'a parameter of nothing',
    new PickleWriter().global('torch._utils', '_rebuild_parameter').raw('(Nt').raw('R'),
    /_rebuild_parameter/,
  ],
  [
    'a tensor of nothing',
    new PickleWriter().global('torch._utils', '_rebuild_tensor_v2').raw(')R'),
    /without a storage/,
  ],
  ['a persistent id that is text', new PickleWriter().text('storage').raw('Q'), /no storage/],
  [
    'a persistent id of another kind',
    new PickleWriter().raw('(').text('module').raw('NNNNtQ'),
    /no storage/,
  ],
  ['memo never set', new PickleWriter().raw('h\x09'), /memo 9/],
  ['memo far away', new PickleWriter().raw('j\xff\xff\xff\xff'), /memo 4294967295/],
  ['empty stack', new PickleWriter().raw('0'), /opcode 0x30/],
  ['append to a dict', new PickleWriter().raw('}Na'), /no list/],
  ['items for a list', new PickleWriter().raw(']NNs'), /no dict/],
  ['a key without value', new PickleWriter().raw('}(').text('a').raw('u'), /without a value/],
  ['a list as key', new PickleWriter().raw('}(])u'), /neither string nor number/],
  ['no mark', new PickleWriter().raw('}u'), /no mark/],
  ['a mark as value', new PickleWriter().raw('}(s'), /stack is empty/],
  ['two values', new PickleWriter().raw('NN'), /2 values/],
  ['no value', new PickleWriter(), /0 values/],
  ['text of 4 GB', new PickleWriter().raw('X\xff\xff\xff\xffabc'), /ends early/],
  ['text that is not UTF-8', new PickleWriter().raw('X\x02\x00\x00\x00\xff\xfe'), /UTF-8/],
  ['a name without end', new PickleWriter().raw('cposix'), /ends/],
  [
    'an integer of 200 bytes',
    new PickleWriter().raw([0x8a, 200, ...new Array(200).fill(1)]),
    /integer of 200/,
  ],
]

for (const [name, pickle, message] of EVIL) {
  test(`refused: ${name}`, () => refused(pickle, message))
}

test('refused at once: a length that is a tuple of the same tuple twice, 60 times over', () => {
  const p = new PickleWriter().raw('(').text('storage').global('torch', 'FloatStorage')
  p.text('0').text('cpu').raw(')')
  for (let depth = 0; depth < 60; depth++) p.raw('q\x00h\x00\x86')
  refused(p.raw('tQ'), /a storage whose length is no number/)
})

test('refused: other protocols, no pickle, nothing', () => {
  refused(Uint8Array.of(0x80, 4, 0x4e, 0x2e), /protocol 4/)
  refused(Uint8Array.of(0x80, 5, 0x2e), /protocol 5/)
  refused(Uint8Array.of(0x28, 0x2e), /no pickle/)
  refused(new Uint8Array(0), /./)
})

/** @type {[string, Partial<import('./support/pickle-writer.js').PickledTensor>, RegExp][]} */
const BAD_TENSORS = [
  ['reaches beyond its storage', { shape: [2, 4] }, /reaches element 7/],
  ['starts beyond its storage', { offset: 6, shape: [1] }, /reaches element 6/],
  ['strides out', { shape: [2, 2], strides: [6, 1] }, /reaches element 7/],
  ['negative offset', { offset: -1 }, /do not fit/],
  ['negative stride', { strides: [-3, 1] }, /do not fit/],
  ['negative size', { shape: [-2, 3] }, /do not fit/],
  ['too few strides', { strides: [1] }, /do not fit/],
  ['rank 9', { shape: new Array(9).fill(1) }, /do not fit/],
  ['expanded', { shape: [1000, 1000, 6], strides: [0, 0, 1] }, /expanded/],
  ['huge', { shape: [2 ** 40, 2 ** 40] }, /reaches/],
  ['storage of negative length', { storageLength: -1 }, /-1 elements/],
]

for (const [name, change, message] of BAD_TENSORS) {
  test(`refused: a tensor that ${name}`, () =>
    refused(pickleStateDict([{ ...TENSOR, ...change }]), message))
}

test('memo bombs stay small', () => {
  const p = new PickleWriter().raw(']').put()
  for (let i = 0; i < 200; i++)
    p.raw('](')
      .raw(new Array(8).fill(`h${String.fromCharCode(i % 256)}`).join(''))
      .raw('e')
      .put()
  refused(p, /201 values/)
  const deep = new PickleWriter().raw('('.repeat(200000)).raw('t'.repeat(200000))
  assert(Array.isArray(read(deep.bytes())))
})

test('a pickle cut at any byte is refused', () => {
  const whole = pickleStateDict([TENSOR], { nest: ['model'] })
  for (let end = 0; end < whole.length; end++) refused(whole.subarray(0, end), /./)
})

test('random damage never does worse than an error', () => {
  const whole = pickleStateDict([TENSOR, { ...TENSOR, name: 'v' }], { parameter: true })
  for (let seed = 0; seed < 20000; seed++) {
    const r = seeded(seed)
    const bytes = whole.slice()
    for (let n = 1 + r.below(4); n > 0; n--) bytes[r.below(bytes.length)] = r.below(256)
    try {
      read(bytes)
    } catch (error) {
      const { code, stack } = /** @type {Error & { code?: string }} */ (error)
      assert.equal(code, 'checkpoint', `seed ${seed}: ${stack}`)
    }
  }
})
