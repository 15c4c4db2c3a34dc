/** Markdown of a text that may grow: what further text cannot change is rendered once, and the rest again. */

import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";

import { copy } from "../../parts/clipboard.ts";
import { START, step } from "./blocks.ts";
import type { Block, Reading, Step } from "./blocks.ts";
import { markdown, sanitized } from "./markdown.ts";

interface Shown {
  text: string;
  complete: boolean;
  settled: Block[];
  last: Pick<Step, "open" | "caughtUp"> & Reading;
}

const NOTHING: Shown = { text: "", complete: false, settled: [], last: { ...START, open: [], caughtUp: true } };
/** Rendering the open part again may take one part in five of the time. */
const PAUSE = 4;
const FRAME = 16;
/** A window that took longer, in milliseconds, is hostile: the rest of its text stays plain. */
const TOO_LONG = 120;

/** Show a text. One window is read in each frame, so a long text appears from its beginning and blocks nothing. */
export function Markdown({ text, growing = false }: { text: string; growing?: boolean }) {
  const kept = useRef(NOTHING);
  const due = useRef(0);
  const [, again] = useState(0);

  let wait = 0;
  let shown = kept.current;
  if (!text.startsWith(shown.text.slice(0, shown.last.place))) shown = NOTHING;
  if (shown.text !== text || shown.complete === growing || !shown.last.caughtUp) {
    const now = performance.now();
    if (growing && now < due.current) wait = due.current - now;
    else {
      const read = step(markdown, text, shown.last, !growing);
      const took = performance.now() - now;
      const last = { ...read, elements: took > TOO_LONG ? Infinity : read.elements, settled: read.settled.map(clean), open: read.open.map(clean) };
      shown = { text, complete: !growing, settled: last.settled.length ? [...shown.settled, ...last.settled] : shown.settled, last };
      due.current = now + (PAUSE + 1) * (performance.now() - now);
      if (!last.caughtUp) wait = Math.max(FRAME, performance.now() - now);
    }
  }
  kept.current = shown;
  useEffect(() => {
    if (!wait) return;
    const timer = setTimeout(() => again((count) => count + 1), wait);
    return () => clearTimeout(timer);
  });
  const { settled, last } = shown;
  return (
    <div class="markdown">
      {/* One list, so that a block which settles stays the same element: a new one has no height for a frame. */}
      {[...settled, ...last.open].map((block, index) => <BlockView key={index} block={block} settled={index < settled.length || !growing} />)}
    </div>
  );
}

function clean(block: Block): Block {
  return block.kind === "html" ? { kind: "html", content: sanitized(block.content) } : block;
}

interface ViewProps {
  block: Block;
  settled: boolean;
}

const BlockView = memo(
  function BlockView({ block, settled }: ViewProps) {
    const place = useRef<HTMLDivElement>(null);
    useEffect(() => {
      if (settled) for (const pre of place.current?.querySelectorAll("pre") ?? []) addCopy(pre);
    }, [block.content, settled]);
    if (block.kind === "plain") return <div class="plain-text">{block.content}</div>;
    return <div ref={place} dangerouslySetInnerHTML={{ __html: block.content }} />;
  },
  (before, after) => before.block.content === after.block.content && before.block.kind === after.block.kind && before.settled === after.settled,
);

function addCopy(pre: HTMLPreElement): void {
  if (pre.querySelector("button")) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button plain small copy";
  button.textContent = "Copy";
  button.addEventListener("click", () => {
    void copy(pre.querySelector("code")?.textContent ?? "").then((done) => {
      button.textContent = done ? "Copied" : "Not copied";
    });
  });
  pre.append(button);
}
