/**
 * The journal of an evaluation: a line of JSON that says what is measured, and a line for each item that is done.
 *
 * Owns that file, and the rule that it is only gone on with by a run that measures the same: the same task, data, model, settings and version.
 * The idea: a report is computed from the journal's numbers alone, so a run that was interrupted ends with the report of one that was not.
 */

import { BmError } from '../index.js'
import { JsonFields } from './json-fields.js'
import { LineFile } from './line-file.js'

/** What must be the same. @typedef {Record<string, string | number>} JournalSubject */

/** What a model said of an item, by its continuations. @typedef {{ logprobs: number[], tokens: number[] }} ItemScores */

export class EvalJournal {
  #file
  /** @type {readonly ItemScores[]} of the items that were there, from the first one on */
  scores

  /** Use `EvalJournal.open`. @param {LineFile} file @param {ItemScores[]} scores */
  constructor(file, scores) {
    this.#file = file
    this.scores = scores
  }

  /**
   * @param {string} path made where it is not there
   * @param {JournalSubject} subject
   * @param {readonly number[]} counts continuations of each item
   * @returns {Promise<EvalJournal>} the caller closes it
   * @throws {BmError} `mismatch`: of something else; `argument`: damaged; `io`
   */
  static async open(path, subject, counts) {
    /** @type {ItemScores[]} */
    const scores = []
    let isNew = true
    /** @param {import('./line-file.js').Line} line */
    const take = ({ text, number }) => {
      const fields = JsonFields.parse(text, `${path} line ${number}`)
      if (isNew) compare(fields, subject, path)
      else if (scores.length < counts.length) {
        scores.push(readScores(fields, scores.length, Number(counts[scores.length])))
      }
      isNew = false
    }
    const head = JSON.stringify(subject)
    const file = await LineFile.open(path, take, head)
    if (isNew) await file.append(head)
    return new EvalJournal(file, scores)
  }

  /** @param {number} item @param {ItemScores} scores of the one that follows the last */
  async add(item, scores) {
    await this.#file.append(JSON.stringify({ item, ...scores }))
  }

  async close() {
    await this.#file.close()
  }
}

/** @param {JsonFields} fields @param {JournalSubject} subject @param {string} path */
function compare(fields, subject, path) {
  for (const [name, wanted] of Object.entries(subject)) {
    const found = fields.get(name)
    if (found === wanted) continue
    throw new BmError(
      'mismatch',
      `${path} is the journal of another run: ${name} ${JSON.stringify(found)}, want ${JSON.stringify(wanted)}; delete it, or give another --report`,
    )
  }
}

/** @param {JsonFields} fields @param {number} item @param {number} count @returns {ItemScores} */
function readScores(fields, item, count) {
  if (fields.get('item') !== item) throw fields.wrong('item', `${item}`)
  const [logprobs, tokens] = ['logprobs', 'tokens'].map((name) => {
    const values = fields.get(name)
    const isList = Array.isArray(values) && values.length === count
    if (isList && values.every((value) => Number.isFinite(value))) return values
    throw fields.wrong(name, `an array of ${count} numbers`)
  })
  return { logprobs: logprobs ?? [], tokens: tokens ?? [] }
}
