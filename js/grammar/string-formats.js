/**
 * What `format` of JSON Schema means for a string, as regular expressions.
 *
 * Owns those formats that can be said so. Each allows a part of what RFC 3339, 4122 or 5321 does, and nothing else: days go to 28, which every month has.
 */

const DATE = '\\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\\d|2[0-8])'
const TIME =
  '(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)'
const BYTE = '(?:\\d|[1-9]\\d|1\\d\\d|2[0-4]\\d|25[0-5])'
const LABEL = '[A-Za-z\\d](?:[A-Za-z\\d\\-]{0,30}[A-Za-z\\d])?'

/** @type {Record<string, string>} */
export const STRING_FORMATS = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE}T${TIME}`,
  uuid: '[\\da-f]{8}-[\\da-f]{4}-[\\da-f]{4}-[\\da-f]{4}-[\\da-f]{12}',
  ipv4: `${BYTE}(?:\\.${BYTE}){3}`,
  email: `[A-Za-z\\d_+\\-]{1,30}(?:\\.[A-Za-z\\d_+\\-]{1,30}){0,3}@${LABEL}(?:\\.${LABEL}){1,4}`,
}
