/** Streamed Markdown: what further text cannot change is rendered once, and only the last block again. */

import { memo } from "preact/compat";
import { useEffect, useRef } from "preact/hooks";

import { html, settled } from "./markdown.ts";

interface Rendered {
  source: string;
  blocks: string[];
}

/** Show a text that may grow. */
export function Markdown({ text }: { text: string }) {
  const kept = useRef<Rendered>({ source: "", blocks: [] });
  if (!text.startsWith(kept.current.source)) kept.current = { source: "", blocks: [] };
  const tail = text.slice(kept.current.source.length);
  const place = settled(tail);
  if (place > 0) {
    kept.current = { source: kept.current.source + tail.slice(0, place), blocks: [...kept.current.blocks, html(tail.slice(0, place))] };
  }
  return (
    <div class="markdown">
      {kept.current.blocks.map((block, index) => <Block key={index} block={block} />)}
      <Block block={html(tail.slice(place))} />
    </div>
  );
}

const Block = memo(function Block({ block }: { block: string }) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    for (const pre of place.current?.querySelectorAll("pre") ?? []) addCopy(pre);
  }, [block]);
  return <div ref={place} dangerouslySetInnerHTML={{ __html: block }} />;
});

function addCopy(pre: HTMLPreElement): void {
  const button = document.createElement("button");
  button.className = "button plain small copy";
  button.textContent = "Copy";
  button.addEventListener("click", () => {
    void navigator.clipboard.writeText(pre.querySelector("code")?.textContent ?? "").then(() => {
      button.textContent = "Copied";
    });
  });
  pre.append(button);
}
