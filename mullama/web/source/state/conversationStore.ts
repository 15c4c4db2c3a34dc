/** The conversations of this browser. Each change is kept in memory first, so a refused storage loses nothing. */

import { signal } from "@preact/signals";

import { keep, ofServer, recalled } from "./browserStorage.ts";
import { checked, merged } from "./conversations.ts";
import type { Conversation } from "./conversations.ts";

const NAME = ofServer("mullama");
const STORE = "conversations";
const LEFT = "conversations that were not written";

/** All conversations, the last changed first. */
export const conversations = signal<Conversation[]>([]);
/** True once the kept conversations were read, or cannot be. */
export const loaded = signal(false);
/** Why this browser does not keep the conversations; empty where it does. */
export const storageError = signal("");

let database: Promise<IDBDatabase> | null = null;
/** Conversations that are changed in this tab and not yet written. */
const waiting = new Set<string>();
/** Conversations that the storage refused, or that were deleted here: a reload of the list must not undo that. */
const unwritten = new Set<string>();

function opened(): Promise<IDBDatabase> {
  database ??= new Promise<IDBDatabase>((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab holds an older version of the storage"));
  });
  database.catch(() => { database = null; });
  return database;
}

/** Run work in one transaction, and wait until it is on disk: a full disk ends the transaction, not the request. */
async function transaction<Result>(mode: IDBTransactionMode, work: (store: IDBObjectStore, give: (result: Result) => void, fail: (reason: unknown) => void) => void): Promise<Result | undefined> {
  const base = await opened();
  return new Promise((resolve, reject) => {
    const run = base.transaction(STORE, mode);
    let result: Result | undefined;
    run.oncomplete = () => resolve(result);
    run.onabort = run.onerror = () => reject(run.error ?? new Error("the transaction was ended"));
    work(run.objectStore(STORE), (value) => { result = value; }, reject);
  });
}

/** Read all conversations. Those that only this tab has stay, also from before a reload. */
export async function load(): Promise<void> {
  if (!loaded.value) left().forEach(put);
  await guarded(async () => {
    const found = await transaction<unknown[]>("readonly", (store, give) => {
      const request = store.getAll();
      request.onsuccess = () => give(request.result);
    });
    const own = new Map(conversations.value.filter((one) => waiting.has(one.id) || unwritten.has(one.id)).map((one) => [one.id, one]));
    for (const value of found ?? []) {
      const one = usable(value);
      if (one && !own.has(one.id) && !unwritten.has(one.id)) own.set(one.id, one);
    }
    conversations.value = sorted([...own.values()]);
  });
  loaded.value = true;
}

function usable(value: unknown): Conversation | null {
  try {
    return checked(value);
  } catch {
    return null; // of another version of the page
  }
}

function sorted(all: Conversation[]): Conversation[] {
  return all.sort((a, b) => b.changed - a.changed);
}

/** Return a conversation by its id. */
export function found(id: string): Conversation | undefined {
  return conversations.value.find((one) => one.id === id);
}

/** Keep a changed conversation. */
export function put(conversation: Conversation): void {
  const others = conversations.value.filter((one) => one.id !== conversation.id);
  conversations.value = sorted([conversation, ...others]);
  if (!waiting.size) setTimeout(() => void flush(), 200);
  waiting.add(conversation.id);
}

/** Change a conversation as it is now; nothing if it was deleted since. */
export function update(id: string, change: (conversation: Conversation) => Conversation): void {
  const known = found(id);
  if (known) put(change(known));
}

/** Return the conversations that this tab had not written when its page was left, once. */
function left(): Conversation[] {
  const text = recalled("tab", LEFT);
  keep("tab", LEFT, "");
  try {
    return (JSON.parse(text || "[]") as unknown[]).map(usable).filter((one) => one !== null);
  } catch {
    return []; // not what this page keeps
  }
}

/** Write what is not yet written, when the page may be left. That ends writes to the database, but not this text. */
function leave(): void {
  const due = conversations.value.filter((one) => waiting.has(one.id) || unwritten.has(one.id));
  if (due.length) keep("tab", LEFT, JSON.stringify(due));
  void flush().then(() => unwritten.size || keep("tab", LEFT, ""));
}

/** Write what is not yet written. */
export async function flush(): Promise<void> {
  const due = new Set([...waiting, ...unwritten]);
  waiting.clear();
  for (const id of due) {
    await guarded(async () => {
      const own = found(id);
      if (!own) return;
      unwritten.add(id);
      await transaction("readwrite", (store, _, fail) => {
        const request = store.get(id);
        request.onsuccess = () => {
          try {
            store.put(merged(request.result as Conversation | undefined, own));
          } catch (error) {
            fail(error);
          }
        };
      });
      unwritten.delete(id);
    });
  }
}

/** Delete a conversation. */
export async function remove(id: string): Promise<void> {
  conversations.value = conversations.value.filter((one) => one.id !== id);
  waiting.delete(id);
  await guarded(async () => {
    unwritten.add(id);
    await transaction("readwrite", (store) => store.delete(id));
    unwritten.delete(id);
  });
}

async function guarded(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
    storageError.value = "";
  } catch (error) {
    storageError.value = error instanceof Error ? error.message : String(error);
  }
}

// A closed or hidden tab may not come back, and another tab may have changed the list.
document.addEventListener("visibilitychange", () => void (document.visibilityState === "hidden" ? leave() : loaded.value && load()));
window.addEventListener("pagehide", leave);
