/** Text of other people as it is shown: characters that a reader cannot see get a visible form. */

/** Marks that change the direction of text can show other words than a reader would copy, others hide in it. */
const DIRECTION = /[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
/** Control characters except tabs and line feeds, such as the escape that begins a sequence for terminals. */
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f]/g;

/** Return the text with its lines ended by one character, and a visible form of marks and control characters. */
export function visible(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(DIRECTION, escaped).replace(CONTROL, pictured);
}

function escaped(mark: string): string {
  return `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function pictured(control: string): string {
  const code = control.charCodeAt(0);
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "\u2421" : escaped(control);
}

/** Return a text with at most `most` characters, and the number of characters that are left out. */
export function cut(text: string, most: number): [string, number] {
  if (text.length <= most) return [text, 0];
  const end = splitsPair(text, most) ? most - 1 : most;
  return [text.slice(0, end), text.length - end];
}

/** Return true if the place is inside a character of two code units. */
export function splitsPair(text: string, place: number): boolean {
  const before = text.charCodeAt(place - 1);
  return before >= 0xd800 && before < 0xdc00;
}
