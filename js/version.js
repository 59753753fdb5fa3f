/**
 * The package's version, once for code that runs where package.json cannot be read (a page, a worker).
 * A test holds it equal to package.json.
 */
export const VERSION = '0.1.0'
