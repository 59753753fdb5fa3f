/**
 * The text on the page, which people edit and the model continues.
 *
 * Owns the element: an element for each line, so that a long text is laid out once and only its last line grows. Nothing but text goes in. Knows no
 * model. What a person types is read from the element only when it is asked for.
 */

import { el } from './element.js'

/** So near to its end, px, the reader follows the text. */
const FOLLOW_PX = 120

export class TextPane {
  #element
  #scroller
  #text = ''
  /** The element has changed under a person's hands. */
  #isEdited = false
  /** It may hold what a browser has made of an edit, and not an element for each line. */
  #isRough = false
  /** @type {boolean | null} null: nothing was said yet */
  #locked = null
  #waiting = ''
  #frame = 0

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} scroller that scrolls it
   * @param {() => void} onEdit a person has changed it
   */
  constructor(element, scroller, onEdit) {
    this.#element = element
    this.#scroller = scroller
    this.isLocked = false
    element.addEventListener('input', () => {
      this.#isEdited = true
      this.#isRough = true
      onEdit()
    })
    element.addEventListener('paste', (event) => {
      if (element.contentEditable === 'true') pastePlain(event)
    })
    // Nothing that is dropped may become an element.
    element.addEventListener('drop', (event) => event.preventDefault())
  }

  /** @returns {string} as it is now */
  get text() {
    this.flush()
    if (this.#isEdited) this.#text = readLines(this.#element).join('\n')
    this.#isEdited = false
    return this.#text
  }

  /** @param {string} text in place of what is there */
  show(text) {
    if (text === this.text) return
    this.#text = text
    this.#build()
    this.#scroller.scrollTop = this.#scroller.scrollHeight
  }

  #build() {
    this.#isRough = false
    const lines = this.#text === '' ? [] : this.#text.split('\n').map(lineOf)
    this.#element.replaceChildren(...lines)
  }

  /** Adds to its end, with the next frame. @param {string} text */
  append(text) {
    this.#waiting += text
    this.#frame ||= requestAnimationFrame(() => this.flush())
  }

  /** What was appended is there. */
  flush() {
    cancelAnimationFrame(this.#frame)
    this.#frame = 0
    const added = this.#waiting
    this.#waiting = ''
    if (added === '') return
    const { scrollTop, clientHeight, scrollHeight } = this.#scroller
    const follows = scrollHeight - scrollTop - clientHeight < FOLLOW_PX
    this.#text += added
    const [first = '', ...lines] = added.split('\n')
    const last = this.#element.lastElementChild
    if (last) growLine(last, first)
    else this.#element.append(lineOf(first))
    this.#element.append(...lines.map(lineOf))
    if (follows) this.#scroller.scrollTop = this.#scroller.scrollHeight
  }

  /** @param {boolean} locked people cannot change it */
  set isLocked(locked) {
    if (locked === this.#locked) return
    this.#locked = locked
    if (locked && this.text !== '' && this.#isRough) this.#build()
    this.#element.setAttribute('aria-readonly', String(locked))
    try {
      this.#element.contentEditable = locked ? 'false' : 'plaintext-only'
    } catch {
      this.#element.contentEditable = 'true' // an older browser: pastePlain and readLines do the rest
    }
    // A text box that cannot be edited now can still be read by the keyboard.
    this.#element.tabIndex = 0
    // What was written came after the place at which a person wrote.
    if (!locked && document.activeElement === this.#element) this.#caretToEnd()
  }

  #caretToEnd() {
    const selection = getSelection()
    selection?.selectAllChildren(this.#element)
    selection?.collapseToEnd()
  }
}

/** @param {string} line */
function lineOf(line) {
  return el('div', {}, line === '' ? el('br') : line)
}

/** @param {Element} paragraph @param {string} added */
function growLine(paragraph, added) {
  if (added === '') return
  const { lastChild } = paragraph
  if (lastChild instanceof Text) lastChild.appendData(added)
  else {
    lastChild?.remove() // the br that held an empty line open
    paragraph.append(added)
  }
}

/** @param {Element} root of an editable text, whatever a browser has made of it @returns {string[]} */
function readLines(root) {
  const lines = ['']
  let isFresh = true // nothing is on the last line yet, and a block may begin there
  /** @param {string} text */
  const add = (text) => {
    const [first = '', ...rest] = text.split(/\r\n?|\n/)
    lines[lines.length - 1] += first
    lines.push(...rest)
    isFresh = false
  }
  /** @param {Node} parent */
  const walk = (parent) => {
    for (const node of parent.childNodes) {
      if (node instanceof Text) add(node.data)
      else if (node.nodeName === 'BR') {
        // The last one of a block holds its line open, and is no line of its own.
        if (node.nextSibling) add('\n')
        else isFresh = false
      } else if (node instanceof HTMLElement && /^(P|DIV|LI|H\d)$/.test(node.nodeName)) {
        if (!isFresh) lines.push('')
        isFresh = true
        walk(node)
        isFresh = false
      } else walk(node)
    }
  }
  walk(root)
  return lines
}

/** In browsers that would paste markup: by the editor itself, so that its own undo knows of it. @param {ClipboardEvent} event */
function pastePlain(event) {
  event.preventDefault()
  document.execCommand('insertText', false, event.clipboardData?.getData('text/plain') ?? '')
}
