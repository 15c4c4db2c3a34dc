/** Conversations as values. A conversation is a tree, so an edited question keeps the earlier answers. */

import { identifier } from "../parts/identifier.ts";

export interface Medium {
  /** The media type, such as `image/png`. */
  type: string;
  /** Base64 without a prefix. */
  data: string;
}

export interface ToolCall {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
}

export interface Stats {
  promptTokens: number;
  cachedTokens: number;
  tokens: number;
  /** Seconds of generation. */
  seconds: number;
  /** Seconds until the first token. */
  firstToken: number;
}

export interface Message {
  id: string;
  parent: string | null;
  role: "user" | "assistant" | "tool";
  content: string;
  thinking: string;
  media: Medium[];
  /** The calls of an answer. */
  calls: ToolCall[];
  /** The call whose result this message is. */
  call: { id: string; name: string } | null;
  model: string;
  stats: Stats | null;
  /** Why the answer ended, if that is not its own end: `length`, `stopped`. */
  ended: string;
  error: string;
  hint: string;
}

/** One line of the conversation: a model, and the end of the branch that it is shown with. */
export interface Line {
  model: string;
  /** The last message; null before the first. */
  leaf: string | null;
}

export interface Conversation extends Line {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  changed: number;
  system: string;
  /** The JSON schema of the answer, as text; empty for none. */
  schema: string;
  /** The declared tools, as text; empty for none. */
  tools: string;
  /** The reasoning: empty for the manifest's, `on`, `off`, or an effort. */
  think: string;
  /** Parameters as they were typed. */
  options: Record<string, string>;
  messages: Messages;
  /** A second model that answers the same prompts; null without one. */
  beside: Line | null;
}

export type Messages = Record<string, Message>;

/** The place of a line on the screen: 0 is the conversation itself, 1 the model beside it. */
export type Column = 0 | 1;

const FORMAT = "mullama.conversations/1";
const UNTITLED = "New conversation";

/** Return a message with the parts that are given. */
export function message(parts: Partial<Message> & Pick<Message, "role">): Message {
  return {
    id: identifier(), parent: null, content: "", thinking: "", media: [], calls: [], call: null, model: "",
    stats: null, ended: "", error: "", hint: "", ...parts,
  };
}

/** Return a new conversation with the model and the settings of another one, but without its schema and tools. */
export function created(model: string, like?: Conversation): Conversation {
  return {
    id: identifier(), title: UNTITLED, changed: Date.now(), model: like?.model || model, system: like?.system ?? "",
    schema: "", tools: "", think: like?.think ?? "", options: like?.options ?? {}, messages: {}, leaf: null, beside: null,
  };
}

/** Return the line of a column. */
export function lineOf(conversation: Conversation, column: Column): Line {
  return column === 1 && conversation.beside ? conversation.beside : conversation;
}

/** Return the conversation with another end of the branch of a column. */
export function withLeaf(conversation: Conversation, column: Column, leaf: string | null): Conversation {
  return column === 1 && conversation.beside
    ? { ...conversation, beside: { ...conversation.beside, leaf } }
    : { ...conversation, leaf };
}

/** Return the messages from the first one to `leaf`. */
export function branch(messages: Messages, leaf: string | null): Message[] {
  const found: Message[] = [];
  for (let id = leaf; id !== null; id = found.at(-1)!.parent) found.push(messages[id]!);
  return found.reverse();
}

const children = new WeakMap<Messages, Map<string | null, Message[]>>();

/** Return the messages below one message, or the first messages for null, oldest first. */
export function below(messages: Messages, parent: string | null): Message[] {
  let known = children.get(messages);
  if (!known) {
    known = new Map();
    for (const one of Object.values(messages)) {
      const others = known.get(one.parent);
      if (others) others.push(one);
      else known.set(one.parent, [one]);
    }
    children.set(messages, known);
  }
  return known.get(parent) ?? [];
}

/** Return the end of the newest branch below a message. */
export function newestLeaf(messages: Messages, id: string): string {
  let leaf = id;
  for (let next = below(messages, leaf); next.length; next = below(messages, leaf)) leaf = next.at(-1)!.id;
  return leaf;
}

/** Return the conversation with a message at the end of the branch of a column. */
export function added(conversation: Conversation, column: Column, one: Message): Conversation {
  const title = conversation.title === UNTITLED && one.role === "user" ? one.content.trim().slice(0, 60) || UNTITLED : conversation.title;
  const messages = { ...conversation.messages, [one.id]: one };
  return withLeaf({ ...conversation, title, changed: Date.now(), messages }, column, one.id);
}

/** Return the conversation with a changed message; unchanged if it has no such message. */
export function replaced(conversation: Conversation, one: Message): Conversation {
  if (!(one.id in conversation.messages)) return conversation;
  return { ...conversation, changed: Date.now(), messages: { ...conversation.messages, [one.id]: one } };
}

/** Return the calls at the end of a branch that have no result yet. */
export function openCalls(shown: Message[]): ToolCall[] {
  const place = shown.findLastIndex((one) => one.role !== "tool");
  const calls = shown[place]?.calls ?? [];
  return calls.slice(shown.length - place - 1);
}

