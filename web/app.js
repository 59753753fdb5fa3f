/**
 * The app: where its parts meet.
 *
 * Owns the order of starting, the views and the keys. What each part does is in the part.
 * The idea: one model, one story of it, one writer; the views show them and never each other.
 */

import { BenchView } from './bench-view.js'
import { deviceWords } from './device-line.js'
import { DraftKeeper } from './draft-keeper.js'
import { allow, button, el, find, onPress, swap } from './element.js'
import { Installation } from './installation.js'
import { loadingWords } from './loading-card.js'
import { isKept, ModelDesk, messageOf } from './model-desk.js'
import { ModelsView, OWN_MODEL } from './models-view.js'
import { Pauses } from './pauses.js'
import { SamplingForm } from './sampling-form.js'
import { isSavedSession } from './saved-state.js'
import { SentenceVoice } from './sentence-voice.js'
import { StateView } from './state-view.js'
import { Story } from './story.js'
import { TextPane } from './text-pane.js'
import { Writer } from './writer.js'

const FIRST_TEXT = 'Once upon a time'
const TITLE = document.title
const VIEWS = ['write', 'state', 'models', 'benchmark']
/** States up to this size are kept as they are with the draft, larger ones in 8 bits. */
const WHOLE_STATE_BYTES = 8e6
const STORAGE_WARNING =
  'This browser keeps nothing for this page, or has no room left: the text is lost with the page. It can be saved as a file in the view State.'
/** After the last key so long the text is read from the page, ms. */
const READ_MS = 100

