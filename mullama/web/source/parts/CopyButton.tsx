/** A button that copies a text and says so. */

import { useState } from "preact/hooks";

import { copy } from "./clipboard.ts";

const SHOWN = 2000; // milliseconds

/** Copy the text that `text` returns. */
export function CopyButton({ text, label = "Copy" }: { text: () => string; label?: string }) {
  const [said, setSaid] = useState("");
  const run = async () => {
    setSaid((await copy(text())) ? "Copied" : "Not copied");
    setTimeout(() => setSaid(""), SHOWN);
  };
  return <button class="button" type="button" onClick={() => void run()} aria-live="polite">{said || label}</button>;
}
