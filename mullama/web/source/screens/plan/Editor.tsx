/**
 * The editor of the manifest. It stands in a shadow tree, where CodeMirror adopts style sheets: the policy of the page
 * allows no style element.
 */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, setDiagnostics } from "@codemirror/lint";
import { unifiedMergeView } from "@codemirror/merge";
import { search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "preact/hooks";

import type { Mistake } from "../../api/types.ts";

interface Props {
  text: string;
  original: string;
  changes: boolean;
  mistakes: Mistake[];
  change: (text: string) => void;
}

const LOOK = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "var(--surface)", fontSize: "0.8125rem", height: "100%" },
  ".cm-content": { fontFamily: "var(--mono)", caretColor: "var(--text)" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--text-quiet)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--raised) 60%, transparent)" },
  "&.cm-focused": { outline: "none" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "var(--accent-ground) !important" },
  ".cm-panels": { backgroundColor: "var(--raised)", color: "var(--text)" },
});
const COLOURS = HighlightStyle.define([
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--accent)" },
  { tag: tags.string, color: "var(--good)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--warn)" },
  { tag: tags.comment, color: "var(--text-quiet)", fontStyle: "italic" },
]);

/** Edit a text. Tab indents; Escape and then Tab leaves the editor. */
export function Editor({ text, original, changes, mistakes, change }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const merging = useRef(new Compartment());
  const report = useRef(change);
  report.current = change;

  useEffect(() => {
    const root = place.current!.attachShadow({ mode: "open" });
    const state = EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(), history(), drawSelection(), highlightActiveLine(), yaml(), lintGutter(), search(), LOOK,
        syntaxHighlighting(COLOURS), EditorState.tabSize.of(2), EditorView.lineWrapping,
        keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ "aria-label": "Text of the manifest" }),
        EditorView.updateListener.of((update) => { if (update.docChanged) report.current(update.state.doc.toString()); }),
        merging.current.of([]),
      ],
    });
    view.current = new EditorView({ state, root, parent: root });
    return () => view.current?.destroy();
  }, []);

  useEffect(() => {
    const now = view.current;
    if (now && now.state.doc.toString() !== text) {
      now.dispatch({ changes: { from: 0, to: now.state.doc.length, insert: text } });
    }
  }, [text]);

  useEffect(() => {
    const shown = changes ? unifiedMergeView({ original, mergeControls: false }) : [];
    view.current?.dispatch({ effects: merging.current.reconfigure(shown) });
  }, [changes, original]);

  useEffect(() => {
    const now = view.current;
    if (!now) return;
    const found = mistakes.filter((one) => one.line !== null && one.line <= now.state.doc.lines).map((one) => {
      const line = now.state.doc.line(one.line!);
      const from = Math.min(line.from + Math.max(0, (one.column ?? 1) - 1), line.to);
      return { from, to: line.to, severity: "error" as const, message: [one.message, one.hint].filter(Boolean).join("\n") };
    });
    now.dispatch(setDiagnostics(now.state, found));
  }, [mistakes]);

  return <div class="editor" ref={place} />;
}
