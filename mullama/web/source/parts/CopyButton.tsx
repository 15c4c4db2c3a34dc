/** A button that copies a text and says so. */

import { useState } from "preact/hooks";

import { copy } from "./clipboard.ts";

const SHOWN = 2000; // milliseconds

interface Props {
  text: () => string;
  label?: string;
  /** Further classes of the button. */
  kind?: string;
  disabled?: boolean;
}

/** Copy the text that `text` returns. */
export function CopyButton({ text, label = "Copy", kind = "", disabled = false }: Props) {
  const [said, setSaid] = useState("");
  const run = async () => {
    setSaid((await copy(text())) ? "Copied" : "Not copied");
    setTimeout(() => setSaid(""), SHOWN);
  };
  return <button class={`button ${kind}`} type="button" disabled={disabled} onClick={() => void run()} aria-live="polite">{said || label}</button>;
}
