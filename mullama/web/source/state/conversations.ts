/** Conversations, kept in this browser. A conversation is a tree, so an edited question keeps the earlier answers. */

import { signal } from "@preact/signals";

export interface Message {
  id: string;
  parent: string | null;
  role: "user" | "assistant";
  content: string;
  thinking: string;
  /** Base64 without a prefix, with the media type. */
  media: { type: string; data: string }[];
  model?: string;
  stats?: Stats;
  error?: string;
}

export interface Stats {
  promptTokens: number;
  tokens: number;
  seconds: number;
  firstToken: number;
}

export interface Options {
  temperature: string;
  top_p: string;
  num_predict: string;
  seed: string;
}

export interface Conversation {
  id: string;
  title: string;
  changed: number;
  model: string;
  system: string;
  schema: string;
  options: Options;
  messages: Record<string, Message>;
  /** The last message of the shown branch; null before the first. */
  leaf: string | null;
}

const NAME = "mullama";
const STORE = "conversations";

export const conversations = signal<Conversation[]>([]);
export const storageError = signal("");

let database: Promise<IDBDatabase> | null = null;

function opened(): Promise<IDBDatabase> {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return database;
}

function finished<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function store(mode: IDBTransactionMode): Promise<IDBObjectStore> {
  return (await opened()).transaction(STORE, mode).objectStore(STORE);
}

/** Read all conversations, the last changed first. */
export async function load(): Promise<void> {
  await guarded(async () => {
    const found = (await finished((await store("readonly")).getAll())) as Conversation[];
    conversations.value = found.sort((a, b) => b.changed - a.changed);
  });
}

/** Keep a changed conversation. */
export async function save(conversation: Conversation): Promise<void> {
  const others = conversations.value.filter((one) => one.id !== conversation.id);
  conversations.value = [conversation, ...others];
  await guarded(async () => finished((await store("readwrite")).put(conversation)));
}

/** Delete a conversation. */
export async function remove(id: string): Promise<void> {
  conversations.value = conversations.value.filter((one) => one.id !== id);
  await guarded(async () => finished((await store("readwrite")).delete(id)));
}

async function guarded(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
    storageError.value = "";
  } catch (error) {
    storageError.value = `This browser does not keep the conversations: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Return a new conversation with the settings of another one. */
export function created(model: string, like?: Conversation): Conversation {
  const options = like?.options ?? { temperature: "", top_p: "", num_predict: "", seed: "" };
  return {
    id: crypto.randomUUID(), title: "New conversation", changed: Date.now(), model: like?.model || model,
    system: like?.system ?? "", schema: "", options, messages: {}, leaf: null,
  };
}

/** Return the messages of the shown branch, oldest first. */
export function branch(conversation: Conversation): Message[] {
  const found: Message[] = [];
  for (let id = conversation.leaf; id !== null; id = found[0]!.parent) found.unshift(conversation.messages[id]!);
  return found;
}

/** Return the messages that stand at the place of this one, oldest first. */
export function siblings(conversation: Conversation, message: Message): Message[] {
  return Object.values(conversation.messages).filter((one) => one.parent === message.parent);
}

/** Return the end of the newest branch below a message. */
export function newestLeaf(conversation: Conversation, id: string): string {
  const below = Object.values(conversation.messages).filter((one) => one.parent === id);
  return below.length ? newestLeaf(conversation, below.at(-1)!.id) : id;
}

/** Return the conversation with a message added at the end of a branch, which is shown then. */
export function added(conversation: Conversation, message: Message): Conversation {
  const title = conversation.leaf === null && message.role === "user" ? message.content.trim().slice(0, 60) || conversation.title : conversation.title;
  return { ...conversation, title, changed: Date.now(), messages: { ...conversation.messages, [message.id]: message }, leaf: message.id };
}

/** Return the conversations of an exported file. Raises an error for another file. */
export function parsed(text: string): Conversation[] {
  const tree = JSON.parse(text) as { format?: string; conversations?: Conversation[] };
  if (tree.format !== "mullama.conversations/1" || !Array.isArray(tree.conversations)) {
    throw new Error("the file holds no exported conversations of mullama");
  }
  return tree.conversations.map((one) => ({ ...created(""), ...one, id: crypto.randomUUID() }));
}

/** Return the text of an export. */
export function exported(chosen: Conversation[]): string {
  return JSON.stringify({ format: "mullama.conversations/1", conversations: chosen }, null, 1);
}
