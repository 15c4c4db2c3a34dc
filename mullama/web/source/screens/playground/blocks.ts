/**
 * Markdown in parts, so that a text that grows is read once and a hostile one costs little.
 *
 * A window of the text is parsed at a time. Its blocks at the top level, except the last one, cannot be changed by
 * further text: they are settled. A block that does not fit into a window, is nested deeply, or makes too many
 * elements is shown as plain text.
 */

import markdownIt from "markdown-it";
import type { MarkdownIt, Token } from "markdown-it";

import { splitsPair, visible } from "../../format/text.ts";

/** Characters that are parsed at a time, and those of a block of code, whose parts cost less. */
export const WINDOW = 16_000;
const CODE_WINDOW = 48_000;
const CODE = /^ {0,3}(`{3,}|~{3,})/;
/** Signs that make a window costly to parse. With more of them it is plain text at once: no text for people has so many. */
const MOST_BRACKETS = 1_000;
const MOST_LINES = 2_500;
/** Every row of a table has all columns, so its cost is the product. */
const MOST_COLUMNS = 100;
/** Elements of one block, and of one text; beyond them the rest is plain text. */
const MOST_OF_BLOCK = 5_000;
const MOST_OF_TEXT = 30_000;
/** Elements of a block beside those of its tokens: its frame, and a button. */
const FRAME = 2;
const DEEPEST = 40;

export interface Block {
  kind: "html" | "plain";
  content: string;
}

/** The state between two windows. */
export interface Reading {
  /** The characters of the text that are settled. */
  place: number;
  /** The first line of a block of code that a window cut, which the next window begins with. */
  fence: string;
  /** The elements of the settled blocks. */
  elements: number;
}

export interface Step extends Reading {
  settled: Block[];
  /** The blocks that further text can change. */
  open: Block[];
  /** False if the text has a further window. */
  caughtUp: boolean;
}

export const START: Reading = { place: 0, fence: "", elements: 0 };

/** Return a renderer. `highlight` returns the HTML of code, or an empty text to show it without colours. */
export function renderer(highlight: (code: string, language: string) => string): MarkdownIt {
  const markdown = markdownIt({ html: false, linkify: true, breaks: false, highlight });
  // A picture would be a request to another host: its address is shown as a link.
  markdown.renderer.rules.image = (tokens, index, options, environment, self) => {
    const token = tokens[index]!;
    const address = markdown.utils.escapeHtml(String(token.attrGet("src") ?? ""));
    const words = self.renderInlineAsText(token.children ?? [], options, environment);
    return `<a href="${address}">${markdown.utils.escapeHtml(words) || address} (picture)</a>`;
  };
  return markdown;
}

/** Read the next window of a text. The last block stays open unless `complete`. */
export function step(markdown: MarkdownIt, text: string, from: Reading, complete: boolean): Step {
  const rest = text.length - from.place;
  const code = from.fence !== "" || CODE.test(text.slice(from.place, from.place + 100));
  const most = code ? CODE_WINDOW : WINDOW;
  const cut = rest > most;
  let length = cut ? most : rest;
  if (cut && splitsPair(text, from.place + length)) length -= 1;
  const piece = text.slice(from.place, from.place + length);
  const after: Reading = { place: from.place + length, fence: "", elements: from.elements };
  const costly = !code && isCostly(piece);
  if (costly) after.elements += MOST_OF_BLOCK;
  if (costly || from.elements > MOST_OF_TEXT) {
    const plain: Block[] = piece ? [{ kind: "plain", content: visible(piece) }] : [];
    return cut || complete
      ? { ...after, settled: plain, open: [], caughtUp: !cut }
      : { ...from, settled: [], open: plain, caughtUp: true };
  }
  const source = visible(from.fence + piece);
  const groups = grouped(markdown.parse(source, {}));
  const lines = source.split("\n");
  const blocks = groups.map((group) => rendered(markdown, group, lines));
  if (!cut && complete) return { ...after, elements: from.elements + sum(groups), settled: blocks, open: [], caughtUp: true };
  if (groups.length > 1) {
    const last = groups.at(-1)!.first;
    const settled = groups.slice(0, -1);
    const place = from.place + lineStart(from.fence + piece, last) - from.fence.length;
    const read = { place, fence: "", elements: from.elements + sum(settled), settled: blocks.slice(0, -1) };
    return { ...read, open: cut ? [] : blocks.slice(-1), caughtUp: !cut };
  }
  if (!cut) return { ...from, settled: [], open: blocks, caughtUp: true };
  // One block fills the window: it is cut. The rest of code is a block of its own.
  const token = groups[0]?.tokens[0];
  if (token?.type === "fence") {
    return { ...after, fence: `${token.markup}${token.info}\n`, elements: from.elements + sum(groups), settled: blocks, open: [], caughtUp: false };
  }
  const elements = from.elements + sum(groups);
  return { ...after, elements, settled: [{ kind: "plain", content: visible(piece) }], open: [], caughtUp: false };
}

function isCostly(piece: string): boolean {
  return occurrences(piece, "[") > MOST_BRACKETS || occurrences(piece, "\n") > MOST_LINES || piece.split("\n").some((line) => occurrences(line, "|") > MOST_COLUMNS);
}

function occurrences(text: string, wanted: string): number {
  let found = 0;
  for (let place = text.indexOf(wanted); place >= 0; place = text.indexOf(wanted, place + 1)) found += 1;
  return found;
}

interface Group {
  tokens: Token[];
  /** The first line, and the line after the last. */
  first: number;
  end: number;
  elements: number;
  depth: number;
}

function grouped(tokens: Token[]): Group[] {
  const groups: Group[] = [];
  for (const token of tokens) {
    if (token.level === 0 && token.nesting >= 0) {
      groups.push({ tokens: [], first: token.map?.[0] ?? 0, end: token.map?.[1] ?? 0, elements: 0, depth: 0 });
    }
    const group = groups.at(-1)!;
    group.tokens.push(token);
    group.elements += 1 + (token.children?.length ?? 0);
    group.depth = Math.max(group.depth, token.level, ...(token.children?.length ? [deepest(token.children)] : []));
  }
  return groups;
}

function deepest(children: Token[]): number {
  let depth = 0;
  for (const child of children) if (child.level > depth) depth = child.level;
  return depth;
}

function rendered(markdown: MarkdownIt, group: Group, lines: string[]): Block {
  if (group.elements > MOST_OF_BLOCK || group.depth > DEEPEST) {
    return { kind: "plain", content: lines.slice(group.first, group.end).join("\n") };
  }
  return { kind: "html", content: markdown.renderer.render(group.tokens, markdown.options, {}) };
}

function sum(groups: Group[]): number {
  return groups.reduce((total, group) => total + FRAME + Math.min(group.elements, MOST_OF_BLOCK), 0);
}

function lineStart(text: string, line: number): number {
  let place = 0;
  for (let number = 0; number < line; number += 1) place = text.indexOf("\n", place) + 1;
  return place;
}
