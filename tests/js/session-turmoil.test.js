/**
 * A thousand random sequences of calls on the sessions of one model, against a plain list of token ids for each.
 *
 * After every sequence each session that is open must be, to the bit, where its list says: nothing may hang, nothing may leak into another
 * session, and the engine's memory must not grow. A failure names its seed (BIMAMBA_SEED).
 */

import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { BiMamba } from '../../js/index.js'
import { seeded } from './support/seeded.js'
import { tinyModel } from './support/tiny-model.js'

/** @typedef {import('../../js/index.js').Session} Session */
/** @typedef {{ session: Session, ids: number[] }} Tracked */

const SEED = Number(process.env.BIMAMBA_SEED ?? Date.now() % 1000000)
const SEQUENCES = 500
const REASON = new Error('enough')

let path = ''
before(async () => {
  path = await tinyModel()
})

/** One sequence: what is open, and what it should hold. */
class Sequence {
  /** @type {Tracked[]} */
  tracked = []
  /** @type {{ snapshot: import('../../js/index.js').Snapshot, ids: number[] }[]} */
  snapshots = []

  /** @param {BiMamba} model @param {ReturnType<typeof seeded>} random */
  constructor(model, random) {
    this.model = model
    this.random = random
  }

  /** @param {number} most */
  ids(most) {
    return Array.from({ length: this.random.below(most + 1) }, () => this.random.below(300))
  }

  /** @returns {Promise<Tracked>} one that is open; a new one if none is */
  async some() {
    if (this.tracked.length > 0 && this.random.below(4) > 0) {
      return /** @type {Tracked} */ (this.tracked[this.random.below(this.tracked.length)])
    }
    const checkpointBytes = this.random.below(3) * 60000
    const session = await this.model.createSession({ checkpointBytes })
    return this.#track(session, [])
  }

