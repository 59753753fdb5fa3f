/**
 * The app as something that is installed: its service worker, updates, the offer to install, and being isolated.
 *
 * Owns when the page is loaded anew: once on a host that sends no headers, so that the service worker can add them, and for an update that the user has
 * agreed to; never by itself after the visitor has done anything here.
 */

import { button, el } from './element.js'

/** In a tab's own storage: it was loaded anew for isolation, and would be for ever where that does not help. */
const RELOADED = 'bimamba.isolated'
/** Between two looks for a new version, ms. */
const LOOK_MS = 3600000
/** What shows that a visitor is at work. */
const TOUCHES = ['click', 'keydown', 'input', 'drop']

/** Chromium's offer. @typedef {Event & { prompt: () => Promise<unknown> }} InstallEvent */

export class Installation {
  #notices
  #button
  #beforeReload
  /** The visitor has done something on this page. */
  #isTouched = false
  /** @type {ServiceWorker | null} that the user wants now */
  #wanted = null
  /** A service worker answers for this page. */
  #isControlled = false

  /**
   * @param {{ notices: HTMLElement, install: HTMLElement }} places  notices: where questions go; install: the button that installs, hidden
   * @param {() => Promise<void>} beforeReload  keeps what was written
   */
  constructor({ notices, install }, beforeReload) {
    this.#notices = notices
    this.#button = install
    this.#beforeReload = beforeReload
    for (const type of TOUCHES) {
      const touched = () => {
        this.#isTouched = true
      }
      addEventListener(type, touched, { capture: true, once: true })
    }
    addEventListener('beforeinstallprompt', (event) =>
      this.#offer(/** @type {InstallEvent} */ (event)),
    )
  }

  /** When the page is at work already: what the service worker fetches must not hold that up. */
  async begin() {
    const { serviceWorker } = navigator
    if (!serviceWorker) return
    this.#isControlled = serviceWorker.controller !== null
    serviceWorker.addEventListener('controllerchange', () => void this.#changed())
    try {
      const registration = await serviceWorker.register('service-worker.js', {
        updateViaCache: 'none',
      })
      this.#watch(registration)
      setInterval(() => void registration.update().catch(() => {}), LOOK_MS)
    } catch {
      // Private windows of some browsers have none: the app works, but not offline.
    }
  }

  /** @param {ServiceWorkerRegistration} registration */
  #watch(registration) {
    const look = () => {
      if (registration.waiting && navigator.serviceWorker.controller)
        this.#askForUpdate(registration.waiting)
    }
    look()
    registration.addEventListener('updatefound', () => {
      registration.installing?.addEventListener('statechange', look)
    })
  }

  /** @param {ServiceWorker} worker that waits */
  #askForUpdate(worker) {
    this.#notices.querySelector('.update')?.remove()
    const notice = this.#ask('A new version of this app is here.', 'Update now', () => {
      this.#wanted = worker
      worker.postMessage('take over')
    })
    notice.classList.add('update')
  }

  /** A question that can wait. @param {string} text @param {string} yes @param {() => void} act @returns {HTMLElement} */
  #ask(text, yes, act) {
    const notice = el(
      'div',
      { class: 'notice' },
      el('p', {}, text),
      el(
        'div',
        { class: 'row' },
        button(yes, act, { class: 'main-button' }),
        button('Later', () => notice.remove()),
      ),
    )
    this.#notices.append(notice)
    return notice
  }

  /** Another service worker answers from now on; the first one is of the page's own version. */
  async #changed() {
    const isFirst = !this.#isControlled
    this.#isControlled = true
    if (this.#wanted) return this.#reload()
    if (isFirst) {
      if (!crossOriginIsolated) this.#isolate()
      return
    }
    // The user has agreed to it in another tab.
    this.#ask('The app was updated in another tab.', 'Reload this one', () => this.#reload())
  }

  /** The first visit to a host without headers: with the service worker's, memory can be shared. Who is at work already is asked. */
  #isolate() {
    try {
      if (sessionStorage.getItem(RELOADED)) return
      sessionStorage.setItem(RELOADED, 'yes')
    } catch {
      return // without a memory of it, the page could be loaded anew for ever
    }
    if (this.#isTouched) {
      this.#ask('Loaded anew, this page can compute with several threads.', 'Load it anew', () =>
        this.#reload(),
      )
    } else location.reload()
  }

  async #reload() {
    await this.#beforeReload()
    location.reload()
  }

  /** @param {InstallEvent} event */
  #offer(event) {
    event.preventDefault()
    this.#button.hidden = false
    this.#button.onclick = () => {
      this.#button.hidden = true
      void event.prompt()
    }
  }
}
