/**
 * The script of a plain page: it knows the package by a relative address only, as without a bundler, and
 * leaves it where the tests' own lines can reach it.
 */

// @ts-expect-error: an address on the test's server, not a path in this checkout
import { BiMamba, BmError, SessionStore } from '../package/dist/bimamba.js'

Object.assign(globalThis, { BiMamba, BmError, SessionStore })
