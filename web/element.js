/**
 * Making elements in one line.
 *
 * Owns how: text goes in as text, attributes by name, events by `on`. Nothing here reads markup, so nothing that a model, a file or an address says can
 * become any.
 */

/** @typedef {string | number | Node | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>} [attributes]  a function is a listener for the event of its name;
 *   false, null and undefined: left out
 * @param {...Child} children  strings become text
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? '' : String(value))
    }
  }
  element.append(
    ...children.filter(isThere).map((child) => (child instanceof Node ? child : String(child))),
  )
  return element
}

/** @param {Child} child @returns {child is string | number | Node} */
function isThere(child) {
  return child !== null && child !== undefined && child !== false
}

/**
 * An element that index.html has.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function find(id) {
  const element = document.getElementById(id)
  if (!element) throw new Error(`index.html has no #${id}`)
  return /** @type {T} */ (element)
}

/** A button. @param {string} label @param {() => void} onClick @param {Parameters<typeof el>[1]} [attributes] */
export function button(label, onClick, attributes = {}) {
  const made = el('button', { type: 'button', ...attributes }, label)
  onPress(made, onClick)
  return made
}

/** What a button does while it may be pressed. @param {HTMLElement} button @param {() => void} act */
export function onPress(button, act) {
  button.addEventListener('click', () => {
    if (button.getAttribute('aria-disabled') !== 'true') act()
  })
}

/** Whether a button may be pressed. One that may not keeps the focus, so that the keyboard is not lost. @param {HTMLElement} button @param {boolean} isAllowed */
export function allow(button, isAllowed) {
  if (isAllowed) button.removeAttribute('aria-disabled')
  else button.setAttribute('aria-disabled', 'true')
}

/** One button in the place of another; the keyboard goes on with it. @param {HTMLElement} shown @param {HTMLElement} hidden */
export function swap(shown, hidden) {
  const hadFocus = document.activeElement === hidden
  shown.hidden = false
  if (hadFocus) shown.focus()
  hidden.hidden = true
}

/** A control with its label. @param {string} label @param {HTMLElement} control with an id */
export function field(label, control) {
  return el('div', { class: 'field' }, el('label', { for: control.id }, label), control)
}