class App {
  #desk = new ModelDesk()
  #drafts = new DraftKeeper(() => this.#warnOfStorage())
  #pauses = new Pauses()
  #form = new SamplingForm(/** @type {HTMLFormElement} */ (find('sampling')))
  #pane = new TextPane(find('text'), find('main'), () => this.#edited())
  #writer = new Writer({
    pane: this.#pane,
    voice: new SentenceVoice(find('spoken')),
    pauses: this.#pauses,
    form: this.#form,
  })
  #state = new StateView(this.#writer, (work) => this.#guard(work))
  #models = new ModelsView(
    {
      loading: find('loading'),
      consent: find('consent'),
      open: find('open'),
      cached: find('cached'),
    },
    this.#desk,
    (file) => this.#guard(this.#openFile(file)),
  )
  #installation = new Installation({ notices: find('notices'), install: find('install') }, () =>
    this.#keepDraft(),
  )
  /** @type {Story | null} */
  #story = null
  /** What the story begins with, when there is a model. */
  #outline = outlineOf(FIRST_TEXT)
  /** Of the model that it was written with. @type {string | null} */
  #address = null
  /** How far each view is scrolled. @type {Map<string, number>} */
  #scrolled = new Map()
  #view = ''
  #readTimer = 0

  async start() {
    new BenchView(find('bench'), this.#desk)
    this.#wireButtons()
    this.#wireKeys()
    this.#wirePage()
    this.#desk.addEventListener('model', () => void this.#taken())
    this.#desk.addEventListener('loading', () => this.#showLoading())
    this.#showView()
    await this.#drafts.claim()
    const draft = this.#drafts.read()
    if (draft) {
      this.#outline = draft.outline
      this.#address = draft.address
    }
    this.#pane.show(String(this.#outline.branches[this.#outline.current]?.text))
    const linked = new URLSearchParams(location.search).get('model')
    if (linked !== null) await this.#openLinked(linked)
    // One that was paused or failed waits for the visitor.
    if (!this.#desk.model && !this.#desk.loading) await this.#openDraft(draft)
    // After the model is at work: what is kept for offline must not hold that up.
    await this.#installation.begin()
  }

  /** @param {string} address @returns {Promise<void>} when it is open or has failed; one that is asked about first is not waited for */
  async #openLinked(address) {
    const open = async () => {
      location.hash = '#models'
      const isDone = await this.#models.openLinked(address)
      // Else the reason, or the download, is to be seen there.
      if (isDone && location.hash === '#models') location.hash = '#write'
    }
    if (await this.#models.isAtHand(address)) await open()
    else this.#guard(open())
  }

  /** The model that the draft was written with, or the site's own. @param {import('./draft-keeper.js').Draft | null} draft */
  async #openDraft(draft) {
    const address = draft?.address ?? OWN_MODEL.address
    const wanted =
      address === OWN_MODEL.address ? OWN_MODEL : { source: address, name: address, address }
    if (wanted !== OWN_MODEL && !(await isKept(address)))
      return this.#desk.open(OWN_MODEL, this.#pane.text)
    return this.#desk.open(wanted, this.#pane.text)
  }

  /** A model is there. */
  async #taken() {
    const { model } = this.#desk
    if (!model) return
    const words = deviceWords(model.info)
    find('device').textContent = words.short
    find('device').title = words.long
    this.#say(words.long)
    this.#writer.stop()
    try {
      if (this.#story) await this.#story.moveTo(model)
      else await this.#beginStory(model)
    } catch (error) {
      this.#say(messageOf(error))
    }
    if (this.#story) this.#state.take(this.#story)
    this.#showButtons()
  }

  /** @param {import('../js/index.js').BiMamba} model */
  async #beginStory(model) {
    const story = await Story.begin(model, this.#outline, (options) =>
      this.#drafts.session(model, options),
    )
    // What was written meanwhile counts.
    story.current.text = this.#pane.text
    story.addEventListener('change', () => this.#storyChanged())
    this.#story = story
  }

  /** A long text is not read from the page with every key. */
  #edited() {
    clearTimeout(this.#readTimer)
    this.#readTimer = window.setTimeout(() => {
      this.#readPane()
      this.#showButtons()
    }, READ_MS)
    this.#drafts.keepSoon(() => this.#draft())
  }

  /** The story is told what a person has written. */
  #readPane() {
    clearTimeout(this.#readTimer)
    this.#readTimer = 0
    if (this.#story && !this.#story.isWriting) this.#story.current.text = this.#pane.text
  }

  #storyChanged() {
    const story = this.#story
    if (!story) return
    // What was typed just now is not written over.
    if (this.#readTimer) this.#readPane()
    if (!this.#writer.isRunning && !story.isWriting) {
      this.#pane.show(story.current.text)
      this.#drafts.keepSoon(() => this.#draft())
    }
    this.#showButtons()
  }

  #showButtons() {
    const story = this.#story
    const isBusy = !story || story.isWriting
    const isWriting = this.#writer.isRunning
    this.#pane.isLocked = isWriting
    find('text').setAttribute('aria-busy', String(story?.isBusy ?? true))
    if (isWriting) swap(find('stop'), find('continue'))
    else swap(find('continue'), find('stop'))
    const canUndo = story !== null && story.undoable.length > 0
    const canRepeat = story?.repeatable !== undefined
    const allowed = {
      continue: true,
      again: canRepeat,
      undo: canUndo,
      redo: Boolean(story?.current.undone.length),
      fresh: true,
    }
    for (const [id, isAllowed] of Object.entries(allowed)) allow(find(id), !isBusy && isAllowed)
  }

  #wireButtons() {
    /** @type {Record<string, () => void>} */
    const actions = {
      continue: () => this.#write('continue'),
      again: () => this.#write('regenerate'),
      stop: () => this.#writer.stop(),
      undo: () => this.#change((story) => story.undo()),
      redo: () => this.#change((story) => story.redo()),
      copy: () => this.#guard(this.#copy()),
      fresh: () => this.#change((story) => story.beginText(FIRST_TEXT)),
    }
    for (const [id, act] of Object.entries(actions)) onPress(find(id), act)
    this.#writer.addEventListener('status', () => this.#show(this.#writer.status))
    this.#writer.addEventListener('news', () => this.#say(this.#writer.status))
    this.#writer.addEventListener('run', () => this.#ranOrRuns())
  }

  /** @param {(story: Story) => Promise<unknown>} work */
  #change(work) {
    this.#readPane()
    if (this.#story) this.#guard(work(this.#story))
  }

  #ranOrRuns() {
    this.#showButtons()
    if (this.#writer.isRunning) return
    const story = this.#story
    if (story) this.#pane.show(story.current.text)
    void this.#keepDraft()
  }

  /** @param {'continue' | 'regenerate'} how */
  #write(how) {
    const story = this.#story
    if (!story || story.isWriting) return
    this.#readPane()
    void this.#writer.run(story, how)
  }

  async #copy() {
    await navigator.clipboard.writeText(this.#pane.text)
    this.#say('The text is in the clipboard.')
  }

  #wireKeys() {
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && this.#writer.isRunning) {
        event.preventDefault()
        this.#writer.stop()
      }
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault()
        this.#write('continue')
      }
    })
  }

  #wirePage() {
    addEventListener('hashchange', () => this.#showView())
    addEventListener('online', () => {
      if (this.#desk.loading?.state === 'failed') void this.#desk.resume()
    })
    addEventListener('pagehide', () => this.#drafts.keepText(this.#draft()))
    document.addEventListener(
      'visibilitychange',
      () => document.hidden && this.#drafts.keepText(this.#draft()),
    )
    addEventListener('dragover', (event) => event.preventDefault())
    addEventListener('drop', (event) => {
      event.preventDefault()
      this.#guard(this.#openFile(event.dataTransfer?.files[0]))
    })
    this.#pauses.addEventListener('change', () => this.#showPause())
  }

  #showView() {
    const wanted = location.hash.slice(1)
    // Another hash is the skip link's: the view stays.
    if (wanted !== '' && !VIEWS.includes(wanted)) return
    const name = wanted || 'write'
    this.#readPane()
    if (this.#view !== '') this.#scrolled.set(this.#view, find('main').scrollTop)
    this.#view = name
    for (const view of VIEWS) find(view).hidden = view !== name
    for (const link of document.querySelectorAll('.tabs a')) {
      if (link.getAttribute('href') === `#${name}`) link.setAttribute('aria-current', 'page')
      else link.removeAttribute('aria-current')
    }
    // Elsewhere a text can only be stopped.
    find('actions').classList.toggle('aside', name === 'models' || name === 'benchmark')
    if (name === 'state') this.#guard(this.#state.show())
    if (name === 'models') this.#guard(this.#models.show())
    find('main').scrollTop = this.#scrolled.get(name) ?? 0
  }

  /** A model, or a saved text. @param {File | undefined} file */
  async #openFile(file) {
    if (!file) return
    if (await isSavedSession(file)) {
      location.hash = '#state'
      await this.#state.openFile(file)
    } else await this.#models.open(file)
  }

  #showLoading() {
    const { loading, model } = this.#desk
    if (!loading) return
    if (loading.state === 'failed') this.#say(`${loading.wanted.name}: ${loading.message}`)
    else if (!model) this.#show(`${loading.wanted.name}: ${loadingWords(loading)}`)
  }

  #showPause() {
    const { reason } = this.#pauses
    document.title = reason ? `Paused: ${TITLE}` : TITLE
    document.querySelector('.notice.pause')?.remove()
    if (reason === null) {
      if (this.#writer.isRunning) this.#say('Going on after a pause.')
      return
    }
    if (reason === 'hidden') {
      this.#say('Paused while this page is hidden; it goes on when you come back.')
      return
    }
    find('notices').append(
      el(
        'div',
        { class: 'notice pause' },
        el('p', {}, 'Paused: the memory of this page is nearly full.'),
        el(
          'div',
          { class: 'row' },
          button('Go on', () => this.#pauses.goOn()),
          button('Stop', () => this.#writer.stop()),
        ),
      ),
    )
    this.#say('Paused: the memory of this page is nearly full.')
  }

  /** @returns {import('./draft-keeper.js').Draft} */
  #draft() {
    const { branches, current } = this.#story?.outline() ?? this.#outline
    // What a person has just written; the story may not have been told.
    const changed = branches.map((branch, i) =>
      i === current ? { ...branch, text: this.#pane.text } : branch,
    )
    const { opened } = this.#desk
    return {
      outline: { branches: changed, current },
      address: opened ? opened.address : this.#address,
    }
  }

  async #keepDraft() {
    this.#drafts.keepText(this.#draft())
    const story = this.#story
    if (!story || story.isWriting) return
    try {
      const isSmall = story.model.info.stateBytes <= WHOLE_STATE_BYTES
      const bytes = await story.save(isSmall ? 'own' : 'i8')
      if (bytes) await this.#drafts.keepSession(bytes)
    } catch {
      // The text is kept; it is read anew the next time.
    }
  }

  /** @param {Promise<unknown> | undefined} work */
  #guard(work) {
    work?.catch((error) => this.#say(messageOf(error)))
  }

  /** Said once, when it is known: from then on nobody relies on it. */
  #warnOfStorage() {
    if (document.querySelector('.notice.storage')) return
    const notice = el(
      'div',
      { class: 'notice storage' },
      el('p', {}, STORAGE_WARNING),
      // Hidden, not removed: it is not said again.
      button('I see', () => {
        notice.hidden = true
      }),
    )
    find('notices').append(notice)
  }

  /** News: also for who only listens. @param {string} text */
  #say(text) {
    this.#show(text)
    find('told').textContent = text
  }

  /** @param {string} text */
  #show(text) {
    find('status').textContent = text
  }
}

/** @param {string} text @returns {import('./story.js').Outline} of a story that has one branch */
function outlineOf(text) {
  return { branches: [{ name: 'Text 1', text, parent: null, forkedAt: 0 }], current: 0 }
}

void new App().start()
