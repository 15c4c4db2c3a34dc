/** Asks for the API key, which is kept for this tab alone. */

import { useEffect, useRef, useState } from "preact/hooks";

import { focused } from "../parts/focus.ts";
import { key, keyEntered, keyWanted, useKey } from "../api/client.ts";

/** The field that a person wrote in last. */
let lastWritten: HTMLElement | null = null;
document.addEventListener("focusin", () => {
  const found = focused();
  if (found?.matches("input, textarea, select, [contenteditable=true]") && !found.closest("dialog")) lastWritten = found;
});

/** The dialog. It opens when the server refuses a request without a valid key. */
export function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const [text, setText] = useState("");
  // The button that opened it disappears with the notice around it, so the place before that is remembered, too.
  useEffect(() => {
    const before = focused();
    const written = lastWritten;
    dialog.current?.showModal();
    return () => (before?.isConnected && !before.closest(".notice") ? before : written?.isConnected ? written : document.getElementById("main"))?.focus();
  }, []);
  return (
    <dialog class="dialog" ref={dialog} aria-labelledby="key-title" onClose={() => { keyEntered.value = false; keyWanted.value = false; }}>
      <form method="dialog" onSubmit={(event) => { event.preventDefault(); if (text.trim()) useKey(text.trim()); }}>
        <h2 id="key-title">This server wants an API key</h2>
        <p class="quiet">
          {key.value ? "The server does not accept the key of this tab." : "A key with the role read shows the server; admin also changes it."}
          {" "}The page keeps a key until the tab is closed.
        </p>
        <label class="field">
          <span>API key</span>
          <input class="input" type="password" autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <p class="actions">
          <button class="button main" disabled={!text.trim()}>Use this key</button>
          <button class="button" type="button" onClick={() => dialog.current?.close()}>Cancel</button>
        </p>
      </form>
    </dialog>
  );
}
