/**
 * Chat templates: what text they make, and that no message can hold a special token.
 *
 * The templates are written here in the style of well-known families; the expected texts are written by hand.
 */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ChatTemplate, checkMessages } from '../../js/chat-template.js'

/** @typedef {import('../../js/chat-template.js').ChatMessage} ChatMessage */
/** @typedef {import('../../js/chat-template.js').Part} Part */

const SPECIALS = ['<s>', '</s>', '<|im_start|>', '<|im_end|>', '<|im', '<|eot|>'].map(
  (text, i) => ({
    text,
    id: 1000 + i,
  }),
)
const NAMES = { bosToken: '<s>', eosToken: '</s>' }

const CHATML = `{% for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message['content'] | trim + '<|im_end|>' + '\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

const INSTRUCT = `{{- bos_token -}}{% if messages[0]['role'] == 'system' %}
{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}
{% else %}
{% set system = none %}{% set rest = messages %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') -}}
{% endif %}
{% if message['role'] == 'user' %}
{% if loop.index0 == 0 and system is not none %}
{{- '[INST] <<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'].strip() + ' [/INST]' -}}
{% else %}
{{- '[INST] ' + message['content'].strip() + ' [/INST]' -}}
{% endif %}
{% else %}
{{- ' ' + message['content'].strip() + ' ' + eos_token -}}
{% endif %}
{% endfor %}`

/** Nothing stands between the content and what would make a token of it. */
const TIGHT = `{% for m in messages %}<{{ m.content | trim }}/s>{{ m.content }}>{% endfor %}`

/** @param {string | null} source */
const open = (source) => ChatTemplate.create(source, SPECIALS, NAMES)

/** @param {readonly Part[]} parts */
const textOf = (parts) =>
  parts
    .map((part) => ('text' in part ? part.text : SPECIALS.find(({ id }) => id === part.id)?.text))
    .join('')

/** @param {readonly Part[]} parts */
const idsOf = (parts) => parts.flatMap((part) => ('id' in part ? [part.id] : []))

/** @type {ChatMessage[]} */
const TALK = [
  { role: 'system', content: 'Be kind.' },
  { role: 'user', content: ' Hello ' },
  { role: 'assistant', content: 'Hi!' },
  { role: 'user', content: 'Who are you?' },
]

test('ChatML', async () => {
  const parts = (await open(CHATML)).render(TALK, true)
  assert.equal(
    textOf(parts),
    '<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n' +
      '<|im_start|>assistant\nHi!<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n',
  )
  assert.deepEqual(idsOf(parts), [1002, 1003, 1002, 1003, 1002, 1003, 1002, 1003, 1002])
  assert.deepEqual(parts.slice(0, 3), [{ id: 1002 }, { text: 'system\nBe kind.' }, { id: 1003 }])
})

test('instructions, with a system text in the first one', async () => {
  const template = await open(INSTRUCT)
  assert.equal(
    textOf(template.render(TALK, true)),
    '<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHello [/INST] Hi! </s>[INST] Who are you? [/INST]',
  )
  assert.throws(() => template.render([{ role: 'assistant', content: 'Hi!' }], true), {
    code: 'argument',
    message: 'the chat template refuses the messages: roles must alternate',
  })
})

test('without a template: plain text', async () => {
  const template = await open(null)
  assert.deepEqual(template.render(TALK, true), [
    { text: 'Be kind.\n\nUser: Hello\nAssistant: Hi!\nUser: Who are you?\nAssistant:' },
  ])
  assert.deepEqual(template.stops, ['\nUser:'])
  assert.equal(template.isPlain, true)
  assert.deepEqual((await open(CHATML)).stops, [])
})

/** What a template makes of a message. @param {string | null} source @param {string} text */
const shownBy = (source, text) => (source === TIGHT ? `<${text.trim()}/s>${text}>` : text.trim())

test('special tokens in messages are text, at every place and over every border', async () => {
  const fragment = fc.constantFrom(
    ...[
      '<',
      '</',
      '/s>',
      '>',
      's',
      '<s',
      '/',
      '|',
      '<|',
      '<|im',
      '_start|>',
      '|im_end|>',
      ' ',
      '\n',
      'a',
    ],
    ...SPECIALS.map(({ text }) => text),
  )
  const content = fc.array(fragment, { maxLength: 8 }).map((list) => list.join(''))
  for (const source of [CHATML, TIGHT, INSTRUCT, null]) {
    const template = await open(source)
    const plain = textOf(template.render([{ role: 'user', content: 'word' }], true))
    const wanted = idsOf(template.render([{ role: 'user', content: 'word' }], true))
    assert.ok(plain.includes('word'))
    fc.assert(
      fc.property(content, (text) => {
        // With nothing between them the template's own text makes a token.
        fc.pre(source !== TIGHT || text.trim() !== '')
        const parts = template.render([{ role: 'user', content: text }], true)
        assert.deepEqual(idsOf(parts), wanted)
        // And nothing of the text is lost.
        const word = shownBy(source, 'word')
        assert.equal(
          textOf(parts),
          plain.replace(word, () => shownBy(source, text)),
        )
      }),
      { numRuns: 1500 },
    )
  }
})

test('what a template may not do', async () => {
  await assert.rejects(open('{% for %}'), { code: 'tokenizer', message: /^the chat template: / })
  await assert.rejects(open('x'.repeat(65537)), { code: 'tokenizer', message: /65537 characters/ })
  const endless = await open('{% for i in range(1000000000) %}x{% endfor %}')
  assert.throws(() => endless.render([], true), {
    code: 'tokenizer',
    message: /range of 1000000000/,
  })
  const unknown = await open('{{ messages[0].content.nonsense() }}')
  const talk = [/** @type {ChatMessage} */ ({ role: 'user', content: 'a' })]
  assert.throws(() => unknown.render(talk, true), { code: 'tokenizer' })
  const marks = Array.from({ length: 32 }, (_, i) => String.fromCharCode(0xfdd0 + i)).join('')
  const template = await open(CHATML)
  assert.throws(() => template.render([{ role: 'user', content: marks }], true), {
    code: 'argument',
  })
  // One that is in a message is not taken for a mark.
  const parts = template.render([{ role: 'user', content: 'a\ufdd0<s>' }], false)
  assert.equal(textOf(parts), '<|im_start|>user\na\ufdd0<s><|im_end|>\n')
})

test('a long message takes time in proportion', async () => {
  const template = await open(CHATML)
  const began = performance.now()
  const content = 'word < s> <|im '.repeat(70000)
  const parts = template.render([{ role: 'user', content }], true)
  assert.equal(idsOf(parts).length, 3)
  assert.ok(performance.now() - began < 3000, `${performance.now() - began} ms`)
})

test('messages are checked', () => {
  assert.deepEqual(checkMessages(TALK, 'messages'), TALK)
  for (const [value, message] of /** @type {[unknown, RegExp][]} */ ([
    ['hello', /want an array/],
    [[null], /messages\[0\].role is undefined/],
    [[{ role: 'user' }], /messages\[0\].content is undefined/],
    [
      [...TALK, { role: 'tool', content: '' }],
      /messages\[4\].role is "tool", want system, user, assistant/,
    ],
  ])) {
    assert.throws(() => checkMessages(value, 'messages'), { code: 'argument', message })
  }
})
