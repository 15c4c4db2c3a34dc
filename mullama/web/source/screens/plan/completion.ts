/** Completion and help of the editor, from the JSON Schema and the names of the document. */

import type { Completion, CompletionContext, CompletionResult } from "@codemirror/autocomplete";
import { syntaxTree } from "@codemirror/language";
import type { EditorState } from "@codemirror/state";
import { hoverTooltip, type Tooltip } from "@codemirror/view";

import { cursors, fieldAt, namesAt } from "./place.ts";
import { at, fields, holdsMap, kind, type Path, type Schema, values } from "./schemaFields.ts";

/** Where a name of the document may stand, `*` for any key and `[]` for an item, and the maps that have the names. */
const REFERENCES: [RegExp, string[][]][] = [
  [/^routes\.[^.]+(\.to(\.\[\](\.model)?)?)?$/, [["models"]]],
  [/^routes\.[^.]+\.fallback\.\[\]$/, [["models"], ["routes"]]],
  [/^auth\.keys\.[^.]+\.models\.\[\]$/, [["models"], ["routes"]]],
  [/^groups\.[^.]+\.models\.\[\]$/, [["models"]]],
  [/^models\.[^.]+\.like$/, [["models"]]],
  [/^(models\.[^.]+|defaults)\.hardware$/, [["hardware", "profiles"]]],
  [/^moved\.\[\]\.to$/, [["models"], ["routes"], ["auth", "keys"]]],
];

/** Return the completion of a schema. */
export function completer(schema: () => Schema | null) {
  return (context: CompletionContext): CompletionResult | null => {
    const root = schema();
    if (!root) return null;
    const { state, pos, explicit } = context;
    const text = state.doc.toString();
    const places = cursors(text, pos);
    const options = places.flatMap((place) => (place.wants === "key" ? keys(root, place.path, place.taken) : written(root, place.path, state, text)));
    if (!options.length || (!explicit && places[0]!.from === pos)) return null;
    return { from: places[0]!.from, options, validFor: /^[^\s:,[\]{}]*$/ };
  };
}

function keys(root: Schema, path: Path, taken: Set<string>): Completion[] {
  return [...fields(path, root)].filter(([name]) => !taken.has(name)).map(([name, field]) => ({
    label: name,
    type: "property",
    detail: kind(field, root),
    apply: holdsMap(field, root) ? `${name}:` : `${name}: `,
    info: () => help(field, root),
  }));
}

function written(root: Schema, path: Path, state: EditorState, text: string): Completion[] {
  const place = path.map((step) => step ?? "[]").join(".");
  const names = REFERENCES.filter(([pattern]) => pattern.test(place)).flatMap(([, maps]) =>
    maps.flatMap((map) => namesAt(syntaxTree(state), text, map).map((name) => ({ label: name, type: "variable", detail: map.at(-1)!.replace(/s$/, ""), boost: 1 }))),
  );
  const own = place.split(".")[1];
  return [
    ...names.filter((one) => !place.endsWith(".like") || one.label !== own),
    ...values(path, root).map(({ text: label, note }) => ({ label, type: "enum", detail: note })),
  ];
}

/** Return the help for the field under the pointer. */
export function fieldHelp(schema: () => Schema | null) {
  return hoverTooltip((view, position): Tooltip | null => {
    const root = schema();
    const found = fieldAt(syntaxTree(view.state), view.state.doc.toString(), position);
    const field = root && found && at(found.path, root)[0];
    if (!root || !found || !field?.description) return null;
    return { pos: found.from, end: found.to, above: true, create: () => ({ dom: help(field, root) }) };
  });
}

/** Return the description of a field, what it takes, its default, and the cost of a change. */
function help(field: Schema, root: Schema): HTMLElement {
  const box = document.createElement("div");
  box.className = "cm-help";
  line(box, field.description ?? "");
  const facts = [
    kind(field, root),
    field.default !== undefined && `default ${JSON.stringify(field.default)}`,
    field["x-mullama-cost"] && `cost of a change: ${field["x-mullama-cost"]}`,
  ];
  line(box, facts.filter(Boolean).join(" · ")).className = "cm-facts";
  return box;
}

function line(box: HTMLElement, text: string): HTMLElement {
  const found = document.createElement("p");
  found.textContent = text;
  box.append(found);
  return found;
}
