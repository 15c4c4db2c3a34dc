/** The conversations of this browser, with export and import. */

import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";

import { visible } from "../../format/text.ts";
import { download } from "../../parts/download.ts";
import { link, open } from "../../shell/router.ts";
import * as store from "../../state/conversationStore.ts";
import { exported, parsed } from "../../state/conversations.ts";
import type { Conversation } from "../../state/conversations.ts";
import { stopAll } from "./runs.ts";

export const EXPORT_NAME = "mullama-conversations.json";
/** Entries that are drawn; the search finds the others. */
const MOST_SHOWN = 200;

/** The end of an import, and the last deleted conversation. They outlive the list, which each conversation draws anew. */
const note = signal("");
const deleted = signal<Conversation | null>(null);

interface Props {
  current: Conversation;
  create: () => void;
  /** Called when an entry was chosen. */
  chosen: () => void;
}

/** The list, the last changed first. */
export function List({ current, create, chosen }: Props) {
  const chooser = useRef<HTMLInputElement>(null);
  const [words, setWords] = useState("");
  const all = store.conversations.value;
  const wanted = words.trim().toLowerCase();
  const matching = wanted ? all.filter((one) => holds(one, wanted)) : all;
  const take = async (file: File | undefined) => {
    if (!file) return;
    try {
      const found = parsed(await file.text());
      found.forEach(store.put);
      note.value = `${found.length} imported from ${file.name}`;
    } catch (error) {
      note.value = `${file.name} was not imported: ${error instanceof Error ? error.message : String(error)}`;
    }
  };
  const remove = (one: Conversation) => {
    stopAll(one.id);
    void store.remove(one.id);
    deleted.value = one;
    if (one.id === current.id) open("playground");
  };
  const undo = () => {
    const back = deleted.value!;
    store.put(back);
    deleted.value = null;
    open("playground", back.id);
  };
  return (
    <aside class="list" aria-label="Conversations">
      <button class="button" onClick={create}>New conversation</button>
      {all.length > 1 && <input class="input" type="search" aria-label="Search the conversations" placeholder="Search" value={words} onInput={(event) => setWords(event.currentTarget.value)} />}
      <ul>
        {matching.slice(0, MOST_SHOWN).map((one) => (
          <li key={one.id}>
            <a class="entry" href={link("playground", one.id)} aria-current={one.id === current.id} onClick={chosen}>{visible(one.title)}</a>
            <button class="button plain small" aria-label={`Delete ${visible(one.title)}`} onClick={() => remove(one)}>×</button>
          </li>
        ))}
        {all.length === 0 && <li class="quiet small">A sent message begins the first one.</li>}
        {matching.length > MOST_SHOWN && <li class="quiet small">{matching.length - MOST_SHOWN} more: search for them</li>}
      </ul>
      {deleted.value && (
        <p class="notice" role="status">Deleted “{visible(deleted.value.title)}”. <button class="button small" onClick={undo}>Undo</button></p>
      )}
      {note.value && <p class="notice" role="status">{note.value}</p>}
      <p class="actions">
        <button class="button plain small" disabled={!current.leaf} onClick={() => download(exported([current]), EXPORT_NAME, "application/json")}>Export this</button>
        <button class="button plain small" disabled={!all.length} onClick={() => download(exported(all), EXPORT_NAME, "application/json")}>Export all</button>
        <button class="button plain small" onClick={() => chooser.current?.click()}>Import</button>
        <input ref={chooser} type="file" accept="application/json,.json" hidden aria-label="Exported conversations" onChange={(event) => { void take(event.currentTarget.files?.[0]); event.currentTarget.value = ""; }} />
      </p>
    </aside>
  );
}

function holds(one: Conversation, words: string): boolean {
  return one.title.toLowerCase().includes(words) || Object.values(one.messages).some((message) => message.content.toLowerCase().includes(words));
}
