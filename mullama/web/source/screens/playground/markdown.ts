/** Text of a model as HTML. The text is hostile by assumption: no HTML of it is kept, and the result is sanitized. */

import DOMPurify from "dompurify";
import highlighter from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import MarkdownIt from "markdown-it";

const LANGUAGES = { bash, c, css, diff, go, java, javascript, json, python, rust, sql, typescript, xml, yaml };
for (const [name, language] of Object.entries(LANGUAGES)) highlighter.registerLanguage(name, language);

/** A code block longer than this is shown without colours: colouring takes time for each character. */
const MOST_COLOURED = 20_000;
/** Marks that change the direction of text can show other code than a reader would run. */
const DIRECTION_MARKS = /[\u202a-\u202e\u2066-\u2069]/g;

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false, highlight: coloured });

function coloured(code: string, language: string): string {
  if (!highlighter.getLanguage(language) || code.length > MOST_COLOURED) return "";
  return highlighter.highlight(code, { language, ignoreIllegals: true }).value;
}

const TAGS = [
  "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
  "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
];

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** Return the HTML of a piece of Markdown. */
export function html(source: string): string {
  const text = source.replace(DIRECTION_MARKS, (mark) => `\\u${mark.charCodeAt(0).toString(16)}`);
  return DOMPurify.sanitize(markdown.render(text), { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "class", "start", "align"] });
}

/** Return the length of the beginning of a text that further text cannot change: all but its last block. */
export function settled(source: string): number {
  const blocks = markdown.parse(source, {}).filter((token) => token.level === 0 && token.map && token.nesting >= 0);
  const last = blocks.at(-1)?.map?.[0] ?? 0;
  let place = 0;
  for (let line = 0; line < last; line += 1) place = source.indexOf("\n", place) + 1;
  return place;
}
