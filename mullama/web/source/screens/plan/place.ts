/** The place of the cursor in the manifest, from the syntax tree of its YAML. */

import { yamlLanguage } from "@codemirror/lang-yaml";
import type { SyntaxNode, Tree } from "@lezer/common";

import type { Path } from "./schemaFields.ts";

/** A stand-in for the word at the cursor: with it, a half-written line is complete YAML. */
const STAND_IN = "xcursorx";

/** The place of the cursor. */
export interface Cursor {
  /** A key of a map that is being written, or a value. */
  wants: "key" | "value";
  /** The path of the map of a key, or the path of the value. */
  path: Path;
  /** The keys that the map has already. */
  taken: Set<string>;
  /** Where the word at the cursor begins. */
  from: number;
}

/** Return the places of the cursor: an item of a list may be a value or the first key of a map. */
export function cursors(text: string, position: number): Cursor[] {
  const line = text.slice(text.lastIndexOf("\n", position - 1) + 1, position);
  if (/(^|\s)#/.test(line)) return [];
  const from = position - (/[^\s,[\]{}"']*$/.exec(line)?.[0].length ?? 0);
  const before = /[^,[\]{}]*$/.exec(text.slice(position - line.length, from))![0];
  if (/\S:\s+(\S.*)?$/.test(before)) return read(text, from, position, "value");
  const item = /[[,]\s*$/.test(line.slice(0, line.length - (position - from)));
  if (/^\s*(-\s+)+$/.test(before) || (before.trim() === "" && item)) {
    return [...read(text, from, position, "key"), ...read(text, from, position, "value", item ? "," : "")];
  }
  return before.trim() === "" ? read(text, from, position, "key") : [];
}

/** `end`: what ends a value where the list is not closed yet. */
function read(text: string, from: number, position: number, wants: Cursor["wants"], end = ""): Cursor[] {
  const rest = /^[^\s:,[\]{}]*:?/.exec(text.slice(position))![0].length;
  const probe = text.slice(0, from) + STAND_IN + (wants === "key" ? ": 0" : end) + text.slice(position + (wants === "key" ? rest : 0));
  const tree = yamlLanguage.parser.parse(probe);
  const node = tree.resolveInner(from + 1, 0);
  if (node.name !== "Literal" || !probe.slice(node.from, node.to).startsWith(STAND_IN)) return [];
  const key = node.parent?.name === "Key" ? node.parent : null;
  if ((key !== null) !== (wants === "key")) return [];
  const map = key?.parent?.parent ?? null;
  const taken = new Set(map ? keys(map, probe) : []);
  taken.delete(STAND_IN);
  return [{ wants, path: pathOf(map ?? node, probe), taken, from }];
}

/** Return the path of a node: the keys of the pairs and the lists around it. */
export function pathOf(node: SyntaxNode, text: string): Path {
  const path: Path = [];
  for (let one: SyntaxNode | null = node; one; one = one.parent) {
    if (one.name === "Pair" && one !== node) path.unshift(keyOf(one, text));
    if (one.name === "Item" || (one.parent?.name === "FlowSequence" && one.name !== "[" && one.name !== "]")) path.unshift(null);
  }
  return path;
}

/** Return the key of a field at a position with its path, for help; null elsewhere. */
export function fieldAt(tree: Tree, text: string, position: number): { path: Path; from: number; to: number } | null {
  for (let one: SyntaxNode | null = tree.resolveInner(position, 0); one; one = one.parent) {
    if (one.name === "Key" && one.parent) {
      return { path: [...pathOf(one.parent, text), keyOf(one.parent, text)], from: one.from, to: one.to };
    }
  }
  return null;
}

function keyOf(pair: SyntaxNode, text: string): string {
  const key = pair.getChild("Key");
  return key ? text.slice(key.from, key.to).trim().replace(/^(["'])(.*)\1$/, "$2") : "";
}

function keys(map: SyntaxNode, text: string): string[] {
  return map.getChildren("Pair").map((pair) => keyOf(pair, text));
}

function mapOf(node: SyntaxNode): SyntaxNode | null {
  return node.getChild("BlockMapping") ?? node.getChild("FlowMapping");
}

/** Return the keys of the map at a path, such as the names of the models. */
export function namesAt(tree: Tree, text: string, path: string[]): string[] {
  const top = tree.topNode.firstChild;
  let map = top && mapOf(top);
  for (const step of path) {
    const pair: SyntaxNode | undefined = map?.getChildren("Pair").find((one) => keyOf(one, text) === step);
    map = pair ? mapOf(pair) : null;
  }
  return map ? keys(map, text) : [];
}
