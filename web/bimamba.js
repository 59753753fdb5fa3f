/**
 * The way from this app to the package, and the only one.
 *
 * Owns the address of the package. `npm run web:build` puts the package into a folder of its own, and writes that address here.
 */

export * from '../js/index.js'