/** Return the versions of two tabs as one: the settings of the newer one, and the messages of both. */
export function merged(stored: Pick<Conversation, "messages"> | undefined, own: Conversation): Conversation {
  return stored ? { ...own, messages: { ...stored.messages, ...own.messages } } : own;
}

/** Return the text of an export. */
export function exported(chosen: Conversation[]): string {
  return JSON.stringify({ format: FORMAT, conversations: chosen }, null, 1);
}

/** Return the conversations of an exported file. Raises an error for another file, and for a damaged conversation. */
export function parsed(text: string): Conversation[] {
  let tree: unknown;
  try {
    tree = JSON.parse(text);
  } catch (error) {
    throw new Error(`it is not JSON (${error instanceof Error ? error.message : String(error)})`);
  }
  const all = isRecord(tree) && tree["format"] === FORMAT ? tree["conversations"] : undefined;
  if (!Array.isArray(all)) throw new Error(`it is no export of conversations: "format" is not "${FORMAT}"`);
  return all.map((one, index) => {
    try {
      return { ...checked(one), id: identifier() };
    } catch (error) {
      throw new Error(`conversation ${index + 1}: ${error instanceof Error ? error.message : String(error)}`);
    }
  });
}

/** Return a conversation of unknown origin with every field. Raises an error if its messages are no tree. */
export function checked(value: unknown): Conversation {
  if (!isRecord(value)) throw new Error("it is not a JSON object");
  const messages: Messages = {};
  for (const [id, one] of Object.entries(isRecord(value["messages"]) ? value["messages"] : {})) messages[id] = checkedMessage(id, one);
  for (const one of Object.values(messages)) {
    const seen = new Set<string>();
    for (let at: string | null = one.id; at !== null; at = messages[at]!.parent) {
      if (!(at in messages)) throw new Error(`message ${at} is missing`);
      if (seen.has(at)) throw new Error(`message ${at} is below itself`);
      seen.add(at);
      if (reachable.has(messages[at]!)) break;
    }
    for (const at of seen) reachable.add(messages[at]!);
  }
  const beside = value["beside"];
  return {
    id: text(value["id"]) || identifier(),
    title: text(value["title"]) || UNTITLED,
    changed: typeof value["changed"] === "number" ? value["changed"] : Date.now(),
    model: text(value["model"]),
    system: text(value["system"]),
    schema: text(value["schema"]),
    tools: text(value["tools"]),
    think: text(value["think"]),
    options: texts(value["options"]),
    messages,
    leaf: leafOf(value["leaf"], messages) ?? newest(messages),
    beside: isRecord(beside) ? { model: text(beside["model"]), leaf: leafOf(beside["leaf"], messages) } : null,
  };
}

/** Messages that are known to lead to the first one. */
const reachable = new WeakSet<Message>();

function checkedMessage(id: string, value: unknown): Message {
  if (!isRecord(value)) throw new Error(`message ${id} is not a JSON object`);
  const role = value["role"];
  if (role !== "user" && role !== "assistant" && role !== "tool") throw new Error(`message ${id} has the role ${JSON.stringify(role)}`);
  const call = value["call"];
  return message({
    id,
    parent: typeof value["parent"] === "string" ? value["parent"] : null,
    role,
    content: text(value["content"]),
    thinking: text(value["thinking"]),
    media: list(value["media"]).filter(isRecord).map((one) => ({ type: text(one["type"]), data: text(one["data"]) })).filter(isMedium),
    calls: list(value["calls"]).filter(isRecord).map((one) => ({
      id: text(one["id"]), name: text(one["name"]), arguments: isRecord(one["arguments"]) ? one["arguments"] : {},
    })),
    call: isRecord(call) ? { id: text(call["id"]), name: text(call["name"]) } : null,
    model: text(value["model"]),
    stats: isRecord(value["stats"]) ? statsOf(value["stats"]) : null,
    ended: text(value["ended"]),
    error: text(value["error"]),
    hint: text(value["hint"]),
  });
}

function statsOf(value: Record<string, unknown>): Stats {
  const number = (name: string) => (typeof value[name] === "number" ? value[name] : 0);
  return {
    promptTokens: number("promptTokens"), cachedTokens: number("cachedTokens"), tokens: number("tokens"),
    seconds: number("seconds"), firstToken: number("firstToken"),
  };
}

/** Return the last message that was added: the one to show where a file names none of its messages. */
function newest(messages: Messages): string | null {
  const id = Object.keys(messages).at(-1);
  return id === undefined ? null : newestLeaf(messages, id);
}

function leafOf(value: unknown, messages: Messages): string | null {
  return typeof value === "string" && value in messages ? value : null;
}

function isMedium(one: Medium): boolean {
  return /^(image|audio)\/[\w.+-]+$/.test(one.type) && /^[\w+/=]*$/.test(one.data);
}

/** Return true for a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function texts(value: unknown): Record<string, string> {
  return isRecord(value) ? Object.fromEntries(Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === "string")) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
