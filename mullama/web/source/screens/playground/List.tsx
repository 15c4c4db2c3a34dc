/** The conversations of this browser, with export and import. */

import { useRef, useState } from "preact/hooks";

import { download } from "../../parts/download.ts";
import * as store from "../../state/conversations.ts";
import type { Conversation } from "../../state/conversations.ts";

const FILE = "mullama-conversations.json";

interface Props {
  current: Conversation;
  open: (conversation: Conversation) => void;
  create: () => void;
}

/** The list, the last changed first. */
export function List({ current, open, create }: Props) {
  const chooser = useRef<HTMLInputElement>(null);
  const [refusal, setRefusal] = useState("");
  const take = async (file: File | undefined) => {
    if (!file) return;
    try {
      for (const one of store.parsed(await file.text())) await store.save(one);
      setRefusal("");
    } catch (error) {
      setRefusal(`${file.name} was not imported: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
  return (
    <aside class="list" aria-label="Conversations">
      <button class="button" onClick={create}>New conversation</button>
      <ul>
        {store.conversations.value.map((one) => (
          <li key={one.id}>
            <button class="entry" aria-current={one.id === current.id} onClick={() => open(one)}>{one.title}</button>
            <button class="button plain small" aria-label={`Delete ${one.title}`} onClick={() => { void store.remove(one.id); if (one.id === current.id) create(); }}>×</button>
          </li>
        ))}
      </ul>
      {refusal && <p class="notice" role="alert">{refusal}</p>}
      <p class="actions">
        <button class="button plain small" disabled={!store.conversations.value.length} onClick={() => download(store.exported(store.conversations.value), FILE, "application/json")}>Export</button>
        <button class="button plain small" onClick={() => chooser.current?.click()}>Import</button>
        <input ref={chooser} type="file" accept="application/json,.json" hidden onChange={(event) => { void take(event.currentTarget.files?.[0]); event.currentTarget.value = ""; }} />
      </p>
    </aside>
  );
}
