/** Two texts, the lines that differ marked in the newer one. Loaded when it is opened. */

import { unifiedMergeView } from "@codemirror/merge";
import { EditorState } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { useEffect, useRef } from "preact/hooks";

import { yamlText } from "../../parts/yamlText.ts";

/** Show `after` with what was removed from `before`; long equal parts are folded. */
export function TextDiff({ before, after }: { before: string; after: string }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const root = place.current!.shadowRoot ?? place.current!.attachShadow({ mode: "open" });
    const state = EditorState.create({
      doc: after,
      extensions: [
        yamlText, EditorState.readOnly.of(true), EditorView.contentAttributes.of({ "aria-label": "Text of the newer revision" }),
        unifiedMergeView({ original: before, mergeControls: false, collapseUnchanged: {} }),
      ],
    });
    const view = new EditorView({ state, root, parent: root });
    return () => view.destroy();
  }, [before, after]);
  return <div class="diff" ref={place} />;
}
