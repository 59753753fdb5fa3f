/**
 * The way from this app to the package, and the only one.
 *
 * Owns the address of the package. Another app would write `bimamba` here.
 */

export * from '../js/index.js'
