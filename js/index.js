/**
 * The package's public names. Everything else is private and may change.
 */

export { BmError } from './errors.js'
export { BiMamba } from './model.js'
export { Session, Snapshot } from './session.js'
export { SessionStore } from './session-store.js'
export { VERSION } from './version.js'

/** @typedef {import('./errors.js').BmErrorCode} BmErrorCode */
/** @typedef {import('./settings.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./settings.js').LoadOptions} LoadOptions */
/** @typedef {import('./settings.js').Progress} Progress */
/** @typedef {import('./source.js').ModelSource} ModelSource */
/** @typedef {import('./engine.js').ModelInfo} ModelInfo */
/** @typedef {import('./engine.js').MemoryUse} MemoryUse */
/** @typedef {import('./startup.js').FileDescription} FileDescription */
/** @typedef {import('./benchmark-settings.js').BenchmarkOptions} BenchmarkOptions */
/** @typedef {import('./bench/benchmark.js').Benchmark} Benchmark */
/** @typedef {import('./model-cache.js').CachedModel} CachedModel */
/** @typedef {import('./format.js').ModelConfig} ModelConfig */
/** @typedef {import('./generate.js').Stats} Stats */
/** @typedef {import('./generate.js').Scored} Scored */
/** @typedef {import('./loglikelihood.js').Loglikelihood} Loglikelihood */
/** @typedef {import('./chat-template.js').ChatMessage} ChatMessage */
/** @typedef {import('./generate.js').Alternative} Alternative */
/** @typedef {import('./session.js').Token} Token */
/** @typedef {import('./session-settings.js').CreateSessionOptions} CreateSessionOptions */
/** @typedef {import('./session-settings.js').SessionGenerateOptions} SessionGenerateOptions */
/** @typedef {import('./settings.js').LogitBias} LogitBias */
/** @typedef {import('./text-format.js').TextFormat} TextFormat */
/** @typedef {import('./session-store.js').KeptSession} KeptSession */
