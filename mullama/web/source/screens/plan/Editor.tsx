/**
 * The editor of the manifest. It stands in a shadow tree, where CodeMirror adopts style sheets: the policy of the page
 * allows no style element.
 */

import { acceptCompletion, autocompletion } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { unifiedMergeView } from "@codemirror/merge";
import { search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, Prec } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { useEffect, useRef } from "preact/hooks";

import { ask } from "../../api/client.ts";
import type { Mistake } from "../../api/types.ts";
import { yamlText } from "../../parts/yamlText.ts";
import { completer, fieldHelp } from "./completion.ts";
import type { Schema } from "./schemaFields.ts";

/** A place to go to, counted from 1. A new value leads there again. */
export interface Place {
  line: number;
  column: number;
}

interface Props {
  text: string;
  /** Changes when `text` was replaced by other means than writing in the editor. */
  version: number;
  original: string;
  changes: boolean;
  mistakes: Mistake[];
  /** The path of the file in the editor, as mistakes name it. */
  path: string;
  place: Place | null;
  change: (text: string) => void;
}

let schema: Schema | null = null;

/** Load the schema once; without it the editor works, and completes nothing. */
async function loadSchema(): Promise<void> {
  schema ??= await ask<Schema>("ui/schema.json").catch(() => null);
}

/** Edit a text. Tab indents; Escape and then Tab leaves the editor. */
export function Editor({ text, version, original, changes, mistakes, path, place: target, change }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const merging = useRef(new Compartment());
  const report = useRef(change);
  report.current = change;

  useEffect(() => {
    void loadSchema();
    const root = place.current!.attachShadow({ mode: "open" });
    const state = EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(), history(), drawSelection(), highlightActiveLine(), lintGutter(), search(), yamlText,
        text.includes("\r\n") ? EditorState.lineSeparator.of("\r\n") : [],
        autocompletion({ override: [completer(() => schema)], icons: false, maxRenderedOptions: 60 }), fieldHelp(() => schema),
        Prec.high(keymap.of([{ key: "Tab", run: acceptCompletion }])),
        keymap.of([...defaultKeymap, ...historyKeymap, ...searchKeymap, ...lintKeymap, indentWithTab]),
        EditorView.contentAttributes.of({ tabindex: "0", "aria-label": "Text of the manifest", "aria-description": "Tab indents. Escape and then Tab leaves the editor." }),
        EditorView.updateListener.of((update) => { if (update.docChanged) report.current(update.state.sliceDoc()); }),
        merging.current.of([]),
      ],
    });
    view.current = new EditorView({ state, root, parent: root });
    return () => view.current?.destroy();
  }, []);

  useEffect(() => {
    const now = view.current;
    // Never for a text that was written here: it may be older than the one in the editor.
    if (now && now.state.sliceDoc() !== text) {
      now.dispatch({ changes: { from: 0, to: now.state.doc.length, insert: now.state.toText(text) } });
    }
  }, [version]);

  useEffect(() => {
    const shown = changes ? unifiedMergeView({ original, mergeControls: false }) : [];
    view.current?.dispatch({ effects: merging.current.reconfigure(shown) });
  }, [changes, original]);

  useEffect(() => {
    const now = view.current;
    if (!now) return;
    const here = mistakes.filter((one) => one.line !== null && one.line <= now.state.doc.lines && (one.file === null || one.file === path));
    const found = here.map((one) => {
      const line = now.state.doc.line(one.line!);
      const from = position(now.state, one.line!, one.column ?? 1);
      return { from, to: line.to, severity: "error" as const, message: [one.message, one.hint].filter(Boolean).join("\n") };
    });
    now.dispatch(setDiagnostics(now.state, found));
  }, [mistakes]);

  useEffect(() => {
    const now = view.current;
    if (!now || !target) return;
    const anchor = position(now.state, target.line, target.column);
    now.dispatch({ selection: { anchor }, effects: EditorView.scrollIntoView(anchor, { y: "center" }) });
    now.focus();
  }, [target]);

  return <div class="editor" ref={place} />;
}

function position(state: EditorState, number: number, column: number): number {
  const line = state.doc.line(Math.min(number, state.doc.lines));
  return Math.min(line.from + Math.max(0, column - 1), line.to);
}