  /** @param {Session} session @param {number[]} ids */
  #track(session, ids) {
    const tracked = { session, ids: [...ids] }
    this.tracked.push(tracked)
    return tracked
  }

  /** One random action. */
  async act() {
    const one = await this.some()
    const actions = [
      this.append,
      this.append,
      this.generate,
      this.fork,
      this.snapshot,
      this.restore,
    ]
    actions.push(
      this.rewind,
      this.edit,
      this.save,
      this.together,
      this.abort,
      this.look,
      this.close,
    )
    const action = actions[this.random.below(actions.length)]
    await action?.call(this, one)
  }

  /** @param {Tracked} one */
  async append(one) {
    const ids = this.ids(this.random.below(5) ? 20 : 150)
    one.ids.push(...ids)
    if (ids.length > 0) await one.session.append(ids)
  }

  options() {
    return {
      seed: this.random.below(100),
      maxTokens: 1 + this.random.below(12),
      temperature: 1.5,
      stopTokens: [],
      noRepeatNgram: this.random.below(4),
    }
  }

  /** @param {Tracked} one */
  async generate(one) {
    if (one.ids.length === 0) one.ids.push(1)
    const leaveAt = this.random.below(14)
    let count = 0
    for await (const id of one.session.generateIds(this.options())) {
      one.ids.push(id)
      if (++count === leaveAt) break
    }
  }

  /** @param {Tracked} one */
  async together(one) {
    const all = this.tracked.filter((other) => other === one || this.random.below(2))
    for (const { ids } of all) if (ids.length === 0) ids.push(1)
    const sessions = all.map(({ session }) => session)
    const leaveAt = this.random.below(30)
    let count = 0
    for await (const _ of this.model.generateTogether(sessions, this.options())) {
      if (++count === leaveAt) break
    }
    for (const { session, ids } of all) {
      const now = [...(await session.ids())]
      assert.deepEqual(now.slice(0, ids.length), ids)
      ids.push(...now.slice(ids.length))
    }
  }

  /** @param {Tracked} one */
  async fork(one) {
    this.#track(await one.session.fork(), one.ids)
  }

  /** @param {Tracked} one */
  async snapshot(one) {
    this.snapshots.push({ snapshot: await one.session.snapshot(), ids: [...one.ids] })
  }

  /** @param {Tracked} one */
  async restore(one) {
    const kept = this.snapshots[this.random.below(this.snapshots.length + 1)]
    if (!kept) return
    await one.session.restore(kept.snapshot)
    one.ids = [...kept.ids]
  }

  /** @param {Tracked} one */
  async rewind(one) {
    const position = this.random.below(one.ids.length + 1)
    await one.session.rewind(position)
    one.ids.length = position
  }

  /** @param {Tracked} one */
  async edit(one) {
    const end = this.random.below(one.ids.length + 1)
    const start = this.random.below(end + 1)
    const ids = this.ids(10)
    await one.session.edit(start, end, ids)
    one.ids.splice(start, end - start, ...ids)
  }

  /** @param {Tracked} one */
  async save(one) {
    this.#track(await this.model.loadSession(await one.session.save()), one.ids)
  }

  /** Stopped at some moment: the text is as it was. @param {Tracked} one */
  async abort(one) {
    const controller = new AbortController()
    const { signal } = controller
    const long = Array.from({ length: 3000 }, (_, i) => i % 300)
    const calls = [
      () => one.session.append(long, { signal }),
      () => one.session.edit(0, one.ids.length, long, { signal }),
      () => one.session.score(long, { signal }),
    ]
    const call = calls[this.random.below(calls.length)]?.()
    // What is begun meanwhile is refused.
    const meanwhile = one.session.append([1]).catch((error) => {
      assert.equal(/** @type {{ code?: string }} */ (error).code, 'busy')
    })
    setTimeout(() => controller.abort(REASON), this.random.below(3))
    await assert.rejects(/** @type {Promise<unknown>} */ (call), REASON)
    await meanwhile
  }

  /** @param {Tracked} one */
  async look(one) {
    assert.equal(one.session.position, one.ids.length)
    assert.deepEqual([...(await one.session.ids())], one.ids)
    if (one.ids.length > 0) await one.session.score(this.ids(5))
  }

  /** @param {Tracked} one */
  async close(one) {
    await one.session.close()
    this.tracked = this.tracked.filter((other) => other !== one)
    await assert.rejects(one.session.ids(), { code: 'closed' })
  }

  /** Each session against one that has read its ids from the beginning. */
  async check() {
    for (const { session, ids } of this.tracked) {
      assert.deepEqual([...(await session.ids())], ids)
      if (ids.length === 0) continue
      const fresh = await this.model.createSession({ checkpointBytes: 0 })
      await fresh.append(ids)
      assert.deepEqual(await session.logits(), await fresh.logits())
      await fresh.close()
    }
    for (const { session } of this.tracked) await session.close()
    for (const { snapshot } of this.snapshots) await snapshot.close()
  }
}

for (const inline of [false, true]) {
  test(`${inline ? 'inline' : 'worker'}: ${SEQUENCES} sequences, seed ${SEED}`, {
    timeout: 240000,
  }, async () => {
    const random = seeded(SEED + Number(inline))
    const model = await BiMamba.load(path, { inline })
    const known = await model.createSession({ seed: 1 })
    await known.append([1, 2, 3])
    let memory = 0
    for (let i = 0; i < SEQUENCES; i++) {
      const sequence = new Sequence(model, random)
      for (let calls = 2 + random.below(14); calls > 0; calls--) await sequence.act()
      await sequence.check()
      // The most that is open at a time is reached early.
      if (i === SEQUENCES / 2) memory = await engineBytes(model)
    }
    assert.ok((await engineBytes(model)) <= 1.5 * memory, 'the memory grows')
    const { sessions, snapshots, keptBytes } = await model.memory()
    assert.deepEqual(
      { sessions, snapshots, keptBytes },
      { sessions: 1, snapshots: 0, keptBytes: 0 },
    )
    // A session that nobody touched.
    assert.deepEqual([...(await known.ids())], [1, 2, 3])
    await model.close()
  })
}

/** @param {BiMamba} model @returns {Promise<number>} of a session that is made now; what is free is used again */
async function engineBytes(model) {
  const sessions = []
  for (let i = 0; i < 20; i++) sessions.push(await model.createSession())
  const { engineBytes } = await model.memory()
  for (const session of sessions) await session.close()
  return engineBytes
}
