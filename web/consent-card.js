/**
 * The question before something is fetched.
 *
 * Owns what is told before a download: from where, how much, under which licence, where it is kept, how much room there is. Nothing is fetched until the
 * answer is yes.
 */

import { button, el } from './element.js'
import { formatBytes } from './number-text.js'

export class ConsentCard {
  #root
  /** @type {((answer: boolean) => void) | null} of the question that is open */
  #answer = null
  #afterwards
  /** @type {HTMLElement | null} where the keyboard was */
  #before = null

  /** @param {HTMLElement} root empty @param {HTMLElement} afterwards where the keyboard goes on, unless it came from elsewhere */
  constructor(root, afterwards) {
    this.#root = root
    this.#afterwards = afterwards
  }

  /**
   * Before anything is asked of a server that the page was only linked to.
   * @param {string} address @param {string} host
   */
  askOrigin(address, host) {
    return this.#ask(
      `A link wants to open a model from ${host}`,
      [
        el('p', { class: 'address' }, address),
        el(
          'p',
          {},
          'Nothing was fetched from there yet. The server will see your address and that you came from here.',
        ),
      ],
      `Ask ${host} about it`,
    )
  }

  /**
   * @param {string} address
   * @param {import('../js/index.js').FileDescription} found
   * @param {number} missingBytes  to be fetched
   * @param {{ usedBytes: number | null, quotaBytes: number | null }} room
   */
  askSize(
    address,
    { fileBytes, licence, source, config, projections },
    missingBytes,
    { usedBytes, quotaBytes },
  ) {
    const free = quotaBytes === null ? null : quotaBytes - (usedBytes ?? 0)
    const kept =
      'storage' in navigator && 'getDirectory' in navigator.storage
        ? 'the private files of this site'
        : 'this browser\u2019s cache'
    const here = fileBytes - missingBytes
    const facts = [
      ['From', address],
      [
        'To fetch',
        `${formatBytes(missingBytes)}${here > 0 ? `; ${formatBytes(here)} are here already` : ''}`,
      ],
      ['Weights from', source],
      ['Licence', licence],
      ['Shape', `${config.n_layer} layers, width ${config.d_model}, ${config.vocab_size} tokens`],
      ['Weights in', projections],
      ['Kept in', `${kept}, on this device, until you delete it`],
      [
        'Free there',
        free === null
          ? 'the browser does not say'
          : `about ${formatBytes(free)}, as far as the browser says`,
      ],
    ]
    const list = facts.map(([name, value]) =>
      el('div', {}, el('dt', {}, name), el('dd', { class: 'address' }, value)),
    )
    return this.#ask(
      'A large download',
      [el('dl', { class: 'facts' }, ...list)],
      `Download ${formatBytes(missingBytes)}`,
    )
  }

  /**
   * @param {string} title @param {Node[]} content @param {string} yes
   * @returns {Promise<boolean>}
   */
  #ask(title, content, yes) {
    this.#answer?.(false)
    const accept = button(yes, () => this.#close(true), { class: 'main-button' })
    this.#root.replaceChildren(
      el(
        'section',
        { class: 'panel consent', 'aria-labelledby': 'consent-title' },
        el('h2', { id: 'consent-title' }, title),
        ...content,
        el(
          'div',
          { class: 'row' },
          accept,
          button('No', () => this.#close(false)),
        ),
      ),
    )
    const { activeElement, body } = document
    if (activeElement instanceof HTMLElement && !this.#root.contains(activeElement))
      this.#before = activeElement === body ? null : activeElement
    accept.focus()
    return new Promise((resolve) => {
      this.#answer = resolve
    })
  }

  /** @param {boolean} answer */
  #close(answer) {
    const tell = this.#answer
    this.#answer = null
    this.#root.replaceChildren()
    ;(this.#before ?? this.#afterwards).focus()
    tell?.(answer)
  }
}
