/**
 * The app: where its parts meet.
 *
 * Owns the order of starting, the views and the keys. What each part does is in the part.
 * The idea: one model, one story of it, one writer; the views show them and never each other.
 */

import { BenchView } from './bench-view.js'
import { deviceWords } from './device-line.js'
import { DraftKeeper } from './draft-keeper.js'
import { button, el, find } from './element.js'
import { Installation } from './installation.js'
import { loadingWords } from './loading-card.js'
import { isKept, ModelDesk, messageOf } from './model-desk.js'
import { ModelsView, OWN_MODEL } from './models-view.js'
import { Pauses } from './pauses.js'
import { SamplingForm } from './sampling-form.js'
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

class App {
  #desk = new ModelDesk()
  #drafts = new DraftKeeper()
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
  )
  #installation = new Installation(
    { notices: find('notices'), install: find('install') },
    { isUntouched: () => this.#isUntouched, beforeReload: () => this.#keepDraft() },
  )
  /** @type {Story | null} */
  #story = null
  /** What the story begins with, when there is a model. */
  #outline = outlineOf(FIRST_TEXT)
  /** Of the model that it was written with. @type {string | null} */
  #address = null
  #isUntouched = true

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

  /** @param {string} address */
  async #openLinked(address) {
    location.hash = '#models'
    await this.#models.openLinked(address)
    // Else the reason, or the download, is to be seen there.
    if (this.#desk.model) location.hash = '#write'
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

  #edited() {
    this.#isUntouched = false
    if (this.#story && !this.#story.isWriting) this.#story.current.text = this.#pane.text
    this.#showButtons()
    this.#drafts.keepSoon(() => this.#draft())
  }

  #storyChanged() {
    const story = this.#story
    if (!story) return
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
    const [shown, hidden] = isWriting ? ['stop', 'continue'] : ['continue', 'stop']
    const hadFocus = document.activeElement === find(hidden)
    find(shown).hidden = false
    // The keyboard goes on with the button that is in the place of the other.
    if (hadFocus) find(shown).focus()
    find(hidden).hidden = true
    const canUndo = story !== null && story.undoable.length > 0
    const canRepeat = story?.repeatable !== undefined
    const allowed = {
      continue: true,
      again: canRepeat,
      undo: canUndo,
      redo: Boolean(story?.current.undone.length),
      fresh: true,
    }
    for (const [id, isAllowed] of Object.entries(allowed))
      find(id).toggleAttribute('disabled', isBusy || !isAllowed)
  }

  #wireButtons() {
    /** @type {Record<string, () => void>} */
    const actions = {
      continue: () => this.#write('continue'),
      again: () => this.#write('regenerate'),
      stop: () => this.#writer.stop(),
      undo: () => this.#guard(this.#story?.undo()),
      redo: () => this.#guard(this.#story?.redo()),
      copy: () => this.#guard(this.#copy()),
      fresh: () => this.#guard(this.#story?.beginText(FIRST_TEXT)),
    }
    for (const [id, act] of Object.entries(actions)) find(id).addEventListener('click', act)
    this.#writer.addEventListener('status', () => this.#say(this.#writer.status))
    this.#writer.addEventListener('run', () => this.#ranOrRuns())
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
    this.#isUntouched = false
    story.current.text = this.#pane.text
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
      this.#models.openFile(event.dataTransfer?.files[0])
    })
    this.#pauses.addEventListener('change', () => this.#showPause())
  }

  #showView() {
    const wanted = location.hash.slice(1)
    // Another hash is the skip link's: the view stays.
    if (wanted !== '' && !VIEWS.includes(wanted)) return
    const name = wanted || 'write'
    for (const view of VIEWS) find(view).hidden = view !== name
    for (const link of document.querySelectorAll('.tabs a')) {
      if (link.getAttribute('href') === `#${name}`) link.setAttribute('aria-current', 'page')
      else link.removeAttribute('aria-current')
    }
    find('actions').hidden = name === 'models' || name === 'benchmark'
    if (name === 'state') this.#guard(this.#state.show())
    if (name === 'models') this.#guard(this.#models.show())
    find('main').scrollTop = 0
  }

  #showLoading() {
    const { loading, model } = this.#desk
    if (!loading) return
    if (loading.state === 'failed') this.#say(`${loading.wanted.name}: ${loading.message}`)
    else if (!model) this.#say(`${loading.wanted.name}: ${loadingWords(loading)}`)
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
          button('Forget undo, and go on', () => {
            this.#guard(this.#story?.forgetUndo())
            this.#pauses.goOn()
          }),
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

  /** @param {string} text */
  #say(text) {
    find('status').textContent = text
  }
}

/** @param {string} text @returns {import('./story.js').Outline} of a story that has one branch */
function outlineOf(text) {
  return { branches: [{ name: 'Text 1', text, parent: null, forkedAt: 0 }], current: 0 }
}

void new App().start()
